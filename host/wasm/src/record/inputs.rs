//! What goes into a hook call, as it is written down.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sipbox_core::dialog::{DialogId, Known, Side};
use sipbox_core::flow::{ConnectionId, Flow, ListenerId, TenantId};
use sipbox_core::lease::Lease;
use sipbox_core::policy::{
    Armed, BranchCall, CallState, Destination, Direction, Facts, FailedTarget, Failure, HookCall,
    HookInput, NatState, RecordRouting, RouteOutcome, RouteParams, RoutePreset, RouteSignature,
    Target, UriTarget,
};
use sipbox_core::time::WallTime;
use sipbox_sip::{OwnedMessage, Transport};

use super::dialogs::DialogRecord;
use super::{hex, unhex};
use crate::limits::Limits;

/// Bytes of the wire: as text where they are text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Wire {
    Text(String),
    Hex(String),
}

impl Wire {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(hex(bytes)),
        }
    }

    fn bytes(&self) -> Result<Bytes, String> {
        match self {
            Self::Text(text) => Ok(Bytes::from(text.clone())),
            Self::Hex(text) => unhex(text)
                .map(Bytes::from)
                .ok_or_else(|| "hexadecimal".to_owned()),
        }
    }

    pub(super) fn message(&self) -> Result<OwnedMessage, String> {
        OwnedMessage::parse(self.bytes()?).map_err(|error| error.to_string())
    }
}

