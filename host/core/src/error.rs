//! The one place where an internal error becomes a SIP status.

use sipbox_sip::HeaderId;

use crate::policy::Reply;

/// What can go wrong inside, as the caller gets to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Internal {
    /// The policy chain took too long.
    #[error("no decision in time")]
    Undecided,
    /// A policy failed and the fallback is to refuse.
    #[error("policy failed")]
    PolicyFailed,
    /// The chain ended and nobody wanted the request.
    #[error("no policy decided")]
    NoVerdict,
    /// A target set without a member.
    #[error("no target")]
    NoTarget,
    /// The next hop cannot be reached, named, or sent to from any listener.
    #[error("next hop unavailable")]
    Unavailable,
    /// The connection that a binding came by is gone (RFC 5626 5.3): the user cannot
    /// be reached until it registers again.
    #[error("flow gone")]
    FlowGone,
    /// A next hop did not answer.
    #[error("next hop timed out")]
    TimedOut,
    /// There are as many transactions as there may be.
    #[error("too many transactions")]
    Full,
    /// The tenant has as many transactions as it may have.
    #[error("too many transactions of the tenant")]
    TenantFull,
    /// The tenant has as many calls as it may have.
    #[error("too many calls of the tenant")]
    TenantCalls,
    /// More calls of the tenant begin than may in a second.
    #[error("too many calls of the tenant in a second")]
    TenantRate,
    /// The element is going down.
    #[error("shutting down")]
    ShuttingDown,
    /// More branches than Max-Breadth allows.
    #[error("max-breadth exceeded")]
    Breadth,
    /// A step of the transaction panicked.
    #[error("broken")]
    Broken,
    /// A message could not be built from what a policy or peer gave.
    #[error("message cannot be built")]
    Unbuildable,
}

/// How many seconds whoever was refused for want of room is asked to wait. A proxy that
/// heeds it (21.5.4) sends us nothing meanwhile.
const RETRY_AFTER: &str = "2";

impl Internal {
    /// The answer without a transaction: for want of room it says which limit was
    /// reached, and when to come again.
    #[must_use]
    pub fn reply(self) -> Reply {
        let (reason, headers) = match self {
            Self::Full => ("Too Many Transactions", true),
            // Without Retry-After: a proxy in front of several tenants would make all of
            // them wait. It counts as 500 then.
            Self::TenantFull => ("Too Many Transactions Of Tenant", false),
            // Whoever calls is told that the callee's side has no line left; nobody takes
            // us for a server that is down.
            Self::TenantCalls => ("Too Many Calls", false),
            Self::TenantRate => ("Too Many Calls Per Second", false),
            _ => ("", false),
        };
        let retry = || {
            (
                HeaderId::RetryAfter.name().to_owned(),
                RETRY_AFTER.to_owned(),
            )
        };
        Reply {
            status: self.status(),
            reason: reason.to_owned(),
            headers: headers.then(retry).into_iter().collect(),
            ..Reply::default()
        }
    }

    /// The status that stands for it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Undecided | Self::Unbuildable | Self::Broken => 500,
            Self::PolicyFailed
            | Self::Full
            | Self::TenantFull
            | Self::TenantRate
            | Self::ShuttingDown
            | Self::Unavailable => 503,
            Self::NoVerdict => 404,
            Self::NoTarget | Self::FlowGone => 480,
            Self::TenantCalls => 486,
            Self::TimedOut => 408,
            Self::Breadth => 440,
        }
    }
}
