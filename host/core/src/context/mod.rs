//! The response context (RFC 3261 16.7): the transaction user of a relayed
//! request. It tries groups of targets in series, the targets of a group in
//! parallel, and decides which response goes upstream.

pub(crate) mod best;
mod branch;
mod breadth;
mod hooks;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sipbox_sip::{HeaderId, Message, Method, OwnedMessage};
use smallvec::SmallVec;

use crate::cx::Mutation;
use crate::decision::{ArmedSet, Relay, ResolvedTarget};
use crate::error::Internal;
use crate::flow::Flow;
use crate::outbox::Dropped;
use crate::policy::{CallState, Facts, FailedTarget, Reply};
use crate::transaction::{UserTimer, is_success, keep};
use crate::user::{Deciding, Ended, Io, Stop, TransactionUser};
use crate::wheel::TimerHandle;

pub(crate) use hooks::AfterFailure;

use best::{Best, Candidate, Received, upstream_status};
use branch::{Branch, Stage};
use breadth::shares;

/// Where the context stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Branches are out, or being asked about.
    Running,
    /// `on-failure` was asked.
    Failing { serial: u32 },
    /// `on-reply` was asked about the final response that will go upstream.
    Replying { status: u16, bytes: Bytes },
    /// A final response went upstream, or silence stands for it.
    Answered,
}

pub(crate) struct ResponseContext {
    request: OwnedMessage,
    facts: Arc<Facts>,
    state: CallState,
    armed: ArmedSet,
    breadth: u8,
    loop_hash: u32,
    method: Method,
    phase: Phase,
    /// What is left, the next group last.
    groups: Vec<Vec<ResolvedTarget>>,
    record_route: Option<Vec<(String, String)>>,
    ring: Duration,
    branches: SmallVec<[Branch; 1]>,
    /// Where the current group begins.
    group_start: usize,
    best: Best,
    failed: Vec<FailedTarget>,
    /// How often the failure hook was asked.
    rounds: u8,
    stopped: Option<Stop>,
    /// A 2xx is on its way upstream: nothing else may be.
    won: bool,
    /// A 6xx came: no further group is tried.
    refused: bool,
    serial: u32,
    decide_timer: Option<TimerHandle>,
    ring_timer: Option<TimerHandle>,
    total_timer: Option<TimerHandle>,
}

/// How often the policies may answer the failure of a request with new targets, and
/// how many branches it may have in its life. A policy that never gives up would hold
/// a worker, and what it holds of memory grows with each branch.
const MAX_ROUNDS: u8 = 32;
const MAX_BRANCHES: usize = 256;

impl ResponseContext {
    pub(crate) fn new(
        decided: Deciding,
        request: OwnedMessage,
        state: CallState,
        armed: ArmedSet,
    ) -> Self {
        Self {
            method: request.as_ref().method(),
            request,
            facts: decided.facts,
            state,
            armed,
            breadth: decided.breadth,
            loop_hash: decided.loop_hash.stateful,
            phase: Phase::Running,
            groups: Vec::new(),
            record_route: None,
            ring: Duration::ZERO,
            branches: SmallVec::new(),
            group_start: 0,
            best: Best::default(),
            failed: Vec::new(),
            rounds: 0,
            stopped: None,
            won: false,
            refused: false,
            serial: 0,
            decide_timer: None,
            ring_timer: None,
            total_timer: None,
        }
    }

