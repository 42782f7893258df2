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
        if self.filled == 0 && self.buffer.len() > BUFFER_KEPT {
            self.buffer.truncate(BUFFER_KEPT);
            self.buffer.shrink_to_fit();
        }
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

    /// Bytes of the current message that are here; 0 between messages.
    pub fn received(&self) -> usize {
        self.filled
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
        self.unsent() >= OUTBOX_BYTES || self.fds.len() >= OUTBOX_FDS
    }

    /// Bytes that wait.
    pub fn unsent(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Descriptors that wait.
    pub fn descriptors(&self) -> usize {
        self.fds.len()
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsRawFd, RawFd};

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{self, Command};

    const SIZE_MAX: usize = 64 << 10;

    fn some_fds(count: usize) -> Vec<OwnedFd> {
        (0..count)
            .map(|_| File::open("/dev/null").expect("/dev/null").into())
            .collect()
    }

    fn header(message_id: u16, body: usize) -> Header {
        let size = (HEADER_SIZE + body) as u32;
        Header {
            message_id,
            command: Command::REGION_WRITE,
            size,
            ..Header::default()
        }
    }

    /// A message as sent, or as put together: id, body, descriptors. They stay open, so that no
    /// number comes twice.
    type Plain = (u16, Vec<u8>, Vec<OwnedFd>);

    fn numbers(fds: &[OwnedFd]) -> Vec<RawFd> {
        fds.iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// A stream of bytes as a socket keeps it: descriptors come with the read that takes the byte
    /// they were sent with.
    #[derive(Default)]
    struct Stream {
        bytes: Vec<u8>,
        fds: VecDeque<(usize, Vec<OwnedFd>)>,
        read: usize,
    }

    impl Stream {
        fn push(&mut self, message_id: u16, body: &[u8], fds: Vec<OwnedFd>, with_byte: usize) {
            let header = header(message_id, body.len());
            self.fds.push_back((self.bytes.len() + with_byte, fds));
            self.bytes.extend_from_slice(header.as_bytes());
            self.bytes.extend_from_slice(body);
        }

        fn read(&mut self, space: &mut [u8], at_most: usize) -> (Received, Vec<OwnedFd>) {
            let bytes = space.len().min(at_most).min(self.bytes.len() - self.read);
            space[..bytes].copy_from_slice(&self.bytes[self.read..][..bytes]);
            self.read += bytes;
            let mut fds = Vec::new();
            while self
                .fds
                .front()
                .is_some_and(|(position, _)| *position < self.read)
            {
                fds.extend(self.fds.pop_front().map(|(_, fds)| fds).unwrap_or_default());
            }
            (
                Received {
                    bytes,
                    truncated: false,
                },
                fds,
            )
        }
    }

    /// Reads the whole stream, in pieces of the sizes in `cuts`, over and over.
    fn assemble(mut stream: Stream, cuts: &[usize]) -> Vec<Plain> {
        let mut assembler = Assembler::new(SIZE_MAX);
        let mut messages = Vec::new();
        let mut cuts = cuts.iter().cycle();
        while stream.read < stream.bytes.len() {
            let at_most = *cuts.next().expect("a cut");
            let (received, mut fds) = stream.read(assembler.space(), at_most);
            let whole = assembler.advance(received, &mut fds).expect("a size");
            assert!(fds.is_empty());
            if let Some(message) = whole {
                assert_eq!(message.fds_lost, None);
                messages.push((
                    message.header.message_id,
                    message.body.to_vec(),
                    message.fds,
                ));
            }
        }
        assert_eq!(assembler.received(), 0);
        messages
    }

    proptest! {
        #[test]
        fn a_stream_cut_anywhere_gives_the_same_messages(
            sent in prop::collection::vec(
                (prop_oneof![9 => 0..200_usize, 1 => 0..40_000_usize], 0..4_usize, 0..16_usize),
                1..12,
            ),
            cuts in prop::collection::vec(prop_oneof![1..40_usize, 1..20_000_usize], 1..20),
        ) {
            let mut stream = Stream::default();
            let mut expected = Vec::new();
            for (id, (len, fds, with_byte)) in sent.into_iter().enumerate() {
                let body: Vec<u8> = (0..len).map(|byte| (byte * 7 + id) as u8).collect();
                let fds = some_fds(fds);
                expected.push((id as u16, body.clone(), numbers(&fds)));
                stream.push(id as u16, &body, fds, with_byte);
            }
            let messages = assemble(stream, &cuts);
            let messages: Vec<_> = messages
                .iter()
                .map(|(id, body, fds)| (*id, body.clone(), numbers(fds)))
                .collect();
            prop_assert_eq!(messages, expected);
        }

        #[test]
        fn garbage_is_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut assembler = Assembler::new(SIZE_MAX);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let space = assembler.space();
                prop_assert!(!space.is_empty() && space.len() <= READ_MAX);
                let bytes = space.len().min(rest.len());
                space[..bytes].copy_from_slice(&rest[..bytes]);
                rest = &rest[bytes..];
                let received = Received { bytes, truncated: false };
                match assembler.advance(received, &mut Vec::new()) {
                    Ok(Some(message)) => {
                        prop_assert_eq!(message.header.size as usize, 16 + message.body.len());
                    }
                    Ok(None) => {}
                    Err(BadSize(header)) => {
                        prop_assert!(header.size < 16 || header.size as usize > SIZE_MAX);
                    }
                }
            }
        }
    }

    /// Feeds one message in as few reads as it takes.
    fn feed(
        assembler: &mut Assembler,
        header: Header,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<(), BadSize> {
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(HEADER_SIZE.max(header.size as usize).min(2 * SIZE_MAX), 0);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let space = assembler.space();
            let bytes = space.len().min(rest.len());
            space[..bytes].copy_from_slice(&rest[..bytes]);
            rest = &rest[bytes..];
            if let Some(message) = assembler.advance(
                Received {
                    bytes,
                    truncated: false,
                },
                fds,
            )? {
                assert!(rest.is_empty());
                let fds = message.fds.len();
                assert!(fds <= FDS_PER_MESSAGE);
                assert_eq!(message.fds_lost.is_some(), fds == 0);
            }
        }
        Ok(())
    }

    #[test]
    fn a_size_that_cannot_be_is_an_error() {
        for size in [0, 15, SIZE_MAX as u32 + 1, u32::MAX] {
            let header = Header {
                size,
                ..header(1, 0)
            };
            let result = feed(&mut Assembler::new(SIZE_MAX), header, &mut Vec::new());
            assert_eq!(result, Err(BadSize(header)));
        }
    }

    #[test]
    fn too_many_descriptors_are_left_to_the_caller_and_the_message_says_so() {
        let mut assembler = Assembler::new(SIZE_MAX);
        let mut fds = some_fds(FDS_PER_MESSAGE + 1);
        feed(&mut assembler, header(1, 32), &mut fds).expect("a message");
        assert_eq!(fds.len(), FDS_PER_MESSAGE + 1);
        let mut fds = some_fds(FDS_PER_MESSAGE);
        feed(&mut assembler, header(2, 32), &mut fds).expect("a message");
        assert_eq!(fds.len(), 0);
    }

    #[test]
    fn what_a_message_announces_takes_no_memory_before_it_comes() {
        let mut assembler = Assembler::new(1 << 30);
        let header = header(1, (1 << 30) - HEADER_SIZE);
        assembler.space().copy_from_slice(header.as_bytes());
        let received = Received {
            bytes: HEADER_SIZE,
            truncated: false,
        };
        assert!(
            assembler
                .advance(received, &mut Vec::new())
                .expect("a size")
                .is_none()
        );
        assert_eq!(assembler.space().len(), READ_MAX);
        assert!(assembler.buffer.capacity() <= 2 * READ_MAX);
    }

    #[test]
    fn memory_of_a_long_message_is_given_back() {
        let mut assembler = Assembler::new(1 << 20);
        let mut stream = Stream::default();
        stream.push(1, &vec![1; 1 << 19], Vec::new(), 0);
        loop {
            let (received, mut fds) = stream.read(assembler.space(), usize::MAX);
            if assembler
                .advance(received, &mut fds)
                .expect("a size")
                .is_some()
            {
                break;
            }
        }
        assert!(assembler.buffer.capacity() > BUFFER_KEPT);
        assert_eq!(assembler.space().len(), HEADER_SIZE);
        assert!(assembler.buffer.capacity() <= BUFFER_KEPT);
    }

    fn reply(outbox: &mut Outbox, message_id: u16, body: &[u8], fd: Option<OwnedFd>) {
        let mut draft = outbox.begin(header(message_id, 0));
        draft.put(body);
        if let Some(fd) = fd {
            draft.attach(fd);
        }
        draft.send();
    }

    #[test]
    fn a_descriptor_is_sent_with_the_first_byte_of_its_reply() {
        let mut outbox = Outbox::default();
        reply(&mut outbox, 1, &[1; 4], None);
        reply(&mut outbox, 2, &[2; 8], some_fds(1).pop());
        reply(&mut outbox, 3, &[3; 4], some_fds(1).pop());
        reply(&mut outbox, 4, &[4; 4], None);
        let mut sent = Vec::new();
        while !outbox.is_empty() {
            let (bytes, fd) = outbox.front();
            sent.push((bytes.len(), fd.is_some()));
            // Half of each is all that fits.
            let half = bytes.len().div_ceil(2);
            outbox.advance(half);
        }
        let starts: Vec<_> = sent.iter().filter(|(_, fd)| *fd).collect();
        assert_eq!(starts, [&(24, true), &(40, true)]);
        assert_eq!(sent[0], (20, false));
        assert!(outbox.fds.is_empty());
    }

    proptest! {
        /// However little is taken each time, what comes out is what went in.
        #[test]
        fn a_slow_reader_gets_every_reply(
            replies in prop::collection::vec((0..30_000_usize, any::<bool>()), 1..20),
            takes in prop::collection::vec(1..9_000_usize, 1..20),
        ) {
            let mut outbox = Outbox::default();
            let mut takes = takes.iter().cycle();
            let (mut expected, mut received, mut fds_at) = (Vec::new(), Vec::new(), Vec::new());
            let mut take = |outbox: &mut Outbox, received: &mut Vec<u8>, fds_at: &mut Vec<_>| {
                let (bytes, fd) = outbox.front();
                let taken = bytes.len().min(*takes.next().expect("a size"));
                if fd.is_some() {
                    fds_at.push(received.len());
                }
                received.extend_from_slice(&bytes[..taken]);
                outbox.advance(taken);
            };
            let mut expected_fds_at = Vec::new();
            for (id, (len, with_fd)) in replies.into_iter().enumerate() {
                while outbox.is_full() {
                    take(&mut outbox, &mut received, &mut fds_at);
                }
                if with_fd {
                    expected_fds_at.push(expected.len());
                }
                let head =
                    Header { flags: HeaderFlags::REPLY, ..header(id as u16, len) };
                expected.extend_from_slice(head.as_bytes());
                expected.resize(expected.len() + len, id as u8);
                let fd = if with_fd { some_fds(1).pop() } else { None };
                reply(&mut outbox, id as u16, &vec![id as u8; len], fd);
                prop_assert!(outbox.bytes.len() <= 2 * OUTBOX_BYTES + 30_000 + HEADER_SIZE);
                take(&mut outbox, &mut received, &mut fds_at);
            }
            while !outbox.is_empty() {
                take(&mut outbox, &mut received, &mut fds_at);
            }
            prop_assert!(received == expected);
            prop_assert_eq!(fds_at, expected_fds_at);
        }
    }

    #[test]
    fn a_reply_that_fails_is_a_bare_header() {
        let mut outbox = Outbox::default();
        let mut draft = outbox.begin(header(5, 0));
        draft.put(&[1; 100]);
        draft.attach(some_fds(1).remove(0));
        draft.fail(Errno::ENOENT);
        let (bytes, fd) = outbox.front();
        let head: Header = protocol::take_all(bytes).expect("a bare header");
        assert!(fd.is_none());
        assert_eq!((head.message_id, head.size, head.error), (5, 16, 2));
        assert_eq!(head.flags, HeaderFlags::ERROR_REPLY);
    }
}
