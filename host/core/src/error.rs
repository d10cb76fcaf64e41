//! The one place where an internal error becomes a SIP status.

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
    /// No room for a further transaction.
    #[error("table full")]
    Full,
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

impl Internal {
    /// The status that stands for it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Undecided | Self::Unbuildable | Self::Broken => 500,
            Self::PolicyFailed | Self::Full | Self::ShuttingDown | Self::Unavailable => 503,
            Self::NoVerdict => 404,
            Self::NoTarget | Self::FlowGone => 480,
            Self::TimedOut => 408,
            Self::Breadth => 440,
        }
    }
}