    pub(crate) fn request(&self) -> Message<'_> {
        self.request.as_ref()
    }

    /// Carries out a relay.
    pub(crate) fn relay(&mut self, relay: Relay, io: &mut Io<'_, '_, '_>) {
        self.phase = Phase::Running;
        self.groups = relay.groups;
        self.groups.retain(|group| !group.is_empty());
        self.groups.reverse();
        if self.groups.is_empty() {
            // Along the route set, or else to the Request-URI.
            self.groups.push(vec![ResolvedTarget {
                q: 1000,
                ..ResolvedTarget::default()
            }]);
        }
        self.record_route = relay.record_route;
        self.ring = Duration::from_millis(u64::from(relay.ring_timeout));
        self.refused = false;
        if relay.total_timeout > 0 {
            let after = Duration::from_millis(u64::from(relay.total_timeout));
            io.disarm(&mut self.total_timer);
            self.total_timer = Some(io.arm(UserTimer::Total, after));
        }
        // 17.2.1: not every next hop is quick.
        io.trying(self.request.as_ref());
        self.next_group(io);
    }

    /// 16.6, for the next group that has a branch which can be tried.
    fn next_group(&mut self, io: &mut Io<'_, '_, '_>) {
        while self.phase == Phase::Running {
            if self.stopped.is_some() || self.refused || self.won {
                break;
            }
            let Some(group) = self.groups.pop() else {
                break;
            };
            if self.branches.len() + group.len() > MAX_BRANCHES {
                self.groups.clear();
                break;
            }
            let held = self.held(io);
            let free = usize::from(self.breadth.saturating_sub(held));
            if group.len() > free && held > 0 {
                // The next final response of a branch that was given up sets more free.
                self.groups.push(group);
                return;
            }
            self.group_start = self.branches.len();
            let shares = shares(free, group.len(), self.later());
            for (target, share) in group.into_iter().zip(shares) {
                self.add_branch(target, share, io);
            }
            if !self.ring.is_zero() {
                io.disarm(&mut self.ring_timer);
                self.ring_timer = Some(io.arm(UserTimer::Ring, self.ring));
            }
            if self.live() {
                return;
            }
        }
        self.conclude(io);
    }

    /// Whether any branch of the current group may still bring something.
    fn live(&self) -> bool {
        self.branches
            .iter()
            .any(|branch| branch.stage != Stage::Done)
    }

    fn is_done(&self, at: usize) -> bool {
        let branch = self.branches.get(at);
        branch.is_none_or(|branch| branch.stage == Stage::Done)
    }

    /// Called when a branch is done: the next group, or the end.
    fn proceed(&mut self, io: &mut Io<'_, '_, '_>) {
        if self.phase == Phase::Running && !self.won && !self.live() {
            io.disarm(&mut self.ring_timer);
            self.next_group(io);
        }
    }

    /// All groups have failed.
    fn conclude(&mut self, io: &mut Io<'_, '_, '_>) {
        if self.phase != Phase::Running || self.won {
            return;
        }
        io.disarm(&mut self.ring_timer);
        let made_up = |best: &Candidate| best.received.is_none() && best.status == 408;
        if self.stopped == Some(Stop::Cancel) && self.best.get().is_some_and(made_up) {
            // 9.2: that nobody answered in time is no news to who did not wait.
            self.best.clear();
        }
        if self.best.get().is_none() {
            let status = self
                .stopped
                .map_or(Internal::NoTarget.status(), Stop::status);
            self.best.offer(Candidate {
                status,
                received: None,
            });
        }
        let asked = self.armed.iter().any(|armed| armed.failure) && self.rounds < MAX_ROUNDS;
        if asked && self.stopped != Some(Stop::Shutdown) {
            self.ask_failure(io);
        } else {
            self.deliver(io);
        }
    }

    /// 16.7 steps 6 to 9: the best response goes upstream.
    fn deliver(&mut self, io: &mut Io<'_, '_, '_>) {
        let scratch = &mut io.tx.scratch;
        let Some(best) = self.best.merged(&mut scratch.edits, &mut scratch.message) else {
            return;
        };
        if best.status == 408 && self.method != Method::Invite && self.stopped.is_none() {
            // RFC 4320 4.2: the caller's own timer has run out as well.
            self.finish_silently(io);
            return;
        }
        let status = upstream_status(best.status);
        match best.received {
            Some(received) if status == best.status => self.send_final(status, received, io),
            _ => self.answer(
                &Reply {
                    status,
                    ..Reply::default()
                },
                io,
            ),
        }
    }

    /// A final response of our own.
    fn answer(&mut self, reply: &Reply, io: &mut Io<'_, '_, '_>) {
        self.answered(io);
        io.reply(self.request.as_ref(), reply);
    }

    /// A final response of a branch, past the policies that want to see it.
    fn send_final(&mut self, status: u16, received: Received, io: &mut Io<'_, '_, '_>) {
        let first = self.phase != Phase::Answered && !matches!(self.phase, Phase::Replying { .. });
        if self.ask_reply(&received, io) {
            let bytes = received.bytes;
            if first {
                self.phase = Phase::Replying { status, bytes };
                self.watch(io);
            }
            return;
        }
        if first {
            self.answered(io);
        }
        io.tx.respond(io.server, status, received.bytes, io.cx);
    }

    fn answered(&mut self, io: &mut Io<'_, '_, '_>) {
        self.phase = Phase::Answered;
        io.disarm(&mut self.decide_timer);
        io.disarm(&mut self.ring_timer);
        io.disarm(&mut self.total_timer);
        self.groups = Vec::new();
        self.best.clear();
    }

    fn finish_silently(&mut self, io: &mut Io<'_, '_, '_>) {
        self.answered(io);
        io.tx.respond_nothing(io.server, io.cx);
    }

    /// 16.7 step 10: every branch that rings.
    fn cancel_pending(&mut self, io: &mut Io<'_, '_, '_>) {
        if io.cx.mutant(Mutation::KeepBranches) {
            return;
        }
        for branch in &mut self.branches {
            match branch.stage {
                Stage::Done => {}
                Stage::Sent => {
                    if let Some(client) = branch.client {
                        io.tx.cancel_client(client, io.cx);
                    }
                }
                Stage::Asking(_) | Stage::Resolving => branch.stage = Stage::Done,
            }
        }
    }

    /// Gives up what rings: it gets a CANCEL, and counts as not having answered.
    fn abandon(&mut self, io: &mut Io<'_, '_, '_>) {
        self.cancel_pending(io);
        for at in 0..self.branches.len() {
            if self
                .branches
                .get(at)
                .is_some_and(|branch| branch.stage == Stage::Sent)
            {
                self.fail_branch(
                    at,
                    Candidate {
                        status: 408,
                        received: None,
                    },
                );
            }
        }
    }

    /// Whether Timer C ended a branch.
    fn gave_up(&self, at: usize, io: &Io<'_, '_, '_>) -> bool {
        self.branches
            .get(at)
            .and_then(|branch| branch.client)
            .is_some_and(|client| io.tx.was_given_up(client))
    }

    fn fail_branch(&mut self, at: usize, candidate: Candidate) {
        let Some(branch) = self.branches.get_mut(at) else {
            return;
        };
        if branch.stage == Stage::Done {
            return;
        }
        branch.stage = Stage::Done;
        if self.armed.iter().any(|armed| armed.failure) {
            let uri = if branch.target.uri.is_empty() {
                self.request.as_ref().request_uri()
            } else {
                &branch.target.uri
            };
            self.failed.push(FailedTarget {
                id: branch.target.id,
                uri: String::from_utf8_lossy(uri).into_owned(),
                status: candidate.status,
            });
        }
        self.best.offer(candidate);
    }
}

