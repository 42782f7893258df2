//! Whole commands: a poll group and its host take turns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bdev::{Bdev, IoContext, IoLimits};
use nvme::namespace::Namespace;
use nvme::pcie::message::{Coalescing, ControllerView, Envelope, GroupId, ToGroup};
use nvme::pcie::poll_group::{GroupSeed, PollGroup};
use nvme::pcie::state::ControllerState;
use nvme::spec::{Nsid, QueueId, Status};

use super::case::Case;
use super::host::{ENTRIES, Host, queue_pair};
use super::{MicroError, pass};

/// A group with queues, and the host of the first of them.
pub(super) struct Group {
    pub(super) group: PollGroup,
    pub(super) host: Host,
}

impl Group {
    /// A group of this many queue pairs.
    pub(super) fn new(case: Case, queues: u16) -> Result<Group, MicroError> {
        let host = Host::new(case.traffic(), queues)?;
        let seed = GroupSeed {
            id: GroupId(0),
            state: ControllerState::new(queues, ENTRIES as u16)?,
            doorbells: Arc::clone(&host.doorbells),
            view: Arc::new(view(&namespace(case.disk()?))),
        };
        let mut group = PollGroup::new(seed, IoContext::new(IoLimits::default())?);
        let pairs = (1..=queues).map(QueueId).flat_map(|id| {
            let (cq, sq) = queue_pair(id);
            [ToGroup::CreateCq(cq), ToGroup::CreateSq(sq)]
        });
        let requests = std::iter::once(ToGroup::Map(host.region())).chain(pairs);
        for (sequence, body) in (1..).zip(requests) {
            group.receive(Envelope { sequence, body });
        }
        Ok(Group { group, host })
    }

    /// A burst from its submission to its last completion: the time in the group.
    ///
    /// # Errors
    /// The first status that is not a success.
    pub(super) fn burst(&mut self) -> Result<Duration, Status> {
        self.host.submit();
        let begun = Instant::now();
        while !self.host.is_done() {
            pass(&mut self.group);
        }
        let time = begun.elapsed();
        self.host.reap()?;
        Ok(time)
    }
}

/// A disk as a controller's first namespace.
pub(super) fn namespace(disk: Arc<dyn Bdev>) -> Arc<Namespace> {
    Arc::new(Namespace::new(Nsid(1), disk, false))
}

/// A controller with this namespace.
pub(super) fn view(namespace: &Arc<Namespace>) -> ControllerView {
    ControllerView {
        number: 1,
        namespaces: vec![Some(Arc::clone(namespace))],
        vectors: Vec::new(),
        coalescing: Coalescing::default(),
        uncoalesced: Vec::new(),
        page_shift: 12,
        transfer_bytes_max: 1 << 20,
        write_cache: true,
        shadow: None,
    }
}
