//! What a call into the kernel costs: a signal by eventfd, and an io_uring that does nothing.
#![allow(unsafe_code)] // Submission entries can hold pointers, so that pushing one is unsafe.

use std::io;

use io_uring::{IoUring, opcode};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::error::Error;
use super::figure::{Figure, Windows, nanoseconds_each};
use super::report::{Limits, Row};

/// Calls between two looks at the clock.
const ROUND: u64 = 128;
/// No-ops in one submission.
const BATCH: u32 = 32;

/// All of them, on the server's core.
pub(super) fn measure(limits: &mut Limits) -> Result<(), Error> {
    let windows = limits.windows;
    let all = || [eventfd(windows), no_ops(windows, 1), no_ops(windows, BATCH)];
    let (_, measured) = limits.pair.run(|| (), all)?;
    let names = [
        ("eventfd write", "one at a time"),
        ("io_uring no-op", "one at a time"),
        ("io_uring no-op", "in batches of 32"),
    ];
    for ((what, how), figure) in names.into_iter().zip(measured) {
        match figure {
            Ok(figure) => limits.figures.push(Row::nanoseconds(what, how, figure)),
            Err(error) => limits.refuse(what, how, &error),
        }
    }
    Ok(())
}

/// Nanoseconds of one write that nobody waits for.
fn eventfd(windows: Windows) -> io::Result<Figure> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let round = || -> io::Result<u64> {
        for _ in 0..ROUND {
            event.write(1)?;
        }
        Ok(ROUND)
    };
    figure(windows, round)
}

/// Nanoseconds of one no-op, so many of which are submitted and reaped together.
fn no_ops(windows: Windows, batch: u32) -> io::Result<Figure> {
    let mut ring = IoUring::new(batch)?;
    let round = || -> io::Result<u64> {
        for _ in 0..ROUND {
            submit_and_reap(&mut ring, batch)?;
        }
        Ok(ROUND * u64::from(batch))
    };
    figure(windows, round)
}

fn submit_and_reap(ring: &mut IoUring, batch: u32) -> io::Result<()> {
    for _ in 0..batch {
        // SAFETY: a no-op has no pointer.
        let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
        assert!(pushed.is_ok(), "the queue holds a batch, and is empty");
    }
    ring.submit_and_wait(batch as usize)?;
    let mut reaped = 0;
    for answer in ring.completion() {
        if answer.result() < 0 {
            return Err(io::Error::from_raw_os_error(-answer.result()));
        }
        reaped += 1;
    }
    assert_eq!(reaped, batch, "each no-op is answered once");
    Ok(())
}

/// Nanoseconds of one of the things that `round` does, or its first error.
fn figure(windows: Windows, mut round: impl FnMut() -> io::Result<u64>) -> io::Result<Figure> {
    let mut failed = None;
    let measured = windows.figure(|length| {
        nanoseconds_each(length, || {
            let done = round();
            done.map_err(|error| failed = Some(error)).ok()
        })
    });
    let unknown = || io::Error::other("no windows");
    measured.ok_or_else(|| failed.unwrap_or_else(unknown))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_error_is_told_and_ends_the_measurement() {
        let windows = Windows::new(2, Duration::from_micros(1));
        let mut rounds = 0;
        let refused = figure(windows, || {
            rounds += 1;
            Err(io::ErrorKind::PermissionDenied.into())
        });
        let refused = refused.expect_err("refused");
        assert_eq!(
            (refused.kind(), rounds),
            (io::ErrorKind::PermissionDenied, 1)
        );
    }
}
