//! What every step is handed: the world, the names, the outbox.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::ids::Ids;
use crate::outbox::Outbox;
use crate::stack::Env;
use crate::time::Time;

/// Deliberate faults, by which the simulator proves that it would notice them.
/// They exist in test builds only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "named by tests only")]
pub(crate) enum Mutation {
    /// An ACK for a non-2xx does not stop Timer G.
    IgnoreAck,
    /// Timer C is never armed.
    NoTimerC,
    /// A CANCEL of the caller is answered and forgotten.
    LoseCancel,
    /// Timer A goes on after a response.
    KeepRetransmitting,
    /// A retransmitted request begins a transaction of its own.
    ForgetMatching,
    /// Timer H is never armed.
    NoTimerH,
    /// Late 2xx responses are dropped.
    DropLateSuccess,
    /// Pending branches are not cancelled when another one answers.
    KeepBranches,
    /// The ACK for a non-2xx is not sent again for a retransmitted response.
    AckOnce,
    /// The client transaction is not freed when Timer D or K fires.
    LeakClient,
    /// A verdict that comes after a CANCEL still counts.
    VerdictAfterCancel,
    /// The best response of a fork is the last one.
    LastResponse,
    /// Our Via is left in responses.
    KeepVia,
    /// The ACK for a 2xx of our own is taken for somebody else's.
    IgnoreOwnAck,
    /// A 2xx of our own is not sent again.
    AnswerOnce,
    /// A session whose 2xx nobody acknowledged is forgotten.
    NoBye,
    /// What a verdict staged may be written though it comes too late.
    WriteAnyway,
    /// A hook is asked before the one that runs has answered.
    OverlapQuestions,
    /// A step panics half-way.
    Panic,
}

pub(crate) struct Cx<'a, 'e> {
    pub(crate) env: &'a mut Env<'e>,
    pub(crate) ids: &'a Ids,
    pub(crate) out: &'a mut Outbox,
    /// How many sessions all shards have.
    pub(crate) sessions: &'a AtomicUsize,
    #[cfg(test)]
    pub(crate) mutation: Option<Mutation>,
}

impl Cx<'_, '_> {
    pub(crate) fn now(&self) -> Time {
        self.env.now
    }

    pub(crate) fn session_began(&self) {
        self.sessions.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn session_ended(&self) {
        self.sessions.fetch_sub(1, Ordering::Release);
    }

    #[cfg(test)]
    pub(crate) fn mutant(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "the test build has a use for it")]
    pub(crate) const fn mutant(&self, _: Mutation) -> bool {
        false
    }
}
