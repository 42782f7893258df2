//! Identify (NVMe Base 2.0, 5.17): what the controller and its namespaces are. Each bit that is
//! set here is honoured.

use zerocopy::{FromZeros, IntoBytes};

use super::async_event::REQUESTS_MAX_Z;
use super::features::{KEEP_ALIVE_GRANULARITY_100MS, WARNING_TEMPERATURE};
use super::log_page::{ERROR_ENTRIES, Supports};
use crate::namespace::Namespace;
use crate::spec::identify::{
    CSI_NVM, Cmic, Ctratt, DescriptorHeader, Dlfeat, EntrySize, Frmw, IDENTIFY_BYTES,
    IdentifyController, IdentifyNamespace, IndependentNamespace, LbaFormat, Lpa, NVM_COMBINATION,
    Nmic, Nsattr, Nsfeat, Oacs, Oncs, Sgls, Vwc, cns, zeroed,
};
use crate::spec::registers::{Cc, Vs};
use crate::spec::text::pad;
use crate::spec::{Nsid, Status};
use crate::subsystem::{FIRMWARE, Subsystem};

/// An identify data structure.
pub type Page = Box<[u8; IDENTIFY_BYTES]>;

/// ACL: most Abort commands at a time, zero-based. They complete at once.
const ABORTS_MAX_Z: u8 = 3;
/// What MDTS counts in: the smallest memory page (CAP.MPSMIN), as a power of two.
const PAGE_SHIFT: u8 = 12;
/// Critical composite temperature, in kelvin.
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
    let Ask { cns, nsid, csi } = ask;
    match cns {
        cns::NAMESPACE => of_namespace(input, nsid, |found| page(describe(found).as_bytes())),
        cns::CONTROLLER => Ok(page(controller(input).as_bytes())),
        cns::ACTIVE_NAMESPACES => active_namespaces(input, nsid),
        cns::NAMESPACE_DESCRIPTORS => active(input, nsid).map(descriptors),
        // No protection information, no storage tags.
        cns::CSI_NAMESPACE if csi == CSI_NVM => of_namespace(input, nsid, |_| page(&[])),
        // No command has a limit beyond those of Identify Controller.
        cns::CSI_CONTROLLER if csi == CSI_NVM => Ok(page(&[])),
        cns::CSI_ACTIVE_NAMESPACES if csi == CSI_NVM => active_namespaces(input, nsid),
        cns::INDEPENDENT_NAMESPACE => of_namespace(input, nsid, |found| {
            page(describe_independent(found).as_bytes())
        }),
        cns::COMMAND_SETS => Ok(page(&NVM_COMBINATION.to_le_bytes())),
        _ => Err(Status::INVALID_FIELD),
    }
}

fn page(bytes: &[u8]) -> Page {
    let mut page = Box::new([0; IDENTIFY_BYTES]);
    page[..bytes.len()].copy_from_slice(bytes);
    page
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
    id.mdts = (input.transfer_bytes_max >> PAGE_SHIFT).max(1).ilog2() as u8;
    id.cntlid = input.cntlid.into();
    id.ver = u32::from(Vs::V2_0).into();
    id.ctratt = u32::from(Ctratt::new().with_host_identifier_128(true)).into();
    id.cntrltype = IdentifyController::IO_CONTROLLER;
    id.kas = KEEP_ALIVE_GRANULARITY_100MS.into();
    for (byte, text) in id.subnqn.iter_mut().zip(subsystem.nqn().bytes()) {
        *byte = text;
    }
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
        .with_supported_pages(true)
        .into();
    id.elpe = (ERROR_ENTRIES - 1) as u8;
    id.wctemp = WARNING_TEMPERATURE.into();
    id.cctemp = CRITICAL_TEMPERATURE.into();
}

fn io_attributes(id: &mut IdentifyController, input: &IdentifyInput<'_>) {
    let supports = input.supports;
    id.sqes = entry_size(Cc::IOSQES_64);
    id.cqes = entry_size(Cc::IOCQES_16);
    // The highest identifier, no more: firmware asks for each up to here.
    id.nn = (input.subsystem.namespaces().len() as u32).into();
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
    id.vwc = Vwc::new()
        .with_present(cached)
        .with_flush_all(Vwc::FLUSH_ALL_FAILS)
        .into();
    let sgls = Sgls::new()
        .with_supported(Sgls::ANY_ALIGNMENT)
        .with_bit_bucket(true)
        .with_longer(true);
    id.sgls = u32::from(sgls).into();
}

