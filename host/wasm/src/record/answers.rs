//! What capabilities were asked and what they answered.

use super::dialogs::ViewRecord;
use super::shared::{ChangeRecord, CounterRecord, EntryRecord, WriteRecord};
use serde::{Deserialize, Serialize};
use sipbox_core::policy::{
    AuthOutcome, BindingFlags, BindingView, CallError, Reached, Realm, SaveLimits, SaveOutcome,
};

/// A question to a capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Asked {
    /// `auth.check`
    Check {
        realm: String,
        proxy: bool,
        algorithms: Vec<String>,
        strict_uri: bool,
    },
    /// `location.lookup`
    Lookup { aor: String },
    /// `location.save`
    Save {
        aor: String,
        min: u32,
        max: u32,
        default: u32,
        contacts: u32,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reached: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        flags: String,
    },
    /// `location.remove`
    Remove { aor: String },
    /// What `dialogs` knows of the dialog.
    Dialog,
    /// `dialogs.test-and-set-dlg-flag`
    TestAndSet { flag: String, on: bool },
    /// `dialogs.get-profile-size`
    ProfileSize { profile: String, value: String },
    /// `dialogs.validate-dialog`
    Validate,
    /// `leases.acquire`
    Acquire {
        scope: String,
        key: String,
        limit: u32,
    },
    /// `leases.held`
    Held { scope: String, key: String },
    /// `kv.get`
    KvGet { key: String },
    /// `kv.set`, `kv.remove`
    KvStage { key: String, change: ChangeRecord },
    /// `kv.compare-and-set`
    KvSwap {
        key: String,
        expected: Option<u32>,
        change: ChangeRecord,
    },
    /// `counters.add`, `counters.read`
    Count { counter: CounterRecord, by: u32 },
    /// `counters.take`
    CountUpTo {
        counter: CounterRecord,
        by: u32,
        limit: u32,
    },
    /// `counters.reset`
    CountAnew { counter: CounterRecord },
    /// `counters.sequence`
    Sequence { name: String },
}

impl Asked {
    pub(super) fn check(realm: &Realm) -> Self {
        Self::Check {
            realm: realm.name.clone(),
            proxy: realm.proxy,
            algorithms: realm.algorithms.iter().map(|a| format!("{a:?}")).collect(),
            strict_uri: realm.strict_uri,
        }
    }

    pub(super) fn lookup(aor: &str) -> Self {
        Self::Lookup {
            aor: aor.to_owned(),
        }
    }

    pub(super) fn save(aor: &str, limits: &SaveLimits) -> Self {
        Self::Save {
            aor: aor.to_owned(),
            min: limits.min_expires,
            max: limits.max_expires,
            default: limits.default_expires,
            contacts: limits.max_contacts,
            reached: match limits.reached {
                Reached::Auto => String::new(),
                other => format!("{other:?}"),
            },
            flags: limits.flags.names(),
        }
    }

    pub(super) fn remove(aor: &str) -> Self {
        Self::Remove {
            aor: aor.to_owned(),
        }
    }

    pub(super) fn test_and_set(flag: &str, on: bool) -> Self {
        let flag = flag.to_owned();
        Self::TestAndSet { flag, on }
    }

    pub(super) fn profile_size(profile: &str, value: &str) -> Self {
        let (profile, value) = (profile.to_owned(), value.to_owned());
        Self::ProfileSize { profile, value }
    }

    pub(super) fn acquire(scope: &str, key: &str, limit: u32) -> Self {
        let (scope, key) = (scope.to_owned(), key.to_owned());
        Self::Acquire { scope, key, limit }
    }

    pub(super) fn held(scope: &str, key: &str) -> Self {
        let (scope, key) = (scope.to_owned(), key.to_owned());
        Self::Held { scope, key }
    }
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) asked: Asked,
    answer: Result<Value, Refusal>,
}

impl Answer {
    pub(super) fn new<T: Recorded>(asked: Asked, answer: &Result<T, CallError>) -> Self {
        let answer = match answer {
            Ok(value) => Ok(value.record()),
            Err(error) => Err(Refusal::from(error)),
        };
        Self { asked, answer }
    }

