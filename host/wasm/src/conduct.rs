//! How a tenant's policies behave: whether they used so much CPU time lately that
//! others would have had to wait for its worker.
//!
//! Such a tenant is *confined*. What that means is its caller's business: the
//! binary has its hooks run apart, one after the other, where nobody else's wait.
//!
//! The rule: what a call uses beyond [`SHORT`], with the instances that it needs, is
//! *excess*. It adds up over all hooks, and one [`SHARE`]th of the time that goes by is
//! taken off. A sum of [`LIMIT`] confines, and so does a call that is ended by its
//! CPU limit.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::Used;

/// CPU time that a call may use without being noticed; ordinary ones take a tenth. How
/// many calls may use it in a second is the CPU budget's business.
const SHORT: Duration = Duration::from_micros(250);
/// The part of one CPU that may go into excess for good: 20 ms of each second.
const SHARE: u32 = 50;
/// The excess at which the CPU clock is read for each call.
const SUSPECT: Duration = Duration::from_millis(5);
/// The excess that confines. Some of it may be nobody's: interrupts, and what a
/// hypervisor takes away, count as the time of the thread that they meet.
const LIMIT: Duration = Duration::from_millis(10);
/// How long a tenant stays confined after its excess was last too much.
const CONFINED: Duration = Duration::from_secs(10);
/// Calls of a confined tenant that may be on their way at a time, the one that
/// runs included.
const PLACES: u32 = 32;
/// Calls that may be behind those, for the fallback in their turn.
const BEHIND: u32 = 224;

/// What the calls of one tenant were like. It outlives the tenant's chains: a reload
/// makes nobody better.
#[derive(Debug)]
pub struct Conduct {
    begun: Instant,
    /// Until when the tenant is confined, in milliseconds since `begun`; 0 for a
    /// tenant that behaves.
    until: AtomicU64,
    /// Calls that wait, or run apart.
    taken: AtomicU32,
    /// Whether the thread's CPU clock is read for each call.
    watched: AtomicBool,
    sums: Mutex<Sums>,
}

/// Excess that is left of the past.
#[derive(Debug, Default)]
struct Sums {
    /// When it was looked at last, since the conduct began.
    at: Duration,
    /// By what was seen: the wall clock as long as nobody is watched, which a
    /// loaded machine lets run for the best of guests.
    seen: Duration,
    /// By what was surely CPU time.
    sure: Duration,
}

/// A call of a confined tenant that is on its way; its place is free again when
/// this is dropped.
#[derive(Debug)]
pub struct Place(Arc<Conduct>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Release);
    }
}

impl Default for Conduct {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            until: AtomicU64::new(0),
            taken: AtomicU32::new(0),
            watched: AtomicBool::new(false),
            sums: Mutex::default(),
        }
    }
}

impl Conduct {
    /// Whether calls are to run apart: for ten seconds after too much CPU time was
    /// used, and for as long as calls that came before are on their way, which nobody
    /// is to overtake. A tenant that behaves costs two looks at numbers.
    #[must_use]
    pub fn confined(&self) -> bool {
        self.has_waiting()
            || self.until.load(Ordering::Relaxed) != 0 && self.confined_at(self.begun.elapsed())
    }

    /// Whether calls that run apart are on their way.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.taken.load(Ordering::Acquire) != 0
    }

    /// A place for a further call of a confined tenant; `None` when too many are
    /// on their way.
    #[must_use]
    pub fn place(self: &Arc<Self>) -> Option<Place> {
        self.place_below(PLACES)
    }

    /// A place behind those: for a call that finds none, and must not overtake all the
    /// same. `None` when too many have done that.
    #[must_use]
    pub fn place_behind(self: &Arc<Self>) -> Option<Place> {
        self.place_below(PLACES + BEHIND)
    }

    fn place_below(self: &Arc<Self>, most: u32) -> Option<Place> {
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < most).then_some(taken + 1)
            })
            .ok()
            .map(|_| Place(Arc::clone(self)))
    }

    /// Whether the thread's CPU clock is to be read for each call: the wall clock says
    /// that they are long, which may be the machine's fault.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Notes what a call used, and whether that was all that it may; `true` if the
    /// tenant is confined from now on.
    pub(crate) fn ran(&self, used: Used, ended_by_limit: bool) -> bool {
        let short = used.seen <= SHORT && !ended_by_limit;
        if short && !self.is_watched() {
            return false;
        }
        self.ran_at(self.begun.elapsed(), used, ended_by_limit)
    }

    fn ran_at(&self, now: Duration, used: Used, ended_by_limit: bool) -> bool {
        let excess = |time: Duration| time.saturating_sub(SHORT);
        let too_much = {
            let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
            sums.drain(now);
            sums.seen = (sums.seen + excess(used.seen)).min(LIMIT);
            sums.sure = (sums.sure + excess(used.sure)).min(LIMIT);
            if sums.seen >= SUSPECT && !self.is_watched() {
                self.watched.store(true, Ordering::Relaxed);
            } else if sums.seen.is_zero() {
                self.watched.store(false, Ordering::Relaxed);
            }
            sums.sure >= LIMIT
        };
        (too_much || ended_by_limit) && self.confine_at(now)
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

    fn confine_at(&self, now: Duration) -> bool {
        let before = self
            .until
            .fetch_max(millis(now + CONFINED), Ordering::Relaxed);
        before <= millis(now)
    }
}

