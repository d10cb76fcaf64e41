//! What every step is handed: the world, the names, the outbox.

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
    /// A step panics half-way.
    Panic,
}

pub(crate) struct Cx<'a, 'e> {
    pub(crate) env: &'a mut Env<'e>,
    pub(crate) ids: &'a Ids,
    pub(crate) out: &'a mut Outbox,
    #[cfg(test)]
    pub(crate) mutation: Option<Mutation>,
}

impl Cx<'_, '_> {
    pub(crate) fn now(&self) -> Time {
        self.env.now
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
