//! The daemon `bellwire`: fully emulated NVMe disks for virtual machines, over vfio-user.
//!
//! `main` turns arguments into a [`config::Config`], builds a [`target::Target`] from it, runs it,
//! and turns what came of it into an exit code: 0 for a clean stop, 2 for anything wrong before the
//! first `ready` line, 1 for anything wrong afterwards.

mod cli;
mod config;
mod control;
mod cpu;
mod endpoint;
mod eventfd;
mod listener;
mod logging;
mod message;
mod reactor;
mod signal;
mod target;

use std::process::ExitCode;

use self::cli::Command;
use self::target::Target;

fn main() -> ExitCode {
    let Command { config, log_level } = match cli::parse() {
        Ok(command) => command,
        Err(exit) => return exit,
    };
    let logs = logging::start(log_level);
    let stop = match signal::listen() {
        Ok(stop) => stop,
        Err(error) => return refuse(&logs, &error),
    };
    bdev::memory::install_sigbus_handler();
    let target = match Target::build(&config) {
        Ok(target) => target,
        Err(error) => return refuse(&logs, &error),
    };
    let ended = target.run(&logs, &stop);
    logs.drain();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bellwire: {error:#}");
            ExitCode::from(1)
        }
    }
}

/// Says why nothing was served, in one sentence.
fn refuse(logs: &logging::Logs, error: &anyhow::Error) -> ExitCode {
    logs.drain();
    eprintln!("bellwire: {error:#}");
    ExitCode::from(2)
}
