//! What keeps a workload from beginning.

use std::io;
use std::path::PathBuf;

use nvme::spec::Nsid;

use crate::cores::CoresError;
use crate::driver::DriverError;

/// Why a workload was not begun, or a target not examined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error(transparent)]
    Cores(#[from] CoresError),
    #[error("{0}")]
    Options(&'static str),
    #[error("{}: {error}", .target.display())]
    At { target: PathBuf, error: Box<Error> },
    #[error("the target {} is named twice", .0.display())]
    TargetTwice(PathBuf),
    #[error(
        "{} and {} are one namespace: each would take what the other writes for damage",
        .one.display(), .other.display()
    )]
    OneNamespace { one: PathBuf, other: PathBuf },
    #[error("the controller has no namespace")]
    NoNamespace,
    #[error("the controller has no namespace {}: it has {}", .nsid.0, names(.namespaces))]
    UnknownNamespace { nsid: Nsid, namespaces: Vec<Nsid> },
    #[error("the namespace has {bytes} bytes of metadata with each block, which is not supported")]
    Metadata { bytes: u16 },
    #[error("the namespace has blocks of 2^{shift} bytes, which is not supported")]
    BlockSize { shift: u8 },
    #[error(
        "--bs {bytes} is not a multiple of the namespace's block size of {block}, or too large"
    )]
    CommandSize { bytes: u64, block: u64 },
    #[error("--bs {bytes} is more than the controller moves with one command, {limit}")]
    CommandTooLarge { bytes: u64, limit: u64 },
    #[error("--iodepth {depth} is more than the controller's queues hold, {limit}")]
    TooDeep { depth: u16, limit: u32 },
    #[error("--size {bytes} is more than the namespace has, {available}")]
    BeyondNamespace { bytes: u64, available: u64 },
    #[error("{bytes} bytes are too few: each job needs {command} at least")]
    TooSmall { bytes: u64, command: u64 },
    #[error("{bytes} bytes are too few: each zone has to hold {command} in the part of each queue")]
    ZoneTooSmall { bytes: u64, command: u64 },
    #[error("writes to {bytes} bytes cannot be verified with this --bs: the limit is {limit}")]
    TooLargeToVerify { bytes: u64, limit: u64 },
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error("cannot write to the standard output: {0}")]
    Output(#[from] io::Error),
}

fn names(namespaces: &[Nsid]) -> String {
    let names: Vec<String> = namespaces.iter().map(|nsid| nsid.0.to_string()).collect();
    names.join(", ")
}
