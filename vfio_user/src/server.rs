//! The server of one socket, polled by whoever owns it.
//!
//! One client is served at a time. The next one may connect meanwhile: it waits in the backlog of
//! the listening socket, and is accepted when the client before has left and the device has come
//! to rest. Nothing here waits: what cannot go on is tried again on the next pass.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{PeerCredentials, SndBuf};
use nix::sys::socket::{getsockopt, setsockopt};

use crate::device::{Device, Outcome};
use crate::frame::{Assembler, BadSize, Outbox};
use crate::session::{Flow, Session};
use crate::socket;

pub use crate::session::ServerLimits;

/// Messages carried out in one pass: what a busy client may take of the thread.
pub const MESSAGES_PER_POLL: usize = 8;
/// Reads in one pass, which bounds what a client does that sends a long message, or sends it in
/// many pieces.
pub const READS_PER_POLL: usize = 4 * MESSAGES_PER_POLL;
/// Bytes of replies that the kernel keeps for a client that does not read. It bounds descriptors
/// in flight too, of which Linux allows one user (without CAP_SYS_RESOURCE) RLIMIT_NOFILE in all.
const SEND_BUFFER: usize = 16 << 10;
/// Events kept until somebody asks; older ones make room.
const EVENTS: usize = 16;

/// The process at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id when it connected.
    pub pid: i32,
    /// User id when it connected.
    pub uid: u32,
}

/// Something worth a line in a log. The reasons are phrases: "the client closed the connection".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// A client has connected.
    Connected {
        /// Who it is; None where the kernel does not say.
        peer: Option<Peer>,
    },
    /// The client is gone.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// The device could not come to rest after a client had left.
    Unsettled {
        /// What it said.
        errno: Errno,
    },
    /// A client could not be accepted. Said once, until one can be.
    Refused {
        /// Why.
        reason: String,
    },
}

/// One listening socket and at most one session on it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    limits: ServerLimits,
    state: State,
    refused: bool,
    events: VecDeque<SessionEvent>,
}

#[derive(Debug)]
enum State {
    Listening,
    Serving(Box<Connection>),
    /// The client is gone; the device has yet to come to rest.
    Leaving,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    assembler: Assembler,
    session: Session,
    outbox: Outbox,
    /// Descriptors of the last read.
    fds: Vec<OwnedFd>,
}

/// What one read came to.
enum Step {
    Nothing,
    Part,
    Whole(Flow),
}

/// Why a connection is over.
enum Gone {
    Closed,
    ClosedMidway,
    Failed(Errno),
    BadSize(u32),
    Refused(&'static str),
}

/// Whether a connection lives on, and whether something was done for it.
type Pass = Result<bool, Gone>;

impl Server {
    /// Serves `listener`, a UNIX stream socket that is bound and listening. It is made
    /// non-blocking.
    pub fn new(listener: OwnedFd, limits: ServerLimits) -> Server {
        let listener = UnixListener::from(listener);
        // Cannot fail on an open descriptor.
        let _ = listener.set_nonblocking(true);
        Server {
            listener,
            limits,
            state: State::Listening,
            refused: false,
            events: VecDeque::with_capacity(EVENTS),
        }
    }

    /// One bounded, non-blocking pass, a single system call when nothing is to do. `device` is the
    /// same on every pass. True if something was done.
    pub fn poll(&mut self, device: &mut dyn Device) -> bool {
        match &mut self.state {
            State::Listening => self.accept(device),
            State::Serving(connection) => match connection.pass(device) {
                Ok(busy) => busy,
                Err(gone) => {
                    self.leave(&gone, device);
                    true
                }
            },
            State::Leaving => self.settle(device),
        }
    }

    /// The oldest event not yet taken.
    pub fn take_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Whether a client is connected, or has left a device that is not yet at rest.
    pub fn is_serving(&self) -> bool {
        !matches!(self.state, State::Listening)
    }

    /// The socket that clients connect to. When it can be read while nobody is served, a pass is
    /// due.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The connection of the client that is served. When it can be read, a pass is due.
    pub fn connection(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Serving(connection) => Some(connection.stream.as_fd()),
            State::Listening | State::Leaving => None,
        }
    }

    /// Whether a pass is due although nothing can be read: an operation is pending, the device has
    /// yet to come to rest, or the client has yet to make room for a reply.
    pub fn is_waiting(&self) -> bool {
        match &self.state {
            State::Listening => false,
            State::Serving(connection) => {
                connection.session.is_pending() || !connection.outbox.is_empty()
            }
            State::Leaving => true,
        }
    }

