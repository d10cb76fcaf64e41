//! Counters over a sliding window, as every backend keeps them.

use std::fmt;

use super::{Answer, SharedLimits};
use crate::policy::CallError;
use crate::time::Time;

/// The longest window in seconds: a day.
pub const LONGEST_WINDOW: u32 = 86_400;

/// What a counter is named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterName<'a> {
    /// What is counted, as the policy names it: `calls`.
    pub name: &'a str,
    /// Whose, of what: a user, an address.
    pub key: &'a str,
    /// The length of its window in seconds, 1 to [`LONGEST_WINDOW`].
    pub window: u32,
}

/// What [`Counters::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was added, and this is the sum.
    Taken(u32),
    /// It would have been too much. The sum without it.
    Over(u32),
}

/// The counters of one tenant, as its calls reach them.
///
/// What is added counts at once, whatever becomes of the call: a limit that a trap takes
/// back limits nobody. A sum has all that was added in the last `window` seconds, and
/// nothing that is older than 17/16 of that.
pub trait Counters: Send + Sync {
    /// Adds; the sum with it. Adding 0 only asks.
    ///
    /// # Errors
    /// Of all of these: [`CallError::Limit`] with the name of the setting, and
    /// [`CallError::Unavailable`].
    fn add(&self, counter: CounterName<'_>, by: u32, now: Time) -> Answer<Result<u32, CallError>>;

    /// Adds, unless the sum would be more than `limit`. One step, whoever else asks.
    fn take(
        &self,
        counter: CounterName<'_>,
        by: u32,
        limit: u32,
        now: Time,
    ) -> Answer<Result<Taken, CallError>>;

    /// The next number of a sequence: 0, then 1, and so on. No two who ask get the same,
    /// whatever becomes of their calls, until after 2^32 it begins at 0. A sequence counts as a counter until nobody has
    /// asked for [`LONGEST_WINDOW`]; then it is gone, and begins at 0.
    fn sequence(&self, name: &str, now: Time) -> Answer<Result<u32, CallError>>;

    /// Begins at 0 again.
    fn reset(&self, counter: CounterName<'_>, now: Time) -> Answer<Result<(), CallError>>;
}

/// Where the counters of one tenant are.
pub trait CounterStore: Counters + fmt::Debug {
    /// Other limits from now on.
    fn limit(&self, limits: &SharedLimits);

    /// How many there are.
    fn usage(&self) -> u64 {
        0
    }

    /// Takes away those that are back at 0, and sequences that nobody asks for.
    fn upkeep(&self, now: Time) {
        let _ = now;
    }
}
