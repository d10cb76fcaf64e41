//! Against a map, by hand, and by threads that race.

use std::collections::HashMap as Map;
use std::sync::Barrier;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const LIMITS: SharedLimits = SharedLimits {
    kv_entries: 4,
    kv_bytes: 4 * (ENTRY + 100),
    kv_value: 100,
    counters: 4,
};

fn kv(limits: SharedLimits) -> MemoryKv {
    MemoryKv::new(&limits, &[7; 16])
}

fn at(seconds: u64) -> Time {
    Time::from_millis(seconds * 1000)
}

fn set(value: &[u8], ttl: u32) -> Change {
    Change::Set {
        value: Bytes::copy_from_slice(value),
        ttl,
    }
}

impl MemoryKv {
    fn staging(&self, key: &str, change: Change, now: Time) -> Result<Staged, CallError> {
        self.stage(key, change, None, now).now().unwrap()
    }

    fn write(&self, key: &str, change: Change, now: Time) -> Result<(), CallError> {
        let staged = self.staging(key, change, now)?;
        staged.commit(now).now().unwrap()
    }

    fn swap(&self, key: &str, expected: Expected, value: &[u8], now: Time) -> Swap {
        let swap = self.compare_and_set(key, expected, set(value, 0), now);
        swap.now().unwrap().unwrap()
    }

    fn read(&self, key: &str, now: Time) -> Option<Entry> {
        self.get(key, now).now().unwrap().unwrap()
    }

    fn value(&self, key: &str, now: Time) -> Option<Vec<u8>> {
        self.read(key, now).map(|entry| entry.value.to_vec())
    }
}

fn staged(swap: Swap) -> Staged {
    match swap {
        Swap::Staged(staged) => staged,
        other => panic!("{other:?}"),
    }
}

fn limited(setting: &str) -> CallError {
    CallError::Limit(setting.to_owned())
}

#[test]
fn a_write_is_seen_when_it_is_committed_and_never_if_it_is_dropped() {
    let (kv, now) = (kv(LIMITS), at(1));
    let first = kv.staging("a", set(b"1", 0), now).unwrap();
    assert_eq!(kv.read("a", now), None);
    assert_eq!(first.entry().unwrap().value, "1");
    assert_eq!(kv.usage(), (1, ENTRY + 2), "its room is taken");
    first.commit(now).now().unwrap().unwrap();
    first.commit(now).now().unwrap().unwrap();
    assert_eq!(kv.value("a", now).unwrap(), b"1");
    assert_eq!(kv.read("a", now).unwrap().version, first.write().version);
    drop(kv.staging("a", set(b"2", 0), now).unwrap());
    drop(kv.staging("a", Change::Remove, now).unwrap());
    drop(kv.staging("b", set(b"2", 0), now).unwrap());
    assert_eq!(kv.value("a", now).unwrap(), b"1");
    assert_eq!(kv.usage(), (1, ENTRY + 2));
    kv.write("a", Change::Remove, now).unwrap();
    assert_eq!((kv.read("a", now), kv.usage()), (None, (0, 0)));
}

#[test]
fn entries_end_and_make_room() {
    let kv = kv(LIMITS);
    for (key, ttl) in [("a", 1), ("b", 2), ("c", 3), ("d", 0)] {
        kv.write(key, set(b"x", ttl), at(10)).unwrap();
    }
    let more = |now| kv.write("e", set(b"x", 0), now);
    assert_eq!(more(at(10)), Err(limited("kv_entries")));
    assert_eq!(kv.read("a", Time::from_millis(10_999)).unwrap().ttl, 1);
    assert_eq!(kv.read("b", Time::from_millis(10_001)).unwrap().ttl, 2);
    assert_eq!(kv.read("d", at(1_000_000)).unwrap().ttl, 0);
    assert_eq!(kv.read("a", at(11)), None, "ended");
    assert_eq!(more(at(11)), Ok(()), "whichever shard it is in");
    assert_eq!(more(at(11)), Ok(()), "it is there already");
    kv.upkeep(at(20));
    assert_eq!(kv.usage().0, 2);
    // A write without a time to live takes the old one's end away.
    kv.write("f", set(b"x", 1), at(20)).unwrap();
    kv.write("f", set(b"y", 0), at(20)).unwrap();
    kv.upkeep(at(100));
    assert_eq!(kv.value("f", at(100)).unwrap(), b"y");
}

