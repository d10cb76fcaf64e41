//! State that all calls of a tenant share: values by key, and counters.
//!
//! What is here belongs to the host, so it outlives instances, versions of policies and
//! reloads. The backend is a trait, since it may be elsewhere: an [`Answer`] is there at
//! once, or comes later. The one in this crate is memory, and always answers at once.

mod answer;
mod counters;
mod kv;
mod memory_counters;
mod memory_kv;

use std::sync::Arc;

use crate::time::Time;

pub use answer::Answer;
pub use counters::{CounterName, CounterStore, Counters, LONGEST_WINDOW, Taken};
pub use kv::{Change, Entry, Expected, Hold, Kv, KvStore, Pending, Staged, Swap, Write};
pub use memory_counters::MemoryCounters;
pub use memory_kv::MemoryKv;

/// What a tenant may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedLimits {
    /// Entries of its kv.
    pub kv_entries: u32,
    /// Bytes of all of them, with their keys and [`ENTRY`] for each.
    pub kv_bytes: u64,
    /// Bytes of one value.
    pub kv_value: u32,
    /// Counters.
    pub counters: u32,
}

/// Bytes that an entry counts besides its key and its value: what the tables around it
/// take.
pub const ENTRY: u64 = 192;

impl Default for SharedLimits {
    fn default() -> Self {
        Self {
            kv_entries: 10_000,
            kv_bytes: 4 << 20,
            kv_value: 16 << 10,
            counters: 10_000,
        }
    }
}

/// What a tenant keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedUse {
    /// Entries of its kv.
    pub kv_entries: u64,
    /// Their bytes, as [`SharedLimits::kv_bytes`] counts them.
    pub kv_bytes: u64,
    /// Counters.
    pub counters: u64,
}

/// What the calls of one tenant share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Values by key.
    pub kv: Arc<dyn KvStore>,
    /// Counters.
    pub counters: Arc<dyn CounterStore>,
}

/// The same, as a policy's call reaches it: what `kv` and `counters` stand on.
#[derive(Clone, Copy)]
pub struct SharedNow<'a> {
    /// Values by key.
    pub kv: &'a dyn Kv,
    /// Counters.
    pub counters: &'a dyn Counters,
    /// When the call asks.
    pub now: Time,
}

impl Shared {
    /// Nothing yet, and all of it in memory. `key` hides from strangers which keys fall
    /// together.
    #[must_use]
    pub fn in_memory(limits: &SharedLimits, key: &[u8; 16]) -> Self {
        Self {
            kv: Arc::new(MemoryKv::new(limits, key)),
            counters: Arc::new(MemoryCounters::new(limits, key)),
        }
    }

    /// For a call that asks at this time.
    #[must_use]
    pub fn at(&self, now: Time) -> SharedNow<'_> {
        SharedNow {
            kv: &*self.kv,
            counters: &*self.counters,
            now,
        }
    }

    /// Other limits from now on. What is above them stays until it expires.
    pub fn limit(&self, limits: &SharedLimits) {
        self.kv.limit(limits);
        self.counters.limit(limits);
    }

    /// Takes away what has expired, some of it if it is much.
    pub fn upkeep(&self, now: Time) {
        self.kv.upkeep(now);
        self.counters.upkeep(now);
    }

    /// What there is.
    #[must_use]
    pub fn usage(&self) -> SharedUse {
        let (kv_entries, kv_bytes) = self.kv.usage();
        SharedUse {
            kv_entries,
            kv_bytes,
            counters: self.counters.usage(),
        }
    }
}

/// Parts of a tenant's state, each behind a mutex of its own.
const SHARDS: usize = 8;
/// What has expired and is taken away when something is added.
const FEW: usize = 4;
/// The same from each shard, when there is no room or nobody waits.
const MANY: usize = 1000;
