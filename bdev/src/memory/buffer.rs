//! Aligned memory of ours, for requests whose own memory a backend cannot use as it is.
#![allow(unsafe_code)] // Slices over the pool's mapping.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::slice;

use super::map::Map;
use super::{MapError, PAGE_BYTES, PageKind};

/// One reactor's buffers, all of one size, set aside at the start. A clone is the same pool.
#[derive(Debug, Clone)]
pub struct BufferPool {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    free: RefCell<Vec<NonNull<u8>>>,
    buffer_bytes: usize,
    /// What the buffers are cut from; none when there are no buffers. Not touched before its first
    /// use, so buffers that are never needed take no memory.
    _map: Option<Map>,
}

impl BufferPool {
    /// A pool of `buffers` buffers of `bytes` bytes each, rounded up to whole pages.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses the memory.
    pub fn new(buffers: usize, bytes: usize) -> Result<BufferPool, MapError> {
        let too_large = MapError::TooLarge {
            needed: u64::MAX,
            limit: isize::MAX as u64,
        };
        let bytes = bytes
            .max(1)
            .checked_next_multiple_of(PAGE_BYTES)
            .ok_or(too_large)?;
        let total = bytes.checked_mul(buffers).ok_or(too_large)?;
        let map = match total {
            0 => None,
            _ => Some(Map::anonymous(total, PageKind::Normal)?),
        };
        let buffer = |map: &Map, index: usize| {
            // SAFETY: `index < buffers`, so the buffer starts within the mapping.
            unsafe { map.address().add(index * bytes) }
        };
        let free = map
            .iter()
            .flat_map(|map| (0..buffers).map(|index| buffer(map, index)));
        let free = RefCell::new(free.collect());
        Ok(BufferPool {
            inner: Rc::new(Inner {
                free,
                buffer_bytes: bytes,
                _map: map,
            }),
        })
    }

    /// A buffer, with whatever its last user left in it. None when all are in use: a normal answer,
    /// to be tried again.
    #[must_use]
    pub fn take(&self) -> Option<Buffer> {
        let address = self.inner.free.borrow_mut().pop()?;
        Some(Buffer {
            address,
            pool: self.clone(),
        })
    }

    /// How many bytes each buffer has.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.inner.buffer_bytes
    }

    /// How many buffers are free now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.inner.free.borrow().len()
    }
}

/// A buffer of a pool, aligned to 4 KiB; it goes back when dropped. Its memory does not move. While
/// the kernel may write to it, it must be neither dropped nor looked into; forgetting it leaks the
/// whole pool, which is safe.
#[derive(Debug)]
pub struct Buffer {
    address: NonNull<u8>,
    pool: BufferPool,
}

impl Buffer {
    /// Its address, for the kernel.
    #[must_use]
    pub fn as_raw(&self) -> NonNull<u8> {
        self.address
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the buffer lies in the pool's mapping, which it keeps alive; no other buffer
        // overlaps it, and the mapping was zeroes at first, so every byte has a value.
        unsafe { slice::from_raw_parts(self.address.as_ptr(), self.pool.buffer_bytes()) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and we are borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.address.as_ptr(), self.pool.buffer_bytes()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.inner.free.borrow_mut().push(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_apart_and_come_back() {
        let pool = BufferPool::new(3, 5000).unwrap();
        let mut buffers: Vec<Buffer> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(
            (buffers.len(), pool.free(), pool.buffer_bytes()),
            (3, 0, 8192)
        );
        for (value, buffer) in (1..).zip(&mut buffers) {
            assert_eq!(buffer.as_raw().as_ptr() as usize % PAGE_BYTES, 0);
            buffer.fill(value);
        }
        for (value, buffer) in (1..).zip(&buffers) {
            assert!(buffer.iter().all(|&byte| byte == value));
        }
        drop(buffers);
        assert_eq!(pool.free(), 3);
    }

    #[test]
    fn a_buffer_outlives_its_pool() {
        let pool = BufferPool::new(1, 4096).unwrap();
        let mut buffer = pool.take().unwrap();
        drop(pool);
        buffer[4095] = 1;
    }

    #[test]
    fn a_pool_of_nothing_is_empty() {
        assert!(BufferPool::new(0, 4096).unwrap().take().is_none());
    }
}
