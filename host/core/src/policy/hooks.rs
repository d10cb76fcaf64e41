//! One call of a hook: what goes in, what comes back, and who makes it.

use std::sync::Arc;

use sipbox_sip::OwnedMessage;

use super::{Armed, CallState, Capabilities, DialogView, Edit, Effect, Facts, Target, Verdict};
use crate::dialog::Change;
use crate::lease::Lease;

/// Everything that one hook call reads and writes. It moves into the sandbox
/// for the call and comes back with what the policy staged.
pub struct HookCall {
    /// The request: as received in `on-request` (edited by earlier policies),
    /// as the branch carries it in `on-branch`.
    pub request: OwnedMessage,
    /// The response, in `on-reply` and `on-failure` (the best one).
    pub response: Option<OwnedMessage>,
    /// Facts that are not in the bytes.
    pub facts: Arc<Facts>,
    /// The transaction's memory; changes count only if the call succeeds. A policy's go
    /// through [`HookCall::state_mut`].
    pub state: CallState,
    /// The hooks asked for, in this call.
    pub armed: Armed,
    /// Edits staged by this call.
    pub edits: Vec<Edit>,
    /// Writes staged by this call.
    pub effects: Vec<Effect>,
    /// The tenant's capabilities.
    pub capabilities: Arc<dyn Capabilities>,
    /// `state` as it was when the policy was called, once it was changed.
    changed: Option<Box<CallState>>,
}

/// How much a call had staged when a policy was called: what [`HookCall::undo`] goes back to.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint {
    armed: Armed,
    edits: usize,
    effects: usize,
    leases: usize,
}

impl HookCall {
    /// A call about a request in which nothing is staged yet. It is boxed, since it moves
    /// into the sandbox and back for each policy.
    #[must_use]
    pub fn new(
        request: OwnedMessage,
        facts: Arc<Facts>,
        capabilities: Arc<dyn Capabilities>,
    ) -> Box<Self> {
        Box::new(Self {
            request,
            response: None,
            facts,
            state: CallState::default(),
            armed: Armed::default(),
            edits: Vec::new(),
            effects: Vec::new(),
            capabilities,
            changed: None,
        })
    }

    /// The state, to be changed by a policy. Its first change since the [checkpoint] copies
    /// it; most policies change nothing.
    ///
    /// [checkpoint]: HookCall::checkpoint
    pub fn state_mut(&mut self) -> &mut CallState {
        if self.changed.is_none() {
            self.changed = Some(Box::new(self.state.clone()));
        }
        &mut self.state
    }

    /// A lease that a policy took. It is given back with the call's other changes if the
    /// policy fails.
    pub fn take_lease(&mut self, lease: Lease) {
        self.state.leases.push(lease);
    }

    /// Gives the leases back at once that were [taken](Self::take_lease) since there were so
    /// many. In between nothing else of the state may change.
    pub fn keep_leases(&mut self, held: usize) {
        self.state.leases.truncate(held);
    }

    /// Where a policy begins: what was changed before it stays.
    #[must_use]
    pub fn checkpoint(&mut self) -> Checkpoint {
        self.changed = None;
        Checkpoint {
            armed: self.armed,
            edits: self.edits.len(),
            effects: self.effects.len(),
            leases: self.state.leases.len(),
        }
    }

    /// Takes back what was staged and changed since then: the policy failed.
    pub fn undo(&mut self, to: Checkpoint) {
        self.armed = to.armed;
        self.edits.truncate(to.edits);
        self.effects.truncate(to.effects);
        if let Some(state) = self.changed.take() {
            self.state = *state;
        }
        // New ones are behind the others, also in a copy that was made after they came.
        self.state.leases.truncate(to.leases);
    }
}

/// What `on-branch` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchCall {
    /// The branch's target.
    pub target: Target,
}

/// One failed target, for `on-failure`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedTarget {
    /// The policy's mark.
    pub id: u32,
    /// The Request-URI of the branch.
    pub uri: String,
    /// Its final status; 408 and 503 stand for time-out and transport error.
    pub status: u16,
}

/// What `on-failure` is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// The best response so far.
    pub status: u16,
    /// Its reason phrase.
    pub reason: String,
    /// The targets that failed.
    pub failed: Vec<FailedTarget>,
    /// The caller has cancelled.
    pub cancelled: bool,
}

