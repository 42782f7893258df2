//! A polled NVMe host driver over vfio-user: no kernel, no interrupts, no virtual machine.
//!
//! [`Controller`] owns the connection, the registers and the admin queue, and stays on one thread.
//! What a thread needs to drive an I/O queue is a [`QueueSeed`], which can be sent to it. Memory is
//! lent to the device as memory files, mapped by `DMA_MAP` at addresses of our choice; no address
//! is ever given back before the connection ends.

mod admin;
mod doorbell;
mod error;
mod link;
mod memory;
mod prp;
mod queue;
mod registers;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bdev::memory::Iova;
use nvme::spec::identify::{DescriptorHeader, IdentifyController, IdentifyNamespace, cns};
use nvme::spec::registers::{Cap, Vs};
use nvme::spec::{Nsid, QueueId};
use vfio_user::DmaMap;

use self::admin::AdminQueue;
use self::doorbell::Doorbells;
pub(crate) use self::error::DriverError;
pub(crate) use self::link::Link;
pub(crate) use self::memory::HostMemory;
pub(crate) use self::prp::{Data, PageSize, list_bytes, prps};
pub(crate) use self::queue::{PreparedCommand, QueuePair, QueueSeed};
use self::registers::Registers;

/// Where the device sees the first memory that is lent to it: above 4 GiB, so that an address that
/// loses its upper half is noticed.
const FIRST_IOVA: Iova = Iova(1 << 32);

/// Memory for the admin queue and its data.
const ADMIN_MEMORY_BYTES: u64 = 2 << 20;

/// The most namespaces that are listed: one page of identifiers.
const NAMESPACES_MAX: usize = 1024;

/// A controller that is enabled and answers admin commands.
pub(crate) struct Controller {
    link: Link,
    registers: Registers,
    capabilities: Cap,
    doorbells: Doorbells,
    admin: AdminQueue,
    next_iova: Iova,
}

impl Controller {
    /// Connects to the vfio-user socket at `target`, or to `cntrl` in it if it is a folder, resets
    /// and enables the controller. `timeout` bounds each message and each admin command.
    pub(crate) fn connect(target: &Path, timeout: Duration) -> Result<Controller, DriverError> {
        let link = Link::connect(&socket_path(target), timeout)?;
        let registers = Registers::new(link.clone());
        registers.enable_bus_master()?;
        let capabilities = registers.capabilities()?;
        registers.disable(capabilities)?;
        let doorbells = Doorbells::open(&link, capabilities)?;
        let mut memory = lend(&link, FIRST_IOVA, ADMIN_MEMORY_BYTES, page(capabilities))?;
        let admin = AdminQueue::new(&mut memory, &doorbells, &link)?;
        registers.enable(capabilities, &admin)?;
        Ok(Controller {
            link,
            registers,
            capabilities,
            doorbells,
            admin,
            next_iova: after(FIRST_IOVA, ADMIN_MEMORY_BYTES),
        })
    }

    /// The connection, to be watched.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// The version of the specification that the controller follows.
    pub(crate) fn version(&self) -> Result<Vs, DriverError> {
        self.registers.version()
    }

    /// How many commands a queue can hold at one time: one entry of it stays free.
    pub(crate) fn depth_max(&self) -> u32 {
        u32::from(self.capabilities.mqes()).max(1)
    }

    /// How many entries a queue has at most.
    pub(crate) fn entries_max(&self) -> u32 {
        u32::from(self.capabilities.mqes()) + 1
    }

    /// The memory page size that the controller was enabled with.
    pub(crate) fn page(&self) -> PageSize {
        page(self.capabilities)
    }

    /// How many bytes a command can move; none if the controller sets no limit.
    pub(crate) fn transfer_max(&self, identity: &IdentifyController) -> Option<u64> {
        match identity.mdts {
            0 => None,
            mdts => self.page().0.checked_shl(mdts.into()),
        }
    }

    /// Whether doorbells are written in shared memory, or each in a message.
    pub(crate) fn doorbells_mapped(&self) -> bool {
        self.doorbells.mapped()
    }

    /// Identify Controller.
    pub(crate) fn identify(&mut self) -> Result<IdentifyController, DriverError> {
        self.admin.identify(cns::CONTROLLER, Nsid::NONE)
    }

