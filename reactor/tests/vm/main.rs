//! Real virtual machines on bellwire disks: QEMU with an unmodified Linux kernel, driven from here
//! command by command.
//!
//! Each test starts the daemon as a user would (`Target`), boots machines on it (`Machine`, `Vm`),
//! and ends with the guest's kernel log searched for complaints and a clean stop of both. QEMU and
//! the guest image are found where `scripts/test` puts them; without them every test fails, and
//! says so. The tests take turns, since a polling reactor and a machine fill two cores.
//!
//! With `BELLWIRE_LONG` set in the environment what is done under load is done many more times.

mod agent;
mod archive;
mod firmware;
mod machine;
mod nodes;
mod options;
mod process;
mod qmp;
mod reset;
mod stage;
mod storage;
mod target;
mod vm;

/// How often a test repeats what it does under load.
fn rounds() -> u32 {
    if std::env::var_os("BELLWIRE_LONG").is_some() {
        50
    } else {
        3
    }
}

/// A fio run of random writes over the whole of `file`, each read back and verified; `more` adds
/// to its arguments or overrides them.
fn fio_verify(file: &str, more: &str) -> String {
    format!(
        "fio --name=verify --filename={file} --ioengine=libaio --direct=1 --rw=randwrite --bs=4k \
         --iodepth=32 --size=16m --verify=crc32c --verify_fatal=1 --output-format=terse {more}"
    )
}

/// Writes `megabytes` of bytes that nothing else holds to the start of `file`, and remembers them
/// in the guest's memory as `sum`.
fn write_marked(file: &str, megabytes: u32) -> String {
    format!(
        "dd if=/dev/urandom of=/tmp/marked bs=1M count={megabytes} status=none && \
         dd if=/tmp/marked of={file} bs=1M oflag=direct conv=fsync,notrunc status=none && \
         sha256sum </tmp/marked"
    )
}

/// The digest of the first `megabytes` of `file`, read from the disk.
fn digest(file: &str, megabytes: u32) -> String {
    format!("dd if={file} bs=1M count={megabytes} iflag=direct status=none | sha256sum")
}
