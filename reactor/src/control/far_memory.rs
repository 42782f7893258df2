//! Guest memory on another node (NUMA) than the reactors that move it: noticed by the control
//! thread, and said once.
//!
//! When a client maps memory nothing is known: mostly the guest has not touched it yet, and to ask
//! for a page that nobody here has used would bring it in. What counts is the memory that commands
//! move data to and from. So its pages are looked at when the client has been there for a second,
//! and again whenever it has been there twice as long, until there are enough of them to judge by.

use std::time::{Duration, Instant};

use bdev::memory::{Backings, Nodes, PagesByNode};

/// How long a client has been there when it is looked at first.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// So many pages of a sample are enough.
const PAGES_MIN: usize = 16;

/// The memory of one controller's clients.
pub struct FarMemory {
    socket: String,
    /// Nodes of the controller's reactors; none if the machine has one only.
    nodes: Nodes,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No client has mapped memory.
    Unmapped,
    /// One has, and will be looked at when it has been there for some time.
    Waiting { since: Instant, after: Duration },
    /// It has enough pages near us.
    Near,
    /// It, or one before, has not: this is said once in a controller's life.
    Said,
}

impl FarMemory {
    /// Of a controller behind this socket, with reactors on these nodes.
    pub fn new(socket: String, nodes: Nodes) -> FarMemory {
        FarMemory {
            socket,
            nodes,
            state: State::Unmapped,
        }
    }

    /// Looks at the client's memory if it is time to; false if not. Blocks for as much as a
    /// millisecond: for the control thread.
    pub fn look(&mut self, backings: &Backings, now: Instant) -> bool {
        if self.nodes.is_empty() || !self.is_due(backings.is_empty(), now) {
            return false;
        }
        let pages = backings.pages_by_node();
        self.judge(&pages);
        if let (State::Said, Some(memory)) = (self.state, pages.most()) {
            let (socket, cores) = (&self.socket, self.nodes.to_string());
            tracing::warn!(
                socket,
                memory,
                cores,
                "guest memory is on another node than the cores of its reactors: bind it to theirs \
                 (QEMU: host-nodes= and policy=bind of the memory backend, or numactl -m), or \
                 choose cores= on its node"
            );
        }
        true
    }

    /// Whether the client has been there for as long as it has to be.
    fn is_due(&mut self, is_unmapped: bool, now: Instant) -> bool {
        self.state = match self.state {
            State::Said => State::Said,
            _ if is_unmapped => State::Unmapped,
            State::Unmapped => State::Waiting {
                since: now,
                after: FIRST_LOOK,
            },
            State::Waiting { since, after } if now - since >= after => {
                let after = 2 * (now - since);
                self.state = State::Waiting { since, after };
                return true;
            }
            waiting => waiting,
        };
        false
    }

    fn judge(&mut self, pages: &PagesByNode) {
        if pages.count() >= PAGES_MIN {
            self.state = match 2 * pages.outside(&self.nodes) > pages.count() {
                true => State::Said,
                false => State::Near,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> FarMemory {
        FarMemory::new("socket".to_owned(), [1].into_iter().collect())
    }

    /// The seconds, of the first hundred, at which a client that is mapped from second 3 on is
    /// looked at, and the state in the end.
    fn looks(pages: &[(u32, usize)]) -> (Vec<u64>, State) {
        let (mut memory, start, mut looks) = (memory(), Instant::now(), Vec::new());
        for second in 0..100 {
            if memory.is_due(second < 3, start + Duration::from_secs(second)) {
                looks.push(second - 3);
                memory.judge(&pages.iter().copied().collect());
            }
        }
        (looks, memory.state)
    }

    #[test]
    fn a_client_is_looked_at_until_there_are_enough_pages_to_judge_by() {
        let (seconds, state) = looks(&[(0, 8), (1, 7)]);
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64]);
        assert!(matches!(state, State::Waiting { .. }));
        assert_eq!(looks(&[(0, 8), (1, 8)]), (vec![1], State::Near));
        assert_eq!(looks(&[(0, 9), (1, 8)]), (vec![1], State::Said));
        assert_eq!(looks(&[(0, 9), (2, 9), (1, 17)]), (vec![1], State::Said));
    }

    #[test]
    fn another_client_is_judged_anew_and_one_that_was_far_is_said_once() {
        let (mut memory, start) = (memory(), Instant::now());
        let mut client_at = |second: u64, node: u32| {
            let at = |second| start + Duration::from_secs(second);
            let due = [(true, 0), (false, 1), (false, 2)];
            let due = due.map(|(gone, after)| memory.is_due(gone, at(second + after)));
            if due == [false, false, true] {
                memory.judge(&[(node, 100)].into_iter().collect());
            }
            memory.state
        };
        assert_eq!(client_at(0, 1), State::Near);
        assert_eq!(client_at(10, 0), State::Said);
        assert_eq!(client_at(20, 1), State::Said);
    }
}