    /// Identify Namespace.
    pub(crate) fn identify_namespace(
        &mut self,
        nsid: Nsid,
    ) -> Result<IdentifyNamespace, DriverError> {
        self.admin.identify(cns::NAMESPACE, nsid)
    }

    /// The active namespaces, lowest first.
    pub(crate) fn namespaces(&mut self) -> Result<Vec<Nsid>, DriverError> {
        let list: [u32; NAMESPACES_MAX] =
            self.admin.identify(cns::ACTIVE_NAMESPACES, Nsid::NONE)?;
        let active = list.iter().take_while(|nsid| **nsid != 0);
        Ok(active.map(|nsid| Nsid(u32::from_le(*nsid))).collect())
    }

    /// The UUID of a namespace, if it tells one.
    pub(crate) fn namespace_uuid(&mut self, nsid: Nsid) -> Result<Option<[u8; 16]>, DriverError> {
        let list: [u8; 4096] = self.admin.identify(cns::NAMESPACE_DESCRIPTORS, nsid)?;
        Ok(uuid_descriptor(&list))
    }

    /// Asks for `count` I/O queue pairs.
    pub(crate) fn request_queues(&mut self, count: u16) -> Result<(), DriverError> {
        let granted = self.admin.set_number_of_queues(count)?;
        if granted < count {
            return Err(DriverError::TooFewQueues {
                wanted: count,
                granted,
            });
        }
        Ok(())
    }

    /// Makes `bytes` of memory, rounded up to whole huge pages, that the device can reach.
    pub(crate) fn lend(&mut self, bytes: u64) -> Result<HostMemory, DriverError> {
        let bytes = memory::rounded(bytes);
        let memory = lend(&self.link, self.next_iova, bytes, self.page())?;
        self.next_iova = after(self.next_iova, bytes);
        Ok(memory)
    }

    /// Creates a completion queue and a submission queue with the same identifier in `memory`.
    pub(crate) fn create_queue(
        &mut self,
        id: QueueId,
        entries: u32,
        memory: &mut HostMemory,
    ) -> Result<QueueSeed, DriverError> {
        let seed = QueueSeed::new(id, entries, memory, &self.doorbells)?;
        self.admin.create_queue(&seed)?;
        Ok(seed)
    }

    /// Tells the controller that nothing more will come, and waits until it has saved everything.
    pub(crate) fn shut_down(self) -> Result<(), DriverError> {
        self.registers.shut_down(self.capabilities)
    }
}

/// SPDK's sockets are called `cntrl` in a folder of their own.
fn socket_path(target: &Path) -> PathBuf {
    if target.is_dir() {
        target.join("cntrl")
    } else {
        target.to_path_buf()
    }
}

/// The smallest page size that the controller takes.
fn page(capabilities: Cap) -> PageSize {
    PageSize(4096 << capabilities.mpsmin())
}

/// The address that follows `bytes` at `iova`.
fn after(iova: Iova, bytes: u64) -> Iova {
    // Memory is lent a few times, and each time less than the limit: the sum cannot wrap.
    iova.checked_add(bytes).unwrap_or(iova)
}

fn lend(link: &Link, iova: Iova, bytes: u64, page: PageSize) -> Result<HostMemory, DriverError> {
    let (memory, fd) = HostMemory::new(iova, bytes, page)?;
    let map = DmaMap {
        iova: iova.0,
        len: bytes,
        offset: 0,
        read: true,
        write: true,
    };
    link.client().dma_map(map, Some(fd.as_fd()))?;
    Ok(memory)
}

/// The UUID among Namespace Identification Descriptors.
fn uuid_descriptor(list: &[u8]) -> Option<[u8; 16]> {
    use zerocopy::FromBytes;

    let mut rest = list;
    while let Ok((header, after)) = DescriptorHeader::read_from_prefix(rest) {
        let value = after.get(..header.nidl.into())?;
        match header.nidt {
            _ if header.nidl == 0 => return None,
            DescriptorHeader::UUID => return value.try_into().ok(),
            _ => rest = &after[value.len()..],
        }
    }
    None
}

#[cfg(test)]
mod tests;
