//! Which dialogs the table gets, and when.

use std::sync::Arc;
use std::time::Duration;

use super::dialogs::{from_alice, rig};
use super::*;
use crate::dialog::{RowChange, Wanted};

const SETTLED: Duration = Duration::from_secs(1);

/// What is written now: `+` for a row, `-` for one that goes.
fn written(rig: &Rig, settled: Duration) -> (String, Vec<RowChange>) {
    let changes = rig
        .stack
        .dialogs()
        .take_changes((rig.now, rig.wall()), settled, |_| Arc::from("udp"));
    let sign = |change: &RowChange| match change {
        RowChange::Upsert(_) => '+',
        RowChange::Delete(_) => '-',
    };
    (changes.iter().map(sign).collect(), changes)
}

fn hang_up(rig: &mut Rig, route: &str) {
    rig.receive(&from_alice("BYE", 9, route), udp(ALICE));
    rig.respond_to("BYE", 200);
}

#[test]
fn a_call_has_a_row_once_it_has_lasted_a_while() {
    let mut rig = rig(Wanted::default());
    let (_, route) = rig.establish();
    assert_eq!(written(&rig, SETTLED).0, "", "it has just been answered");
    rig.pass(900);
    assert_eq!(written(&rig, SETTLED).0, "");
    rig.pass(200);
    assert_eq!(written(&rig, SETTLED).0, "+");
    assert_eq!(written(&rig, SETTLED).0, "", "nothing has changed");
    rig.receive(&from_alice("INFO", 2, &route), udp(ALICE));
    assert_eq!(written(&rig, SETTLED).0, "+", "from then on each change");
    rig.respond_to("INFO", 200);
    hang_up(&mut rig, &route);
    assert_eq!(written(&rig, SETTLED).0, "-");
    assert_eq!(written(&rig, SETTLED).0, "");
}

#[test]
fn a_call_that_is_soon_over_is_never_written() {
    let mut rig = rig(Wanted::default());
    let (_, route) = rig.establish();
    rig.pass(200);
    assert_eq!(written(&rig, SETTLED).0, "");
    hang_up(&mut rig, &route);
    for _ in 0..60 {
        assert_eq!(written(&rig, SETTLED).0, "");
        rig.pass(1000);
    }
    assert!(rig.dialog().is_none());
}

#[test]
fn at_the_end_every_call_is_written_and_what_failed_is_written_again() {
    let mut rig = rig(Wanted::default());
    let (_, route) = rig.establish();
    let (signs, changes) = written(&rig, Duration::ZERO);
    assert_eq!(signs, "+");
    rig.stack.dialogs().take_back(changes);
    assert_eq!(written(&rig, SETTLED).0, "+", "the table may have it");
    hang_up(&mut rig, &route);
    let (signs, changes) = written(&rig, SETTLED);
    assert_eq!(signs, "-");
    rig.stack.dialogs().take_back(changes);
    assert_eq!(written(&rig, SETTLED).0, "-");
}
