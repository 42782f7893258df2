//! What a call into the kernel costs: a signal by eventfd.

use std::io;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::error::Error;
use super::figure::{Figure, Windows, nanoseconds_each};
use super::report::{Limits, Row};

/// Calls between two looks at the clock.
const ROUND: u64 = 128;

/// The eventfd, on the server's core.
pub(super) fn measure(limits: &mut Limits) -> Result<(), Error> {
    let windows = limits.windows;
    let (_, figure) = limits.pair.run(|| (), || eventfd(windows))?;
    let (what, how) = ("eventfd write", "one at a time");
    match figure {
        Ok(figure) => limits.figures.push(Row::nanoseconds(what, how, figure)),
        Err(error) => limits.refuse(what, how, &error),
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
