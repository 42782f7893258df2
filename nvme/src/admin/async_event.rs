//! Asynchronous events (NVMe Base 2.0, 5.2): requests that wait for events, and events that wait
//! for requests.
//!
//! After an event of a type was reported, further events of that type are held back until the
//! host has read the log page that belongs to it (clearing the event).

use crate::pcie::queue::SlotIndex;
use crate::spec::Status;
use crate::spec::admin::AsyncEvent;

/// AERL: most requests that wait, zero-based.
pub const REQUESTS_MAX_Z: u8 = 3;
const REQUESTS_MAX: usize = REQUESTS_MAX_Z as usize + 1;
/// Most events that wait: each that there is, once. More of the same would say nothing new.
const EVENTS_MAX: usize = EVENTS.len();
/// The events that this controller reports.
const EVENTS: [AsyncEvent; 3] = [
    AsyncEvent::INVALID_DOORBELL_REGISTER,
    AsyncEvent::INVALID_DOORBELL_VALUE,
    AsyncEvent::TEMPERATURE,
];
/// Words that [`AsyncEvents::to_words`] needs: the types that are held back, and the events that
/// wait, 0 = none.
pub const EVENT_WORDS: usize = 1 + 2 * EVENTS_MAX;
const _: () = assert!(EVENT_WORDS <= 16, "the room in the durable state");

/// The requests and events of one controller.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AsyncEvents {
    requests: Vec<SlotIndex>,
    pending: Vec<AsyncEvent>,
    /// Event types that were reported and whose log page was not read yet, a bit each.
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

    /// Something happened that the host is to hear of.
    pub fn report(&mut self, event: AsyncEvent) {
        if self.pending.len() < EVENTS_MAX && !self.pending.contains(&event) {
            self.pending.push(event);
        }
    }

    /// The next request that can be answered, and with what; neither is taken yet.
    pub fn due(&self) -> Option<(SlotIndex, AsyncEvent)> {
        let slot = *self.requests.first()?;
        let open = |event: &&AsyncEvent| self.reported & type_bit(event.kind()) == 0;
        Some((slot, *self.pending.iter().find(open)?))
    }

    /// The request that was [due](AsyncEvents::due) is being answered.
    pub fn answer(&mut self, event: AsyncEvent) {
        self.requests.remove(0);
        self.pending.retain(|pending| *pending != event);
        self.reported |= type_bit(event.kind());
    }

    /// The host has read a log page without retaining the event.
    pub fn clear(&mut self, lid: u8) {
        for event in EVENTS.iter().filter(|event| event.log_page() == lid) {
            self.reported &= !type_bit(event.kind());
        }
    }

    /// The events as plain words. Requests are not among them: they are in their slots.
    pub fn to_words(&self) -> [u32; EVENT_WORDS] {
        let mut words = [0; EVENT_WORDS];
        words[0] = self.reported.into();
        for (pair, event) in words[1..].chunks_exact_mut(2).zip(&self.pending) {
            pair.copy_from_slice(&[1, u32::from(*event)]);
        }
        words
    }

    /// What [`AsyncEvents::to_words`] wrote, without requests; what is no event is left out.
    pub fn from_words(words: &[u32; EVENT_WORDS]) -> AsyncEvents {
        let mut events = AsyncEvents {
            reported: words[0] as u8 & EVENTS.iter().fold(0, |all, e| all | type_bit(e.kind())),
            ..AsyncEvents::default()
        };
        for pair in words[1..].chunks_exact(2).filter(|pair| pair[0] == 1) {
            let event = AsyncEvent::from(pair[1]);
            if EVENTS.contains(&event) {
                events.report(event);
            }
        }
        events
    }
}

