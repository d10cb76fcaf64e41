//! The questions of a response context and their answers: `on-reply` and
//! `on-failure`. (`on-branch` is asked where branches begin.)

use std::sync::Arc;

use sipbox_sip::{Method, OwnedMessage};

use super::best::Received;
use super::{Phase, ResponseContext};
use crate::decision::{Decision, Relay, Ruling};
use crate::outbox::Ask;
use crate::policy::{Facts, Failure, Reply};
use crate::stack::ReplyVerdict;
use crate::transaction::{UserTimer, is_success, keep};
use crate::user::Io;

/// What became of an answer to `Ask::Failure`.
pub(crate) enum AfterFailure {
    /// It came too late.
    Late,
    CarriedOut,
    /// The failure is none: the policy answers as a user agent would.
    Answer(OwnedMessage, Reply),
}

impl ResponseContext {
    /// The chain's answer to `Ask::Failure`.
    pub(crate) fn failure_verdict(
        &mut self,
        serial: u32,
        decision: Decision,
        io: &mut Io<'_, '_, '_>,
    ) -> AfterFailure {
        if self.phase != (Phase::Failing { serial }) {
            return AfterFailure::Late;
        }
        io.disarm(&mut self.decide_timer);
        self.state = decision.state;
        self.armed = decision.armed;
        if self.stopped.is_some() {
            // 9.2: the caller wants none of it any more.
            self.deliver(io);
            return AfterFailure::CarriedOut;
        }
        match decision.ruling {
            Ruling::Relay(relay) => {
                self.request = decision.request;
                self.relay(relay, io);
            }
            Ruling::Reply(reply) | Ruling::ReplyStateless(reply) if reply.status < 300 => {
                self.answered(io);
                return AfterFailure::Answer(self.request.clone(), reply);
            }
            Ruling::Reply(reply) | Ruling::ReplyStateless(reply) => self.answer(&reply, io),
            Ruling::Redirect(targets) => self.answer(&crate::agent::redirect(&targets), io),
            Ruling::ForwardStateless(target) => {
                self.request = decision.request;
                self.relay(
                    Relay {
                        groups: vec![vec![target]],
                        ..Relay::default()
                    },
                    io,
                );
            }
            Ruling::Drop => self.finish_silently(io),
            Ruling::Best => self.deliver(io),
        }
        AfterFailure::CarriedOut
    }

    /// The chain's answer to `Ask::Reply`.
    pub(crate) fn reply_verdict(&mut self, verdict: ReplyVerdict, io: &mut Io<'_, '_, '_>) -> bool {
        let response = verdict.response.as_ref();
        let Some(status) = response.status() else {
            return false;
        };
        self.state = verdict.state;
        if status < 200 {
            if !verdict.forward || self.phase == Phase::Answered {
                return true;
            }
        } else if matches!(self.phase, Phase::Replying { .. }) {
            self.answered(io);
        } else if !(is_success(status) && self.method == Method::Invite) {
            return false;
        }
        let bytes = keep(response.bytes());
        io.tx.respond(io.server, status, bytes, io.cx);
        true
    }

    /// Asks the policies that want to know of a failure.
    pub(super) fn ask_failure(&mut self, io: &mut Io<'_, '_, '_>) {
        let Some(best) = self.best.get() else { return };
        let response = best
            .received
            .clone()
            .and_then(|received| OwnedMessage::parse(received.bytes).ok());
        let reason = match &response {
            Some(response) => String::from_utf8_lossy(response.as_ref().reason()).into_owned(),
            None => sipbox_sip::status::reason_phrase(best.status).to_owned(),
        };
        let failure = Failure {
            status: best.status,
            reason,
            failed: self.failed.clone(),
            cancelled: self.stopped.is_some(),
        };
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        self.phase = Phase::Failing { serial };
        self.rounds = self.rounds.saturating_add(1);
        self.watch(io);
        io.cx.out.asks.push(Ask::Failure {
            id: io.ask_id(serial),
            tenant: self.facts.tenant,
            request: self.request.clone(),
            response,
            facts: Arc::new(self.facts_now(io)),
            failure: Box::new(failure),
            state: self.state.clone(),
            armed: self.armed.clone(),
        });
    }

    /// `false`: nobody wants to see it.
    pub(super) fn ask_reply(&mut self, received: &Received, io: &mut Io<'_, '_, '_>) -> bool {
        if !self.armed.iter().any(|armed| armed.reply) {
            return false;
        }
        let Ok(response) = OwnedMessage::parse(received.bytes.clone()) else {
            return false;
        };
        let mut facts = self.facts_now(io);
        facts.flow = received.flow;
        if let Some(listener) = io.cx.env.settings.listener(received.flow.listener) {
            facts.listener_name = Arc::clone(&listener.name);
        }
        self.serial = self.serial.wrapping_add(1);
        io.cx.out.asks.push(Ask::Reply {
            id: io.ask_id(self.serial),
            tenant: self.facts.tenant,
            response,
            request: self.request.clone(),
            facts: Arc::new(facts),
            state: self.state.clone(),
            armed: self.armed.clone(),
        });
        true
    }

    /// The facts of the request for a hook that is called later than its first.
    pub(super) fn facts_now(&self, io: &Io<'_, '_, '_>) -> Facts {
        Facts {
            now: io.cx.env.wall,
            ..Facts::clone(&self.facts)
        }
    }

    /// A question that is never answered must not hold the transaction for ever.
    pub(super) fn watch(&mut self, io: &mut Io<'_, '_, '_>) {
        io.disarm(&mut self.decide_timer);
        let after = io.cx.env.settings.timers.decide;
        self.decide_timer = Some(io.arm(UserTimer::Decide, after));
    }
}
