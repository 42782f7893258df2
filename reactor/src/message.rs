//! What threads say to each other, in bounded lock-free rings: one inbox for each reactor, one for
//! the control thread. A full ring hands the message back, and its sender tries again on its next
//! pass.

use std::sync::Arc;
use std::thread::Thread;

use bdev::memory::{Backing, MapError};
use crossbeam_queue::ArrayQueue;
use nvme::pcie::message::{Envelope, FromGroup, GroupId};

use crate::unclosed::Unwanted;

/// Messages that wait in one inbox.
const INBOX_MAX: usize = 1024;

/// Number of a reactor, in the order of its core.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReactorId(pub usize);

/// Number of a controller, in the order of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ControllerId(pub usize);

/// To a reactor.
#[derive(Debug)]
pub enum ToReactor {
    /// From a controller to one of its poll groups.
    ToGroup(ControllerId, GroupId, Envelope),
    /// From a poll group to its controller.
    FromGroup(ControllerId, GroupId, FromGroup),
    /// Guest memory that an endpoint asked the control thread for.
    Opened(ControllerId, u64, Result<Arc<Backing>, MapError>),
    /// Bring every controller to rest, and report each.
    Stop,
    /// End.
    Exit,
}

/// To the control thread.
#[derive(Debug)]
pub enum ToControl {
    /// Open guest memory.
    Open(OpenMemory),
    /// Close a descriptor that the client of a controller sent, which may block.
    Close(ControllerId, Unwanted),
    /// A controller is at rest.
    Stopped,
    /// A reactor cannot go on.
    Failed(ReactorId, anyhow::Error),
    /// A reactor polls.
    Running(ReactorId),
}

/// Guest memory to be opened for an endpoint.
#[derive(Debug)]
pub struct OpenMemory {
    /// Who asks.
    pub controller: ControllerId,
    /// Comes back in the answer.
    pub request: u64,
    /// The file, closed afterwards.
    pub file: Unwanted,
    /// Bytes of it that must be there.
    pub needed_end: u64,
    /// Whether it is to be written.
    pub writable: bool,
}

/// A bounded inbox of many senders and one receiver.
pub struct Inbox<T>(Arc<ArrayQueue<T>>);

impl<T> Clone for Inbox<T> {
    fn clone(&self) -> Inbox<T> {
        Inbox(Arc::clone(&self.0))
    }
}

impl<T> Inbox<T> {
    /// An empty one.
    pub fn new() -> Inbox<T> {
        Inbox(Arc::new(ArrayQueue::new(INBOX_MAX)))
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The inbox is full; the message comes back.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.0.push(message)
    }

    /// Receives the oldest message.
    pub fn receive(&self) -> Option<T> {
        self.0.pop()
    }
}

/// The way to every thread.
#[derive(Clone)]
pub struct Post {
    /// Inboxes of the reactors.
    pub reactors: Vec<Inbox<ToReactor>>,
    /// Inbox of the control thread.
    pub control: Inbox<ToControl>,
    /// The control thread, which sleeps.
    pub control_thread: Thread,
    /// For each controller, the reactor of its endpoint and those of its poll groups in order.
    pub places: Arc<Vec<Place>>,
}

/// Where the parts of a controller are.
#[derive(Clone, Debug)]
pub struct Place {
    /// Reactor of the endpoint.
    pub home: ReactorId,
    /// Reactor of each poll group.
    pub groups: Vec<ReactorId>,
}

impl Post {
    /// Sends to the control thread and wakes it.
    ///
    /// # Errors
    /// Its inbox is full; the message comes back.
    pub fn to_control(&self, message: ToControl) -> Result<(), ToControl> {
        let sent = self.control.send(message);
        self.control_thread.unpark();
        sent
    }

    /// Sends to a reactor, which polls.
    ///
    /// # Errors
    /// Its inbox is full; the message comes back.
    pub fn to_reactor(&self, reactor: ReactorId, message: ToReactor) -> Result<(), ToReactor> {
        self.reactors[reactor.0].send(message)
    }
}
