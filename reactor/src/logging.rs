//! Logs on stderr that a reactor never waits for: lines go into a bounded queue, which a thread of
//! its own empties. Lines that find it full are counted and said.

use std::io::{self, Write};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use tracing_subscriber::fmt::MakeWriter;

/// Most lines that wait.
const LINES_MAX: usize = 4096;
/// How long lines wait at most. A look for some that is in vain wakes a core for nothing.
const INTERVAL: Duration = Duration::from_millis(50);
/// Lines written per second at most; what guests and peers can cause must not fill a disk.
const LINES_PER_SECOND: u64 = 200;

/// The queue of lines.
#[derive(Clone)]
pub struct Logs(Arc<Queue>);

struct Queue {
    lines: ArrayQueue<Vec<u8>>,
    dropped: AtomicU64,
}

/// Queues every event up to `level`.
pub fn start(level: tracing::Level) -> Logs {
    let logs = Logs(Arc::new(Queue {
        lines: ArrayQueue::new(LINES_MAX),
        dropped: 0.into(),
    }));
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .with_writer(logs.clone())
        .init();
    // A panic ends the process, and these lines say why.
    let (last, hook) = (logs.clone(), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        last.drain();
        hook(info);
    }));
    logs
}

impl Logs {
    /// Starts the thread that writes.
    pub fn write_from_now_on(&self) {
        let writer = self.clone();
        // Without the thread lines come out when the process ends: better than no daemon.
        let _ = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.write_for_ever());
    }

    fn write_for_ever(&self) {
        let (mut second, mut written) = (Instant::now(), 0);
        loop {
            std::thread::sleep(INTERVAL);
            if second.elapsed() >= Duration::from_secs(1) {
                (second, written) = (Instant::now(), 0);
            }
            written += self.write(LINES_PER_SECOND.saturating_sub(written));
        }
    }

    /// Writes everything that waits.
    pub fn drain(&self) {
        self.write(u64::MAX);
    }

    fn write(&self, most: u64) -> u64 {
        let mut stderr = io::stderr().lock();
        let mut written = 0;
        while written < most {
            let Some(line) = self.0.lines.pop() else {
                break;
            };
            // Nobody is left to be told that stderr is gone.
            let _ = stderr.write_all(&line);
            written += 1;
        }
        let dropped = self.0.dropped.swap(0, Relaxed);
        if dropped != 0 {
            let _ = writeln!(stderr, "bellwire: {dropped} log lines dropped");
        }
        written
    }
}

impl MakeWriter<'_> for Logs {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line {
            bytes: Vec::new(),
            logs: self.clone(),
        }
    }
}

/// A line in the making; it goes into the queue when it is dropped.
pub struct Line {
    bytes: Vec<u8>,
    logs: Logs,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.bytes);
        if !line.is_empty() && self.logs.0.lines.push(line).is_err() {
            self.logs.0.dropped.fetch_add(1, Relaxed);
        }
    }
}
