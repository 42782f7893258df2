//! A non-blocking UNIX stream socket that carries descriptors (`SCM_RIGHTS`).

// The kernel hands over descriptors as plain numbers in a byte buffer; owning them is the one thing
// that safe code cannot do.
#![allow(unsafe_code)]

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, recvmsg, sendmsg};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Descriptors that Linux passes in one message at most (`SCM_MAX_FD`). With room for all of them
/// a message is cut short only where this process has no descriptor numbers left.
const FDS_IN_FLIGHT: usize = 253;

/// `struct cmsghdr` of Linux on 64-bit machines.
#[repr(C)]
#[derive(FromBytes, Immutable, KnownLayout)]
struct ControlHeader {
    len: usize,
    level: libc::c_int,
    kind: libc::c_int,
}

const CONTROL_HEADER: usize = size_of::<ControlHeader>();
const _: () = assert!(CONTROL_HEADER == size_of::<libc::cmsghdr>());

/// Where the kernel writes control messages, aligned as their headers are.
#[repr(C, align(8))]
struct Control([u8; CONTROL_HEADER + (FDS_IN_FLIGHT * size_of::<RawFd>()).next_multiple_of(8)]);

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes; 0 at the end of the stream.
    pub bytes: usize,
    /// Some descriptors are lost: this process can take no more.
    pub truncated: bool,
}

/// Reads into `buffer`, and appends the descriptors that came along, close-on-exec, to `fds`.
/// EAGAIN when nothing is there.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> Result<Received, Errno> {
    let mut control = Control([0; size_of::<Control>()]);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control.0), flags)?;
    let truncated = message.flags.contains(MsgFlags::MSG_CTRUNC);
    let received = Received {
        bytes: message.bytes,
        truncated,
    };
    // SAFETY: the buffer was zeroed before the call and only the kernel has written to it: each
    // number is a descriptor that this very call has opened for this process. Nobody else has seen
    // the buffer, and nix's own iterator, which gives plain numbers, was not asked.
    fds.extend(descriptors(&control.0).map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
    Ok(received)
}

/// Sends `bytes`, with `fds` going along with the first of them; returns how many bytes were taken.
/// EAGAIN when there is no room.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        control,
        flags,
        None,
    )
}

/// The numbers in the control messages that the kernel wrote over zeroes. nix would list them too,
/// but not when the list was cut short, and those that did arrive would stay open for ever.
fn descriptors(control: &[u8]) -> impl Iterator<Item = RawFd> {
    ControlMessages(control)
        .filter(|(header, _)| header.level == libc::SOL_SOCKET && header.kind == libc::SCM_RIGHTS)
        .flat_map(|(_, data)| data.chunks_exact(size_of::<RawFd>()))
        .filter_map(|number| RawFd::read_from_bytes(number).ok())
}

/// Control messages one after the other, up to the first that is not one.
struct ControlMessages<'a>(&'a [u8]);

impl<'a> Iterator for ControlMessages<'a> {
    type Item = (ControlHeader, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, _) = ControlHeader::read_from_prefix(self.0).ok()?;
        let data = self.0.get(CONTROL_HEADER..header.len)?;
        let next = header.len.checked_next_multiple_of(size_of::<usize>())?;
        self.0 = self.0.get(next..).unwrap_or_default();
        Some((header, data))
    }
}
