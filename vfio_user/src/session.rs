//! One session, without its socket: a message and its descriptors in, a reply out.
//!
//! Everything a client sends is judged here before the device sees it. Structures that begin with
//! `argsz` may be longer than this version knows, and are judged by the part that is known; others
//! have exactly their size. A command that fails is answered with a bare header and an errno; one
//! that wants no reply gets none, not even that. Only DMA_MAP and DEVICE_SET_IRQS take
//! descriptors; with any other command they are an error, like too many of them.

mod access;
mod dma;
mod info;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::device::{Device, DeviceInfo, Outcome, Reply};
use crate::frame::{Draft, Message, Outbox};
use crate::protocol::{Command, HEADER_SIZE, Header, RegionAccess};
use crate::version::{self, JSON_MAX, Offer, Terms};

pub use access::WRITES_PER_MESSAGE;

/// What one session may use, and what its client is told of it.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Largest `count` of one data transfer, in bytes.
    pub data_transfer_max: u32,
    /// DMA ranges that the device can hold at once.
    pub dma_maps_max: u32,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            data_transfer_max: version::DATA_TRANSFER_DEFAULT,
            dma_maps_max: 65535,
        }
    }
}

impl ServerLimits {
    /// Bytes of the longest message that can make sense.
    pub fn message_max(self) -> usize {
        let transfer = size_of::<RegionAccess>() + self.data_transfer_max as usize;
        HEADER_SIZE + transfer.max(access::WRITE_MULTI_MAX).max(2 * JSON_MAX)
    }
}

/// How a session goes on after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// With the next message.
    Continue,
    /// With [`Session::poll_pending`], until that says otherwise.
    Pending,
    /// Not at all, for this reason: what is in the outbox is still worth sending.
    Close(&'static str),
}

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    limits: ServerLimits,
    device: DeviceInfo,
    bounds: Vec<Bounds>,
    /// What the client can take, once a version is agreed on.
    terms: Option<Terms>,
    pending: Option<Pending>,
    /// What is left of a REGION_WRITE_MULTI whose current write is pending.
    writes: Vec<u8>,
}

/// What an access to a region is checked against; it does not change during a session.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    size: u64,
    readable: bool,
    writable: bool,
}

/// A command that the device has not finished, and the reply it gets when it succeeds.
#[derive(Debug)]
struct Pending {
    command: Header,
    reply: Vec<u8>,
}

impl Session {
    /// A session on `device`, in which no version is agreed on.
    pub fn new(limits: ServerLimits, device: &dyn Device) -> Session {
        let info = device.info();
        let bounds = (0..info.regions).map(|region| {
            let info = device.region_info(region);
            Bounds {
                size: info.size,
                readable: info.readable,
                writable: info.writable,
            }
        });
        Session {
            limits,
            device: info,
            bounds: bounds.collect(),
            terms: None,
            pending: None,
            writes: Vec::new(),
        }
    }

    /// Carries out one message. Not to be called while an operation is pending.
    pub fn handle(
        &mut self,
        message: Message<'_>,
        device: &mut dyn Device,
        outbox: &mut Outbox,
    ) -> Flow {
        let mut request = Request {
            header: message.header,
            body: message.body,
            fds: message.fds,
        };
        // Nothing is ever asked of a client, so a reply answers nothing.
        let flow = match request.header.flags.is_reply() {
            true => Flow::Continue,
            false => self.answer(&mut request, message.fds_lost, device, outbox),
        };
        for fd in request.fds {
            device.discard(fd);
        }
        flow
    }

    /// Asks the device what became of the pending operation, and replies once it is over.
    pub fn poll_pending(&mut self, device: &mut dyn Device, outbox: &mut Outbox) -> Flow {
        let Some(pending) = self.pending.take() else {
            return Flow::Continue;
        };
        let reply = match device.poll_pending() {
            Ok(Outcome::Done) => self.resume_writes(device),
            other => other,
        };
        match reply {
            Ok(Outcome::Pending) => {
                self.pending = Some(pending);
                return Flow::Pending;
            }
            Ok(Outcome::Done) => outbox.append(&pending.reply),
            Err(errno) => outbox.begin(pending.command).fail(errno),
        }
        self.writes.clear();
        Flow::Continue
    }

