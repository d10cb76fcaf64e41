//! Values by key in memory.
//!
//! Why a compare-and-set claims its key: the comparison is made while the policy runs, the
//! write becomes visible with the verdict, and in between other workers go on. Without a
//! claim two calls could both find what they expect. Applied at once instead, a trap could
//! not undo it; compared again at the commit, it could fail when the policy has decided.
//! So the first one claims the key, the others are told that it is busy, and the claim
//! ends with the write.
//!
//! A plain `set` does not ask for a claim. One that is committed while the key is claimed
//! comes *after* the compare-and-set, whose value nobody has seen: the claim is marked as
//! overtaken, and its write is left out when its turn comes. That is the same for everybody
//! as if it had been written the moment before.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    Answer, Change, ENTRY, Entry, Expected, FEW, Hold, Kv, KvStore, MANY, Pending, SHARDS,
    SharedLimits, Staged, Swap, Write,
};
use crate::location::KeyedState;
use crate::policy::CallError;
use crate::time::Time;

/// The values of one tenant.
#[derive(Debug)]
pub struct MemoryKv(Arc<Space>);

#[derive(Debug)]
struct Space {
    keyed: KeyedState,
    shards: Box<[Mutex<Shard>]>,
    /// Entries and bytes that are there or reserved.
    entries: AtomicI64,
    bytes: AtomicI64,
    most_entries: AtomicU32,
    most_bytes: AtomicU64,
    longest_value: AtomicU32,
    /// The version of the last write.
    versions: AtomicU32,
}

#[derive(Debug)]
struct Shard {
    entries: HashMap<Arc<str>, Stored, KeyedState>,
    /// When entries end.
    due: BTreeSet<(Time, Arc<str>)>,
    /// Keys that are claimed, and whether they were written all the same.
    claims: HashMap<Arc<str>, Arc<AtomicBool>, KeyedState>,
}

#[derive(Debug)]
struct Stored {
    value: bytes::Bytes,
    version: u32,
    ends: Option<Time>,
}

impl Stored {
    fn stands(&self, now: Time) -> bool {
        self.ends.is_none_or(|ends| ends > now)
    }

    fn entry(&self, now: Time) -> Entry {
        let left = self.ends.map_or(0, |ends| {
            ends.since(now).as_micros().div_ceil(1_000_000).max(1)
        });
        Entry {
            value: self.value.clone(),
            version: self.version,
            ttl: u32::try_from(left).unwrap_or(u32::MAX),
        }
    }
}

fn cost(key: &str, value: &[u8]) -> i64 {
    let bytes = key.len().saturating_add(value.len());
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    i64::try_from(bytes.saturating_add(ENTRY)).unwrap_or(i64::MAX)
}

impl Shard {
    fn standing(&self, key: &str, now: Time) -> Option<&Stored> {
        self.entries.get(key).filter(|stored| stored.stands(now))
    }

    /// Whether a compare-and-set finds what it expects.
    fn compare(&self, key: &str, expected: Expected, now: Time) -> Result<(), Refused> {
        if self.claims.contains_key(key) {
            return Err(Refused::Found(Swap::Busy));
        }
        let found = self.standing(key, now);
        if found.map(|stored| stored.version) == expected {
            return Ok(());
        }
        let found = found.map(|stored| stored.entry(now));
        Err(Refused::Found(Swap::Differs(found)))
    }

    fn claim(&mut self, space: &Arc<Space>, key: &str) -> Claim {
        let (key, overtaken): (Arc<str>, Arc<AtomicBool>) = (key.into(), Arc::default());
        self.claims.insert(Arc::clone(&key), Arc::clone(&overtaken));
        Claim {
            space: Arc::clone(space),
            key,
            overtaken,
        }
    }

    /// Takes an entry out; its bytes.
    fn take(&mut self, key: &str) -> Option<i64> {
        let (key, stored) = self.entries.remove_entry(key)?;
        let bytes = cost(&key, &stored.value);
        if let Some(ends) = stored.ends {
            self.due.remove(&(ends, key));
        }
        Some(bytes)
    }
}

/// What a write needs more than the entry that it replaces.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    entries: i64,
    bytes: i64,
}

impl Room {
    /// What it has more than another.
    fn beyond(self, other: Self) -> Self {
        Self {
            entries: (self.entries - other.entries).max(0),
            bytes: (self.bytes - other.bytes).max(0),
        }
    }

    fn negative(self) -> Self {
        Self {
            entries: -self.entries,
            bytes: -self.bytes,
        }
    }
}

