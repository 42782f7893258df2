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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        UnixStream::pair().expect("a socket pair")
    }

    #[test]
    fn descriptors_come_with_the_bytes_they_were_sent_with_and_are_ours_alone() {
        let (near, far) = pair();
        let (mut reader, mut writer) = pair();
        let fds = [writer.as_fd(), far.as_fd()];
        assert_eq!(send(near.as_fd(), b"abc", &fds), Ok(3));
        assert_eq!(send(near.as_fd(), b"de", &[]), Ok(2));

        let mut got = Vec::new();
        let mut buffer = [0; 2];
        let received = receive(far.as_fd(), &mut buffer, &mut got);
        assert_eq!(
            received,
            Ok(Received {
                bytes: 2,
                truncated: false
            })
        );
        assert_eq!((&buffer, got.len()), (b"ab", 2));
        for fd in &got {
            let flags = fcntl(fd, FcntlArg::F_GETFD).expect("an open descriptor");
            assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
        }
        assert!(receive(far.as_fd(), &mut buffer, &mut got).is_ok_and(|r| r.bytes == 2));
        assert_eq!((&buffer, got.len()), (b"cd", 2));

        writer.write_all(b"x").expect("room");
        drop(writer);
        File::from(got.remove(0)).write_all(b"y").expect("room");
        let mut text = String::new();
        reader
            .read_to_string(&mut text)
            .expect("both ends are closed");
        assert_eq!(text, "xy");
    }

    #[test]
    fn as_many_descriptors_as_linux_sends_arrive() {
        let (near, far) = pair();
        let fds = vec![far.as_fd(); FDS_IN_FLIGHT];
        assert_eq!(send(near.as_fd(), b"a", &fds), Ok(1));
        let mut got = Vec::new();
        let received = receive(far.as_fd(), &mut [0; 9], &mut got);
        assert_eq!(
            received,
            Ok(Received {
                bytes: 1,
                truncated: false
            })
        );
        assert_eq!(got.len(), FDS_IN_FLIGHT);
    }

    #[test]
    fn nothing_waits() {
        let (near, far) = pair();
        let mut buffer = [0; 4096];
        assert_eq!(
            receive(far.as_fd(), &mut buffer, &mut Vec::new()),
            Err(Errno::EAGAIN)
        );
        let full = (0..100_000).find_map(|_| send(near.as_fd(), &buffer, &[]).err());
        assert_eq!(full, Some(Errno::EAGAIN));
        drop(far);
        assert_eq!(send(near.as_fd(), &buffer, &[]), Err(Errno::EPIPE));
    }

    #[test]
    fn control_messages_end_where_they_make_no_sense() {
        let message = |len: usize, kind: i32, fds: &[i32]| {
            let mut bytes = len.to_ne_bytes().to_vec();
            bytes.extend(libc::SOL_SOCKET.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(fds.iter().flat_map(|fd| fd.to_ne_bytes()));
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes
        };
        let list = |parts: &[Vec<u8>]| descriptors(&parts.concat()).collect::<Vec<RawFd>>();
        let rights = message(28, libc::SCM_RIGHTS, &[5, 6, 7]);
        let other = message(20, libc::SCM_CREDENTIALS, &[9]);
        let zeroes = vec![0; 64];
        assert_eq!(list(&[rights.clone(), zeroes.clone()]), [5, 6, 7]);
        assert_eq!(list(&[other, rights.clone()]), [5, 6, 7]);
        assert!(list(&[zeroes, rights.clone()]).is_empty());
        assert!(list(&[message(16, libc::SCM_RIGHTS, &[])]).is_empty());
        for len in [0, 15, 1000, usize::MAX] {
            assert!(list(&[message(len, libc::SCM_RIGHTS, &[5]), rights.clone()]).is_empty());
        }
    }
}
