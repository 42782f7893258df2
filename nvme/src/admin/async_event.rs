//! Asynchronous events (NVMe Base 2.0, 5.2): requests that wait for events, and events that wait
//! for requests.
//!
//! After an event of a type was reported, further events of that type are held back until the
//! host has read the log page that belongs to it (clearing the event).

use crate::pcie::queue::SlotIndex;
use crate::spec::Status;
use crate::spec::admin::AsyncEvent;
use crate::spec::log_page::lid;

/// AERL: most requests that wait, zero-based.
pub const REQUESTS_MAX_Z: u8 = 3;
const REQUESTS_MAX: usize = REQUESTS_MAX_Z as usize + 1;
/// Most events that wait; more of the same say nothing new.
const EVENTS_MAX: usize = 8;

/// Error: a doorbell of a queue that does not exist was written.
pub const INVALID_DOORBELL_REGISTER: u8 = 0;
/// Error: a doorbell was written with a value outside its queue.
pub const INVALID_DOORBELL_VALUE: u8 = 1;

/// Event type: error.
pub const ERROR: u8 = 0;

/// The requests and events of one controller.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AsyncEvents {
    requests: Vec<SlotIndex>,
    pending: Vec<AsyncEvent>,
    /// Event types that were reported and whose log page was not read yet.
    reported: u8,
}

impl AsyncEvents {
    /// A request of the host, in this slot of the admin queue, waits from now on.
    ///
    /// # Errors
    /// Asynchronous Event Request Limit Exceeded.
    pub fn park(&mut self, slot: SlotIndex) -> Result<(), Status> {
        if self.requests.len() == REQUESTS_MAX {
            return Err(Status::ASYNC_EVENT_LIMIT_EXCEEDED);
        }
        self.requests.push(slot);
        Ok(())
    }

    /// Takes a request back from those that wait, because the host aborts it.
    pub fn abort(&mut self, is_it: impl Fn(SlotIndex) -> bool) -> Option<SlotIndex> {
        let index = self.requests.iter().position(|&slot| is_it(slot))?;
        Some(self.requests.remove(index))
    }

    /// An error event happened.
    pub fn error(&mut self, information: u8) {
        let event = AsyncEvent::new()
            .with_kind(ERROR)
            .with_information(information)
            .with_log_page(lid::ERROR);
        if self.pending.len() < EVENTS_MAX && !self.pending.contains(&event) {
            self.pending.push(event);
        }
    }

    /// The next request that can be answered, and with what; neither is taken yet.
    pub fn due(&self) -> Option<(SlotIndex, AsyncEvent)> {
        let slot = *self.requests.first()?;
        let open = |event: &&AsyncEvent| self.reported >> event.kind() & 1 == 0;
        Some((slot, *self.pending.iter().find(open)?))
    }

    /// The request that was [due](AsyncEvents::due) is being answered.
    pub fn answer(&mut self, event: AsyncEvent) {
        self.requests.remove(0);
        self.pending.retain(|pending| *pending != event);
        self.reported |= 1 << event.kind();
    }

    /// The host has read a log page without retaining the event.
    pub fn clear(&mut self, lid: u8) {
        if lid == lid::ERROR {
            self.reported &= !(1 << ERROR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_by_the_next_event() {
        let mut events = AsyncEvents::default();
        events.park(SlotIndex(5)).unwrap();
        assert_eq!(events.due(), None);
        events.error(INVALID_DOORBELL_VALUE);
        let (slot, event) = events.due().unwrap();
        assert_eq!((slot, u32::from(event)), (SlotIndex(5), 0x0001_0100));
        events.answer(event);
        assert_eq!(events.due(), None);
    }

    #[test]
    fn an_event_waits_for_a_request() {
        let mut events = AsyncEvents::default();
        events.error(INVALID_DOORBELL_VALUE);
        assert_eq!(events.due(), None);
        events.park(SlotIndex(0)).unwrap();
        assert!(events.due().is_some());
    }

    #[test]
    fn a_type_is_held_back_until_its_log_page_was_read() {
        let mut events = AsyncEvents::default();
        (0..3).for_each(|slot| events.park(SlotIndex(slot)).unwrap());
        events.error(INVALID_DOORBELL_VALUE);
        let (_, first) = events.due().unwrap();
        events.answer(first);
        events.error(INVALID_DOORBELL_REGISTER);
        assert_eq!(events.due(), None);
        events.clear(lid::SMART);
        assert_eq!(events.due(), None);
        events.clear(lid::ERROR);
        assert_eq!(events.due().unwrap().0, SlotIndex(1));
    }

    #[test]
    fn no_more_requests_wait_than_were_announced() {
        let mut events = AsyncEvents::default();
        for slot in 0..=u16::from(REQUESTS_MAX_Z) {
            events.park(SlotIndex(slot)).unwrap();
        }
        let one_more = events.park(SlotIndex(9));
        assert_eq!(one_more, Err(Status::ASYNC_EVENT_LIMIT_EXCEEDED));
        assert_eq!(
            events.abort(|slot| slot == SlotIndex(2)),
            Some(SlotIndex(2))
        );
        events.park(SlotIndex(9)).unwrap();
    }
}
