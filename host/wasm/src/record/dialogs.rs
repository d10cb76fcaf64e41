//! What is written down of dialogs: as a capability answers, and as `on-dialog` is told.

use serde::{Deserialize, Serialize};
use sipbox_core::dialog::{Change, EndReason, Side, State, Validity, Wanted};
use sipbox_core::lease::{Acquired, Lease};
use sipbox_core::policy::{DialogCall, DialogOp, DialogView};

use super::answers::{Recorded, Value};

/// [`DialogView`]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ViewRecord {
    id: String,
    state: u32,
    caller: Option<bool>,
    lasted: u32,
    left: u32,
    vars: Vec<(String, String)>,
    flags: Vec<String>,
    profiles: Vec<(String, String)>,
}

impl From<&DialogView> for ViewRecord {
    fn from(view: &DialogView) -> Self {
        Self {
            id: view.id.clone(),
            state: view.state.number(),
            caller: view.from.map(|from| from == Side::Caller),
            lasted: view.lasted,
            left: view.left,
            vars: view.vars.clone(),
            flags: view.flags.clone(),
            profiles: view.profiles.clone(),
        }
    }
}

impl ViewRecord {
    /// `None`: there is no such state.
    fn view(&self) -> Option<DialogView> {
        let side = |caller| if caller { Side::Caller } else { Side::Callee };
        Some(DialogView {
            id: self.id.clone(),
            state: State::from_number(self.state)?,
            from: self.caller.map(side),
            lasted: self.lasted,
            left: self.left,
            vars: self.vars.clone(),
            flags: self.flags.clone(),
            profiles: self.profiles.clone(),
        })
    }
}

/// [`DialogOp`]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum OpRecord {
    Create {
        /// As `dialog.flags` has them.
        flags: u32,
        timeout: Option<u32>,
        delete_delay: Option<u32>,
        ping_interval: Option<u32>,
    },
    SetVar(String, String),
    SetFlag(String, bool),
    Join(String, String, bool),
    Leave(String, String),
    Timeout(u32),
    End(Vec<(String, String)>),
}

impl From<&DialogOp> for OpRecord {
    fn from(op: &DialogOp) -> Self {
        match op.clone() {
            DialogOp::Create(wanted) => Self::Create {
                flags: wanted.bits(),
                timeout: wanted.timeout,
                delete_delay: wanted.delete_delay,
                ping_interval: wanted.ping_interval,
            },
            DialogOp::SetVar { name, value } => Self::SetVar(name, value),
            DialogOp::SetFlag { name, on } => Self::SetFlag(name, on),
            DialogOp::Join {
                profile,
                value,
                clear,
            } => Self::Join(profile, value, clear),
            DialogOp::Leave { profile, value } => Self::Leave(profile, value),
            DialogOp::Timeout(seconds) => Self::Timeout(seconds),
            DialogOp::End(extra) => Self::End(extra),
        }
    }
}

impl From<&OpRecord> for DialogOp {
    fn from(record: &OpRecord) -> Self {
        match record.clone() {
            OpRecord::Create {
                flags,
                timeout,
                delete_delay,
                ping_interval,
            } => Self::Create(Wanted {
                timeout,
                delete_delay,
                ping_interval,
                ..Wanted::from_bits(flags)
            }),
            OpRecord::SetVar(name, value) => Self::SetVar { name, value },
            OpRecord::SetFlag(name, on) => Self::SetFlag { name, on },
            OpRecord::Join(profile, value, clear) => Self::Join {
                profile,
                value,
                clear,
            },
            OpRecord::Leave(profile, value) => Self::Leave { profile, value },
            OpRecord::Timeout(seconds) => Self::Timeout(seconds),
            OpRecord::End(extra) => Self::End(extra),
        }
    }
}

/// [`Change`]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum ChangeRecord {
    Created,
    Confirmed,
    Ended(String),
    Failed(u16),
    TimedOut,
}

const REASONS: [EndReason; 6] = [
    EndReason::UpstreamBye,
    EndReason::DownstreamBye,
    EndReason::Lifetime,
    EndReason::Command,
    EndReason::Ping,
    EndReason::Race,
];

/// [`DialogCall`]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DialogRecord {
    change: ChangeRecord,
    call_id: String,
    from_uri: String,
    to_uri: String,
    from_tag: String,
    to_tag: String,
    start: u32,
    dialog: ViewRecord,
}

impl From<&DialogCall> for DialogRecord {
    fn from(call: &DialogCall) -> Self {
        Self {
            change: match call.change {
                Change::Created => ChangeRecord::Created,
                Change::Confirmed => ChangeRecord::Confirmed,
                Change::Ended(reason) => ChangeRecord::Ended(reason.text().to_owned()),
                Change::Failed(status) => ChangeRecord::Failed(status),
                Change::TimedOut => ChangeRecord::TimedOut,
            },
            call_id: call.call_id.clone(),
            from_uri: call.from_uri.clone(),
            to_uri: call.to_uri.clone(),
            from_tag: call.from_tag.clone(),
            to_tag: call.to_tag.clone(),
            start: call.start,
            dialog: ViewRecord::from(&call.dialog),
        }
    }
}

impl DialogRecord {
    pub(super) fn call(&self) -> Result<DialogCall, String> {
        let view = self.dialog.view();
        Ok(DialogCall {
            change: match &self.change {
                ChangeRecord::Created => Change::Created,
                ChangeRecord::Confirmed => Change::Confirmed,
                ChangeRecord::Ended(text) => {
                    let reason = REASONS.iter().find(|reason| reason.text() == text);
                    Change::Ended(*reason.ok_or_else(|| format!("the end `{text}`"))?)
                }
                ChangeRecord::Failed(status) => Change::Failed(*status),
                ChangeRecord::TimedOut => Change::TimedOut,
            },
            call_id: self.call_id.clone(),
            from_uri: self.from_uri.clone(),
            to_uri: self.to_uri.clone(),
            from_tag: self.from_tag.clone(),
            to_tag: self.to_tag.clone(),
            start: self.start,
            dialog: view.ok_or_else(|| format!("state {} of a dialog", self.dialog.state))?,
        })
    }
}

impl Recorded for Option<DialogView> {
    fn record(&self) -> Value {
        Value::Dialog(self.as_ref().map(|view| Box::new(ViewRecord::from(view))))
    }

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Dialog(None) => Some(None),
            Value::Dialog(Some(record)) => record.view().map(Some),
            _ => None,
        }
    }
}

impl Recorded for bool {
    fn record(&self) -> Value {
        Value::Flag(*self)
    }

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        }
    }
}

const VALIDITIES: [Validity; 5] = [
    Validity::Valid,
    Validity::CSeq,
    Validity::RemoteTarget,
    Validity::RouteSet,
    Validity::Other,
];

impl Recorded for Validity {
    fn record(&self) -> Value {
        Value::Validity(format!("{self:?}"))
    }

    fn read(value: &Value) -> Option<Self> {
        let Value::Validity(name) = value else {
            return None;
        };
        let named = |validity: &&Self| format!("{validity:?}") == *name;
        VALIDITIES.iter().find(named).copied()
    }
}

impl Recorded for Acquired {
    fn record(&self) -> Value {
        match self {
            Self::Granted(lease) => {
                let key = lease.key();
                Value::Granted(lease.id(), key.scope.to_string(), key.key.to_string())
            }
            Self::Full(held) => Value::Full(*held),
        }
    }

    fn read(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Granted(id, scope, key) => Self::Granted(Lease::detached(*id, scope, key)),
            Value::Full(held) => Self::Full(*held),
            _ => return None,
        })
    }
}
