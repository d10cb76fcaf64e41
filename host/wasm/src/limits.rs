//! What a tenant's policies may use: the limits of one hook call, and the CPU
//! budget of all of them together.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::cx::FIRST_DEADLINE;
use crate::epoch::UNSEEN;

/// The limits of one hook call. Reaching any ends the call with the reason that
/// [`sipbox_core::policy::HookFailure`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CPU time of the thread; counted from the second tick on, so at least 2 ms.
    pub cpu: Duration,
    /// Wall clock of a wait.
    pub wall: Duration,
    /// Bytes of one linear memory.
    pub memory: usize,
    /// Calls of host functions.
    pub host_calls: u32,
    /// Edits, variables, route parameters and writes together.
    pub edits: u32,
    /// Their bytes.
    pub edit_bytes: u32,
    /// Bytes of the verdict.
    pub output_bytes: u32,
    /// Bytes of log text.
    pub log_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu: Duration::from_millis(5),
            wall: Duration::from_secs(2),
            memory: 16 << 20,
            host_calls: 1000,
            edits: 64,
            edit_bytes: 64 << 10,
            output_bytes: 64 << 10,
            log_bytes: 4 << 10,
        }
    }
}

/// CPU time that all hooks of a tenant may use: a token bucket over wall time.
///
/// A hook call reserves its whole limit before it starts and gives back what it
/// did not use, so that calls on several workers cannot overdraw together.
#[derive(Debug)]
pub struct CpuBudget {
    /// Microseconds of CPU time that a second of wall time earns.
    rate: u64,
    /// Microseconds that can be saved up.
    burst: i64,
    account: Arc<Account>,
}

/// What stays when a reload makes another budget.
#[derive(Debug)]
struct Account {
    /// Microseconds left; below zero while reservations stand.
    left: AtomicI64,
    /// When it was opened. The wall clock may step back, and would earn nothing until it
    /// has caught up.
    opened: Instant,
    /// Milliseconds from then to the last refill.
    refilled: AtomicU64,
}

impl CpuBudget {
    /// A budget of `per_second` of CPU time for each second of wall time, of
    /// which one second's worth can be saved up. It starts full.
    #[must_use]
    pub fn new(per_second: Duration) -> Self {
        let burst = micros(per_second);
        Self {
            rate: burst.unsigned_abs(),
            burst,
            account: Arc::new(Account {
                left: AtomicI64::new(burst),
                opened: Instant::now(),
                refilled: AtomicU64::new(0),
            }),
        }
    }

    /// This budget for a tenant that had another one: what it used stays used.
    pub(crate) fn succeeding(&self, before: &Self) -> Self {
        Self {
            account: Arc::clone(&before.account),
            ..*self
        }
    }

    /// Reserves `cost` at `now`; `false` when nothing is left.
    #[must_use]
    pub fn reserve(&self, cost: Duration, now: Instant) -> bool {
        self.refill(now);
        if self.account.left.load(Ordering::Relaxed) <= 0 {
            return false;
        }
        self.account.left.fetch_sub(micros(cost), Ordering::Relaxed);
        true
    }

    /// Gives a reservation back, less what was used of it.
    pub fn settle(&self, reserved: Duration, used: Duration) {
        let back = micros(reserved).saturating_sub(micros(used));
        self.account.left.fetch_add(back, Ordering::Relaxed);
    }

    /// Microseconds left.
    #[must_use]
    pub fn left(&self) -> i64 {
        self.account.left.load(Ordering::Relaxed)
    }

    fn refill(&self, now: Instant) {
        let account = &self.account;
        let now = now.saturating_duration_since(account.opened).as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let last = account.refilled.load(Ordering::Relaxed);
        // One worker wins the interval; the others refill the next one.
        if now <= last
            || account
                .refilled
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        let earned = (now - last).saturating_mul(self.rate) / 1000;
        let earned = i64::try_from(earned).unwrap_or(i64::MAX).min(self.burst);
        let left = self
            .account
            .left
            .fetch_add(earned, Ordering::Relaxed)
            .saturating_add(earned);
        if left > self.burst {
            self.account
                .left
                .fetch_sub(left - self.burst, Ordering::Relaxed);
        }
    }
}

/// What a hook call cost its thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// CPU time of the hook, if it was long enough to be looked at.
    pub(crate) hook: Option<Duration>,
    /// CPU time for making an instance before it and throwing one away after it:
    /// `configure` and the page faults of a heap are the guest's doing too.
    pub(crate) instance: Duration,
}

