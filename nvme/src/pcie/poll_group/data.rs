//! From a command's data pointer to the guest memory that its Io moves.

use bdev::Op;
use bdev::memory::{Access, GuestMemory, IoVecPool, IoVecs};

use crate::nvm::{self, Block};
use crate::pcie::prp::{self, DataError};
use crate::pcie::sgl::{self, Piece};
use crate::spec::Sqe;

/// Where the data of commands is.
pub struct Data<'a> {
    /// What is mapped.
    pub memory: &'a GuestMemory,
    /// Lists for transfers of many pieces.
    pub pool: &'a IoVecPool,
    /// Memory pages have `1 << page_shift` bytes (CC.MPS).
    pub page_shift: u8,
}

impl Data<'_> {
    /// Finds the guest memory of a transfer by the command's data pointer, and appends it to
    /// `iovecs`.
    ///
    /// # Errors
    /// A status where the data pointer breaks a rule, or a shortage that may pass.
    #[inline(always)]
    pub fn gather(&self, sqe: &Sqe, block: &Block, iovecs: &mut IoVecs) -> Result<(), DataError> {
        let Data {
            memory,
            pool,
            page_shift,
        } = *self;
        let access = if matches!(block.op, Op::Read) {
            Access::Write
        } else {
            Access::Read
        };
        let len = block.transfer_bytes;
        let is_sgl = nvm::data_pointer_is_sgl(sqe)?;
        if !is_sgl {
            if let Some(iova) = prp::in_one_page(sqe.prps(), len, page_shift) {
                return Ok(memory.gather(pool, iova, len, access, iovecs)?);
            }
        }
        self.gather_pages(sqe, is_sgl, (access, len), iovecs)
    }

    #[inline(never)]
    fn gather_pages(
        &self,
        sqe: &Sqe,
        is_sgl: bool,
        (access, len): (Access, u64),
        iovecs: &mut IoVecs,
    ) -> Result<(), DataError> {
        let Data {
            memory,
            pool,
            page_shift,
        } = *self;
        if !is_sgl {
            return prp::walk(memory, sqe.prps(), len, page_shift, |iova, len| {
                Ok(memory.gather(pool, iova, len, access, iovecs)?)
            });
        }
        let to_host = access == Access::Write;
        sgl::walk(memory, sqe.sgl(), len, to_host, &mut |piece| match piece {
            Piece::Memory(iova, len) => Ok(memory.gather(pool, iova, len, access, iovecs)?),
            Piece::Discard(len) => Ok(iovecs.push_discard(pool, len)?),
        })
    }
}
