//! Bytes and descriptors to whole messages, and replies back to bytes and descriptors.
//!
//! A stream socket keeps neither the borders of messages nor, towards the reader, the byte that a
//! descriptor was sent with: one read may return the end of one message and the start of the next,
//! with descriptors of either. An [`Assembler`] therefore never offers room beyond the end of the
//! message it is reading: first the header, then exactly the rest. What arrives with such a read
//! belongs to that message, however the sender cut or joined its messages.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

use crate::protocol::{HEADER_SIZE, Header, HeaderFlags};
use crate::socket::Received;

/// Descriptors that one message may carry; QEMU takes no server that wants more.
pub const FDS_PER_MESSAGE: usize = 16;
/// Bytes asked for in one read: what memory a message claims before it has arrived.
pub const READ_MAX: usize = 16 << 10;
/// Bytes of buffer kept between messages; what a longer one needed is given back.
const BUFFER_KEPT: usize = 64 << 10;
/// Bytes of replies that may wait for the client before no more commands are read.
pub const OUTBOX_BYTES: usize = 64 << 10;
/// Descriptors that may wait in the same way.
pub const OUTBOX_FDS: usize = 8;

/// A message whose size cannot be: the stream has no next message to go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSize(pub Header);

/// A whole message.
#[derive(Debug)]
pub struct Message<'a> {
    /// Its header; the size is that of the message.
    pub header: Header,
    /// What follows the header.
    pub body: &'a [u8],
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
    /// Why descriptors of this message are missing, if so: E2BIG when it had too many, EMFILE when
    /// this process could take no more.
    pub fds_lost: Option<Errno>,
}

/// Puts one message after the other together.
#[derive(Debug)]
pub struct Assembler {
    buffer: Vec<u8>,
    filled: usize,
    size_max: usize,
    fds: Vec<OwnedFd>,
    fds_lost: Option<Errno>,
}

impl Assembler {
    /// Takes messages of up to `size_max` bytes, header included.
    pub fn new(size_max: usize) -> Assembler {
        Assembler {
            buffer: Vec::new(),
            filled: 0,
            size_max,
            fds: Vec::new(),
            fds_lost: None,
        }
    }

    /// Where the next bytes go; never empty, and never beyond the end of the current message.
    pub fn space(&mut self) -> &mut [u8] {
        let end = self.expected().min(self.filled + READ_MAX);
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        &mut self.buffer[self.filled..end]
    }

    /// Takes note of what was `received` into [`space`](Self::space), and of the `fds` that came
    /// along. Those left in `fds` are too many: the caller closes them. Returns the message if it
    /// is whole.
    pub fn advance(
        &mut self,
        received: Received,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<Option<Message<'_>>, BadSize> {
        self.keep(fds, received.truncated);
        let had_header = self.filled >= HEADER_SIZE;
        self.filled = self.expected().min(self.filled + received.bytes);
        let Some(header) = self.header() else {
            return Ok(None);
        };
        let size = header.size as usize;
        if !had_header && !(HEADER_SIZE..=self.size_max).contains(&size) {
            self.filled = 0;
            return Err(BadSize(header));
        }
        if self.filled < size {
            return Ok(None);
        }
        self.filled = 0;
        Ok(Some(Message {
            header,
            body: &self.buffer[HEADER_SIZE..size],
            fds: mem::take(&mut self.fds),
            fds_lost: self.fds_lost.take(),
        }))
    }

    /// Gives back what a long message needed; called between messages.
    pub fn shrink(&mut self) {
        if self.filled == 0 && self.buffer.len() > BUFFER_KEPT {
            self.buffer.truncate(BUFFER_KEPT);
            self.buffer.shrink_to_fit();
        }
    }

    /// Whether bytes of an incomplete message are here.
    pub fn is_midway(&self) -> bool {
        self.filled > 0
    }

    /// The descriptors of a message that will never be whole.
    pub fn into_fds(self) -> Vec<OwnedFd> {
        self.fds
    }

    fn keep(&mut self, fds: &mut Vec<OwnedFd>, truncated: bool) {
        if truncated {
            self.fds_lost = Some(Errno::EMFILE);
        } else if self.fds.len() + fds.len() > FDS_PER_MESSAGE {
            self.fds_lost = Some(Errno::E2BIG);
        }
        if self.fds_lost.is_none() {
            self.fds.append(fds);
        }
    }

    fn header(&self) -> Option<Header> {
        let bytes = self.buffer.get(..self.filled)?;
        Header::read_from_prefix(bytes)
            .ok()
            .map(|(header, _)| header)
    }

