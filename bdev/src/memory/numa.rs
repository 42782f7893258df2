//! On which nodes (NUMA) of the machine memory is to be, and on which it is.
//!
//! A node is preferred and never a condition. Memory bound to a node that has no room is not given
//! at all: the kernel kills a process to make some. So a mapping asks for its nodes, takes what
//! comes, and a sample of its pages tells what came.
#![allow(unsafe_code)] // System calls about ranges of our own.

use std::collections::BTreeMap;
use std::fmt;
use std::ptr;

use nix::errno::Errno;

use super::map::Map;
use super::{MapError, PAGE_BYTES};

/// Highest number of a node plus one: no kernel is built for more.
pub const NODES_MAX: u32 = 1024;
const WORDS: usize = (NODES_MAX / u64::BITS) as usize;

/// How many pages a sample has: some of those that a guest's commands use are hit when they are a
/// hundredth of its memory, and all are asked for in less than a millisecond.
const SAMPLE_PAGES: usize = 4096;
/// How many of them one call asks for.
const PAGES_PER_CALL: usize = 256;

/// As in `linux/mempolicy.h`: what is there already moves, too.
const MPOL_MF_MOVE: libc::c_uint = 1 << 1;

/// Nodes by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nodes([u64; WORDS]);

impl Nodes {
    /// Whether this one is among them.
    #[must_use]
    pub fn contains(&self, node: u32) -> bool {
        let word = self.0.get((node / u64::BITS) as usize).copied();
        word.unwrap_or(0) >> (node % u64::BITS) & 1 != 0
    }

    /// Their numbers, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..NODES_MAX).filter(|&node| self.contains(node))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there are none: as a wish, that any will do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// No kernel has those from [`NODES_MAX`] on; they are left out.
impl FromIterator<u32> for Nodes {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Nodes {
        let mut nodes = Nodes::default();
        for node in numbers {
            if let Some(word) = nodes.0.get_mut((node / u64::BITS) as usize) {
                *word |= 1 << (node % u64::BITS);
            }
        }
        nodes
    }
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.iter().map(|node| node.to_string()).collect();
        f.write_str(&numbers.join(","))
    }
}

/// What came of asking for nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// None were asked for.
    Anywhere,
    /// The pages are there, as far as the kernel tells.
    AsAsked,
    /// Some are on other nodes, which had room.
    Elsewhere {
        /// So many of 100 pages.
        percent: usize,
    },
    /// The kernel has no such node for us, or does not let us choose.
    Refused(MapError),
}

impl Placement {
    /// That of a mapping with all of its pages, of which [`prefer`] said `asked`.
    pub(super) fn of(map: &Map, nodes: &Nodes, asked: Result<(), MapError>) -> Placement {
        match asked {
            _ if nodes.is_empty() => Placement::Anywhere,
            Err(refused) => Placement::Refused(refused),
            Ok(()) => Placement::judge(&PagesByNode::sample(&[map]), nodes),
        }
    }

    fn judge(pages: &PagesByNode, nodes: &Nodes) -> Placement {
        match pages.outside(nodes) * 100 / pages.count().max(1) {
            0 => Placement::AsAsked,
            percent => Placement::Elsewhere { percent },
        }
    }
}

/// Has the pages of a mapping come from these nodes as long as they have room: from one, or from
/// several in turns. Pages that are there move, if no other process has them. Of a file it is the
/// file that learns this, so that it holds whichever process touches a page first.
pub(super) fn prefer(map: &Map, nodes: &Nodes) -> Result<(), MapError> {
    let mode = match nodes.len() {
        0 => return Ok(()),
        1 => libc::MPOL_PREFERRED,
        _ => libc::MPOL_INTERLEAVE,
    };
    // The kernel takes the last bit to be one past the end.
    let bits = u64::from(NODES_MAX) + 1;
    // SAFETY: the range is ours, and stays as it is wherever its pages are; the mask has as many
    // bits as the kernel reads.
    let answer = unsafe {
        let (address, mask) = (map.address().as_ptr(), nodes.0.as_ptr());
        libc::syscall(
            libc::SYS_mbind,
            address,
            map.len(),
            libc::c_long::from(mode),
            mask,
            bits,
            MPOL_MF_MOVE,
        )
    };
    Errno::result(answer)
        .map(drop)
        .map_err(MapError::os("choose the node of memory"))
}

