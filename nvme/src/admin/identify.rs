//! Identify (NVMe Base 2.0, 5.17): what the controller and its namespaces are. Each bit that is
//! set here is honoured.

use zerocopy::{FromZeros, IntoBytes};

use super::async_event::REQUESTS_MAX_Z;
use super::features::{KEEP_ALIVE_GRANULARITY_100MS, WARNING_TEMPERATURE};
use super::log_page::{ERROR_ENTRIES, Supports};
use crate::namespace::Namespace;
use crate::spec::identify::{
    CSI_NVM, Cmic, DescriptorHeader, Dlfeat, Frmw, IDENTIFY_BYTES, IdentifyController,
    IdentifyNamespace, IndependentNamespace, LbaFormat, Lpa, Nmic, Nsfeat, Oacs, Oncs, Sgls, Vwc,
    cns, zeroed,
};
use crate::spec::registers::Vs;
use crate::spec::{Nsid, Status};
use crate::subsystem::{FIRMWARE, NAMESPACES_MAX, Subsystem};

/// An identify data structure.
pub type Page = Box<[u8; IDENTIFY_BYTES]>;

/// ACL: most Abort commands at a time, zero-based. They complete at once.
const ABORTS_MAX_Z: u8 = 3;
/// CTRATT: the host identifier may have 128 bits.
const HOST_IDENTIFIER_128: u32 = 1;
/// CNTRLTYPE: I/O controller.
const IO_CONTROLLER: u8 = 1;
/// Critical composite temperature, in Kelvin.
const CRITICAL_TEMPERATURE: u16 = 353;

/// What the structures are made from.
#[derive(Clone, Copy, Debug)]
pub struct IdentifyInput<'a> {
    /// The subsystem.
    pub subsystem: &'a Subsystem,
    /// Identifier of the controller.
    pub cntlid: u16,
    /// Most bytes of a transfer, a power of two and 4096 or more.
    pub transfer_bytes_max: u32,
    /// Optional commands.
    pub supports: Supports,
    /// PCI vendor identifier.
    pub vendor: u16,
}

/// What an Identify command asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Controller or Namespace Structure.
    pub cns: u8,
    /// Namespace.
    pub nsid: Nsid,
    /// Command Set Identifier.
    pub csi: u8,
}

/// Makes the structure that is asked for.
///
/// # Errors
/// Invalid Namespace or Format, or Invalid Field in Command.
pub fn identify(input: &IdentifyInput<'_>, ask: Ask) -> Result<Page, Status> {
    match ask.cns {
        cns::NAMESPACE => namespace(input, ask.nsid),
        cns::CONTROLLER => Ok(page(controller(input).as_bytes())),
        cns::ACTIVE_NAMESPACES => active_namespaces(input, ask.nsid),
        cns::NAMESPACE_DESCRIPTORS => descriptors(active(input, ask.nsid)?),
        cns::CSI_NAMESPACE if ask.csi == CSI_NVM => csi_namespace(input, ask.nsid),
        // No limits beyond those of Identify Controller.
        cns::CSI_CONTROLLER if ask.csi == CSI_NVM => Ok(page(&[])),
        cns::CSI_ACTIVE_NAMESPACES if ask.csi == CSI_NVM => active_namespaces(input, ask.nsid),
        cns::INDEPENDENT_NAMESPACE => independent_namespace(input, ask.nsid),
        // One combination: the NVM command set.
        cns::COMMAND_SETS => Ok(page(&[1])),
        _ => Err(Status::INVALID_FIELD),
    }
}

fn page(bytes: &[u8]) -> Page {
    let mut page = Box::new([0; IDENTIFY_BYTES]);
    page[..bytes.len()].copy_from_slice(bytes);
    page
}

/// Writes a text into a field, padded with spaces.
pub fn pad(field: &mut [u8], text: &str) {
    field.fill(b' ');
    let length = field.len().min(text.len());
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
}

fn controller(input: &IdentifyInput<'_>) -> IdentifyController {
    let subsystem = input.subsystem;
    let mut id: IdentifyController = zeroed();
    id.vid = input.vendor.into();
    id.ssvid = input.vendor.into();
    pad(&mut id.sn, subsystem.serial());
    pad(&mut id.mn, subsystem.model());
    pad(&mut id.fr, FIRMWARE);
    id.cmic = Cmic::new()
        .with_controllers(subsystem.controllers() > 1)
        .into();
    id.mdts = (input.transfer_bytes_max / 4096).trailing_zeros() as u8;
    id.cntlid = input.cntlid.into();
    id.ver = u32::from(Vs::V2_0).into();
    id.ctratt = HOST_IDENTIFIER_128.into();
    id.cntrltype = IO_CONTROLLER;
    id.kas = KEEP_ALIVE_GRANULARITY_100MS.into();
    id.subnqn[..subsystem.nqn().len()].copy_from_slice(subsystem.nqn().as_bytes());
    admin_attributes(&mut id, input);
    io_attributes(&mut id, input);
    id
}

fn admin_attributes(id: &mut IdentifyController, input: &IdentifyInput<'_>) {
    id.oacs = u16::from(Oacs::new().with_doorbell_buffer(input.supports.doorbell_buffer)).into();
    id.acl = ABORTS_MAX_Z;
    id.aerl = REQUESTS_MAX_Z;
    id.frmw = Frmw::new().with_slot_1_read_only(true).with_slots(1).into();
    id.lpa = Lpa::new()
        .with_effects(true)
        .with_extended_data(true)
        .into();
    id.elpe = (ERROR_ENTRIES - 1) as u8;
    id.wctemp = WARNING_TEMPERATURE.into();
    id.cctemp = CRITICAL_TEMPERATURE.into();
}

