//! The real `bellwire` process, over real sockets: what it refuses, what it says, how it stops,
//! and what clients of every kind can do to it and to each other.
//!
//! Clients are ours and, where it says so, the third-party crate that Cloud Hypervisor is built
//! on; both carry the same small NVMe host. A daemon polls a core, and there may be only two:
//! tests take turns.

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
mod third_party;
