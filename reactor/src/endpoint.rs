//! An endpoint: a socket, the controller behind it, and `vfio_user::Device` over the plain methods
//! of that controller.
//!
//! Guest memory is opened by the control thread; until its answer comes the client waits, and
//! nobody else.

mod device;
#[cfg(test)]
pub(crate) mod tests;

use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use bdev::memory::{Backing, MapError};
use nvme::pcie::controller::{Controller, ControllerParts};
use nvme::pcie::message::{Envelope, FromGroup, GroupId};
use vfio_user::{Server, ServerLimits, SessionEvent};

use self::device::EndpointDevice;
use crate::message::{ControllerId, Post, ToControl};

/// How often a socket is looked at whose client was heard of a moment ago.
const BUSY_INTERVAL_NS: u64 = 20_000;
/// How often one is where something else than the client is waited for.
const WAITING_INTERVAL_NS: u64 = 2_000_000;
/// How often one is of which nothing is expected but that it [can be read](Endpoint::readable): for
/// what is not told, if there is such a thing.
const IDLE_INTERVAL_NS: u64 = 100_000_000;
/// How long that moment is.
const BUSY_FOR_NS: u64 = 100_000_000;

/// What an endpoint is made from; it crosses to the reactor's thread.
pub struct EndpointSeed {
    pub id: ControllerId,
    /// The socket, for the log.
    pub name: String,
    pub parts: ControllerParts,
    pub listener: OwnedFd,
}

/// A socket and the controller behind it, on the controller's home reactor.
pub struct Endpoint {
    name: String,
    server: Server,
    device: EndpointDevice,
    next_look_ns: u64,
    heard_ns: Option<u64>,
    /// Its client has connected, and nobody has asked for it yet.
    is_new: bool,
    /// Nobody tells when something arrives from its client.
    is_unwatched: bool,
    stopping: Stopping,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// The controller is coming to rest.
    Asked,
    /// The control thread has been told.
    Told,
}

impl Endpoint {
    /// A controller after power-on behind a socket that listens.
    ///
    /// # Errors
    /// The parts do not fit together.
    pub fn new(seed: EndpointSeed, post: Post) -> anyhow::Result<Endpoint> {
        let controller = Controller::new(seed.parts)?;
        Ok(Endpoint {
            name: seed.name,
            server: Server::new(seed.listener, ServerLimits::default()),
            device: EndpointDevice::new(seed.id, controller, post),
            next_look_ns: 0,
            heard_ns: None,
            is_new: false,
            is_unwatched: false,
            stopping: Stopping::No,
        })
    }

    /// Its controller's number.
    pub fn id(&self) -> ControllerId {
        self.device.id
    }

    /// One pass: the admin queue always, the socket when its time has come. True if anything came
    /// of it.
    #[inline]
    pub fn poll(&mut self, now_ns: u64) -> bool {
        let mut busy = self.device.controller.poll(now_ns);
        if now_ns >= self.next_look_ns || self.device.is_pending() {
            busy |= self.look(now_ns);
        }
        busy
    }

    /// Whether its client was heard of a moment ago, and is likely to go on.
    pub fn is_talking(&self, now_ns: u64) -> bool {
        let is_recent = |heard| now_ns.saturating_sub(heard) < BUSY_FOR_NS;
        self.heard_ns.is_some_and(is_recent)
    }

    /// The socket that clients connect to.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.server.listener()
    }

    /// The connection of a client that nobody has asked for yet.
    pub fn take_new(&mut self) -> Option<BorrowedFd<'_>> {
        let is_new = mem::take(&mut self.is_new);
        self.is_unwatched &= !is_new;
        self.server.connection().filter(|_| is_new)
    }

    /// Nobody will tell when something arrives from this client.
    pub fn unwatched(&mut self) {
        self.is_unwatched = true;
    }

    /// Something has arrived at one of its sockets: the next pass looks.
    pub fn readable(&mut self) {
        self.next_look_ns = 0;
    }

    /// Looks at its sockets no more unless something arrives.
    #[cfg(test)]
    pub(crate) fn sleep(&mut self) {
        (self.next_look_ns, self.heard_ns) = (u64::MAX, None);
    }

    /// Whether its client waits for something.
    pub fn is_pending(&self) -> bool {
        self.device.is_pending()
    }

    fn look(&mut self, now_ns: u64) -> bool {
        self.device.flush();
        let heard = !self.device.is_clogged() && self.server.poll(&mut self.device);
        if heard {
            self.heard_ns = Some(now_ns);
        }
        while let Some(event) = self.server.take_event() {
            self.is_new |= matches!(event, SessionEvent::Connected { .. });
            self.log(&event);
        }
        self.next_look_ns = now_ns + self.interval_ns(now_ns);
        self.report_stop();
        heard
    }

    /// How long the socket can wait.
    fn interval_ns(&self, now_ns: u64) -> u64 {
        if self.is_talking(now_ns) {
            BUSY_INTERVAL_NS
        } else if self.is_waiting() {
            WAITING_INTERVAL_NS
        } else {
            IDLE_INTERVAL_NS
        }
    }

    fn is_waiting(&self) -> bool {
        self.is_unwatched
            || self.server.is_waiting()
            || self.device.is_clogged()
            || self.device.has_unsent()
            || self.stopping == Stopping::Asked
    }

    fn log(&self, event: &SessionEvent) {
        let socket = &self.name;
        match event {
            SessionEvent::Connected { peer: Some(peer) } => {
                tracing::info!(socket, pid = peer.pid, uid = peer.uid, "client connected");
            }
            SessionEvent::Connected { peer: None } => tracing::info!(socket, "client connected"),
            SessionEvent::Disconnected { reason } => {
                tracing::info!(socket, reason, "client gone");
            }
            SessionEvent::Unsettled { errno } => {
                tracing::warn!(socket, %errno, "controller did not come to rest");
            }
            SessionEvent::Refused { reason } => {
                tracing::warn!(socket, reason, "client refused");
            }
        }
    }

    /// The control thread has opened guest memory, or could not.
    pub fn opened(&mut self, request: u64, result: Result<Arc<Backing>, MapError>) {
        self.device.opened(request, result, &self.name);
    }

    /// Takes what a poll group says.
    pub fn receive(&mut self, group: GroupId, message: FromGroup) {
        self.device.controller.receive(group, message);
    }

    /// The next message to a poll group.
    pub fn take_message(&mut self) -> Option<(GroupId, Envelope)> {
        self.device.controller.take_message()
    }

    /// Takes a message back that found a ring full.
    pub fn put_back(&mut self, group: GroupId, envelope: Envelope) {
        self.device.controller.put_back(group, envelope);
    }

    /// Brings the controller to rest; the control thread is told when it is.
    pub fn stop(&mut self) {
        if self.stopping == Stopping::No {
            self.stopping = Stopping::Asked;
            self.device.controller.stop();
            self.next_look_ns = 0;
        }
    }

    fn report_stop(&mut self) {
        if self.stopping == Stopping::Asked && self.device.controller.is_at_rest() {
            let told = self.device.post.to_control(ToControl::Stopped);
            if told.is_ok() {
                self.stopping = Stopping::Told;
            }
        }
    }
}
