//! `bellwire-bench`: a polled NVMe host driver over vfio-user, with workloads, verification and
//! reports.
//!
//! It connects to the socket of any vfio-user NVMe target, enables the controller, and drives I/O
//! queues from pinned threads that poll: no kernel driver, no interrupts and no virtual machine lie
//! between it and the target. What it measures is therefore the target.
//!
//! ```text
//! cli, job_options, job_file: what to do
//!  └► run ──► workload ──► job, one a queue and thread: hot loop ──► driver ──► target
//!      │                    └─ traffic: which command is next, what its data must be
//!      └────► report: text, or JSON with fio's names
//! ```
//!
//! # What it does not do
//!
//! Commands carry PRPs, no SGLs, and no metadata; namespaces with metadata are refused. Completions
//! are polled, never signalled. A latency is from the pass of the loop that submitted a command to
//! the pass that saw it completed: the clock is read once per pass with completions.

mod chart;
mod cli;
mod compare;
mod core_time;
mod cores;
mod driver;
#[cfg(test)]
mod emulated;
mod hold;
mod identify;
mod job_file;
mod job_options;
mod limits;
mod micro;
mod page;
mod progress;
mod report;
mod run;
mod workload;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

/// A command failed, or data was not what it had to be.
const EXIT_FAILED: u8 = 1;
/// Nothing was begun: the arguments are wrong, or the target cannot be used.
const EXIT_UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    bdev::memory::install_sigbus_handler();
    carry_out(Cli::parse())
}

fn carry_out(cli: Cli) -> ExitCode {
    let done: Result<bool, Box<dyn Error>> = match cli.command {
        Command::Compare(options) => compare::run(&options).map_err(Into::into),
        Command::Continue { processes } => compare::guard::run(&processes)
            .map(|()| true)
            .map_err(Into::into),
        Command::Hold(options) => hold::run(&options).map_err(Into::into),
        Command::Identify(options) => identify::run(&options).map(|()| true).map_err(Into::into),
        Command::Limits(options) => limits::run(&options).map_err(Into::into),
        Command::Micro(options) if options.list => {
            micro::list();
            Ok(true)
        }
        Command::Micro(options) => micro::run(options.case, options.commands)
            .map(|()| true)
            .map_err(Into::into),
        Command::Report(options) => page::run(&options).map(|()| true).map_err(Into::into),
        Command::Run(options) => run::run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILED),
        Err(error) => {
            eprintln!("bellwire-bench: {error}");
            ExitCode::from(EXIT_UNUSABLE)
        }
    }
}
