//! Cores: masks, pinning, and locks that keep two processes from polling on one core.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::config::error::{ConfigError, config_error};

/// Highest core number plus one.
const CORES_MAX: usize = 1024;
/// Where core locks are; every user may make files there.
const LOCK_FOLDER: &str = "/var/tmp";

/// A set of cores, not empty.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CoreMask(BTreeSet<usize>);

impl CoreMask {
    /// One core.
    pub fn of(core: usize) -> CoreMask {
        CoreMask(BTreeSet::from([core]))
    }

    /// The cores in rising order.
    pub fn cores(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// Cores of this mask that are not in `other`.
    pub fn outside<'a>(&'a self, other: &'a CoreMask) -> impl Iterator<Item = usize> + 'a {
        self.0.difference(&other.0).copied()
    }
}

impl FromStr for CoreMask {
    type Err = ConfigError;

    /// `0x5`, `[0-3,8]` or `0-3,8`. A bare number could mean a mask or a core and is refused.
    fn from_str(text: &str) -> Result<CoreMask, ConfigError> {
        if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            return from_hex(text, digits);
        }
        let inner = text.strip_prefix('[').map(|rest| rest.strip_suffix(']'));
        let list = match inner {
            Some(Some(list)) => list,
            Some(None) => return Err(config_error!("{text:?} has no closing bracket")),
            None if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => {
                let hint = text.parse::<u64>().unwrap_or(0);
                return Err(config_error!(
                    "{text:?} may mean a mask or a core: write 0x{hint:x} or [{hint}]"
                ));
            }
            None => text,
        };
        let mut cores = BTreeSet::new();
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (core_number(text, first)?, core_number(text, last)?);
            if first > last {
                return Err(config_error!("{text:?}: {part:?} goes downwards"));
            }
            cores.extend(first..=last);
        }
        Ok(CoreMask(cores))
    }
}

fn core_number(text: &str, number: &str) -> Result<usize, ConfigError> {
    // Digits only: `parse` would take a sign.
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let core = digits.then(|| number.parse().ok()).flatten();
    core.filter(|core| *core < CORES_MAX).ok_or_else(|| {
        config_error!(
            "{text:?}: {number:?} is not a core from 0 to {}",
            CORES_MAX - 1
        )
    })
}

fn from_hex(text: &str, digits: &str) -> Result<CoreMask, ConfigError> {
    let mut cores = BTreeSet::new();
    for (position, digit) in digits.chars().rev().enumerate() {
        let Some(value) = digit.to_digit(16) else {
            return Err(config_error!(
                "{text:?}: {digit:?} is not a hexadecimal digit"
            ));
        };
        cores.extend(
            (0..4)
                .filter(|bit| value >> bit & 1 != 0)
                .map(|bit| 4 * position + bit),
        );
    }
    match cores.last() {
        None => Err(config_error!("{text:?} names no core")),
        Some(&core) if core >= CORES_MAX => Err(config_error!("{text:?}: there is no core {core}")),
        Some(_) => Ok(CoreMask(cores)),
    }
}

impl fmt::Display for CoreMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores: Vec<String> = self.cores().map(|core| core.to_string()).collect();
        write!(f, "[{}]", cores.join(","))
    }
}

impl TryFrom<String> for CoreMask {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<CoreMask, ConfigError> {
        text.parse()
    }
}

impl From<CoreMask> for String {
    fn from(mask: CoreMask) -> String {
        mask.to_string()
    }
}

/// Cores that this process may run on.
pub fn allowed() -> anyhow::Result<CoreMask> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("cannot read the allowed cores")?;
    let cores = (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false));
    Ok(CoreMask(cores.collect()))
}

/// The cores that poll: those of `asked`, or the last allowed one.
///
/// # Errors
/// A core that this process may not run on.
pub fn choose(asked: Option<&CoreMask>) -> anyhow::Result<CoreMask> {
    let allowed = allowed()?;
    let Some(mask) = asked else {
        let last = allowed
            .cores()
            .last()
            .context("this process may run on no core")?;
        tracing::info!(core = last, "no -m: the last allowed core polls");
        return Ok(CoreMask::of(last));
    };
    if let Some(core) = mask.outside(&allowed).next() {
        bail!("core {core} of -m {mask} does not exist or is not allowed; allowed are {allowed}");
    }
    Ok(mask.clone())
}