/// Whether whoever started this process has chosen nodes for its memory, as `numactl` does.
#[must_use]
pub fn is_chosen_by_starter() -> bool {
    let mut mode = libc::MPOL_DEFAULT;
    let (mask, bits, address, flags) =
        (ptr::null_mut::<u64>(), 0_u64, ptr::null_mut::<u8>(), 0_u64);
    // SAFETY: the mode is the only thing that is written.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut mode,
            mask,
            bits,
            address,
            flags,
        )
    };
    answer == 0 && mode != libc::MPOL_DEFAULT
}

/// How many pages of a sample are on which node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PagesByNode(BTreeMap<u32, usize>);

impl PagesByNode {
    /// Samples the pages of these mappings that this process has touched. Others are not looked
    /// at, since a page of a guest's that is not there must not come to be by our asking.
    pub(super) fn sample(maps: &[&Map]) -> PagesByNode {
        let total: usize = maps.iter().map(|map| map.len() / PAGE_BYTES).sum();
        let mut pages = PagesByNode::default();
        let mut some = Vec::with_capacity(PAGES_PER_CALL);
        for map in maps {
            let all = map.len() / PAGE_BYTES;
            let share = (SAMPLE_PAGES * all).div_ceil(total.max(1)).min(all);
            for index in 0..share {
                let page = if share == all {
                    index
                } else {
                    spread(index, all)
                };
                let offset = PAGE_BYTES * page;
                some.push(map.address().as_ptr().wrapping_add(offset));
                if some.len() == PAGES_PER_CALL {
                    pages.add(&some);
                    some.clear();
                }
            }
        }
        pages.add(&some);
        pages
    }

    /// Asks for the nodes of some pages.
    fn add(&mut self, addresses: &[*mut u8]) {
        let (mut answers, keep) = ([-1; PAGES_PER_CALL], ptr::null::<libc::c_int>());
        let count = addresses.len().min(PAGES_PER_CALL);
        // SAFETY: without nodes to move to, the call reads `count` addresses, whatever they are,
        // and writes as many answers.
        let answer = unsafe {
            let (addresses, answers) = (addresses.as_ptr(), answers.as_mut_ptr());
            libc::syscall(libc::SYS_move_pages, 0, count, addresses, keep, answers, 0)
        };
        if answer == 0 {
            // Below zero is the reason why there is none.
            let nodes = answers[..count]
                .iter()
                .flat_map(|&node| u32::try_from(node));
            nodes.for_each(|node| *self.0.entry(node).or_default() += 1);
        }
    }

    /// How many pages there are in all.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.values().sum()
    }

    /// How many are on none of these nodes.
    #[must_use]
    pub fn outside(&self, nodes: &Nodes) -> usize {
        let outside = self.0.iter().filter(|(node, _)| !nodes.contains(**node));
        outside.map(|(_, pages)| pages).sum()
    }

    /// The node that has the most.
    #[must_use]
    pub fn most(&self) -> Option<u32> {
        let most = self.0.iter().max_by_key(|(_, pages)| **pages);
        most.map(|(node, _)| *node)
    }
}

/// Pages and their nodes, as a sample would have found them.
impl FromIterator<(u32, usize)> for PagesByNode {
    fn from_iter<I: IntoIterator<Item = (u32, usize)>>(pages: I) -> PagesByNode {
        PagesByNode(pages.into_iter().collect())
    }
}