impl Sums {
    /// Takes off what the time since the last look is good for.
    fn drain(&mut self, now: Duration) {
        let good_for = now.saturating_sub(self.at) / SHARE;
        self.at = self.at.max(now);
        self.seen = self.seen.saturating_sub(good_for);
        self.sure = self.sure.saturating_sub(good_for);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn measured(cpu: Duration) -> Used {
        Used {
            seen: cpu,
            sure: cpu,
        }
    }

    /// How many calls of this CPU time, each second this many, it takes to be confined.
    fn calls_until_confined(cpu: Duration, a_second: u32) -> Option<u32> {
        let conduct = Conduct::default();
        (0..60 * a_second).find(|call| {
            let now = Duration::from_secs(1) * *call / a_second;
            conduct.ran_at(now, measured(cpu), false)
        })
    }

    #[test]
    fn too_much_at_once_confines_for_a_while() {
        let conduct = Conduct::default();
        assert!(!conduct.confined());
        assert!(
            conduct.ran_at(1000 * MS, measured(11 * MS), false),
            "that is news"
        );
        assert!(
            !conduct.ran_at(2000 * MS, measured(11 * MS), false),
            "that is known"
        );
        for (now, confined) in [(2000, true), (11_999, true), (12_000, false), (2000, false)] {
            // The last: once it is over, nobody looks at the clock.
            assert_eq!(conduct.confined_at(now * MS), confined, "at {now} ms");
        }
        assert!(conduct.ran_at(20_000 * MS, measured(11 * MS), false));
        assert!(conduct.confined());
    }

    /// Calls that are each below any limit add up; what a proxy usually does never does.
    #[test]
    fn a_share_of_cpu_time_is_judged_not_a_call() {
        let us = Duration::from_micros;
        for (cpu, a_second, calls) in [
            (2 * MS, 50, Some(7)),
            (MS, 50, Some(27)),
            (us(500), 100, Some(195)),
            // Half a percent, and two: the rest of the time makes up for it.
            (2 * MS, 1, None),
            (MS, 25, None),
            // However many: the budget counts them.
            (us(250), 2000, None),
        ] {
            assert_eq!(
                calls_until_confined(cpu, a_second),
                calls,
                "{cpu:?}, {a_second} times a second"
            );
        }
    }

    #[test]
    fn a_call_that_reaches_its_limit_confines() {
        let conduct = Conduct::default();
        assert!(conduct.ran(measured(2 * MS), true));
        assert!(conduct.confined());
    }

    #[test]
    fn the_time_that_others_used_makes_nobody_confined() {
        let conduct = Conduct::default();
        let taken_away = Used {
            seen: 2 * MS,
            sure: Duration::ZERO,
        };
        let mut now = MS;
        for _ in 0..10 {
            assert!(!conduct.ran_at(now, taken_away, false));
            now += MS;
        }
        assert!(conduct.is_watched(), "from now on the CPU clock is read");
        for _ in 0..10_000 {
            assert!(!conduct.ran_at(now, measured(Duration::from_micros(20)), false));
            now += MS;
        }
        assert!(!conduct.is_watched(), "nothing was found");
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
        let behind: Vec<_> = (0..BEHIND)
            .map(|_| conduct.place_behind().unwrap())
            .collect();
        assert!(conduct.place_behind().is_none());
        places.pop();
        assert!(conduct.place().is_none(), "those behind come first");
        drop((place, places, behind));
        assert!(!conduct.has_waiting());
    }

    /// Who comes after the ten seconds is not served before those who came within.
    #[test]
    fn confinement_lasts_until_nobody_waits() {
        let conduct = Arc::new(Conduct::default());
        assert!(conduct.ran_at(MS, measured(11 * MS), false));
        let waiting = conduct.place();
        assert!(!conduct.confined_at(20_000 * MS), "the time is over");
        assert!(conduct.confined(), "one waits");
        drop(waiting);
        assert!(!conduct.confined());
    }
}