/// What `on-dialog` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialogCall {
    /// What became of the dialog.
    pub change: Change,
    /// The Call-ID.
    pub call_id: String,
    /// The URI in From of the INVITE.
    pub from_uri: String,
    /// The URI in To of the INVITE.
    pub to_uri: String,
    /// The caller's tag.
    pub from_tag: String,
    /// The callee's tag; empty before there is one.
    pub to_tag: String,
    /// When it began, or was answered: seconds since 1970.
    pub start: u32,
    /// The dialog after the change.
    pub dialog: DialogView,
}

/// What a hook is asked, with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookInput {
    /// `on-route`
    Route,
    /// `on-request`
    Request,
    /// `on-branch`
    Branch(BranchCall),
    /// `on-reply`
    Reply,
    /// `on-failure`
    Failure(Failure),
    /// `on-dialog`
    Dialog(Box<DialogCall>),
}

/// What a hook returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookOutput {
    /// Of `on-request` and `on-failure`.
    Verdict(Verdict),
    /// Of `on-branch`: whether the branch is kept.
    Branch(bool),
    /// Of `on-reply`: whether the response is forwarded.
    Reply(bool),
    /// Of `on-route` and `on-dialog`, which decide nothing.
    Done,
    /// The policy does not export the hook.
    Absent,
}

/// Why a hook call ended without a verdict. The name is what log, metric and
/// reply show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HookFailure {
    /// The guest trapped: unreachable, out-of-bounds access, stack overflow, ...
    #[error("trap: {0}")]
    Trap(String),
    /// CPU time of one hook.
    #[error("cpu limit")]
    Cpu,
    /// Wall-clock limit of a wait.
    #[error("wall limit")]
    Wall,
    /// Linear memory.
    #[error("memory limit")]
    Memory,
    /// Number of host calls.
    #[error("host call limit")]
    HostCalls,
    /// Number or size of edits.
    #[error("edit limit")]
    Edits,
    /// Bytes of the verdict.
    #[error("output limit")]
    Output,
    /// Bytes of log text.
    #[error("log limit")]
    Log,
    /// The guest tried to sleep or poll.
    #[error("wasi wait")]
    WasiWait,
    /// The tenant's CPU budget is used up; the hook was not called.
    #[error("tenant cpu budget")]
    Budget,
    /// The tenant's policies ran long of late, and too many of its calls wait for
    /// their turn; the hook was not called.
    #[error("too many calls of a confined tenant")]
    Confined,
    /// No room for a further parked call.
    #[error("parked")]
    Parked,
    /// The verdict is ill-formed.
    #[error("bad verdict: {0}")]
    BadVerdict(String),
    /// No instance could be made.
    #[error("instantiation: {0}")]
    Instantiate(String),
}

impl HookFailure {
    /// The short name for metrics and the reply's Reason: one word for each variant.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::Cpu => "cpu",
            Self::Wall => "wall",
            Self::Memory => "memory",
            Self::HostCalls => "host-calls",
            Self::Edits => "edits",
            Self::Output => "output",
            Self::Log => "log",
            Self::WasiWait => "wasi-wait",
            Self::Budget => "budget",
            Self::Confined => "confined",
            Self::Parked => "parked",
            Self::BadVerdict(_) => "bad-verdict",
            Self::Instantiate(_) => "instantiate",
        }
    }
}

/// Runs policies. Implemented by the sandbox, and by closures in core's tests.
///
/// `policy` is a position in the chain that the host was made for. `call` keeps
/// what the policy staged if the result is `Ok`; after an `Err` its staged
/// parts are as they were before.
pub trait PolicyHost {
    /// Calls one hook of one policy.
    ///
    /// # Errors
    /// The reason why there is no verdict.
    fn call(
        &mut self,
        policy: usize,
        input: HookInput,
        call: &mut Box<HookCall>,
    ) -> Result<HookOutput, HookFailure>;

    /// What a call had returned counts for nothing after all, for this reason.
    fn discarded(&mut self, policy: usize, failure: &HookFailure) {
        let _ = (policy, failure);
    }
}
