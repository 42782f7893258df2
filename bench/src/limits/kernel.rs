//! What a call into the kernel costs: a signal by eventfd, an io_uring that does nothing, a sleep.
#![allow(unsafe_code)] // Submission entries can hold pointers, so that pushing one is unsafe.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::time::{ClockId, clock_gettime};

use super::error::Error;
use super::figure::{Figure, Windows, nanoseconds_each};
use super::pair::{Looks, Pair};
use super::report::{Limits, Row};

/// Calls between two looks at the clock.
const ROUND: u64 = 128;
/// No-ops in one submission.
const BATCH: u32 = 32;
/// How long a core is left alone before a thread on it is woken: it has gone idle by then.
const REST: Duration = Duration::from_micros(100);
/// How long a reactor with `--idle sleep=50` sleeps.
const SLEEP: Duration = Duration::from_micros(50);
/// Said to the thread that is woken, in place of a number.
const DONE: u64 = u64::MAX;

/// All of them, on the server's core.
pub(super) fn measure(limits: &mut Limits) -> Result<(), Error> {
    let windows = limits.windows;
    let all = || {
        [
            eventfd(windows),
            no_ops(windows, 1),
            no_ops(windows, BATCH),
            sleep(windows),
        ]
    };
    let (_, measured) = limits.pair.run(|| (), all)?;
    let names = [
        ("eventfd write", "one at a time"),
        ("io_uring no-op", "one at a time"),
        ("io_uring no-op", "in batches of 32"),
        ("sleep of 50 us", "processor time"),
        ("eventfd wake", "sleeping thread of an idle core"),
    ];
    let measured = measured.into_iter().chain([wake(limits.pair, windows)?]);
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

/// Nanoseconds from the write until the thread that waits for it, on the client's core, has told.
fn wake(pair: Pair, windows: Windows) -> Result<io::Result<Figure>, Error> {
    let event = match EventFd::from_flags(EfdFlags::EFD_CLOEXEC) {
        Ok(event) => event,
        Err(errno) => return Ok(Err(errno.into())),
    };
    let (asked, told) = (AtomicU64::new(0), AtomicU64::new(0));
    let sleeper = || -> io::Result<()> {
        loop {
            event.read()?;
            match asked.load(Ordering::Acquire) {
                DONE => return Ok(()),
                number => told.store(number, Ordering::Release),
            }
        }
    };
    let mut number = 0;
    let mut wake = || -> io::Result<(Duration, u64)> {
        thread::sleep(REST);
        number += 1;
        asked.store(number, Ordering::Release);
        let begun = Instant::now();
        event.write(1)?;
        let mut looks = Looks::default();
        while told.load(Ordering::Acquire) != number {
            looks.vain();
        }
        Ok((begun.elapsed(), 1))
    };
    let waker = || {
        let figure = figure_of_times(windows, &mut wake);
        asked.store(DONE, Ordering::Release);
        event.write(1)?;
        figure
    };
    let (slept, figure) = pair.run(sleeper, waker)?;
    Ok(slept.and(figure))
}

/// Nanoseconds of processor time that one short sleep takes.
fn sleep(windows: Windows) -> io::Result<Figure> {
    figure_of_times(windows, || {
        let before = processor_time()?;
        thread::sleep(SLEEP);
        Ok((processor_time()?.saturating_sub(before), 1))
    })
}

/// What the calling thread has used.
fn processor_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
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
    figure_of_times(windows, || {
        let begun = Instant::now();
        let done = round()?;
        Ok((begun.elapsed(), done))
    })
}

/// Of what takes time only in part of a round: what `round` says it took, for how many things, or
/// its first error.
fn figure_of_times(
    windows: Windows,
    mut round: impl FnMut() -> io::Result<(Duration, u64)>,
) -> io::Result<Figure> {
    let mut failed = None;
    let measured = windows.figure(|length| {
        let (mut taken, mut all) = (Duration::ZERO, 0);
        nanoseconds_each(length, || {
            let (time, done) = round().map_err(|error| failed = Some(error)).ok()?;
            taken += time;
            all += done;
            Some(done)
        })?;
        Some(taken.as_nanos() as f64 / all as f64)
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
        let mut refuse = || {
            rounds += 1;
            io::Error::from(io::ErrorKind::PermissionDenied)
        };
        let refused = [
            figure(windows, || Err(refuse())),
            figure_of_times(windows, || Err(refuse())),
        ];
        for refused in refused {
            let kind = refused.expect_err("refused").kind();
            assert_eq!(kind, io::ErrorKind::PermissionDenied);
        }
        assert_eq!(rounds, 2);
    }

    #[test]
    fn only_what_a_round_says_it_took_counts() {
        let windows = Windows::new(3, Duration::from_micros(100));
        let rounds = || {
            thread::sleep(Duration::from_micros(30));
            Ok((Duration::from_nanos(6), 1))
        };
        let figure = figure_of_times(windows, rounds).expect("a figure");
        assert_eq!((figure.min, figure.max), (6.0, 6.0));
        assert!(sleep(windows).expect("a figure").min > 0.0);
    }

    #[test]
    fn a_wake_takes_longer_than_a_write() {
        let windows = Windows::new(3, Duration::from_millis(5));
        let woken = wake(Pair::anywhere(), windows).expect("both");
        let wrote = eventfd(windows).expect("a figure");
        assert!(woken.expect("a figure").median > wrote.median);
    }
}
