//! The questions of a response context and their answers.

use std::sync::Arc;

use sipbox_sip::OwnedMessage;

use super::best::Received;
use super::branch::with_uri;
use super::questions::Question;
use super::{Phase, ResponseContext};
use crate::cx::Mutation;
use crate::decision::{Decision, Relay, Ruling};
use crate::error::Internal;
use crate::ids::AskId;
use crate::outbox::Ask;
use crate::policy::{Facts, Failure, Reply};
use crate::stack::ReplyVerdict;
use crate::transaction::{UserTimer, Wording};
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
    /// Asks what is due, unless an answer is waited for: the end of each step. A question
    /// that the step has made idle is over, and its answer will come too late.
    pub(crate) fn ask_next(&mut self, io: &mut Io<'_, '_, '_>) {
        if self.questions.is_idle() {
            io.disarm(&mut self.decide_timer);
            return;
        }
        let mut open = self.questions.take_open();
        open.retain(|open| self.waits_for(&open.question));
        self.questions.set_open(open);
        while !self.questions.is_open() || io.cx.mutant(Mutation::OverlapQuestions) {
            let Some(question) = self.questions.pop() else {
                break;
            };
            if !self.waits_for(&question) {
                continue;
            }
            let serial = self.questions.number();
            match self.word(&question, io.ask_id(serial), io) {
                Some(ask) => {
                    io.cx.out.asks.push(ask);
                    self.questions.asked(serial, question);
                    self.watch(io);
                }
                None => self.settle(question, io),
            }
        }
        if !self.questions.is_open() {
            io.disarm(&mut self.decide_timer);
        }
    }

    /// Whether the answer still matters.
    fn waits_for(&self, question: &Question) -> bool {
        match question {
            Question::Branch(at) => self.is_asked_about(*at),
            // 16.7 step 5: every 2xx of an INVITE goes upstream, however late.
            Question::Reply { status, .. } => *status >= 200 || self.phase != Phase::Answered,
            Question::Failure => self.phase == Phase::Failing,
        }
    }

    /// The question with all that the policies are told; `None`: there is no message
    /// to show.
    fn word(&mut self, question: &Question, id: AskId, io: &mut Io<'_, '_, '_>) -> Option<Ask> {
        let tenant = self.facts.tenant;
        let mut facts = self.facts_now(io);
        let (state, armed) = (self.state.clone(), self.armed.clone());
        Some(match question {
            Question::Branch(at) => {
                let target = self.branches.get(*at)?.target.clone();
                Ask::Branch {
                    id,
                    tenant,
                    request: with_uri(&self.request, &target.uri, &mut io.tx.scratch.edits),
                    facts: Arc::new(facts),
                    target: Box::new(target),
                    state,
                    armed,
                }
            }
            Question::Reply { received, .. } => {
                facts.flow = received.flow;
                if let Some(listener) = io.cx.env.settings.listener(received.flow.listener) {
                    facts.listener_name = Arc::clone(&listener.name);
                }
                Ask::Reply {
                    id,
                    tenant,
                    response: received.wording.message()?,
                    request: self.request.clone(),
                    facts: Arc::new(facts),
                    state,
                    armed,
                }
            }
            Question::Failure => {
                let best = self.best.get()?;
                let received = best.received.as_ref();
                let response = received.and_then(|received| received.wording.message());
                let reason = match &response {
                    Some(response) => {
                        String::from_utf8_lossy(response.as_ref().reason()).into_owned()
                    }
                    None => sipbox_sip::status::reason_phrase(best.status).to_owned(),
                };
                let failure = Failure {
                    status: best.status,
                    reason,
                    failed: self.failed.clone(),
                    cancelled: self.stopped.is_some(),
                };
                self.rounds = self.rounds.saturating_add(1);
                Ask::Failure {
                    id,
                    tenant,
                    request: self.request.clone(),
                    response,
                    facts: Arc::new(facts),
                    failure: Box::new(failure),
                    state,
                    armed,
                }
            }
        })
    }

    /// The facts of the request for a hook that is called later than its first.
    fn facts_now(&self, io: &Io<'_, '_, '_>) -> Facts {
        Facts {
            now: io.cx.env.wall,
            ..Facts::clone(&self.facts)
        }
    }

    /// A question that is never answered must not hold the transaction for ever.
    fn watch(&mut self, io: &mut Io<'_, '_, '_>) {
        io.disarm(&mut self.decide_timer);
        let after = io.cx.env.settings.timers.decide;
        self.decide_timer = Some(io.arm(UserTimer::Decide, after));
    }

    /// Whether the answer to this question is waited for.
    pub(crate) fn is_asked(&self, serial: u32) -> bool {
        self.questions.is_asked(serial)
    }

    /// Nobody answered in time: what has been asked, and what waits behind it, goes on
    /// without the policies.
    pub(super) fn give_up_questions(&mut self, io: &mut Io<'_, '_, '_>) {
        for question in self.questions.take_all() {
            if self.waits_for(&question) {
                self.settle(question, io);
            }
        }
    }

    /// Goes on without an answer.
    fn settle(&mut self, question: Question, io: &mut Io<'_, '_, '_>) {
        match question {
            Question::Branch(at) => self.lose(at, Internal::Undecided),
            Question::Reply { status, received } => self.pass_on(status, received.wording, io),
            Question::Failure => self.deliver(io),
        }
    }

    /// Asks the policies that want to know of a failure.
    pub(super) fn ask_failure(&mut self) {
        self.phase = Phase::Failing;
        self.questions.push(Question::Failure);
    }

    /// Whether policies want to see responses.
    pub(super) fn shows_replies(&self) -> bool {
        self.armed.iter().any(|armed| armed.reply)
    }

    /// Asks the policies that want to see responses. The one that decides the
    /// transaction always gets its turn.
    pub(super) fn ask_reply(&mut self, status: u16, received: Received, decides: bool) {
        if decides || !self.questions.is_crowded() {
            self.questions.push(Question::Reply { status, received });
        }
    }

    /// The chain's answer to `Ask::Reply`.
    pub(crate) fn reply_verdict(
        &mut self,
        serial: u32,
        verdict: ReplyVerdict,
        io: &mut Io<'_, '_, '_>,
    ) -> bool {
        let Some(Question::Reply { status, .. }) = self.questions.answered(serial) else {
            return false;
        };
        self.remember(verdict.state, io);
        if verdict.forward || status >= 200 {
            self.pass_on(status, verdict.response.into(), io);
        }
        true
    }

    /// A response that the policies have seen goes upstream.
    fn pass_on(&mut self, status: u16, response: Wording, io: &mut Io<'_, '_, '_>) {
        if status >= 200 && self.phase == Phase::Replying {
            self.answered(io);
        }
        io.tx.respond(io.server, status, response, io.cx);
    }

    /// Whether the answer to `Ask::Failure` counts, which is about to be given. It has as
    /// much time again, to store what it wrote.
    pub(crate) fn settle_failure(&mut self, serial: u32, io: &mut Io<'_, '_, '_>) -> bool {
        let counts = self.questions.settle(serial);
        if counts {
            self.watch(io);
        }
        counts
    }

    /// The chain's answer to `Ask::Failure`.
    pub(crate) fn failure_verdict(
        &mut self,
        serial: u32,
        decision: Decision,
        io: &mut Io<'_, '_, '_>,
    ) -> AfterFailure {
        let Some(Question::Failure) = self.questions.answered(serial) else {
            return AfterFailure::Late;
        };
        self.remember(decision.state, io);
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
}