impl TransactionUser for ResponseContext {
    fn cancelled(&mut self, why: Stop, io: &mut Io<'_, '_, '_>) {
        if self.won || matches!(self.phase, Phase::Answered | Phase::Replying { .. }) {
            // 9.2: a final response is under way already.
            return;
        }
        self.stopped.get_or_insert(why);
        self.groups.clear();
        if matches!(self.phase, Phase::Failing { .. }) {
            // The policy's answer would come too late.
            self.best.clear();
            self.answer(
                &Reply {
                    status: why.status(),
                    ..Reply::default()
                },
                io,
            );
            return;
        }
        self.cancel_pending(io);
        if why == Stop::Shutdown {
            // Nobody waits for the phones to agree.
            self.abandon(io);
            self.best.clear();
            self.answer(
                &Reply {
                    status: why.status(),
                    ..Reply::default()
                },
                io,
            );
            return;
        }
        self.proceed(io);
    }

    fn response(&mut self, at: u16, response: Message<'_>, flow: Flow, io: &mut Io<'_, '_, '_>) {
        let at = usize::from(at);
        let Some(status) = response.status() else {
            return;
        };
        if status == 100 || status < 200 && self.method != Method::Invite {
            // 16.7 step 5: 100 goes no further than one hop. RFC 4320 4.1: a request
            // that is no INVITE hears no other provisional response.
            return;
        }
        let bytes = match without_via(response, io) {
            Some(bytes) => bytes,
            // 16.7 step 3: it names nobody to go to; but see below.
            None if status >= 300 => Bytes::new(),
            None => return,
        };
        let received = Received { bytes, flow };
        if status < 200 {
            let wanted = self.phase == Phase::Running && !self.won;
            if wanted && !self.ask_reply(&received, io) {
                io.tx.respond(io.server, status, received.bytes, io.cx);
            }
            return;
        }
        if is_success(status) {
            if let Some(branch) = self.branches.get_mut(at) {
                branch.stage = Stage::Done;
            }
            if self.method != Method::Invite && (self.won || self.phase == Phase::Answered) {
                return;
            }
            self.won = true;
            // 16.7 steps 5 and 10.
            self.send_final(status, received, io);
            self.cancel_pending(io);
            return;
        }
        if self.is_done(at) {
            // It was given up before; a group may have waited for it.
            self.proceed(io);
            return;
        }
        if status == 503 && self.next_candidate(at, io) {
            return;
        }
        let candidate = if self.stopped == Some(Stop::Cancel) && status == 408 {
            Candidate {
                status: 487,
                received: None,
            }
        } else if status == 487 && self.stopped.is_none() && self.gave_up(at, io) {
            // 16.8: Timer C ended it. The caller did not cancel, so a 487 would be
            // news of nothing that it did.
            Candidate {
                status: Internal::TimedOut.status(),
                received: None,
            }
        } else {
            // A phone that forgot the other Vias has refused all the same: it counts, in
            // words of our own.
            Candidate {
                status,
                received: (!received.bytes.is_empty()).then_some(received),
            }
        };
        if io.cx.mutant(Mutation::LastResponse) {
            self.best.clear();
        }
        self.fail_branch(at, candidate);
        if status >= 600 {
            // 16.7 step 5: nobody else shall ring, and nobody else be tried.
            self.refused = true;
            self.groups.clear();
            self.cancel_pending(io);
        }
        self.proceed(io);
    }

