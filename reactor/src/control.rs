//! The control thread: everything that can block, outside the cores that poll.

mod far_memory;

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bdev::Bdev;
use bdev::memory::{Backings, MemoryPolicy};

pub use self::far_memory::FarMemory;
use crate::closer::Closers;
use crate::listener::BoundSocket;
use crate::message::{OpenMemory, Post, ReactorId, ToControl, ToReactor};
use crate::signal::Stop;

/// How long it sleeps when nobody wakes it.
const NAP: Duration = Duration::from_millis(100);
/// How often guest memory that nobody uses any more is unmapped.
const COLLECT_INTERVAL: Duration = Duration::from_secs(1);
/// How often it looks then where guest memory is: a look takes less than a millisecond, and clients
/// wait for this thread.
const LOOKS_MAX: usize = 16;
/// How long controllers may take to come to rest when the daemon stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What the control thread looks after.
pub struct Control {
    pub post: Post,
    pub threads: Vec<JoinHandle<()>>,
    pub sockets: Vec<BoundSocket>,
    pub bdevs: Vec<Arc<dyn Bdev>>,
    /// For each controller the memory of its clients, on machines where that can be far.
    pub far_memory: Vec<FarMemory>,
    /// For each controller the files of its client: what one client gives, and the limits that
    /// it reaches, are nothing to another.
    backings: Vec<Backings>,
    /// To the threads that close what clients gave.
    closers: Closers,
    collected: Instant,
    stopped: usize,
}

impl Control {
    /// A control thread of running reactors.
    pub fn new(post: Post, policy: MemoryPolicy) -> Control {
        Control {
            closers: Closers::new(post.places.len()),
            threads: Vec::new(),
            sockets: Vec::new(),
            bdevs: Vec::new(),
            far_memory: Vec::new(),
            backings: post.places.iter().map(|_| Backings::new(policy)).collect(),
            post,
            collected: Instant::now(),
            stopped: 0,
        }
    }

    /// Waits until every reactor polls.
    ///
    /// # Errors
    /// One cannot.
    pub fn wait_until_running(&self) -> anyhow::Result<()> {
        let mut running = HashSet::new();
        while running.len() < self.post.reactors.len() {
            match self.post.control.receive() {
                Some(ToControl::Running(reactor)) => {
                    running.insert(reactor);
                }
                Some(ToControl::Failed(ReactorId(n), error)) => {
                    return Err(error.context(format!("reactor {n} cannot start")));
                }
                Some(_) => {}
                None if self.threads.iter().any(JoinHandle::is_finished) => {
                    bail!("a reactor ended before it began");
                }
                None => std::thread::park_timeout(NAP),
            }
        }
        Ok(())
    }

    /// Serves the reactors until somebody asks for a stop.
    ///
    /// # Errors
    /// A reactor ended by itself.
    pub fn serve(&mut self, stop: &Stop) -> anyhow::Result<()> {
        while !stop.is_asked() {
            self.receive();
            if self.threads.iter().any(JoinHandle::is_finished) {
                bail!("a reactor ended by itself");
            }
            std::thread::park_timeout(NAP);
        }
        Ok(())
    }

    fn receive(&mut self) {
        while let Some(message) = self.post.control.receive() {
            match message {
                ToControl::Open(open) => self.open(open),
                ToControl::Close(controller, unwanted) => self.closers.close(controller, unwanted),
                ToControl::Stopped => self.stopped += 1,
                ToControl::Running(_) | ToControl::Failed(..) => {}
            }
        }
        if self.collected.elapsed() >= COLLECT_INTERVAL {
            self.backings.iter_mut().for_each(Backings::collect);
            self.collected = Instant::now();
            self.look_for_far_memory();
        }
    }

    fn look_for_far_memory(&mut self) {
        let mut looks = 0;
        for (memory, backings) in self.far_memory.iter_mut().zip(&self.backings) {
            looks += usize::from(memory.look(backings, self.collected));
            if looks == LOOKS_MAX {
                return;
            }
        }
    }

    fn open(&mut self, open: OpenMemory) {
        let OpenMemory {
            controller,
            request,
            file,
            needed_end,
            writable,
        } = open;
        let result = self.backings[controller.0].open(file.fd(), needed_end, writable);
        self.closers.close(controller, file);
        let home = self.post.places[controller.0].home;
        let mut message = ToReactor::Opened(controller, request, result);
        // A reactor empties its inbox on every pass.
        while let Err(back) = self.post.to_reactor(home, message) {
            message = back;
            std::thread::yield_now();
        }
    }

    /// The clean stop: controllers come to rest, disks are flushed, sockets go, reactors end.
    ///
    /// # Errors
    /// Something that was acknowledged may not be where it was promised to be.
    pub fn stop(mut self) -> anyhow::Result<()> {
        tracing::info!("stopping");
        self.tell_reactors(|| ToReactor::Stop);
        let controllers = self.post.places.len();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.stopped < controllers && Instant::now() < deadline {
            self.receive();
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let late = controllers - self.stopped;
        self.sockets.clear();
        self.tell_reactors(|| ToReactor::Exit);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let mut synced = Ok(());
        for bdev in &self.bdevs {
            let done = bdev.sync().with_context(|| format!("bdev {}", bdev.name()));
            synced = synced.and(done);
        }
        synced?;
        if late != 0 {
            bail!(
                "{late} controllers did not come to rest in {} s",
                STOP_TIMEOUT.as_secs()
            );
        }
        tracing::info!("stopped");
        Ok(())
    }

    fn tell_reactors(&self, message: impl Fn() -> ToReactor) {
        for inbox in &self.post.reactors {
            let mut message = message();
            while let Err(back) = inbox.send(message) {
                message = back;
                std::thread::yield_now();
            }
        }
    }
}
