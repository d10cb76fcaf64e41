//! A load by hand: SIPp calls through the residential policy at a fixed rate.
//!
//! ```text
//! cargo build --release -p sipbox
//! SIPBOX_BIN=target/release/sipbox \
//!     cargo run --release -p sipbox-tests --example load -- --rate 500 --seconds 30
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a tool of tests"
)]

use std::time::{Duration, Instant};

use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Setup, Sipp};

fn main() {
    let (mut rate, mut seconds) = (500, 30);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .and_then(|text| text.parse().ok())
                .expect("a number behind the option")
        };
        match word.as_str() {
            "--rate" => rate = value(),
            "--seconds" => seconds = value(),
            other => panic!("{other}? Options: --rate CALLS_A_SECOND --seconds SECONDS"),
        }
    }
    let calls: u32 = rate * seconds;
    let net = Loopback::new();
    let mut sipbox = Setup::residential(&net, "").start();
    let (alice, bob) = (net.sip(), net.sip());
    Agent::udp("bob", DOMAIN, bob, sipbox.address).register("secret");
    let limit = Duration::from_secs(u64::from(seconds) + 30);
    let run = |sipbox: &sipbox_tests::Sipbox, calls: u32| {
        let uas = Sipp::new("uas_call", bob)
            .calls(calls, rate)
            .within(limit)
            .start();
        let uac = Sipp::new("uac_call", alice)
            .to(sipbox.address)
            .calls(calls, rate)
            .within(limit)
            .key("domain", DOMAIN)
            .key("target", "bob@lab.test")
            .timed()
            .start();
        let (uac, errors) = uac.outcome();
        (uac, uas.stop(), errors)
    };
    // Timers J and L are 64 T1: 32 s. A call that was left ringing has Timer C: 185 s.
    let idle = |sipbox: &sipbox_tests::Sipbox| {
        let begin = Instant::now();
        while sipbox.statistic("tm:inuse_transactions") > 0 {
            if begin.elapsed() > Duration::from_secs(45) {
                return format!("not back to 0: {}", sipbox.statistics("tm"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        format!("back to 0 after {:.1?}", begin.elapsed())
    };
    // The same load before, so that what a node keeps for it has grown: what grows
    // later is a leak.
    println!("warming up: {rate} calls/s for {seconds} s");
    let (warm, _, _) = run(&sipbox, calls);
    println!(
        "                 {} of {} calls, transactions {}",
        warm.successful,
        calls,
        idle(&sipbox)
    );
    let memory = sipbox.memory();
    let cpu = cpu_milliseconds(sipbox.id());
    println!("{rate} calls/s for {seconds} s");
    let (uac, uas, errors) = run(&sipbox, calls);
    let took = idle(&sipbox);
    let cpu = cpu_milliseconds(sipbox.id()) - cpu;
    let times = &uac.response_times;
    let quantile = |part: usize| {
        times
            .get(times.len() * part / 100)
            .copied()
            .unwrap_or(f64::NAN)
    };
    println!(
        "calls            {} of {calls} went through, {} failed",
        uac.successful, uac.failed
    );
    println!(
        "repeated         {} by the caller, {} by the callee",
        uac.retransmissions, uas.retransmissions
    );
    println!(
        "repeated by us   {}",
        sipbox.statistic("tm:retransmissions")
    );
    println!("unexpected       {} and {}", uac.unexpected, uas.unexpected);
    println!(
        "response times   p50 {} ms, p99 {} ms (SIPp's clock)",
        quantile(50),
        quantile(99)
    );
    println!("transactions     {took}");
    println!(
        "resident memory  {memory} KiB before, {} KiB after",
        sipbox.memory()
    );
    println!(
        "CPU              {:.1} us a call",
        f64::from(cpu) * 1000.0 / f64::from(calls)
    );
    if uac.failed > 0 || uac.retransmissions > 0 {
        println!("{errors}");
        std::process::exit(1);
    }
}

/// CPU time so far, user and system. The unit of /proc is a hundredth of a second.
fn cpu_milliseconds(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind_name = stat.rsplit_once(") ").unwrap().1;
    let field = |at: usize| -> u32 { behind_name.split(' ').nth(at).unwrap().parse().unwrap() };
    (field(11) + field(12)) * 10
}
