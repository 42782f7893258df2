//! The memory of one request: segments, and the leases that keep them mapped.

use std::cell::RefCell;
use std::ptr;
use std::rc::Rc;

use super::MemoryError;
use super::guest::Mapping;

/// How many segments a request can have, neighbours joined: 1 MiB in pages of 4 KiB that starts
/// within a page, and some to spare.
pub const SEGMENTS_MAX: usize = 264;

/// How many segments need no list.
const INLINE: usize = 2;

/// One segment, laid out as the kernel wants it. Only this module makes one, and no copy of it
/// leaves the [`IoVecs`] that keep its memory mapped.
#[derive(Debug)]
#[repr(transparent)]
pub struct IoVec(libc::iovec);

impl IoVec {
    const EMPTY: IoVec = IoVec(libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    });

    fn new(address: *mut u8, len: usize) -> IoVec {
        IoVec(libc::iovec {
            iov_base: address.cast(),
            iov_len: len,
        })
    }

    /// How many bytes.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a segment in a list is never empty"
    )]
    pub fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Where, in our address space: guest memory, for raw access only, while the [`IoVecs`] live.
    /// Null if it discards.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }

    /// Whether what is read into it goes nowhere.
    #[must_use]
    pub fn is_discard(&self) -> bool {
        self.0.iov_base.is_null()
    }

    /// Grows it by what follows it in memory. False if it does not follow.
    fn extend(&mut self, address: *mut u8, len: usize) -> bool {
        let follows = match (self.is_discard(), address.is_null()) {
            (true, true) => true,
            (false, false) => self.as_ptr().wrapping_add(self.len()) == address,
            (true, false) | (false, true) => false,
        };
        if follows {
            self.0.iov_len += len;
        }
        follows
    }
}

/// The segments of one request, in order. Two are held inline, more in a list from the reactor's
/// [`IoVecPool`]. Holds leases: nothing that it points into is unmapped while it lives. Neither
/// `Send` nor `Clone`.
#[derive(Debug)]
pub struct IoVecs {
    bytes: u64,
    inline: [IoVec; INLINE],
    list: Option<Box<List>>,
    lease: Option<Rc<Mapping>>,
    count: u32,
}

/// The segments of a long request, and the leases of one that crosses regions.
#[derive(Debug)]
struct List {
    segments: [IoVec; SEGMENTS_MAX],
    leases: Vec<Rc<Mapping>>,
    home: Option<IoVecPool>,
}

impl IoVecs {
    /// No segments.
    #[must_use]
    pub const fn new() -> Self {
        IoVecs {
            bytes: 0,
            inline: [const { IoVec::EMPTY }; INLINE],
            list: None,
            lease: None,
            count: 0,
        }
    }

    /// How many bytes all segments have together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The segments. They stay where they are in memory only as long as this value is not moved.
    #[must_use]
    #[inline]
    pub fn segments(&self) -> &[IoVec] {
        match &self.list {
            None => &self.inline[..self.count as usize],
            Some(list) => &list.segments[..self.count as usize],
        }
    }

    /// Whether there is no segment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether some segment discards.
    #[must_use]
    pub fn has_discard(&self) -> bool {
        self.segments().iter().any(IoVec::is_discard)
    }

    /// Forgets the segments, and gives the list and the leases back.
    pub fn clear(&mut self) {
        *self = IoVecs::new();
    }

    /// Appends `len` bytes that a read drops: an SGL bit bucket. Nothing for 0.
    ///
    /// # Errors
    ///
    /// [`MemoryError::TooManySegments`] and [`MemoryError::PoolEmpty`], with nothing appended.
    pub fn push_discard(&mut self, pool: &IoVecPool, len: u64) -> Result<(), MemoryError> {
        self.push(pool, ptr::null_mut(), len as usize)
    }

    /// Appends memory of a mapping, and takes a lease on it. The caller has checked that the
    /// mapping holds these bytes and allows the access.
    #[inline]
    pub(super) fn push_mapped(
        &mut self,
        pool: &IoVecPool,
        mapping: &Rc<Mapping>,
        address: *mut u8,
        len: usize,
    ) -> Result<(), MemoryError> {
        // The lease comes first: a lease too many is harmless, a segment without one is not.
        match &self.lease {
            None => self.lease = Some(Rc::clone(mapping)),
            Some(lease) if Rc::ptr_eq(lease, mapping) => {}
            Some(_) => self.lease_another(pool, mapping)?,
        }
        self.push(pool, address, len)
    }

