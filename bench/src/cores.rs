//! Which cores the threads run on.

use std::fmt;
use std::str::FromStr;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// A list of cores, in the order in which jobs take them, and not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores(Vec<usize>);

/// Why a list of cores cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CoresError {
    #[error("`{0}` is a bare number: write 0x{0} for a mask or [{0}] for a core")]
    BareNumber(String),
    #[error("`{0}` is not a list of cores like 0x5, [0-3,8] or 0-3,8")]
    Syntax(String),
    #[error("core {core} is beyond the last that can be named, {last}")]
    TooHigh { core: usize, last: usize },
    #[error("the list of cores is empty")]
    Empty,
    #[error("cannot run on core {core}: {errno}")]
    NotAllowed { core: usize, errno: Errno },
    #[error("cannot ask which cores this process may use: {0}")]
    Inherited(Errno),
}

impl Cores {
    /// The cores that this process may use.
    pub(crate) fn inherited() -> Result<Cores, CoresError> {
        let set = sched_getaffinity(Pid::from_raw(0)).map_err(CoresError::Inherited)?;
        let allowed = |core: &usize| set.is_set(*core).unwrap_or(false);
        Cores::new((0..CpuSet::count()).filter(allowed).collect())
    }

    /// Whether threads can run on all of them, tried by one that is gone afterwards.
    pub(crate) fn check(&self) -> Result<(), CoresError> {
        let pin = |core: &usize| {
            let not_allowed = |errno| CoresError::NotAllowed { core: *core, errno };
            Core(*core).pin().map_err(not_allowed)
        };
        let tried = thread::scope(|scope| scope.spawn(|| self.0.iter().try_for_each(pin)).join());
        // A thread that panics has been told of already.
        tried.unwrap_or(Ok(()))
    }

    /// The core of a job: the first job is at the first core, and behind the last core it is the
    /// first one's turn again.
    pub(crate) fn of_job(&self, job: usize) -> Core {
        Core(self.0[job % self.0.len()])
    }

    fn new(cores: Vec<usize>) -> Result<Cores, CoresError> {
        let last = CpuSet::count() - 1;
        match cores.iter().max() {
            None => Err(CoresError::Empty),
            Some(&core) if core > last => Err(CoresError::TooHigh { core, last }),
            Some(_) => Ok(Cores(cores)),
        }
    }
}

impl FromStr for Cores {
    type Err = CoresError;

    /// `0x5` is a mask, whose cores ascend; `[0-3,8]` and `0-3,8` are lists, whose cores stay in
    /// order, as often as they are named.
    fn from_str(text: &str) -> Result<Cores, CoresError> {
        let syntax = || CoresError::Syntax(text.to_owned());
        if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            return mask(digits).ok_or_else(syntax).and_then(Cores::new);
        }
        let bracketed = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if bracketed.is_none() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(CoresError::BareNumber(text.to_owned()));
        }
        let mut cores = Vec::new();
        for part in bracketed.unwrap_or(text).split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first), number(last));
            let (Some(first), Some(last)) = (first, last) else {
                return Err(syntax());
            };
            if first > last {
                return Err(syntax());
            }
            // Cut off before it is collected: the number of cores is far below.
            cores.extend(first..=last.min(first.saturating_add(CpuSet::count())));
        }
        Cores::new(cores)
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(usize::to_string).collect();
        write!(f, "[{}]", names.join(","))
    }
}

/// The number of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Core(pub(crate) usize);

impl Core {
    /// Keeps the calling thread on this core.
    pub(crate) fn pin(self) -> Result<(), Errno> {
        let mut set = CpuSet::new();
        set.set(self.0)?;
        sched_setaffinity(Pid::from_raw(0), &set)
    }
}

/// The cores of a hexadecimal mask.
fn mask(digits: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for (position, digit) in digits.chars().rev().enumerate() {
        let digit = digit.to_digit(16)?;
        let set = (0..4).filter(|bit| digit & 1 << bit != 0);
        cores.extend(set.map(|bit| position * 4 + bit));
    }
    (!digits.is_empty()).then_some(cores)
}

/// Digits only: no sign.
fn number(text: &str) -> Option<usize> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Masks, and their cores or "refused": the daemon's tests read the same table.
    const MASKS: &str = include_str!("../../docs/masks.txt");

    #[test]
    fn masks_are_read_or_refused_as_the_table_says() {
        let cases = MASKS.lines().filter_map(|line| line.split_once(" => "));
        let mut seen = 0;
        for (text, expected) in cases {
            let cores = text.trim_matches('"').parse::<Cores>();
            let cores = cores.map_or(vec!["refused".to_owned()], |cores| {
                let set = BTreeSet::from_iter(cores.0);
                set.iter().map(usize::to_string).collect()
            });
            assert_eq!(cores.join(" "), expected, "{text}");
            seen += 1;
        }
        assert!(seen > 40, "only {seen} cases");
    }

    #[test]
    fn a_bare_number_is_refused_with_what_it_may_mean() {
        let hint = "8".parse::<Cores>().expect_err("a bare number").to_string();
        assert!(hint.contains("0x8") && hint.contains("[8]"), "{hint}");
    }

    #[test]
    fn a_list_says_on_which_core_each_job_is() {
        let cores: Cores = "3,1,1,0-2".parse().expect("cores");
        let placed: Vec<usize> = (0..7).map(|job| cores.of_job(job).0).collect();
        assert_eq!(placed, [3, 1, 1, 0, 1, 2, 3]);
    }

    #[test]
    fn jobs_take_turns_on_the_cores() {
        let cores: Cores = "[2,5]".parse().expect("cores");
        let placed: Vec<usize> = (0..4).map(|job| cores.of_job(job).0).collect();
        assert_eq!(placed, [2, 5, 2, 5]);
    }

    #[test]
    fn a_core_that_is_not_there_is_found_out_beforehand() {
        assert!(Cores::inherited().expect("cores").check().is_ok());
        let refused = Cores(vec![CpuSet::count() - 1]).check();
        assert!(matches!(refused, Err(CoresError::NotAllowed { .. })));
    }

    #[test]
    fn a_thread_stays_on_an_inherited_core_it_is_pinned_to() {
        let core = Cores::inherited().expect("cores").of_job(0);
        let now = thread::spawn(move || {
            core.pin().expect("pinned");
            Cores::inherited().expect("cores").0
        });
        assert_eq!(now.join().expect("a thread"), [core.0]);
    }
}
