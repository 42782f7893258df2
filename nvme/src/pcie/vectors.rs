//! Where interrupts go: the MSI-X vectors that the client bound, or the interrupt pin.
//!
//! VMMs emulate the MSI-X table themselves and tell the device only which eventfds are bound, so
//! a vector is deliverable when something is bound to it. The mask bit in our own table counts
//! only for entries that the client has written: a client that never touches the table would
//! otherwise never get an interrupt, as entries are masked after a reset (PCI 3.0, 6.8.2.9).

use std::fmt;
use std::sync::Arc;

use super::message::Interrupt;

/// Dwords of a table entry: address low and high, data, control.
const ENTRY_DWORDS: usize = 4;
const CONTROL: usize = 3;
const MASKED: u32 = 1;

/// The MSI-X vectors and the pin of one controller.
pub struct Vectors {
    vectors: Vec<Vector>,
    pin: Option<Arc<dyn Interrupt>>,
    pin_masked: bool,
}

#[derive(Clone)]
struct Vector {
    bound: Option<Arc<dyn Interrupt>>,
    masked_by_client: bool,
    table: [u32; ENTRY_DWORDS],
    table_written: bool,
}

impl Vector {
    fn new() -> Vector {
        Vector {
            bound: None,
            masked_by_client: false,
            table: [0, 0, 0, MASKED],
            table_written: false,
        }
    }

    fn masked(&self) -> bool {
        self.masked_by_client || self.table_written && self.table[CONTROL] & MASKED != 0
    }
}

/// How interrupts are delivered now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// By MSI-X vectors.
    Msix,
    /// By the interrupt pin.
    Pin,
}

impl Vectors {
    /// `count` vectors and a pin, nothing bound.
    pub fn new(count: u16) -> Vectors {
        Vectors {
            vectors: vec![Vector::new(); count.into()],
            pin: None,
            pin_masked: false,
        }
    }

    /// Number of MSI-X vectors.
    pub fn count(&self) -> u16 {
        self.vectors.len() as u16
    }

    /// Binds vectors from `start` on; those past the last are ignored.
    pub fn bind(&mut self, start: u16, bound: Vec<Option<Arc<dyn Interrupt>>>) {
        for (vector, bound) in self.vectors.iter_mut().skip(start.into()).zip(bound) {
            vector.bound = bound;
        }
    }

    /// Binds nothing to any vector any more.
    pub fn unbind_all(&mut self) {
        self.vectors
            .iter_mut()
            .for_each(|vector| vector.bound = None);
    }

    /// Masks or unmasks vectors on behalf of the client.
    pub fn mask(&mut self, start: u16, count: u16, masked: bool) {
        let range = self
            .vectors
            .iter_mut()
            .skip(start.into())
            .take(count.into());
        range.for_each(|vector| vector.masked_by_client = masked);
    }

    /// No vector is masked by the client.
    pub fn unmask_all(&mut self) {
        self.vectors
            .iter_mut()
            .for_each(|vector| vector.masked_by_client = false);
    }

    /// Raises one vector for the client, whatever the controller thinks of it.
    pub fn trigger(&self, vector: u16) {
        if let Some(Vector {
            bound: Some(bound), ..
        }) = self.vectors.get(usize::from(vector))
        {
            bound.signal();
        }
    }

    /// Binds the pin, or nothing.
    pub fn bind_pin(&mut self, pin: Option<Arc<dyn Interrupt>>) {
        self.pin = pin;
        self.pin_masked = false;
    }

    /// Masks or unmasks the pin on behalf of the client.
    pub fn mask_pin(&mut self, masked: bool) {
        self.pin_masked = masked;
    }

    /// Raises the pin.
    pub fn trigger_pin(&self) {
        if let Some(pin) = &self.pin {
            pin.signal();
        }
    }

    /// The vector table as after a reset; what is bound stays bound.
    pub fn reset(&mut self) {
        for vector in &mut self.vectors {
            *vector = Vector {
                bound: vector.bound.take(),
                ..Vector::new()
            };
        }
        self.pin_masked = false;
    }

    /// How interrupts go now: by MSI-X as soon as the client has bound a vector.
    pub fn delivery(&self) -> Delivery {
        match self.vectors.iter().any(|vector| vector.bound.is_some()) {
            true => Delivery::Msix,
            false => Delivery::Pin,
        }
    }

