//! A blocking client, for benchmarks and tests.
//!
//! Each request is sent, and its reply waited for, before the next; what a server sends unasked is
//! passed over. A server that answers nonsense gets an error, never a panic.

mod connection;
mod error;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

use self::connection::Connection;
use crate::device::{DeviceInfo, DmaMap, DmaRange};
use crate::irq::SetIrqs;
use crate::protocol::{
    self, Command, DeviceInfoPayload, DmaMapPayload, DmaUnmapPayload, HEADER_SIZE, Header,
    HeaderFlags, IrqInfoPayload, RegionAccess, RegionInfoPayload, map_flags, unmap_flags,
};
use crate::region::RegionInfo;
use crate::session::ServerLimits;
use crate::version::{self, Offer};

pub use self::connection::RawMessage;
pub use self::error::ClientError;

/// How long a request waits for its reply, unless told otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// What the server and this client agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerVersion {
    /// Protocol version, major.
    pub major: u16,
    /// Protocol version, minor.
    pub minor: u16,
    /// Descriptors that the server takes in one message.
    pub max_msg_fds: u32,
    /// Bytes that the server takes in one data transfer.
    pub max_data_xfer_size: u32,
}

/// What an interrupt kind is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqInfo {
    /// `VFIO_IRQ_INFO_` flags, see [`irq`](crate::irq).
    pub flags: u32,
    /// Number of interrupts.
    pub count: u32,
}

/// A connection to a vfio-user server.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    version: ServerVersion,
    next_id: u16,
}

impl Client {
    /// Connects to the socket at `path` and negotiates the version. Each reply is waited for as
    /// long as [`TIMEOUT`].
    pub fn connect(path: &Path) -> Result<Client, ClientError> {
        Client::connect_with_timeout(path, TIMEOUT)
    }

    /// As [`connect`](Self::connect), with another timeout: for this and for what comes later.
    pub fn connect_with_timeout(path: &Path, timeout: Duration) -> Result<Client, ClientError> {
        let command = Command::VERSION;
        let stream =
            UnixStream::connect(path).map_err(|source| ClientError::Socket { command, source })?;
        let mut client = Client::unversioned(stream);
        client.set_timeout(timeout);
        client.negotiate()?;
        Ok(client)
    }

    /// A client on a connection on which no version is negotiated yet: for tests of what a server
    /// does then. [`send_raw`](Self::send_raw) and [`negotiate`](Self::negotiate) are what works.
    pub fn unversioned(stream: UnixStream) -> Client {
        Client {
            connection: Connection::new(stream, TIMEOUT),
            version: ServerVersion {
                major: 0,
                minor: 0,
                max_msg_fds: 1,
                max_data_xfer_size: 0,
            },
            next_id: 0,
        }
    }

    /// `VFIO_USER_VERSION`.
    pub fn negotiate(&mut self) -> Result<(), ClientError> {
        let command = Command::VERSION;
        let ServerLimits {
            data_transfer_max,
            dma_maps_max,
        } = ServerLimits::default();
        let offer = Offer {
            data_max: data_transfer_max,
            dma_maps_max,
        };
        let proposal = version::propose(offer).map_err(|_| ClientError::BadReply { command })?;
        let reply = self.request(command, &proposal, &[])?;
        let (version, terms) =
            version::conclude(&reply.body).map_err(|_| ClientError::BadReply { command })?;
        self.version = ServerVersion {
            major: version.major,
            minor: version.minor,
            max_msg_fds: terms.fds_max,
            max_data_xfer_size: terms.data_max,
        };
        Ok(())
    }

