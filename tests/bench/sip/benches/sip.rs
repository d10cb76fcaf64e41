//! Index and edited serialisation of a 1 kB INVITE beside rsipstack's parser and
//! `to_bytes`. The two sides alternate within one run, in CPU time of the thread,
//! and the medians' ratio is what counts: at most a quarter, or the bench fails.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use criterion::Criterion;
use nix::time::{ClockId, clock_gettime};
use rsipstack::sip::SipMessage;
use sipbox_bench_sip::{INVITE, forward, index};
use sipbox_sip::{EditList, HeaderId, Index, Message};

const BAR: f64 = 0.25;
const ROUNDS: usize = 2001;
const CALLS: u32 = 50;

fn main() -> ExitCode {
    let mut own_index = Index::new();
    let message = Message::parse(INVITE, &mut own_index).expect("the sample is a message");
    let theirs = SipMessage::try_from(INVITE).expect("rsipstack reads the sample");
    let (mut scratch, mut edits, mut out) = (Index::new(), EditList::new(), Vec::new());

    // Both sides must have done the whole work.
    forward(message, &mut edits, &mut out).expect("edits apply");
    let sent = Message::parse(&out, &mut scratch).expect("what is sent is a message");
    assert_eq!(sent.headers().len(), message.headers().len() + 2);
    assert_eq!(sent.header(HeaderId::MaxForwards), Some(&b"69"[..]));
    assert!(theirs.to_bytes().len() >= INVITE.len() - 64);

    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("index/sipbox", |b| {
        b.iter(|| index(&mut scratch, black_box(INVITE)))
    });
    criterion.bench_function("index/rsipstack", |b| {
        b.iter(|| SipMessage::try_from(black_box(INVITE)));
    });
    criterion.bench_function("serialise/sipbox", |b| {
        b.iter(|| forward(black_box(message), &mut edits, &mut out));
    });
    criterion.bench_function("serialise/rsipstack", |b| {
        b.iter(|| black_box(&theirs).to_bytes())
    });

    let parse = ratio(
        "index",
        || {
            let _ = black_box(index(&mut scratch, black_box(INVITE)));
        },
        || drop(black_box(SipMessage::try_from(black_box(INVITE)))),
    );
    let serialise = ratio(
        "serialise with proxy edits",
        || {
            let _ = black_box(forward(black_box(message), &mut edits, &mut out));
        },
        || drop(black_box(black_box(&theirs).to_bytes())),
    );
    if parse <= BAR && serialise <= BAR {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Medians of alternating rounds, so that what else the machine does hits both.
fn ratio(name: &str, mut ours: impl FnMut(), mut theirs: impl FnMut()) -> f64 {
    let (mut own, mut peer) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        own.push(timed(&mut ours));
        peer.push(timed(&mut theirs));
    }
    let (own, peer) = (median(own), median(peer));
    let ratio = own / peer;
    println!("{name}: {own:.0} ns, rsipstack {peer:.0} ns, ratio {ratio:.3} (bar {BAR})");
    ratio
}

fn timed(call: &mut impl FnMut()) -> Duration {
    let start = cpu_time();
    (0..CALLS).for_each(|_| call());
    cpu_time().saturating_sub(start)
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("the clock is there")
        .into()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    middle.as_secs_f64() * 1e9 / f64::from(CALLS)
}
