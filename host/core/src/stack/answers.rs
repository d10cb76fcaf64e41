//! Answers to what the stack has asked: verdicts of the policy chains, names.

use std::sync::Arc;

use sipbox_sip::OwnedMessage;

use super::{BranchVerdict, Env, ReplyVerdict, Stack, Unsettled};
use crate::decision::Decision;
use crate::error::Internal;
use crate::ids::{AskId, ResolveToken, StatelessId};
use crate::outbox::{Candidates, Dropped, Outbox, ResolveError};
use crate::policy::Facts;
use crate::quota;
use crate::shard::{self, Carried};
use crate::stateless::{self, Forward, Left, Outcome};

impl Stack {
    /// The chain will have to wait: an INVITE is told so (100).
    pub fn trying(&self, env: &mut Env<'_>, ask: AskId, out: &mut Outbox) {
        self.step(usize::from(ask.place.shard), env, out, |shard, cx| {
            shard.trying(shard::key(ask.place), cx);
        });
    }

    /// Makes the verdict that the chain has reached count: a CANCEL or shutdown that comes
    /// now waits for it. To be asked before anything is written that the policies staged
    /// with an answer to `Ask::Request` or `Ask::Failure`; without writes the answer may be
    /// given at once. `forwards`: the verdict lets the request go on.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn settle(
        &self,
        env: &mut Env<'_>,
        ask: AskId,
        forwards: bool,
        out: &mut Outbox,
    ) -> Result<(), Unsettled> {
        let settled = self.step(usize::from(ask.place.shard), env, out, |shard, cx| {
            shard.settle(ask, forwards, cx)
        });
        let counts = settled.map(|settled| settled != Err(Unsettled::Late));
        if in_time(counts, out) {
            settled.unwrap_or(Ok(()))
        } else {
            Err(Unsettled::Late)
        }
    }

    /// [`Stack::settle`] for an answer to `Ask::Stateless` that lets the request go on: to be
    /// asked whether anything is written or not.
    ///
    /// # Errors
    /// Why it does not go on.
    pub fn settle_stateless(
        &self,
        env: &Env<'_>,
        request: &OwnedMessage,
        facts: &Facts,
    ) -> Result<(), Unsettled> {
        quota::lets_in(request, facts, env.settings, env.now)
            .then_some(())
            .ok_or(Unsettled::Refused(Internal::TenantRate))
    }

    /// Nobody will answer: whoever was to do it has failed. The question is over as if its
    /// time were, unless it has been answered.
    pub fn undecided(&self, env: &mut Env<'_>, ask: AskId, out: &mut Outbox) {
        self.step(usize::from(ask.place.shard), env, out, |shard, cx| {
            shard.undecided(ask, cx);
        });
    }

    /// The answer to `Ask::Request`. `false`: it came too late and counts for nothing,
    /// because the transaction was cancelled, timed out or shut down meanwhile.
    pub fn request_verdict(
        &self,
        env: &mut Env<'_>,
        ask: AskId,
        mut decision: Decision,
        out: &mut Outbox,
    ) -> bool {
        let begun = self.begin_dialog(env, ask, &mut decision);
        let done = self.step(usize::from(ask.place.shard), env, out, |shard, cx| {
            shard.request_verdict(ask, decision, cx)
        });
        let relayed = matches!(done, Some(Carried::Relayed));
        if let (Some(begun), true) = (begun, relayed) {
            begun.counts(out);
        }
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

    /// The answer to `Ask::Stateless`; one that lets the request go on has been
    /// [settled](Stack::settle_stateless).
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
            Outcome::Forward(forward) => {
                self.dialog_goes_on(env, &forward, out);
                self.send_stateless(env, *forward, out);
            }
            Outcome::Reply(reply) => self.refuse(env, request.as_ref(), facts.flow, &reply, out),
            Outcome::Nothing(why) => out.dropped(why),
        }
    }

    fn send_stateless(&self, env: &mut Env<'_>, forward: Forward, out: &mut Outbox) {
        let mut scratch = std::mem::take(&mut out.scratch);
        let (hash, tenant) = (forward.id.loop_hash, forward.facts.tenant);
        let left = stateless::forward(forward, env.settings, &self.ids, &mut scratch, out);
        out.scratch = scratch;
        if !matches!(left, Left::Nothing) {
            // Any shard will do.
            let shard = usize::try_from(hash).unwrap_or(0) % self.shards.len();
            self.step(shard, env, out, |shard, cx| {
                shard.tx.carry_on(left, tenant, cx);
            });
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

    /// Hands what was answered to the shards of the dialogs.
    pub(super) fn begin_sessions(&self, env: &mut Env<'_>, out: &mut Outbox) {
        while let Some(answered) = out.answered.pop() {
            let shard = answered.dialog.shard(self.shards.len());
            self.step(shard, env, out, |shard, cx| {
                shard.tx.begin_session(answered, cx);
            });
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
