//! The rules of the house that a compiler does not know: who may name whom, where `unsafe` may
//! be, how long files and lines may get, and that nothing runs on an async runtime.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Crates of the workspace, and those of them that each may depend on.
const ARROWS: [(&str, &[&str]); 5] = [
    ("bdev", &[]),
    ("vfio_user", &[]),
    ("nvme", &["bdev"]),
    ("reactor", &["bdev", "nvme", "vfio_user"]),
    ("bench", &["bdev", "nvme", "vfio_user"]),
];

/// Where `unsafe` may be, and is: files, or folders with everything in them.
const UNSAFE: [&str; 4] = [
    "bdev/src/memory/",
    "bdev/src/uring.rs",
    "bench/src/limits/kernel.rs",
    "vfio_user/src/socket.rs",
];

const FILE_LINES_MAX: usize = 500;
const LINE_CHARS_MAX: usize = 100;
/// Async runtimes, by the name of their crate.
const RUNTIMES: [&str; 3] = ["tokio", "async-std", "smol"];

/// A Rust file of the project, by its path from the root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Everything before the tests.
    fn code(&self) -> &str {
        self.text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or("")
    }

    fn is_test(&self) -> bool {
        let part = |name: &str| self.path.split('/').any(|part| part == name);
        part("tests") || part("tests.rs") || part("fuzz") || part("benches")
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for (name, _) in ARROWS {
        collect(&root().join(name), &mut sources);
    }
    assert!(sources.len() > 50, "found only {} files", sources.len());
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().display().to_string();
            sources.push(Source { path, text });
        }
    }
}

/// Names in one section of a manifest.
fn dependencies(manifest: &str, section: &str) -> BTreeSet<String> {
    let lines = manifest
        .lines()
        .skip_while(|line| line.trim() != section)
        .skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let name = |line: &str| Some(line.split(['=', '.', ' ']).next()?.to_owned());
    lines
        .filter_map(name)
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn crates_name_only_crates_below_them() {
    for (name, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let found = dependencies(&manifest, "[dependencies]");
        assert!(!found.is_empty(), "{name}: no dependencies were found");
        for (other, _) in ARROWS {
            let named = found.contains(other);
            assert!(
                !named || allowed.contains(&other),
                "{name} may not depend on {other}"
            );
        }
    }
}

#[test]
fn the_bench_knows_the_specification_and_not_the_controller() {
    let allowed = ["nvme::spec", "bdev::memory", "bdev::size", "vfio_user::"];
    // What a command costs in a poll group is measured in one.
    let micro = |path: &str| path == "bench/src/micro.rs" || path.starts_with("bench/src/micro/");
    let bench = sources().into_iter();
    let bench =
        bench.filter(|source| source.path.starts_with("bench/src/") && !micro(&source.path));
    for source in bench.filter(|source| !source.is_test()) {
        for line in source
            .code()
            .lines()
            .filter(|line| line.trim().starts_with("use "))
        {
            let ours = ["use nvme::", "use bdev::", "use vfio_user::"];
            let named = ours.iter().any(|prefix| line.trim().starts_with(prefix));
            let fine = allowed.iter().any(|path| line.contains(path));
            assert!(!named || fine, "{}: {line}", source.path);
        }
    }
}

#[test]
fn admin_commands_are_judged_without_a_controller() {
    let admin = sources().into_iter();
    let admin = admin.filter(|source| source.path.starts_with("nvme/src/admin/"));
    let mut uses = 0;
    for source in admin {
        for line in source.text.lines().map(str::trim) {
            let named = line.starts_with("use ") && line.contains("controller");
            assert!(!named, "{}: {line}", source.path);
            uses += usize::from(line.starts_with("use "));
        }
    }
    assert!(uses > 10, "only {uses} lines were looked at");
}

#[test]
fn unsafe_is_where_the_architecture_says_and_says_why() {
    let architecture = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let mut unused = BTreeSet::from(UNSAFE);
    for source in sources() {
        let Some(line) = source.text.lines().find(|line| is_unsafe(line)) else {
            continue;
        };
        let place = UNSAFE.iter().find(|place| source.path.starts_with(*place));
        let place = place.unwrap_or_else(|| panic!("{}: {line}", source.path));
        assert!(architecture.contains(place), "{place} is not documented");
        let says_why = source.text.contains("SAFETY");
        assert!(says_why, "{}: unsafe without a reason", source.path);
        unused.remove(place);
    }
    assert!(unused.is_empty(), "nothing unsafe is in {unused:?}");
}

/// Whether the line has the keyword, outside strings and comments.
fn is_unsafe(line: &str) -> bool {
    let outside_strings: String = line.split('"').step_by(2).collect();
    let code = outside_strings.split("//").next().unwrap_or("");
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|word| word == "unsafe")
}

#[test]
fn the_controller_is_free_of_unsafe_code() {
    let lib = fs::read_to_string(root().join("nvme/src/lib.rs")).unwrap();
    assert!(lib.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn files_and_lines_stay_short() {
    let mut complaints = Vec::new();
    for source in sources() {
        let lines = source.code().lines().count();
        let exempt = source.is_test() || source.path.starts_with("nvme/src/spec/");
        if !exempt && lines > FILE_LINES_MAX {
            complaints.push(format!("{}: {lines} lines", source.path));
        }
        let too_long = |line: &&str| line.chars().count() > LINE_CHARS_MAX;
        for line in source.text.lines().filter(too_long) {
            complaints.push(format!("{}: too long: {line}", source.path));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn no_async_runtime_is_in_the_tree() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"bdev\""));
    for runtime in RUNTIMES {
        assert!(
            !lock.contains(&format!("name = \"{runtime}\"")),
            "{runtime}"
        );
    }
}
