//! What is reported: a plan, and what came of it.

use crate::cores::Core;
use crate::workload::{Outcome, Plan};

/// A plan that was carried out, or begun at least.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) plan: Plan,
    pub(crate) outcome: Outcome,
    pub(crate) distance: Option<Distance>,
}

/// How far the first client's core and the reactor's were apart around a workload: the round trip
/// of a cache line. Virtual machines get their cores moved while they run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distance {
    pub(crate) client: Core,
    pub(crate) reactor: Core,
    pub(crate) before_ns: f64,
    pub(crate) after_ns: f64,
}

impl Distance {
    pub(crate) fn mean_ns(&self) -> f64 {
        (self.before_ns + self.after_ns) / 2.0
    }
}

#[cfg(test)]
impl Finished {
    /// A plan that was begun, and nothing has happened.
    pub(crate) fn example() -> Finished {
        let (plan, outcome) = crate::workload::example();
        Finished {
            plan,
            outcome,
            distance: None,
        }
    }
}
