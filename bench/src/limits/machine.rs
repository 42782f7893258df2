//! What the machine allows for one workload, in windows like those of targets.

use std::time::Duration;

use bdev::memory::Arena;

use super::error::Error;
use super::figure::Windows;
use super::memory::Memory;
use super::pair::Pair;
use super::shape;
use super::work::{Bare, Commands, Shape};
use super::{DISK_BYTES, line, name};
use crate::core_time::Lost;

/// How each way to copy is tried before the fastest is taken.
const TRIAL: (usize, Duration) = (9, Duration::from_millis(20));

/// Two cores, and the bare commands that they exchange.
pub(crate) struct Machine {
    pair: Pair,
    disk: Arena,
    shape: Shape,
}

/// What came of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Commands per second.
    pub(crate) rate: f64,
    pub(crate) lost: Lost,
}

impl Machine {
    /// Makes a disk of `bytes`, as far as that is not more than enough, and finds the fastest way
    /// to copy if commands copy. Both cores have to be free.
    pub(crate) fn new(
        pair: Pair,
        bare: Bare,
        commands: Commands,
        bytes: u64,
    ) -> Result<Machine, Error> {
        let bytes = bytes.min(DISK_BYTES);
        let shapes = commands.shapes(bare, bytes)?;
        let disk = match bare {
            Bare::Empty => Arena::in_base_pages(1)?,
            Bare::Copy => Arena::new(bytes)?,
        };
        let shape = fastest(&shapes, &disk, pair)?;
        Ok(Machine { pair, disk, shape })
    }

    /// What its commands are.
    pub(crate) fn commands(&self) -> String {
        let (what, how) = (self.shape.what(), self.shape.how());
        match how {
            "" => what,
            how => format!("{what}, {how}, {} pages", name(self.disk.page_kind())),
        }
    }

    /// How far the cores are apart at this moment: a cache line there and back, in nanoseconds.
    pub(crate) fn round_trip(&self) -> Result<f64, Error> {
        line::round_trip(self.pair)
    }

    /// Has commands exchanged for `length`, once they have been for `ramp`.
    pub(crate) fn window(&self, ramp: Duration, length: Duration) -> Result<Window, Error> {
        let memory = Memory::of(&self.disk, self.shape)?;
        let (rate, lost) = shape::rate(self.shape, &memory, self.pair, (ramp, length))?;
        Ok(Window { rate, lost })
    }
}

/// Tries each shape, unless there is only one.
fn fastest(shapes: &[Shape], disk: &Arena, pair: Pair) -> Result<Shape, Error> {
    let mut best: Option<(f64, Shape)> = None;
    for &shape in shapes {
        let rate = match shapes.len() {
            1 => 0.0,
            _ => {
                let windows = Windows::new(TRIAL.0, TRIAL.1);
                let memory = Memory::of(disk, shape)?;
                shape::measure(shape, &memory, pair, windows)?.median
            }
        };
        if best.is_none_or(|(fastest, _)| rate > fastest) {
            best = Some((rate, shape));
        }
    }
    best.map(|(_, shape)| shape).ok_or(Error::Ended)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;
    use crate::workload::{self, Mix, Order};

    fn commands(mix: Mix) -> Commands {
        let order = Order::Random;
        Commands::of(workload::Shape { order, mix }, 64 << 10, 2)
    }

    #[test]
    fn a_window_of_every_work_has_commands() {
        let length = Duration::from_millis(20);
        for (bare, mix, told) in [
            (Bare::Empty, Mix::Both { read_percent: 50 }, "empty command"),
            (Bare::Copy, Mix::Reads, "64 KiB read, plain"),
            (Bare::Copy, Mix::Writes, "64 KiB write, "),
        ] {
            let pair = Pair::anywhere();
            let machine = Machine::new(pair, bare, commands(mix), 1 << 20).expect(told);
            let named = machine.commands();
            assert!(named.starts_with(told), "{named}");
            assert!(
                named.ends_with(" pages") != (bare == Bare::Empty),
                "{named}"
            );
            let window = machine.window(length, length).expect("a window");
            assert!(window.rate > 0.0 && window.rate < 1e9, "{window:?}");
        }
    }

    #[test]
    fn a_window_tells_what_was_taken_of_its_cores() {
        let pair = Pair::anywhere();
        let machine = Machine::new(pair, Bare::Empty, commands(Mix::Reads), 1 << 20);
        let machine = machine.expect("a machine");
        let done = AtomicBool::new(false);
        let length = Duration::from_millis(200);
        let window = thread::scope(|scope| {
            scope.spawn(|| {
                pair.server.pin().expect("pinned");
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let window = machine.window(length / 2, length);
            done.store(true, Ordering::Relaxed);
            window.expect("a window")
        });
        assert!(window.lost.waited > 0.1, "{window:?}");
    }

    #[test]
    fn a_copy_that_cannot_be_bare_is_refused() {
        let refused = |commands, bytes| {
            let machine = Machine::new(Pair::anywhere(), Bare::Copy, commands, bytes);
            machine.map(|_| ()).expect_err("refused").to_string()
        };
        let mixed = refused(commands(Mix::Both { read_percent: 50 }), 1 << 20);
        assert!(mixed.contains("reads and writes"), "{mixed}");
        let small = refused(commands(Mix::Reads), 4096);
        assert!(small.contains("65536"), "{small}");
    }
}
