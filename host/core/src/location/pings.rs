//! When bindings are pinged, and what becomes of those that do not answer (OpenSIPS's
//! nathelper).
//!
//! Each binding has a place in the interval that follows from its id, so pings are spread
//! evenly over it and no list has to be walked. What is due between two looks at the clock
//! is one range of a tree, in each shard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::aor::Aor;
use super::binding::Binding;
use super::row::{Change, ChangeKind};
use super::service::{LocationService, lock};
use crate::flow::{Flow, TenantId};
use crate::policy::BindingFlags;
use crate::time::{Time, WallTime};

/// What is sent over UDP to a binding that is not pinged by a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Datagram {
    /// Four zero bytes, as OpenSIPS does.
    #[default]
    Zeros,
    /// A pair of line ends (RFC 5626 section 3.5.1, the other way round).
    Crlf,
    /// A Binding indication, which nobody answers (RFC 8489 section 2).
    Stun,
}

/// `[nathelper]`, under OpenSIPS's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingSettings {
    /// `natping_interval`: the time in which each binding is pinged once; zero: never.
    pub interval: Duration,
    /// `ping_nated_only`
    pub nated_only: bool,
    /// `natping_tcp`: connections too.
    pub tcp: bool,
    /// What is sent over UDP without a request.
    pub datagram: Datagram,
    /// `sipping_method`
    pub method: Box<str>,
    /// `sipping_from`; empty: the listener's address.
    pub from: Box<str>,
    /// `ping_threshold`: how long an answer may take.
    pub threshold: Duration,
    /// `max_pings_lost`: so many missed answers one after the other remove a binding that
    /// is marked so; 0: never.
    pub max_lost: u32,
    /// `sipping_ignore_rpl_codes`: statuses that are no answer.
    pub ignore: Vec<u16>,
}

impl Default for PingSettings {
    fn default() -> Self {
        Self {
            interval: Duration::ZERO,
            nated_only: true,
            tcp: false,
            datagram: Datagram::Zeros,
            method: "OPTIONS".into(),
            from: "".into(),
            threshold: Duration::from_secs(3),
            max_lost: 3,
            ignore: Vec::new(),
        }
    }
}

impl PingSettings {
    /// How often to look what is due: some hundred times in the interval. `None`: never.
    #[must_use]
    pub fn step(&self) -> Option<Duration> {
        let step = self.interval / 128;
        (!self.interval.is_zero())
            .then(|| step.clamp(Duration::from_millis(20), Duration::from_secs(1)))
    }

    /// How a binding is pinged now; `None`: not at all.
    fn way(&self, binding: &Binding) -> Option<(Flow, bool)> {
        let flow = binding.flow?;
        let natted = binding.flags.contains(BindingFlags::NATTED);
        let may = (natted || !self.nated_only) && (self.tcp || flow.connection.is_none());
        may.then(|| (flow, binding.flags.contains(BindingFlags::SIPPING)))
    }
}

/// Names a ping whose answer is waited for: it travels in the branch of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PingId {
    /// The shard of the location service (24 bits).
    pub(crate) shard: u32,
    /// Which ping of that shard (56 bits).
    pub(crate) serial: u64,
}

/// One ping that is due.
#[derive(Clone, Debug)]
pub struct Ping {
    /// Whom.
    pub binding: Arc<Binding>,
    /// The way that it registered by.
    pub flow: Flow,
    /// A request; `None`: bytes that ask for no answer.
    pub request: Option<PingId>,
}

/// What a look at the clock came to. Reused: its lists keep their memory.
#[derive(Debug, Default)]
pub struct PingRound {
    /// To be sent.
    pub pings: Vec<Ping>,
    /// Bindings that are gone, for the sink.
    pub changes: Vec<Change>,
    /// Answers that did not come.
    pub lost: usize,
}

/// Where in the interval a binding is pinged, as a part of 65536.
type Phase = u16;

fn phase(id: u64) -> Phase {
    // The multiplier of Fibonacci hashing: ids that follow each other lie far apart.
    let spread = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
    Phase::try_from(spread).unwrap_or(0)
}

/// Which part of the interval a time is in.
fn part(now: Time, interval: Duration) -> u64 {
    let length = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    let at = now.as_millis().checked_rem(length).unwrap_or(0);
    at.saturating_mul(1 << 16).checked_div(length).unwrap_or(0)
}

