//! How a tenant's policies behave: whether one of their calls ran so long lately
//! that others would have had to wait for its worker.
//!
//! Such a tenant is *confined*. What that means is its caller's business: the
//! binary has its hooks run apart, one after the other, where nobody else's wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::cx::FIRST_DEADLINE;

/// CPU time that makes a call a long one. Below it the meter knows only that the
/// wall clock ran, which a loaded machine does to the best of guests.
const LONG: Duration = FIRST_DEADLINE.saturating_add(Duration::from_micros(250));
/// How long a tenant stays confined after its last long call. Who ran long once
/// for each of these would hold a worker up for a two-thousandth of the time.
const CONFINED: Duration = Duration::from_secs(10);
/// Calls of a confined tenant that may be on their way at a time, the one that
/// runs included.
const PLACES: u32 = 32;

/// What the calls of one tenant's chain were like.
#[derive(Debug)]
pub struct Conduct {
    begun: Instant,
    /// Until when the tenant is confined, in milliseconds since `begun`; 0 for a
    /// tenant that behaves, whose calls read this and nothing else.
    until: AtomicU64,
    taken: AtomicU32,
}

/// A call of a confined tenant that is on its way; its place is free again when
/// this is dropped.
#[derive(Debug)]
pub struct Place(Arc<Conduct>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Conduct {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            until: AtomicU64::new(0),
            taken: AtomicU32::new(0),
        }
    }
}

impl Conduct {
    /// Whether a call ran long in the last ten seconds.
    #[must_use]
    pub fn confined(&self) -> bool {
        self.until.load(Ordering::Relaxed) != 0 && self.confined_at(self.begun.elapsed())
    }

    /// A place for a further call of a confined tenant; `None` when too many are
    /// on their way.
    #[must_use]
    pub fn place(self: &Arc<Self>) -> Option<Place> {
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < PLACES).then_some(taken + 1)
            })
            .ok()
            .map(|_| Place(Arc::clone(self)))
    }

    /// Notes the CPU time that a call is known to have used, and whether that was
    /// all that it may; `true` if the tenant is confined from now on.
    pub(crate) fn ran(&self, cpu: Duration, ended_by_limit: bool) -> bool {
        (ended_by_limit || cpu >= LONG) && self.ran_long_at(self.begun.elapsed())
    }

    fn confined_at(&self, now: Duration) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        if millis(now) < until {
            return true;
        }
        // Whoever is first spares the others the clock; a call that ran long in
        // this moment has stored another time.
        let _ = self
            .until
            .compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
        false
    }

    fn ran_long_at(&self, now: Duration) -> bool {
        let before = self
            .until
            .fetch_max(millis(now + CONFINED), Ordering::Relaxed);
        before <= millis(now)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_long_call_confines_for_a_while() {
        let conduct = Conduct::default();
        assert!(!conduct.confined());
        assert!(conduct.ran_long_at(1000 * MS), "news");
        assert!(!conduct.ran_long_at(2000 * MS), "known");
        for (now, confined) in [(2000, true), (11_999, true), (12_000, false), (2000, false)] {
            // The last: once it is over, nobody looks at the clock.
            assert_eq!(conduct.confined_at(now * MS), confined, "at {now} ms");
        }
        assert!(conduct.ran_long_at(20_000 * MS), "news again");
        assert!(conduct.confined());
    }

    #[test]
    fn only_cpu_time_that_was_surely_used_makes_a_call_long() {
        for (cpu, ended_by_limit, long) in [
            (Duration::ZERO, false, false),
            // The thread was taken away for two ticks.
            (FIRST_DEADLINE, false, false),
            (FIRST_DEADLINE + Duration::from_micros(249), false, false),
            (FIRST_DEADLINE + Duration::from_micros(250), false, true),
            // A limit of two milliseconds.
            (FIRST_DEADLINE, true, true),
        ] {
            let conduct = Conduct::default();
            assert_eq!(conduct.ran(cpu, ended_by_limit), long, "{cpu:?}");
            assert_eq!(conduct.confined(), long, "{cpu:?}");
        }
    }

    #[test]
    fn the_calls_of_a_confined_tenant_are_counted_until_they_end() {
        let conduct = Arc::new(Conduct::default());
        let mut places: Vec<_> = (0..PLACES).map(|_| conduct.place().unwrap()).collect();
        assert!(conduct.place().is_none());
        places.pop();
        let place = conduct.place();
        assert!(place.is_some());
        assert!(conduct.place().is_none());
        drop((place, places));
        assert_eq!(conduct.taken.load(Ordering::Relaxed), 0);
    }
}
