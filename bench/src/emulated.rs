//! An NVMe controller behind a vfio-user socket that does wrong whatever a test asks for.
//!
//! It shares nothing with the driver but the bit layouts: it walks PRP lists and rings by itself.

mod commands;
mod controller;
mod device;

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nvme::spec::{NvmOpcode, Status};
use vfio_user::{Server, ServerLimits};

use self::controller::Controller;

const PAGE: u64 = 4096;
pub(crate) const BLOCK: u64 = 512;
pub(crate) const UUID: [u8; 16] = [0xab; 16];

/// What the controller is like.
#[derive(Clone, Copy)]
pub(crate) struct Model {
    pub(crate) blocks: u64,
    pub(crate) entries: u16,
    pub(crate) mdts: u8,
    pub(crate) dstrd: u8,
    pub(crate) queues: u16,
    pub(crate) doorbells_mapped: bool,
    /// Completions of a burst come in reverse.
    pub(crate) reversed: bool,
    pub(crate) ready: bool,
    pub(crate) volatile_cache: bool,
}

impl Model {
    pub(crate) const PLAIN: Model = Model {
        blocks: 8192,
        entries: 64,
        mdts: 5,
        dstrd: 0,
        queues: 8,
        doorbells_mapped: true,
        reversed: false,
        ready: true,
        volatile_cache: true,
    };
}

/// What becomes of an I/O command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Right,
    /// It succeeds and nothing is moved.
    Lose,
    /// It is done at another address.
    At(u64),
    /// Only so many bytes are moved.
    Cut(usize),
    /// This byte of the data is changed.
    Flip(usize),
    Fail(Status),
    /// It completes under another identifier.
    As(u16),
    /// It never completes.
    Forget,
    /// The connection is closed.
    Hang,
}

/// An I/O command as a test sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) opcode: NvmOpcode,
    pub(crate) lba: u64,
    pub(crate) blocks: u64,
    /// How many I/O commands came before.
    pub(crate) before: u64,
}

type Fault = Box<dyn FnMut(Seen) -> Effect + Send>;

/// A controller that runs until it is dropped.
pub(crate) struct Target {
    folder: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub(crate) disk: Arc<Mutex<Vec<u8>>>,
}

impl Target {
    pub(crate) fn new(model: Model) -> Target {
        Target::with_fault(model, |_| Effect::Right)
    }

    pub(crate) fn with_fault(
        model: Model,
        fault: impl FnMut(Seen) -> Effect + Send + 'static,
    ) -> Target {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("cntrl")).expect("a socket");
        listener.set_nonblocking(true).expect("a setting");
        let stop = Arc::new(AtomicBool::new(false));
        let disk = Arc::new(Mutex::new(vec![0; (model.blocks * BLOCK) as usize]));
        let (ends, data, fault) = (Arc::clone(&stop), Arc::clone(&disk), Box::new(fault));
        let thread =
            thread::spawn(move || serve(listener, &ends, Controller::new(model, data, fault)));
        Target {
            folder,
            stop,
            thread: Some(thread),
            disk,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("cntrl")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the controller panicked");
        }
    }
}

fn serve(listener: UnixListener, stop: &AtomicBool, mut controller: Controller) {
    let mut server = Server::new(listener.into(), ServerLimits::default());
    while !stop.load(Ordering::Relaxed) && !controller.hung {
        let busy = controller.poll();
        if !server.poll(&mut controller) && !busy {
            thread::sleep(Duration::from_micros(20));
        }
    }
}
