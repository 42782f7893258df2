//! Completions that wait for their channel's poll.

use crate::{Completion, Status, Tag};

/// A queue of fixed size. Its owner accepts no more requests than it has room for answers.
#[derive(Debug)]
pub(crate) struct CompletionQueue {
    queue: Vec<Completion>,
    depth: usize,
}

impl CompletionQueue {
    pub(crate) fn new(depth: usize) -> Self {
        CompletionQueue {
            queue: Vec::with_capacity(depth),
            depth,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= self.depth
    }

    #[inline]
    pub(crate) fn push(&mut self, tag: Tag, status: Status) {
        debug_assert!(
            !self.is_full(),
            "a request was accepted without room for its answer"
        );
        self.queue.push(Completion { tag, status });
    }

    /// Moves as many as `completed` has capacity for.
    #[inline]
    pub(crate) fn drain_into(&mut self, completed: &mut Vec<Completion>) {
        let room = completed.capacity() - completed.len();
        let count = room.min(self.queue.len());
        completed.extend_from_slice(&self.queue[..count]);
        self.queue.drain(..count);
    }
}
