//! What a response context learns, and what it makes of it.

use bytes::Bytes;
use sipbox_sip::{Message, Method};

use super::best::{Candidate, Received};
use super::branch::Stage;
use super::via::without_via;
use super::{Phase, ResponseContext};
use crate::cx::Mutation;
use crate::error::Internal;
use crate::flow::Flow;
use crate::policy::Reply;
use crate::transaction::{UserTimer, is_success};
use crate::user::{Ended, Io, Stop, TransactionUser};
use crate::wheel::TimerHandle;

impl TransactionUser for ResponseContext {
    fn cancelled(&mut self, why: Stop, io: &mut Io<'_, '_, '_>) {
        if self.won || matches!(self.phase, Phase::Answered | Phase::Replying) {
            // 9.2: a final response is under way already.
            return;
        }
        self.stopped.get_or_insert(why);
        self.groups.clear();
        if self.phase == Phase::Failing {
            if self.questions.is_settled() {
                // It was first, and will find that nobody is left to be tried.
                return;
            }
            // The policy's answer would come too late.
            self.best.clear();
            self.answer(&Reply::of(why.status()), io);
            return;
        }
        self.cancel_pending(io);
        if why == Stop::Shutdown {
            // Nobody waits for the phones to agree.
            self.abandon(io);
            self.best.clear();
            self.answer(&Reply::of(why.status()), io);
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
        // The dialog that it may begin reads it, and so do policies.
        let read = self.state.dialog.is_some() || self.shows_replies();
        let wording = match without_via(response, read, io) {
            Some(wording) => wording,
            // 16.7 step 3: it names nobody to go to; but see below.
            None if status >= 300 => Bytes::new().into(),
            None => return,
        };
        let received = Received { wording, flow };
        if status < 200 {
            if self.phase != Phase::Running || self.won {
                return;
            }
            if self.shows_replies() {
                self.ask_reply(status, received, false);
            } else {
                io.tx.respond(io.server, status, received.wording, io.cx);
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
                received: (!received.wording.bytes().is_empty()).then_some(received),
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
            UserTimer::Silence => {
                self.silence_timer = None;
                if self.phase == Phase::Running && !self.won {
                    self.leave_silent(io);
                    self.proceed(io);
                }
            }
            UserTimer::LookUp => {
                self.lookup_timer = None;
                self.drop_unresolved();
                self.proceed(io);
            }
            UserTimer::Decide => {
                io.disarm(&mut self.decide_timer);
                self.give_up_questions(io);
                self.proceed(io);
            }
        }
    }

    fn done(&self) -> bool {
        // Later copies of a 2xx pass the same hooks as the first one did.
        self.phase == Phase::Answered && !self.armed.iter().any(|armed| armed.reply)
    }

    fn timers(&self) -> [Option<TimerHandle>; 5] {
        [
            self.decide_timer,
            self.lookup_timer,
            self.ring_timer,
            self.total_timer,
            self.silence_timer,
        ]
    }
}
