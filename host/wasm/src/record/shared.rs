//! Questions to `kv` and `counters` and their answers, as they are written down.

use serde::{Deserialize, Serialize};
use sipbox_core::shared::{Change, CounterName, Entry, Expected, Staged, Swap, Taken, Write};

use super::answers::{Asked, Recorded, Value};
use super::{hex, unhex};

/// A staged write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WriteRecord {
    key: String,
    change: ChangeRecord,
    version: u32,
}

/// [`Change`], the value in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ChangeRecord {
    Set { value: String, ttl: u32 },
    Remove,
}

/// [`Entry`], the value in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EntryRecord {
    value: String,
    version: u32,
    ttl: u32,
}

/// [`CounterName`]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CounterRecord {
    name: String,
    key: String,
    window: u32,
}

impl From<&Change> for ChangeRecord {
    fn from(change: &Change) -> Self {
        match change {
            Change::Set { value, ttl } => Self::Set {
                value: hex(value),
                ttl: *ttl,
            },
            Change::Remove => Self::Remove,
        }
    }
}

impl ChangeRecord {
    fn change(&self) -> Option<Change> {
        Some(match self {
            Self::Set { value, ttl } => Change::Set {
                value: unhex(value)?.into(),
                ttl: *ttl,
            },
            Self::Remove => Change::Remove,
        })
    }
}

impl WriteRecord {
    pub(super) fn of(staged: &Staged) -> Self {
        let write = staged.write();
        Self {
            key: write.key.to_string(),
            change: ChangeRecord::from(&write.change),
            version: write.version,
        }
    }

    pub(super) fn staged(&self) -> Option<Staged> {
        Some(Staged::detached(Write {
            key: self.key.as_str().into(),
            change: self.change.change()?,
            version: self.version,
        }))
    }
}

impl From<&Entry> for EntryRecord {
    fn from(entry: &Entry) -> Self {
        Self {
            value: hex(&entry.value),
            version: entry.version,
            ttl: entry.ttl,
        }
    }
}

impl EntryRecord {
    fn entry(&self) -> Option<Entry> {
        Some(Entry {
            value: unhex(&self.value)?.into(),
            version: self.version,
            ttl: self.ttl,
        })
    }
}

impl From<CounterName<'_>> for CounterRecord {
    fn from(counter: CounterName<'_>) -> Self {
        Self {
            name: counter.name.to_owned(),
            key: counter.key.to_owned(),
            window: counter.window,
        }
    }
}

impl Asked {
    pub(super) fn kv_get(key: &str) -> Self {
        let key = key.to_owned();
        Self::KvGet { key }
    }

    pub(super) fn kv_stage(key: &str, change: &Change) -> Self {
        let (key, change) = (key.to_owned(), change.into());
        Self::KvStage { key, change }
    }

    pub(super) fn kv_swap(key: &str, expected: Expected, change: &Change) -> Self {
        let (key, change) = (key.to_owned(), change.into());
        Self::KvSwap {
            key,
            expected,
            change,
        }
    }

    pub(super) fn count(counter: CounterName<'_>, by: u32) -> Self {
        let counter = counter.into();
        Self::Count { counter, by }
    }

    pub(super) fn count_up_to(counter: CounterName<'_>, by: u32, limit: u32) -> Self {
        let counter = counter.into();
        Self::CountUpTo { counter, by, limit }
    }

    pub(super) fn count_anew(counter: CounterName<'_>) -> Self {
        let counter = counter.into();
        Self::CountAnew { counter }
    }

    pub(super) fn sequence(name: &str) -> Self {
        let name = name.to_owned();
        Self::Sequence { name }
    }
}

impl Recorded for () {
    fn record(&self) -> Value {
        Value::Done
    }

    fn read(value: &Value) -> Option<Self> {
        matches!(value, Value::Done).then_some(())
    }
}

impl Recorded for Option<Entry> {
    fn record(&self) -> Value {
        Value::Entry(self.as_ref().map(EntryRecord::from))
    }

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Entry(None) => Some(None),
            Value::Entry(Some(entry)) => entry.entry().map(Some),
            _ => None,
        }
    }
}

impl Recorded for Staged {
    fn record(&self) -> Value {
        Value::Staged(WriteRecord::of(self))
    }

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Staged(write) => write.staged(),
            _ => None,
        }
    }
}

impl Recorded for Swap {
    fn record(&self) -> Value {
        match self {
            Self::Staged(staged) => staged.record(),
            Self::Differs(found) => found.record(),
            Self::Busy => Value::Busy,
        }
    }

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Staged(_) => Staged::read(value).map(Self::Staged),
            Value::Entry(_) => Option::<Entry>::read(value).map(Self::Differs),
            Value::Busy => Some(Self::Busy),
            _ => None,
        }
    }
}

impl Recorded for Taken {
    fn record(&self) -> Value {
        match self {
            Self::Taken(sum) => Value::Count(*sum),
            Self::Over(sum) => Value::Over(*sum),
        }
    }

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Count(sum) => Some(Self::Taken(*sum)),
            Value::Over(sum) => Some(Self::Over(*sum)),
            _ => None,
        }
    }
}
