//! The files that a host tells about itself in, below a root folder.

use std::path::{Path, PathBuf};

use crate::cpu::CoreMask;

/// A root folder: `/`, or a test's.
pub struct Host(PathBuf);

impl Host {
    pub fn new(root: &Path) -> Host {
        Host(root.to_owned())
    }

    /// A file's text without the white space around it, if it can be read.
    pub fn text(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path(path)).ok()?;
        Some(text.trim().to_owned())
    }

    pub fn number(&self, path: &str) -> Option<i64> {
        self.text(path)?.parse().ok()
    }

    /// A list of cores such as `0-3,8`; the inner `None` is an empty list.
    pub fn list(&self, path: &str) -> Option<Option<CoreMask>> {
        let text = self.text(path)?;
        if text.is_empty() || text == "(null)" {
            return Some(None);
        }
        format!("[{text}]").parse().ok().map(Some)
    }

    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Names in a folder, sorted; none if it cannot be read.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}