    /// What to signal for each vector, as a controller view says it. `pin_open` is whether the
    /// host lets the pin through, `interrupt_mask` the mask of INTMS and INTMC.
    pub fn effective(
        &self,
        pin_open: bool,
        interrupt_mask: u32,
    ) -> Vec<Option<Arc<dyn Interrupt>>> {
        if self.delivery() == Delivery::Msix {
            let open = |vector: &Vector| vector.bound.clone().filter(|_| !vector.masked());
            return self.vectors.iter().map(open).collect();
        }
        let open = pin_open && !self.pin_masked && interrupt_mask & 1 == 0;
        let mut vectors = vec![None; self.vectors.len()];
        if let Some(first) = vectors.first_mut() {
            *first = self.pin.clone().filter(|_| open);
        }
        vectors
    }

    /// True if the vector is kept from being delivered by a mask.
    pub fn is_masked(&self, vector: u16) -> bool {
        self.vectors
            .get(usize::from(vector))
            .is_some_and(Vector::masked)
    }

    /// A dword of the vector table; past its end 0.
    pub fn table_read(&self, dword: usize) -> u32 {
        let entry = self.vectors.get(dword / ENTRY_DWORDS);
        entry.map_or(0, |vector| vector.table[dword % ENTRY_DWORDS])
    }

    /// Writes a dword of the vector table: true if a mask changed.
    pub fn table_write(&mut self, dword: usize, value: u32) -> bool {
        let Some(vector) = self.vectors.get_mut(dword / ENTRY_DWORDS) else {
            return false;
        };
        let before = vector.masked();
        vector.table_written = true;
        vector.table[dword % ENTRY_DWORDS] = match dword % ENTRY_DWORDS {
            CONTROL => value & MASKED,
            0 => value & !3,
            _ => value,
        };
        vector.masked() != before
    }
}

impl fmt::Debug for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = self
            .vectors
            .iter()
            .filter(|vector| vector.bound.is_some())
            .count();
        f.debug_struct("Vectors")
            .field("count", &self.vectors.len())
            .field("bound", &bound)
            .field("pin", &self.pin.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Interrupt for Counter {
        fn signal(&self) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn bound() -> (Arc<Counter>, Option<Arc<dyn Interrupt>>) {
        let counter = Arc::new(Counter::default());
        (Arc::clone(&counter), Some(counter as _))
    }

    fn open(vectors: &Vectors) -> Vec<bool> {
        vectors
            .effective(true, 0)
            .iter()
            .map(Option::is_some)
            .collect()
    }

    #[test]
    fn a_vector_of_an_untouched_table_is_open_when_bound() {
        let mut vectors = Vectors::new(3);
        vectors.bind(1, vec![bound().1, None, bound().1]);
        assert_eq!(open(&vectors), [false, true, false]);
        assert_eq!(
            vectors.table_read(7),
            MASKED,
            "the table itself reads as after a reset"
        );
    }

    #[test]
    fn the_mask_bit_counts_for_entries_that_were_written() {
        let mut vectors = Vectors::new(2);
        vectors.bind(0, vec![bound().1, bound().1]);
        assert!(
            vectors.table_write(0, 0xfee0_0000),
            "masked, as its control says"
        );
        assert_eq!(open(&vectors), [false, true]);
        assert!(vectors.table_write(3, 0));
        assert_eq!(open(&vectors), [true, true]);
        assert!(!vectors.table_write(2, 77));
        assert_eq!(
            (vectors.table_read(0), vectors.table_read(2)),
            (0xfee0_0000, 77)
        );
        assert!(!vectors.table_write(8, 1), "past the end");
    }

    #[test]
    fn the_pin_serves_vector_0_while_no_vector_is_bound() {
        let mut vectors = Vectors::new(2);
        vectors.bind_pin(bound().1);
        assert_eq!(open(&vectors), [true, false]);
        assert!(
            vectors.effective(false, 0)[0].is_none(),
            "disabled in the command register"
        );
        assert!(vectors.effective(true, 1)[0].is_none(), "masked by INTMS");
        vectors.mask_pin(true);
        assert_eq!(open(&vectors), [false, false]);
        vectors.mask_pin(false);
        vectors.bind(1, vec![bound().1]);
        assert_eq!(open(&vectors), [false, true]);
    }

    #[test]
    fn the_client_masks_and_triggers() {
        let mut vectors = Vectors::new(2);
        let (counter, interrupt) = bound();
        vectors.bind(0, vec![interrupt]);
        vectors.mask(0, 9, true);
        assert_eq!(open(&vectors), [false, false]);
        vectors.trigger(0);
        vectors.trigger(1);
        vectors.trigger(500);
        assert_eq!(counter.0.load(Relaxed), 1);
        vectors.reset();
        assert_eq!(open(&vectors), [true, false]);
    }
}
