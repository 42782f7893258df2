//! What was taken of cores while something was measured on them, as /proc tells.
//!
//! A thread that polls wants its core all the time. How long it had it, and how long it waited
//! while others had it, is in its schedstat; what a hypervisor took of the core itself is the
//! `steal` of /proc/stat, in ticks of 10 ms. Where the kernel counts neither, or threads cannot be
//! seen, nothing is taken to be lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::cores::Core;

/// How much of the time between two readings a thread has to have or want a core, that what it
/// waited counts: those which rest are late and nobody waits for them.
const BUSY: f64 = 0.5;

/// How long a thread had a core in its life, and how long it waited for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CoreTime {
    ran: Duration,
    pub(crate) waited: Duration,
}

impl CoreTime {
    pub(crate) fn of_this_thread() -> CoreTime {
        CoreTime::of(Path::new("/proc/thread-self")).unwrap_or_default()
    }

    fn of(task: &Path) -> Option<CoreTime> {
        CoreTime::read(&fs::read_to_string(task.join("schedstat")).ok()?)
    }

    /// The first two numbers of a schedstat, in nanoseconds.
    fn read(text: &str) -> Option<CoreTime> {
        let mut numbers = text.split_whitespace().map(str::parse);
        let mut next = || Some(Duration::from_nanos(numbers.next()?.ok()?));
        Some(CoreTime {
            ran: next()?,
            waited: next()?,
        })
    }
}

/// All threads of some processes, and all cores, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    at: Instant,
    threads: BTreeMap<i32, Thread>,
    /// By core, in ticks.
    stolen: BTreeMap<usize, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Thread {
    time: CoreTime,
    /// Where it was last.
    core: Option<usize>,
}

/// What was taken between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Lost {
    /// The share of the time that a busy thread waited, the most of all.
    pub(crate) waited: f64,
    /// Whether a hypervisor took any of the cores.
    pub(crate) stolen: bool,
}

impl Reading {
    pub(crate) fn of(processes: &[Pid]) -> Reading {
        let folders = processes.iter().map(|pid| format!("/proc/{pid}/task"));
        let tasks = folders.filter_map(|folder| fs::read_dir(folder).ok());
        let thread = |task: fs::DirEntry| {
            let thread = Thread {
                time: CoreTime::of(&task.path())?,
                core: last_core(&task.path()),
            };
            Some((task.file_name().to_str()?.parse().ok()?, thread))
        };
        Reading {
            threads: tasks.flatten().flatten().filter_map(thread).collect(),
            stolen: stolen(&fs::read_to_string("/proc/stat").unwrap_or_default()),
            at: Instant::now(),
        }
    }

    /// What was taken of `cores`, and of the threads that are in both readings.
    pub(crate) fn lost_since(&self, before: &Reading, cores: &[Core]) -> Lost {
        let elapsed = self.at.duration_since(before.at).as_secs_f64();
        let mut cores: Vec<usize> = cores.iter().map(|core| core.0).collect();
        let mut waited_most: f64 = 0.0;
        for (id, now) in &self.threads {
            let Some(then) = before.threads.get(id) else {
                continue;
            };
            let waited = now.time.waited.saturating_sub(then.time.waited);
            let wanted = now.time.ran.saturating_sub(then.time.ran) + waited;
            if wanted.as_secs_f64() > BUSY * elapsed {
                waited_most = waited_most.max(waited.as_secs_f64() / elapsed);
                cores.extend(now.core);
            }
        }
        let stolen = |core: &usize| self.stolen.get(core) > before.stolen.get(core);
        Lost {
            waited: waited_most,
            stolen: cores.iter().any(stolen),
        }
    }
}