/// The page of a sample of `all`: evenly, and in no step that memory laid over nodes in turns could
/// be in step with.
fn spread(index: usize, all: usize) -> usize {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let fraction = GOLDEN.wrapping_mul(index as u64);
    (u128::from(fraction) * all as u128 >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::PageKind;

    const PAGES: usize = 64;

    fn nodes(numbers: &[u32]) -> Nodes {
        numbers.iter().copied().collect()
    }

    fn map() -> Map {
        Map::anonymous(PAGES * PAGE_BYTES, PageKind::Normal).unwrap()
    }

    /// What the kernel says of the mapping at this address.
    fn policy(map: &Map) -> String {
        let maps = std::fs::read_to_string("/proc/self/numa_maps").unwrap();
        let address = format!("{:x} ", map.address().as_ptr().addr());
        let line = maps.lines().find_map(|line| line.strip_prefix(&address));
        line.unwrap().split(' ').next().unwrap().to_owned()
    }

    #[test]
    fn nodes_are_a_set_of_small_numbers() {
        let some = nodes(&[64, 0, 1023, 1024, 64, u32::MAX]);
        assert_eq!((some.to_string(), some.len()), ("0,64,1023".to_owned(), 3));
        assert!(some.contains(64) && !some.contains(63) && !some.contains(1024));
        assert!(nodes(&[]).is_empty() && nodes(&[]) == Nodes::default());
    }

    #[test]
    fn the_kernel_knows_what_was_asked_for() {
        let map = map();
        prefer(&map, &nodes(&[])).unwrap();
        assert_eq!(policy(&map), "default");
        prefer(&map, &nodes(&[0])).unwrap();
        assert_eq!(policy(&map), "prefer:0");
        // Of nodes that are not there the kernel takes those that are.
        prefer(&map, &nodes(&[0, 63])).unwrap();
        assert_eq!(policy(&map), "interleave:0");
        let refused = prefer(&map, &nodes(&[63])).unwrap_err();
        assert!(
            matches!(
                refused,
                MapError::Os {
                    errno: Errno::EINVAL,
                    ..
                }
            ),
            "{refused}"
        );
    }

    #[test]
    fn a_policy_that_came_with_the_process_is_noticed() {
        let choose = |mode: libc::c_int, nodes: &Nodes| {
            let bits = u64::from(NODES_MAX) + 1;
            // SAFETY: it only says where this thread's next pages come from.
            let answer =
                unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.0.as_ptr(), bits) };
            assert_eq!(answer, 0);
            is_chosen_by_starter()
        };
        // A policy is a thread's own.
        let chosen = std::thread::spawn(move || {
            [
                choose(libc::MPOL_DEFAULT, &nodes(&[])),
                choose(libc::MPOL_PREFERRED, &nodes(&[0])),
                choose(libc::MPOL_BIND, &nodes(&[0])),
            ]
        });
        assert_eq!(chosen.join().unwrap(), [false, true, true]);
    }

    #[test]
    fn only_pages_that_were_touched_are_in_a_sample() {
        let map = map();
        assert_eq!(PagesByNode::sample(&[&map]).count(), 0);
        map.advise(nix::sys::mman::MmapAdvise::MADV_POPULATE_WRITE)
            .unwrap();
        let pages = PagesByNode::sample(&[&map, &self::map()]);
        assert_eq!(pages.count(), PAGES);
        let most = pages.most().unwrap();
        assert_eq!(
            pages.outside(&nodes(&[most + 1])),
            pages.count() - pages.outside(&nodes(&[most]))
        );
    }

    #[test]
    fn a_sample_reaches_all_of_a_mapping_and_both_of_two_nodes_in_turns() {
        for all in [1, 2, 1000, 1 << 24, (1 << 24) + 1] {
            let share = all.min(SAMPLE_PAGES);
            let pages: Vec<usize> = (0..share).map(|index| spread(index, all)).collect();
            assert!(pages.iter().all(|&page| page < all));
            for eighth in 0..8 {
                let range = eighth * all / 8..(eighth + 1) * all / 8;
                let within = pages.iter().filter(|page| range.contains(page)).count();
                assert!(
                    within >= share / 9,
                    "{within} of {share} in {range:?} of {all}"
                );
            }
            for turns in [2, 3, 512] {
                let first = pages.iter().filter(|&&page| page % turns == 0).count();
                assert!(
                    share < SAMPLE_PAGES || first < share / turns * 3 / 2,
                    "{all}: {first}"
                );
            }
        }
    }

    #[test]
    fn memory_is_elsewhere_from_one_in_a_hundred_pages_on() {
        let judge = |pages: &[(u32, usize)]| {
            Placement::judge(&pages.iter().copied().collect(), &nodes(&[1, 2]))
        };
        assert_eq!(judge(&[]), Placement::AsAsked);
        assert_eq!(judge(&[(1, 500), (2, 490), (0, 9)]), Placement::AsAsked);
        assert_eq!(
            judge(&[(1, 60), (0, 40)]),
            Placement::Elsewhere { percent: 40 }
        );
        assert_eq!(judge(&[(0, 1)]), Placement::Elsewhere { percent: 100 });
    }
}
