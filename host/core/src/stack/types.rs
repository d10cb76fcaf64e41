//! What the calls of a stack take and give.

use std::sync::Arc;

use sipbox_sip::OwnedMessage;

use crate::error::Internal;
use crate::policy::{BranchRoute, CallState};
use crate::settings::Settings;
use crate::time::{Time, WallTime};

/// The generator that callers hand in.
pub type Rng = rand_chacha::ChaCha8Rng;

/// What a step may know of the world.
pub struct Env<'a> {
    /// The monotonic clock.
    pub now: Time,
    /// The wall clock.
    pub wall: WallTime,
    /// The settings of today; transactions keep those that they began with.
    pub settings: &'a Arc<Settings>,
    /// Randomness.
    pub rng: &'a mut Rng,
}

/// Why a verdict is not to be given; nothing that it staged may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsettled {
    /// It came too late.
    Late,
    /// The request is refused for this, whatever its chain says. That is the verdict to
    /// give.
    Refused(Internal),
}

/// How a [`super::Stack`] is made.
#[derive(Clone, Copy, Debug)]
pub struct StackOptions {
    /// How many shards; at most [`crate::ids::MAX_SHARDS`].
    pub shards: usize,
    /// The node's number in its cluster.
    pub node: u16,
    /// Differs each time the node starts.
    pub boot: u32,
    /// Secret: branches and tags stand under it, and transactions are spread by it.
    pub key: [u8; 16],
    /// Secret: what our Record-Route says is signed with it. The same after a restart, and
    /// on every node that serves the same dialogs.
    pub route_key: [u8; 16],
}

/// Numbers of the moment, and totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Server transactions.
    pub servers: usize,
    /// Those of them that have no final response yet.
    pub unfinished: usize,
    /// What somebody still waits for, and a graceful stop with them: final responses, the
    /// ACK of a failure or of a 2xx of our own, whoever was sent a CANCEL or a BYE, and
    /// names of stateless forwards.
    pub open: usize,
    /// Client transactions.
    pub clients: usize,
    /// Timers armed.
    pub timers: usize,
    /// Requests that are forwarded statelessly and wait for a name or a connection.
    pub waiting: usize,
    /// Sessions of the local user agent whose ACK is due, or may come again.
    pub sessions: usize,
}

/// The chain's answer to `Ask::Branch`.
#[derive(Clone, Debug)]
pub struct BranchVerdict {
    /// Whether the branch is tried.
    pub keep: bool,
    /// The request, as edited for this branch.
    pub request: OwnedMessage,
    /// What its Record-Route has more than the others'.
    pub route: BranchRoute,
    /// What the transaction remembers for the policies.
    pub state: CallState,
}

/// The chain's answer to `Ask::Reply`.
#[derive(Clone, Debug)]
pub struct ReplyVerdict {
    /// Whether it goes upstream; a final response does in any case.
    pub forward: bool,
    /// The response, as edited.
    pub response: OwnedMessage,
    /// What the transaction remembers for the policies.
    pub state: CallState,
}