fn io_attributes(id: &mut IdentifyController, input: &IdentifyInput<'_>) {
    let supports = input.supports;
    id.sqes = 0x66;
    id.cqes = 0x44;
    id.nn = (input.subsystem.namespaces().len() as u32).into();
    id.mnan = (NAMESPACES_MAX as u32).into();
    let oncs = Oncs::new()
        .with_compare(supports.compare)
        .with_dataset_management(supports.dataset_management)
        .with_write_zeroes(supports.write_zeroes)
        .with_save_and_select(true)
        .with_timestamp(true);
    id.oncs = u16::from(oncs).into();
    let cached = input
        .subsystem
        .active()
        .any(|ns| ns.bdev().geometry().volatile_cache);
    id.vwc = Vwc::new().with_present(cached).with_flush_all(2).into();
    let sgls = Sgls::new()
        .with_supported(1)
        .with_bit_bucket(true)
        .with_longer(true);
    id.sgls = u32::from(sgls).into();
}

/// The namespace, which must exist and be attached.
fn active<'a>(input: &IdentifyInput<'a>, nsid: Nsid) -> Result<&'a Namespace, Status> {
    if nsid == Nsid::NONE || nsid.0 as usize > input.subsystem.namespaces().len() {
        return Err(Status::INVALID_NAMESPACE);
    }
    Ok(input
        .subsystem
        .namespace(nsid)
        .ok_or(Status::INVALID_FIELD)?)
}

/// What is common to all namespaces is told for the identifier of all; a namespace that is not
/// attached reads as zeroes.
fn namespace(input: &IdentifyInput<'_>, nsid: Nsid) -> Result<Page, Status> {
    if nsid == Nsid::ALL {
        return Ok(page(&[]));
    }
    match active(input, nsid) {
        Ok(found) => Ok(page(describe(found).as_bytes())),
        Err(Status::INVALID_FIELD) => Ok(page(&[])),
        Err(status) => Err(status),
    }
}

fn describe(namespace: &Namespace) -> IdentifyNamespace {
    let (geometry, features) = (namespace.bdev().geometry(), namespace.bdev().features());
    let mut id: IdentifyNamespace = zeroed();
    id.nsze = namespace.blocks().into();
    id.ncap = namespace.blocks().into();
    id.nuse = namespace.blocks().into();
    id.nmic = Nmic::new().with_shared(namespace.shared()).into();
    // Zeroes are promised for deallocated blocks by every device that can write zeroes.
    let dlfeat = match features.unmap && features.write_zeroes && features.compare {
        true => Dlfeat::new().with_reads(1).with_write_zeroes(true),
        false => Dlfeat::new(),
    };
    id.dlfeat = dlfeat.into();
    id.nguid = *namespace.uuid().as_bytes();
    id.lbaf[0] = LbaFormat {
        lbads: namespace.block_shift(),
        ..LbaFormat::new_zeroed()
    };
    let optimal_blocks = geometry.optimal_io_bytes / geometry.block_size;
    if let Some(optimal_z @ 1..) = optimal_blocks.checked_sub(1) {
        let optimal_z = u16::try_from(optimal_z).unwrap_or(u16::MAX);
        id.nsfeat = Nsfeat::new().with_optimal(true).into();
        id.npwg_z = optimal_z.into();
        id.npwa_z = optimal_z.into();
        id.npdg_z = optimal_z.into();
        id.npda_z = optimal_z.into();
        id.nows_z = optimal_z.into();
    }
    id
}

fn active_namespaces(input: &IdentifyInput<'_>, after: Nsid) -> Result<Page, Status> {
    // The last two identifiers have no successor (5.17.2.2).
    if after.0 >= 0xffff_fffe {
        return Err(Status::INVALID_NAMESPACE);
    }
    let ids = input.subsystem.active().map(|namespace| namespace.nsid());
    let bytes: Vec<u8> = ids
        .filter(|&nsid| nsid > after)
        .flat_map(|nsid| nsid.0.to_le_bytes())
        .collect();
    Ok(page(&bytes))
}

fn descriptors(namespace: &Namespace) -> Result<Page, Status> {
    let uuid = namespace.uuid();
    let all: [(u8, &[u8]); 3] = [
        (DescriptorHeader::NGUID, uuid.as_bytes()),
        (DescriptorHeader::UUID, uuid.as_bytes()),
        (DescriptorHeader::CSI, &[CSI_NVM]),
    ];
    let mut bytes = Vec::new();
    for (nidt, id) in all {
        let header = DescriptorHeader {
            nidt,
            nidl: id.len() as u8,
            reserved: 0.into(),
        };
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(id);
    }
    Ok(page(&bytes))
}

/// No protection information, no storage tags.
fn csi_namespace(input: &IdentifyInput<'_>, nsid: Nsid) -> Result<Page, Status> {
    active(input, nsid).map(|_| page(&[]))
}

fn independent_namespace(input: &IdentifyInput<'_>, nsid: Nsid) -> Result<Page, Status> {
    let namespace = active(input, nsid)?;
    let mut id: IndependentNamespace = zeroed();
    id.nmic = Nmic::new().with_shared(namespace.shared()).into();
    id.nstat = IndependentNamespace::READY;
    Ok(page(id.as_bytes()))
}
