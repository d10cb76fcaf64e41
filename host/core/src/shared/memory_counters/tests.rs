//! Against all that was ever added, by hand, and by threads that race.

use proptest::prelude::*;

use super::*;

fn counters(most: u32) -> MemoryCounters {
    let limits = SharedLimits {
        counters: most,
        ..SharedLimits::default()
    };
    MemoryCounters::new(&limits, &[7; 16])
}

fn of<'a>(name: &'a str, key: &'a str, window: u32) -> CounterName<'a> {
    CounterName { name, key, window }
}

impl MemoryCounters {
    fn adding(&self, key: &str, by: u32, window: u32, ms: u64) -> Result<u32, CallError> {
        let now = Time::from_millis(ms);
        self.add(of("calls", key, window), by, now).now().unwrap()
    }

    fn taking(&self, key: &str, window: u32, limit: u32, ms: u64) -> Taken {
        let now = Time::from_millis(ms);
        let taken = self.take(of("calls", key, window), 1, limit, now);
        taken.now().unwrap().unwrap()
    }

    fn next(&self, name: &str, ms: u64) -> Result<u32, CallError> {
        self.sequence(name, Time::from_millis(ms)).now().unwrap()
    }
}

#[test]
fn a_window_slides() {
    let counters = counters(4);
    // Slots of 1 s.
    for second in 0..16 {
        assert_eq!(
            counters.adding("a", 1, 16, second * 1000),
            Ok(second as u32 + 1)
        );
    }
    assert_eq!(
        counters.adding("a", 0, 16, 16_000),
        Ok(16),
        "the first is 16 s old"
    );
    assert_eq!(
        counters.adding("a", 0, 16, 16_999),
        Ok(16),
        "and a part of a slot"
    );
    assert_eq!(counters.adding("a", 0, 16, 17_000), Ok(15));
    assert_eq!(counters.adding("a", 0, 16, 31_999), Ok(1));
    assert_eq!(counters.adding("a", 0, 16, 32_000), Ok(0));
    assert_eq!(counters.adding("a", 5, 16, 1_000_000), Ok(5));
    // Other windows, keys and names are other counters.
    assert_eq!(counters.adding("a", 1, 60, 1_000_000), Ok(1));
    assert_eq!(counters.adding("b", 1, 16, 1_000_000), Ok(1));
    let other = counters.add(of("call", "sa", 16), 1, Time::from_millis(1_000_000));
    assert_eq!(other.now().unwrap(), Ok(1));
    counters
        .reset(of("calls", "a", 16), Time::from_millis(1_000_000))
        .now()
        .unwrap()
        .unwrap();
    assert_eq!(counters.adding("a", 0, 16, 1_000_000), Ok(0));
    assert_eq!(counters.adding("a", 0, 60, 1_000_000), Ok(1));
}

#[test]
fn what_is_refused_is_not_counted_by_take() {
    let counters = counters(4);
    for n in 1..=3 {
        assert_eq!(counters.taking("a", 60, 3, 0), Taken::Taken(n));
    }
    assert_eq!(counters.taking("a", 60, 3, 0), Taken::Over(3));
    assert_eq!(counters.taking("a", 60, 3, 60_000), Taken::Over(3));
    assert_eq!(counters.taking("a", 60, 3, 63_750), Taken::Taken(1));
    assert_eq!(counters.taking("b", 60, 0, 0), Taken::Over(0));
    assert_eq!(counters.usage(), 1, "what was refused made no counter");
}

#[test]
fn counters_go_when_they_are_back_at_0_and_make_room() {
    let counters = counters(2);
    assert_eq!(counters.adding("a", 1, 1, 0), Ok(1));
    assert_eq!(counters.adding("b", 1, 10, 0), Ok(1));
    let full = Err(CallError::Limit("counters".to_owned()));
    assert_eq!(counters.adding("c", 1, 1, 900), full);
    assert_eq!(
        counters.adding("c", 0, 1, 900),
        Ok(0),
        "asking takes no room"
    );
    assert_eq!(counters.adding("a", 1, 1, 900), Ok(2));
    assert_eq!(counters.adding("c", 1, 1, 1800), full, "it was used again");
    assert_eq!(counters.adding("c", 1, 1, 2000), Ok(1));
    counters.upkeep(Time::from_millis(20_000));
    assert_eq!(counters.usage(), 0);
}

