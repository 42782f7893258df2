//! The command line: one way to make a [`Config`].

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{BdevConfig, Config, ControllerConfig, parse_mode};
use crate::cpu::CoreMask;
use crate::idle::Idle;

/// What the command line asks for.
pub enum Command {
    Serve {
        config: Config,
        log_level: tracing::Level,
    },
    Doctor {
        mask: Option<CoreMask>,
    },
}

/// NVMe disks for virtual machines, from userspace, over vfio-user.
#[derive(Parser)]
#[command(name = "bellwire", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve disks on sockets until SIGINT or SIGTERM.
    #[command(after_help = SERVE_HELP)]
    Serve(Serve),
    /// Say what on this host hurts the latency of polling, and what mends it.
    #[command(after_help = DOCTOR_HELP)]
    Doctor(Doctor),
}

#[derive(Args)]
struct Doctor {
    /// Cores that will poll, as for `serve`. Default: the last allowed core.
    #[arg(short = 'm', long = "cpumask", value_name = "MASK")]
    mask: Option<CoreMask>,
}

#[derive(Args)]
struct Serve {
    /// Cores that poll, one reactor each: `0x5`, `[0-3,8]` or `0-3,8`. Default: the last allowed
    /// core.
    #[arg(short = 'm', long = "cpumask", value_name = "MASK")]
    mask: Option<CoreMask>,
    /// A disk: `KIND:NAME[,key=value..]`
    #[arg(long = "bdev", value_name = "KIND:NAME,..", value_parser = BdevConfig::parse)]
    bdevs: Vec<BdevConfig>,
    /// An NVMe controller: `socket=PATH,ns=NAME[@NSID][,ns=NAME..][,key=value..]`
    #[arg(long = "controller", value_name = "socket=PATH,ns=NAME,..",
          value_parser = ControllerConfig::parse)]
    controllers: Vec<ControllerConfig>,
    /// Permissions of sockets, octal.
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = parse_mode)]
    socket_mode: u32,
    /// Group of sockets.
    #[arg(long, value_name = "GROUP")]
    socket_group: Option<String>,
    /// Poll on cores that another process has locked for polling.
    #[arg(long)]
    disable_cpumask_locks: bool,
    /// What a reactor does when nothing happens: `spin`, `pause`, or `sleep=MICROSECONDS` between
    /// two passes, after 1 ms without a command or a message; the longer nothing happens, the
    /// longer, as far as 16 times MICROSECONDS and 10 ms.
    #[arg(long, value_name = "POLICY", default_value = "spin")]
    idle: Idle,
    /// Accept guest memory from any file, not only memfd, tmpfs and hugetlbfs. A guest whose pages
    /// do not come then stops the reactor it is on.
    #[arg(long)]
    allow_any_guest_memory: bool,
    /// After each `ready` line, print the arguments that attach the disk.
    #[arg(long)]
    print_qemu: bool,
    /// What is logged on stderr.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: Level,
}

#[derive(Clone, Copy, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

const SERVE_HELP: &str = "\
Disks (--bdev):
  null:NAME    nothing is stored       size=SIZE (1t) block=SIZE
  malloc:NAME  memory of the process   size=SIZE block=SIZE
  file:NAME    a file or block device  path=PATH size=SIZE block=SIZE readonly=on|off direct=on|off
  all kinds                            uuid=UUID

  file: size= creates a missing file; an existing one must have that size.
  block is 512 unless given. Sizes: 4096, 4k, 512MiB, 10G (powers of 1024).

Controllers (--controller):
  socket=PATH ns=NAME[@NSID]           may be given several times: ns
  serial=TEXT model=TEXT nqn=TEXT      default: from the socket path
  queues=1-128 (64) depth=2-4096 (1024) vectors=1-128 (64) intx=on|off (off)
  cores=MASK                           some of -m; default: all
  mode=OCTAL group=GROUP               of the socket
  shared=on|off                        needed of every controller that shares a disk
  dbbuf=on|off|auto                    shadow doorbells; auto: for clients that do not map doorbells

A comma inside [ ] does not separate, ,, is a literal comma, values may hold : and =.

Example:
  bellwire serve -m [2,3] --bdev file:disk0,path=/var/lib/disk0.img,size=10G \\
                 --controller socket=/run/bellwire/disk0.sock,ns=disk0";

const DOCTOR_HELP: &str = "\
Levels: ok; better: works, would be faster otherwise; bad: mend it first; unknown: this host does
not tell. Nothing is changed. The exit code is 1 if anything is bad, 2 if the mask is wrong, else
0.";

/// Reads the process's arguments.
///
/// # Errors
/// The exit code, after help, the version or what is wrong was printed.
pub fn parse() -> Result<Command, ExitCode> {
    let cli = Cli::try_parse().map_err(|error| {
        match error.kind() {
            // Broken pipes of `bellwire --help | head` are nobody's error.
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => drop(error.print()),
            _ => eprintln!("bellwire: {}", sentence(&error.to_string())),
        }
        ExitCode::from(if error.use_stderr() { 2 } else { 0 })
    })?;
    let serve = match cli.command {
        Verb::Doctor(doctor) => return Ok(Command::Doctor { mask: doctor.mask }),
        Verb::Serve(serve) => serve,
    };
    let log_level = match serve.log {
        Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
    };
    let config = Config {
        mask: serve.mask,
        core_locks: !serve.disable_cpumask_locks,
        bdevs: serve.bdevs,
        controllers: serve.controllers,
        socket_mode: serve.socket_mode,
        socket_group: serve.socket_group,
        idle: serve.idle,
        any_guest_memory: serve.allow_any_guest_memory,
        print_qemu: serve.print_qemu,
    };
    Ok(Command::Serve { config, log_level })
}

/// What clap says is wrong, without the usage that it appends after an empty line.
fn sentence(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let lines = text.lines().take_while(|line| !line.is_empty());
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
