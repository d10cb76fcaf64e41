//! Several workers at one stack: no call is lost between them, and a panic in one
//! of them leaves the others working.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use sipbox_core::stack::{Counts, Stack};
use support::{Bench, call, script};

const fn crosses_threads<T: Send + Sync>() {}
const _: () = crosses_threads::<Stack>();

#[test]
fn workers_share_every_shard() {
    let first = Bench::new();
    let stack = first.shared();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (stack, done) = (&stack, &done);
            scope.spawn(move || {
                let mut bench = Bench::over(stack.clone());
                for number in 0..200 {
                    call(&mut bench, &script(worker * 1000 + number), |_, step| {
                        step();
                    });
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(done.load(Ordering::Relaxed), 800);
    assert_eq!(stack.counts().servers, 1600);
    let mut bench = Bench::over(stack.clone());
    bench.pass(std::time::Duration::from_secs(400));
    assert_eq!(stack.counts(), Counts::default());
}
