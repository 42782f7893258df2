//! What one test plays on: a folder of its own, and its turn on the machine.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

/// A polling reactor fills one of two cores, and what tests it needs the other.
static TURN: Mutex<()> = Mutex::new(());

/// One test's own folder, and its turn. Make it first, so that it is dropped last.
pub(crate) struct Stage {
    dir: PathBuf,
    all: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    /// Waits for this test's turn.
    pub(crate) fn new() -> Stage {
        // A test that failed leaves nothing behind that could disturb this one.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let all = tempfile::Builder::new().prefix("bellwire-").tempdir();
        let all = all.expect("a temporary folder");
        let dir = all.path().join("dir");
        fs::create_dir(&dir).expect("a folder");
        Stage {
            dir,
            all,
            _turn: turn,
        }
    }

    /// The test's folder: gone when the test ends.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where programs leave what they print.
    pub(crate) fn logs(&self) -> &Path {
        self.all.path()
    }

    /// A file in the test's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// `text`, in which `DIR` stands for the folder.
    pub(crate) fn expand(&self, text: &str) -> String {
        let dir = self.dir().to_str().expect("a folder with a plain name");
        text.replace("DIR", dir)
    }

    /// A command line in words.
    pub(crate) fn words(&self, arguments: &str) -> Vec<String> {
        let words = arguments.split_whitespace();
        words.map(|word| self.expand(word)).collect()
    }

    /// What there is in the folder: names, kinds, permissions, owners, and data of files.
    pub(crate) fn snapshot(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir()).expect("a folder");
        let entry = |entry: fs::DirEntry| {
            let metadata = entry.path().symlink_metadata().expect("an entry");
            let mut hasher = DefaultHasher::new();
            if metadata.is_file() {
                fs::read(entry.path()).expect("data").hash(&mut hasher);
            }
            format!(
                "{:?} {:o} inode {} group {} data {:x}",
                entry.file_name(),
                metadata.mode(),
                metadata.ino(),
                metadata.gid(),
                hasher.finish()
            )
        };
        let mut all: Vec<String> = entries
            .map(|found| entry(found.expect("an entry")))
            .collect();
        all.sort();
        all
    }
}
