//! The whole element: shards behind their locks, and the calls by which a driver
//! feeds it. Each call takes one shard's lock for one step of state; none holds two, and
//! nothing but state is touched under a lock.
//!
//! Inputs are messages ([`Stack::receive`]), verdicts, resolved names, failed sends
//! and the passing of time ([`Stack::tick`]). Outputs are in the [`Outbox`]: after
//! each call the driver sends, asks and resolves what stands there, in that order.
//! Time never goes backwards.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sipbox_sip::{Message, OwnedMessage};

use crate::decision::Decision;
use crate::flow::Flow;
use crate::ids::{AskId, Ids, ResolveToken, SendToken};
use crate::outbox::{Candidates, Dropped, Outbox, ResolveError};
use crate::policy::{CallState, Facts};
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

/// How a [`Stack`] is made.
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
}

/// Numbers of the moment, and totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Server transactions.
    pub servers: usize,
    /// Client transactions.
    pub clients: usize,
    /// Timers armed.
    pub timers: usize,
    /// Requests that are forwarded statelessly and wait for a name.
    pub waiting: usize,
    /// Transactions whose policies have not decided yet.
    pub deciding: usize,
}

/// The chain's answer to `Ask::Branch`.
#[derive(Clone, Debug)]
pub struct BranchVerdict {
    /// Whether the branch is tried.
    pub keep: bool,
    /// The request, as edited for this branch.
    pub request: OwnedMessage,
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

/// The element.
pub struct Stack {
    shards: Box<[Mutex<Shard>]>,
    ids: Ids,
}

impl Stack {
    /// An element without any state.
    #[must_use]
    pub fn new(options: StackOptions) -> Self {
        let shards = options.shards.clamp(1, crate::ids::MAX_SHARDS);
        Self {
            shards: (0..shards).map(|_| Mutex::new(Shard {})).collect(),
            ids: Ids::new(options.key, options.node, options.boot),
        }
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// A message arrived. `message` was indexed from `bytes`.
    pub fn receive(
        &self,
        env: &mut Env<'_>,
        message: Message<'_>,
        bytes: &Bytes,
        flow: Flow,
        out: &mut Outbox,
    ) {
        let _ = (env, message, bytes, flow, out, &self.ids);
    }

    /// Bytes arrived that are no message.
    pub fn unparsable(&self, out: &mut Outbox) {
        out.dropped(Dropped::Garbage);
    }

    /// The chain will have to wait: an INVITE is told so (100).
    pub fn trying(&self, env: &mut Env<'_>, ask: AskId, out: &mut Outbox) {
        let _ = (env, ask, out);
    }

    /// The answer to `Ask::Request`. `false`: it came too late and counts for nothing,
    /// because the transaction was cancelled, timed out or shut down meanwhile.
    pub fn request_verdict(
        &self,
        env: &mut Env<'_>,
        ask: AskId,
        decision: Decision,
        out: &mut Outbox,
    ) -> bool {
        let _ = (env, ask, decision, out);
        false
    }

    /// The answer to `Ask::Failure`; see [`Stack::request_verdict`].
    pub fn failure_verdict(
        &self,
        env: &mut Env<'_>,
        ask: AskId,
        decision: Decision,
        out: &mut Outbox,
    ) -> bool {
        let _ = (env, ask, decision, out);
        false
    }

    /// The answer to `Ask::Branch`; see [`Stack::request_verdict`].
    pub fn branch_verdict(
        &self,
        env: &mut Env<'_>,
        ask: AskId,
        verdict: BranchVerdict,
        out: &mut Outbox,
    ) -> bool {
        let _ = (env, ask, verdict, out);
        false
    }

    /// The answer to `Ask::Reply`; see [`Stack::request_verdict`].
    pub fn reply_verdict(
        &self,
        env: &mut Env<'_>,
        ask: AskId,
        verdict: ReplyVerdict,
        out: &mut Outbox,
    ) -> bool {
        let _ = (env, ask, verdict, out);
        false
    }

    /// The answer to `Ask::Stateless`.
    pub fn forward_stateless(
        &self,
        env: &mut Env<'_>,
        facts: &Facts,
        decision: Decision,
        out: &mut Outbox,
    ) {
        let _ = (env, facts, decision, out);
    }

    /// The answer to a [`crate::outbox::Resolve`].
    pub fn resolved(
        &self,
        env: &mut Env<'_>,
        token: ResolveToken,
        result: Result<Candidates, ResolveError>,
        out: &mut Outbox,
    ) {
        let _ = (env, token, result, out);
    }

    /// A message with this token could not be sent, or its connection could not be
    /// made: its branch has failed (RFC 3261 16.9), unless UDP is left to try
    /// (18.1.1).
    pub fn transport_error(&self, env: &mut Env<'_>, token: SendToken, out: &mut Outbox) {
        let _ = (env, token, out);
    }

    /// Fires what is due in one shard.
    pub fn tick(&self, env: &mut Env<'_>, shard: usize, out: &mut Outbox) {
        let _ = (env, shard, out);
    }

    /// When [`Stack::tick`] has something to do for the shard, at the earliest.
    #[must_use]
    pub fn next_deadline(&self, shard: usize) -> Option<Time> {
        let _ = shard;
        None
    }

    /// Whether any timer of the shard is armed.
    #[must_use]
    pub fn armed(&self, shard: usize) -> bool {
        self.next_deadline(shard).is_some()
    }

    /// Numbers of the moment.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::default()
    }

    /// From now on initial requests get 503; what is in flight goes on.
    pub fn drain(&self) {}

    /// Ends what is in flight: requests that are being decided or ring get 503, and
    /// their branches a CANCEL. Timers go on until the peers have confirmed.
    pub fn shutdown(&self, env: &mut Env<'_>, out: &mut Outbox) {
        let _ = (env, out);
    }
}

struct Shard {}
