//! The hold of a request on its blocks, which goes where the request goes.

use std::cell::RefCell;
use std::rc::Rc;

use crate::claims::{Claim, Claimant};

/// The blocks of a request, held until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    claim: Option<(Rc<RefCell<Claimant>>, Claim)>,
}

impl Held {
    pub(super) fn new(claimant: &Rc<RefCell<Claimant>>, claim: Claim) -> Held {
        let claim = Some((Rc::clone(claimant), claim));
        Held { claim }
    }

    /// Of a request that does not need its blocks for itself.
    pub(super) const NOTHING: Held = Held { claim: None };
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((claimant, claim)) = self.claim.take() {
            claimant.borrow_mut().release(claim);
        }
    }
}
