//! A reactor: one thread, one core, one loop, which sleeps only if it [is asked to](Idle).
//!
//! Every pass polls the I/O queues of the active poll groups, looks at doorbells of those that rest
//! ([`Roster`]), and enters the kernel at most once for all channels. Every few passes the clock is
//! read, and the inbox and some of the admin queues are looked at; sockets have a timer. So a pass
//! over idle queues touches nothing but their doorbells.

use std::mem;
use std::time::{Duration, Instant};

use anyhow::Context;
use bdev::{IoContext, IoLimits, PASS_BYTES};
use nix::sys::prctl;
use nvme::pcie::message::{Envelope, FromGroup, GroupId};
use nvme::pcie::poll_group::{GroupSeed, PollGroup, Rest};

use crate::cpu;
use crate::endpoint::{Endpoint, EndpointSeed};
use crate::idle::{self, Idle};
use crate::message::{ControllerId, Post, ReactorId, ToControl, ToReactor};
use crate::roster::Roster;
use crate::sockets::Sockets;
use crate::turns::Turns;

/// Passes without work between two looks at everything but I/O queues: about a microsecond.
const CONTROL_PASSES: u32 = 64;
/// How many of them a pass with work stands for.
const BUSY_PASSES: u32 = 8;
/// After how many bytes a channel copies or zeroes no more in one pass, if several groups have
/// queues: some 4 us of short reads, so that a doorbell is seen within 5 beside one busy queue of
/// them. Longer for what is written at submission, and for one command that is longer than that.
const SHARED_PASS_BYTES: u64 = 52 << 10;
/// Turns of endpoints that talk take one part in so many of the time.
const TALK_SHARE: u64 = 16;
/// Messages taken from the inbox in one pass.
const MESSAGES_MAX: usize = 64;

/// What a reactor is made from; it crosses to the reactor's thread.
pub struct ReactorSeed {
    pub id: ReactorId,
    pub core: usize,
    pub endpoints: Vec<EndpointSeed>,
    pub groups: Vec<(ControllerId, GroupSeed)>,
    pub limits: IoLimits,
    /// Where the kernel's threads may work for it; none: on its own core.
    pub worker_cores: Vec<usize>,
    pub idle: Idle,
    pub post: Post,
}

/// One reactor, on its thread.
struct Reactor {
    id: ReactorId,
    post: Post,
    context: IoContext,
    groups: Vec<Group>,
    roster: Roster<Rest>,
    endpoints: Vec<Endpoint>,
    turns: Turns,
    sockets: Sockets,
    /// Before that no endpoint has a turn for talking.
    next_talk_ns: u64,
    origin: Instant,
    now_ns: u64,
    /// When a command was last at work, or a client or another thread said something.
    busy_ns: u64,
    idle: Idle,
    /// Passes without work until the next look at everything else.
    until_control: u32,
    /// Passes since the last one, and how many of them had work.
    passes: u64,
    busy_passes: u64,
    exiting: bool,
}

/// A poll group, and a reply of it that found a ring full.
struct Group {
    controller: ControllerId,
    group: PollGroup,
    waiting: Option<FromGroup>,
}

impl Group {
    fn rest(&self) -> Option<Rest> {
        self.group.rest().filter(|_| self.waiting.is_none())
    }
}

/// The body of a reactor's thread: reports that it polls, and then does until told to end.
pub fn run(seed: ReactorSeed) {
    let (id, post) = (seed.id, seed.post.clone());
    match Reactor::new(seed) {
        Ok(mut reactor) => {
            tell_control(&post, ToControl::Running(id));
            while !reactor.exiting {
                reactor.pass();
            }
        }
        Err(error) => tell_control(&post, ToControl::Failed(id, error)),
    }
}

/// At start and end there is time to wait for room.
fn tell_control(post: &Post, mut message: ToControl) {
    while let Err(back) = post.to_control(message) {
        message = back;
        std::thread::yield_now();
    }
}

