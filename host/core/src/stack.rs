//! The whole element: shards behind their locks, and the calls by which a driver
//! feeds it. Each call takes one shard's lock for one step of state; none holds two, and
//! nothing but state is touched under a lock.
//!
//! Inputs are messages ([`Stack::receive`]), verdicts, resolved names, failed sends
//! and the passing of time ([`Stack::tick`]). Outputs are in the [`Outbox`]: after
//! each call the driver sends, asks and resolves what stands there, in that order.
//! Time never goes backwards.

mod types;
mod unsent;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sipbox_sip::stream::FrameErrorKind;
use sipbox_sip::validate::{self, Checked};
use sipbox_sip::{HeaderId, Message, Method, Via};

use crate::agent::session::DialogKey;
use crate::cx::Cx;
use crate::decision::Decision;
use crate::error::Internal;
use crate::flow::Flow;
use crate::ids::{AskId, Ids, ResolveToken, StatelessId};
use crate::intake::{self, Intake};
use crate::outbox::{Ask, Candidates, Dropped, Event, Outbox, ResolveError};
use crate::policy::{Facts, Reply};
use crate::shard::{self, Carried, Matched, Shard};
use crate::stateless::{self, Forward, Left, Outcome};
use crate::time::Time;
use crate::transaction::key::TransactionKey;

pub use types::{BranchVerdict, Counts, Env, ReplyVerdict, Rng, StackOptions};

/// The element.
pub struct Stack {
    shards: Box<[Mutex<Shard>]>,
    ids: Ids,
    draining: AtomicBool,
    /// How many sessions the shards have: while there are none no ACK is looked up.
    sessions: AtomicUsize,
    #[cfg(test)]
    pub(crate) mutation: Option<crate::cx::Mutation>,
}

