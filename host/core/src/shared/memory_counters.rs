//! Counters in memory: a ring of slots for each.
//!
//! A window has 16 slots, and one more is kept: the one that has begun and the 16 before
//! it. Their sum has all that was added in the last window, and at most a slot's worth of
//! what is older. A limit is thus never exceeded in any window, and reached a little too
//! early at worst.
//!
//! A sequence is one number. It stands among the counters and takes the room of one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;

use super::{
    Answer, CounterName, CounterStore, Counters, FEW, LONGEST_WINDOW, MANY, SHARDS, SharedLimits,
    Taken,
};
use crate::location::KeyedState;
use crate::policy::CallError;
use crate::time::Time;

/// Slots of a window.
const SLOTS: u64 = 16;
/// Those, and the one that has begun.
const KEPT: usize = 17;
const SECOND: u64 = 1_000_000;

/// The counters of one tenant.
#[derive(Debug)]
pub struct MemoryCounters {
    keyed: KeyedState,
    shards: Box<[Mutex<Shard>]>,
    held: AtomicU32,
    most: AtomicU32,
}

/// Window, length of the name, name and key, so that no two counters share one. A
/// sequence has the window 0, which no counter has.
type Name = SmallVec<[u8; 96]>;

#[derive(Debug)]
struct Shard {
    kept: HashMap<Arc<[u8]>, Kept, KeyedState>,
    /// When each is to be looked at: what has nothing to keep goes, else it is looked at again.
    due: BinaryHeap<Reverse<(Time, Arc<[u8]>)>>,
}

#[derive(Debug)]
enum Kept {
    Ring(Ring),
    Sequence {
        next: u32,
        /// When somebody asked last.
        asked: Time,
    },
}

impl Kept {
    /// When there will be nothing to keep.
    fn empty_at(&self) -> Time {
        match self {
            Self::Ring(ring) => ring.empty_at(),
            Self::Sequence { asked, .. } => *asked + Duration::from_secs(u64::from(LONGEST_WINDOW)),
        }
    }
}

#[derive(Debug)]
struct Ring {
    /// Microseconds of a slot.
    slot: u64,
    /// The newest slot's number since the beginning of time.
    newest: u64,
    counts: [u32; KEPT],
}

impl Ring {
    fn new(window: u32, now: Time) -> Self {
        let slot = u64::from(window.max(1)) * (SECOND / SLOTS);
        Self {
            slot,
            newest: number(now, slot),
            counts: [0; KEPT],
        }
    }

    /// Forgets what is too old at `now`. A worker whose clock was read earlier than
    /// another's counts into the slot that has begun since.
    fn turn(&mut self, now: Time) {
        let number = number(now, self.slot);
        let gone = number.saturating_sub(self.newest);
        let slots = self.newest.wrapping_add(1)..=number;
        for slot in slots.take(KEPT) {
            // Beyond a whole turn every slot was passed already.
            if let Some(count) = self.counts.get_mut(place(slot)) {
                *count = 0;
            }
        }
        self.newest += gone;
    }

    fn sum(&self) -> u32 {
        let sum: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        u32::try_from(sum).unwrap_or(u32::MAX)
    }

    /// Adds unless the sum would be more than `limit`.
    fn take(&mut self, by: u32, limit: u32, now: Time) -> Taken {
        self.turn(now);
        let sum = self.sum();
        let more = sum.saturating_add(by);
        if more > limit {
            return Taken::Over(sum);
        }
        self.add(by);
        Taken::Taken(more)
    }

    fn add(&mut self, by: u32) {
        if let Some(count) = self.counts.get_mut(place(self.newest)) {
            *count = count.saturating_add(by);
        }
    }

    /// When all of it will be too old.
    fn empty_at(&self) -> Time {
        Time((self.newest + SLOTS + 1).saturating_mul(self.slot))
    }
}

fn number(now: Time, slot: u64) -> u64 {
    now.0.checked_div(slot).unwrap_or(0)
}

fn place(number: u64) -> usize {
    usize::try_from(number % (SLOTS + 1)).unwrap_or(0)
}

fn full_name(counter: CounterName<'_>) -> Name {
    let CounterName { name, key, window } = counter;
    let mut full = Name::from_slice(&window.to_le_bytes());
    full.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
    full.extend_from_slice(name.as_bytes());
    full.extend_from_slice(key.as_bytes());
    full
}