    /// Whether an operation is pending.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    fn answer(
        &mut self,
        request: &mut Request<'_>,
        fds_lost: Option<Errno>,
        device: &mut dyn Device,
        outbox: &mut Outbox,
    ) -> Flow {
        let mut draft = outbox.begin(request.header);
        let reply = match fds_lost {
            Some(errno) => Err(errno),
            None => self.dispatch(request, device, &mut draft),
        };
        match reply {
            Ok(Outcome::Done) => draft.send(),
            Err(errno) => draft.fail(errno),
            Ok(Outcome::Pending) => {
                self.pending = Some(Pending {
                    command: request.header,
                    reply: draft.hold(),
                });
                return Flow::Pending;
            }
        }
        match self.terms {
            Some(_) => Flow::Continue,
            None => Flow::Close("no version could be agreed on"),
        }
    }

    fn dispatch(
        &mut self,
        request: &mut Request<'_>,
        device: &mut dyn Device,
        draft: &mut Draft<'_>,
    ) -> Reply {
        let Request { header, body, fds } = request;
        let takes_fds = matches!(header.command, Command::DMA_MAP | Command::DEVICE_SET_IRQS);
        if !header.flags.is_command() || (!fds.is_empty() && !takes_fds) {
            return Err(Errno::EINVAL);
        }
        let Some(terms) = self.terms else {
            return self.version(request, draft);
        };
        match header.command {
            Command::DMA_MAP => dma::map(body, fds, device),
            Command::DMA_UNMAP => dma::unmap(body, device, draft),
            Command::DEVICE_GET_INFO => done(self.device_info(body, draft)),
            Command::DEVICE_GET_REGION_INFO => done(self.region_info(body, terms, device, draft)),
            Command::DEVICE_GET_REGION_IO_FDS => done(self.region_io_fds(body, draft)),
            Command::DEVICE_GET_IRQ_INFO => done(self.irq_info(body, device, draft)),
            Command::DEVICE_SET_IRQS => self.set_irqs(body, fds, device),
            Command::REGION_READ => done(self.region_read(body, terms, device, draft)),
            Command::REGION_WRITE => self.region_write(body, device, draft),
            Command::REGION_WRITE_MULTI => self.region_write_multi(body, device, draft),
            Command::DEVICE_RESET if body.is_empty() => device.reset(),
            Command::DEVICE_FEATURE => info::device_feature(body),
            Command::MIG_DATA_READ | Command::MIG_DATA_WRITE | Command::DIRTY_PAGES => {
                Err(Errno::ENOTSUP)
            }
            // A second VERSION; a reset with a payload; what only a server may send.
            Command::VERSION | Command::DEVICE_RESET | Command::DMA_READ | Command::DMA_WRITE => {
                Err(Errno::EINVAL)
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    /// The first message has to be this one, and needs its reply.
    fn version(&mut self, request: &Request<'_>, draft: &mut Draft<'_>) -> Reply {
        if request.header.command != Command::VERSION || request.header.flags.no_reply() {
            return Err(Errno::EINVAL);
        }
        let ServerLimits {
            data_transfer_max,
            dma_maps_max,
        } = self.limits;
        let offer = Offer {
            data_max: data_transfer_max,
            dma_maps_max,
        };
        let (terms, payload) = version::negotiate(request.body, offer)?;
        draft.put(&payload);
        self.terms = Some(terms);
        Ok(Outcome::Done)
    }
}

/// A command being carried out; descriptors that it leaves are discarded.
struct Request<'a> {
    header: Header,
    body: &'a [u8],
    fds: Vec<OwnedFd>,
}

/// The reply of what cannot be pending.
fn done(result: Result<(), Errno>) -> Reply {
    result.map(|()| Outcome::Done)
}
