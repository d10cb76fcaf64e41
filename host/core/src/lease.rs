//! Leases: places that are limited, counted over all workers in one atomic step.
//!
//! A lease is taken by [`LeaseTable::acquire`], which compares and counts at once, so
//! that nothing can come between. It counts until it is ended, or until its last copy
//! is dropped: whatever frees a call frees its leases. Nobody waits for anybody where
//! one ends; the mutexes here are for finding a counter only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use crate::flow::TenantId;
use crate::location::{KeyedState, shard_of};

/// What is limited: a key within a scope of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseKey {
    /// Whose.
    pub tenant: TenantId,
    /// What kind of key it is, as the policy names it: `user`, `trunk`.
    pub scope: Box<str>,
    /// Which one.
    pub key: Box<str>,
}

/// How many leases of one key there are.
#[derive(Debug)]
struct Counter {
    key: LeaseKey,
    held: AtomicU32,
    /// Those of them that a hook took whose verdict has not been carried out.
    reserved: AtomicU32,
    /// What this one is part of.
    whole: Option<Arc<Self>>,
}

impl Counter {
    fn add(&self) {
        self.held.fetch_add(1, Ordering::AcqRel);
        if let Some(whole) = &self.whole {
            whole.add();
        }
    }

    fn subtract(&self) {
        self.held.fetch_sub(1, Ordering::AcqRel);
        if let Some(whole) = &self.whole {
            whole.subtract();
        }
    }
}

/// What [`LeaseTable::acquire`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// A place was free, and is taken.
    Granted(Lease),
    /// So many are held, and no more may be.
    Full(u32),
}

/// A place that is taken, until this and all its copies are dropped or it is ended.
#[derive(Clone)]
pub struct Lease(Arc<Held>);

#[derive(Debug)]
struct Held {
    id: u64,
    counter: Arc<Counter>,
    ended: AtomicBool,
    /// The verdict that it came with was carried out.
    committed: AtomicBool,
}

impl Held {
    fn commit(&self) {
        if !self.committed.swap(true, Ordering::AcqRel) {
            self.counter.reserved.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn end(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.counter.subtract();
        }
        self.commit();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end();
    }
}

/// By what it is a place of: the number differs from run to run.
impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.key();
        write!(f, "Lease({:?}, {:?})", key.scope, key.key)
    }
}

impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Lease {}

impl Lease {
    /// One that counts nowhere, with the number of another: what a recording tells.
    #[must_use]
    pub fn detached(id: u64, scope: &str, key: &str) -> Self {
        let key = LeaseKey {
            tenant: TenantId(0),
            scope: scope.into(),
            key: key.into(),
        };
        let counter = Arc::new(Counter {
            key,
            held: AtomicU32::new(1),
            reserved: AtomicU32::new(1),
            whole: None,
        });
        Self(Arc::new(Held {
            id,
            counter,
            ended: AtomicBool::new(false),
            committed: AtomicBool::new(false),
        }))
    }

    /// Names it among those of its table.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// What it is a place of.
    #[must_use]
    pub fn key(&self) -> &LeaseKey {
        &self.0.counter.key
    }

    /// The verdict that it was taken for is carried out.
    pub fn commit(&self) {
        self.0.commit();
    }

    /// Gives the place back, whoever has copies.
    pub fn end(&self) {
        self.0.end();
    }

    /// Whether the place was given back.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.0.ended.load(Ordering::Acquire)
    }

    /// Takes the place again, limit or not: what it stands for goes on after all.
    pub(crate) fn revive(&self) {
        if self.0.ended.swap(false, Ordering::AcqRel) {
            self.0.counter.add();
        }
    }
}

/// By the keyed hash of tenant, scope and key; there is nearly always one of a hash. So what
/// is looked for needs no copy.
type Counters = HashMap<u64, SmallVec<[Arc<Counter>; 1]>, FixedState>;

#[derive(Debug)]
struct Shard {
    counters: Counters,
    /// How many hashes there may be before those are looked for that nobody needs.
    prune_at: usize,
}

