//! What keeps targets from being compared.

use super::pause::PauseError;
use crate::limits;
use crate::workload;

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Workload(#[from] workload::Error),
    #[error(transparent)]
    Limits(#[from] limits::Error),
    #[error(transparent)]
    Pause(#[from] PauseError),
}
