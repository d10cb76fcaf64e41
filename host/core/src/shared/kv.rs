//! Values by key, as every backend keeps them.
//!
//! A write has two steps. It is *staged* while the policy runs: from then on it has the
//! room that it needs, and nobody sees it but its own call. It is *committed* with the
//! verdict. One that is dropped uncommitted, since the policy trapped or the verdict does
//! not count, was never there. So a commit cannot fail for want of room.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::{Answer, SharedLimits};
use crate::policy::CallError;
use crate::time::Time;

/// What stands under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// Another one with each write of the key. It says no more than whether something was
    /// written since.
    pub version: u32,
    /// Seconds left, rounded up; 0: it does not expire.
    pub ttl: u32,
}

/// What a write makes of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This value stands there.
    Set {
        /// The value.
        value: Bytes,
        /// Seconds that it lasts; 0: until it is removed.
        ttl: u32,
    },
    /// Nothing does.
    Remove,
}

/// What a compare-and-set wants to find: this version, or no entry.
pub type Expected = Option<u32>;

/// What a compare-and-set found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// What was expected. The write is staged, and no other compare-and-set of the key
    /// can be until it is committed or dropped.
    Staged(Staged),
    /// Something else.
    Differs(Option<Entry>),
    /// Another call has compared, and its verdict is not carried out yet.
    Busy,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Box<str>,
    /// What becomes of it.
    pub change: Change,
    /// The version that the entry will have.
    pub version: u32,
}

/// What a backend keeps for a write that is staged. Dropped: the write is given up.
pub trait Pending: Send + Sync {
    /// Makes the write visible. Once: again does nothing.
    fn commit(&self, write: &Write, now: Time) -> Answer<Result<(), CallError>>;

    /// What it holds of the key, for a further write of the same call.
    fn hold(&self) -> Option<Hold> {
        None
    }
}

/// What a staged write holds of its key, in the backend's own words: its room, and the
/// claim of a compare-and-set. It ends with its last copy.
pub type Hold = Arc<dyn Any + Send + Sync>;

/// A write that is staged.
#[derive(Clone)]
pub struct Staged(Arc<(Write, Box<dyn Pending>)>);

impl Staged {
    /// A write, and what its backend keeps for it.
    #[must_use]
    pub fn new(write: Write, pending: Box<dyn Pending>) -> Self {
        Self(Arc::new((write, pending)))
    }

    /// One that writes nothing anywhere: what a recording tells.
    #[must_use]
    pub fn detached(write: Write) -> Self {
        Self::new(write, Box::new(Nowhere))
    }

    /// The write.
    #[must_use]
    pub fn write(&self) -> &Write {
        &self.0.0
    }

    /// What the call that staged it sees under the key.
    #[must_use]
    pub fn entry(&self) -> Option<Entry> {
        match &self.write().change {
            Change::Set { value, ttl } => Some(Entry {
                value: value.clone(),
                version: self.write().version,
                ttl: *ttl,
            }),
            Change::Remove => None,
        }
    }

    /// The verdict that it belongs to is carried out.
    pub fn commit(&self, now: Time) -> Answer<Result<(), CallError>> {
        self.0.1.commit(self.write(), now)
    }

    /// What it holds of the key, for a further write of the same call: of several writes of
    /// a call the last one is committed, so they need room once.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        self.0.1.hold()
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = self.write();
        write!(f, "Staged({:?}, {:?})", write.key, write.change)
    }
}

impl PartialEq for Staged {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Staged {}

struct Nowhere;

impl Pending for Nowhere {
    fn commit(&self, _: &Write, _: Time) -> Answer<Result<(), CallError>> {
        Answer::Now(Ok(()))
    }
}

/// The values of one tenant, as its calls reach them.
pub trait Kv: Send + Sync {
    /// What stands under a key.
    ///
    /// # Errors
    /// Of all of these: [`CallError::Limit`] with the name of the setting, and
    /// [`CallError::Unavailable`].
    fn get(&self, key: &str, now: Time) -> Answer<Result<Option<Entry>, CallError>>;

    /// Prepares a write. `hold` is that of an earlier write of the call, which this one
    /// replaces.
    fn stage(
        &self,
        key: &str,
        change: Change,
        hold: Option<Hold>,
        now: Time,
    ) -> Answer<Result<Staged, CallError>>;

    /// Prepares a write if the key is as expected. One step, whoever else asks.
    fn compare_and_set(
        &self,
        key: &str,
        expected: Expected,
        change: Change,
        now: Time,
    ) -> Answer<Result<Swap, CallError>>;
}

/// Where the values of one tenant are.
pub trait KvStore: Kv + fmt::Debug {
    /// Other limits from now on.
    fn limit(&self, limits: &SharedLimits);

    /// Entries and bytes, those that are reserved included.
    fn usage(&self) -> (u64, u64) {
        (0, 0)
    }

    /// Takes away what has expired.
    fn upkeep(&self, now: Time) {
        let _ = now;
    }
}