fn entry_size(shift: u8) -> u8 {
    EntrySize::new()
        .with_required(shift)
        .with_largest(shift)
        .into()
}

/// A structure of one namespace. One that is not attached reads as zeroes; the identifier of all
/// namespaces stands for nothing, since there is no Namespace Management.
fn of_namespace(
    input: &IdentifyInput<'_>,
    nsid: Nsid,
    structure: impl Fn(&Namespace) -> Page,
) -> Result<Page, Status> {
    match active(input, nsid) {
        Err(Status::INVALID_FIELD) => Ok(page(&[])),
        found => found.map(structure),
    }
}

/// The namespace. One that is not attached is an invalid field, one that there cannot be an
/// invalid namespace (3.2.1.4).
fn active<'a>(input: &IdentifyInput<'a>, nsid: Nsid) -> Result<&'a Namespace, Status> {
    if nsid == Nsid::NONE || nsid.0 as usize > input.subsystem.namespaces().len() {
        return Err(Status::INVALID_NAMESPACE);
    }
    let namespace = input.subsystem.namespace(nsid);
    namespace.map(AsRef::as_ref).ok_or(Status::INVALID_FIELD)
}

fn describe(namespace: &Namespace) -> IdentifyNamespace {
    let mut id: IdentifyNamespace = zeroed();
    id.nsze = namespace.blocks().into();
    id.ncap = namespace.blocks().into();
    id.nuse = namespace.blocks().into();
    id.nmic = Nmic::new().with_shared(namespace.shared()).into();
    id.nsattr = attributes(namespace).into();
    id.dlfeat = deallocation(namespace).into();
    id.nguid = *namespace.uuid().as_bytes();
    id.lbaf[0] = LbaFormat {
        lbads: namespace.block_shift(),
        ..LbaFormat::new_zeroed()
    };
    describe_optimum(namespace, &mut id);
    id
}

fn attributes(namespace: &Namespace) -> Nsattr {
    Nsattr::new().with_write_protected(namespace.read_only())
}

/// A deallocated block reads as zeroes on every device, but for one that keeps no data at all and
/// so has nothing to compare with.
fn deallocation(namespace: &Namespace) -> Dlfeat {
    let features = namespace.bdev().features();
    let reads = match features.unmap && features.compare {
        true => Dlfeat::ZEROES,
        false => 0,
    };
    Dlfeat::new()
        .with_reads(reads)
        .with_write_zeroes(features.unmap && features.write_zeroes)
}

/// What size and alignment of I/O is fast, if it is more than a block.
fn describe_optimum(namespace: &Namespace, id: &mut IdentifyNamespace) {
    let optimal_bytes = namespace.bdev().geometry().optimal_io_bytes;
    let blocks_z = (optimal_bytes >> namespace.block_shift()).saturating_sub(1);
    if blocks_z == 0 {
        return;
    }
    let blocks_z = u16::try_from(blocks_z).unwrap_or(u16::MAX).into();
    id.nsfeat = Nsfeat::new().with_optimal(true).into();
    (id.npwg_z, id.npwa_z) = (blocks_z, blocks_z);
    (id.npdg_z, id.npda_z) = (blocks_z, blocks_z);
    id.nows_z = blocks_z;
}