/// The parts of the interval that have begun after `last` and until `now`.
fn due_parts(last: Time, now: Time, interval: Duration) -> [Option<(u64, u64)>; 2] {
    if now <= last {
        return [None, None];
    }
    if now.since(last) >= interval {
        return [Some((0, 1 << 16)), None];
    }
    let (from, to) = (part(last, interval) + 1, part(now, interval) + 1);
    if from <= to && now.as_millis() / millis(interval) == last.as_millis() / millis(interval) {
        [Some((from, to)), None]
    } else {
        [Some((from, 1 << 16)), Some((0, to))]
    }
}

fn millis(interval: Duration) -> u64 {
    u64::try_from(interval.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

/// One binding's place.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) tenant: TenantId,
    pub(super) aor: Arc<Aor>,
    /// The ping whose answer is waited for: its serial, when it was sent.
    awaited: Option<(u64, Time, WallTime)>,
    /// Answers missed one after the other.
    missed: u32,
}

/// The bindings of one shard by their places in the interval.
#[derive(Debug, Default)]
pub(super) struct Pings {
    entries: BTreeMap<(Phase, u64), Entry>,
    awaited: BTreeMap<u64, (Phase, u64)>,
    serial: u64,
}

/// What becomes of a binding whose turn it is.
pub(super) enum Turn {
    /// It is pinged; the serial of a request.
    Send(Flow, Option<u64>),
    /// It has not answered for too long.
    Gone,
    /// Nothing.
    Rest,
}

impl Pings {
    /// A binding stands; what is known of its pings stays.
    pub(super) fn stands(&mut self, id: u64, tenant: TenantId, aor: &Arc<Aor>) {
        self.entries
            .entry((phase(id), id))
            .or_insert_with(|| Entry {
                tenant,
                aor: Arc::clone(aor),
                awaited: None,
                missed: 0,
            });
    }

    /// A binding is gone.
    pub(super) fn ends(&mut self, id: u64) {
        let entry = self.entries.remove(&(phase(id), id));
        if let Some((serial, ..)) = entry.and_then(|entry| entry.awaited) {
            self.awaited.remove(&serial);
        }
    }

    /// The ids of the bindings whose turn came after `last` and until `now`, with their
    /// tenant and address of record.
    pub(super) fn due(
        &self,
        last: Time,
        now: Time,
        interval: Duration,
    ) -> impl Iterator<Item = (u64, &Entry)> {
        due_parts(last, now, interval)
            .into_iter()
            .flatten()
            .flat_map(|(from, to)| {
                let key = |at: u64| Phase::try_from(at).map(|phase| (phase, 0)).ok();
                let from = key(from).map_or(std::ops::Bound::Excluded((Phase::MAX, u64::MAX)), {
                    std::ops::Bound::Included
                });
                let to = key(to).map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
                self.entries.range((from, to))
            })
            .map(|(key, entry)| (key.1, entry))
    }

    /// It is a binding's turn.
    pub(super) fn turn(
        &mut self,
        binding: &Binding,
        settings: &PingSettings,
        (now, wall): (Time, WallTime),
        lost: &mut usize,
    ) -> Turn {
        let key = (phase(binding.id), binding.id);
        let Some(entry) = self.entries.get_mut(&key) else {
            return Turn::Rest;
        };
        let Some((flow, request)) = settings.way(binding) else {
            return Turn::Rest;
        };
        if !request {
            return Turn::Send(flow, None);
        }
        if let Some((serial, sent, sent_wall)) = entry.awaited {
            if binding.last_modified > sent_wall {
                // It has registered since: that is more than an answer.
                entry.missed = 0;
            } else if now.since(sent) < settings.threshold {
                return Turn::Rest;
            } else {
                entry.missed = entry.missed.saturating_add(1);
                *lost += 1;
            }
            entry.awaited = None;
            self.awaited.remove(&serial);
        }
        let marked = binding.flags.contains(BindingFlags::REMOVE_ON_TIMEOUT);
        if marked && settings.max_lost > 0 && entry.missed >= settings.max_lost {
            return Turn::Gone;
        }
        self.serial = self.serial.wrapping_add(1) & SERIAL;
        entry.awaited = Some((self.serial, now, wall));
        self.awaited.insert(self.serial, key);
        Turn::Send(flow, Some(self.serial))
    }

    /// An answer came; whether it counts.
    pub(super) fn answered(&mut self, serial: u64, now: Time, settings: &PingSettings) -> bool {
        let Some(key) = self.awaited.get(&serial) else {
            return false;
        };
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        match entry.awaited {
            Some((awaited, sent, _))
                if awaited == serial && now.since(sent) <= settings.threshold =>
            {
                entry.awaited = None;
                entry.missed = 0;
                self.awaited.remove(&serial);
                true
            }
            _ => false,
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.entries.len(), self.awaited.len())
    }
}

impl LocationService {
    /// The pings of one shard that became due after `last` and until `now`, into `round`.
    /// Bindings that have not answered for too long are taken away, and told so.
    pub fn pings(
        &self,
        shard: usize,
        last: Time,
        (now, wall): (Time, WallTime),
        settings: &PingSettings,
        round: &mut PingRound,
    ) {
        let (Some(mutex), Ok(number)) = (self.shards.get(shard), u32::try_from(shard)) else {
            return;
        };
        let mut shard = lock(mutex);
        let due: SmallVec<[_; 16]> = shard
            .pings
            .due(last, now, settings.interval)
            .map(|(id, entry)| (id, entry.tenant, Arc::clone(&entry.aor)))
            .collect();
        for (id, tenant, aor) in due {
            let found = shard.get(tenant, &aor).and_then(|bindings| {
                let mut found = bindings.iter().filter(|b| b.id == id && b.holds(wall));
                found.next().cloned()
            });
            let Some(binding) = found else { continue };
            let turn = shard
                .pings
                .turn(&binding, settings, (now, wall), &mut round.lost);
            match turn {
                Turn::Rest => {}
                Turn::Send(flow, serial) => round.pings.push(Ping {
                    binding,
                    flow,
                    request: serial.map(|serial| PingId {
                        shard: number,
                        serial,
                    }),
                }),
                Turn::Gone => {
                    let sequence = self.sequence(1);
                    shard.take(tenant, &aor, id, sequence);
                    round.changes.push(Change {
                        tenant,
                        aor,
                        sequence,
                        kind: ChangeKind::Delete(id),
                    });
                }
            }
        }
    }

    /// A ping was answered; whether the answer was waited for.
    pub fn pong(&self, id: PingId, now: Time, settings: &PingSettings) -> bool {
        let shard = usize::try_from(id.shard)
            .ok()
            .and_then(|shard| self.shards.get(shard));
        shard.is_some_and(|mutex| lock(mutex).pings.answered(id.serial, now, settings))
    }
}

/// What of a serial fits a branch.
const SERIAL: u64 = (1 << 56) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn table(bindings: u64) -> Pings {
        let mut pings = Pings::default();
        let aor = Arc::new(Aor::parse("alice@example.com").unwrap());
        for id in 1..=bindings {
            pings.stands(id, TenantId(0), &aor);
        }
        pings
    }

    #[test]
    fn each_has_one_turn_in_an_interval_whatever_the_steps() {
        for (start, step) in [(0, 100), (12_345, 77), (29_999, 1), (5, 7001), (1, 30_000)] {
            let pings = table(500);
            let mut turns = BTreeMap::<u64, u32>::new();
            let mut at = start;
            while at < start + 60_000 {
                let next = (at + step).min(start + 60_000);
                let (last, now) = (Time::from_millis(at), Time::from_millis(next));
                for (id, _) in pings.due(last, now, INTERVAL) {
                    *turns.entry(id).or_default() += 1;
                }
                at = next;
            }
            assert_eq!(turns.len(), 500, "{start} {step}");
            assert!(
                turns.values().all(|turns| *turns == 2),
                "{start} {step}: {turns:?}"
            );
        }
    }

    #[test]
    fn they_are_spread_over_the_interval() {
        let pings = table(30_000);
        for second in 0..30 {
            let last = Time::from_millis(second * 1000);
            let now = Time::from_millis((second + 1) * 1000);
            let due = pings.due(last, now, INTERVAL).count();
            assert!((900..1100).contains(&due), "{due} in second {second}");
        }
    }

    #[test]
    fn a_long_pause_is_no_burst_of_more_than_one_each() {
        let pings = table(50);
        let (last, now) = (Time::from_millis(0), Time::from_millis(3_600_000));
        assert_eq!(pings.due(last, now, INTERVAL).count(), 50);
        assert_eq!(pings.due(now, now, INTERVAL).count(), 0);
    }
}
