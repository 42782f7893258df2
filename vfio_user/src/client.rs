//! A blocking client, for benchmarks and tests.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use crate::device::{DeviceInfo, DmaMap, DmaRange};
use crate::irq::SetIrqs;
use crate::region::RegionInfo;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered with an error.
    #[error("the server answered with {0}")]
    Server(Errno),
    /// The socket failed.
    #[error("the socket failed")]
    Socket(#[from] std::io::Error),
}

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
    stream: UnixStream,
    version: ServerVersion,
    timeout: Duration,
}

impl Client {
    /// Connects to the socket at `path` and negotiates the version.
    pub fn connect(path: &Path) -> Result<Client, ClientError> {
        let stream = UnixStream::connect(path)?;
        let version = ServerVersion {
            major: 0,
            minor: 1,
            max_msg_fds: 1,
            max_data_xfer_size: 1 << 20,
        };
        Ok(Client {
            stream,
            version,
            timeout: Duration::from_secs(10),
        })
    }

    /// How long each request waits for its reply; 10 seconds at first.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The connection itself, to be shut down or looked at.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// What was agreed on.
    pub fn version(&self) -> ServerVersion {
        self.version
    }

    /// `VFIO_USER_DEVICE_GET_INFO`.
    pub fn device_info(&mut self) -> Result<DeviceInfo, ClientError> {
        Err(ClientError::Server(Errno::ENOSYS))
    }

    /// `VFIO_USER_DEVICE_GET_REGION_INFO`, with the descriptor to map from if there is one.
    pub fn region_info(
        &mut self,
        _region: u32,
    ) -> Result<(RegionInfo, Option<OwnedFd>), ClientError> {
        Err(ClientError::Server(Errno::ENOSYS))
    }

    /// `VFIO_USER_DEVICE_GET_IRQ_INFO`.
    pub fn irq_info(&mut self, _index: u32) -> Result<IrqInfo, ClientError> {
        Err(ClientError::Server(Errno::ENOSYS))
    }

    /// `VFIO_USER_REGION_READ`: fills `data` from `offset`.
    pub fn region_read(
        &mut self,
        _region: u32,
        _offset: u64,
        _data: &mut [u8],
    ) -> Result<(), ClientError> {
        Err(ClientError::Server(Errno::ENOSYS))
    }

    /// `VFIO_USER_REGION_WRITE`: writes `data` at `offset`.
    pub fn region_write(
        &mut self,
        _region: u32,
        _offset: u64,
        _data: &[u8],
    ) -> Result<(), ClientError> {
        Err(ClientError::Server(Errno::ENOSYS))
    }

    /// `VFIO_USER_DMA_MAP`.
    pub fn dma_map(
        &mut self,
        _map: DmaMap,
        _fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), ClientError> {
        Err(ClientError::Server(Errno::ENOSYS))
    }

    /// `VFIO_USER_DMA_UNMAP`.
    pub fn dma_unmap(&mut self, _range: DmaRange) -> Result<(), ClientError> {
        Err(ClientError::Server(Errno::ENOSYS))
    }

    /// `VFIO_USER_DEVICE_SET_IRQS`.
    pub fn set_irqs<F: AsFd>(&mut self, _irqs: &SetIrqs<F>) -> Result<(), ClientError> {
        Err(ClientError::Server(Errno::ENOSYS))
    }

    /// `VFIO_USER_DEVICE_RESET`.
    pub fn reset(&mut self) -> Result<(), ClientError> {
        Err(ClientError::Server(Errno::ENOSYS))
    }
}
