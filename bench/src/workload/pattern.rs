//! Which command comes next.

use std::fmt;

use super::distribution::{Distribution, Draw};
use super::extent::Chunk;
use super::permutation::Permutation;
use super::rng::Rng;

/// In which order chunks are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Sequential,
    Random,
}

/// Which of the commands read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mix {
    Reads,
    Writes,
    Both { read_percent: u8 },
}

/// Order and mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) order: Order,
    pub(crate) mix: Mix,
}

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Read,
    Write,
}

/// A command that is not prepared yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) action: Action,
    pub(crate) chunk: Chunk,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Read => "Read",
            Action::Write => "Write",
        })
    }
}

impl Shape {
    /// fio's name.
    pub(crate) fn name(self) -> &'static str {
        match (self.order, self.mix) {
            (Order::Sequential, Mix::Reads) => "read",
            (Order::Sequential, Mix::Writes) => "write",
            (Order::Sequential, Mix::Both { .. }) => "rw",
            (Order::Random, Mix::Reads) => "randread",
            (Order::Random, Mix::Writes) => "randwrite",
            (Order::Random, Mix::Both { .. }) => "randrw",
        }
    }

    /// Whether anything is written.
    pub(crate) fn writes(self) -> bool {
        self.mix != Mix::Reads
    }
}

/// The commands of one job: as many as there are chunks, or without end.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    shape: Shape,
    chunks: u64,
    left: u64,
    rng: Rng,
    places: Places,
}

/// Where commands go.
#[derive(Clone, Debug)]
enum Places {
    /// The chunk that is next.
    InOrder(u64),
    AtRandom(Draw),
    /// In disorder, each chunk exactly once.
    Once(Permutation),
}

impl Pattern {
    /// The pattern over `chunks` chunks, at least one; `endless` if time is what ends it.
    pub(super) fn new(shape: Shape, chunks: u64, endless: bool, seed: u64) -> Pattern {
        Pattern {
            shape,
            chunks,
            left: if endless { u64::MAX } else { chunks },
            rng: Rng::new(seed),
            places: match shape.order {
                Order::Sequential => Places::InOrder(0),
                Order::Random => Places::AtRandom(Draw::Even { places: chunks }),
            },
        }
    }

    /// Has random commands spread like this, as far as the chunks suffice for it.
    pub(super) fn distributed(mut self, distribution: &Distribution) -> Pattern {
        if let (Places::AtRandom(draw), Some(zoned)) =
            (&mut self.places, distribution.over(self.chunks))
        {
            *draw = zoned;
        }
        self
    }

    /// Has random writes that come to an end visit each chunk exactly once, as sequential ones do:
    /// a later run finds all of them written then.
    pub(crate) fn covering_all(mut self) -> Pattern {
        let random_writes = self.shape.order == Order::Random && self.shape.mix == Mix::Writes;
        if random_writes && self.left == self.chunks {
            self.places = Places::Once(Permutation::new(self.chunks, self.rng.next()));
        }
        self
    }

