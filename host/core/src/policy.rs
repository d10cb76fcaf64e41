//! What crosses the boundary between host and policy, in the host's words: the
//! counterpart of `wit/policy.wit`.
//!
//! Here are values and traits only. Who calls a policy is [`crate::chain`]; the
//! sandbox that implements [`PolicyHost`] is `sipbox-wasm`; what a verdict does
//! is the shard's business.

mod capabilities;
mod hooks;
mod nat;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sipbox_sip::{Method, Params};
use smallvec::SmallVec;

use crate::dialog::{DID_PARAM, DialogTie, Known};
use crate::flow::{Flow, ListenerId, TenantId};
use crate::lease::Lease;
use crate::time::WallTime;

pub use capabilities::{
    AuthOutcome, BindingView, CallError, Capabilities, DialogOp, DialogView, Effect, LogLevel,
    Realm, SaveLimits, SaveOutcome, last_writes,
};
pub use hooks::{
    BranchCall, Checkpoint, DialogCall, FailedTarget, Failure, HookCall, HookFailure, HookInput,
    HookOutput, PolicyHost,
};
pub use nat::{BindingFlags, NatState, Reached};

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

impl Reply {
    /// One of this status, with nothing else.
    #[must_use]
    pub fn of(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }
}

impl CallState {
    /// The bytes that policies put into it.
    pub(crate) fn holds(&self) -> usize {
        let pairs = self.vars.iter().chain(&self.route_params);
        let pairs: usize = pairs.map(|(name, value)| name.len() + value.len()).sum();
        let preset = self.record_route.as_ref().map_or(0, RecordRouting::holds);
        let next_hop = self.nat.next_hop.as_ref().map_or(0, |hop| hop.len());
        pairs + preset + next_hop
    }
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
    /// Milliseconds that a branch may go without any response; 0: Timer B or F alone.
    pub fr_timeout: u32,
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

impl Verdict {
    /// Whether the request goes on.
    #[must_use]
    pub fn forwards(&self) -> bool {
        matches!(self, Self::Relay(_) | Self::ForwardStateless(_))
    }
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
    /// The top Via asks for `rport` (RFC 3581 section 3), though its sender did not.
    ForceRport,
}

/// The hooks that a policy can export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// `route-hook.on-route`
    Route,
    /// `request-hook.on-request`
    Request,
    /// `branch-hook.on-branch`
    Branch,
    /// `reply-hook.on-reply`
    Reply,
    /// `failure-hook.on-failure`
    Failure,
    /// `dialog-hook.on-dialog`
    Dialog,
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

impl Armed {
    /// Asks for these as well.
    pub(crate) fn merge(&mut self, more: Self) {
        self.branch |= more.branch;
        self.reply |= more.reply;
        self.failure |= more.failure;
    }
}

/// What becomes of the route set that an initial request brings: the option `preloaded`
/// of `relay-plan`, and of the target of `forward-stateless`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preloaded {
    /// `follow`: the request goes along it.
    Follow,
    /// `strip`: it is taken off, and the request goes to its targets.
    Strip,
}

/// The reason phrase for a route set that nobody asked to be followed.
pub const PRELOADED: &str = "Preload Route denied";

impl Preloaded {
    /// The option's name.
    pub const OPTION: &str = "preloaded";

    /// The option's value; `None` of one that there is not.
    #[must_use]
    pub fn from_value(value: &str) -> Option<Self> {
        match value {
            "follow" => Some(Self::Follow),
            "strip" => Some(Self::Strip),
            _ => None,
        }
    }

    pub(crate) fn of(options: &Options) -> Option<Self> {
        let (_, value) = options.iter().find(|(name, _)| name == Self::OPTION)?;
        Self::from_value(value)
    }
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
    /// A request of a dialog whose first Route value is not ours; it is followed.
    Foreign,
}

