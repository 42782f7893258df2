//! Files that appear whole, or not at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::Error;

/// Writes files into a folder, which is made if it is not there. Each is written under another name
/// first, and only when all are written do they get their own: until then, what was there stays.
pub(super) fn write(folder: &Path, files: &[(String, String)]) -> Result<(), Error> {
    let failed = |file: &Path| {
        let file = file.to_owned();
        move |source| Error::Write { file, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let mut partial = Partial(Vec::new());
    for (name, text) in files {
        let path = folder.join(format!(".{name}.partial"));
        partial.0.push(path.clone());
        fs::write(&path, text).map_err(failed(&path))?;
    }
    for (path, (name, _)) in partial.0.iter().zip(files) {
        let own = folder.join(name);
        fs::rename(path, &own).map_err(failed(&own))?;
    }
    Ok(())
}

/// Files that have no name of their own yet. They are gone when this is.
struct Partial(Vec<PathBuf>);

impl Drop for Partial {
    fn drop(&mut self) {
        for path in &self.0 {
            // One that was named is gone already; nothing can be done about another.
            let _: io::Result<()> = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn file(name: &str, text: &str) -> (String, String) {
        (name.to_owned(), text.to_owned())
    }

    #[test]
    fn folders_are_made_and_files_overwritten() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("a/b");
        write(&folder, &[file("x", "1"), file("y", "2")]).expect("written");
        write(&folder, &[file("x", "3")]).expect("written");
        assert_eq!(names(&folder), ["x", "y"]);
        assert_eq!(fs::read_to_string(folder.join("x")).expect("a file"), "3");
    }

    #[test]
    fn a_failure_leaves_what_was_there_and_nothing_else() {
        let root = tempfile::tempdir().expect("a folder");
        write(root.path(), &[file("x", "old")]).expect("written");
        // No file can be written where a folder is.
        fs::create_dir(root.path().join(".y.partial")).expect("a folder");
        let error = write(root.path(), &[file("x", "new"), file("y", "new")]).expect_err("refused");
        assert!(
            error.to_string().contains(".y.partial: cannot be written"),
            "{error}"
        );
        assert_eq!(names(root.path()), [".y.partial", "x"]);
        assert_eq!(
            fs::read_to_string(root.path().join("x")).expect("a file"),
            "old"
        );
    }
}
