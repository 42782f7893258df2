//! The `vfio_user` crate that Cloud Hypervisor is built on, as a client of our server.
//!
//! It never looks at error flags and waits for as many bytes as a success has, so each call that
//! returns shows that the reply had the right size.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::eventfd::EventFd;
use rust_vmm_vfio_user::Client;
use vfio_user::{
    Device, DmaMap, DmaRange, Errno, IrqAction, Outcome, RegionInfo, Reply, Server, ServerLimits,
    SetIrqs, SparseArea, irq, region,
};

/// A device of plain memory, whose doorbell page can be mapped; a write to register 0 signals
/// every bound vector, a write to register 8 takes a while, and a reset clears the registers.
struct Toy {
    registers: Vec<u8>,
    doorbells: File,
    vectors: Vec<Option<OwnedFd>>,
    maps: Vec<(DmaMap, Option<OwnedFd>)>,
    /// Where memory was mapped when the client left.
    mapped_at_end: Vec<u64>,
    passes_left: u32,
    clients: i32,
}

const DOORBELLS: SparseArea = SparseArea {
    offset: 0x1000,
    size: 0x1000,
};

impl Toy {
    fn new() -> Toy {
        let doorbells = tempfile::tempfile().expect("a file");
        doorbells.set_len(0x2000).expect("room");
        Toy {
            registers: vec![0; 0x4000],
            doorbells,
            vectors: (0..64).map(|_| None).collect(),
            maps: Vec::new(),
            mapped_at_end: Vec::new(),
            passes_left: 0,
            clients: 0,
        }
    }
}

impl Device for Toy {
    fn region_info(&self, region: u32) -> RegionInfo {
        match region {
            region::BAR0 => RegionInfo {
                mmap: vec![DOORBELLS],
                ..RegionInfo::plain(0x4000)
            },
            region::CONFIG => RegionInfo::plain(0x1000),
            _ => RegionInfo::absent(),
        }
    }

    fn region_fd(&self, region: u32) -> Option<BorrowedFd<'_>> {
        (region == region::BAR0).then(|| self.doorbells.as_fd())
    }

    fn irq_count(&self, index: u32) -> u32 {
        if index == irq::MSIX { 64 } else { 0 }
    }

    fn irq_flags(&self, _: u32) -> u32 {
        irq::EVENTFD
    }

    fn region_read(&mut self, _: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        data.copy_from_slice(&self.registers[offset as usize..][..data.len()]);
        Ok(())
    }

    fn region_write(&mut self, _: u32, offset: u64, data: &[u8]) -> Reply {
        self.registers[offset as usize..][..data.len()].copy_from_slice(data);
        match offset {
            0 => {
                for fd in self.vectors.iter().flatten() {
                    let signalled = nix::unistd::write(fd, &1_u64.to_ne_bytes());
                    assert_eq!(signalled, Ok(8));
                }
            }
            8 => {
                self.passes_left = 10;
                return Ok(Outcome::Pending);
            }
            _ => {}
        }
        Ok(Outcome::Done)
    }

    fn dma_map(&mut self, map: DmaMap, fd: Option<OwnedFd>) -> Reply {
        self.maps.push((map, fd));
        Ok(Outcome::Done)
    }

    fn dma_unmap(&mut self, range: DmaRange) -> Reply {
        self.maps.retain(|(map, _)| {
            range != DmaRange::All
                && range
                    != DmaRange::Exact {
                        iova: map.iova,
                        len: map.len,
                    }
        });
        Ok(Outcome::Done)
    }

    fn set_irqs(&mut self, irqs: SetIrqs) -> Reply {
        match irqs.action {
            IrqAction::Disable => self.vectors.iter_mut().for_each(|vector| *vector = None),
            IrqAction::Eventfds(fds) => {
                for (vector, fd) in self.vectors[irqs.start as usize..].iter_mut().zip(fds) {
                    *vector = fd;
                }
            }
            _ => return Err(Errno::ENOTSUP),
        }
        Ok(Outcome::Done)
    }

    fn reset(&mut self) -> Reply {
        self.registers.fill(0);
        Ok(Outcome::Done)
    }

    fn poll_pending(&mut self) -> Reply {
        self.passes_left -= 1;
        Ok(if self.passes_left == 0 {
            Outcome::Done
        } else {
            Outcome::Pending
        })
    }

    fn connected(&mut self) {
        self.clients += 1;
    }

    fn disconnected(&mut self) -> Outcome {
        self.mapped_at_end = self.maps.drain(..).map(|(map, _)| map.iova).collect();
        self.vectors.iter_mut().for_each(|vector| *vector = None);
        Outcome::Done
    }
}