#[test]
fn a_tenant_has_so_much_room() {
    let (kv, now) = (kv(LIMITS), at(1));
    let long = [b'x'; 101];
    assert_eq!(
        kv.write("a", set(&long, 0), now),
        Err(limited("kv_value_bytes"))
    );
    for key in ["a", "b", "c", "d"] {
        kv.write(key, set(&long[..99], 0), now).unwrap();
    }
    assert_eq!(kv.write("e", set(b"", 0), now), Err(limited("kv_entries")));
    assert_eq!(
        kv.write("d", set(&long[..100], 0), now),
        Err(limited("kv_mib"))
    );
    assert_eq!(kv.usage(), (4, LIMITS.kv_bytes));
    // What fits in the place of what is there needs no room.
    kv.write("d", set(&long[..98], 0), now).unwrap();
    kv.write("d", set(&long[..99], 0), now).unwrap();
    // A comparison tells what it finds, also where there is no room.
    assert_eq!(kv.swap("e", Some(1), b"", now), Swap::Differs(None));
    kv.write("a", Change::Remove, now).unwrap();
    let reserved = kv.staging("e", set(b"", 0), now).unwrap();
    assert_eq!(kv.write("f", set(b"", 0), now), Err(limited("kv_entries")));
    drop(reserved);
    kv.write("f", set(b"", 0), now).unwrap();
    kv.limit(&SharedLimits {
        kv_entries: 1,
        ..LIMITS
    });
    assert_eq!(kv.write("e", set(b"", 0), now), Err(limited("kv_entries")));
    assert_eq!(kv.usage().0, 4, "what is there stays");
    kv.write("b", set(b"y", 0), now).unwrap();
}

#[test]
fn a_comparison_claims_the_key_until_its_write_is_committed_or_dropped() {
    let (kv, now) = (kv(LIMITS), at(1));
    let first = staged(kv.swap("a", None, b"1", now));
    assert_eq!(kv.swap("a", None, b"2", now), Swap::Busy);
    assert_eq!(kv.read("a", now), None);
    drop(first);
    let second = staged(kv.swap("a", None, b"2", now));
    second.commit(now).now().unwrap().unwrap();
    drop(second);
    let found = kv.read("a", now);
    assert_eq!(kv.swap("a", None, b"3", now), Swap::Differs(found.clone()));
    let version = found.unwrap().version;
    let third = staged(kv.swap("a", Some(version), b"3", now));
    // The further write of the same call takes the claim over.
    let fourth = kv
        .stage("a", set(b"4", 0), third.hold(), now)
        .now()
        .unwrap()
        .unwrap();
    drop(third);
    assert_eq!(kv.swap("a", Some(version), b"5", now), Swap::Busy);
    fourth.commit(now).now().unwrap().unwrap();
    drop(fourth);
    assert_eq!(kv.value("a", now).unwrap(), b"4");
    assert!(matches!(
        kv.swap("a", Some(version), b"5", now),
        Swap::Differs(_)
    ));
    assert_eq!(kv.usage(), (1, ENTRY + 2));
}

