//! The [contract of a channel](crate#the-contract-of-a-channel) as a suite that each backend must
//! pass.
//!
//! A backend's tests call [`check`] with a function that makes a device, empty or not, of at least
//! [`DEVICE_BYTES_MIN`]; each part of the suite makes its own, after the one before was dropped. A
//! backend that keeps nothing calls [`check_without_data`]. Where [`Features`](crate::Features) or
//! [`Geometry`](crate::Geometry) deny something, the suite asks for the refusal. It panics with a
//! sentence at the first breach.

mod data;
mod protocol;
mod rig;
mod sharing;

use std::sync::Arc;
use std::time::Duration;

use crate::Bdev;

/// How large a device must be for the suite.
pub const DEVICE_BYTES_MIN: u64 = 8 << 20;

/// How long a request may take before it counts as lost. Long: a disk under load is slow, and a
/// suite that is impatient finds what is not there.
const PATIENCE: Duration = Duration::from_secs(30);

/// Holds a backend that keeps data to the whole contract.
///
/// # Panics
///
/// At the first breach, with a sentence that says which.
pub fn check(make: &dyn Fn() -> Arc<dyn Bdev>) {
    let subject = Subject {
        make,
        patience: PATIENCE,
    };
    subject.check_protocol();
    subject.check_data();
}

/// Holds a backend that keeps nothing to the part of the contract that is not about data.
///
/// # Panics
///
/// As [`check`].
pub fn check_without_data(make: &dyn Fn() -> Arc<dyn Bdev>) {
    Subject {
        make,
        patience: PATIENCE,
    }
    .check_protocol();
}

/// What is held to the contract.
struct Subject<'a> {
    make: &'a dyn Fn() -> Arc<dyn Bdev>,
    patience: Duration,
}

impl Subject<'_> {
    fn check_protocol(&self) {
        for check in protocol::CHECKS {
            check(self);
        }
    }

    fn check_data(&self) {
        if self.rig().geometry().read_only {
            return data::what_is_read_stays_the_same(self);
        }
        for check in data::CHECKS.iter().chain(sharing::CHECKS) {
            check(self);
        }
    }
}

#[cfg(test)]
mod tests;