struct Serving {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Toy>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Serving {
    fn new() -> Serving {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a socket");
        let mut server = Server::new(listener.into(), ServerLimits::default());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut device = Toy::new();
            while !stopped.load(Ordering::Relaxed) || server.is_serving() {
                if !server.poll(&mut device) {
                    thread::yield_now();
                }
            }
            device
        });
        Serving {
            stop,
            thread,
            path,
            _folder: folder,
        }
    }

    fn stop(self) -> Toy {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

#[test]
fn regions_are_found_and_accessed() {
    let serving = Serving::new();
    let mut client = Client::new(&serving.path).expect("a client");
    let bar = client.region(region::BAR0).expect("BAR0");
    assert_eq!((bar.size, bar.flags), (0x4000, 0xf));
    assert_eq!(bar.sparse_areas.len(), 1);
    assert_eq!(
        (bar.sparse_areas[0].offset, bar.sparse_areas[0].size),
        (0x1000, 0x1000)
    );
    let file = bar.file_offset.as_ref().expect("a descriptor");
    file.file()
        .write_all_at(&[7; 4], file.start() + 0x1000)
        .expect("a doorbell");
    let config = client.region(region::CONFIG).expect("configuration space");
    assert_eq!((config.size, config.flags), (0x1000, 3));
    assert!(config.file_offset.is_none());
    assert_eq!(client.region(region::ROM).map(|rom| rom.size), Some(0));
    assert!(
        !client.resettable(),
        "inverted in this crate: the flag is set"
    );

    client
        .region_write(region::BAR0, 0x10, &[1, 2, 3, 4])
        .expect("a write");
    client
        .region_write(region::BAR0, 8, &[1])
        .expect("a write that takes a while");
    let mut data = [0; 8];
    client
        .region_read(region::BAR0, 0xc, &mut data)
        .expect("a read");
    assert_eq!(data, [0, 0, 0, 0, 1, 2, 3, 4]);
    client.reset().expect("a reset");
    client
        .region_read(region::BAR0, 0xc, &mut data)
        .expect("a read");
    assert_eq!(data, [0; 8]);

    client.shutdown().expect("an end");
    let mut doorbell = [0; 4];
    let doorbells = serving.stop().doorbells;
    doorbells
        .read_exact_at(&mut doorbell, 0x1000)
        .expect("a doorbell");
    assert_eq!(doorbell, [7; 4]);
}

#[test]
fn memory_is_mapped_and_unmapped() {
    let serving = Serving::new();
    let mut client = Client::new(&serving.path).expect("a client");
    let mut memory = tempfile::tempfile().expect("a file");
    memory.write_all(b"guest memory").expect("room");
    for page in 0..3 {
        client
            .dma_map(page << 12, page << 20, 0x1000, memory.as_raw_fd())
            .expect("a map");
    }
    client.dma_unmap(1 << 20, 0x1000).expect("an unmap");
    let info = client.get_irq_info(irq::MSIX).expect("irq info");
    assert_eq!((info.count, info.flags), (64, irq::EVENTFD));

    client.shutdown().expect("an end");
    assert_eq!(serving.stop().mapped_at_end, [0, 2 << 20]);
}

#[test]
fn sixteen_vectors_at_a_time_are_bound_signalled_and_disabled() {
    let serving = Serving::new();
    let mut client = Client::new(&serving.path).expect("a client");
    let eventfds: Vec<EventFd> = (0..32)
        .map(|_| EventFd::new().expect("an eventfd"))
        .collect();
    let raw: Vec<i32> = eventfds
        .iter()
        .map(|eventfd| eventfd.as_fd().as_raw_fd())
        .collect();
    for start in [0, 16] {
        let fds = &raw[start..][..16];
        client
            .set_irqs(irq::MSIX, 0x24, start as u32, 16, fds)
            .expect("a binding");
    }
    client
        .region_write(region::BAR0, 0, &[1; 4])
        .expect("a write");
    for eventfd in &eventfds {
        assert_eq!(eventfd.read(), Ok(1));
    }
    client
        .set_irqs(irq::MSIX, 0x24, 0, 1, &[])
        .expect("one is unbound");
    client
        .region_write(region::BAR0, 0, &[1; 4])
        .expect("a write");
    assert!(eventfds[1..].iter().all(|eventfd| eventfd.read() == Ok(1)));
    client
        .set_irqs(irq::MSIX, 0x21, 0, 0, &[])
        .expect("all are disabled");
    client
        .region_write(region::BAR0, 0, &[1; 4])
        .expect("a write");
    for eventfd in eventfds {
        eventfd.write(1).expect("room");
        assert_eq!(eventfd.read(), Ok(1), "only our own signal is there");
    }
    client.shutdown().expect("an end");
    serving.stop();
}

#[test]
fn the_next_client_waits_for_its_turn() {
    let serving = Serving::new();
    let first = Client::new(&serving.path).expect("a client");
    let path = serving.path.clone();
    let second = thread::spawn(move || {
        let mut second = Client::new(&path).expect("a client");
        second.reset().expect("a reset");
    });
    first.shutdown().expect("an end");
    second.join().expect("no panic");
    assert_eq!(serving.stop().clients, 2);
}

#[test]
fn a_client_that_sends_nonsense_hears_an_error_and_the_end() {
    let serving = Serving::new();
    let mut stream = std::os::unix::net::UnixStream::connect(&serving.path).expect("a stream");
    let nonsense = [[0xff; 8], [0; 8], [0xff; 8]].concat();
    stream.write_all(&nonsense).expect("room");
    let mut reply = Vec::new();
    // What was sent beyond the header is lost, which Linux calls a reset.
    let _ = stream.read_to_end(&mut reply);
    assert_eq!(reply.len(), 16);
    assert_eq!(reply[8..], [0x21, 0, 0, 0, 22, 0, 0, 0]);
    Client::new(&serving.path)
        .expect("a client")
        .shutdown()
        .expect("an end");
    serving.stop();
}
