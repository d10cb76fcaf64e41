//! The brake on guessing passwords: after some wrong answers from one source for
//! one account nothing more is checked for a while. Other sources of the same
//! account, and other accounts of the same source, are not touched.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Duration;

use super::{AuthSettings, lock};
use crate::flow::TenantId;
use crate::location::KeyedState;
use crate::time::WallTime;

const SHARDS: usize = 16;

/// Whose failures are counted together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account<'a> {
    pub(super) tenant: TenantId,
    pub(super) source: IpAddr,
    pub(super) realm: &'a str,
    pub(super) user: &'a str,
}

#[derive(Debug)]
pub(super) struct Throttle {
    shards: Vec<Mutex<Table>>,
    keyed: [KeyedState; 2],
    /// Of each table.
    capacity: usize,
    failures: u32,
    window: Duration,
}

/// Two keyed hashes of the account: as good as the account itself, and of fixed size.
type Key = (u64, u64);

#[derive(Debug)]
struct Table {
    counts: HashMap<Key, Count, KeyedState>,
    /// The keys in the order of their first failure.
    order: VecDeque<Key>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    /// The first failure, or the one that closed the door.
    since: WallTime,
    failures: u32,
}

impl Throttle {
    pub(super) fn new(key: &[u8; 32], settings: &AuthSettings) -> Self {
        let (low, high) = key.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        let high = high.first_chunk::<16>().unwrap_or(&[0; 16]);
        let keyed = [KeyedState::new(low), KeyedState::new(high)];
        let table = || Table {
            counts: HashMap::with_hasher(KeyedState::new(high)),
            order: VecDeque::new(),
        };
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(table())).collect(),
            keyed,
            capacity: settings.failure_table.div_ceil(SHARDS).max(1),
            failures: settings.failures,
            window: settings.failure_window,
        }
    }

    /// Whether nothing is to be checked now.
    pub(super) fn is_closed(&self, account: &Account<'_>, wall: WallTime) -> bool {
        let key = self.key(account);
        let Some(mutex) = self.shards.get(shard(key)) else {
            return false;
        };
        let table = lock(mutex);
        let count = table
            .counts
            .get(&key)
            .filter(|count| !self.is_over(count, wall));
        count.is_some_and(|count| count.failures >= self.failures)
    }

    /// Counts a wrong answer.
    pub(super) fn failed(&self, account: &Account<'_>, wall: WallTime) {
        if self.failures == 0 {
            return;
        }
        let key = self.key(account);
        let Some(mutex) = self.shards.get(shard(key)) else {
            return;
        };
        let mut table = lock(mutex);
        if let Some(count) = table.counts.get_mut(&key) {
            if self.is_over(count, wall) {
                *count = Count {
                    since: wall,
                    failures: 0,
                };
            }
            count.failures = count.failures.saturating_add(1);
            if count.failures >= self.failures {
                // The wait begins with the failure that was one too many.
                count.since = wall;
            }
            return;
        }
        while let Some(oldest) = table.order.front().copied() {
            let over = table
                .counts
                .get(&oldest)
                .is_none_or(|count| self.is_over(count, wall));
            if !over && table.counts.len() < self.capacity {
                break;
            }
            table.order.pop_front();
            table.counts.remove(&oldest);
        }
        table.counts.insert(
            key,
            Count {
                since: wall,
                failures: 1,
            },
        );
        table.order.push_back(key);
    }

    fn is_over(&self, count: &Count, wall: WallTime) -> bool {
        Duration::from_millis(wall.0.saturating_sub(count.since.0)) >= self.window
    }

    fn key(&self, account: &Account<'_>) -> Key {
        let source = match account.source {
            // Whoever has one address of a /64 has them all.
            IpAddr::V6(ip) => {
                let network = ip.to_bits() >> 64 << 64;
                IpAddr::V6(Ipv6Addr::from_bits(network)).to_canonical()
            }
            v4 @ IpAddr::V4(_) => v4,
        };
        let whole = (account.tenant, source, account.realm, account.user);
        let [one, two] = &self.keyed;
        (one.hash(whole), two.hash(whole))
    }
}

fn shard((one, _): Key) -> usize {
    usize::try_from(one)
        .unwrap_or(0)
        .checked_rem(SHARDS)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: WallTime = WallTime(5_000_000);

    fn account(source: &str, user: &'static str) -> Account<'static> {
        Account {
            tenant: TenantId(0),
            source: source.parse().unwrap(),
            realm: "r",
            user,
        }
    }

    fn throttle(table: usize) -> Throttle {
        let settings = AuthSettings {
            failure_table: table,
            ..AuthSettings::default()
        };
        Throttle::new(&[3; 32], &settings)
    }

    fn after(seconds: u64) -> WallTime {
        WallTime(START.0 + seconds * 1000)
    }

    #[test]
    fn the_fifth_failure_in_a_minute_closes_for_a_minute() {
        let throttle = throttle(100);
        let guesser = account("192.0.2.1", "alice");
        for second in [0, 10, 20, 30] {
            throttle.failed(&guesser, after(second));
            assert!(!throttle.is_closed(&guesser, after(second)));
        }
        throttle.failed(&guesser, after(40));
        assert!(throttle.is_closed(&guesser, after(40)));
        assert!(throttle.is_closed(&guesser, after(99)));
        assert!(!throttle.is_closed(&guesser, after(100)));
        throttle.failed(&guesser, after(100));
        assert!(
            !throttle.is_closed(&guesser, after(100)),
            "counting starts again"
        );
    }

    #[test]
    fn five_failures_over_more_than_a_minute_are_forgiven() {
        let throttle = throttle(100);
        let clumsy = account("192.0.2.1", "alice");
        for n in 0..20 {
            throttle.failed(&clumsy, after(n * 16));
            assert!(!throttle.is_closed(&clumsy, after(n * 16)));
        }
    }

    #[test]
    fn others_are_not_touched() {
        let throttle = throttle(100);
        for _ in 0..5 {
            throttle.failed(&account("192.0.2.1", "alice"), START);
        }
        assert!(throttle.is_closed(&account("192.0.2.1", "alice"), START));
        assert!(!throttle.is_closed(&account("192.0.2.2", "alice"), START));
        assert!(!throttle.is_closed(&account("192.0.2.1", "bob"), START));
        let other_tenant = Account {
            tenant: TenantId(1),
            ..account("192.0.2.1", "alice")
        };
        assert!(!throttle.is_closed(&other_tenant, START));
    }

    #[test]
    fn a_whole_ipv6_network_is_one_source() {
        let throttle = throttle(100);
        for n in 0..5 {
            throttle.failed(&account(&format!("2001:db8::{n}"), "alice"), START);
        }
        assert!(throttle.is_closed(&account("2001:db8::ffff", "alice"), START));
        assert!(!throttle.is_closed(&account("2001:db8:0:1::1", "alice"), START));
    }

    #[test]
    fn the_table_stays_bounded() {
        let throttle = throttle(64);
        for n in 0..10_000u32 {
            let source = std::net::Ipv4Addr::from(n);
            throttle.failed(&account(&source.to_string(), "alice"), START);
        }
        let kept: usize = throttle.shards.iter().map(|t| lock(t).counts.len()).sum();
        let queued: usize = throttle.shards.iter().map(|t| lock(t).order.len()).sum();
        assert!(kept <= 64 && queued == kept, "{kept} kept, {queued} queued");
    }
}