/// [`HookInput`]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Input {
    Route,
    Request,
    Branch(TargetRecord),
    Reply,
    Failure {
        status: u16,
        reason: String,
        failed: Vec<(u32, String, u16)>,
        cancelled: bool,
    },
    Dialog(Box<DialogRecord>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TargetRecord {
    destination: DestinationRecord,
    q: u16,
    id: u32,
    options: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum DestinationRecord {
    Uri {
        uri: String,
        next_hop: String,
        path: Vec<String>,
        flow: String,
    },
    Registered(String),
    Set {
        name: String,
        algorithm: String,
    },
}

impl From<&HookInput> for Input {
    fn from(input: &HookInput) -> Self {
        match input {
            HookInput::Route => Self::Route,
            HookInput::Request => Self::Request,
            HookInput::Branch(branch) => Self::Branch(TargetRecord::from(&branch.target)),
            HookInput::Reply => Self::Reply,
            HookInput::Failure(failure) => Self::Failure {
                status: failure.status,
                reason: failure.reason.clone(),
                failed: failure
                    .failed
                    .iter()
                    .map(|f| (f.id, f.uri.clone(), f.status))
                    .collect(),
                cancelled: failure.cancelled,
            },
            HookInput::Dialog(event) => Self::Dialog(Box::new(DialogRecord::from(&**event))),
        }
    }
}

impl Input {
    pub(super) fn input(&self) -> Result<HookInput, String> {
        Ok(match self {
            Self::Route => HookInput::Route,
            Self::Request => HookInput::Request,
            Self::Branch(target) => HookInput::Branch(BranchCall {
                target: Target::from(target),
            }),
            Self::Reply => HookInput::Reply,
            Self::Failure {
                status,
                reason,
                failed,
                cancelled,
            } => HookInput::Failure(Failure {
                status: *status,
                reason: reason.clone(),
                failed: failed
                    .iter()
                    .map(|(id, uri, status)| FailedTarget {
                        id: *id,
                        uri: uri.clone(),
                        status: *status,
                    })
                    .collect(),
                cancelled: *cancelled,
            }),
            Self::Dialog(event) => HookInput::Dialog(Box::new(event.call()?)),
        })
    }
}

impl From<&Target> for TargetRecord {
    fn from(target: &Target) -> Self {
        Self {
            destination: match &target.destination {
                Destination::Uri(uri) => DestinationRecord::Uri {
                    uri: uri.uri.clone(),
                    next_hop: uri.next_hop.clone(),
                    path: uri.path.clone(),
                    flow: uri.flow.clone(),
                },
                Destination::Registered(aor) => DestinationRecord::Registered(aor.clone()),
                Destination::Set { name, algorithm } => DestinationRecord::Set {
                    name: name.clone(),
                    algorithm: algorithm.clone(),
                },
            },
            q: target.q,
            id: target.id,
            options: target.options.clone(),
        }
    }
}

impl From<&TargetRecord> for Target {
    fn from(target: &TargetRecord) -> Self {
        Self {
            destination: match &target.destination {
                DestinationRecord::Uri {
                    uri,
                    next_hop,
                    path,
                    flow,
                } => Destination::Uri(UriTarget {
                    uri: uri.clone(),
                    next_hop: next_hop.clone(),
                    path: path.clone(),
                    flow: flow.clone(),
                }),
                DestinationRecord::Registered(aor) => Destination::Registered(aor.clone()),
                DestinationRecord::Set { name, algorithm } => Destination::Set {
                    name: name.clone(),
                    algorithm: algorithm.clone(),
                },
            },
            q: target.q,
            id: target.id,
            options: target.options.clone(),
        }
    }
}

/// [`Facts`]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FactsRecord {
    tenant: u32,
    tenant_name: String,
    listener: u16,
    listener_name: String,
    transport: String,
    peer: SocketAddr,
    connection: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    local: Option<IpAddr>,
    now: u64,
    in_dialog: bool,
    direction: String,
    route_outcome: String,
    route_params: Wire,
    route_signature: String,
    leaves: Option<u16>,
    /// The name of the dialog, and whether its caller sent the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dialog: Option<(String, bool)>,
}

const DIRECTIONS: [Direction; 3] = [
    Direction::Unknown,
    Direction::Downstream,
    Direction::Upstream,
];
const SIGNATURES: [RouteSignature; 4] = [
    RouteSignature::None,
    RouteSignature::Valid,
    RouteSignature::Invalid,
    RouteSignature::Expired,
];
const OUTCOMES: [RouteOutcome; 5] = [
    RouteOutcome::None,
    RouteOutcome::Loose,
    RouteOutcome::Strict,
    RouteOutcome::Preloaded,
    RouteOutcome::Foreign,
];

fn named<T: std::fmt::Debug + Copy>(all: &[T], name: &str) -> Result<T, String> {
    let found = all.iter().find(|value| format!("{value:?}") == name);
    found.copied().ok_or_else(|| format!("`{name}`"))
}

impl From<&Facts> for FactsRecord {
    fn from(facts: &Facts) -> Self {
        Self {
            tenant: facts.tenant.0,
            tenant_name: facts.tenant_name.to_string(),
            listener: facts.flow.listener.0,
            listener_name: facts.listener_name.to_string(),
            transport: facts.flow.transport.param().to_owned(),
            peer: facts.flow.peer,
            connection: facts.flow.connection.map(|c| (c.slot, c.generation)),
            local: facts.flow.local,
            now: facts.now.0,
            in_dialog: facts.in_dialog,
            direction: format!("{:?}", facts.direction),
            route_outcome: format!("{:?}", facts.route_outcome),
            route_params: Wire::of(&facts.route_params),
            route_signature: format!("{:?}", facts.route_signature),
            leaves: facts.leaves.map(|listener| listener.0),
            dialog: facts
                .dialog
                .map(|known| (known.id.to_string(), known.from == Side::Caller)),
        }
    }
}

impl FactsRecord {
    pub(super) fn facts(&self) -> Result<Facts, String> {
        Ok(Facts {
            tenant: TenantId(self.tenant),
            tenant_name: Arc::from(self.tenant_name.as_str()),
            listener_name: Arc::from(self.listener_name.as_str()),
            flow: Flow {
                listener: ListenerId(self.listener),
                transport: Transport::from_token(self.transport.as_bytes())
                    .ok_or_else(|| format!("transport `{}`", self.transport))?,
                peer: self.peer,
                connection: self
                    .connection
                    .map(|(slot, generation)| ConnectionId { slot, generation }),
                local: self.local,
            },
            now: WallTime(self.now),
            in_dialog: self.in_dialog,
            direction: named(&DIRECTIONS, &self.direction)?,
            route_outcome: named(&OUTCOMES, &self.route_outcome)?,
            route_params: RouteParams::from_slice(&self.route_params.bytes()?),
            route_signature: named(&SIGNATURES, &self.route_signature)?,
            leaves: self.leaves.map(ListenerId),
            dialog: match &self.dialog {
                None => None,
                Some((id, caller)) => Some(Known {
                    id: DialogId::parse(id.as_bytes()).ok_or_else(|| format!("dialog `{id}`"))?,
                    from: if *caller { Side::Caller } else { Side::Callee },
                }),
            },
        })
    }
}

/// [`Limits`]: a call that reached one reaches it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LimitsRecord {
    cpu_micros: u64,
    wall_micros: u64,
    memory: usize,
    host_calls: u32,
    edits: u32,
    edit_bytes: u32,
    output_bytes: u32,
    log_bytes: u32,
}

