//! How much memory there is to be had: asked before a lot of it is taken.

use std::fs;
use std::path::{Path, PathBuf};

/// How many bytes this process could still take, by what the machine has available and by the
/// limits of the control groups (version 2) that it is in. None when nothing can be learned.
pub(super) fn bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| in_meminfo(&text));
    let groups = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| in_groups(&text));
    machine.into_iter().chain(groups).min()
}

/// `MemAvailable:   12345 kB`.
fn in_meminfo(text: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = value.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// What the tightest group leaves, from the process's own group up to the root.
fn in_groups(text: &str) -> Option<u64> {
    let group = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own: PathBuf = root.join(group);
    own.ancestors()
        .take_while(|path| path.starts_with(root))
        .filter_map(in_group)
        .min()
}

fn in_group(path: &Path) -> Option<u64> {
    let number = |name| {
        fs::read_to_string(path.join(name))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    // No limit is the word `max`, which is no number.
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_how_much_it_has() {
        let text = "MemTotal:       24113552 kB\nMemAvailable:   23613012 kB\nBuffers: 1 kB\n";
        assert_eq!(in_meminfo(text), Some(23_613_012 * 1024));
        assert_eq!(in_meminfo("MemTotal: 1 kB"), None);
        assert!(bytes().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn a_group_leaves_its_limit_less_what_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name, text| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(in_group(folder.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "5000\n");
        assert_eq!(in_group(folder.path()), None);
        write("memory.max", "8000\n");
        assert_eq!(in_group(folder.path()), Some(3000));
        write("memory.max", "4000\n");
        assert_eq!(in_group(folder.path()), Some(0));
    }
}
