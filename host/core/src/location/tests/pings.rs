//! Who is pinged, and who is taken away for silence.

use std::time::Duration;

use super::*;
use crate::location::pings::{PingRound, PingSettings};
use crate::policy::BindingFlags;
use crate::time::Time;

const INTERVAL: u64 = 10_000;

fn settings() -> PingSettings {
    PingSettings {
        interval: Duration::from_millis(INTERVAL),
        tcp: true,
        ..PingSettings::default()
    }
}

struct Pinger {
    bench: Bench,
    settings: PingSettings,
    now: Time,
}

impl Pinger {
    /// A binding of one phone with these marks.
    fn new(flags: BindingFlags) -> Self {
        let mut bench = Bench::new();
        bench.limits.flags = flags;
        bench.register("c", 1, "Contact: <sip:a@h>").unwrap();
        Self {
            bench,
            settings: settings(),
            now: Time::from_millis(1),
        }
    }

    /// What one interval brings.
    fn interval(&mut self) -> PingRound {
        let mut round = PingRound::default();
        let last = self.now;
        self.now = self.now + Duration::from_millis(INTERVAL);
        self.bench.now = WallTime(self.bench.now.0 + INTERVAL);
        let now = (self.now, self.bench.now);
        for shard in 0..self.bench.service.shards() {
            let service = &self.bench.service;
            service.pings(shard, last, now, &self.settings, &mut round);
        }
        round
    }

    fn counts(&self) -> (usize, usize) {
        self.bench.service.pinged()
    }
}

const SIP: BindingFlags = BindingFlags::NATTED.with(BindingFlags::SIPPING);

#[test]
fn only_those_that_need_it_are_pinged() {
    let none = BindingFlags::default();
    assert!(Pinger::new(none).interval().pings.is_empty());
    let mut all = Pinger::new(none);
    all.settings.nated_only = false;
    assert_eq!(all.interval().pings.len(), 1);
    all.settings.tcp = false;
    assert!(all.interval().pings.is_empty(), "its flow is a connection");
    let round = Pinger::new(BindingFlags::NATTED).interval();
    let [ping] = &round.pings[..] else {
        panic!("{round:?}")
    };
    assert_eq!((ping.request, ping.flow), (None, flow()));
    let round = Pinger::new(SIP).interval();
    assert!(round.pings[0].request.is_some());
}

#[test]
fn who_does_not_answer_is_removed_if_marked() {
    let mut pinger = Pinger::new(SIP.with(BindingFlags::REMOVE_ON_TIMEOUT));
    for lost in [0, 1, 1] {
        let round = pinger.interval();
        assert_eq!((round.pings.len(), round.lost), (1, lost));
        assert!(round.changes.is_empty());
    }
    let round = pinger.interval();
    assert!(round.pings.is_empty());
    assert!(matches!(
        &round.changes[..],
        [Change {
            kind: ChangeKind::Delete(1),
            ..
        }]
    ));
    assert!(pinger.bench.alice().is_empty());
    assert_eq!(pinger.counts(), (0, 0));
    assert_eq!(pinger.bench.service.awaited(), 0);

    let mut pinger = Pinger::new(SIP);
    for _ in 0..9 {
        assert!(pinger.interval().changes.is_empty());
    }
    assert_eq!(pinger.bench.alice().len(), 1);
}

#[test]
fn an_answer_in_time_counts_and_so_does_a_registration() {
    let marks = SIP.with(BindingFlags::REMOVE_ON_TIMEOUT);
    let mut pinger = Pinger::new(marks);
    for _ in 0..9 {
        let round = pinger.interval();
        assert_eq!((round.pings.len(), round.lost), (1, 0));
        let id = round.pings[0].request.unwrap();
        let soon = pinger.now + Duration::from_secs(2);
        let pong = |at| pinger.bench.service.pong(id, at, &pinger.settings);
        assert!(!pong(soon + Duration::from_secs(2)), "too late");
        assert!(pong(soon));
        assert!(!pong(soon), "once");
    }
    assert_eq!(pinger.counts(), (1, 0));

    let mut pinger = Pinger::new(marks);
    for cseq in 2..9 {
        let round = pinger.interval();
        assert_eq!((round.pings.len(), round.lost), (1, 0));
        pinger.bench.pass(1);
        pinger
            .bench
            .register("c", cseq, "Contact: <sip:a@h>")
            .unwrap();
    }
}

#[test]
fn what_an_interval_shorter_than_the_threshold_waits_for_is_not_lost() {
    let mut pinger = Pinger::new(SIP);
    pinger.settings.threshold = Duration::from_millis(INTERVAL + 1);
    let mut sent = 0;
    for _ in 0..4 {
        let round = pinger.interval();
        sent += round.pings.len();
        assert!(round.lost <= 1);
    }
    assert_eq!(sent, 2);
}