impl Stack {
    /// An element without any state.
    #[must_use]
    pub fn new(options: StackOptions) -> Self {
        let shards = options.shards.clamp(1, crate::ids::MAX_SHARDS);
        let numbers = 0..u8::try_from(shards).unwrap_or(u8::MAX);
        Self {
            shards: numbers
                .map(|number| Mutex::new(Shard::new(number)))
                .collect(),
            ids: Ids::new(options.key, options.node, options.boot),
            draining: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            #[cfg(test)]
            mutation: None,
        }
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// A message arrived. `message` was indexed from `bytes`.
    pub fn receive(
        &self,
        env: &mut Env<'_>,
        message: Message<'_>,
        bytes: &Bytes,
        flow: Flow,
        out: &mut Outbox,
    ) {
        let limits = validate::Limits {
            datagram: !flow.transport.reliable(),
            ..validate::Limits::default()
        };
        match validate::check(message, &limits) {
            Ok(checked) if message.is_request() => {
                self.request(env, message, &checked, bytes, flow, out);
            }
            Ok(checked) => self.response(env, message, &checked.via, flow, out),
            Err(fault) if fault.answerable => {
                let reply = Reply {
                    status: fault.status,
                    reason: fault.reason.to_owned(),
                    ..Reply::default()
                };
                self.refuse(env, message, flow, &reply, out);
            }
            Err(_) => out.dropped(Dropped::Unanswerable),
        }
    }

    /// Bytes arrived that are no message.
    pub fn unparsable(&self, out: &mut Outbox) {
        out.dropped(Dropped::Garbage);
    }

    /// The head of a message arrived on a stream, but where its body ends cannot be
    /// told: a request is answered (RFC 3261 18.3: 400; 513 if it is too long), and
    /// goes nowhere.
    pub fn unframed(
        &self,
        env: &mut Env<'_>,
        head: Message<'_>,
        kind: FrameErrorKind,
        flow: Flow,
        out: &mut Outbox,
    ) {
        if !head.is_request() || head.method() == Method::Ack {
            out.dropped(Dropped::Unanswerable);
            return;
        }
        let status = match kind {
            FrameErrorKind::HeadTooLong | FrameErrorKind::BodyTooLong => 513,
            _ => 400,
        };
        let reply = Reply {
            status,
            ..Reply::default()
        };
        self.refuse(env, head, flow, &reply, out);
    }

    fn request(
        &self,
        env: &mut Env<'_>,
        message: Message<'_>,
        checked: &Checked<'_>,
        bytes: &Bytes,
        flow: Flow,
        out: &mut Outbox,
    ) {
        let Checked { via, parts } = checked;
        let key = TransactionKey::of(self.ids.key(), message, via);
        let shard = key.shard(self.shards.len());
        let matched = self.step(shard, env, out, |shard, cx| match message.method() {
            Method::Ack => shard.ack(&key, message, cx),
            Method::Cancel => shard.cancel(key, message, via, flow, cx),
            _ => shard.retransmission(&key, cx),
        });
        if matched != Some(Matched::No) {
            return;
        }
        match message.method() {
            Method::Ack
                if self.acknowledges_session(env, message, out)
                    || self.acknowledges_us(&key, message) =>
            {
                out.dropped(Dropped::AbsorbedAck);
                return;
            }
            _ => {}
        }
        let scratch = &mut out.scratch;
        let judged = intake::judge(env, &self.ids, message, parts, bytes, flow, scratch);
        match judged {
            Ok(intake) => self.admit(env, key, message, via, intake, flow, out),
            Err(_) if message.method() == Method::Ack => out.dropped(Dropped::LostAck),
            Err(reply) => self.refuse(env, message, flow, &reply, out),
        }
    }

    /// A request that nobody has decided about yet.
    #[allow(
        clippy::too_many_arguments,
        reason = "one message and what is known about it"
    )]
    fn admit(
        &self,
        env: &mut Env<'_>,
        key: TransactionKey,
        message: Message<'_>,
        via: &Via<'_>,
        intake: Intake,
        flow: Flow,
        out: &mut Outbox,
    ) {
        let method = message.method();
        let tenant = intake.tenant;
        // 16.10: a CANCEL that comes here matches nothing. It may belong to an INVITE that
        // was forwarded statelessly, which only its policies can know.
        let stateless = matches!(method, Method::Ack | Method::Cancel)
            || env.settings.is_stateless(flow.listener, tenant, method);
        let new = !intake.facts.in_dialog && method != Method::Cancel;
        if new && self.draining.load(Ordering::Relaxed) {
            let reply = Reply {
                status: Internal::ShuttingDown.status(),
                ..Reply::default()
            };
            if method != Method::Ack {
                self.refuse(env, message, flow, &reply, out);
            }
            return;
        }
        if stateless {
            out.event(Event::Request { tenant, method });
            let id = key.stateless(intake.loop_hash);
            let Intake { request, facts, .. } = intake;
            out.asks.push(Ask::Stateless {
                id,
                tenant,
                request,
                facts,
            });
            return;
        }
        let shard = key.shard(self.shards.len());
        let begun = self.step(shard, env, out, |shard, cx| {
            // Another worker may have seen a copy of it meanwhile.
            match shard.retransmission(&key, cx) {
                Matched::Absorbed => Ok(()),
                Matched::No => shard.begin(key, via, method, intake, flow, cx),
            }
        });
        if let Some(Err(error)) = begun {
            let reply = Reply {
                status: error.status(),
                ..Reply::default()
            };
            self.refuse(env, message, flow, &reply, out);
        }
    }

    fn refuse(
        &self,
        env: &Env<'_>,
        message: Message<'_>,
        flow: Flow,
        reply: &Reply,
        out: &mut Outbox,
    ) {
        stateless::refuse(message, flow, reply, env.settings, &self.ids, out);
    }

    /// An ACK for a response that we sent and forgot (8.2.7).
    fn acknowledges_us(&self, key: &TransactionKey, message: Message<'_>) -> bool {
        let own = self.ids.to_tag(key.base);
        intake::tag(message, HeaderId::To) == Some(own.as_str().as_bytes())
    }

    /// The ACK for a 2xx of ours (13.3.1.4).
    fn acknowledges_session(
        &self,
        env: &mut Env<'_>,
        message: Message<'_>,
        out: &mut Outbox,
    ) -> bool {
        if self.sessions.load(Ordering::Acquire) == 0 {
            return false;
        }
        let dialog = DialogKey::of(message, &self.ids);
        let shard = dialog.shard(self.shards.len());
        let acknowledged = self.step(shard, env, out, |shard, cx| {
            shard.tx.acknowledge_session(dialog, cx)
        });
        acknowledged == Some(true)
    }

    /// Hands what was answered to the shards of the dialogs.
    fn begin_sessions(&self, env: &mut Env<'_>, out: &mut Outbox) {
        while let Some(answered) = out.answered.pop() {
            let shard = answered.dialog.shard(self.shards.len());
            self.step(shard, env, out, |shard, cx| {
                shard.tx.begin_session(answered, cx);
            });
        }
    }

    fn response(
        &self,
        env: &mut Env<'_>,
        message: Message<'_>,
        via: &Via<'_>,
        flow: Flow,
        out: &mut Outbox,
    ) {
        let Some(branch) = via.branch().and_then(|branch| self.ids.read_branch(branch)) else {
            out.dropped(Dropped::ForeignVia);
            return;
        };
        if !branch.current {
            out.dropped(Dropped::Stray);
            return;
        }
        // 18.1.2: sent-by must be one of ours too. A transaction asks the settings
        // that it began with, since a reload may have changed the listeners.
        match branch.place {
            None if env
                .settings
                .is_our_sent_by(&via.host, via.port_or_default()) =>
            {
                let mut cx = self.cx(env, out);
                stateless::respond(message, flow, &mut cx);
            }
            None => out.dropped(Dropped::ForeignVia),
            Some(place) if usize::from(place.shard) < self.shards.len() => {
                self.step(usize::from(place.shard), env, out, |shard, cx| {
                    shard.response(place, message, via, flow, cx);
                });
            }
            Some(_) => out.dropped(Dropped::Stray),
        }
    }

    /// The chain will have to wait: an INVITE is told so (100).
    pub fn trying(&self, env: &mut Env<'_>, ask: AskId, out: &mut Outbox) {
        self.step(usize::from(ask.place.shard), env, out, |shard, cx| {
            shard.trying(shard::key(ask.place), cx);
        });
    }

    /// Whether the verdict that the chain has reached counts. If it does, it has won: a
    /// CANCEL or shutdown that comes now waits for it. To be asked before anything is
    /// written that the policies staged with an answer to `Ask::Request` or
    /// `Ask::Failure`; without writes the answer may be given at once.
    pub fn settle(&self, env: &mut Env<'_>, ask: AskId, out: &mut Outbox) -> bool {
        let counts = self.step(usize::from(ask.place.shard), env, out, |shard, cx| {
            shard.settle(ask, cx)
        });
        in_time(counts, out)
    }

    /// The answer to `Ask::Request`. `false`: it came too late and counts for nothing,
    /// because the transaction was cancelled, timed out or shut down meanwhile.
    pub fn request_verdict(
        &self,
        env: &mut Env<'_>,
        ask: AskId,
        decision: Decision,
        out: &mut Outbox,
    ) -> bool {
        let done = self.step(usize::from(ask.place.shard), env, out, |shard, cx| {
            shard.request_verdict(ask, decision, cx)
        });
        let in_time = in_time(
            done.as_ref()
                .map(|carried| !matches!(carried, Carried::Late)),
            out,
        );
        self.begin_sessions(env, out);
        if let Some(Carried::Forward(forward)) = done {
            self.send_stateless(env, *forward, out);
        }
        in_time
    }

    /// The answer to `Ask::Failure`; see [`Stack::request_verdict`].
    pub fn failure_verdict(
        &self,
        env: &mut Env<'_>,
        ask: AskId,
        decision: Decision,
        out: &mut Outbox,
    ) -> bool {
        let done = self.step(usize::from(ask.place.shard), env, out, |shard, cx| {
            shard.failure_verdict(ask, decision, cx)
        });
        self.begin_sessions(env, out);
        in_time(done, out)
    }

    /// The answer to `Ask::Branch`; see [`Stack::request_verdict`].
    pub fn branch_verdict(
        &self,
        env: &mut Env<'_>,
        ask: AskId,
        verdict: BranchVerdict,
        out: &mut Outbox,
    ) -> bool {
        let done = self.step(usize::from(ask.place.shard), env, out, |shard, cx| {
            shard.branch_verdict(ask, verdict, cx)
        });
        in_time(done, out)
    }

    /// The answer to `Ask::Reply`; see [`Stack::request_verdict`].
    pub fn reply_verdict(
        &self,
        env: &mut Env<'_>,
        ask: AskId,
        verdict: ReplyVerdict,
        out: &mut Outbox,
    ) -> bool {
        let done = self.step(usize::from(ask.place.shard), env, out, |shard, cx| {
            shard.reply_verdict(ask, verdict, cx)
        });
        in_time(done, out)
    }

    /// The answer to `Ask::Stateless`.
    pub fn forward_stateless(
        &self,
        env: &mut Env<'_>,
        id: StatelessId,
        facts: &Arc<Facts>,
        decision: Decision,
        out: &mut Outbox,
    ) {
        let request = decision.request.clone();
        match stateless::outcome(id, facts, decision) {
            Outcome::Forward(forward) => self.send_stateless(env, *forward, out),
            Outcome::Reply(reply) => self.refuse(env, request.as_ref(), facts.flow, &reply, out),
            Outcome::Nothing(why) => out.dropped(why),
        }
    }

    fn send_stateless(&self, env: &mut Env<'_>, forward: Forward, out: &mut Outbox) {
        let mut scratch = std::mem::take(&mut out.scratch);
        let hash = forward.id.loop_hash;
        let left = stateless::forward(forward, env.settings, &self.ids, &mut scratch, out);
        out.scratch = scratch;
        if !matches!(left, Left::Nothing) {
            // Any shard will do.
            let shard = usize::try_from(hash).unwrap_or(0) % self.shards.len();
            self.step(shard, env, out, |shard, cx| shard.tx.carry_on(left, cx));
        }
    }

    /// The answer to a [`crate::outbox::Resolve`].
    pub fn resolved(
        &self,
        env: &mut Env<'_>,
        token: ResolveToken,
        result: Result<Candidates, ResolveError>,
        out: &mut Outbox,
    ) {
        self.step(usize::from(token.place.shard), env, out, |shard, cx| {
            shard.resolved(token, result, cx);
        });
    }

    /// Fires what is due in one shard, one timer for each time that the lock is
    /// taken.
    pub fn tick(&self, env: &mut Env<'_>, shard: usize, out: &mut Outbox) {
        while self.step(shard, env, out, Shard::fire) == Some(true) {}
    }

    /// When [`Stack::tick`] has something to do for the shard, at the earliest.
    #[must_use]
    pub fn next_deadline(&self, shard: usize) -> Option<Time> {
        self.peek(shard, |shard| shard.tx.wheel.next_deadline())
            .flatten()
    }

    /// Whether any timer of the shard is armed.
    #[must_use]
    pub fn armed(&self, shard: usize) -> bool {
        self.peek(shard, |shard| shard.tx.wheel.armed() > 0)
            .unwrap_or(false)
    }

    /// Numbers of the moment.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for shard in 0..self.shards.len() {
            self.peek(shard, |shard| {
                counts.servers += shard.tx.servers.len();
                counts.unfinished += shard
                    .tx
                    .servers
                    .iter()
                    .filter(|(_, server)| !server.answered())
                    .count();
                counts.open += shard.tx.open();
                counts.clients += shard.tx.clients.len();
                counts.timers += shard.tx.wheel.armed();
                counts.waiting += shard.tx.waiting.len();
                counts.sessions += shard.tx.sessions.len();
            });
        }
        counts
    }

    /// From now on initial requests get 503; what is in flight goes on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Ends what is in flight: requests that are being decided or ring get 503, and
    /// their branches a CANCEL. Timers go on until the peers have confirmed.
    pub fn shutdown(&self, env: &mut Env<'_>, out: &mut Outbox) {
        self.drain();
        for shard in 0..self.shards.len() {
            self.step(shard, env, out, Shard::shutdown);
        }
    }

    /// One step of state under one lock. A shard whose last step panicked is
    /// mended first: the transaction of that step is ended, the others live on.
    fn step<R>(
        &self,
        shard: usize,
        env: &mut Env<'_>,
        out: &mut Outbox,
        step: impl FnOnce(&mut Shard, &mut Cx<'_, '_>) -> R,
    ) -> Option<R> {
        let mutex = self.shards.get(shard)?;
        let mut guard = match mutex.lock() {
            Ok(guard) => guard,
            Err(poisoned) => {
                mutex.clear_poison();
                let mut guard = poisoned.into_inner();
                guard.recover(out);
                guard
            }
        };
        let mut cx = self.cx(env, out);
        Some(step(&mut guard, &mut cx))
    }

    fn peek<R>(&self, shard: usize, read: impl FnOnce(&Shard) -> R) -> Option<R> {
        let guard = self
            .shards
            .get(shard)?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some(read(&guard))
    }

    fn cx<'a, 'e>(&'a self, env: &'a mut Env<'e>, out: &'a mut Outbox) -> Cx<'a, 'e> {
        Cx {
            env,
            ids: &self.ids,
            out,
            sessions: &self.sessions,
            #[cfg(test)]
            mutation: self.mutation,
        }
    }
}

fn in_time(done: Option<bool>, out: &mut Outbox) -> bool {
    let done = done.unwrap_or(false);
    if !done {
        out.dropped(Dropped::LateVerdict);
    }
    done
}
