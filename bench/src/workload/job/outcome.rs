//! What came of a job.

use std::time::Duration;

use crate::workload::Failure;
use crate::workload::tally::Tally;

/// What it did, in what time, and why it ended if that was too soon.
#[derive(Debug)]
pub(crate) struct JobOutcome {
    pub(crate) tally: Tally,
    pub(crate) elapsed: Duration,
    pub(crate) blocks_verified: u64,
    /// How long other threads had the core.
    pub(crate) off_core: Duration,
    pub(crate) failure: Option<Failure>,
}

impl JobOutcome {
    /// That of a job which could not begin.
    pub(crate) fn failed(failure: Failure) -> JobOutcome {
        JobOutcome {
            tally: Tally::new(),
            elapsed: Duration::ZERO,
            blocks_verified: 0,
            off_core: Duration::ZERO,
            failure: Some(failure),
        }
    }
}