/// Pins the calling thread to one core.
///
/// # Errors
/// The kernel refuses.
pub fn pin(core: usize) -> anyhow::Result<()> {
    match core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        true => Ok(()),
        false => bail!("cannot pin a thread to core {core}"),
    }
}

/// Keeps the calling thread, and threads it will start, off the cores that poll, if others are
/// allowed.
pub fn stay_off(polling: &CoreMask) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    let allowed = allowed()?;
    let mut others = allowed.outside(polling).peekable();
    if others.peek().is_none() {
        return Ok(());
    }
    for core in others {
        set.set(core).with_context(|| format!("core {core}"))?;
    }
    nix::sched::sched_setaffinity(Pid::from_raw(0), &set).context("cannot leave the polling cores")
}

/// Holds the right to poll on some cores until it is dropped, or the process ends however it does.
#[derive(Debug)]
pub struct CoreLocks(#[allow(dead_code, reason = "held, not read")] Vec<Flock<File>>);

impl CoreLocks {
    /// Locks every core of the mask.
    ///
    /// # Errors
    /// A core on which another process polls, and which process that is.
    pub fn take(mask: &CoreMask) -> anyhow::Result<CoreLocks> {
        mask.cores()
            .map(lock)
            .collect::<anyhow::Result<Vec<_>>>()
            .map(CoreLocks)
    }
}

fn lock(core: usize) -> anyhow::Result<Flock<File>> {
    let path = PathBuf::from(format!("{LOCK_FOLDER}/bellwire-core-{core}.lock"));
    let file = open_lock(&path).with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut locked) => {
            // Who holds it is for people; the lock does not depend on it.
            let _ = locked.set_len(0);
            let _ = writeln!(*locked, "{}", std::process::id());
            Ok(locked)
        }
        Err((mut file, _)) => {
            let mut owner = String::new();
            let _ = file.rewind();
            let _ = file.read_to_string(&mut owner);
            bail!(
                "core {core} is polled by process {} already (--disable-cpumask-locks overrides)",
                owner.trim()
            )
        }
    }
}

/// A lock file may be another user's: it is opened as it is, and made only if it is not there
/// (fs.protected_regular forbids O_CREAT on a stranger's file).
fn open_lock(path: &PathBuf) -> std::io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let mut open = OpenOptions::new();
    open.read(true).write(true).custom_flags(flags);
    match open.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let file = open.create(true).open(path)?;
            // Past the umask, so that the next user can lock it too.
            let _ = file.set_permissions(std::fs::Permissions::from_mode(0o666));
            Ok(file)
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Masks, and their cores or "refused": the benchmark's tests read the same table.
    const MASKS: &str = include_str!("../../docs/masks.txt");

    #[test]
    fn masks_are_read_or_refused_as_the_table_says() {
        let cases = MASKS.lines().filter_map(|line| line.split_once(" => "));
        let mut seen = 0;
        for (text, expected) in cases {
            let mask = text.trim_matches('"').parse::<CoreMask>();
            let cores = mask.map_or(vec!["refused".to_owned()], |mask| {
                mask.cores().map(|core| core.to_string()).collect()
            });
            assert_eq!(cores.join(" "), expected, "{text}");
            seen += 1;
        }
        assert!(seen > 40, "only {seen} cases");
    }

    #[test]
    fn a_bare_number_is_refused_with_what_it_may_mean() {
        let error = "8".parse::<CoreMask>().unwrap_err();
        assert!(error.0.contains("write 0x8 or [8]"), "{error}");
    }

    #[test]
    fn a_core_that_is_not_allowed_is_named() {
        let error = choose(Some(&CoreMask::of(1000))).unwrap_err().to_string();
        assert!(error.contains("core 1000"), "{error}");
    }

    #[test]
    fn a_second_lock_of_a_core_names_the_holder() {
        // A core no machine that builds this has, so that daemons are not disturbed.
        let mask = CoreMask::of(1023);
        let held = CoreLocks::take(&mask).unwrap();
        let error = CoreLocks::take(&mask).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(held);
        CoreLocks::take(&mask).unwrap();
    }
}