/// Of the writes of one call to a key one is committed: they need room for the largest of
/// them, not for all.
#[test]
fn further_writes_of_a_call_share_the_room_of_the_first() {
    let (kv, now) = (kv(LIMITS), at(1));
    let again = |earlier: &Staged, change| kv.stage("a", change, earlier.hold(), now).now();
    for key in ["b", "c", "d"] {
        kv.write(key, set(&[b'x'; 99], 0), now).unwrap();
    }
    let first = kv.staging("a", set(&[b'x'; 40], 0), now).unwrap();
    let second = again(&first, set(&[b'y'; 99], 0)).unwrap().unwrap();
    assert_eq!(kv.usage(), (4, LIMITS.kv_bytes));
    let more = again(&second, set(&[b'z'; 100], 0)).unwrap();
    assert_eq!(more, Err(limited("kv_mib")));
    let third = again(&second, set(b"3", 0)).unwrap().unwrap();
    // Any of them may still be the one that counts, if a later policy traps.
    assert_eq!(kv.usage(), (4, LIMITS.kv_bytes));
    drop((first, second));
    third.commit(now).now().unwrap().unwrap();
    assert_eq!(kv.usage(), (4, LIMITS.kv_bytes - 98));
    drop(third);
    assert_eq!(kv.usage(), (4, LIMITS.kv_bytes - 98));
    assert_eq!(kv.value("a", now).unwrap(), b"3");
    // The same for what stands already, and for a removal; given up, all of it is free.
    let first = kv.staging("a", set(&[b'x'; 99], 0), now).unwrap();
    let second = again(&first, Change::Remove).unwrap().unwrap();
    let third = again(&second, set(&[b'y'; 99], 0)).unwrap().unwrap();
    drop((first, second, third));
    assert_eq!(kv.usage(), (4, LIMITS.kv_bytes - 98));
}

/// A plain write that comes while a key is claimed comes after the comparison.
#[test]
fn what_overtakes_a_comparison_stays() {
    let (kv, now) = (kv(LIMITS), at(1));
    for other in [set(b"other", 0), Change::Remove] {
        kv.write("a", set(b"0", 0), now).unwrap();
        let version = kv.read("a", now).unwrap().version;
        let swap = staged(kv.swap("a", Some(version), b"1", now));
        kv.write("a", other.clone(), now).unwrap();
        let between = kv.value("a", now);
        swap.commit(now).now().unwrap().unwrap();
        drop(swap);
        assert_eq!(kv.value("a", now), between, "{other:?}");
        kv.write("a", Change::Remove, now).unwrap();
        assert_eq!(kv.usage(), (0, 0), "{other:?}");
    }
}

/// Each of many threads adds to one number by compare-and-set; some give up what they
/// staged. What was committed was added, no more and no less.
#[test]
fn no_two_workers_swap_the_same() {
    const THREADS: usize = 4;
    const EACH: u32 = 500;
    let kv = kv(LIMITS);
    let begin = Barrier::new(THREADS);
    let added: u32 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    begin.wait();
                    let mut added = 0;
                    for round in 0..EACH {
                        let now = at(1);
                        let found = kv.read("n", now);
                        let number = found.as_ref().map_or(0, |entry| {
                            u32::from_le_bytes(entry.value[..].try_into().unwrap())
                        });
                        let version = found.map(|entry| entry.version);
                        let next = (number + 1).to_le_bytes();
                        if let Swap::Staged(staged) = kv.swap("n", version, &next, now) {
                            if round % 3 == 0 {
                                continue;
                            }
                            staged.commit(now).now().unwrap().unwrap();
                            added += 1;
                        }
                    }
                    added
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum()
    });
    let number = kv.value("n", at(1)).unwrap();
    assert_eq!(u32::from_le_bytes(number[..].try_into().unwrap()), added);
    assert!(added >= EACH / 2);
    assert_eq!(kv.usage(), (1, ENTRY + 5));
}

