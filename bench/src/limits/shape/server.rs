//! The target's side of the bare shape.

use bdev::memory::{Arena, IoVecs, copy};

use super::super::error::Error;
use super::super::memory::Memory;
use super::super::pair::Looks;
use super::super::rings::{Command, Rings};
use super::super::work::{BURST, Shape, Work};

/// How many commands ahead memory is called for.
const AHEAD: usize = 2;

/// Executes commands in their order, a burst at a time.
pub(super) struct Server<'a> {
    rings: &'a Rings,
    shape: Shape,
    disk: &'a Arena,
    buffers: Vec<IoVecs>,
    head: u32,
    burst: [Command; BURST as usize],
}

impl<'a> Server<'a> {
    /// On the thread that will serve.
    pub(super) fn new(
        rings: &'a Rings,
        shape: Shape,
        memory: &Memory<'a>,
    ) -> Result<Server<'a>, Error> {
        Ok(Server {
            rings,
            shape,
            disk: memory.disk,
            buffers: memory.buffers(shape)?,
            head: 0,
            burst: [Command::default(); BURST as usize],
        })
    }

    /// Until the client is gone.
    pub(super) fn serve(&mut self) {
        match self.shape.work {
            Work::Empty => self.serve_with(|_, _| (), |_, _| true),
            Work::Read => self.serve_with(
                |server, command| server.disk.prefetch(command.offset, server.shape.bytes),
                |server, command| server.disk.read(command.offset, server.buffer(command)),
            ),
            Work::Write => self.serve_with(
                |server, command| {
                    copy::prefetch(server.buffer(command));
                    server.disk.prefetch(command.offset, server.shape.bytes);
                },
                |server, command| {
                    let buffer = server.buffer(command);
                    server.disk.write_through_caches(command.offset, buffer)
                },
            ),
            // What is written past the caches must not be called into them.
            Work::WriteStreaming => self.serve_with(
                |server, command| copy::prefetch(server.buffer(command)),
                |server, command| server.disk.write(command.offset, server.buffer(command)),
            ),
        }
    }

    fn serve_with(
        &mut self,
        call: impl Fn(&Server<'_>, Command),
        execute: impl Fn(&Server<'_>, Command) -> bool,
    ) {
        let mut looks = Looks::default();
        loop {
            let ready = self.rings.tail().wrapping_sub(self.head);
            if ready > 0 {
                looks.found();
                self.execute_burst(ready.min(BURST), &call, &execute);
            } else if looks.vain() && self.rings.ended() {
                return;
            }
        }
    }

    /// Fetches so many commands, then executes them.
    #[inline]
    fn execute_burst(
        &mut self,
        count: u32,
        call: &impl Fn(&Server<'_>, Command),
        execute: &impl Fn(&Server<'_>, Command) -> bool,
    ) {
        for (at, place) in (0..count).zip(&mut self.burst) {
            *place = self.rings.read(self.head.wrapping_add(at));
        }
        let commands = &self.burst[..count as usize];
        if self.shape.ahead {
            let first = &commands[..commands.len().min(AHEAD)];
            first.iter().for_each(|command| call(self, *command));
        }
        // Streaming stores are seen after a fence only, one for the burst.
        let fence = self.shape.work == Work::WriteStreaming;
        for (at, &command) in commands.iter().enumerate() {
            if self.shape.ahead {
                if let Some(&later) = commands.get(at + AHEAD) {
                    call(self, later);
                }
            }
            assert!(execute(self, command), "a command past the end of the disk");
            if !fence {
                self.rings
                    .complete(self.head.wrapping_add(at as u32), command);
            }
        }
        if fence {
            self.disk.settle();
            for (at, &command) in (0..count).zip(commands) {
                self.rings.complete(self.head.wrapping_add(at), command);
            }
        }
        self.head = self.head.wrapping_add(count);
    }

    #[inline]
    fn buffer(&self, command: Command) -> &IoVecs {
        &self.buffers[usize::from(command.slot)]
    }
}
