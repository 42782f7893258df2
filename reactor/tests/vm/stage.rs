//! What one test plays on: a folder of its own, its turn on the machine, and the test bed.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{env, fs};

use tempfile::TempDir;

/// A polling reactor and a virtual machine fill two cores: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

/// One test's own folder, and its turn. Make it first, so that it is dropped last.
pub(crate) struct Stage {
    dir: TempDir,
    testbed: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    /// Waits for this test's turn.
    pub(crate) fn new() -> Stage {
        // A test that failed leaves nothing behind that could disturb this one.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let testbed = testbed();
        assert!(
            testbed.join("accel").exists(),
            "no QEMU and guest image in {}: run ./scripts/test, which puts them there",
            testbed.display()
        );
        let dir = tempfile::Builder::new().prefix("bellwire-vm-").tempdir();
        Stage {
            dir: dir.expect("a temporary folder"),
            testbed,
            _turn: turn,
        }
    }

    /// The test's folder: gone when the test ends.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file of the test bed, which the set-up made; a path that is whole stays what it is.
    pub(crate) fn testbed(&self, file: impl AsRef<Path>) -> PathBuf {
        self.testbed.join(file)
    }

    /// Whether virtual machines run on KVM: only if this very boot of the host was seen to do it.
    pub(crate) fn has_kvm(&self) -> bool {
        let tried = fs::read_to_string(self.testbed("accel")).unwrap_or_default();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        tried.split_whitespace().eq([boot.trim(), "kvm"])
    }
}

/// Where the set-up scripts leave QEMU and the guest image.
fn testbed() -> PathBuf {
    let from = |variable| env::var_os(variable).map(PathBuf::from);
    let in_home = || from("HOME").map(|home| home.join(".cache"));
    from("BELLWIRE_TESTBED")
        .or_else(|| from("BELLWIRE_CACHE").map(|cache| cache.join("testbed")))
        .or_else(|| {
            Some(
                from("XDG_CACHE_HOME")
                    .or_else(in_home)?
                    .join("bellwire/testbed"),
            )
        })
        .expect("HOME is set")
}
