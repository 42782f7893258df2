//! What a controller is made from, and what may be chosen of it.

use std::sync::Arc;

use bdev::memory::SharedPages;

use crate::admin::features::FeatureLimits;
use crate::pcie::doorbell::doorbell_file_bytes;
use crate::pcie::message::{Coalescing, ControllerView, GroupId};
use crate::pcie::poll_group::GroupSeed;
use crate::pcie::state::{ControllerState, DEPTH_MAX, QUEUES_MAX};
use crate::subsystem::Subsystem;

/// Most interrupt vectors. Windows does not start a controller that has many more.
pub const VECTORS_MAX: u16 = 128;

/// What may be chosen of a controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControllerConfig {
    /// Controller identifier, unique in the subsystem.
    pub cntlid: u16,
    /// I/O queue pairs, 1-128.
    pub queues: u16,
    /// Entries of an I/O queue at most, 2-4096.
    pub depth: u16,
    /// MSI-X vectors, 1-128.
    pub vectors: u16,
    /// Whether there is an interrupt pin.
    pub intx: bool,
    /// Most bytes of one transfer (MDTS): a power of two, 4096 or more.
    pub transfer_bytes_max: u32,
    /// Whether the host may put its doorbells into memory.
    pub doorbell_buffer: DoorbellBuffer,
    /// Poll groups that its I/O queues are spread over, 1 or more.
    pub groups: u16,
}

/// When Doorbell Buffer Config is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DoorbellBuffer {
    /// Always.
    On,
    /// Never.
    Off,
    /// Only to clients that do not map the doorbell page, for whom a doorbell is a message.
    Auto,
}

/// Why a controller cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// A number is out of its limits.
    #[error("{what} of a controller is {value}, must be {low} to {high}")]
    Range {
        /// Which number.
        what: &'static str,
        /// What it is.
        value: u64,
        /// Least.
        low: u64,
        /// Most.
        high: u64,
    },
    /// The state is of a controller of another shape.
    #[error("durable state is for {queues} queues of {depth} entries")]
    State {
        /// Queues in the state.
        queues: u16,
        /// Depth in the state.
        depth: u16,
    },
    /// The doorbell pages are too few.
    #[error("{found} bytes of doorbells, {needed} needed")]
    Doorbells {
        /// Bytes there are.
        found: usize,
        /// Bytes needed.
        needed: usize,
    },
}

impl ControllerConfig {
    /// Checks every number against its limits.
    ///
    /// # Errors
    /// [`ControllerError::Range`] names the first that is out of them.
    pub fn check(&self) -> Result<(), ControllerError> {
        let checks = [
            ("queues", u64::from(self.queues), 1, u64::from(QUEUES_MAX)),
            ("depth", self.depth.into(), 2, DEPTH_MAX.into()),
            ("vectors", self.vectors.into(), 1, VECTORS_MAX.into()),
            (
                "largest transfer",
                self.transfer_bytes_max.into(),
                4096,
                1 << 20,
            ),
            ("number of poll groups", self.groups.into(), 1, 1024),
            ("controller identifier", self.cntlid.into(), 0, 0xffef),
        ];
        for (what, value, low, high) in checks {
            if value < low || value > high {
                return Err(ControllerError::Range {
                    what,
                    value,
                    low,
                    high,
                });
            }
        }
        Ok(())
    }
}

/// What a controller and its poll groups are made from. It may cross threads; they do not.
#[derive(Clone, Debug)]
pub struct ControllerParts {
    /// What was chosen.
    pub config: ControllerConfig,
    /// The subsystem it belongs to.
    pub subsystem: Arc<Subsystem>,
    /// The durable state, fresh or of an earlier life.
    pub state: Arc<ControllerState>,
    /// The doorbell file.
    pub doorbells: Arc<SharedPages>,
}

impl ControllerParts {
    /// What poll group `id` is to be made from.
    pub fn seed(&self, id: GroupId) -> GroupSeed {
        GroupSeed {
            id,
            state: Arc::clone(&self.state),
            doorbells: Arc::clone(&self.doorbells),
            view: Arc::new(view_at_rest(&self.config, &self.subsystem)),
        }
    }
}

/// Registers, doorbells, and the next power of two; firmware and Windows expect 16 KiB at least.
pub(super) fn bar0_bytes(queues: u16) -> u64 {
    (doorbell_file_bytes(queues) as u64)
        .next_power_of_two()
        .max(0x4000)
}

pub(super) fn feature_limits(config: &ControllerConfig, subsystem: &Subsystem) -> FeatureLimits {
    FeatureLimits {
        queues: config.queues,
        vectors: config.vectors,
        namespaces: subsystem.namespaces().len() as u32,
        write_cache: subsystem
            .active()
            .any(|ns| ns.bdev().geometry().volatile_cache),
    }
}

pub(super) fn view_at_rest(config: &ControllerConfig, subsystem: &Subsystem) -> ControllerView {
    ControllerView {
        number: 0,
        namespaces: subsystem.namespaces().to_vec(),
        vectors: vec![None; usize::from(config.vectors)],
        coalescing: Coalescing::default(),
        uncoalesced: Vec::new(),
        page_shift: 12,
        transfer_bytes_max: config.transfer_bytes_max,
        write_cache: true,
        shadow: None,
    }
}