    #[inline]
    fn push(&mut self, pool: &IoVecPool, address: *mut u8, len: usize) -> Result<(), MemoryError> {
        if len == 0 {
            return Ok(());
        }
        if self.count == 0 && self.list.is_none() {
            self.inline[0] = IoVec::new(address, len);
            (self.count, self.bytes) = (1, len as u64);
            return Ok(());
        }
        self.push_after(pool, address, len)
    }

    /// As [`push`](Self::push), where there is a segment already.
    fn push_after(
        &mut self,
        pool: &IoVecPool,
        address: *mut u8,
        len: usize,
    ) -> Result<(), MemoryError> {
        let bytes = self
            .bytes
            .checked_add(len as u64)
            .ok_or(MemoryError::TooManySegments)?;
        if !self
            .last_mut()
            .is_some_and(|last| last.extend(address, len))
        {
            self.append(pool, IoVec::new(address, len))?;
        }
        self.bytes = bytes;
        Ok(())
    }

    fn last_mut(&mut self) -> Option<&mut IoVec> {
        let last = (self.count as usize).checked_sub(1)?;
        match &mut self.list {
            None => self.inline.get_mut(last),
            Some(list) => list.segments.get_mut(last),
        }
    }

    fn append(&mut self, pool: &IoVecPool, segment: IoVec) -> Result<(), MemoryError> {
        let count = self.count as usize;
        let place = match &mut self.list {
            None if count < INLINE => &mut self.inline[count],
            _ => self
                .list(pool)?
                .segments
                .get_mut(count)
                .ok_or(MemoryError::TooManySegments)?,
        };
        *place = segment;
        self.count += 1;
        Ok(())
    }

    /// A lease beyond the first. Only neighbours are compared: what alternates between regions
    /// counts each time, and has as many leases as segments at most, or is refused.
    #[cold]
    fn lease_another(
        &mut self,
        pool: &IoVecPool,
        mapping: &Rc<Mapping>,
    ) -> Result<(), MemoryError> {
        let list = self.list(pool)?;
        if list
            .leases
            .last()
            .is_some_and(|last| Rc::ptr_eq(last, mapping))
        {
            return Ok(());
        }
        if list.leases.len() == SEGMENTS_MAX {
            return Err(MemoryError::TooManySegments);
        }
        list.leases.push(Rc::clone(mapping));
        Ok(())
    }

    /// The list; takes one from the pool, and moves the inline segments there, if there is none
    /// yet.
    fn list(&mut self, pool: &IoVecPool) -> Result<&mut List, MemoryError> {
        if self.list.is_none() {
            let mut list = pool.take().ok_or(MemoryError::PoolEmpty)?;
            for (inline, place) in self.inline.iter_mut().zip(&mut list.segments) {
                *place = std::mem::replace(inline, IoVec::EMPTY);
            }
            self.list = Some(list);
        }
        self.list.as_deref_mut().ok_or(MemoryError::PoolEmpty)
    }
}

impl Default for IoVecs {
    fn default() -> Self {
        IoVecs::new()
    }
}

impl Drop for IoVecs {
    #[inline]
    fn drop(&mut self) {
        if let Some(list) = self.list.take() {
            IoVecPool::give_back(list);
        }
    }
}

/// One reactor's lists for requests with many segments, all made at the start. A clone is the same
/// pool.
#[derive(Debug, Clone)]
pub struct IoVecPool {
    free: Rc<RefCell<Vec<Box<List>>>>,
}

impl IoVecPool {
    /// A pool of `lists` lists.
    #[must_use]
    pub fn new(lists: usize) -> Self {
        let list = || {
            Box::new(List {
                segments: [const { IoVec::EMPTY }; SEGMENTS_MAX],
                leases: Vec::with_capacity(SEGMENTS_MAX),
                home: None,
            })
        };
        IoVecPool {
            free: Rc::new(RefCell::new((0..lists).map(|_| list()).collect())),
        }
    }

    /// How many lists are free now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.borrow().len()
    }

    fn take(&self) -> Option<Box<List>> {
        let mut list = self.free.borrow_mut().pop()?;
        list.home = Some(self.clone());
        Some(list)
    }

    fn give_back(mut list: Box<List>) {
        list.leases.clear();
        // The home is taken out: a pool that held itself would never be freed.
        if let Some(home) = list.home.take() {
            home.free.borrow_mut().push(list);
        }
    }
}
