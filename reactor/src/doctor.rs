//! `bellwire doctor`: what on this host hurts the latency of polling reactors, and what mends it.
//!
//! Every check reads files below one root folder and yields [`Finding`]s. A file that is not there
//! (containers and virtual machines hide many) makes a finding `unknown`, never an error.

mod cgroup;
mod cores;
mod kernel;
mod memory;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use crate::cpu::{self, CoreMask};
use crate::host::Host;

/// What a finding means for latency.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Level {
    Ok,
    /// Works, and would be faster otherwise.
    Better,
    /// Stops bellwire, or costs it milliseconds.
    Bad,
    Unknown,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Better => "better",
            Level::Bad => "bad",
            Level::Unknown => "unknown",
        }
    }
}

/// One line of the table, and the command that mends it.
#[derive(PartialEq, Eq, Debug)]
struct Finding {
    level: Level,
    what: &'static str,
    is: String,
    should: &'static str,
    mend: String,
}

impl Finding {
    /// The command is kept only where there is something to mend.
    fn new(level: Level, what: &'static str, is: impl Into<String>) -> Finding {
        Finding {
            level,
            what,
            is: is.into(),
            should: "",
            mend: String::new(),
        }
    }

    fn unknown(what: &'static str) -> Finding {
        Finding::new(Level::Unknown, what, "not told")
    }

    fn should(mut self, should: &'static str, mend: impl Into<String>) -> Finding {
        if matches!(self.level, Level::Better | Level::Bad) {
            self.should = should;
            self.mend = mend.into();
        }
        self
    }
}

/// Prints the table for the cores of `mask`, or those that would poll without one; false if
/// anything is bad.
///
/// # Errors
/// A core that this process may not run on.
pub fn run(mask: Option<&CoreMask>) -> anyhow::Result<bool> {
    let mask = cpu::choose(mask)?;
    let findings = examine(&Host::new(Path::new("/")), &mask);
    // Whoever reads the table may have seen enough of it.
    let _ = io::stdout().write_all(table(&findings, &mask).as_bytes());
    Ok(findings.iter().all(|finding| finding.level != Level::Bad))
}

fn examine(host: &Host, mask: &CoreMask) -> Vec<Finding> {
    let mut findings = cores::findings(host, mask);
    findings.extend(cgroup::findings(host, mask));
    findings.extend(memory::findings(host, mask));
    findings.extend(kernel::findings(host));
    findings
}

fn table(findings: &[Finding], mask: &CoreMask) -> String {
    let mut text = format!("cores {mask}\n\n");
    let mut line = |level: &str, what: &str, is: &str, should: &str| {
        let line = format!("{level:<8} {what:<16} {is:<36} {should}");
        let _ = writeln!(text, "{}", line.trim_end());
    };
    line("LEVEL", "WHAT", "IS", "SHOULD BE");
    for finding in findings {
        line(
            finding.level.name(),
            finding.what,
            &finding.is,
            finding.should,
        );
        if !finding.mend.is_empty() {
            line("", "", &format!("-> {}", finding.mend), "");
        }
    }
    text
}
