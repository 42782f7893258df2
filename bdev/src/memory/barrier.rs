//! A memory barrier on all threads of the process at once.
#![allow(unsafe_code)] // membarrier(2) has no wrapper.

use std::io;
use std::sync::OnceLock;

/// The right to make every running thread of the process pass a full memory barrier. It makes the
/// rare side of a handshake pay for both: where one thread stores A and then loads B, often, and
/// another stores B and then loads A, rarely, the first needs a compiler fence only if the second
/// puts [`run`](Self::run) between the two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcessBarrier(());

impl ProcessBarrier {
    /// None where the kernel does not have it or forbids it.
    pub(crate) fn get() -> Option<ProcessBarrier> {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        let register = || membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED).is_ok();
        REGISTERED
            .get_or_init(register)
            .then_some(ProcessBarrier(()))
    }

    /// Returns after every thread that runs has passed a barrier.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses after all: nothing can be concluded then.
    pub(crate) fn run(self) -> io::Result<()> {
        membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED)
    }
}

fn membarrier(command: libc::c_int) -> io::Result<()> {
    // SAFETY: the call takes no pointers and changes no memory.
    match unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
