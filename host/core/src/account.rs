//! How many transactions there are: of each tenant, and in all. What a stranger can
//! make us remember is bounded by them.
//!
//! Whatever holds a message for a while holds a ticket with it, so that it is counted
//! from the moment when it is made until it is freed, whatever frees it. A ticket is a
//! handful of atomic additions: nobody waits for anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::time::Time;

/// The bytes of a message that count as one transaction. An ordinary one needs about as
/// much with all that stands around its message.
pub const UNIT: usize = 4096;
/// How often it is said that requests are refused, in microseconds.
const SAID: u64 = 10_000_000;

/// What is on its way of a tenant, or of all.
#[derive(Debug, Default)]
pub struct Account {
    /// The account of all, which this one is part of.
    whole: Option<Arc<Self>>,
    live: AtomicU32,
    refused: AtomicU64,
    /// Until when nothing is said of refused requests.
    quiet: AtomicU64,
}

impl Account {
    /// An account whose transactions count in `whole` as well.
    #[must_use]
    pub fn of(whole: &Arc<Self>) -> Self {
        Self {
            whole: Some(Arc::clone(whole)),
            ..Self::default()
        }
    }

    /// How many there are.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// How many requests were refused, since there were too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether it is to be said now that requests are refused: a flood of them is one
    /// line in a while.
    #[must_use]
    pub fn is_worth_a_line(&self, now: Time) -> bool {
        let quiet = self.quiet.load(Ordering::Relaxed);
        now.0 >= quiet
            && self
                .quiet
                .compare_exchange(
                    quiet,
                    now.0.saturating_add(SAID),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// Counts something that holds so many bytes, and says how many there are with it:
    /// here, and in all.
    pub(crate) fn enter(self: &Arc<Self>, bytes: usize) -> (Ticket, u32, u32) {
        let weight = weight(bytes);
        let add = |account: &Self| account.live.fetch_add(weight, Ordering::Relaxed) + weight;
        let here = add(self);
        let all = self.whole.as_deref().map_or(here, add);
        let ticket = Ticket {
            account: Arc::clone(self),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            weight,
        };
        (ticket, here, all)
    }

    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.refuse();
        }
    }
}

fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes / UNIT).unwrap_or(u32::MAX >> 8) + 1
}

/// Something that counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    account: Arc<Account>,
    /// The bytes that it was made for.
    bytes: u32,
    weight: u32,
}

impl Ticket {
    /// The bytes that it was made for.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }

    /// What it stands for holds so many bytes more than at first. That is never refused,
    /// since it is there already: the next request is.
    pub(crate) fn holds(&mut self, more: usize) {
        let weight = weight(self.bytes().saturating_add(more));
        if weight == self.weight {
            return;
        }
        // Wraps around to the difference, whichever of the two is more.
        let change = weight.wrapping_sub(self.weight);
        self.weight = weight;
        self.account.live.fetch_add(change, Ordering::Relaxed);
        if let Some(whole) = &self.account.whole {
            whole.live.fetch_add(change, Ordering::Relaxed);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let subtract = |account: &Account| {
            account.live.fetch_sub(self.weight, Ordering::Relaxed);
        };
        subtract(&self.account);
        if let Some(whole) = &self.account.whole {
            subtract(whole);
        }
    }
}

/// How much room something has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// A new request: as much as is set.
    New,
    /// A request of a dialog, a branch, or what is to be remembered of a request that was
    /// let in: as much again, so that what has begun can go on.
    Begun,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_counts_no_more() {
        let all = Arc::new(Account::default());
        let one = Arc::new(Account::of(&all));
        let other = Arc::new(Account::of(&all));
        let (small, here, whole) = one.enter(UNIT - 1);
        assert_eq!((here, whole), (1, 1));
        let (large, here, whole) = other.enter(3 * UNIT);
        assert_eq!((here, whole, large.bytes()), (4, 5, 3 * UNIT));
        assert_eq!((one.live(), other.live(), all.live()), (1, 4, 5));
        let mut small = small;
        small.holds(2 * UNIT);
        assert_eq!((one.live(), all.live()), (3, 7));
        small.holds(UNIT - 1);
        assert_eq!((one.live(), all.live()), (2, 6));
        drop(large);
        drop(small);
        assert_eq!((one.live(), other.live(), all.live()), (0, 0, 0));
    }

    #[test]
    fn a_flood_is_one_line_in_ten_seconds() {
        let account = Account::default();
        let said = (0..25_000u64).filter(|ms| account.is_worth_a_line(Time::from_millis(*ms)));
        assert_eq!(said.count(), 3);
    }
}