impl Reactor {
    fn new(seed: ReactorSeed) -> anyhow::Result<Reactor> {
        cpu::pin(seed.core)?;
        if matches!(seed.idle, Idle::Sleep(_)) {
            // Or each sleep would be 50 us longer than it is said to be.
            prctl::set_timerslack(1).context("sleeps cannot be made exact")?;
        }
        let context = IoContext::new(seed.limits)?;
        context.set_worker_cores(seed.worker_cores);
        let origin = Instant::now();
        let groups = seed.groups.into_iter().map(|(controller, seed)| {
            let group = PollGroup::new(seed, context.clone());
            Group {
                controller,
                group,
                waiting: None,
            }
        });
        let groups = groups.collect::<Vec<_>>();
        let endpoints = seed
            .endpoints
            .into_iter()
            .map(|endpoint| Endpoint::new(endpoint, seed.post.clone()));
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        let sockets = Sockets::new(endpoints.len()).context("sockets cannot be watched")?;
        for (index, endpoint) in endpoints.iter().enumerate() {
            let added = sockets.add(endpoint.listener(), index);
            added.context("a socket cannot be watched")?;
        }
        tracing::debug!(core = seed.core, "reactor polls");
        Ok(Reactor {
            id: seed.id,
            post: seed.post,
            context,
            roster: Roster::new(groups.len()),
            groups,
            turns: Turns::new(endpoints.len()),
            sockets,
            next_talk_ns: 0,
            endpoints,
            origin,
            now_ns: 0,
            busy_ns: 0,
            idle: seed.idle,
            until_control: CONTROL_PASSES,
            passes: 0,
            busy_passes: 0,
            exiting: false,
        })
    }

    #[inline]
    fn pass(&mut self) {
        let busy = self.poll_groups();
        self.passes += 1;
        self.busy_passes += u64::from(busy);
        self.context.flush();
        let passes = match busy {
            true => BUSY_PASSES,
            false => 1,
        };
        self.until_control = self.until_control.saturating_sub(passes);
        if self.until_control == 0 {
            self.until_control = CONTROL_PASSES;
            self.control(1);
        }
        match busy {
            true => self.busy_ns = self.now_ns,
            false => self.rest(),
        }
    }

    /// Polls the groups that are active, and looks for some that have to be.
    #[inline]
    fn poll_groups(&mut self) -> bool {
        let (mut busy, mut at) = (false, 0);
        while let Some(index) = self.roster.active(at) {
            let is_busy = self.groups[index].group.poll(self.now_ns);
            self.carry_replies(index);
            busy |= is_busy;
            let may_rest = self.roster.polled(at, is_busy);
            let rest = may_rest.then(|| self.groups[index].rest()).flatten();
            match rest {
                Some(rest) => self.roster.rest(at, rest),
                None => at += 1,
            }
        }
        self.roster.look(busy, Rest::first_rung) | busy
    }

    /// After a pass in which nothing happened.
    #[inline]
    fn rest(&mut self) {
        match self.idle {
            Idle::Spin => {}
            Idle::Pause => std::hint::spin_loop(),
            Idle::Sleep(shortest) => {
                if let Some(time) = idle::sleep(shortest, self.now_ns - self.busy_ns) {
                    self.sleep(time);
                }
            }
        }
    }

    /// Sleeps, unless something is under way that nobody rings a doorbell for.
    fn sleep(&mut self, time: Duration) {
        let groups_are_idle = self
            .groups
            .iter()
            .all(|group| group.group.is_idle() && !group.group.owes_interrupt());
        if groups_are_idle && !self.endpoints.iter().any(Endpoint::is_pending) {
            std::thread::sleep(time);
            self.control(self.endpoints.len());
        }
    }

    /// Monotonic, from when the reactor was made.
    #[inline]
    fn clock_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// What can wait for some passes; so many of the endpoints, in turns, and one that talks.
    fn control(&mut self, endpoints: usize) {
        let now_ns = self.clock_ns();
        let (passes, busy) = (
            mem::take(&mut self.passes),
            mem::take(&mut self.busy_passes),
        );
        if passes > 0 && (busy == 0 || busy == passes) {
            self.roster.pace(busy > 0, (now_ns - self.now_ns) / passes);
        }
        self.now_ns = now_ns;
        self.receive();
        for index in self.sockets.readable(now_ns) {
            self.endpoints[index].readable();
            self.turns.heard(index);
        }
        for _ in 0..endpoints {
            let next = self.turns.next_of_all();
            self.poll_endpoint(next);
        }
        if now_ns >= self.next_talk_ns {
            self.talk(now_ns);
        }
    }

    /// A turn for an endpoint that talks, and then none for a while: one whose client never stops
    /// would take the time of all guests.
    fn talk(&mut self, now_ns: u64) {
        let next = self.turns.next_of_talking();
        if next.is_some() {
            self.poll_endpoint(next);
            let taken_ns = self.clock_ns() - now_ns;
            self.next_talk_ns = now_ns + TALK_SHARE * taken_ns;
        }
    }