/// Threads fill the quota at the same time: it holds, and comes back whole.
#[test]
fn a_quota_holds_whoever_writes() {
    let limits = SharedLimits {
        kv_entries: 50,
        kv_bytes: 50 * (ENTRY + 10),
        ..LIMITS
    };
    let kv = kv(limits);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let kv = &kv;
            scope.spawn(move || {
                for n in 0..400 {
                    let key = format!("{thread}/{}", n % 40);
                    let change = if n % 5 == 4 {
                        Change::Remove
                    } else {
                        set(b"value", 0)
                    };
                    if let Ok(staged) = kv.staging(&key, change, at(1))
                        && n % 7 != 0
                    {
                        staged.commit(at(1)).now().unwrap().unwrap();
                    }
                    let (entries, bytes) = kv.usage();
                    assert!(
                        entries <= 50 && bytes <= limits.kv_bytes,
                        "{entries} {bytes}"
                    );
                }
            });
        }
    });
    for thread in 0..4 {
        for n in 0..40 {
            kv.write(&format!("{thread}/{n}"), Change::Remove, at(1))
                .unwrap();
        }
    }
    assert_eq!(kv.usage(), (0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8, u32),
    Remove(u8),
    /// With the version that stands there, or one that does not.
    Swap(u8, bool, u8),
    Forgotten(u8, u8),
    Wait(u32),
    Upkeep,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..6u8;
    prop_oneof![
        (key.clone(), 0..40u8, 0..4u32).prop_map(|(key, len, ttl)| Step::Set(key, len, ttl)),
        key.clone().prop_map(Step::Remove),
        (key.clone(), any::<bool>(), 0..40u8)
            .prop_map(|(key, right, len)| Step::Swap(key, right, len)),
        (key, 0..40u8).prop_map(|(key, len)| Step::Forgotten(key, len)),
        (0..2500u32).prop_map(Step::Wait),
        Just(Step::Upkeep),
    ]
}

proptest! {
    /// Against a map that forgets what has ended before each step.
    #[test]
    fn it_is_a_map_whose_entries_end(steps in proptest::collection::vec(step(), 1..80)) {
        let kv = kv(LIMITS);
        let mut model: Map<String, (Vec<u8>, Option<u64>)> = Map::default();
        let mut ms = 1000;
        for step in steps {
            let now = Time::from_millis(ms);
            model.retain(|_, (_, ends)| ends.is_none_or(|ends| ends > ms));
            let costs = |model: &Map<String, (Vec<u8>, Option<u64>)>| -> u64 {
                model.iter().map(|(key, (value, _))| ENTRY + (key.len() + value.len()) as u64).sum()
            };
            let allowed = |key: &str, value: &[u8]| {
                let mut after = model.clone();
                after.insert(key.to_owned(), (value.to_vec(), None));
                after.len() <= 4 && costs(&after) <= LIMITS.kv_bytes
            };
            match step {
                Step::Set(key, len, ttl) => {
                    let (key, value) = (key.to_string(), vec![b'v'; len.into()]);
                    let written = kv.write(&key, set(&value, ttl), now);
                    prop_assert_eq!(written.is_ok(), allowed(&key, &value));
                    if written.is_ok() {
                        let ends = (ttl > 0).then(|| ms + u64::from(ttl) * 1000);
                        model.insert(key, (value, ends));
                    }
                }
                Step::Remove(key) => {
                    kv.write(&key.to_string(), Change::Remove, now).unwrap();
                    model.remove(&key.to_string());
                }
                Step::Swap(key, right, len) => {
                    let (key, value) = (key.to_string(), vec![b's'; len.into()]);
                    let version = kv.read(&key, now).map(|entry| entry.version);
                    let expected = if right { version } else { Some(0) };
                    let swap = kv.compare_and_set(&key, expected, set(&value, 0), now);
                    match swap.now().unwrap() {
                        Ok(Swap::Staged(staged)) => {
                            prop_assert!(right && allowed(&key, &value));
                            staged.commit(now).now().unwrap().unwrap();
                            model.insert(key, (value, None));
                        }
                        Ok(Swap::Differs(_)) => prop_assert!(!right),
                        Ok(Swap::Busy) => prop_assert!(false, "nobody else is there"),
                        Err(_) => prop_assert!(right && !allowed(&key, &value)),
                    }
                }
                Step::Forgotten(key, len) => {
                    drop(kv.staging(&key.to_string(), set(&vec![b'f'; len.into()], 0), now));
                }
                Step::Wait(more) => ms += u64::from(more),
                Step::Upkeep => {
                    kv.upkeep(now);
                    let entries = model.len() as u64;
                    prop_assert_eq!(kv.usage(), (entries, costs(&model)));
                }
            }
            let now = Time::from_millis(ms);
            for key in 0..6u8 {
                let key = key.to_string();
                let stands = model.get(&key).filter(|(_, ends)| ends.is_none_or(|ends| ends > ms));
                prop_assert_eq!(kv.value(&key, now), stands.map(|(value, _)| value.clone()));
            }
        }
    }
}
