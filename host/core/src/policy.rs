//! What crosses the boundary between host and policy, in the host's words: the
//! counterpart of `wit/policy.wit`.
//!
//! Here are values and traits only. Who calls a policy is [`crate::chain`]; the
//! sandbox that implements [`PolicyHost`] is `sipbox-wasm`; what a verdict does
//! is the shard's business.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sipbox_sip::OwnedMessage;
use smallvec::SmallVec;

use crate::flow::{Flow, TenantId};
use crate::time::WallTime;

/// Named settings of a verdict: `options` in the WIT.
pub type Options = Vec<(String, String)>;

/// A body with its Content-Type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The Content-Type value.
    pub content_type: String,
    /// The bytes.
    pub bytes: Bytes,
}

/// A response of this proxy, as a policy words it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// 100 to 699.
    pub status: u16,
    /// Empty: the phrase of RFC 3261 section 21.
    pub reason: String,
    /// Extra header fields, validated.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Option<Body>,
    /// Named settings.
    pub options: Options,
}

/// A target that names a URI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UriTarget {
    /// The Request-URI of the branch.
    pub uri: String,
    /// Where the branch is sent, as a URI; empty: the first of `path`, or else `uri`.
    pub next_hop: String,
    /// Route values put in front (RFC 3327), first hop first.
    pub path: Vec<String>,
    /// The flow token of a binding; empty: any flow.
    pub flow: String,
}

/// Where a target points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A URI.
    Uri(UriTarget),
    /// All bindings of `user@domain`.
    Registered(String),
    /// A named destination set.
    Set {
        /// Its name.
        name: String,
        /// How its members are ordered.
        algorithm: String,
    },
}

/// One member of the target set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it points.
    pub destination: Destination,
    /// Preference in thousandths, 0 to 1000.
    pub q: u16,
    /// The policy's own mark.
    pub id: u32,
    /// Named settings.
    pub options: Options,
}

/// How a request is relayed (RFC 3261 section 16.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayPlan {
    /// Tried in series; the targets of one group in parallel. Empty: along the
    /// route set, or else to the Request-URI.
    pub groups: Vec<Vec<Target>>,
    /// Milliseconds that a group may ring; 0: Timer C alone.
    pub ring_timeout: u32,
    /// Milliseconds for all groups together; 0: no limit but Timer C.
    pub total_timeout: u32,
    /// `Some` inserts a Record-Route with these URI parameters.
    pub record_route: Option<Vec<(String, String)>>,
    /// Named settings.
    pub options: Options,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next policy of the chain decides.
    Next,
    /// Answered by us.
    Reply(Reply),
    /// Forwarded with transactions.
    Relay(RelayPlan),
    /// 302 with the targets as Contacts.
    Redirect(Vec<Target>),
    /// Nothing is sent; retransmissions are absorbed.
    Drop,
    /// Forwarded without a transaction (RFC 3261 section 16.11).
    ForwardStateless(Target),
    /// Answered without a transaction.
    ReplyStateless(Reply),
}

/// One change of the message, validated when the policy asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Replaces every field of that name by one.
    SetHeader(String, String),
    /// Adds a field.
    AddHeader(String, String),
    /// Removes every field of that name.
    RemoveHeader(String),
    /// Replaces the Request-URI.
    SetRequestUri(String),
    /// Replaces body, Content-Type and Content-Length.
    SetBody(Body),
}

/// The hooks that a policy can export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// `request-hook.on-request`
    Request,
    /// `branch-hook.on-branch`
    Branch,
    /// `reply-hook.on-reply`
    Reply,
    /// `failure-hook.on-failure`
    Failure,
}

/// Which later hooks of the transaction a policy asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Armed {
    /// `on-branch`
    pub branch: bool,
    /// `on-reply`
    pub reply: bool,
    /// `on-failure`
    pub failure: bool,
}

/// What processing the Route header fields found (RFC 3261 section 16.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteOutcome {
    /// No Route, or only values that name us on an initial request.
    #[default]
    None,
    /// Our value was first and is removed.
    Loose,
    /// The sender was a strict router; repaired.
    Strict,
    /// An initial request whose route set names others.
    Preloaded,
}

/// Where an in-dialog request goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Not known.
    #[default]
    Unknown,
    /// From the caller to the callee.
    Downstream,
    /// From the callee to the caller.
    Upstream,
}

/// URI parameters of a Route value; those that we write fit in place.
pub type RouteParams = SmallVec<[u8; 48]>;

/// Facts about a message that are not in its bytes.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The tenant.
    pub tenant: TenantId,
    /// Its name.
    pub tenant_name: Arc<str>,
    /// The listener's name.
    pub listener_name: Arc<str>,
    /// Where the message came from.
    pub flow: Flow,
    /// The time of the call.
    pub now: WallTime,
    /// Whether To has a tag.
    pub in_dialog: bool,
    /// Where an in-dialog request goes.
    pub direction: Direction,
    /// What Route processing found.
    pub route_outcome: RouteOutcome,
    /// The URI parameters of the Route value that was ours, as received
    /// (`;lr;nat=yes`), or empty.
    pub route_params: RouteParams,
}

/// The policy versions that a transaction began with, as whoever runs the
/// policies knows them: opaque to the core, which only keeps it.
#[derive(Clone)]
pub struct PolicyVersions(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for PolicyVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PolicyVersions")
    }
}

