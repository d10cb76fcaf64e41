//! Pings of bindings: each worker looks after its share of the location service's shards.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sipbox_core::location::PingRound;
use sipbox_core::time::{Time, WallTime};

use super::Worker;

/// What a worker remembers between two looks.
#[derive(Debug, Default)]
pub(super) struct Pinger {
    /// Until when pings were sent; `None` while nothing is pinged.
    last: Option<Time>,
    round: PingRound,
}

impl Worker {
    /// Sends the pings that are due; how long until it looks again.
    pub(super) fn ping(&mut self, now: Time, wall: WallTime) -> Option<Duration> {
        let node = Arc::clone(&self.node);
        let snapshot = node.snapshot.load();
        let settings = &snapshot.settings.pings;
        let step = settings
            .step()
            .filter(|_| node.pinging.load(Ordering::Relaxed));
        let Some(step) = step else {
            self.pinger.last = None;
            return None;
        };
        let last = *self.pinger.last.get_or_insert(now);
        let due = last + step;
        if now < due {
            return Some(due - now);
        }
        self.pinger.last = Some(now);
        let mut round = std::mem::take(&mut self.pinger.round);
        for shard in (self.number..node.location.shards()).step_by(self.workers) {
            node.location
                .pings(shard, last, (now, wall), settings, &mut round);
        }
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let stats = &node.stats;
        stats.pings_sent.add(self.number, count(round.pings.len()));
        stats.pings_lost.add(self.number, count(round.lost));
        stats
            .pings_removed
            .add(self.number, count(round.changes.len()));
        for ping in round.pings.drain(..) {
            self.guarded(|worker| {
                worker.step(&snapshot, |env, out| node.stack.ping(env, &ping, out));
            });
        }
        if !round.changes.is_empty() {
            let done = Box::new(|result: Result<(), _>| {
                if let Err(error) = result {
                    // The rows stay, and are pinged again after the next start.
                    tracing::warn!(%error, "bindings that did not answer were not removed from the table");
                }
            });
            if let Err(error) = node.sink.submit(round.changes.drain(..).collect(), done) {
                tracing::warn!(%error, "bindings that did not answer were not removed from the table");
            }
        }
        round.lost = 0;
        self.pinger.round = round;
        Some(step)
    }

    /// Answers to pings that came.
    pub(super) fn take_pongs(&mut self) {
        if self.out.pongs.is_empty() {
            return;
        }
        let node = Arc::clone(&self.node);
        let snapshot = node.snapshot.load();
        let settings = &snapshot.settings.pings;
        let (now, _) = node.clock.now();
        while let Some(pong) = self.out.pongs.pop() {
            let counts = !settings.ignore.contains(&pong.status);
            if counts && node.location.pong(pong.id, now, settings) {
                node.stats.pings_answered.add(self.number, 1);
            }
        }
    }
}
