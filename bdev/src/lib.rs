//! Block devices, and the memory that block I/O moves.
//!
//! A [`Bdev`] is what the control plane knows of a disk: its name, identity, geometry and
//! abilities. A [`Channel`] is how one reactor does I/O on it: requests go in with
//! [`Channel::submit`], completions come out of [`Channel::poll`], and nothing in between
//! allocates, locks, blocks or wakes anyone. What all channels of one reactor share (pools, and the
//! io_uring of the file backend) is its [`IoContext`]. The bytes of a request are described by
//! [`memory::IoVecs`], which keep the guest memory that they point into mapped; [`memory`] is the
//! only part of the program that maps memory.
//!
//! | backend            | data lives in    | survives        | flush, FUA       | unmap, zeroes |
//! |--------------------|------------------|-----------------|------------------|---------------|
//! | [`null`]           | nowhere          | nothing         | trivially true   | accepted      |
//! | [`malloc`]         | memory           | not the process | trivially true   | zeroes        |
//! | [`file`](mod@file) | a file or device | power           | fdatasync, DSYNC | punch, zeroes |
//!
//! All but [`null`] compare.
//!
//! # The contract of a channel
//!
//! * Each accepted [`Io`] completes exactly once, cancelled or not; one that [`Channel::submit`]
//!   hands back has not been looked at.
//! * Any LBA, alignment and segment length is safe: a range past the end completes with
//!   [`Status::LbaOutOfRange`], a list of segments of the wrong length with
//!   [`Status::InternalError`], an operation that [`Features`] denies with
//!   [`Status::NotSupported`]. Zero blocks are a request that succeeds without effect.
//! * There is no order between requests in flight. A flush covers every write that completed before
//!   it was submitted, on any channel of the device.
//! * A logical block is atomic between all channels of a device: see [`claims`].
//! * A channel that is dropped with requests which the kernel still holds waits for them or leaks
//!   their memory, and never frees it. Until they have ended, their writes may still land.
//!
//! [`conformance`] is this contract as a test suite, which each backend must pass.
//!
//! # What this crate does not do
//!
//! It knows no NVMe, socket or guest. There is no metadata and no protection information, no
//! partition, cache or encryption layer, and no order beyond what flush gives.

pub mod claims;
mod completions;
pub mod conformance;
mod error;
pub mod file;
mod io;
mod io_context;
pub mod malloc;
pub mod memory;
pub mod null;
pub mod size;
mod uring;

use std::fmt::Debug;
use std::sync::Arc;

pub use error::Error;
pub use file::{File, FileConfig};
pub use io::{
    BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, Completion, DEVICE_BYTES_MAX, Features, Geometry, Io, Op,
    Status, Tag,
};
pub use io_context::{IoContext, IoLimits, PASS_BYTES};
pub use malloc::{Malloc, MallocConfig};
pub use null::{Null, NullConfig};

use uuid::Uuid;

/// A block device as the control plane sees it.
pub trait Bdev: Send + Sync + Debug {
    /// The name the operator gave it, unique in the process.
    fn name(&self) -> &str;

    /// Its identity, stable over restarts.
    fn uuid(&self) -> Uuid;

    /// Its size and block size.
    fn geometry(&self) -> Geometry;

    /// What it can do, for a guest to be told.
    fn features(&self) -> Features;

    /// Opens a channel for the reactor that `context` belongs to, on that reactor's thread. Does
    /// not block.
    ///
    /// # Errors
    ///
    /// Fails when the reactor has no room for another channel, or the kernel refuses what it needs.
    fn open_channel(self: Arc<Self>, context: &IoContext) -> Result<Box<dyn Channel>, Error>;

    /// Brings everything acknowledged so far to where the backend promises it to be, for a clean
    /// stop. Blocks: for the control thread.
    ///
    /// # Errors
    ///
    /// Fails when the backend cannot keep that promise.
    fn sync(&self) -> Result<(), Error>;
}

/// One reactor's way to a [`Bdev`]. Not `Send`: it stays on the thread that opened it. The contract
/// is at the [head of the crate](crate#the-contract-of-a-channel).
pub trait Channel {
    /// Takes a request.
    ///
    /// # Errors
    ///
    /// Full is a normal answer: the request comes back untouched, to be tried again after a
    /// [`poll`](Self::poll). An I/O error is a [`Completion`] instead.
    fn submit(&mut self, io: Io) -> Result<(), Io>;

    /// Does a bounded piece of outstanding work and appends what has completed. Never grows
    /// `completed` beyond its capacity, which is the caller's burst: the rest comes at later calls.
    fn poll(&mut self, completed: &mut Vec<Completion>);

    /// Asks for an early end of the request with this tag: best effort. It still completes exactly
    /// once, as if nothing had happened or with [`Status::Aborted`]. An unknown tag is ignored.
    fn cancel(&mut self, tag: Tag);
}

/// The namespace of the UUIDs that [`derived_uuid`] makes. Never to be changed: guests know their
/// disks by what follows from it.
const UUID_NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_8a5e_24c7_4b0e_9d0a_5b1f_3f27_c8e4);

/// The identity of a device that was not given one: a version 5 UUID of its kind and name and, for
/// a file, its canonical path. It depends on nothing else.
#[must_use]
pub fn derived_uuid(kind: &str, name: &str, path: Option<&std::path::Path>) -> Uuid {
    use std::os::unix::ffi::OsStrExt;

    let path = path.map_or(&[][..], |path| path.as_os_str().as_bytes());
    // None of the three holds a NUL byte, so that no two triples give the same bytes.
    Uuid::new_v5(
        &UUID_NAMESPACE,
        &[kind.as_bytes(), name.as_bytes(), path].join(&0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_uuid_depends_on_kind_name_and_path_and_nothing_else() {
        let uuid = derived_uuid("file", "disk0", Some("/images/a".as_ref()));
        assert_eq!(
            uuid,
            derived_uuid("file", "disk0", Some("/images/a".as_ref()))
        );
        assert_ne!(
            uuid,
            derived_uuid("null", "disk0", Some("/images/a".as_ref()))
        );
        assert_ne!(
            uuid,
            derived_uuid("file", "disk1", Some("/images/a".as_ref()))
        );
        assert_ne!(
            uuid,
            derived_uuid("file", "disk0", Some("/images/b".as_ref()))
        );
        assert_ne!(uuid, derived_uuid("file", "disk0", None));
    }

    #[test]
    fn a_derived_uuid_never_changes_between_versions() {
        let uuid = derived_uuid("malloc", "m0", None).to_string();
        assert_eq!(uuid, "8fdccf24-b56e-54c4-8f8e-be5ccfd7576f");
    }
}
