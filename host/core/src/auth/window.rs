//! Which counts of a nonce have been used (RFC 7616 section 3.4, `nc`): a window
//! for each nonce in use, since requests overtake each other on UDP, in tables of
//! bounded size.
//!
//! A nonce enters the table with its first proven use, so strangers cannot fill
//! it. When it is full the nonce made first falls out; from then on every nonce
//! made no later than that which is not in the table counts as forgotten, so that
//! falling out never lets a replay through.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::lock;
use super::nonce::Nonce;
use crate::time::WallTime;

const SHARDS: u64 = 16;

/// What using a count came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Its first use.
    Fresh,
    /// It was used before.
    Replayed,
    /// Nobody knows any more; the client should ask for a new nonce.
    Forgotten,
}

#[derive(Debug)]
pub(super) struct Windows {
    shards: Vec<Mutex<Table>>,
    /// Of each table.
    capacity: usize,
    lifetime: Duration,
}

#[derive(Debug, Default)]
struct Table {
    by_index: BTreeMap<u64, Entry>,
    /// The highest index that fell out.
    fallen: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    window: Window,
    made: WallTime,
}

/// The highest count so far, and which of the 64 up to it were used.
#[derive(Clone, Copy, Debug)]
struct Window {
    highest: u32,
    /// Bit n stands for `highest - n`.
    used: u64,
}

impl Windows {
    pub(super) fn new(capacity: usize, lifetime: Duration) -> Self {
        let shards = usize::try_from(SHARDS).unwrap_or(1);
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            capacity: capacity.div_ceil(shards).max(1),
            lifetime,
        }
    }

    /// Uses one count of a nonce.
    pub(super) fn use_count(&self, nonce: &Nonce, count: u32, wall: WallTime) -> Use {
        let first = Window {
            highest: count,
            used: 1,
        };
        self.with(nonce, wall, first, |window| window.take(count))
    }

    /// Uses a nonce as a whole: it is good for one request.
    pub(super) fn use_once(&self, nonce: &Nonce, wall: WallTime) -> Use {
        let spent = Window {
            highest: u32::MAX,
            used: u64::MAX,
        };
        self.with(nonce, wall, spent, |_| Use::Forgotten)
    }

    fn with(
        &self,
        nonce: &Nonce,
        wall: WallTime,
        first: Window,
        again: impl FnOnce(&mut Window) -> Use,
    ) -> Use {
        let at = usize::try_from(nonce.index.checked_rem(SHARDS).unwrap_or(0)).unwrap_or(0);
        let Some(mutex) = self.shards.get(at) else {
            return Use::Forgotten;
        };
        let mut table = lock(mutex);
        if let Some(entry) = table.by_index.get_mut(&nonce.index) {
            return again(&mut entry.window);
        }
        if nonce.index <= table.fallen {
            return Use::Forgotten;
        }
        table.make_room(self.capacity, self.lifetime, wall);
        // The nonce that fell out may have been made after this one.
        if nonce.index <= table.fallen {
            return Use::Forgotten;
        }
        table.by_index.insert(
            nonce.index,
            Entry {
                window: first,
                made: nonce.made,
            },
        );
        Use::Fresh
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|table| lock(table).by_index.len())
            .sum()
    }
}

impl Table {
    fn make_room(&mut self, capacity: usize, lifetime: Duration, wall: WallTime) {
        while let Some(first) = self.by_index.first_entry() {
            let age = Duration::from_millis(wall.0.saturating_sub(first.get().made.0));
            if age >= lifetime {
                // Its time alone keeps it out from now on.
                first.remove();
            } else if self.by_index.len() >= capacity {
                if let Some((index, _)) = self.by_index.pop_first() {
                    self.fallen = self.fallen.max(index);
                }
            } else {
                return;
            }
        }
    }
}