    fn accept(&mut self, device: &mut dyn Device) -> bool {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::WouldBlock && !self.refused {
                    self.refused = true;
                    self.note(SessionEvent::Refused {
                        reason: error.to_string(),
                    });
                }
                return false;
            }
        };
        self.refused = false;
        // A smaller buffer is a precaution; without it all still works.
        let _ = setsockopt(&stream, SndBuf, &SEND_BUFFER);
        let peer = getsockopt(&stream, PeerCredentials).ok();
        let peer = peer.map(|peer| Peer {
            pid: peer.pid(),
            uid: peer.uid(),
        });
        self.note(SessionEvent::Connected { peer });
        device.connected();
        let connection = Connection::new(stream, self.limits, device);
        self.state = State::Serving(Box::new(connection));
        true
    }

    fn leave(&mut self, gone: &Gone, device: &mut dyn Device) {
        if let State::Serving(connection) = mem::replace(&mut self.state, State::Leaving) {
            connection.close(device);
        }
        self.note(SessionEvent::Disconnected {
            reason: gone.to_string(),
        });
        if device.disconnected() == Outcome::Done {
            self.state = State::Listening;
        }
    }

    fn settle(&mut self, device: &mut dyn Device) -> bool {
        match device.poll_pending() {
            Ok(Outcome::Pending) => return false,
            Ok(Outcome::Done) => {}
            Err(errno) => self.note(SessionEvent::Unsettled { errno }),
        }
        self.state = State::Listening;
        true
    }

    fn note(&mut self, event: SessionEvent) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

impl Connection {
    fn new(stream: UnixStream, limits: ServerLimits, device: &dyn Device) -> Connection {
        Connection {
            stream,
            assembler: Assembler::new(limits.message_max()),
            session: Session::new(limits, device),
            outbox: Outbox::default(),
            fds: Vec::new(),
        }
    }

    fn pass(&mut self, device: &mut dyn Device) -> Pass {
        let busy = self.flush()?;
        if self.session.is_pending() {
            let flow = self.session.poll_pending(device, &mut self.outbox);
            if flow == Flow::Pending {
                return Ok(busy);
            }
            self.go_on(flow)?;
            return self.read_messages(device).map(|_| true);
        }
        Ok(self.read_messages(device)? || busy)
    }

    /// Up to [`MESSAGES_PER_POLL`] messages, fewer when one is pending or the client does not take
    /// its replies.
    fn read_messages(&mut self, device: &mut dyn Device) -> Pass {
        let (mut reads, mut messages) = (0, 0);
        while reads < READS_PER_POLL && messages < MESSAGES_PER_POLL && !self.outbox.is_full() {
            match self.read(device)? {
                Step::Nothing => break,
                Step::Part => {}
                Step::Whole(flow) => {
                    self.go_on(flow)?;
                    messages += 1;
                    if flow == Flow::Pending {
                        return Ok(true);
                    }
                }
            }
            reads += 1;
        }
        Ok(reads > 0)
    }

    fn read(&mut self, device: &mut dyn Device) -> Result<Step, Gone> {
        let space = self.assembler.space();
        let received = match socket::receive(self.stream.as_fd(), space, &mut self.fds) {
            Ok(received) if received.bytes > 0 => received,
            Ok(_) if self.assembler.received() > 0 => return Err(Gone::ClosedMidway),
            Ok(_) => return Err(Gone::Closed),
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Step::Nothing),
            Err(errno) => return Err(Gone::Failed(errno)),
        };
        let step = match self.assembler.advance(received, &mut self.fds) {
            Ok(None) => Ok(Step::Part),
            Ok(Some(message)) => Ok(Step::Whole(self.session.handle(
                message,
                device,
                &mut self.outbox,
            ))),
            Err(BadSize(header)) => {
                self.outbox.begin(header).fail(Errno::EINVAL);
                Err(Gone::BadSize(header.size))
            }
        };
        for fd in self.fds.drain(..) {
            device.discard(fd);
        }
        step
    }

    fn go_on(&mut self, flow: Flow) -> Result<(), Gone> {
        match flow {
            Flow::Close(reason) => Err(Gone::Refused(reason)),
            Flow::Continue | Flow::Pending => self.flush().map(|_| ()),
        }
    }

    /// The client sees the end at once, whenever the descriptor is closed.
    fn close(mut self, device: &mut dyn Device) {
        // The last word, if there is one and room for it.
        let _ = self.flush();
        // Fails only where the other side has closed.
        let _ = self.stream.shutdown(Shutdown::Both);
        for fd in self.assembler.into_fds() {
            device.discard(fd);
        }
        device.discard(self.stream.into());
    }

    /// Sends what the client has room for. True if that was anything.
    fn flush(&mut self) -> Pass {
        let mut busy = false;
        while !self.outbox.is_empty() {
            let (bytes, fd) = self.outbox.front();
            match socket::send(self.stream.as_fd(), bytes, fd.as_slice()) {
                Ok(sent) => self.outbox.advance(sent),
                // The last: too many descriptors of this user are in flight. That passes, too.
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ETOOMANYREFS) => break,
                Err(errno) => return Err(Gone::Failed(errno)),
            }
            busy = true;
        }
        Ok(busy)
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gone::Closed => f.write_str("the client closed the connection"),
            Gone::ClosedMidway => {
                f.write_str("the client closed the connection in the middle of a message")
            }
            Gone::Failed(errno) => write!(f, "the connection failed: {}", errno.desc()),
            Gone::BadSize(size) => write!(f, "the client sent a message of {size} bytes"),
            Gone::Refused(reason) => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests;
