//! What `limits` is asked for.

use clap::Args;

use super::work::Commands;
use crate::cores::Cores;
use crate::job_options::Mode;

/// What is to be known beside the options.
pub(crate) const HELP: &str = "\
Between two threads that poll, each on a core of its own: the round trip of a cache line; commands
without a protocol (an entry of 64 bytes and a doorbell there, 16 bytes and a doorbell back) that do
nothing or copy 4 or 128 KiB from or to a random place of 256 MiB, in base and in huge pages, with
and without prefetch; on one core, the write of an eventfd, an io_uring no-op, and the processor
time of a short sleep; and how long a thread that sleeps on an idle core takes to tell that an
eventfd has woken it.

With --rw only what belongs to one workload, in a second or two: its commands empty, and copying in
huge pages in every way.

Medians over short windows, with the least and the greatest. A streaming write passes the caches.
Huge pages are those of the pool, if it has enough, else transparent ones: the report tells which.";

#[derive(Debug, Args)]
pub(crate) struct LimitsOptions {
    /// The client's core and the server's: 0x5 or 0,2 [default: the first two of those allowed]
    #[arg(long, value_name = "MASK")]
    pub(crate) cores: Option<Cores>,
    /// Measure only what belongs to this workload
    #[arg(long, value_enum)]
    rw: Option<Mode>,
    /// Bytes of one command of that workload
    #[arg(long, value_name = "SIZE", default_value = "4k", requires = "rw",
          value_parser = bdev::size::parse_size)]
    bs: u64,
    /// Its commands in flight
    #[arg(long, value_name = "N", default_value_t = 1, requires = "rw",
          value_parser = clap::value_parser!(u16).range(1..))]
    iodepth: u16,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Take fewer and shorter windows: a second instead of ten
    #[arg(long)]
    pub(crate) quick: bool,
}

impl LimitsOptions {
    /// The commands of the only workload to measure, if it is named.
    pub(crate) fn commands(&self) -> Option<Commands> {
        let workload = self.rw?.shape(50);
        Some(Commands::of(workload, self.bs, self.iodepth))
    }
}
