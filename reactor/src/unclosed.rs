//! Descriptors that clients sent and nobody wants, counted until they are closed.

use std::os::fd::OwnedFd;
use std::sync::Arc;

/// How many descriptors of a client wait to be closed. A clone is the same count.
#[derive(Debug, Default)]
pub struct Unclosed(Arc<()>);

/// A descriptor that nobody wants, counted until it is closed.
#[derive(Debug)]
pub struct Unwanted {
    // Declared before what counts it: it goes first.
    fd: OwnedFd,
    _counted: Arc<()>,
}

impl Unclosed {
    /// Counts one more.
    pub fn count(&self, fd: OwnedFd) -> Unwanted {
        Unwanted {
            fd,
            _counted: Arc::clone(&self.0),
        }
    }

    /// How many there are.
    pub fn waiting(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

impl Unwanted {
    /// For a last look at it.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}