impl Cost {
    /// All of it, for a call that took so long: a short hook counts by the wall clock,
    /// which is cheap to read and, up to the first look, not far off.
    fn within(&self, wall: Duration) -> Duration {
        let short = || wall.saturating_sub(self.instance).min(UNSEEN);
        let hook = self.hook.unwrap_or_else(short);
        hook + self.instance
    }

    /// The part that was surely CPU time. Before its first look at the thread's clock
    /// the meter knows only that the wall clock ran.
    fn sure(&self) -> Duration {
        self.hook.unwrap_or_default().saturating_sub(FIRST_DEADLINE) + self.instance
    }
}

/// What a hook call used, with the instances that it needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// As far as it was seen: too much rather than too little.
    pub(crate) seen: Duration,
    /// What was surely CPU time.
    pub(crate) sure: Duration,
}

/// A look at the clocks before and after a call: at the wall clock, which is cheap to read,
/// and for an exact one at the thread's CPU clock, which is a system call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    wall: Instant,
    cpu: Option<Duration>,
}

impl Reading {
    pub(crate) fn now(exact: bool) -> Self {
        Self {
            wall: Instant::now(),
            cpu: exact.then(thread_cpu),
        }
    }

    /// By the wall clock.
    pub(crate) fn wall(&self) -> Instant {
        self.wall
    }

    /// Whether the CPU clock was read.
    pub(crate) fn is_exact(&self) -> bool {
        self.cpu.is_some()
    }

    /// What a call of this cost used from then to `end`.
    pub(crate) fn until(&self, end: &Self, cost: &Cost) -> Used {
        match (self.cpu, end.cpu) {
            (Some(begun), Some(ended)) => {
                let cpu = ended.saturating_sub(begun);
                Used {
                    seen: cpu,
                    sure: cpu,
                }
            }
            _ => Used {
                seen: cost.within(end.wall.saturating_duration_since(self.wall)),
                sure: cost.sure(),
            },
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

/// CPU time that this thread has used so far.
#[must_use]
pub fn thread_cpu() -> Duration {
    // The clock exists on every system that we build for; if it fails, time
    // stands still and the wall-clock fallback of the caller decides.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_budget_refuses_when_used_up_and_earns_with_time() {
        let budget = CpuBudget::new(Duration::from_millis(10));
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert!(budget.reserve(5 * MS, at(0)));
        budget.settle(5 * MS, 5 * MS);
        assert!(budget.reserve(5 * MS, at(0)));
        budget.settle(5 * MS, 5 * MS);
        assert!(!budget.reserve(5 * MS, at(0)), "10 ms are used");
        assert!(!budget.reserve(5 * MS, at(0)));
        assert!(budget.reserve(5 * MS, at(100)), "100 ms earn 1 ms");
        budget.settle(5 * MS, MS);
        assert!(!budget.reserve(5 * MS, at(100)));
    }

    #[test]
    fn what_is_not_used_comes_back() {
        let budget = CpuBudget::new(Duration::from_millis(10));
        let start = Instant::now();
        for _ in 0..10_000 {
            assert!(budget.reserve(5 * MS, start));
            budget.settle(5 * MS, Duration::ZERO);
        }
        assert_eq!(budget.left(), 10_000);
    }

    #[test]
    fn a_rest_saves_up_one_second_only() {
        let budget = CpuBudget::new(Duration::from_millis(10));
        let start = Instant::now();
        assert!(budget.reserve(5 * MS, start));
        budget.settle(5 * MS, 9 * MS);
        assert!(budget.reserve(5 * MS, start + Duration::from_secs(3600)));
        budget.settle(5 * MS, Duration::ZERO);
        assert_eq!(budget.left(), 10_000);
    }

    #[test]
    fn a_successor_owes_what_was_used_and_earns_at_its_own_rate() {
        let before = CpuBudget::new(Duration::from_millis(10));
        let start = Instant::now();
        assert!(before.reserve(5 * MS, start));
        before.settle(5 * MS, 60 * MS);
        let after = CpuBudget::new(Duration::from_millis(500)).succeeding(&before);
        assert!(!after.reserve(5 * MS, start));
        assert!(!before.reserve(5 * MS, start + 10 * MS));
        assert!(after.reserve(5 * MS, start + 120 * MS));
    }

    #[test]
    fn the_thread_clock_moves_with_work() {
        let before = thread_cpu();
        let mut x = 1u64;
        while thread_cpu() - before < MS {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
    }
}