impl Space {
    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        let at = self.keyed.shard(key, self.shards.len());
        // `at` is below the length, and there is at least one shard.
        #[allow(clippy::indexing_slicing, reason = "in range by construction")]
        lock(&self.shards[at])
    }

    fn account(&self, by: Room) {
        self.entries.fetch_add(by.entries, Ordering::AcqRel);
        self.bytes.fetch_add(by.bytes, Ordering::AcqRel);
    }

    fn forget(&self, shard: &mut Shard, key: &str) {
        if let Some(bytes) = shard.take(key) {
            self.account(Room {
                entries: -1,
                bytes: -bytes,
            });
        }
    }

    /// Takes away so many entries that have ended.
    fn expire(&self, shard: &mut Shard, now: Time, most: usize) {
        for _ in 0..most {
            let Some((ends, key)) = shard.due.first() else {
                return;
            };
            if *ends > now {
                return;
            }
            let key = Arc::clone(key);
            self.forget(shard, &key);
        }
    }

    /// Nobody's lock may be held.
    fn expire_all(&self, now: Time) {
        for shard in &self.shards {
            self.expire(&mut lock(shard), now, MANY);
        }
    }

    /// Takes room, or tells which setting has none.
    fn reserve(&self, room: Room) -> Result<(), &'static str> {
        let most = i64::from(self.most_entries.load(Ordering::Relaxed));
        take(&self.entries, room.entries, most).map_err(|()| "kv_entries")?;
        let most = i64::try_from(self.most_bytes.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        take(&self.bytes, room.bytes, most).map_err(|()| {
            self.entries.fetch_sub(room.entries, Ordering::AcqRel);
            "kv_mib"
        })
    }

    /// What the change would need now.
    fn wanted(shard: &Shard, key: &str, change: &Change) -> Room {
        let Change::Set { value, .. } = change else {
            return Room::default();
        };
        let stored = shard.entries.get(key);
        let before = stored.map_or(0, |stored| cost(key, &stored.value));
        Room {
            entries: i64::from(stored.is_none()),
            bytes: (cost(key, value) - before).max(0),
        }
    }

    fn next_version(&self) -> u32 {
        self.versions
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1)
    }

    /// Takes the room that the change needs, if the key is as expected, in one step.
    /// `earlier` is what an earlier write of the same call has: of both one is committed,
    /// so they share the room that the larger one needs. Where there is no room, what has
    /// expired makes some, once.
    fn prepare(
        self: &Arc<Self>,
        key: &str,
        change: &Change,
        expected: Option<Expected>,
        earlier: Option<Arc<Held>>,
        now: Time,
    ) -> Result<Prepared, Refused> {
        let longest = self.longest_value.load(Ordering::Relaxed);
        if let Change::Set { value, .. } = change
            && value.len() > usize::try_from(longest).unwrap_or(usize::MAX)
        {
            return Err(no_room("kv_value_bytes"));
        }
        let mut again = true;
        loop {
            let mut shard = self.shard(key);
            self.expire(&mut shard, now, FEW);
            if let Some(expected) = expected {
                shard.compare(key, expected, now)?;
            }
            let room = Self::wanted(&shard, key, change);
            let more = earlier
                .as_ref()
                .map_or(room, |held| room.beyond(held.room()));
            match self.reserve(more) {
                Ok(()) => {
                    let held = match earlier {
                        Some(held) => {
                            held.grow(more);
                            held
                        }
                        None => Arc::new(Held {
                            entries: AtomicI64::new(room.entries),
                            bytes: AtomicI64::new(room.bytes),
                            claim: expected.map(|_| shard.claim(self, key)),
                            space: Arc::clone(self),
                        }),
                    };
                    return Ok(Prepared {
                        held,
                        done: AtomicBool::new(false),
                    });
                }
                Err(setting) if !again => return Err(no_room(setting)),
                Err(_) => {}
            }
            drop(shard);
            self.expire_all(now);
            again = false;
        }
    }
}

/// Why a write is not staged.
enum Refused {
    Error(CallError),
    Found(Swap),
}

fn no_room(setting: &str) -> Refused {
    Refused::Error(CallError::Limit(setting.to_owned()))
}

/// Adds, unless that makes more than `most`.
fn take(to: &AtomicI64, by: i64, most: i64) -> Result<(), ()> {
    if by == 0 {
        return Ok(());
    }
    let more = |held: i64| held.checked_add(by).filter(|sum| *sum <= most);
    let taken = to.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
    taken.map(|_| ()).map_err(|_| ())
}

/// A claim on a key.
#[derive(Debug)]
struct Claim {
    space: Arc<Space>,
    key: Arc<str>,
    /// Another write came.
    overtaken: Arc<AtomicBool>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut shard = self.space.shard(&self.key);
        let own = |known: &Arc<AtomicBool>| Arc::ptr_eq(known, &self.overtaken);
        if shard.claims.get(&self.key).is_some_and(own) {
            shard.claims.remove(&self.key);
        }
    }
}

/// What the writes of one call to a key hold together, until one of them is committed or
/// the last is dropped.
struct Held {
    /// The room that is reserved.
    entries: AtomicI64,
    bytes: AtomicI64,
    claim: Option<Claim>,
    space: Arc<Space>,
}

impl Held {
    fn room(&self) -> Room {
        Room {
            entries: self.entries.load(Ordering::Acquire),
            bytes: self.bytes.load(Ordering::Acquire),
        }
    }

    /// So much more is reserved.
    fn grow(&self, by: Room) {
        self.entries.fetch_add(by.entries, Ordering::AcqRel);
        self.bytes.fetch_add(by.bytes, Ordering::AcqRel);
    }