#[test]
fn what_makes_no_sense_is_refused_and_sums_end_at_their_type() {
    let counters = counters(2);
    for window in [0, LONGEST_WINDOW + 1] {
        let refused = counters.adding("a", 1, window, 0);
        assert!(matches!(refused, Err(CallError::Malformed(_))));
    }
    assert_eq!(counters.adding("a", u32::MAX, 86_400, 0), Ok(u32::MAX));
    assert_eq!(counters.adding("a", u32::MAX, 86_400, 0), Ok(u32::MAX));
    assert_eq!(counters.adding("a", 1, 86_400, 7_000_000), Ok(u32::MAX));
}

#[test]
fn a_sequence_counts_from_0_and_takes_the_room_of_a_counter() {
    let counters = counters(2);
    let numbers: Vec<u32> = (0..5).map(|_| counters.next("a", 0).unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    assert_eq!(counters.next("b", 0), Ok(0));
    let full = CallError::Limit("counters".to_owned());
    assert_eq!(counters.next("c", 0), Err(full.clone()));
    assert_eq!(counters.adding("a", 1, 60, 0), Err(full));
    let day = u64::from(LONGEST_WINDOW) * 1000;
    assert_eq!(counters.next("a", day - 1), Ok(5), "no window ends it");
    // What nobody has asked for in a day makes room for others.
    assert_eq!(counters.next("c", day), Ok(0));
    assert_eq!(counters.next("a", day), Ok(6));
    counters.upkeep(Time::from_millis(2 * day));
    assert_eq!(counters.usage(), 0);
    assert_eq!(counters.next("a", 2 * day), Ok(0));
    // Of the same name as a counter: the one is not the other.
    let empty = of("a", "", 60);
    let sum = counters.add(empty, 7, Time::from_millis(2 * day));
    assert_eq!(sum.now().unwrap(), Ok(7));
    assert_eq!(counters.next("a", 2 * day), Ok(1));
}

#[test]
fn no_two_threads_get_the_same_number_of_a_sequence() {
    let counters = counters(1);
    let mut numbers: Vec<u32> = std::thread::scope(|scope| {
        let worker = || {
            let next = |at| counters.next("a", at).unwrap();
            (0..500).map(next).collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        let joined = workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap());
        joined.collect()
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (0..2000).collect::<Vec<_>>());
}

#[test]
fn each_of_many_threads_gets_a_number_of_its_own() {
    let counters = counters(2);
    let numbers: Vec<u32> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let add = |n: u64| counters.adding("a", 1, 60, n).unwrap();
                    (0..500).map(add).collect::<Vec<_>>()
                })
            })
            .collect();
        let joined = workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap());
        joined.collect()
    });
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=2000).collect::<Vec<_>>());
}

#[test]
fn no_two_threads_take_the_last_of_a_window() {
    let counters = counters(2);
    let taken: usize = std::thread::scope(|scope| {
        let worker = || {
            let took = |_: &u64| matches!(counters.taking("a", 60, 100, 5), Taken::Taken(_));
            (0..100).filter(took).count()
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum()
    });
    assert_eq!(taken, 100);
}

proptest! {
    /// Against all that was ever added: nothing of the window is missing, and nothing
    /// counts that is older than a slot more.
    #[test]
    fn a_sum_lies_between_the_window_and_a_slot_more(
        window in 1u32..40,
        steps in proptest::collection::vec((0u64..5000, 0u32..4), 1..120),
    ) {
        let counters = counters(1);
        let mut added: Vec<(u64, u32)> = Vec::new();
        let mut ms = 12_345;
        for (wait, by) in steps {
            ms += wait;
            let sum = counters.adding("a", by, window, ms).unwrap();
            added.push((ms, by));
            let within = |age_us: u64| -> u32 {
                let young = |(at, _): &&(u64, u32)| (ms - at) * 1000 <= age_us;
                added.iter().filter(young).map(|(_, by)| by).sum()
            };
            let window = u64::from(window) * SECOND;
            prop_assert!(within(window) <= sum, "{sum} of {added:?}");
            prop_assert!(sum <= within(window / 16 * 17), "{sum} of {added:?}");
        }
    }
}
