//! The host's side of the bare shape.

use super::super::pair::Looks;
use super::super::rings::{Command, Rings};
use super::super::work::{BURST, Shape};

/// Keeps `depth` commands in flight, one for each slot.
pub(super) struct Client<'a> {
    rings: &'a Rings,
    tail: u32,
    head: u32,
    /// What each slot has asked for last.
    pub(super) asked: Vec<Command>,
    /// Slots that wait for an answer.
    waiting: u16,
    places: Places,
    looks: Looks,
}

impl<'a> Client<'a> {
    pub(super) fn new(rings: &'a Rings, shape: Shape, disk_bytes: u64) -> Client<'a> {
        Client {
            rings,
            tail: 0,
            head: 0,
            asked: vec![Command::default(); shape.depth.into()],
            waiting: 0,
            places: Places::new(disk_bytes, shape.bytes, shape.in_order),
            looks: Looks::default(),
        }
    }

    /// Has at least so many more commands answered, and each slot ask again. Returns how many it
    /// were; none if the server is gone.
    pub(super) fn commands(&mut self, least: u64) -> Option<u64> {
        if self.waiting == 0 {
            (0..self.asked.len()).for_each(|slot| self.ask(slot as u16));
            self.rings.ring_tail(self.tail);
        }
        let mut done = 0;
        while done < least {
            let answered = self.answers(true)?;
            done += u64::from(answered);
        }
        Some(done)
    }

    /// Waits until nothing is in flight. None if the server is gone.
    #[cfg(test)]
    pub(super) fn drain(&mut self) -> Option<()> {
        while self.waiting > 0 {
            self.answers(false)?;
        }
        Some(())
    }

    /// Takes the answers that are there, and lets their slots ask again.
    #[inline]
    fn answers(&mut self, again: bool) -> Option<u32> {
        let first = self.head;
        while self.head.wrapping_sub(first) < BURST {
            let Some((slot, number)) = self.rings.answer(self.head) else {
                break;
            };
            // Numbers are given once: an answer that came twice, or to something else, is noticed.
            let asked = &mut self.asked[usize::from(slot)];
            assert_eq!(asked.number, number, "an answer to slot {slot}");
            asked.number = 0;
            self.waiting -= 1;
            self.head = self.head.wrapping_add(1);
            if again {
                self.ask(slot);
            }
        }
        let answered = self.head.wrapping_sub(first);
        if answered == 0 {
            return if self.looks.vain() && self.rings.ended() {
                None
            } else {
                Some(0)
            };
        }
        self.looks.found();
        if again {
            self.rings.ring_tail(self.tail);
        }
        self.rings.ring_head(self.head);
        Some(answered)
    }

    #[inline]
    fn ask(&mut self, slot: u16) {
        let command = Command {
            slot,
            number: self.places.number(),
            offset: self.places.next(),
        };
        self.asked[usize::from(slot)] = command;
        self.waiting += 1;
        self.rings.write(self.tail, command);
        self.tail = self.tail.wrapping_add(1);
    }
}

/// Places on the disk: random ones, or one after the other.
struct Places {
    count: u64,
    bytes: u64,
    given: u64,
    in_order: bool,
    /// The next one of those in order.
    at: u64,
}

impl Places {
    fn new(disk_bytes: u64, bytes: u64, in_order: bool) -> Places {
        Places {
            count: disk_bytes / bytes.max(1),
            bytes,
            given: 0,
            in_order,
            at: 0,
        }
    }

    /// The number of the next one, from 1 on.
    fn number(&self) -> u64 {
        self.given + 1
    }

    /// In order, or SplitMix64 of its number, brought into the range.
    #[inline]
    fn next(&mut self) -> u64 {
        self.given += 1;
        if self.in_order {
            let place = self.at;
            self.at = if place + 1 < self.count { place + 1 } else { 0 };
            return place * self.bytes;
        }
        let mut value = self.given.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^= value >> 31;
        let place = u128::from(value) * u128::from(self.count) >> 64;
        place as u64 * self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_all_over_the_disk_and_within_it() {
        let mut places = Places::new(64 * 4096 + 4095, 4096, false);
        let mut seen = [0; 64];
        for number in 1..=6400 {
            assert_eq!(places.number(), number);
            let offset = places.next();
            assert_eq!(offset % 4096, 0);
            seen[offset as usize / 4096] += 1;
        }
        assert!(seen.iter().all(|&times| times > 50), "{seen:?}");
    }

    #[test]
    fn places_in_order_begin_again_behind_the_last() {
        let mut places = Places::new(3 * 4096 + 4095, 4096, true);
        let offsets: Vec<u64> = (0..5).map(|_| places.next()).collect();
        assert_eq!(offsets, [0, 4096, 8192, 0, 4096]);
    }
}
