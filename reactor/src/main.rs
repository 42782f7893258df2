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
mod idle;
mod listener;
mod logging;
mod message;
mod reactor;
mod signal;
mod target;

use std::io::{self, Write};
use std::process::ExitCode;

use self::cli::Command;
use self::target::Target;

fn main() -> ExitCode {
    let Command { config, log_level } = match cli::parse() {
        Ok(command) => command,
        Err(exit) => return exit,
    };
    let logs = logging::start(log_level);
    // Threads inherit the cores that they may use: the polling ones are left before there are any.
    let mask = cpu::choose(config.mask.as_ref());
    let mask = match mask.and_then(|mask| cpu::stay_off(&mask).map(|()| mask)) {
        Ok(mask) => mask,
        Err(error) => return refuse(&logs, &error),
    };
    // Before there are threads as well, for their signal masks.
    let stop = match signal::listen() {
        Ok(stop) => stop,
        Err(error) => return refuse(&logs, &error),
    };
    logs.write_from_now_on();
    bdev::memory::install_sigbus_handler();
    let target = match Target::build(&config, &mask) {
        Ok(target) => target,
        Err(error) => return refuse(&logs, &error),
    };
    match target.run(&logs, &stop) {
        Ok(()) => {
            logs.drain();
            ExitCode::SUCCESS
        }
        Err(error) => fail(&logs, &error, 1),
    }
}

/// Says why nothing was served, in one sentence.
fn refuse(logs: &logging::Logs, error: &anyhow::Error) -> ExitCode {
    fail(logs, error, 2)
}

fn fail(logs: &logging::Logs, error: &anyhow::Error, code: u8) -> ExitCode {
    logs.drain();
    // Whoever started us may not listen any more.
    let _ = writeln!(io::stderr(), "bellwire: {error:#}");
    ExitCode::from(code)
}