/// Field 39 of proc_pid_stat(5), counted behind the name, which may hold anything.
fn last_core(task: &Path) -> Option<usize> {
    let text = fs::read_to_string(task.join("stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    fields.split_whitespace().nth(39 - 3)?.parse().ok()
}

/// The steal of each core in /proc/stat: the eighth number of its line.
fn stolen(text: &str) -> BTreeMap<usize, u64> {
    let core = |line: &str| {
        let mut words = line.strip_prefix("cpu")?.split(' ');
        let core = words.next()?.parse().ok()?;
        Some((core, words.nth(7)?.parse().ok()?))
    };
    text.lines().filter_map(core).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reading so many milliseconds after `at`, of threads that have had a core and have waited
    /// for as many, and of two cores.
    fn reading(at: Instant, elapsed: u64, threads: &[(u64, u64)], stolen: [u64; 2]) -> Reading {
        let millis = Duration::from_millis;
        let thread = |(id, (ran, waited)): (usize, &(u64, u64))| {
            let time = CoreTime {
                ran: millis(*ran),
                waited: millis(*waited),
            };
            let core = Some(1);
            (id as i32, Thread { time, core })
        };
        Reading {
            at: at + millis(elapsed),
            threads: threads.iter().enumerate().map(thread).collect(),
            stolen: stolen.into_iter().enumerate().collect(),
        }
    }

    fn lost(threads: &[(u64, u64)], stolen: [u64; 2], cores: &[Core]) -> Lost {
        let at = Instant::now();
        let before = reading(at, 0, &[(7000, 500); 4], [3, 5]);
        let moved: Vec<_> = threads.iter().map(|(r, w)| (7000 + r, 500 + w)).collect();
        let stolen = [3 + stolen[0], 5 + stolen[1]];
        reading(at, 1000, &moved, stolen).lost_since(&before, cores)
    }

    #[test]
    fn what_a_busy_thread_waits_is_lost_and_what_a_resting_one_waits_is_not() {
        let waited = |threads: &[(u64, u64)]| lost(threads, [0, 0], &[]).waited;
        assert_eq!(waited(&[]), 0.0);
        assert_eq!(waited(&[(950, 50)]), 0.05);
        assert_eq!(waited(&[(10, 300), (0, 0)]), 0.0);
        assert_eq!(waited(&[(990, 10), (400, 400), (100, 399)]), 0.4);
        // A thread that was not there before is no measure.
        assert_eq!(waited(&[(1000, 0), (0, 0), (0, 0), (0, 0), (0, 900)]), 0.0);
    }

    #[test]
    fn steal_counts_on_cores_that_are_in_use() {
        let stolen = |threads, stolen, cores| lost(threads, stolen, cores).stolen;
        assert!(!stolen(&[(999, 0)], [0, 0], &[Core(0)]));
        assert!(stolen(&[], [1, 0], &[Core(0)]));
        assert!(!stolen(&[], [0, 1], &[Core(0)]));
        assert!(stolen(&[(999, 0)], [0, 1], &[Core(0)]));
        assert!(!stolen(&[(9, 0)], [0, 1], &[Core(0)]));
    }

    #[test]
    fn numbers_are_found_where_proc_has_them() {
        let time = CoreTime::read("1000 20 3\n").expect("numbers");
        let nanos = [time.ran, time.waited].map(|time| time.as_nanos());
        assert_eq!(nanos, [1000, 20]);
        assert_eq!(CoreTime::read(""), None);
        let text = "cpu  1 2 3 4 5 6 7 99 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n\
                    cpu11 1 2 3 4 5 6 7 80 9 10\nintr 5 6 7 8 9 10 11 12\n";
        let expected = BTreeMap::from([(0, 8), (11, 80)]);
        assert_eq!(stolen(text), expected);
    }

    #[test]
    fn a_thread_of_this_process_that_shares_its_core_is_seen_to_wait() {
        let core = crate::cores::Cores::inherited().expect("cores").of_job(0);
        let spin = || {
            core.pin().expect("pinned");
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(500) {
                std::hint::spin_loop();
            }
        };
        let lost = std::thread::scope(|scope| {
            scope.spawn(spin);
            scope.spawn(spin);
            std::thread::sleep(Duration::from_millis(100));
            let before = Reading::of(&[Pid::this()]);
            assert!(
                before
                    .threads
                    .values()
                    .any(|thread| thread.core == Some(core.0))
            );
            std::thread::sleep(Duration::from_millis(200));
            Reading::of(&[Pid::this()]).lost_since(&before, &[])
        });
        // Half of the time each, if nobody else is there.
        assert!(lost.waited > 0.25, "{lost:?}");
    }
}