    /// The next command; none after the last.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<Command> {
        self.left = self.left.checked_sub(1)?;
        let chunk = match &mut self.places {
            Places::InOrder(next) => {
                let chunk = *next;
                *next = if chunk + 1 == self.chunks {
                    0
                } else {
                    chunk + 1
                };
                chunk
            }
            Places::AtRandom(draw) => draw.next(&mut self.rng),
            Places::Once(permutation) => permutation.at(self.left),
        };
        Some(Command {
            action: self.action(),
            chunk: Chunk(chunk),
        })
    }

    #[inline]
    fn action(&mut self) -> Action {
        match self.shape.mix {
            Mix::Reads => Action::Read,
            Mix::Writes => Action::Write,
            Mix::Both { read_percent } if self.rng.below(100) < read_percent.into() => Action::Read,
            Mix::Both { .. } => Action::Write,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(order: Order, mix: Mix, chunks: u64) -> Vec<Command> {
        let mut pattern = Pattern::new(Shape { order, mix }, chunks, false, 3);
        std::iter::from_fn(|| pattern.next()).collect()
    }

    #[test]
    fn a_sequential_pattern_visits_each_chunk_once_in_order() {
        let commands = commands(Order::Sequential, Mix::Writes, 100);
        let chunks: Vec<u64> = commands.iter().map(|command| command.chunk.0).collect();
        assert_eq!(chunks, (0..100).collect::<Vec<_>>());
        assert!(
            commands
                .iter()
                .all(|command| command.action == Action::Write)
        );
    }

    #[test]
    fn a_random_pattern_reaches_every_part_and_never_leaves() {
        let commands = commands(Order::Random, Mix::Reads, 10_000);
        assert_eq!(commands.len(), 10_000);
        let mut tenths = [0; 10];
        for command in &commands {
            tenths[(command.chunk.0 / 1000) as usize] += 1;
        }
        assert!(
            tenths.iter().all(|count| (850..1150).contains(count)),
            "{tenths:?}"
        );
        // Distinct chunks of n draws from n: 1 - 1/e of them.
        let mut chunks: Vec<u64> = commands.iter().map(|command| command.chunk.0).collect();
        chunks.sort_unstable();
        chunks.dedup();
        assert!((6100..6550).contains(&chunks.len()), "{}", chunks.len());
    }

    #[test]
    fn random_writes_that_cover_all_visit_each_chunk_once_in_disorder() {
        let covering = |mix, endless| {
            let shape = Shape {
                order: Order::Random,
                mix,
            };
            let mut pattern = Pattern::new(shape, 1000, endless, 3).covering_all();
            let commands = std::iter::from_fn(|| pattern.next()).take(1001);
            commands.map(|command| command.chunk.0).collect::<Vec<_>>()
        };
        let mut chunks = covering(Mix::Writes, false);
        assert!(!chunks.is_sorted());
        chunks.sort_unstable();
        assert!(chunks.into_iter().eq(0..1000));
        // A mix reads what it has written, and time may allow for more than all of it.
        assert_eq!(covering(Mix::Writes, true).len(), 1001);
        let mut mixed = covering(Mix::Both { read_percent: 50 }, false);
        mixed.sort_unstable();
        mixed.dedup();
        assert!(mixed.len() < 700, "{}", mixed.len());
    }

    #[test]
    fn zones_are_those_of_the_chunks() {
        let shape = Shape {
            order: Order::Random,
            mix: Mix::Both { read_percent: 50 },
        };
        let zones = "zoned:90/10:10/90".parse().expect("zones");
        let mut pattern = Pattern::new(shape, 500, true, 3).distributed(&zones);
        let commands: Vec<_> = (0..10_000).filter_map(|_| pattern.next()).collect();
        assert!(commands.iter().all(|command| command.chunk.0 < 500));
        for action in [Action::Read, Action::Write] {
            let ours = commands.iter().filter(|command| command.action == action);
            let (hot, cold): (Vec<&Command>, Vec<_>) = ours.partition(|it| it.chunk.0 < 50);
            assert!((4300..4700).contains(&hot.len()), "{}", hot.len());
            assert!((400..600).contains(&cold.len()), "{}", cold.len());
        }
    }

    #[test]
    fn a_mix_keeps_to_its_percentage() {
        for (read_percent, range) in [(0, 0..=0), (30, 2800..=3200), (100, 10_000..=10_000)] {
            let commands = commands(Order::Random, Mix::Both { read_percent }, 10_000);
            let reads = commands
                .iter()
                .filter(|command| command.action == Action::Read)
                .count();
            assert!(range.contains(&reads), "{read_percent} %: {reads}");
        }
    }

    #[test]
    fn an_endless_sequential_pattern_starts_again() {
        let shape = Shape {
            order: Order::Sequential,
            mix: Mix::Reads,
        };
        let mut pattern = Pattern::new(shape, 3, true, 0);
        let chunks: Vec<u64> = (0..7)
            .map(|_| pattern.next().expect("more").chunk.0)
            .collect();
        assert_eq!(chunks, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_seed_makes_the_same_pattern_again() {
        let shape = Shape {
            order: Order::Random,
            mix: Mix::Both { read_percent: 50 },
        };
        let draw = |seed| {
            let mut pattern = Pattern::new(shape, 1000, false, seed);
            (0..50).map(|_| pattern.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
