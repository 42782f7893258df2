//! Making a ring, and what to tell an operator whose kernel refuses it.
//!
//! # Setup flags
//!
//! *COOP_TASKRUN and TASKRUN_FLAG.* The kernel does not interrupt the reactor to finish a request;
//! it raises a flag in shared memory that [`Ring::flush`](super::Ring::flush) looks at, and
//! finishes it at the next entry. When the process dies, the kernel does that work on the way out:
//! what was in flight is finished. Not DEFER_TASKRUN, which would leave it undone then; not SQPOLL,
//! which would take a core; not SINGLE_ISSUER, which gains nothing without the former.
//! *SUBMIT_ALL.* One bad entry does not hold up those behind it. Kernels before 5.19 know none of
//! these; a ring there works without them.

use std::io;

use io_uring::{IoUring, Probe, opcode};

use crate::Error;

/// A ring whose submission queue has this many entries.
pub(super) fn build(entries: u32) -> Result<IoUring, Error> {
    let modern = IoUring::builder()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(entries);
    let ring = match modern {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().build(entries)
        }
        other => other,
    };
    ring.map_err(|error| refused(&error))
}

/// Whether this process may use io_uring, and whether it can do here what a disk needs.
///
/// # Errors
///
/// [`Error::Ring`], with what the operator can do about it.
pub(crate) fn check() -> Result<(), Error> {
    let ring = build(4)?;
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| refused(&error))?;
    let needed = [
        opcode::Read::CODE,
        opcode::Readv::CODE,
        opcode::Write::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::AsyncCancel::CODE,
    ];
    let supported = needed.iter().all(|code| probe.is_supported(*code));
    if supported && ring.params().is_feature_ext_arg() && ring.params().is_feature_nodrop() {
        return Ok(());
    }
    let reason = "this kernel is too old for it: Linux 5.11 or newer is needed".to_owned();
    Err(Error::Ring(reason))
}

fn refused(error: &io::Error) -> Error {
    let advice = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            ": it is forbidden here; allow it with sysctl kernel.io_uring_disabled=0 and, in a \
             container, in its seccomp profile"
        }
        Some(libc::ENOSYS) => {
            ": Linux 5.11 or newer is needed, and a container's seccomp profile must allow it"
        }
        Some(libc::ENOMEM) => ": raise the limit for locked memory (ulimit -l, memlock)",
        Some(libc::EMFILE | libc::ENFILE) => ": raise the limit for open files (ulimit -n, nofile)",
        _ => "",
    };
    Error::Ring(format!("{error}{advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_that_is_refused_says_what_to_do() {
        let advice = |errno| refused(&io::Error::from_raw_os_error(errno)).to_string();
        assert!(advice(libc::EPERM).contains("sysctl kernel.io_uring_disabled=0"));
        assert!(advice(libc::ENOSYS).contains("Linux 5.11"));
        assert!(advice(libc::ENOMEM).contains("ulimit -l"));
        assert!(advice(libc::EMFILE).contains("ulimit -n"));
    }
}