    fn expected(&self) -> usize {
        self.header()
            .map_or(HEADER_SIZE, |header| header.size as usize)
    }
}

/// Replies on their way to the client, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// Each with the position in `bytes` of the message it goes with.
    fds: VecDeque<(usize, OwnedFd)>,
}

impl Outbox {
    /// Whether so much is waiting that no more commands should be read.
    pub fn is_full(&self) -> bool {
        self.bytes.len() - self.sent >= OUTBOX_BYTES || self.fds.len() >= OUTBOX_FDS
    }

    /// Whether all has been sent.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What to send next, in one call: bytes, and the descriptor that goes with the first of them.
    pub fn front(&self) -> (&[u8], Option<BorrowedFd<'_>>) {
        let mut fds = self.fds.iter().map(|(position, fd)| (*position, fd));
        let first = fds.next();
        let (fd, border) = match first {
            Some((position, fd)) if position == self.sent => (Some(fd.as_fd()), fds.next()),
            _ => (None, first),
        };
        let end = border.map_or(self.bytes.len(), |(position, _)| position);
        (&self.bytes[self.sent..end], fd)
    }

    /// Takes note that `bytes`, not 0, of [`front`](Self::front) were sent, and its descriptor.
    pub fn advance(&mut self, bytes: usize) {
        if self
            .fds
            .front()
            .is_some_and(|(position, _)| *position == self.sent)
        {
            self.fds.pop_front();
        }
        self.sent = self.bytes.len().min(self.sent + bytes);
        if self.sent == self.bytes.len() || self.sent >= OUTBOX_BYTES {
            self.forget_sent();
        }
    }

    /// Begins the reply to `command`.
    pub(crate) fn begin(&mut self, command: Header) -> Draft<'_> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER_SIZE]);
        Draft {
            outbox: self,
            command,
            start,
            fd: None,
        }
    }

    /// Appends a whole reply that was taken out with [`Draft::hold`].
    pub(crate) fn append(&mut self, held: &[u8]) {
        self.bytes.extend_from_slice(held);
    }

    /// Moves what is unsent to the front, so that a slow reader's queue never grows with its past.
    fn forget_sent(&mut self) {
        self.bytes.drain(..self.sent);
        self.bytes.shrink_to(OUTBOX_BYTES);
        for (position, _) in &mut self.fds {
            *position -= self.sent;
        }
        self.sent = 0;
    }
}

/// A reply being written: a payload after room for its header. One that is neither sent nor held
/// leaves nothing behind but must not be dropped half way.
#[must_use]
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    outbox: &'a mut Outbox,
    command: Header,
    start: usize,
    fd: Option<OwnedFd>,
}

impl Draft<'_> {
    /// Appends to the payload.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.outbox.bytes.extend_from_slice(bytes);
    }

    /// Appends zeroes to the payload, for the caller to fill.
    pub(crate) fn room(&mut self, len: usize) -> &mut [u8] {
        let start = self.outbox.bytes.len();
        self.outbox.bytes.resize(start + len, 0);
        &mut self.outbox.bytes[start..]
    }

    /// Sends a descriptor along.
    pub(crate) fn attach(&mut self, fd: OwnedFd) {
        self.fd = Some(fd);
    }

    /// Ends it as a success.
    pub(crate) fn send(mut self) {
        if self.command.flags.no_reply() {
            self.outbox.bytes.truncate(self.start);
            return;
        }
        self.seal(HeaderFlags::REPLY, 0);
        if let Some(fd) = self.fd.take() {
            self.outbox.fds.push_back((self.start, fd));
        }
    }

    /// Ends it as an error: a bare header.
    pub(crate) fn fail(mut self, errno: Errno) {
        self.outbox.bytes.truncate(self.start);
        if !self.command.flags.no_reply() {
            self.outbox.bytes.extend_from_slice(&[0; HEADER_SIZE]);
            self.seal(HeaderFlags::ERROR_REPLY, errno as u32);
        }
    }

    /// Takes the reply out, as a success, to be sent later; empty where none is wanted.
    pub(crate) fn hold(mut self) -> Vec<u8> {
        if !self.command.flags.no_reply() {
            self.seal(HeaderFlags::REPLY, 0);
            return self.outbox.bytes.split_off(self.start);
        }
        self.outbox.bytes.truncate(self.start);
        Vec::new()
    }

    fn seal(&mut self, flags: HeaderFlags, error: u32) {
        let size = (self.outbox.bytes.len() - self.start) as u32;
        let header = Header {
            size,
            flags,
            error,
            ..self.command
        };
        self.outbox.bytes[self.start..][..HEADER_SIZE].copy_from_slice(header.as_bytes());
    }
}