impl From<&Limits> for LimitsRecord {
    fn from(limits: &Limits) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            cpu_micros: micros(limits.cpu),
            wall_micros: micros(limits.wall),
            memory: limits.memory,
            host_calls: limits.host_calls,
            edits: limits.edits,
            edit_bytes: limits.edit_bytes,
            output_bytes: limits.output_bytes,
            log_bytes: limits.log_bytes,
        }
    }
}

impl From<&LimitsRecord> for Limits {
    fn from(record: &LimitsRecord) -> Self {
        Self {
            cpu: Duration::from_micros(record.cpu_micros),
            wall: Duration::from_micros(record.wall_micros),
            memory: record.memory,
            host_calls: record.host_calls,
            edits: record.edits,
            edit_bytes: record.edit_bytes,
            output_bytes: record.output_bytes,
            log_bytes: record.log_bytes,
        }
    }
}

/// What a transaction keeps for its policies, before or after a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CallRecord {
    vars: Vec<(String, String)>,
    authenticated_user: Option<String>,
    route_params: Vec<(String, String)>,
    /// Whether Record-Route was asked for, and the presets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record_route: Option<Option<(String, Option<String>)>>,
    /// Branch, reply, failure.
    armed: (bool, bool, bool),
    /// Number, scope and key of each lease.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    leases: Vec<(u64, String, String)>,
    #[serde(default)]
    nat: NatRecord,
}

/// [`NatState`]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct NatRecord {
    force_rport: bool,
    register: bool,
    flags: String,
    next_hop: Option<Box<str>>,
}

impl NatRecord {
    fn of(nat: &NatState) -> Self {
        Self {
            force_rport: nat.force_rport,
            register: nat.register,
            flags: nat.flags.names(),
            next_hop: nat.next_hop.clone(),
        }
    }

    fn state(&self) -> NatState {
        NatState {
            force_rport: self.force_rport,
            register: self.register,
            flags: super::answers::read_flags(&self.flags),
            next_hop: self.next_hop.clone(),
        }
    }
}

impl CallRecord {
    pub(super) fn of(call: &HookCall) -> Self {
        Self {
            vars: call.state.vars.clone(),
            authenticated_user: call.state.authenticated_user.clone(),
            route_params: call.state.route_params.clone(),
            record_route: call.state.record_route.as_ref().map(|asked| {
                let preset = asked.preset.as_deref();
                preset.map(|preset| (preset.outbound.clone(), preset.inbound.clone()))
            }),
            armed: (call.armed.branch, call.armed.reply, call.armed.failure),
            nat: NatRecord::of(&call.state.nat),
            leases: call
                .state
                .leases
                .iter()
                .map(|lease| {
                    let key = lease.key();
                    (lease.id(), key.scope.to_string(), key.key.to_string())
                })
                .collect(),
        }
    }

    pub(super) fn state(&self) -> CallState {
        CallState {
            vars: self.vars.clone(),
            authenticated_user: self.authenticated_user.clone(),
            route_params: self.route_params.clone(),
            record_route: self.record_route.clone().map(|preset| RecordRouting {
                preset: preset
                    .map(|(outbound, inbound)| Box::new(RoutePreset { outbound, inbound })),
            }),
            nat: self.nat.state(),
            leases: self
                .leases
                .iter()
                .map(|(id, scope, key)| Lease::detached(*id, scope, key))
                .collect(),
            ..CallState::default()
        }
    }

    pub(super) fn armed(&self) -> Armed {
        let (branch, reply, failure) = self.armed;
        Armed {
            branch,
            reply,
            failure,
        }
    }
}