impl Window {
    fn take(&mut self, count: u32) -> Use {
        if let Some(ahead) = count.checked_sub(self.highest).filter(|ahead| *ahead > 0) {
            self.used = self.used.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = count;
            return Use::Fresh;
        }
        match 1u64.checked_shl(self.highest - count) {
            None => Use::Forgotten,
            Some(bit) if self.used & bit != 0 => Use::Replayed,
            Some(bit) => {
                self.used |= bit;
                Use::Fresh
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const NOW: WallTime = WallTime(1_000_000);
    const LIFETIME: Duration = Duration::from_secs(300);

    fn nonce(index: u64) -> Nonce {
        Nonce { index, made: NOW }
    }

    #[test]
    fn counts_may_come_out_of_order_but_once() {
        let windows = Windows::new(100, LIFETIME);
        for (count, expected) in [
            (1, Use::Fresh),
            (1, Use::Replayed),
            (3, Use::Fresh),
            (2, Use::Fresh),
            (2, Use::Replayed),
            (3, Use::Replayed),
            (66, Use::Fresh),
            (3, Use::Replayed),
            (2, Use::Forgotten),
            (4, Use::Fresh),
            (1000, Use::Fresh),
            (66, Use::Forgotten),
            (u32::MAX, Use::Fresh),
            (u32::MAX, Use::Replayed),
        ] {
            assert_eq!(
                windows.use_count(&nonce(5), count, NOW),
                expected,
                "count {count}"
            );
        }
    }

    #[test]
    fn a_nonce_without_counts_serves_once() {
        let windows = Windows::new(100, LIFETIME);
        assert_eq!(windows.use_once(&nonce(5), NOW), Use::Fresh);
        assert_eq!(windows.use_once(&nonce(5), NOW), Use::Forgotten);
        assert_ne!(windows.use_count(&nonce(5), 9, NOW), Use::Fresh);
        assert_eq!(windows.use_count(&nonce(6), 1, NOW), Use::Fresh);
        assert_eq!(windows.use_once(&nonce(6), NOW), Use::Forgotten);
    }

    #[test]
    fn what_fell_out_of_a_full_table_is_forgotten_never_fresh() {
        let windows = Windows::new(32, LIFETIME);
        for index in 1..=1000 {
            assert_eq!(
                windows.use_count(&nonce(index), 1, NOW),
                Use::Fresh,
                "{index}"
            );
            assert!(windows.len() <= 32);
        }
        for index in 1..=1000 {
            let again = windows.use_count(&nonce(index), 1, NOW);
            let expected = if index <= 968 {
                Use::Forgotten
            } else {
                Use::Replayed
            };
            assert_eq!(again, expected, "{index}");
        }
    }

    #[test]
    fn a_late_nonce_does_not_push_out_a_newer_one_for_good() {
        let windows = Windows::new(16, LIFETIME);
        assert_eq!(windows.use_count(&nonce(32), 1, NOW), Use::Fresh);
        // The table of this shard holds one, and 16 was made before 32.
        assert_eq!(windows.use_count(&nonce(16), 1, NOW), Use::Forgotten);
        assert_eq!(windows.use_count(&nonce(32), 1, NOW), Use::Forgotten);
        assert_eq!(windows.use_count(&nonce(48), 1, NOW), Use::Fresh);
    }

    #[test]
    fn nonces_past_their_lifetime_make_room_and_condemn_nobody() {
        let windows = Windows::new(16, LIFETIME);
        assert_eq!(windows.use_count(&nonce(16), 1, NOW), Use::Fresh);
        let later = WallTime(NOW.0 + 300_000);
        let fresh = Nonce {
            index: 32,
            made: later,
        };
        assert_eq!(windows.use_count(&fresh, 1, later), Use::Fresh);
        assert_eq!(windows.shards.iter().map(|t| lock(t).fallen).max(), Some(0));
    }

    proptest! {
        #[test]
        fn no_count_is_ever_fresh_twice(counts in prop::collection::vec(1u32..200, 1..300)) {
            let windows = Windows::new(4, LIFETIME);
            let mut used = HashSet::<u32>::default();
            for count in counts {
                if windows.use_count(&nonce(1), count, NOW) == Use::Fresh {
                    prop_assert!(used.insert(count));
                } else {
                    let highest = used.iter().max().copied().unwrap_or(0);
                    prop_assert!(used.contains(&count) || highest - count > 63);
                }
            }
        }
    }
}
