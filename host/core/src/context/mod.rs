//! The response context (RFC 3261 16.7): the transaction user of a relayed
//! request. It tries groups of targets in series, the targets of a group in
//! parallel, and decides which response goes upstream.

pub(crate) mod best;
mod branch;
mod breadth;
mod events;
mod hooks;
mod questions;
mod silence;
mod via;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sipbox_sip::{Method, OwnedMessage};
use smallvec::SmallVec;

use crate::cx::Mutation;
use crate::decision::{ArmedSet, Relay, ResolvedTarget};
use crate::dialog;
use crate::error::Internal;
use crate::lease::Lease;
use crate::policy::{CallState, Facts, FailedTarget, Reply};
use crate::transaction::UserTimer;
use crate::user::{Deciding, Io, Stop};
use crate::wheel::TimerHandle;

pub(crate) use hooks::AfterFailure;
pub(crate) use via::strip_via;

use best::{Best, Candidate, Received, upstream_status};
use branch::{Branch, Stage};
use breadth::shares;
use questions::Questions;

/// Where the context stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Branches are out, or to be asked about.
    Running,
    /// `on-failure` is asked.
    Failing,
    /// `on-reply` is asked about the final response that will go upstream.
    Replying,
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
    /// How long a branch may go without any response; zero: Timer B or F alone.
    silence: Duration,
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
    questions: Questions,
    /// The open question has not been answered.
    decide_timer: Option<TimerHandle>,
    /// A name has not been resolved.
    lookup_timer: Option<TimerHandle>,
    ring_timer: Option<TimerHandle>,
    total_timer: Option<TimerHandle>,
    silence_timer: Option<TimerHandle>,
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
            silence: Duration::ZERO,
            branches: SmallVec::new(),
            group_start: 0,
            best: Best::default(),
            failed: Vec::new(),
            rounds: 0,
            stopped: None,
            won: false,
            refused: false,
            questions: Questions::default(),
            decide_timer: None,
            lookup_timer: None,
            ring_timer: None,
            total_timer: None,
            silence_timer: None,
        }
    }

    pub(crate) fn request(&self) -> &OwnedMessage {
        &self.request
    }

    /// The leases that it holds.
    pub(crate) fn leases(&self) -> &[Lease] {
        &self.state.leases
    }

    /// What its policies left behind; a dialog holds their leases as well.
    fn remember(&mut self, state: CallState, io: &mut Io<'_, '_, '_>) {
        if state.leases != self.state.leases {
            for lease in &state.leases {
                lease.commit();
            }
            if let Some(tie) = &state.dialog {
                io.cx.out.dialog_events.push(dialog::Event::Leases {
                    id: tie.id,
                    leases: state.leases.clone(),
                });
            }
        }
        self.state = state;
    }

    /// The bytes that it keeps beside the request.
    pub(crate) fn holds(&self) -> usize {
        let branches: usize = self.branches.iter().map(Branch::holds).sum();
        let targets = self.groups.iter().flatten().map(ResolvedTarget::holds);
        branches + targets.sum::<usize>() + self.best.holds() + self.state.holds()
    }

    /// Carries out a relay.
    pub(crate) fn relay(&mut self, relay: Relay, io: &mut Io<'_, '_, '_>) {
        self.phase = Phase::Running;
        self.groups = relay.groups;
        self.groups.retain(|group| !group.is_empty());
        self.groups.reverse();
        let next_hop = self.state.nat.next_hop.take();
        if self.groups.is_empty() {
            // Along the route set, or else to the Request-URI.
            self.groups.push(vec![ResolvedTarget {
                next_hop: next_hop.map(to_bytes).unwrap_or_default(),
                q: 1000,
                ..ResolvedTarget::default()
            }]);
        }
        self.record_route = relay.record_route;
        self.ring = Duration::from_millis(u64::from(relay.ring_timeout));
        self.silence = Duration::from_millis(u64::from(relay.fr_timeout));
        io.disarm(&mut self.silence_timer);
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
            self.ask_failure();
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
            _ => self.answer(&Reply::of(status), io),
        }
    }

    /// A final response of our own.
    fn answer(&mut self, reply: &Reply, io: &mut Io<'_, '_, '_>) {
        self.answered(io);
        io.reply(self.request.as_ref(), reply);
    }

    /// A final response of a branch, past the policies that want to see it.
    fn send_final(&mut self, status: u16, received: Received, io: &mut Io<'_, '_, '_>) {
        let first = !matches!(self.phase, Phase::Answered | Phase::Replying);
        if self.shows_replies() {
            if first {
                self.phase = Phase::Replying;
            }
            self.ask_reply(status, received, first);
            return;
        }
        if first {
            self.answered(io);
        }
        io.tx.respond(io.server, status, received.wording, io.cx);
    }

    fn answered(&mut self, io: &mut Io<'_, '_, '_>) {
        self.phase = Phase::Answered;
        for timer in [
            &mut self.lookup_timer,
            &mut self.ring_timer,
            &mut self.total_timer,
            &mut self.silence_timer,
        ] {
            io.disarm(timer);
        }
        self.groups = Vec::new();
        self.best.clear();
        if self.state.dialog.is_none() {
            // They end with the transaction, for whose peers it is over.
            for lease in self.state.leases.drain(..) {
                lease.end();
            }
        }
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
                Stage::Asking | Stage::Resolving => branch.stage = Stage::Done,
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

pub(crate) fn to_bytes(text: Box<str>) -> Bytes {
    Bytes::from(text.into_boxed_bytes())
}
