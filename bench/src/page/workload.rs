//! What was asked of a target, in words.

use std::fmt;

use crate::chart::Unit;

/// What may differ between the points of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dimension {
    Depth,
    BlockSize,
    Queues,
    Controllers,
}

/// What was asked. A number that is zero is one that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Workload {
    /// fio's name: `randread`.
    pub(super) mode: String,
    /// Percentage of reads, where there are reads and writes.
    pub(super) reads: Option<u8>,
    /// fio's `random_distribution`, where it is not that all blocks are as likely.
    pub(super) distribution: Option<String>,
    /// fio's `thinktime`, where commands do not follow one another at once: `50 us`, or `50 us
    /// after 8` where these are not all that are in flight.
    pub(super) think_time: Option<String>,
    pub(super) block_bytes: u64,
    pub(super) depth: u64,
    pub(super) queues: u64,
    pub(super) controllers: u64,
}

impl Dimension {
    /// One of its values, in words.
    pub(super) fn told(self, value: u64) -> String {
        match (self, value) {
            (Dimension::Depth, _) => format!("depth {value}"),
            (Dimension::BlockSize, _) => Unit::Bytes.show(value as f64),
            (Dimension::Queues, 1) => "1 queue".to_owned(),
            (Dimension::Queues, _) => format!("{value} queues"),
            (Dimension::Controllers, 1) => "1 controller".to_owned(),
            (Dimension::Controllers, _) => format!("{value} controllers"),
        }
    }
}

impl Workload {
    pub(super) fn value(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::Depth => self.depth,
            Dimension::BlockSize => self.block_bytes,
            Dimension::Queues => self.queues,
            Dimension::Controllers => self.controllers,
        }
    }

    /// What is the same along a line over the dimension.
    pub(super) fn but(&self, dimension: Dimension) -> Workload {
        let mut same = self.clone();
        *match dimension {
            Dimension::Depth => &mut same.depth,
            Dimension::BlockSize => &mut same.block_bytes,
            Dimension::Queues => &mut same.queues,
            Dimension::Controllers => &mut same.controllers,
        } = 0;
        same
    }

    /// As a part of a file's name: `randread-4k-d32-q1`.
    pub(super) fn slug(&self) -> String {
        let mut parts = vec![self.mode.clone()];
        parts.extend(self.reads.map(|reads| format!("r{reads}")));
        parts.extend(self.distribution.clone());
        parts.extend(self.think_time.as_ref().map(|time| format!("think {time}")));
        if self.block_bytes > 0 {
            parts.push(short_size(self.block_bytes));
        }
        for (letter, number) in [
            ('d', self.depth),
            ('q', self.queues),
            ('c', self.controllers),
        ] {
            let usual = letter == 'c' && number == 1;
            if number > 0 && !usual {
                parts.push(format!("{letter}{number}"));
            }
        }
        let plain = |c: char| match c {
            'a'..='z' | '0'..='9' => c,
            'A'..='Z' => c.to_ascii_lowercase(),
            _ => '-',
        };
        parts.join("-").chars().map(plain).collect()
    }

    /// What commands there are: `4 KiB random reads`.
    pub(super) fn commands(&self) -> String {
        let mode = match self.mode.as_str() {
            "read" => "sequential reads",
            "write" => "sequential writes",
            "randread" => "random reads",
            "randwrite" => "random writes",
            "rw" | "readwrite" => "sequential reads and writes",
            "randrw" => "random reads and writes",
            other => other,
        };
        let mut text = match self.block_bytes {
            0 => {
                let mut letters = mode.chars();
                let first = letters.next().map(|c| c.to_ascii_uppercase());
                first.into_iter().chain(letters).collect()
            }
            bytes => format!("{} {mode}", Unit::Bytes.show(bytes as f64)),
        };
        if let Some(reads) = self.reads {
            text += &format!(" ({reads} % reads)");
        }
        if let Some(distribution) = &self.distribution {
            text += &format!(", {distribution}");
        }
        if let Some(time) = &self.think_time {
            text += &format!(", thinktime {time}");
        }
        text
    }

    /// How many there are at a time: `depth 32`, `1 queue`.
    pub(super) fn load(&self) -> Vec<String> {
        let usual = [
            (Dimension::Depth, 0),
            (Dimension::Queues, 0),
            (Dimension::Controllers, 1),
        ];
        let told = |(dimension, usual): (Dimension, u64)| {
            let value = self.value(dimension);
            (value > usual).then(|| dimension.told(value))
        };
        usual.into_iter().filter_map(told).collect()
    }
}

/// `4 KiB random reads · depth 32 · 1 queue`
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.commands())?;
        self.load()
            .iter()
            .try_for_each(|part| write!(f, " · {part}"))
    }
}

/// A size as on the command line: `4k`.
fn short_size(bytes: u64) -> String {
    let units = ["", "k", "m", "g", "t"];
    let steps = (bytes.trailing_zeros() / 10).min(4);
    format!("{}{}", bytes >> (10 * steps), units[steps as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Workload {
        Workload {
            mode: "randrw".to_owned(),
            reads: Some(70),
            distribution: None,
            think_time: None,
            block_bytes: 128 << 10,
            depth: 32,
            queues: 2,
            controllers: 1,
        }
    }

    #[test]
    fn what_differs_is_in_neither_words_nor_name() {
        let all = example();
        assert_eq!(
            all.to_string(),
            "128 KiB random reads and writes (70 % reads) · depth 32 · 2 queues"
        );
        assert_eq!(all.slug(), "randrw-r70-128k-d32-q2");
        let same = all.but(Dimension::BlockSize);
        assert_eq!(
            same.to_string(),
            "Random reads and writes (70 % reads) · depth 32 · 2 queues"
        );
        assert_eq!(same.slug(), "randrw-r70-d32-q2");
        assert_eq!(all.but(Dimension::Depth).slug(), "randrw-r70-128k-q2");
    }

    #[test]
    fn a_name_leads_out_of_no_folder() {
        let workload = Workload {
            mode: "../../ETC/x y".to_owned(),
            reads: None,
            ..example()
        };
        assert_eq!(workload.slug(), "------etc-x-y-128k-d32-q2");
    }

    #[test]
    fn sizes_are_as_on_the_command_line() {
        for (bytes, text) in [(512, "512"), (4096, "4k"), (6144, "6k"), (1 << 20, "1m")] {
            assert_eq!(short_size(bytes), text);
        }
    }
}