    fn poll_endpoint(&mut self, index: Option<usize>) {
        let Some(index) = index else { return };
        let endpoint = &mut self.endpoints[index];
        if endpoint.poll(self.now_ns) {
            self.busy_ns = self.now_ns;
        }
        if endpoint.is_talking(self.now_ns) {
            self.turns.heard(index);
        }
        let watched = endpoint
            .take_new()
            .map(|client| self.sockets.add(client, index));
        if let Some(Err(errno)) = watched {
            let advice = "raise fs.epoll.max_user_watches";
            tracing::warn!(%errno, advice, "a client's socket is looked at every 2 ms");
            endpoint.unwatched();
        }
        self.carry_messages(index);
    }

    /// Carries what a poll group says to its controller, in order.
    #[inline]
    fn carry_replies(&mut self, index: usize) {
        loop {
            let group = &mut self.groups[index];
            let Some(reply) = group.waiting.take().or_else(|| group.group.take_reply()) else {
                return;
            };
            let (controller, id) = (group.controller, group.group.id());
            if matches!(reply, FromGroup::Done { .. }) {
                // It may be that queues are gone. Events, of which a guest can cause many, are no
                // reason to look at every group.
                self.share_passes();
            }
            let home = self.post.places[controller.0].home;
            if home == self.id {
                self.reply(controller, id, reply);
            } else {
                let message = ToReactor::FromGroup(controller, id, reply);
                if self.post.to_reactor(home, message).is_err() {
                    self.groups[index].waiting = Some(reply);
                    return;
                }
            }
        }
    }

    /// Carries what a controller says to its poll groups, in order.
    fn carry_messages(&mut self, index: usize) {
        let id = self.endpoints[index].id();
        while let Some((group, envelope)) = self.endpoints[index].take_message() {
            let reactor = self.post.places[id.0].groups[usize::from(group.0)];
            if reactor == self.id {
                self.deliver(id, group, envelope);
                continue;
            }
            let message = ToReactor::ToGroup(id, group, envelope);
            if let Err(ToReactor::ToGroup(_, group, envelope)) =
                self.post.to_reactor(reactor, message)
            {
                self.endpoints[index].put_back(group, envelope);
                return;
            }
        }
    }

    fn receive(&mut self) {
        for _ in 0..MESSAGES_MAX {
            let Some(message) = self.post.reactors[self.id.0].receive() else {
                return;
            };
            self.busy_ns = self.now_ns;
            match message {
                ToReactor::ToGroup(id, group, envelope) => self.deliver(id, group, envelope),
                ToReactor::FromGroup(id, group, reply) => self.reply(id, group, reply),
                ToReactor::Opened(id, request, result) => {
                    if let Some(endpoint) = self.endpoint(id) {
                        endpoint.opened(request, result);
                    }
                }
                ToReactor::Stop => self.endpoints.iter_mut().for_each(Endpoint::stop),
                ToReactor::Exit => self.exiting = true,
            }
        }
    }

    fn endpoint(&mut self, id: ControllerId) -> Option<&mut Endpoint> {
        self.endpoints
            .iter_mut()
            .find(|endpoint| endpoint.id() == id)
    }

    fn deliver(&mut self, id: ControllerId, group: GroupId, envelope: Envelope) {
        let is_it = |g: &Group| g.controller == id && g.group.id() == group;
        if let Some(index) = self.groups.iter().position(is_it) {
            self.roster.wake(index);
            let group = &mut self.groups[index].group;
            // While it rested it did not see the time go by.
            group.poll(self.now_ns);
            group.receive(envelope);
            self.share_passes();
        }
    }

    /// Has channels take longer passes while a single group has queues.
    fn share_passes(&mut self) {
        let groups = self.groups.iter().filter(|group| group.group.has_queues());
        let bytes = match groups.count() {
            0 | 1 => PASS_BYTES,
            _ => SHARED_PASS_BYTES,
        };
        if bytes != self.context.pass_bytes() {
            tracing::debug!(
                reactor = self.id.0,
                bytes,
                "a channel copies in one pass at most"
            );
            self.context.set_pass_bytes(bytes);
        }
    }

    fn reply(&mut self, id: ControllerId, group: GroupId, reply: FromGroup) {
        if let Some(endpoint) = self.endpoint(id) {
            endpoint.receive(group, reply);
        }
    }
}

#[cfg(test)]
mod tests;
