//! What the tests of poll groups and of whole controllers share.

pub(super) mod scripted;

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::message::Interrupt;

/// Counts how often it was raised.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicUsize);

impl Counter {
    pub(super) fn count(&self) -> usize {
        self.0.load(Relaxed)
    }
}

impl Interrupt for Counter {
    fn signal(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}
