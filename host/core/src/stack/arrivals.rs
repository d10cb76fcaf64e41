//! What arrives: requests, responses, and what is neither.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use sipbox_sip::stream::FrameErrorKind;
use sipbox_sip::validate::{self, Checked};
use sipbox_sip::{HeaderId, Message, Method, Via};

use super::{Env, Pong, Stack};
use crate::agent::session::DialogKey;
use crate::error::Internal;
use crate::flow::Flow;
use crate::intake::{self, Intake};
use crate::outbox::{Ask, Dropped, Event, Outbox};
use crate::policy::Reply;
use crate::shard::Matched;
use crate::stateless;
use crate::transaction::key::TransactionKey;

impl Stack {
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
        let reply = Reply::of(status);
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
        let judged = intake::judge(
            env,
            &self.ids,
            &self.dialogs,
            message,
            parts,
            bytes,
            flow,
            scratch,
        );
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
        mut intake: Intake,
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
            let reply = Reply::of(Internal::ShuttingDown.status());
            if method != Method::Ack {
                self.refuse(env, message, flow, &reply, out);
            }
            return;
        }
        if stateless {
            out.event(Event::Stateless { tenant, method });
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
        // A To tag makes no dialog: an INVITE that belongs to none that is known counts.
        if method == Method::Invite && intake.facts.dialog.is_none() {
            match self.admit_call(env, tenant) {
                Ok(call) => intake.call = call,
                Err(error) => {
                    env.settings.refuse(tenant);
                    self.refuse(env, message, flow, &error.reply(), out);
                    return;
                }
            }
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
            env.settings.refuse(tenant);
            let its_own = error == Internal::TenantFull;
            out.event(Event::Full { tenant, its_own });
            self.refuse(env, message, flow, &error.reply(), out);
        }
    }

    pub(super) fn refuse(
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
            Some(_) if branch.ping().is_some() => {
                out.pongs.extend(branch.ping().map(|id| Pong {
                    id,
                    status: message.status().unwrap_or_default(),
                }));
            }
            Some(place) if usize::from(place.shard) < self.shards.len() => {
                self.step(usize::from(place.shard), env, out, |shard, cx| {
                    shard.response(place, message, via, flow, cx);
                });
            }
            Some(_) => out.dropped(Dropped::Stray),
        }
    }
}
