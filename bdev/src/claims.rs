//! Claims on ranges of blocks: what makes a logical block atomic between the channels of a device.
//!
//! A request claims its blocks before it touches them, shared to look and exclusively to change,
//! and gives them back when it is done. A claim is tried and never waited for: in case of a
//! conflict the channel puts the request aside and tries again on its next pass.
//!
//! The blocks map to a fixed table of stripes, each a word of its own, so that ranges far apart may
//! meet by chance; that costs a pass and nothing else. Stripes are taken in ascending order, which
//! among any number of requests that meet lets one through.
//!
//! A request of many blocks would find one of them claimed for ever while others come and go. One
//! that has been tried often [insists](Claimant::insist): until it has its blocks nobody is granted
//! a claim, and those that are granted come back.
//!
//! # One channel pays nothing
//!
//! As long as a device has one channel its requests touch no stripe: the channel only notes, in a
//! word that is its own, that it has a request under way without a claim. The second channel to
//! open raises the count of channels, makes all threads pass a barrier, and from then on knows
//! which others still have such requests; it begins when they are over. That barrier is what lets
//! the first channel note and look with plain stores and loads.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, compiler_fence};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::memory::ProcessBarrier;

/// How many stripes a device has: with a few requests of a few stripes under way on each reactor,
/// two of them meet by chance less than once in a hundred.
const STRIPES: usize = 4096;

/// How many bytes a stripe covers at least: what most requests have, so that these take one.
const STRIPE_BYTES: u32 = 4096;

/// A stripe with a writer. Below it is the number of readers.
const EXCLUSIVE: u32 = 1 << 31;

/// What a request does to the blocks that it claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It looks at them, together with others.
    Shared,
    /// It changes them, alone.
    Exclusive,
}

/// The claims on one device's blocks.
#[derive(Debug)]
pub struct Claims {
    stripes: Box<[AtomicU32]>,
    /// A block's number shifted by this is its stripe's, before the table wraps.
    stripe_shift: u32,
    /// How many claimants there are.
    claimants: AtomicUsize,
    /// The number of the claimant that insists; 0 = nobody does. Relaxed: it guards nothing.
    insisting: AtomicU32,
    /// The number that the next claimant gets.
    next_number: AtomicU32,
    /// All that are, for one that opens.
    members: Mutex<Vec<Weak<Member>>>,
    /// Without it every request claims, always.
    barrier: Option<ProcessBarrier>,
}

/// What other claimants see of one. On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Member {
    /// Its requests under way without a claim. Written by its owner only.
    unclaimed: AtomicU32,
}

impl Claims {
    /// Claims for a device with blocks of `block_size` bytes, a power of two.
    #[must_use]
    pub fn new(block_size: u32) -> Arc<Claims> {
        Claims::with_barrier(block_size, ProcessBarrier::get())
    }

    /// Claims for a device on which the requests of one channel run at the same time too: every
    /// request claims, also of a claimant that is alone.
    #[must_use]
    pub fn among_requests(block_size: u32) -> Arc<Claims> {
        Claims::with_barrier(block_size, None)
    }

    fn with_barrier(block_size: u32, barrier: Option<ProcessBarrier>) -> Arc<Claims> {
        Arc::new(Claims {
            stripes: (0..STRIPES).map(|_| AtomicU32::new(0)).collect(),
            stripe_shift: (STRIPE_BYTES / block_size.max(1)).max(1).ilog2(),
            claimants: AtomicUsize::new(0),
            insisting: AtomicU32::new(0),
            next_number: AtomicU32::new(1),
            members: Mutex::default(),
            barrier,
        })
    }

    /// Makes a channel one that claims.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses the barrier on all threads, which it had allowed before.
    pub fn claimant(self: &Arc<Self>) -> io::Result<Claimant> {
        let member = Arc::new(Member::default());
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|member| member.strong_count() > 0);
        let others: Vec<_> = members.iter().filter_map(Weak::upgrade).collect();
        members.push(Arc::downgrade(&member));
        // Within the lock: who comes later counts later, and finds us among the others.
        self.claimants.fetch_add(1, Ordering::SeqCst);
        drop(members);
        let claimant = Claimant {
            number: self.next_number.fetch_add(1, Ordering::Relaxed),
            claims: Arc::clone(self),
            member,
            others,
        };
        match self.barrier.filter(|_| !claimant.others.is_empty()) {
            // The partner of the compiler fence in `Claimant::alone`.
            Some(barrier) => barrier.run().map(|()| claimant),
            None => Ok(claimant),
        }
    }

    fn try_claim(&self, blocks: Range<u64>, mode: Mode) -> Option<Claim> {
        let claim = self.stripes_of(blocks, mode);
        for (taken, index) in claim.indexes().enumerate() {
            if !mode.take(&self.stripes[index]) {
                claim
                    .indexes()
                    .take(taken)
                    .for_each(|index| mode.release(&self.stripes[index]));
                return None;
            }
        }
        Some(claim)
    }

    fn stripes_of(&self, blocks: Range<u64>, mode: Mode) -> Claim {
        let first = blocks.start >> self.stripe_shift;
        let last = blocks.end.saturating_sub(1).max(blocks.start) >> self.stripe_shift;
        let count = (last - first).saturating_add(1).min(STRIPES as u64) as usize;
        Claim {
            first: (first % STRIPES as u64) as usize,
            count,
            mode,
        }
    }
}