impl MemoryCounters {
    /// None yet.
    #[must_use]
    pub fn new(limits: &SharedLimits, key: &[u8; 16]) -> Self {
        let keyed = KeyedState::new(key);
        let shard = || Shard {
            kept: HashMap::with_hasher(keyed.clone()),
            due: BinaryHeap::new(),
        };
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            keyed,
            held: AtomicU32::new(0),
            most: AtomicU32::new(limits.counters),
        }
    }

    fn shard(&self, name: &[u8]) -> MutexGuard<'_, Shard> {
        let at = self.keyed.shard(name, self.shards.len());
        // `at` is below the length, and there is at least one shard.
        #[allow(clippy::indexing_slicing, reason = "in range by construction")]
        lock(&self.shards[at])
    }

    /// Takes away what has nothing to keep, looking at so many.
    fn expire(&self, shard: &mut Shard, now: Time, most: usize) {
        for _ in 0..most {
            let Some(Reverse((at, _))) = shard.due.peek() else {
                return;
            };
            if *at > now {
                return;
            }
            let Some(Reverse((_, name))) = shard.due.pop() else {
                return;
            };
            let Some(kept) = shard.kept.get(&name) else {
                continue;
            };
            let at = kept.empty_at();
            if at > now {
                shard.due.push(Reverse((at, name)));
            } else if shard.kept.remove(&name).is_some() {
                self.held.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    fn expire_all(&self, now: Time) {
        for shard in &self.shards {
            self.expire(&mut lock(shard), now, MANY);
        }
    }

    /// Room for one more. No lock may be held if there is none.
    fn reserve(&self) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let more = |held: u32| (held < most).then(|| held.saturating_add(1));
        self.held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .is_ok()
    }

    /// Adds unless the sum would be more than `limit`.
    fn count(
        &self,
        counter: CounterName<'_>,
        by: u32,
        limit: u32,
        now: Time,
    ) -> Result<Taken, CallError> {
        if !(1..=LONGEST_WINDOW).contains(&counter.window) {
            return Err(CallError::Malformed(format!("window {}", counter.window)));
        }
        let full = full_name(counter);
        let known = |kept: &mut Kept| match kept {
            Kept::Ring(ring) => Some(ring.take(by, limit, now)),
            Kept::Sequence { .. } => None,
        };
        let new = || {
            if by > limit {
                return Err(Taken::Over(0));
            }
            if by == 0 {
                return Err(Taken::Taken(0));
            }
            let mut ring = Ring::new(counter.window, now);
            ring.add(by);
            Ok((Kept::Ring(ring), Taken::Taken(by)))
        };
        self.step(&full, now, known, new)
    }

    /// One step with what stands under a name, or with something new where nothing does;
    /// `Err` of `new`: an answer that needs nothing to stand there. Where there is no room,
    /// what is over makes some, once.
    fn step<T>(
        &self,
        full: &[u8],
        now: Time,
        known: impl Fn(&mut Kept) -> Option<T>,
        new: impl Fn() -> Result<(Kept, T), T>,
    ) -> Result<T, CallError> {
        let mut again = true;
        loop {
            let mut shard = self.shard(full);
            if let Some(answer) = shard.kept.get_mut(full).and_then(&known) {
                return Ok(answer);
            }
            let (kept, answer) = match new() {
                Ok(made) => made,
                Err(answer) => return Ok(answer),
            };
            self.expire(&mut shard, now, FEW);
            if self.reserve() {
                let name: Arc<[u8]> = full.into();
                shard
                    .due
                    .push(Reverse((kept.empty_at(), Arc::clone(&name))));
                shard.kept.insert(name, kept);
                return Ok(answer);
            }
            if !again {
                return Err(CallError::Limit("counters".to_owned()));
            }
            drop(shard);
            self.expire_all(now);
            again = false;
        }
    }
}

impl Counters for MemoryCounters {
    fn add(&self, counter: CounterName<'_>, by: u32, now: Time) -> Answer<Result<u32, CallError>> {
        let counted = self.count(counter, by, u32::MAX, now);
        Answer::Now(counted.map(|(Taken::Taken(sum) | Taken::Over(sum))| sum))
    }

    fn take(
        &self,
        counter: CounterName<'_>,
        by: u32,
        limit: u32,
        now: Time,
    ) -> Answer<Result<Taken, CallError>> {
        Answer::Now(self.count(counter, by, limit, now))
    }

    fn sequence(&self, name: &str, now: Time) -> Answer<Result<u32, CallError>> {
        let full = full_name(CounterName {
            name,
            key: "",
            window: 0,
        });
        let known = |kept: &mut Kept| match kept {
            Kept::Sequence { next, asked } => {
                let number = *next;
                *next = number.wrapping_add(1);
                *asked = now.max(*asked);
                Some(number)
            }
            Kept::Ring(_) => None,
        };
        let new = || {
            let begun = Kept::Sequence {
                next: 1,
                asked: now,
            };
            Ok((begun, 0))
        };
        Answer::Now(self.step(&full, now, known, new))
    }

    fn reset(&self, counter: CounterName<'_>, _: Time) -> Answer<Result<(), CallError>> {
        let full = full_name(counter);
        if let Some(Kept::Ring(ring)) = self.shard(&full).kept.get_mut(&*full) {
            // Its room is free when it would have been empty.
            ring.counts = [0; KEPT];
        }
        Answer::Now(Ok(()))
    }
}

impl CounterStore for MemoryCounters {
    fn limit(&self, limits: &SharedLimits) {
        self.most.store(limits.counters, Ordering::Relaxed);
    }

    fn usage(&self) -> u64 {
        u64::from(self.held.load(Ordering::Acquire))
    }

    fn upkeep(&self, now: Time) {
        self.expire_all(now);
    }
}

/// A panic elsewhere leaves a shard usable: what is missing in `due` stays, no more.
fn lock(mutex: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
