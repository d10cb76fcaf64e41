//! Dialogs beside the transactions: what a step of a shard tells them is carried to them
//! once that shard is let go of, and what comes of it to whichever shard it is about.

use super::{Env, Stack};
use crate::decision::{Decision, Ruling};
use crate::dialog::{DialogId, DialogService, Event, NewDialog, Now, Order, Outcome, hangs_up};
use crate::error::Internal;
use crate::flow::TenantId;
use crate::ids::AskId;
use crate::lease::{Acquired, Audit, Lease, LeaseTable};
use crate::outbox::Outbox;
use crate::quota::CALLS;
use crate::shard;
use crate::stateless::Forward;
use crate::user::{Stop, User};
use rand_core::Rng as _;

/// What a step may know, for dialogs.
fn now<'a>(env: &Env<'a>) -> Now<'a> {
    Now {
        now: env.now,
        wall: env.wall,
        settings: env.settings,
    }
}

/// A dialog that a verdict begins. It is taken back unless that [counts](Self::counts).
pub(super) struct Begun<'a> {
    dialogs: &'a DialogService,
    id: DialogId,
    /// Whether policies are told of it.
    watched: bool,
    counts: bool,
}

impl Begun<'_> {
    /// It is there, and policies are told so, before anything else of it.
    pub(super) fn counts(mut self, out: &mut Outbox) {
        self.counts = true;
        if self.watched {
            self.dialogs.told(self.id);
            out.news.push(self.id);
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.counts {
            self.dialogs.discard(self.id);
        }
    }
}

impl Stack {
    /// The dialogs.
    #[must_use]
    pub fn dialogs(&self) -> &DialogService {
        &self.dialogs
    }

    /// The leases of dialogs and transactions.
    #[must_use]
    pub fn leases(&self) -> &LeaseTable {
        self.dialogs.leases()
    }

    /// Compares the leases that are counted with those that dialogs and transactions hold.
    #[must_use]
    pub fn audit_leases(&self) -> Audit {
        self.leases().audit(|| {
            let mut held = self.dialogs.held();
            for shard in 0..self.shards.len() {
                self.peek(shard, |shard| {
                    for (_, server) in shard.tx.servers.iter() {
                        held.extend(server.tie.as_ref().and_then(|tie| tie.call()).cloned());
                        if let Some(User::Proxy(context)) = &server.user {
                            held.extend(context.leases().iter().cloned());
                        }
                    }
                });
            }
            held
        })
    }

    /// Counts a call that begins, if its tenant has a quota. How fast calls begin is
    /// looked at once a chain has let them in.
    ///
    /// # Errors
    /// The tenant has as many as it may have.
    pub(super) fn admit_call(
        &self,
        env: &Env<'_>,
        tenant: TenantId,
    ) -> Result<Option<Lease>, Internal> {
        let Some(known) = env.settings.tenant(tenant) else {
            return Ok(None);
        };
        let Some(limit) = known.quota.calls else {
            return Ok(None);
        };
        let (scope, key) = CALLS;
        match self.leases().acquire(tenant, scope, key, limit) {
            Acquired::Granted(lease) => Ok(Some(lease)),
            Acquired::Full(_) => Err(Internal::TenantCalls),
        }
    }

    /// Does what dialogs have to do by themselves: [`DialogService::next_deadline`] tells
    /// when that is.
    pub fn dialogs_due(&self, env: &mut Env<'_>, out: &mut Outbox) {
        let outcome = self.dialogs.fire(now(env));
        self.carry_orders(outcome, env, out);
    }

    /// Ends a dialog: BYE to both sides, or CANCEL before an answer. `false`: there is none
    /// that could be ended.
    pub fn end_dialog(
        &self,
        env: &mut Env<'_>,
        id: DialogId,
        extra: &[(String, String)],
        out: &mut Outbox,
    ) -> bool {
        let ended = self.dialogs.end(id, extra, now(env));
        let any = ended.is_some();
        if let Some(outcome) = ended {
            self.carry_orders(outcome, env, out);
        }
        any
    }

    /// Gives a dialog so many seconds from now on.
    pub fn set_dialog_timeout(&self, env: &Env<'_>, id: DialogId, seconds: u32) {
        self.dialogs.set_timeout(id, seconds, now(env));
    }

    /// The dialog that a verdict begins is there before its INVITE leaves, since what
    /// comes back may be seen by another worker at once.
    pub(super) fn begin_dialog(
        &self,
        env: &Env<'_>,
        ask: AskId,
        decision: &mut Decision,
    ) -> Option<Begun<'_>> {
        let new = decision.state.dialog.as_mut()?.new.take()?;
        if !matches!(decision.ruling, Ruling::Relay(_)) {
            decision.state.dialog = None;
            return None;
        }
        let NewDialog { id, watched, .. } = *new;
        let leases: Vec<Lease> = decision.state.leases.clone();
        self.dialogs
            .create(&new, &decision.request, ask.place, leases, now(env));
        Some(Begun {
            dialogs: &self.dialogs,
            id,
            watched,
            counts: false,
        })
    }

    /// A request of a dialog goes on without a transaction: an ACK for a 2xx has none, and
    /// the answer to a BYE is not seen.
    pub(super) fn dialog_goes_on(&self, env: &mut Env<'_>, forward: &Forward, out: &mut Outbox) {
        let Some(known) = forward.facts.dialog else {
            return;
        };
        out.dialog_events.push(Event::Request {
            known,
            request: forward.request.clone(),
            flow: forward.facts.flow,
        });
        if let Some(cseq) = hangs_up(forward.request.as_ref()) {
            out.dialog_events.push(Event::Bye {
                known,
                cseq,
                status: 200,
            });
        }
        self.settle_dialogs(env, out);
    }

    /// Tells dialogs what happened to them.
    pub(super) fn settle_dialogs(&self, env: &mut Env<'_>, out: &mut Outbox) {
        let mut events = std::mem::take(&mut out.dialog_events);
        for event in events.drain(..) {
            let outcome = self.dialogs.apply(event, now(env));
            self.carry_orders(outcome, env, out);
        }
        if out.dialog_events.is_empty() {
            // Its memory is used again.
            out.dialog_events = events;
        }
    }

    fn carry_orders(&self, outcome: Outcome, env: &mut Env<'_>, out: &mut Outbox) {
        out.news.extend(outcome.news);
        for order in outcome.orders {
            match order {
                Order::Send(own) => {
                    // Any shard will do.
                    let any = usize::try_from(env.rng.next_u32()).unwrap_or(0);
                    let shard = any % self.shards.len();
                    self.step(shard, env, out, |shard, cx| shard.tx.send_own(*own, cx));
                }
                Order::Cancel(place) => {
                    self.step(usize::from(place.shard), env, out, |shard, cx| {
                        shard.stop(shard::key(place), Stop::Cancel, cx);
                    });
                }
            }
        }
    }
}
