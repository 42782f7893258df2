//! The bare command shape: entries and a doorbell one way, answers with a phase the other, and in
//! between nothing or a copy.

mod client;
mod server;

#[cfg(test)]
mod tests;

use std::time::Duration;

use nix::unistd::Pid;

use self::client::Client;
use self::server::Server;
use super::error::Error;
use super::figure::{Figure, Windows, nanoseconds_each};
use super::memory::Memory;
use super::pair::Pair;
use super::rings::{Ending, Rings};
use super::work::Shape;
use crate::core_time::{Lost, Reading};

/// Commands between two looks at the clock, at least.
const ROUND: u64 = 256;

/// How many commands a second there are.
pub(super) fn measure(
    shape: Shape,
    memory: &Memory<'_>,
    pair: Pair,
    windows: Windows,
) -> Result<Figure, Error> {
    let figure = with_client(shape, memory, pair, |client| {
        windows.figure(|length| {
            let each = nanoseconds_each(length, || client.commands(ROUND))?;
            Some(1e9 / each)
        })
    })?;
    figure.ok_or(Error::Ended)
}

/// How many commands a second there are for as long as the second time, once there were some for
/// the first, and what was taken of the cores meanwhile.
pub(super) fn rate(
    shape: Shape,
    memory: &Memory<'_>,
    pair: Pair,
    (ramp, length): (Duration, Duration),
) -> Result<(f64, Lost), Error> {
    let done = with_client(shape, memory, pair, |client| {
        nanoseconds_each(ramp, || client.commands(ROUND))?;
        // While both threads are there.
        let before = Reading::of(&[Pid::this()]);
        let each = nanoseconds_each(length, || client.commands(ROUND))?;
        let cores = [pair.client, pair.server];
        let lost = Reading::of(&[Pid::this()]).lost_since(&before, &cores);
        Some((1e9 / each, lost))
    })?;
    done.ok_or(Error::Ended)
}

/// Lets a client work with a server until it returns.
fn with_client<T: Send>(
    shape: Shape,
    memory: &Memory<'_>,
    pair: Pair,
    work: impl FnOnce(&mut Client<'_>) -> T + Send,
) -> Result<T, Error> {
    let rings = Rings::new(shape.depth)?;
    let client = || {
        let _ending = Ending(&rings);
        work(&mut Client::new(&rings, shape, memory.disk.len()))
    };
    let server = || {
        let _ending = Ending(&rings);
        Server::new(&rings, shape, memory).map(|mut server| server.serve())
    };
    let (done, served) = pair.run(client, server)?;
    served.map(|()| done)
}
