//! What commands do.

use bdev::memory::Iova;
use nvme::spec::admin::{CreateCq, CreateSq, IdentifyCommand};
use nvme::spec::features::NumberOfQueues;
use nvme::spec::identify::{
    DescriptorHeader, IdentifyController, IdentifyNamespace, Vwc, cns, zeroed,
};
use nvme::spec::nvm::ReadWrite;
use nvme::spec::{AdminOpcode, NvmOpcode, Sqe, Status};
use zerocopy::IntoBytes;

use super::controller::Controller;
use super::{BLOCK, Effect, PAGE, Seen, UUID};

impl Controller {
    pub(super) fn admin(&mut self, sqe: &Sqe, dword0: &mut u32) -> Status {
        let base = Iova(sqe.prps()[0]);
        match sqe.admin_opcode() {
            AdminOpcode::IDENTIFY => {
                let Some(data) = self.identify(IdentifyCommand::of(sqe).cns()) else {
                    return Status::INVALID_FIELD;
                };
                self.memory.write(base, &data).expect("memory for identify");
            }
            AdminOpcode::SET_FEATURES => {
                let count_z = self.model.queues - 1;
                let granted = NumberOfQueues::new()
                    .with_sqs_z(count_z)
                    .with_cqs_z(count_z);
                *dword0 = granted.into();
            }
            AdminOpcode::CREATE_CQ => {
                let create = CreateCq::of(sqe);
                assert!(create.contiguous() && create.qsize_z() < self.model.entries);
                self.add_cq(create.id().0, base, create.qsize_z());
            }
            AdminOpcode::CREATE_SQ => {
                let create = CreateSq::of(sqe);
                assert!(create.contiguous() && create.qsize_z() < self.model.entries);
                self.add_sq(create.id().0, base, create.qsize_z(), create.cqid().0);
            }
            _ => return Status::INVALID_OPCODE,
        }
        Status::SUCCESS
    }

    fn identify(&self, cns: u8) -> Option<Vec<u8>> {
        match cns {
            cns::CONTROLLER => {
                let mut data: IdentifyController = zeroed();
                data.sn = *b"SERIAL-1            ";
                data.mn[..8].copy_from_slice(b"emulated");
                data.mn[8..].fill(b' ');
                data.mdts = self.model.mdts;
                data.nn = 1.into();
                data.vwc = Vwc::new().with_present(self.model.volatile_cache).into();
                Some(data.as_bytes().to_vec())
            }
            cns::ACTIVE_NAMESPACES => {
                let mut data = vec![0; PAGE as usize];
                data[0] = 1;
                Some(data)
            }
            cns::NAMESPACE => {
                let mut data: IdentifyNamespace = zeroed();
                data.nsze = self.model.blocks.into();
                data.ncap = self.model.blocks.into();
                data.flbas = 1;
                data.nlbaf_z = 1;
                data.lbaf[0].lbads = 12;
                data.lbaf[1].lbads = 9;
                Some(data.as_bytes().to_vec())
            }
            cns::NAMESPACE_DESCRIPTORS => {
                let mut data = vec![DescriptorHeader::UUID, 16, 0, 0];
                data.extend(UUID);
                data.resize(PAGE as usize, 0);
                Some(data)
            }
            _ => None,
        }
    }

    pub(super) fn io(&mut self, sqe: &Sqe) -> Effect {
        let command = ReadWrite::of(sqe);
        let seen = Seen {
            opcode: sqe.nvm_opcode(),
            lba: command.slba(),
            blocks: u64::from(command.nlb_z()) + 1,
            before: self.seen,
        };
        self.seen += 1;
        let effect = (self.fault)(seen);
        match seen.opcode {
            NvmOpcode::READ | NvmOpcode::WRITE => self.transfer(sqe, seen, effect),
            NvmOpcode::FLUSH => effect,
            _ => Effect::Fail(Status::INVALID_OPCODE),
        }
    }

    fn transfer(&mut self, sqe: &Sqe, seen: Seen, effect: Effect) -> Effect {
        let len = (seen.blocks * BLOCK) as usize;
        if seen.lba + seen.blocks > self.model.blocks {
            return Effect::Fail(Status::LBA_OUT_OF_RANGE);
        }
        assert!(
            len as u64 <= PAGE << self.model.mdts,
            "{seen:?} exceeds MDTS"
        );
        let lba = if let Effect::At(lba) = effect {
            lba
        } else {
            seen.lba
        };
        let moved = match effect {
            Effect::Cut(bytes) => bytes,
            Effect::Lose | Effect::Fail(_) | Effect::Forget | Effect::Hang => 0,
            _ => len,
        };
        let start = (lba * BLOCK) as usize;
        let pages = self.data_pages(sqe, len as u64);
        let mut disk = self.disk.lock().expect("the disk");
        let mut at = 0;
        for (address, bytes) in pages {
            let bytes = bytes.min(moved - at);
            let part = &mut disk[start + at..start + at + bytes];
            if seen.opcode == NvmOpcode::WRITE {
                self.memory.read(address, part).expect("memory of a write");
            } else {
                let mut part = part.to_vec();
                if let Effect::Flip(flipped) = effect {
                    if (at..at + bytes).contains(&flipped) {
                        part[flipped - at] ^= 1;
                    }
                }
                self.memory.write(address, &part).expect("memory of a read");
            }
            at += bytes;
        }
        effect
    }

    /// The pieces of a command's data: address and length of each.
    fn data_pages(&self, sqe: &Sqe, len: u64) -> Vec<(Iova, usize)> {
        let [first, second] = sqe.prps();
        assert_eq!(first % PAGE, 0);
        let pages = len.div_ceil(PAGE);
        let mut addresses = vec![first];
        if pages == 2 {
            addresses.push(second);
        }
        let mut entry = second;
        while (addresses.len() as u64) < pages {
            let mut bytes = [0; 8];
            self.memory
                .read(Iova(entry), &mut bytes)
                .expect("a PRP list");
            let value = u64::from_le_bytes(bytes);
            let left = pages - addresses.len() as u64;
            if entry % PAGE == PAGE - 8 && left > 1 {
                entry = value;
            } else {
                addresses.push(value);
                entry += 8;
            }
        }
        let piece = |(n, address): (u64, u64)| (Iova(address), PAGE.min(len - n * PAGE) as usize);
        (0..).zip(addresses).map(piece).collect()
    }
}
