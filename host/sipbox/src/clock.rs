//! The process's clocks: the one place that reads them for the core.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sipbox_core::time::{Time, WallTime};

/// Both clocks, read together. The wall clock is the start's plus what the
/// monotonic clock has run since, so that one system call serves both; it
/// follows the system's clock when the node looks again (see [`Clock::resync`]).
#[derive(Debug)]
pub(crate) struct Clock {
    begun: Instant,
    /// Milliseconds since 1970 at `begun`, as last looked up.
    wall: std::sync::atomic::AtomicU64,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        let clock = Self {
            begun: Instant::now(),
            wall: 0.into(),
        };
        clock.resync();
        clock
    }

    /// Takes over what the system's clock was set to meanwhile.
    pub(crate) fn resync(&self) {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let run = self.begun.elapsed();
        let base = since_1970.saturating_sub(run).as_millis();
        self.wall.store(
            u64::try_from(base).unwrap_or(u64::MAX),
            std::sync::atomic::Ordering::Relaxed,
        );
    }

    /// Both clocks now.
    pub(crate) fn now(&self) -> (Time, WallTime) {
        let run = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall = self.wall.load(std::sync::atomic::Ordering::Relaxed);
        (Time(run), WallTime(wall.saturating_add(run / 1000)))
    }
}