impl Shard {
    fn find(
        &self,
        hash: u64,
        (tenant, scope, key): (TenantId, &str, &str),
    ) -> Option<&Arc<Counter>> {
        let of_hash = self.counters.get(&hash)?;
        of_hash.iter().find(|counter| {
            let known = &counter.key;
            known.tenant == tenant && *known.scope == *scope && *known.key == *key
        })
    }

    fn counters(&self) -> impl Iterator<Item = &Arc<Counter>> {
        self.counters.values().flatten()
    }
}

/// The counters of all tenants.
#[derive(Debug)]
pub struct LeaseTable {
    shards: Box<[Mutex<Shard>]>,
    keyed: KeyedState,
    next: AtomicU64,
}

/// Counters of a shard that are not worth a look for unused ones.
const FEW: usize = 64;

impl LeaseTable {
    /// An empty table whose maps are seeded by a secret key.
    #[must_use]
    pub fn new(shards: usize, key: &[u8; 16]) -> Self {
        let keyed = KeyedState::new(key);
        let shard = || {
            Mutex::new(Shard {
                counters: HashMap::default(),
                prune_at: FEW,
            })
        };
        Self {
            shards: (0..shards.max(1)).map(|_| shard()).collect(),
            keyed,
            next: AtomicU64::new(1),
        }
    }