    /// How long each request waits for its reply from now on; [`TIMEOUT`] at first.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.connection.timeout = timeout;
    }

    /// The connection itself, to be shut down or looked at.
    pub fn stream(&self) -> &UnixStream {
        &self.connection.stream
    }

    /// What was agreed on.
    pub fn version(&self) -> ServerVersion {
        self.version
    }

    /// `VFIO_USER_DEVICE_GET_INFO`.
    pub fn device_info(&mut self) -> Result<DeviceInfo, ClientError> {
        let argsz = size_of::<DeviceInfoPayload>() as u32;
        let request = DeviceInfoPayload {
            argsz,
            ..Default::default()
        };
        let reply = self.request(Command::DEVICE_GET_INFO, request.as_bytes(), &[])?;
        let info: DeviceInfoPayload = reply.payload()?;
        Ok(DeviceInfo {
            flags: info.flags,
            regions: info.num_regions,
            irqs: info.num_irqs,
        })
    }

    /// `VFIO_USER_DEVICE_GET_REGION_INFO`, with the descriptor to map from if there is one. Asks
    /// a second time where the server needs more room for its answer.
    pub fn region_info(
        &mut self,
        region: u32,
    ) -> Result<(RegionInfo, Option<OwnedFd>), ClientError> {
        let command = Command::DEVICE_GET_REGION_INFO;
        let mut argsz = size_of::<RegionInfoPayload>() as u32;
        for _ in 0..2 {
            let request = RegionInfoPayload {
                argsz,
                index: region,
                ..Default::default()
            };
            let mut reply = self.request(command, request.as_bytes(), &[])?;
            let (info, _) = protocol::take::<RegionInfoPayload>(&reply.body)
                .map_err(|_| ClientError::BadReply { command })?;
            if info.argsz <= argsz {
                let info = RegionInfo::decode(&reply.body);
                let info = info.map_err(|_| ClientError::BadReply { command })?;
                return Ok((info, reply.fds.pop()));
            }
            argsz = info.argsz;
        }
        Err(ClientError::BadReply { command })
    }

    /// `VFIO_USER_DEVICE_GET_IRQ_INFO`.
    pub fn irq_info(&mut self, index: u32) -> Result<IrqInfo, ClientError> {
        let argsz = size_of::<IrqInfoPayload>() as u32;
        let request = IrqInfoPayload {
            argsz,
            index,
            ..Default::default()
        };
        let reply = self.request(Command::DEVICE_GET_IRQ_INFO, request.as_bytes(), &[])?;
        let info: IrqInfoPayload = reply.payload()?;
        Ok(IrqInfo {
            flags: info.flags,
            count: info.count,
        })
    }

    /// `VFIO_USER_REGION_READ`: fills `data` from `offset`.
    pub fn region_read(
        &mut self,
        region: u32,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), ClientError> {
        let command = Command::REGION_READ;
        let request = access(
            command,
            RegionAccess {
                offset,
                region,
                count: 0,
            },
            data.len(),
        )?;
        let reply = self.request(command, request.as_bytes(), &[])?;
        match protocol::take::<RegionAccess>(&reply.body) {
            Ok((echo, bytes)) if echo == request && bytes.len() == data.len() => {
                data.copy_from_slice(bytes);
                Ok(())
            }
            _ => Err(ClientError::BadReply { command }),
        }
    }

    /// `VFIO_USER_REGION_WRITE`: writes `data` at `offset`.
    pub fn region_write(
        &mut self,
        region: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<(), ClientError> {
        let command = Command::REGION_WRITE;
        let request = access(
            command,
            RegionAccess {
                offset,
                region,
                count: 0,
            },
            data.len(),
        )?;
        let reply = self.request(command, &[request.as_bytes(), data].concat(), &[])?;
        let echo: RegionAccess = reply.payload()?;
        if echo == request {
            Ok(())
        } else {
            Err(ClientError::BadReply { command })
        }
    }

    /// `VFIO_USER_DMA_MAP`.
    pub fn dma_map(&mut self, map: DmaMap, fd: Option<BorrowedFd<'_>>) -> Result<(), ClientError> {
        let read = if map.read { map_flags::READ } else { 0 };
        let write = if map.write { map_flags::WRITE } else { 0 };
        let request = DmaMapPayload {
            argsz: size_of::<DmaMapPayload>() as u32,
            flags: read | write,
            offset: map.offset,
            address: map.iova,
            size: map.len,
        };
        self.request(Command::DMA_MAP, request.as_bytes(), fd.as_slice())?
            .empty()
    }

    /// `VFIO_USER_DMA_UNMAP`.
    pub fn dma_unmap(&mut self, range: DmaRange) -> Result<(), ClientError> {
        let argsz = size_of::<DmaUnmapPayload>() as u32;
        let (flags, address, size) = match range {
            DmaRange::Exact { iova, len } => (0, iova, len),
            DmaRange::All => (unmap_flags::ALL, 0, 0),
        };
        let request = DmaUnmapPayload {
            argsz,
            flags,
            address,
            size,
        };
        let reply = self.request(Command::DMA_UNMAP, request.as_bytes(), &[])?;
        reply.payload::<DmaUnmapPayload>().map(|_| ())
    }

    /// `VFIO_USER_DEVICE_SET_IRQS`. A list of eventfds holds all of them or none.
    pub fn set_irqs<F: AsFd>(&mut self, irqs: &SetIrqs<F>) -> Result<(), ClientError> {
        let command = Command::DEVICE_SET_IRQS;
        let reason = "one message cannot bind some interrupts and unbind others";
        let (request, data, fds) = irqs
            .encode()
            .map_err(|_| ClientError::BadRequest { command, reason })?;
        self.request(command, &[request.as_bytes(), &data].concat(), &fds)?
            .empty()
    }

    /// `VFIO_USER_DEVICE_RESET`.
    pub fn reset(&mut self) -> Result<(), ClientError> {
        self.request(Command::DEVICE_RESET, &[], &[])?.empty()
    }

    /// Sends `payload` and `fds` as `command`, and waits for the reply, which is a success.
    pub fn request(
        &mut self,
        command: Command,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<RawMessage, ClientError> {
        let id = self.send_command(command, payload, fds)?;
        let started = Instant::now();
        loop {
            let message = self.connection.receive(command, started)?;
            let Header {
                message_id,
                flags,
                error,
                ..
            } = message.header;
            if !flags.is_reply() || message_id != id || message.header.command != command {
                continue;
            }
            if flags.is_error() {
                return Err(ClientError::Server {
                    command,
                    errno: Errno::from_raw(error as i32),
                });
            }
            return Ok(message);
        }
    }

    /// Sends `payload` and `fds` as `command`, and returns the message id without waiting.
    pub fn send_command(
        &mut self,
        command: Command,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<u16, ClientError> {
        let message_id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let header = Header {
            message_id,
            command,
            size: (HEADER_SIZE + payload.len()) as u32,
            flags: HeaderFlags::COMMAND,
            error: 0,
        };
        self.connection
            .send(command, &[header.as_bytes(), payload].concat(), fds)?;
        Ok(message_id)
    }

    /// Sends bytes as they are, with `fds` going along with the first.
    pub fn send_raw(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        self.connection.send(Command::default(), bytes, fds)
    }

    /// Waits for the next message, whatever it is.
    pub fn recv_raw(&mut self) -> Result<RawMessage, ClientError> {
        self.connection.receive(Command::default(), Instant::now())
    }
}

impl RawMessage {
    /// The body as one structure.
    fn payload<T: FromBytes>(&self) -> Result<T, ClientError> {
        let command = self.header.command;
        protocol::take_all(&self.body).map_err(|_| ClientError::BadReply { command })
    }

    fn empty(&self) -> Result<(), ClientError> {
        let command = self.header.command;
        if self.body.is_empty() {
            Ok(())
        } else {
            Err(ClientError::BadReply { command })
        }
    }
}

/// An access of `len` bytes, if that can be said.
fn access(command: Command, access: RegionAccess, len: usize) -> Result<RegionAccess, ClientError> {
    let reason = "it is longer than a count can say";
    let count = u32::try_from(len).map_err(|_| ClientError::BadRequest { command, reason })?;
    Ok(RegionAccess { count, ..access })
}