    fn ended(&mut self, at: u16, why: Ended, io: &mut Io<'_, '_, '_>) {
        let at = usize::from(at);
        if self.is_done(at) {
            self.proceed(io);
            return;
        }
        if self.next_candidate(at, io) {
            return;
        }
        let by_connection = self
            .branches
            .get(at)
            .and_then(|branch| branch.target.flow)
            .is_some_and(|flow| flow.connection.is_some());
        let status = match (self.stopped, why) {
            (Some(stop), _) => stop.status(),
            (None, Ended::TimedOut) => Internal::TimedOut.status(),
            (None, Ended::Unsent) if by_connection => Internal::FlowGone.status(),
            // 16.9
            (None, Ended::Unsent) => Internal::Unavailable.status(),
        };
        self.fail_branch(
            at,
            Candidate {
                status,
                received: None,
            },
        );
        self.proceed(io);
    }

    fn fired(&mut self, timer: UserTimer, io: &mut Io<'_, '_, '_>) {
        match timer {
            UserTimer::Ring => {
                self.ring_timer = None;
                if self.phase == Phase::Running && !self.won {
                    self.abandon(io);
                    self.proceed(io);
                }
            }
            UserTimer::Total => {
                self.total_timer = None;
                if self.phase == Phase::Running && !self.won {
                    self.groups.clear();
                    self.abandon(io);
                    self.proceed(io);
                }
            }
            UserTimer::Decide => {
                self.decide_timer = None;
                match std::mem::replace(&mut self.phase, Phase::Running) {
                    Phase::Failing { .. } => self.deliver(io),
                    Phase::Replying { status, bytes } => {
                        self.answered(io);
                        io.tx.respond(io.server, status, bytes, io.cx);
                    }
                    phase @ (Phase::Running | Phase::Answered) => {
                        let running = phase == Phase::Running;
                        self.phase = phase;
                        if running {
                            self.drop_unanswered();
                            self.proceed(io);
                        }
                    }
                }
            }
        }
    }

    fn done(&self) -> bool {
        // Later copies of a 2xx pass the same hooks as the first one did.
        self.phase == Phase::Answered && !self.armed.iter().any(|armed| armed.reply)
    }

    fn timers(&self) -> [Option<TimerHandle>; 3] {
        [self.decide_timer, self.ring_timer, self.total_timer]
    }
}

/// 16.7 step 3: the response without our Via, which is the topmost.
fn without_via(response: Message<'_>, io: &mut Io<'_, '_, '_>) -> Option<Bytes> {
    let scratch = &mut io.tx.scratch;
    if io.cx.mutant(Mutation::KeepVia) {
        return Some(keep(response.bytes()));
    }
    match strip_via(response, scratch) {
        Some(()) => Some(keep(&scratch.message)),
        None => {
            io.cx.out.dropped(Dropped::NoUpstream);
            None
        }
    }
}

/// Writes the response without its topmost Via into `scratch.message`; `None` when no
/// Via is left, so that there is nobody to send it to.
pub(crate) fn strip_via(
    response: Message<'_>,
    scratch: &mut crate::transaction::Scratch,
) -> Option<()> {
    let top = response.field(HeaderId::Via)?;
    let line = top.line;
    let alone = !response.get(top.value).contains(&b',');
    if alone && response.all(HeaderId::Via).nth(1).is_some() {
        // The usual case: a field of its own, so the rest is copied at once.
        scratch.edits.clear();
        scratch.edits.remove(line).ok()?;
        scratch.message.clear();
        return scratch.edits.write(response, &mut scratch.message).ok();
    }
    let mut vias = response.values(HeaderId::Via);
    let top = vias.next()?;
    vias.next()?;
    scratch.edits.clear();
    scratch.edits.remove_value(response, &top).ok()?;
    scratch.message.clear();
    scratch.edits.write(response, &mut scratch.message).ok()
}