    /// Takes a place, if fewer than `limit` are taken: one step, whoever else comes.
    #[must_use]
    pub fn acquire(&self, tenant: TenantId, scope: &str, key: &str, limit: u32) -> Acquired {
        let counter = self.counter(tenant, scope, key, None);
        let free = |held| (held < limit).then_some(held + 1);
        match counter
            .held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, free)
        {
            Ok(_) => Acquired::Granted(self.lease(counter)),
            Err(held) => Acquired::Full(held),
        }
    }

    /// Takes a place, limit or not: of a call that was there before a restart.
    #[must_use]
    pub fn take(&self, tenant: TenantId, scope: &str, key: &str) -> Lease {
        let counter = self.counter(tenant, scope, key, None);
        counter.add();
        self.lease(counter)
    }

    /// Takes a place that counts among all of the scope as well, which [`Self::held`] tells
    /// for an empty key.
    #[must_use]
    pub fn take_among(&self, tenant: TenantId, scope: &str, key: &str) -> Lease {
        if key.is_empty() {
            return self.take(tenant, scope, key);
        }
        let whole = self.counter(tenant, scope, "", None);
        let counter = self.counter(tenant, scope, key, Some(whole));
        counter.add();
        self.lease(counter)
    }

    /// How many places of a key are taken.
    #[must_use]
    pub fn held(&self, tenant: TenantId, scope: &str, key: &str) -> u32 {
        let hash = self.keyed.hash((tenant, scope, key));
        let shard = self.shard(hash);
        let counter = shard.find(hash, (tenant, scope, key));
        counter.map_or(0, |counter| counter.held.load(Ordering::Acquire))
    }

    /// How many places are taken in all, and for how many of them the verdict has not been
    /// carried out.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let (mut held, mut reserved) = (0, 0);
        for mutex in &self.shards {
            for counter in lock(mutex).counters() {
                held += u64::from(counter.held.load(Ordering::Acquire));
                reserved += u64::from(counter.reserved.load(Ordering::Acquire));
            }
        }
        (held, reserved)
    }

    /// Every key of which a place is taken, and how many.
    #[must_use]
    pub fn list(&self, tenant: Option<TenantId>) -> Vec<(LeaseKey, u32)> {
        let mut list = Vec::new();
        for mutex in &self.shards {
            let shard = lock(mutex);
            list.extend(
                shard
                    .counters()
                    .filter(|counter| tenant.is_none_or(|tenant| tenant == counter.key.tenant))
                    .map(|counter| (counter.key.clone(), counter.held.load(Ordering::Acquire)))
                    .filter(|(_, held)| *held > 0),
            );
        }
        list
    }

    /// Compares what is counted with what somebody holds. `holders` finds all leases
    /// of dialogs and transactions; those that a hook has just taken count as held.
    /// Calls come and go meanwhile, so that a difference counts only if it is there each
    /// time.
    #[must_use]
    pub fn audit(&self, holders: impl Fn() -> Vec<Lease>) -> Audit {
        let mut audit = self.compare(holders());
        for _ in 0..AGAIN {
            if audit.drift.is_empty() {
                break;
            }
            let again = self.compare(holders());
            let before = std::mem::take(&mut audit.drift);
            audit = again;
            audit
                .drift
                .retain(|(key, by)| before.iter().any(|(old, was)| old == key && was == by));
        }
        audit
    }

    fn compare(&self, mut holders: Vec<Lease>) -> Audit {
        holders.sort_unstable_by_key(Lease::id);
        holders.dedup();
        holders.retain(|lease| !lease.is_ended());
        let mut counted: HashMap<*const Counter, u32, FixedState> = HashMap::default();
        for lease in &holders {
            let of = counted.entry(Arc::as_ptr(&lease.0.counter)).or_default();
            *of += u32::from(lease.0.committed.load(Ordering::Acquire));
        }
        let mut audit = Audit::default();
        for mutex in &self.shards {
            let shard = lock(mutex);
            for counter in shard.counters() {
                let held = counter.held.load(Ordering::Acquire);
                let reserved = counter.reserved.load(Ordering::Acquire);
                let known = counted.get(&Arc::as_ptr(counter)).copied().unwrap_or(0);
                audit.held += u64::from(held);
                audit.reserved += u64::from(reserved);
                let drift = i64::from(held) - i64::from(reserved) - i64::from(known);
                if drift != 0 {
                    audit.drift.push((counter.key.clone(), drift));
                }
            }
        }
        audit
    }

    fn lease(&self, counter: Arc<Counter>) -> Lease {
        counter.reserved.fetch_add(1, Ordering::AcqRel);
        Lease(Arc::new(Held {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            counter,
            ended: AtomicBool::new(false),
            committed: AtomicBool::new(false),
        }))
    }

    fn counter(
        &self,
        tenant: TenantId,
        scope: &str,
        key: &str,
        whole: Option<Arc<Counter>>,
    ) -> Arc<Counter> {
        let hash = self.keyed.hash((tenant, scope, key));
        let mut shard = self.shard(hash);
        if let Some(counter) = shard.find(hash, (tenant, scope, key)) {
            return Arc::clone(counter);
        }
        if shard.counters.len() >= shard.prune_at {
            // Copies are made under this lock only: nobody can begin to hold one that
            // nobody holds.
            shard.counters.retain(|_, of_hash| {
                of_hash.retain(|counter| Arc::strong_count(counter) > 1);
                !of_hash.is_empty()
            });
            shard.prune_at = shard.counters.len().saturating_mul(2).max(FEW);
        }
        let key = LeaseKey {
            tenant,
            scope: scope.into(),
            key: key.into(),
        };
        let counter = Arc::new(Counter {
            key,
            held: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            whole,
        });
        let of_hash = shard.counters.entry(hash).or_default();
        of_hash.push(Arc::clone(&counter));
        counter
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        let at = shard_of(hash, self.shards.len());
        // `at` is below the length, and there is at least one shard.
        #[allow(clippy::indexing_slicing, reason = "in range by construction")]
        lock(&self.shards[at])
    }
}

/// How often a difference is looked at again.
const AGAIN: usize = 3;

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Places that are taken.
    pub held: u64,
    /// Those of them whose verdict is not carried out yet.
    pub reserved: u64,
    /// Keys that count more (or less, if negative) than somebody holds. There should
    /// be none.
    pub drift: Vec<(LeaseKey, i64)>,
}

impl Audit {
    /// By how much all keys differ.
    #[must_use]
    pub fn drift(&self) -> u64 {
        let by = self.drift.iter().map(|(_, by)| by.unsigned_abs());
        by.sum()
    }
}

/// A panic elsewhere leaves a shard usable: each change is one insertion or removal.
fn lock(mutex: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