impl Mode {
    fn take(self, stripe: &AtomicU32) -> bool {
        match self {
            Mode::Exclusive => stripe
                .compare_exchange(0, EXCLUSIVE, Ordering::Acquire, Ordering::Relaxed)
                .is_ok(),
            Mode::Shared => {
                let free = stripe.fetch_add(1, Ordering::Acquire) & EXCLUSIVE == 0;
                if !free {
                    stripe.fetch_sub(1, Ordering::Relaxed);
                }
                free
            }
        }
    }

    fn release(self, stripe: &AtomicU32) {
        let held = match self {
            Mode::Exclusive => EXCLUSIVE,
            Mode::Shared => 1,
        };
        // Release: the partner is the Acquire of whoever takes the stripe next.
        stripe.fetch_sub(held, Ordering::Release);
    }
}

/// A claim that was granted: to be given back with [`Claimant::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "blocks that are not released stay claimed"]
pub struct Claim {
    first: usize,
    /// None: the claimant was alone, and holds nothing.
    count: usize,
    mode: Mode,
}

impl Claim {
    /// Its stripes in ascending order, those past the end of the table first: they are its
    /// beginning.
    fn indexes(&self) -> impl Iterator<Item = usize> {
        let end = self.first + self.count;
        let wrapped = end.saturating_sub(STRIPES);
        (0..wrapped).chain(self.first..end - wrapped)
    }
}

/// One channel's part in the claims of its device.
#[derive(Debug)]
pub struct Claimant {
    number: u32,
    claims: Arc<Claims>,
    member: Arc<Member>,
    /// Those who were there before us and may still have requests under way without a claim.
    others: Vec<Arc<Member>>,
}

impl Claimant {
    /// Claims blocks. None in case of a conflict: to be tried again on a later pass.
    #[inline]
    pub fn try_claim(&mut self, blocks: Range<u64>, mode: Mode) -> Option<Claim> {
        if self.alone() {
            return Some(Claim {
                first: 0,
                count: 0,
                mode,
            });
        }
        self.try_claim_among_others(blocks, mode)
    }

    /// As [`try_claim`](Self::try_claim), for a request that has met claims for long: while it
    /// meets one, nobody is granted another. For devices on which every request claims. To be
    /// called until it is granted, or [`relent`](Self::relent).
    pub fn insist(&mut self, blocks: Range<u64>, mode: Mode) -> Option<Claim> {
        let insisting = &self.claims.insisting;
        let first =
            insisting.compare_exchange(0, self.number, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_err_and(|other| other != self.number) {
            return None;
        }
        let claim = self.claims.try_claim(blocks, mode)?;
        self.relent();
        Some(claim)
    }

    /// Insists no longer.
    pub fn relent(&mut self) {
        let insisting = &self.claims.insisting;
        // Another's is left as it is.
        let _ = insisting.compare_exchange(self.number, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether another claimant may look at the blocks as soon as a claim is given back. One that
    /// opens after this said no makes this thread pass a barrier first.
    #[inline]
    pub fn has_company(&self) -> bool {
        self.claims.barrier.is_none() || self.claims.claimants.load(Ordering::Acquire) != 1
    }

    /// Gives a claim of this claimant back.
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "a claim is given back once")]
    pub fn release(&mut self, claim: Claim) {
        if claim.count == 0 {
            self.note_unclaimed(u32::wrapping_sub);
        } else {
            claim
                .indexes()
                .for_each(|index| claim.mode.release(&self.claims.stripes[index]));
        }
    }

    /// Whether there is no other claimant. If so, a request without a claim has been noted.
    #[inline]
    fn alone(&self) -> bool {
        if self.claims.barrier.is_none() {
            return false;
        }
        self.note_unclaimed(u32::wrapping_add);
        // The store above stays before the load below: one who opens makes this thread pass a
        // barrier between raising the count and reading the note (`Claims::claimant`), so that
        // either we see the count or it sees the note.
        compiler_fence(Ordering::SeqCst);
        // Acquire: what a claimant did that has closed since is done before what we do.
        let alone = self.claims.claimants.load(Ordering::Acquire) == 1;
        if !alone {
            self.note_unclaimed(u32::wrapping_sub);
        }
        alone
    }

    /// Release: the partner is the load in `try_claim_among_others`.
    #[inline]
    fn note_unclaimed(&self, change: fn(u32, u32) -> u32) {
        let unclaimed = &self.member.unclaimed;
        unclaimed.store(
            change(unclaimed.load(Ordering::Relaxed), 1),
            Ordering::Release,
        );
    }

    #[cold]
    fn try_claim_among_others(&mut self, blocks: Range<u64>, mode: Mode) -> Option<Claim> {
        // Who once was seen without an unclaimed request has none any more, as long as we are here.
        self.others
            .retain(|other| other.unclaimed.load(Ordering::Acquire) != 0);
        if !self.others.is_empty() || self.claims.insisting.load(Ordering::Relaxed) != 0 {
            return None;
        }
        self.claims.try_claim(blocks, mode)
    }
}

impl Drop for Claimant {
    fn drop(&mut self) {
        self.relent();
        // Release: the partner is the load in `alone`, of one who is alone again.
        self.claims.claimants.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
