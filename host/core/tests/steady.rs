//! Steady state: what a forwarded message allocates once tables and buffers have
//! grown, and how much a finished transaction keeps. The counter is the allocator of
//! this test binary.

mod support;

use std::time::Duration;

use sipbox_core::stack::Counts;
use support::{Bench, Kind, Script, call, script};

#[derive(Default)]
struct Tally {
    messages: u64,
    allocations: u64,
}

impl Tally {
    fn measure(&mut self, step: &mut dyn FnMut()) {
        self.messages += 1;
        self.allocations += allocation_counter::measure(step).count_total;
    }

    fn per_message(&self) -> f64 {
        self.allocations as f64 / self.messages as f64
    }
}

#[test]
fn a_message_allocates_its_transaction_and_what_it_keeps_and_nothing_else() {
    let mut bench = Bench::new();
    let scripts: Vec<Script> = (0..600).map(script).collect();
    let (warm, measured) = scripts.split_at(300);
    // Grow the tables and buffers, and let every transaction end.
    for script in warm {
        call(&mut bench, script, |_, step| step());
    }
    bench.pass(Duration::from_secs(200));
    assert_eq!(bench.stack.counts(), Counts::default());

    let mut tallies: [Tally; 5] = Default::default();
    for script in measured {
        call(&mut bench, script, |kind, step| {
            tallies[kind as usize].measure(step);
        });
    }
    // An INVITE: the message, its facts, the question and the response context, which
    // are the transaction; the 100 and the branch, which are its bytes; and the target
    // set, two of this test's policy. A BYE has no 100, but is written anew without the
    // Route that was ours; so is an ACK, which the policy is asked about as well. A
    // response is kept.
    let bounds = [8.0, 1.0, 1.0, 6.0, 8.0];
    for ((kind, tally), bound) in Kind::ALL.iter().zip(&tallies).zip(bounds) {
        println!("{kind:?}: {:.2} allocations", tally.per_message());
        assert!(
            tally.per_message() <= bound,
            "{kind:?}: {}",
            tally.per_message()
        );
    }
    bench.pass(Duration::from_secs(200));
    assert_eq!(bench.stack.counts(), Counts::default());
}

#[test]
fn a_finished_call_keeps_little() {
    let mut bench = Bench::new();
    let scripts: Vec<Script> = (0..800).map(script).collect();
    let (warm, measured) = scripts.split_at(400);
    for script in warm {
        call(&mut bench, script, |_, step| step());
    }
    let info = allocation_counter::measure(|| {
        for script in measured {
            call(&mut bench, script, |_, step| step());
        }
    });
    assert_eq!(bench.stack.counts().servers, 2 * scripts.len());
    let kept = info.bytes_current / i64::try_from(measured.len()).unwrap();
    println!("a finished call keeps {kept} bytes in two server and two client transactions");
    assert!(kept < 2688, "{kept}");
}

#[test]
fn memory_does_not_grow_from_round_to_round() {
    let mut bench = Bench::new();
    let scripts: Vec<Script> = (0..100).map(script).collect();
    let round = |bench: &mut Bench| {
        for script in &scripts {
            call(bench, script, |_, step| step());
        }
        bench.pass(Duration::from_secs(200));
    };
    round(&mut bench);
    round(&mut bench);
    let info = allocation_counter::measure(|| {
        for _ in 0..5 {
            round(&mut bench);
        }
    });
    assert_eq!(info.bytes_current, 0, "after five more rounds");
}
