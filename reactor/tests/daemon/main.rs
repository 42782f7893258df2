//! The real `bellwire` process, over real sockets: what it refuses, what it says, how it stops,
//! and what clients of every kind can do to it and to each other.
//!
//! The client is ours. That of others, which Cloud Hypervisor is built on, carries the same small
//! NVMe host in `vfio_user/third_party`. A daemon polls a core, and there may be only two: tests
//! take turns.

mod clients;
mod command_line;
mod daemon;
mod host;
mod identity;
mod life;
mod memory;
#[path = "../vm/process.rs"]
mod process;
mod resets;
mod stage;

use std::path::PathBuf;

/// The program under test.
fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_bellwire").into()
}
