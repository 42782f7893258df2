//! The real `bellwire` process, and the client crate that Cloud Hypervisor is built on. It carries
//! the same small NVMe host as our own client does in the daemon's tests.
#![allow(
    dead_code,
    reason = "the daemon's tests need more of what is shared with them"
)]

#[path = "../../../../reactor/tests/daemon/daemon.rs"]
mod daemon;
mod drive;
#[path = "../../../../reactor/tests/daemon/host.rs"]
mod host;
#[path = "../../../../reactor/tests/vm/process.rs"]
mod process;
#[path = "../../../../reactor/tests/daemon/stage.rs"]
mod stage;

use std::path::PathBuf;

/// The program under test, which has to be built before, into the folder that these tests are in.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a program");
    let program = test.with_file_name("../bellwire");
    assert!(
        program.exists(),
        "{} is missing: build it with `cargo build -p reactor`, and test with --target-dir target",
        program.display()
    );
    program
}