/// What the signature of our Route value says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteSignature {
    /// No value of ours, none that had to be signed, or nothing is signed here.
    #[default]
    None,
    /// Its parameters are those that we wrote for this dialog.
    Valid,
    /// So they are, but longer ago than a signature counts. They are told all the same.
    Expired,
    /// Somebody else wrote or changed them: they are not told to policies. Of a request of
    /// a dialog that brings our address alone, nobody knows that it went through us.
    Invalid,
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
    /// (`;lr;nat=yes`), or empty; empty as well if their signature is wrong.
    pub route_params: RouteParams,
    /// What their signature says.
    pub route_signature: RouteSignature,
    /// The listener that the second of two Route values of ours names: the request
    /// leaves from there.
    pub leaves: Option<ListenerId>,
    /// The dialog that an in-dialog request belongs to, of those that are kept.
    pub dialog: Option<Known>,
}

impl Facts {
    /// Whether the request belongs to a dialog that went through us: we know the dialog, or
    /// where we sign, our Route value says so, else whoever writes a To tag.
    pub(crate) fn continues(&self, signs: bool) -> bool {
        let proven = self.route_signature == RouteSignature::Valid || self.dialog.is_some();
        self.in_dialog && (proven || !signs)
    }

    /// Whether a request belongs to a dialog that is kept, or goes along a route set that
    /// came from here: then it may go on where no policy decides. A To tag alone proves
    /// nothing. What could begin something new has to be decided about if its route has
    /// expired, and so has an INVITE whose dialog was kept and is not known.
    #[must_use]
    pub fn goes_on(&self, method: Method) -> bool {
        let routed = match self.route_signature {
            // Nothing is signed here, or there is nothing of ours.
            RouteSignature::None | RouteSignature::Valid => self.follows_local_route(),
            RouteSignature::Expired => matches!(
                method,
                Method::Ack | Method::Bye | Method::Notify | Method::Update | Method::Prack
            ),
            RouteSignature::Invalid => false,
        };
        let was_kept = || Params::new(&self.route_params).has(DID_PARAM.as_bytes());
        let lost = method == Method::Invite && was_kept();
        self.in_dialog && (self.dialog.is_some() || (routed && !lost))
    }

    /// Whether a Route value of ours was taken off a request of a dialog, so that
    /// `on-route` is due.
    #[must_use]
    pub fn follows_local_route(&self) -> bool {
        matches!(
            self.route_outcome,
            RouteOutcome::Loose | RouteOutcome::Strict
        )
    }

    /// The listener that the request should leave from, if it can: the one that its route
    /// set names, else the one that it came to.
    #[must_use]
    pub fn departs_from(&self) -> ListenerId {
        self.leaves.unwrap_or(self.flow.listener)
    }
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
    /// What `nat` was told.
    pub nat: NatState,
    /// A policy asked for Record-Route, whatever the verdict says of it.
    pub record_route: Option<RecordRouting>,
    /// The dialog that the transaction began.
    pub dialog: Option<DialogTie>,
    /// The leases that it holds.
    pub leases: Vec<Lease>,
}

/// What `call.record-route` and `call.record-route-preset` ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordRouting {
    /// What stands for the addresses of our listeners; `None`: they themselves.
    pub preset: Option<Box<RoutePreset>>,
}

/// Texts that a Record-Route value of ours has between `sip:` and our parameters:
/// `host[:port][;params]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePreset {
    /// Where requests from the callee's side find us.
    pub outbound: String,
    /// Where those from the caller's side do, in a second value.
    pub inbound: Option<String>,
}

impl RecordRouting {
    fn holds(&self) -> usize {
        self.preset.as_ref().map_or(0, |preset| {
            preset.outbound.len() + preset.inbound.as_ref().map_or(0, String::len)
        })
    }
}

impl BranchRoute {
    /// `None` for the usual branch, which has nothing of its own.
    pub(crate) fn boxed(self) -> Option<Box<Self>> {
        let nothing = self.record_route.is_none() && self.params.is_empty();
        (!nothing).then(|| Box::new(self))
    }
}

/// What policies add to the Record-Route of one branch (`on-branch`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BranchRoute {
    /// Asked for this branch only.
    pub record_route: Option<RecordRouting>,
    /// Parameters of this branch only.
    pub params: Vec<(String, String)>,
}
