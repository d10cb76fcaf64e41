//! The simulator: thousands of calls through a [`crate::stack::Stack`] under
//! simulated time, over a network that loses, doubles, delays and reorders datagrams and
//! breaks connections, with policies
//! that take their time, callers that cancel or vanish, phones that ring for ever, and a
//! shutdown in between. At the end both sides of every call must agree, every
//! transaction be freed and no timer be left.
//!
//! A run depends on its seed alone; a failure prints it. The deliberate faults of
//! [`Mutation`] prove that a run would notice.

mod books;
mod call;
mod network;
mod policies;
mod random;
mod uac;
mod uas;
mod world;

use crate::cx::Mutation;
use world::{Setup, World};

fn run(seed: u64, setup: Setup) -> Result<world::Report, String> {
    let mut world = World::new(seed, setup);
    world.run();
    world.verdict()
}

/// Runs seeds until one fails.
fn check(seeds: std::ops::Range<u64>, setup: Setup) -> world::Report {
    let mut total = world::Report::default();
    for seed in seeds {
        match run(seed, setup) {
            Ok(report) => total.add(&report),
            Err(problem) => panic!("seed {seed} with {setup:?}: {problem}"),
        }
    }
    total
}

const CALLS: usize = 25;

#[test]
fn on_a_perfect_network_every_call_ends_as_it_should() {
    let report = check(
        0..40,
        Setup {
            calls: CALLS,
            ..Setup::default()
        },
    );
    assert_eq!(report.calls, 1000);
    // The runs are worth something only if the interesting things happen.
    assert!(report.established > 150, "{report:?}");
    assert!(report.cancelled > 50, "{report:?}");
    assert!(report.cancelled_deciding > 10, "{report:?}");
    assert!(report.late_verdicts > 10, "{report:?}");
    assert!(report.written > 100 && report.unwritten > 10, "{report:?}");
    assert!(report.failed > 100, "{report:?}");
    assert!(report.answered > 30, "{report:?}");
    assert!(report.hung_up > 0, "{report:?}");
}

#[test]
fn loss_duplication_and_reordering_change_no_outcome() {
    let setup = Setup {
        calls: CALLS,
        loss: 100,
        duplication: 100,
        delay_ms: 300,
        ..Setup::default()
    };
    let report = check(1000..1080, setup);
    assert_eq!(report.calls, 2000);
    assert!(report.lost > 1000 && report.doubled > 1000, "{report:?}");
}

#[test]
fn a_bad_network_does_no_worse_than_time_out() {
    let setup = Setup {
        calls: CALLS,
        loss: 200,
        duplication: 50,
        delay_ms: 900,
        ..Setup::default()
    };
    check(2200..2240, setup);
}

#[test]
fn a_shutdown_ends_every_call_and_leaves_nothing() {
    let setup = Setup {
        calls: CALLS,
        loss: 50,
        shutdown: true,
        ..Setup::default()
    };
    let report = check(3000..3040, setup);
    assert!(report.shut_down > 50, "{report:?}");
}

#[test]
fn policies_that_take_their_time_in_later_hooks_change_no_outcome() {
    let setup = Setup {
        calls: CALLS,
        loss: 50,
        delay_ms: 100,
        hooks: true,
        ..Setup::default()
    };
    let report = check(4000..4080, setup);
    assert!(report.asked > 2000, "{report:?}");
    let setup = Setup {
        shutdown: true,
        ..setup
    };
    check(5000..5020, setup);
}

#[test]
fn calls_over_connections_end_as_those_over_datagrams_do() {
    for (tcp, seeds) in [(1000, 6000..6030), (500, 6100..6160)] {
        let setup = Setup {
            calls: CALLS,
            loss: 100,
            duplication: 100,
            delay_ms: 300,
            tcp,
            ..Setup::default()
        };
        let report = check(seeds, setup);
        assert!(report.streamed > 3000 && report.refused > 20, "{report:?}");
        assert_eq!(report.lost == 0, tcp == 1000, "{report:?}");
    }
}

#[test]
fn connections_that_break_leave_nothing_behind() {
    let setup = Setup {
        calls: CALLS,
        loss: 50,
        delay_ms: 300,
        tcp: 600,
        breaks: 30,
        ..Setup::default()
    };
    let report = check(7000..7060, setup);
    assert!(report.broken > 100, "{report:?}");
    let setup = Setup {
        hooks: true,
        shutdown: true,
        ..setup
    };
    check(7100..7120, setup);
}

/// A dialog and leases for every call: whatever becomes of it (an answer, a failure, a
/// CANCEL, silence, a trap, a lost BYE, a shutdown), nothing is left at the end.
#[test]
fn every_dialog_and_lease_ends_with_its_call() {
    let setup = Setup {
        calls: 100,
        loss: 100,
        duplication: 50,
        delay_ms: 300,
        hooks: true,
        dialogs: true,
        ..Setup::default()
    };
    let mut report = check(20_000..20_700, setup);
    // More loss, and phones that nobody hears ring for ever: no provisional response came
    // through, and without one there is no CANCEL (RFC 3261 9.1).
    let setup = Setup {
        delay_ms: 1000,
        duplication: 300,
        ..setup
    };
    report.add(&check(21_000..21_200, setup));
    let setup = Setup {
        tcp: 500,
        breaks: 30,
        loss: 50,
        ..setup
    };
    report.add(&check(22_000..22_050, setup));
    let setup = Setup {
        shutdown: true,
        ..setup
    };
    report.add(&check(23_000..23_050, setup));
    assert_eq!(report.calls, 100_000);
    assert!(
        report.dialogs > 40_000 && report.trapped > 2_000,
        "{report:?}"
    );
    assert!(
        report.cancelled > 5_000 && report.established > 10_000,
        "{report:?}"
    );
    assert!(report.expired > 100 && report.audits > 1_000, "{report:?}");
}

/// Each deliberate fault must be found within a few runs, and by the check that is
/// about it.
#[test]
fn every_mutant_is_found() {
    for (mutation, needle) in [
        (Mutation::IgnoreAck, "after its ACK"),
        (Mutation::NoTimerC, "left"),
        (Mutation::LoseCancel, "CANCEL"),
        (Mutation::KeepRetransmitting, "after a response"),
        (Mutation::ForgetMatching, "twice"),
        (Mutation::NoTimerH, "left"),
        (Mutation::DropLateSuccess, "no ACK"),
        (Mutation::KeepBranches, "rings"),
        (Mutation::AckOnce, "no ACK"),
        (Mutation::LeakClient, "left"),
        (Mutation::VerdictAfterCancel, "after the CANCEL"),
        (Mutation::LastResponse, "best"),
        (Mutation::KeepVia, "Via"),
        (Mutation::IgnoreOwnAck, "after its ACK"),
        (Mutation::AnswerOnce, "final response"),
        (Mutation::NoBye, "ended by us false"),
        (Mutation::OverlapQuestions, "variables"),
        (Mutation::WriteAnyway, "written"),
    ] {
        let setup = Setup {
            calls: CALLS,
            loss: 100,
            hooks: mutation == Mutation::OverlapQuestions,
            mutation: Some(mutation),
            ..Setup::default()
        };
        let mut found = Vec::new();
        for seed in 0..100 {
            // Every other run has connections among the datagrams.
            let setup = Setup {
                tcp: seed % 2 * 400,
                ..setup
            };
            found.extend(run(seed, setup).err());
            if found.last().is_some_and(|problem| problem.contains(needle)) {
                break;
            }
        }
        assert!(
            found.last().is_some_and(|problem| problem.contains(needle)),
            "{mutation:?} was noticed as {found:#?} only"
        );
    }
}
