//! The daemon `bellwire`: fully emulated NVMe disks for virtual machines, over vfio-user.
//!
//! `main` turns arguments into a [`config::Config`], builds a [`target::Target`] from it, runs it,
//! and turns what came of it into an exit code: 0 for a clean stop, 2 for anything wrong before the
//! first `ready` line, 1 for anything wrong afterwards.

mod cli;
mod closer;
mod config;
mod control;
mod cpu;
mod doctor;
mod endpoint;
mod eventfd;
mod host;
mod idle;
mod listener;
mod logging;
mod message;
mod numa;
mod reactor;
mod roster;
mod signal;
mod sockets;
mod target;
mod turns;
mod unclosed;

use std::io::{self, Write};
use std::process::ExitCode;

use self::cli::Command;
use self::config::Config;
use self::signal::Stop;
use self::target::Target;

fn main() -> ExitCode {
    match cli::parse() {
        Ok(Command::Serve { config, log_level }) => serve(&config, log_level),
        Ok(Command::Doctor { mask }) => match doctor::run(mask.as_ref()) {
            Ok(nothing_is_bad) => ExitCode::from(u8::from(!nothing_is_bad)),
            Err(error) => fail(&error, 2),
        },
        Err(exit) => exit,
    }
}

fn serve(config: &Config, log_level: tracing::Level) -> ExitCode {
    let logs = logging::start(log_level);
    if cfg!(feature = "volatile-state") {
        tracing::warn!("built without durable state, to be measured and for nothing else");
    }
    let served = build(config, &logs).map(|(target, stop)| target.run(&logs, &stop));
    logs.drain();
    match served {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error, 1),
        Err(error) => fail(&error, 2),
    }
}

/// Everything up to the first `ready` line.
fn build(config: &Config, logs: &logging::Logs) -> anyhow::Result<(Target, Stop)> {
    // Threads inherit the cores that they may use, and the signals that they block: both are
    // settled before there is one.
    let mask = cpu::choose(config.mask.as_ref())?;
    cpu::stay_off(&mask)?;
    let stop = signal::listen()?;
    logs.write_from_now_on();
    bdev::memory::install_sigbus_handler();
    Ok((Target::build(config, &mask)?, stop))
}

/// Says why, in one sentence.
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    // Whoever started us may not listen any more.
    let _ = writeln!(io::stderr(), "bellwire: {error:#}");
    ExitCode::from(code)
}