    /// Nothing is reserved any more; what was.
    fn take(&self) -> Room {
        Room {
            entries: self.entries.swap(0, Ordering::AcqRel),
            bytes: self.bytes.swap(0, Ordering::AcqRel),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let room = self.take();
        self.space.account(room.negative());
    }
}

/// A write that has its room.
struct Prepared {
    held: Arc<Held>,
    done: AtomicBool,
}

impl Pending for Prepared {
    fn commit(&self, write: &Write, now: Time) -> Answer<Result<(), CallError>> {
        if !self.done.swap(true, Ordering::AcqRel) {
            self.apply(write, now);
        }
        Answer::Now(Ok(()))
    }

    fn hold(&self) -> Option<Hold> {
        Some(Arc::clone(&self.held) as Hold)
    }
}

impl Prepared {
    fn apply(&self, write: &Write, now: Time) {
        let space = &self.held.space;
        let mut shard = space.shard(&write.key);
        let mut by = self.held.take().negative();
        let overtaken = match &self.held.claim {
            Some(claim) => claim.overtaken.load(Ordering::Acquire),
            None => {
                if let Some(claim) = shard.claims.get(&*write.key) {
                    claim.store(true, Ordering::Release);
                }
                false
            }
        };
        if !overtaken {
            if let Some(bytes) = shard.take(&write.key) {
                by.entries -= 1;
                by.bytes -= bytes;
            }
            if let Change::Set { value, ttl } = &write.change {
                let key: Arc<str> = (*write.key).into();
                by.entries += 1;
                by.bytes += cost(&key, value);
                let ends = (*ttl > 0).then(|| now + Duration::from_secs(u64::from(*ttl)));
                if let Some(ends) = ends {
                    shard.due.insert((ends, Arc::clone(&key)));
                }
                let stored = Stored {
                    value: value.clone(),
                    version: write.version,
                    ends,
                };
                shard.entries.insert(key, stored);
            }
        }
        space.account(by);
    }
}

impl MemoryKv {
    /// Nothing yet.
    #[must_use]
    pub fn new(limits: &SharedLimits, key: &[u8; 16]) -> Self {
        let keyed = KeyedState::new(key);
        let shard = || Shard {
            entries: HashMap::with_hasher(keyed.clone()),
            due: BTreeSet::new(),
            claims: HashMap::with_hasher(keyed.clone()),
        };
        let space = Space {
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            keyed,
            entries: AtomicI64::new(0),
            bytes: AtomicI64::new(0),
            most_entries: AtomicU32::new(0),
            most_bytes: AtomicU64::new(0),
            longest_value: AtomicU32::new(0),
            versions: AtomicU32::new(0),
        };
        let kv = Self(Arc::new(space));
        kv.limit(limits);
        kv
    }

    fn staged(&self, key: &str, change: Change, prepared: Prepared) -> Staged {
        let write = Write {
            key: key.into(),
            change,
            version: self.0.next_version(),
        };
        Staged::new(write, Box::new(prepared))
    }
}

impl Kv for MemoryKv {
    fn get(&self, key: &str, now: Time) -> Answer<Result<Option<Entry>, CallError>> {
        let shard = self.0.shard(key);
        let found = shard.standing(key, now);
        Answer::Now(Ok(found.map(|stored| stored.entry(now))))
    }

    fn stage(
        &self,
        key: &str,
        change: Change,
        hold: Option<Hold>,
        now: Time,
    ) -> Answer<Result<Staged, CallError>> {
        let earlier = hold.and_then(|hold| hold.downcast::<Held>().ok());
        Answer::Now(match self.0.prepare(key, &change, None, earlier, now) {
            Ok(prepared) => Ok(self.staged(key, change, prepared)),
            Err(Refused::Error(error)) => Err(error),
            // Nothing was compared.
            Err(Refused::Found(_)) => Err(CallError::Unavailable("kv".to_owned())),
        })
    }

    fn compare_and_set(
        &self,
        key: &str,
        expected: Expected,
        change: Change,
        now: Time,
    ) -> Answer<Result<Swap, CallError>> {
        let prepared = self.0.prepare(key, &change, Some(expected), None, now);
        Answer::Now(match prepared {
            Ok(prepared) => Ok(Swap::Staged(self.staged(key, change, prepared))),
            Err(Refused::Found(swap)) => Ok(swap),
            Err(Refused::Error(error)) => Err(error),
        })
    }
}

impl KvStore for MemoryKv {
    fn limit(&self, limits: &SharedLimits) {
        let space = &self.0;
        space
            .most_entries
            .store(limits.kv_entries, Ordering::Relaxed);
        space.most_bytes.store(limits.kv_bytes, Ordering::Relaxed);
        space
            .longest_value
            .store(limits.kv_value, Ordering::Relaxed);
    }

    fn usage(&self) -> (u64, u64) {
        let count = |held: &AtomicI64| u64::try_from(held.load(Ordering::Acquire)).unwrap_or(0);
        (count(&self.0.entries), count(&self.0.bytes))
    }

    fn upkeep(&self, now: Time) {
        self.0.expire_all(now);
    }
}

/// A panic elsewhere leaves a shard usable: what is expired twice is gone once.
fn lock(mutex: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