impl PartialEq for PolicyVersions {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for PolicyVersions {}

/// What a transaction keeps between its hooks on behalf of the policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallState {
    /// The versions that later hooks are called in.
    pub versions: Option<PolicyVersions>,
    /// Variables, in the order of their first setting.
    pub vars: Vec<(String, String)>,
    /// The user that `auth.check` confirmed.
    pub authenticated_user: Option<String>,
    /// Parameters for our Record-Route.
    pub route_params: Vec<(String, String)>,
}

/// A write that a hook staged. It is committed with the verdict, or discarded
/// with the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `location.save`: carry out this REGISTER for the address of record.
    SaveLocation {
        /// `user@domain`.
        aor: String,
        /// The limits that the policy set.
        limits: SaveLimits,
    },
    /// `location.remove`
    RemoveLocation {
        /// `user@domain`.
        aor: String,
    },
    /// `auth.challenge`: the reply carries the realm's challenges.
    Challenge(Realm),
}

/// The limits of `location.save`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SaveLimits {
    /// Seconds; shorter gets 423.
    pub min_expires: u32,
    /// Seconds; longer is cut.
    pub max_expires: u32,
    /// Seconds, where the request names none.
    pub default_expires: u32,
    /// Bindings of one address of record; 0: no limit.
    pub max_contacts: u32,
}

/// A realm as a policy names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm {
    /// The realm.
    pub name: String,
    /// Proxy-Authenticate and 407 instead of WWW-Authenticate and 401.
    pub proxy: bool,
    /// Accepted algorithms, best first.
    pub algorithms: SmallVec<[sipbox_sip::digest::Algorithm; 2]>,
    /// Whether the digest `uri` must match the Request-URI.
    pub strict_uri: bool,
}

/// What `auth.check` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthOutcome {
    /// No credentials of this realm.
    None,
    /// The user that the credentials prove.
    Authenticated(String),
    /// The nonce is too old.
    Stale,
    /// Wrong.
    Refused,
    /// Too many failures lately.
    Throttled,
}

/// A binding as a policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingView {
    /// The Contact URI.
    pub contact: String,
    /// Preference in thousandths.
    pub q: u16,
    /// Seconds left.
    pub expires: u32,
    /// Path values, first hop first.
    pub path: Vec<String>,
    /// The source it registered from, as a URI.
    pub received: String,
    /// The flow token.
    pub flow: String,
    /// `+sip.instance`, or empty.
    pub instance: String,
    /// User-Agent.
    pub user_agent: String,
}

/// What `location.save` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveOutcome {
    /// Staged; so many bindings will stand.
    Saved(u32),
    /// A query; so many stand.
    Queried(u32),
    /// To be answered with this status.
    Refused(u16),
}

/// Why a host call was refused: `error` in the WIT.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The call makes no sense in this hook.
    #[error("out of place: {0}")]
    OutOfPlace(String),
    /// The value would make an ill-formed message.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The field belongs to the host.
    #[error("protected: {0}")]
    Protected(String),
    /// An option that this version does not know.
    #[error("unknown option `{0}`")]
    UnknownOption(String),
    /// A limit of the tenant.
    #[error("limit: {0}")]
    Limit(String),
    /// The backend failed.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// The granted capabilities that reach outside the message: implemented by the
/// host, by the test kit, and by a wrapper that records.
///
/// Reads answer at once from memory. Writes are staged by the sandbox as
/// [`Effect`]s; `save` here only says what would happen.
pub trait Capabilities: Send + Sync {
    /// `auth.check`
    ///
    /// # Errors
    /// [`CallError::Unavailable`] when the credentials could not be fetched.
    fn check(&self, call: &HookCall, realm: &Realm) -> Result<AuthOutcome, CallError>;

    /// `location.lookup`
    ///
    /// # Errors
    /// [`CallError::Malformed`] when `aor` is none.
    fn lookup(&self, call: &HookCall, aor: &str) -> Result<Vec<BindingView>, CallError>;

    /// `location.save`, without the writing.
    ///
    /// # Errors
    /// [`CallError::OutOfPlace`] when the request is no REGISTER.
    fn save(
        &self,
        call: &HookCall,
        aor: &str,
        limits: &SaveLimits,
    ) -> Result<SaveOutcome, CallError>;

    /// `location.remove`, without the writing: how many bindings stand.
    ///
    /// # Errors
    /// [`CallError::Malformed`] when `aor` is none.
    fn remove(&self, call: &HookCall, aor: &str) -> Result<u32, CallError>;

    /// `log.log`, with tenant and policy attached.
    fn log(&self, call: &HookCall, policy: &str, level: LogLevel, text: &str);
}

/// The level of a policy's log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Finest.
    Trace,
    /// For developers.
    Debug,
    /// Ordinary.
    Info,
    /// To be looked at.
    Warn,
    /// Broken.
    Error,
}

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
    /// The transaction's memory; changes count only if the call succeeds.
    pub state: CallState,
    /// The hooks asked for, in this call.
    pub armed: Armed,
    /// Edits staged by this call.
    pub edits: Vec<Edit>,
    /// Writes staged by this call.
    pub effects: Vec<Effect>,
    /// The tenant's capabilities.
    pub capabilities: Arc<dyn Capabilities>,
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

/// What a hook is asked, with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookInput {
    /// `on-request`
    Request,
    /// `on-branch`
    Branch(BranchCall),
    /// `on-reply`
    Reply,
    /// `on-failure`
    Failure(Failure),
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
        call: &mut HookCall,
    ) -> Result<HookOutput, HookFailure>;

    /// What a call had returned counts for nothing after all, for this reason.
    fn discarded(&mut self, policy: usize, failure: &HookFailure) {
        let _ = (policy, failure);
    }
}
