//! SIGINT, SIGTERM and SIGHUP: the first asks for a clean stop, the second stops at once. A SIGHUP
//! that whoever started us has ignored (`nohup`) stays ignored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::Thread;

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

/// Whether somebody asked for a stop.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// True from the first signal on.
    pub fn is_asked(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Listens from now on. The thread that calls is woken by the first signal.
///
/// # Errors
/// The system refuses.
pub fn listen() -> anyhow::Result<Stop> {
    if hangup_is_ignored() {
        // Every thread inherits it, and what all threads block is never delivered.
        SigSet::from(Signal::SIGHUP)
            .thread_block()
            .context("cannot block SIGHUP")?;
    }
    let stop = Stop(Arc::default());
    let (asked, main): (Stop, Thread) = (stop.clone(), std::thread::current());
    ctrlc::set_handler(move || {
        if asked.0.swap(true, Relaxed) {
            // Without a word, which could wait for whoever reads stderr.
            std::process::exit(1);
        }
        main.unpark();
    })
    .context("cannot handle signals")?;
    Ok(stop)
}

fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (Signal::SIGHUP as u32 - 1) & 1 != 0)
}