    /// The answer, if it is of that kind.
    pub(super) fn get<T: Recorded>(&self) -> Option<Result<T, CallError>> {
        match &self.answer {
            Ok(value) => T::read(value).map(Ok),
            Err(refusal) => Some(Err(refusal.into())),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Value {
    NoCredentials,
    Authenticated(String),
    Stale,
    Refused,
    Throttled,
    Bindings(Vec<Binding>),
    Saved(u32),
    Queried(u32),
    SaveRefused(u16),
    Count(u32),
    Dialog(Option<Box<ViewRecord>>),
    Flag(bool),
    Validity(String),
    Granted(u64, String, String),
    Full(u32),
    Entry(Option<EntryRecord>),
    Staged(WriteRecord),
    Busy,
    Over(u32),
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Binding {
    contact: String,
    q: u16,
    expires: u32,
    path: Vec<String>,
    received: String,
    flow: String,
    instance: String,
    user_agent: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    flags: String,
}

/// An answer that can be written down and read back.
pub(super) trait Recorded: Sized {
    fn record(&self) -> Value;
    fn read(value: &Value) -> Option<Self>;
}

impl Recorded for AuthOutcome {
    fn record(&self) -> Value {
        match self {
            Self::None => Value::NoCredentials,
            Self::Authenticated(user) => Value::Authenticated(user.clone()),
            Self::Stale => Value::Stale,
            Self::Refused => Value::Refused,
            Self::Throttled => Value::Throttled,
        }
    }

    fn read(value: &Value) -> Option<Self> {
        Some(match value {
            Value::NoCredentials => Self::None,
            Value::Authenticated(user) => Self::Authenticated(user.clone()),
            Value::Stale => Self::Stale,
            Value::Refused => Self::Refused,
            Value::Throttled => Self::Throttled,
            _ => return None,
        })
    }
}

impl Recorded for Vec<BindingView> {
    fn record(&self) -> Value {
        Value::Bindings(
            self.iter()
                .map(|b| Binding {
                    contact: b.contact.clone(),
                    q: b.q,
                    expires: b.expires,
                    path: b.path.clone(),
                    received: b.received.clone(),
                    flow: b.flow.clone(),
                    instance: b.instance.clone(),
                    user_agent: b.user_agent.clone(),
                    flags: b.flags.names(),
                })
                .collect(),
        )
    }

    fn read(value: &Value) -> Option<Self> {
        let Value::Bindings(bindings) = value else {
            return None;
        };
        Some(
            bindings
                .iter()
                .map(|b| BindingView {
                    contact: b.contact.clone(),
                    q: b.q,
                    expires: b.expires,
                    path: b.path.clone(),
                    received: b.received.clone(),
                    flow: b.flow.clone(),
                    instance: b.instance.clone(),
                    user_agent: b.user_agent.clone(),
                    flags: read_flags(&b.flags),
                })
                .collect(),
        )
    }
}

impl Recorded for SaveOutcome {
    fn record(&self) -> Value {
        match self {
            Self::Saved(n) => Value::Saved(*n),
            Self::Queried(n) => Value::Queried(*n),
            Self::Refused(status) => Value::SaveRefused(*status),
        }
    }

    fn read(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Saved(n) => Self::Saved(*n),
            Value::Queried(n) => Self::Queried(*n),
            Value::SaveRefused(status) => Self::Refused(*status),
            _ => return None,
        })
    }
}

impl Recorded for u32 {
    fn record(&self) -> Value {
        Value::Count(*self)
    }

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Count(n) => Some(*n),
            _ => None,
        }
    }
}

/// A [`CallError`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Refusal {
    OutOfPlace(String),
    Malformed(String),
    Protected(String),
    UnknownOption(String),
    Limit(String),
    Unavailable(String),
}

impl From<&CallError> for Refusal {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::OutOfPlace(text) => Self::OutOfPlace(text.clone()),
            CallError::Malformed(text) => Self::Malformed(text.clone()),
            CallError::Protected(text) => Self::Protected(text.clone()),
            CallError::UnknownOption(text) => Self::UnknownOption(text.clone()),
            CallError::Limit(text) => Self::Limit(text.clone()),
            CallError::Unavailable(text) => Self::Unavailable(text.clone()),
        }
    }
}

impl From<&Refusal> for CallError {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::OutOfPlace(text) => Self::OutOfPlace(text.clone()),
            Refusal::Malformed(text) => Self::Malformed(text.clone()),
            Refusal::Protected(text) => Self::Protected(text.clone()),
            Refusal::UnknownOption(text) => Self::UnknownOption(text.clone()),
            Refusal::Limit(text) => Self::Limit(text.clone()),
            Refusal::Unavailable(text) => Self::Unavailable(text.clone()),
        }
    }
}

/// Marks of a binding by their names.
pub(super) fn read_flags(names: &str) -> BindingFlags {
    names
        .split(',')
        .filter_map(BindingFlags::from_name)
        .fold(BindingFlags::default(), BindingFlags::with)
}
