//! SIGINT, SIGTERM and SIGHUP: the first asks for a clean stop, the second stops at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::Thread;

use anyhow::Context;

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
    let stop = Stop(Arc::default());
    let (asked, main): (Stop, Thread) = (stop.clone(), std::thread::current());
    ctrlc::set_handler(move || {
        if asked.0.swap(true, Relaxed) {
            eprintln!("bellwire: second signal, stopping at once");
            std::process::exit(1);
        }
        main.unpark();
    })
    .context("cannot handle signals")?;
    Ok(stop)
}