fn describe_independent(namespace: &Namespace) -> IndependentNamespace {
    let mut id: IndependentNamespace = zeroed();
    id.nmic = Nmic::new().with_shared(namespace.shared()).into();
    id.nsattr = attributes(namespace).into();
    id.nstat = IndependentNamespace::READY;
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

fn descriptors(namespace: &Namespace) -> Page {
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
    page(&bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bdev::{Features, Geometry};

    use super::*;
    use crate::namespace::tests::{DISK, Disk, FEATURES, GEOMETRY};
    use crate::subsystem::Names;

    const SUPPORTS: Supports = Supports {
        compare: true,
        write_zeroes: true,
        dataset_management: true,
        doorbell_buffer: false,
    };

    fn subsystem(controllers: u16, disks: &[(u32, Disk)]) -> Subsystem {
        let names = Names {
            nqn: "nqn.2014-08.org.example:disk".into(),
            serial: "SERIAL".into(),
            model: "a model".into(),
        };
        let namespace = |&(nsid, disk): &(u32, Disk)| {
            Arc::new(Namespace::new(Nsid(nsid), Arc::new(disk), controllers > 1))
        };
        Subsystem::new(names, controllers, disks.iter().map(namespace)).unwrap()
    }

    fn input(subsystem: &Subsystem) -> IdentifyInput<'_> {
        IdentifyInput {
            subsystem,
            cntlid: 0x0102,
            transfer_bytes_max: 1 << 20,
            supports: SUPPORTS,
            vendor: 0x1b36,
        }
    }

    fn ask(subsystem: &Subsystem, cns: u8, nsid: u32) -> Result<Page, Status> {
        let (nsid, csi) = (Nsid(nsid), CSI_NVM);
        identify(&input(subsystem), Ask { cns, nsid, csi })
    }

    /// The page of one disk, namespace 1.
    fn namespace_page(cns: u8, disk: Disk) -> Page {
        ask(&subsystem(1, &[(1, disk)]), cns, 1).unwrap()
    }

    /// The bytes of a field.
    fn field<const N: usize>(page: &Page, at: usize) -> [u8; N] {
        page[at..at + N].try_into().unwrap()
    }

    #[test]
    fn the_controller_says_who_it_is() {
        let page = ask(&subsystem(1, &[(1, DISK)]), cns::CONTROLLER, 0).unwrap();
        assert_eq!(field(&page, 0), [0x36, 0x1b, 0x36, 0x1b]);
        assert_eq!(field::<20>(&page, 4), *b"SERIAL              ");
        assert_eq!(&field::<40>(&page, 24)[..8], b"a model ");
        assert_eq!(field::<8>(&page, 64), *format!("{FIRMWARE:<8}").as_bytes());
        assert_eq!(field(&page, 76), [0], "one controller, one port");
        assert_eq!(field(&page, 77), [8], "MDTS of 1 MiB in pages of 4 KiB");
        assert_eq!(field(&page, 78), [0x02, 0x01]);
        assert_eq!(field(&page, 80), 0x0002_0000u32.to_le_bytes(), "NVMe 2.0");
        assert_eq!(field(&page, 111), [1], "an I/O controller");
        assert_eq!(&field::<29>(&page, 768), b"nqn.2014-08.org.example:disk\0");
    }

    #[test]
    fn the_controller_says_what_it_can_do_and_nothing_more() {
        let page = ask(&subsystem(1, &[(1, DISK)]), cns::CONTROLLER, 0).unwrap();
        assert_eq!(field(&page, 92), [0; 4], "OAES: no notices");
        assert_eq!(field(&page, 96), [1, 0, 0, 0], "CTRATT: host identifier");
        assert_eq!(field(&page, 256), [0, 0], "OACS: nothing optional");
        assert_eq!(field(&page, 258), [3, 3], "ACL, AERL");
        assert_eq!(field(&page, 260), [0b11, 0b10_0110, 63], "FRMW, LPA, ELPE");
        assert_eq!(field(&page, 263), [0], "NPSS: one power state");
        assert_eq!(field(&page, 266), [0x57, 0x01, 0x61, 0x01], "70 and 80 C");
        assert_eq!(field(&page, 272), [0; 8], "no host memory buffer");
        assert_eq!(field(&page, 320), [10, 0], "KAS: one second");
        assert_eq!(field(&page, 512), [0x66, 0x44, 0, 0], "SQES, CQES, MAXCMD");
        assert_eq!(field(&page, 516), [1, 0, 0, 0], "NN");
        // Compare, Dataset Management, Write Zeroes, save and select, Timestamp.
        assert_eq!(field(&page, 520), [0b0101_1101, 0], "ONCS");
        assert_eq!(field(&page, 522), [0; 3], "FUSES, FNA");
        assert_eq!(field(&page, 525), [0b101], "VWC: present, no flush of all");
        assert_eq!(field(&page, 526), [0; 4], "AWUN, AWUPF: one block");
        assert_eq!(field(&page, 536), [1, 0, 0b101, 0], "SGLS");
        let said = [0..100, 111..112, 256..272, 320..322, 512..540, 768..1024];
        let silent = (0..4096).filter(|at| !said.iter().any(|range| range.contains(at)));
        assert!(silent.into_iter().all(|at| page[at] == 0));
    }

    #[test]
    fn the_controller_offers_what_its_disks_and_configuration_offer() {
        let plain = Disk {
            geometry: Geometry {
                volatile_cache: false,
                ..GEOMETRY
            },
            ..DISK
        };
        let subsystem = subsystem(2, &[(3, plain)]);
        let input = IdentifyInput {
            transfer_bytes_max: 4096,
            supports: Supports {
                doorbell_buffer: true,
                ..Supports::default()
            },
            ..input(&subsystem)
        };
        let ask = Ask {
            cns: cns::CONTROLLER,
            nsid: Nsid::NONE,
            csi: 0xff,
        };
        let page = identify(&input, ask).unwrap();
        assert_eq!(field(&page, 76), [0b10], "CMIC: more controllers");
        assert_eq!(field(&page, 77), [0], "MDTS of one page");
        assert_eq!(field(&page, 256), [0, 1], "OACS: Doorbell Buffer Config");
        assert_eq!(
            field(&page, 516),
            [3, 0, 0, 0],
            "NN is the highest identifier"
        );
        assert_eq!(field(&page, 520), [0b0101_0000, 0], "ONCS");
        assert_eq!(field(&page, 525), [0b100], "VWC: not present");
    }

    #[test]
    fn a_namespace_says_what_it_is() {
        let page = namespace_page(cns::NAMESPACE, DISK);
        for at in [0, 8, 16] {
            let blocks = u64::from_le_bytes(field(&page, at));
            assert_eq!(blocks, 0x0011_2233_4455, "NSZE, NCAP, NUSE");
        }
        assert_eq!(field(&page, 24), [0b1_0000, 0, 0], "NSFEAT, NLBAF, FLBAS");
        assert_eq!(field(&page, 27), [0; 6], "no metadata, not shared");
        assert_eq!(field(&page, 33), [0b1001], "DLFEAT: zeroes");
        assert_eq!(field(&page, 64), [7, 0, 7, 0, 7, 0, 7, 0, 7, 0], "8 blocks");
        assert_eq!(field(&page, 99), [0], "NSATTR");
        let nguid = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        assert_eq!(field(&page, 104), nguid);
        assert_eq!(field(&page, 120), [0; 8], "no EUI64");
        assert_eq!(field(&page, 128), [0, 0, 9, 0], "512 bytes, best");
        assert!(page[132..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_read_only_disk_is_write_protected() {
        let read_only = Disk {
            geometry: Geometry {
                read_only: true,
                ..GEOMETRY
            },
            features: Features {
                unmap: false,
                ..FEATURES
            },
            ..DISK
        };
        let page = namespace_page(cns::NAMESPACE, read_only);
        assert_eq!((page[99], page[33]), (1, 0), "NSATTR, DLFEAT");
        assert_eq!(namespace_page(cns::INDEPENDENT_NAMESPACE, read_only)[8], 1);
    }

    #[test]
    fn a_disk_that_keeps_no_data_promises_no_zeroes() {
        let null = Disk {
            features: Features {
                compare: false,
                ..FEATURES
            },
            ..DISK
        };
        assert_eq!(namespace_page(cns::NAMESPACE, null)[33], 0b1000);
    }

    #[test]
    fn what_is_fast_is_said_only_if_it_is_more_than_a_block() {
        let with = |optimal_io_bytes, block_size| {
            let geometry = Geometry {
                optimal_io_bytes,
                block_size,
                ..GEOMETRY
            };
            let page = namespace_page(cns::NAMESPACE, Disk { geometry, ..DISK });
            (page[24], u16::from_le_bytes(field(&page, 72)), page[130])
        };
        assert_eq!(with(0, 512), (0, 0, 9));
        assert_eq!(with(512, 512), (0, 0, 9));
        assert_eq!(with(4096, 4096), (0, 0, 12));
        assert_eq!(with(1 << 20, 4096), (0b1_0000, 255, 12));
        assert_eq!(with(1 << 31, 512), (0b1_0000, u16::MAX, 9));
    }

    #[test]
    fn a_namespace_of_two_controllers_says_so() {
        let subsystem = subsystem(2, &[(1, DISK)]);
        assert_eq!(ask(&subsystem, cns::NAMESPACE, 1).unwrap()[30], 1);
        let independent = ask(&subsystem, cns::INDEPENDENT_NAMESPACE, 1).unwrap();
        assert_eq!(
            independent[..15],
            [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
        );
        assert!(independent[15..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn lists_name_the_namespaces_after_the_one_asked_for() {
        let subsystem = subsystem(1, &[(2, DISK), (5, DISK), (64, DISK)]);
        for cns in [cns::ACTIVE_NAMESPACES, cns::CSI_ACTIVE_NAMESPACES] {
            let list = |after| -> Vec<u32> {
                let page = ask(&subsystem, cns, after).unwrap();
                let ids = page
                    .chunks_exact(4)
                    .map(|id| u32::from_le_bytes(id.try_into().unwrap()));
                ids.take_while(|&id| id != 0).collect()
            };
            assert_eq!(list(0), [2, 5, 64]);
            assert_eq!(list(1), [2, 5, 64]);
            assert_eq!(list(2), [5, 64]);
            assert_eq!(list(63), [64]);
            assert_eq!(list(64), []);
            assert_eq!(list(0xffff_fffd), []);
            for last in [0xffff_fffe, 0xffff_ffff] {
                assert_eq!(ask(&subsystem, cns, last), Err(Status::INVALID_NAMESPACE));
            }
        }
    }

    #[test]
    fn descriptors_name_a_namespace_in_every_way_there_is() {
        let page = namespace_page(cns::NAMESPACE_DESCRIPTORS, DISK);
        let id: Vec<u8> = (1..=16).collect();
        assert_eq!(page[..4], [2, 16, 0, 0]);
        assert_eq!(page[4..20], id);
        assert_eq!(page[20..24], [3, 16, 0, 0]);
        assert_eq!(page[24..40], id);
        assert_eq!(page[40..48], [4, 1, 0, 0, 0, 0, 0, 0]);
        assert!(page[48..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_namespace_that_is_not_attached_is_no_invalid_namespace() {
        let subsystem = subsystem(1, &[(1, DISK), (3, DISK)]);
        let zeroes = [
            cns::NAMESPACE,
            cns::CSI_NAMESPACE,
            cns::INDEPENDENT_NAMESPACE,
        ];
        for cns in zeroes {
            let page = ask(&subsystem, cns, 2).unwrap();
            assert!(page.iter().all(|&byte| byte == 0), "{cns:#x}");
        }
        let descriptors = ask(&subsystem, cns::NAMESPACE_DESCRIPTORS, 2);
        assert_eq!(descriptors, Err(Status::INVALID_FIELD));
        for cns in zeroes.into_iter().chain([cns::NAMESPACE_DESCRIPTORS]) {
            for nsid in [0, 4, 65, 0xffff_fffe, 0xffff_ffff] {
                let page = ask(&subsystem, cns, nsid);
                assert_eq!(page, Err(Status::INVALID_NAMESPACE), "{cns:#x} {nsid:#x}");
            }
        }
    }

    #[test]
    fn the_nvm_command_set_adds_nothing() {
        let page = namespace_page(cns::CSI_NAMESPACE, DISK);
        assert!(
            page.iter().all(|&byte| byte == 0),
            "no protection information"
        );
        let page = namespace_page(cns::CSI_CONTROLLER, DISK);
        assert!(page.iter().all(|&byte| byte == 0), "no limits");
    }

    #[test]
    fn there_is_one_combination_of_command_sets() {
        let page = namespace_page(cns::COMMAND_SETS, DISK);
        assert_eq!(field(&page, 0), [1, 0, 0, 0, 0, 0, 0, 0]);
        assert!(page[8..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn what_is_not_there_is_an_invalid_field() {
        let subsystem = subsystem(1, &[(1, DISK)]);
        let known = [0x00, 0x01, 0x02, 0x03, 0x05, 0x06, 0x07, 0x08, 0x1c];
        for cns in 0..=u8::MAX {
            let invalid = ask(&subsystem, cns, 1) == Err(Status::INVALID_FIELD);
            assert_eq!(invalid, !known.contains(&cns), "{cns:#x}");
        }
        let by_command_set = [
            cns::CSI_NAMESPACE,
            cns::CSI_CONTROLLER,
            cns::CSI_ACTIVE_NAMESPACES,
        ];
        for cns in by_command_set {
            let (nsid, csi) = (Nsid(1), 2);
            let zoned = identify(&input(&subsystem), Ask { cns, nsid, csi });
            assert_eq!(zoned, Err(Status::INVALID_FIELD), "{cns:#x}");
        }
    }
}