fn type_bit(kind: u8) -> u8 {
    1 << (kind & 7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec::log_page::lid;

    const REGISTER: AsyncEvent = AsyncEvent::INVALID_DOORBELL_REGISTER;
    const VALUE: AsyncEvent = AsyncEvent::INVALID_DOORBELL_VALUE;
    const TEMPERATURE: AsyncEvent = AsyncEvent::TEMPERATURE;

    fn with_requests(count: u16) -> AsyncEvents {
        let mut events = AsyncEvents::default();
        (0..count).for_each(|slot| events.park(SlotIndex(slot)).unwrap());
        events
    }

    #[test]
    fn a_request_is_answered_by_the_next_event() {
        let mut events = AsyncEvents::default();
        events.park(SlotIndex(5)).unwrap();
        assert_eq!(events.due(), None);
        events.report(VALUE);
        assert_eq!(events.due(), Some((SlotIndex(5), VALUE)));
        events.answer(VALUE);
        assert_eq!(events.due(), None);
    }

    #[test]
    fn an_event_waits_for_a_request() {
        let mut events = AsyncEvents::default();
        events.report(VALUE);
        assert_eq!(events.due(), None);
        events.park(SlotIndex(0)).unwrap();
        assert_eq!(events.due(), Some((SlotIndex(0), VALUE)));
    }

    #[test]
    fn a_type_is_held_back_until_its_log_page_was_read() {
        let mut events = with_requests(3);
        events.report(VALUE);
        events.answer(VALUE);
        events.report(REGISTER);
        assert_eq!(events.due(), None);
        events.report(TEMPERATURE);
        assert_eq!(events.due(), Some((SlotIndex(1), TEMPERATURE)));
        events.answer(TEMPERATURE);
        for other in [lid::SMART, lid::FIRMWARE_SLOT, lid::EFFECTS] {
            events.clear(other);
            assert_eq!(events.due(), None);
        }
        events.clear(lid::ERROR);
        assert_eq!(events.due(), Some((SlotIndex(2), REGISTER)));
    }

    #[test]
    fn no_more_requests_wait_than_were_announced() {
        let mut events = with_requests(u16::from(REQUESTS_MAX_Z) + 1);
        let one_more = events.park(SlotIndex(9));
        assert_eq!(one_more, Err(Status::ASYNC_EVENT_LIMIT_EXCEEDED));
        assert_eq!(events.abort(|slot| slot == SlotIndex(8)), None);
        assert_eq!(
            events.abort(|slot| slot == SlotIndex(2)),
            Some(SlotIndex(2))
        );
        events.park(SlotIndex(9)).unwrap();
    }

    #[test]
    fn the_same_event_waits_once() {
        let mut events = with_requests(2);
        (0..100).for_each(|_| events.report(VALUE));
        events.answer(VALUE);
        events.clear(lid::ERROR);
        assert_eq!(events.due(), None);
    }

    #[test]
    fn the_words_hold_everything_but_the_requests() {
        let mut events = with_requests(1);
        events.report(VALUE);
        events.answer(VALUE);
        events.report(REGISTER);
        events.report(TEMPERATURE);
        let mut again = AsyncEvents::from_words(&events.to_words());
        assert_eq!(again, events);
        again.park(SlotIndex(7)).unwrap();
        assert_eq!(again.due(), Some((SlotIndex(7), TEMPERATURE)));
    }

    proptest! {
        /// Against a model of one flag per event and type: a request is answered exactly when some
        /// event waits whose type is not held back, oldest request first.
        #[test]
        fn requests_and_events_meet(
            steps in proptest::collection::vec((0u8..4, 0usize..3), 1..200),
        ) {
            let mut events = AsyncEvents::default();
            let (mut waiting, mut parked, mut held) = ([false; 3], 0usize, [false; 2]);
            let type_of = |event: usize| usize::from(event == 2);
            for (step, which) in steps {
                match step {
                    0 => {
                        let parks = events.park(SlotIndex(0)).is_ok();
                        prop_assert_eq!(parks, parked < 4);
                        parked += usize::from(parks);
                    }
                    1 => {
                        events.report(EVENTS[which]);
                        waiting[which] = true;
                    }
                    2 => {
                        let lid = EVENTS[which].log_page();
                        events.clear(lid);
                        held[type_of(which)] = false;
                    }
                    _ => events = {
                        let mut again = AsyncEvents::from_words(&events.to_words());
                        (0..parked).for_each(|_| again.park(SlotIndex(0)).unwrap());
                        again
                    },
                }
                let open = |event: usize| waiting[event] && !held[type_of(event)];
                prop_assert_eq!(events.due().is_some(), parked > 0 && (0..3).any(open));
                if let Some((_, event)) = events.due() {
                    let index = EVENTS.iter().position(|known| *known == event).unwrap();
                    prop_assert!(open(index));
                    events.answer(event);
                    waiting[index] = false;
                    held[type_of(index)] = true;
                    parked -= 1;
                }
            }
        }

        #[test]
        fn any_words_give_valid_events(words: [u32; EVENT_WORDS]) {
            let events = AsyncEvents::from_words(&words);
            prop_assert_eq!(AsyncEvents::from_words(&events.to_words()), events);
        }
    }
}
