//! What a message of a call costs in core: thread CPU time, the question and its answer
//! included, the policy and the network not. Run with `cargo bench -p sipbox-core`.

#![allow(clippy::indexing_slicing, reason = "a bench may stop where it stands")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use support::{Bench, Kind, Script, call, script};

/// Nanoseconds that this thread has been on a CPU.
fn cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|ns| ns.parse().ok())
        .unwrap_or_default()
}

fn main() {
    // `cargo bench -p sipbox-core -- 10`: fewer rounds, for an instruction counter.
    let rounds = std::env::args()
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(40usize);
    const CALLS: usize = 2000;
    let scripts: Vec<Script> = (0..CALLS).map(script).collect();
    let mut bench = Bench::new();
    let mut samples = Vec::new();
    for round in 0..rounds {
        let begun = cpu();
        for script in &scripts {
            call(&mut bench, script, |_, step| step());
        }
        let spent = cpu() - begun;
        let ticking = cpu();
        bench.pass(Duration::from_secs(200));
        let ticked = cpu() - ticking;
        if round > 4 || rounds < 10 {
            samples.push((spent / CALLS as u64, ticked / CALLS as u64));
        }
    }
    samples.sort_unstable();
    let (call_ns, timers_ns) = samples[samples.len() / 2];
    // The script's own work: writing four responses from requests.
    println!(
        "a call of {} messages: {call_ns} ns, its timers {timers_ns} ns",
        Kind::ALL.len() + 1
    );
    println!(
        "a message: {} ns (median of {} rounds)",
        call_ns / 6,
        samples.len()
    );
}
