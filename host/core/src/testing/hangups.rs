//! How calls end that have a dialog: by a BYE and what becomes of it, by silence, by time.

use super::dialogs::{BOBS, CONTACT, from_alice, from_bob, rig};
use super::*;
use crate::dialog::{Change, EndReason};
use crate::quota::Quota;

impl Rig {
    fn byes(&mut self) -> usize {
        let lines = self.first_lines();
        lines.iter().filter(|line| line.starts_with("BYE")).count()
    }
}

/// Whoever sends a BYE is gone, but the call counts until the other side has heard of it:
/// else a BYE that leads nowhere would be a way to more calls than one may have.
#[test]
fn a_bye_that_does_not_reach_the_other_side_is_said_again_by_us() {
    for (bye, status, again) in [
        (from_alice("BYE", 2, ""), 200, false),
        (from_alice("BYE", 2, ""), 481, false),
        (from_alice("BYE", 2, ""), 500, true),
        // An old number, and another place.
        (from_alice("BYE", 1, ""), 200, true),
        (
            from_alice("BYE", 2, "").replace("bob@192.0.2.2", "x@192.0.2.2"),
            200,
            true,
        ),
    ] {
        let mut rig = rig(Wanted::default());
        let (_, route) = rig.establish();
        let told = bye.lines().next().unwrap().to_owned();
        let bye = bye.replace("Route: \r\n", &format!("Route: {route}\r\n"));
        rig.receive(&bye, udp(ALICE));
        assert_eq!(rig.leases(), 1);
        rig.respond_to("BYE", status);
        assert_eq!(rig.leases(), 0, "{told} {status}");
        let ended = Change::Ended(EndReason::DownstreamBye);
        assert_eq!(rig.changes().last(), Some(&ended));
        let ours = if again { 2 } else { 0 };
        assert_eq!(rig.byes(), ours, "{told} {status}");
    }
}

#[test]
fn a_bye_that_is_challenged_ends_nothing_yet() {
    for status in [401, 407] {
        let mut rig = rig(Wanted::default());
        let (_, route) = rig.establish();
        rig.receive(&from_bob("BYE", 7, &route), udp(BOB));
        rig.respond_to("BYE", status);
        assert_eq!((rig.leases(), rig.state()), (1, Some(4)));
        rig.receive(&from_bob("BYE", 8, &route), udp(BOB));
        rig.respond_to("BYE", 200);
        assert_eq!(rig.leases(), 0);
    }
}

/// A second BYE does not speak for the first: one goes to an accomplice, the other nowhere.
#[test]
fn each_bye_is_judged_by_itself() {
    let mut rig = rig(Wanted::default());
    let (_, route) = rig.establish();
    let astray = from_alice("BYE", 2, &route).replace("bob@192.0.2.2", "x@192.0.2.2");
    rig.receive(&astray, udp(ALICE));
    let sent = rig.take();
    let astray = sent
        .iter()
        .find(|sent| sent.text.starts_with("BYE"))
        .unwrap();
    rig.receive(&from_alice("BYE", 3, &route), udp(ALICE));
    rig.take();
    rig.receive(&response(&astray.text, 200, ""), udp(BOB));
    assert_eq!((rig.leases(), rig.byes()), (0, 2), "said again by us");

    // One is challenged, the other one accepted.
    let mut rig = self::rig(Wanted::default());
    let (_, route) = rig.establish();
    rig.receive(&from_bob("BYE", 7, &route), udp(BOB));
    let sent = rig.take();
    let first = sent
        .iter()
        .find(|sent| sent.text.starts_with("BYE"))
        .unwrap();
    rig.receive(&from_bob("BYE", 8, &route), udp(BOB));
    let sent = rig.take();
    let second = sent
        .iter()
        .find(|sent| sent.text.starts_with("BYE"))
        .unwrap();
    rig.receive(&response(&first.text, 401, ""), udp(ALICE));
    assert_eq!(rig.leases(), 1);
    rig.receive(&response(&second.text, 200, ""), udp(ALICE));
    assert_eq!((rig.leases(), rig.byes()), (0, 0));
}

/// Tags and Call-ID of a call that one has had, or has, are no way to others: its INVITEs
/// go to the other side, and end with it.
#[test]
fn an_invite_belongs_to_a_call_that_lives_and_to_its_other_side_only() {
    let known = |rig: &mut Rig, text: &str| {
        let judge = rig.judge.take();
        rig.receive(text, udp(ALICE));
        rig.judge = judge;
        let Some(Ask::Request { facts, .. }) = rig.asks.pop() else {
            panic!("no question");
        };
        rig.take();
        facts.dialog.is_some()
    };
    let mut rig = rig(Wanted::default());
    let (invite, route) = rig.ring();
    rig.receive(&response(&invite.text, 180, BOBS), udp(BOB));
    assert!(
        !known(&mut rig, &from_alice("INVITE", 2, &route)),
        "it rings"
    );
    rig.receive(&response(&invite.text, 200, BOBS), udp(BOB));
    assert!(known(&mut rig, &from_alice("INVITE", 3, &route)));
    let elsewhere = from_alice("INVITE", 4, &route).replace("bob@192.0.2.2", "bob@192.0.2.9");
    assert!(!known(&mut rig, &elsewhere));
    assert!(known(&mut rig, &elsewhere.replace("INVITE", "INFO")));
    rig.receive(&from_bob("BYE", 7, &route), udp(BOB));
    rig.respond_to("BYE", 200);
    assert!(
        !known(&mut rig, &from_alice("INVITE", 5, &route)),
        "it is over"
    );
    assert!(known(&mut rig, &from_alice("INFO", 6, &route)));
}

#[test]
fn a_bye_that_nobody_answers_ends_the_call() {
    let mut rig = rig(Wanted::default());
    let (_, route) = rig.establish();
    rig.receive(&from_bob("BYE", 7, &route), udp(BOB));
    rig.pass(40_000);
    assert_eq!(rig.leases(), 0);
    let ended = Change::Ended(EndReason::UpstreamBye);
    assert_eq!(rig.changes().last(), Some(&ended));
}

#[test]
fn a_side_that_does_not_answer_its_pings_ends_the_call() {
    let wanted = Wanted {
        ping_caller: true,
        ping_callee: true,
        ping_interval: Some(10),
        ..Wanted::default()
    };
    for answer in [200, 481] {
        let mut rig = rig(wanted);
        rig.establish();
        rig.pass(10_000);
        let pings = rig.take();
        let [alice, bob] = pings.as_slice() else {
            panic!("{pings:#?}");
        };
        assert_eq!(alice.first_line(), "OPTIONS sip:alice@192.0.2.1 SIP/2.0");
        assert_eq!(
            bob.header("CSeq").as_deref(),
            Some("1 OPTIONS"),
            "no new number"
        );
        rig.receive(&response(&alice.text, 200, ""), udp(ALICE));
        rig.receive(&response(&bob.text, answer, ""), udp(BOB));
        if answer == 481 {
            assert_eq!(rig.changes().last(), Some(&Change::Ended(EndReason::Ping)));
            assert_eq!(rig.leases(), 0);
            continue;
        }
        assert_eq!(rig.state(), Some(4));
        // Now nobody answers at all.
        rig.pass(45_000);
        let byes = rig
            .first_lines()
            .into_iter()
            .filter(|line| line.starts_with("BYE"));
        assert!(byes.count() >= 2);
        assert_eq!(rig.changes().last(), Some(&Change::Ended(EndReason::Ping)));
    }
}

/// A phone that has too much to do is there, and so may be one to whom nothing could be
/// sent; but not for ever.
#[test]
fn a_503_or_a_full_table_ends_no_call() {
    let wanted = Wanted {
        ping_callee: true,
        ping_interval: Some(10),
        ..Wanted::default()
    };
    let mut rig = rig(wanted);
    rig.establish();
    for _ in 0..5 {
        rig.pass(10_000);
        rig.respond_to("OPTIONS", 503);
        assert_eq!(rig.state(), Some(4));
    }
    for unsent in 1..=3 {
        rig.pass(10_000);
        let sent = rig.take();
        let ping = sent.iter().find(|sent| sent.text.starts_with("OPTIONS"));
        let token = ping.and_then(|ping| ping.token).expect("a ping");
        rig.call(|stack, env, out| stack.transport_error(env, token, out));
        assert_eq!(rig.state() == Some(4), unsent < 3, "{unsent}");
    }
    assert_eq!(rig.changes().last(), Some(&Change::Ended(EndReason::Ping)));
}

/// What a dialog may last is counted from its answer on.
#[test]
fn a_phone_may_ring_for_longer_than_its_call_may_last() {
    let wanted = Wanted {
        timeout: Some(20),
        bye_on_timeout: true,
        ..Wanted::default()
    };
    let mut rig = rig(wanted);
    let (invite, route) = rig.ring();
    rig.receive(&response(&invite.text, 180, BOBS), udp(BOB));
    rig.pass(60_000);
    assert_eq!(rig.state(), Some(2));
    rig.receive(&response(&invite.text, 200, BOBS), udp(BOB));
    rig.receive(&from_alice("ACK", 1, &route), udp(ALICE));
    rig.pass(19_000);
    assert_eq!((rig.state(), rig.byes()), (Some(4), 0));
    rig.pass(2_000);
    assert_eq!(rig.leases(), 0);
}

/// RFC 2543 knew no tags.
#[test]
fn a_callee_without_a_tag_can_hang_up() {
    let mut rig = rig(Wanted::default());
    let (invite, route) = rig.ring();
    let answer = response(&invite.text, 200, BOBS).replace(";tag=b1", "");
    rig.receive(&answer, udp(BOB));
    assert_eq!(rig.state(), Some(3));
    rig.take();
    rig.receive(&from_bob("BYE", 7, &route).replace(";tag=b1", ""), udp(BOB));
    rig.respond_to("BYE", 200);
    assert_eq!(rig.leases(), 0);
}

/// Requests that are only challenged use nothing up of what a tenant may begin, and nor
/// do those of strangers.
#[test]
fn only_calls_that_are_let_in_count_against_the_rate() {
    let mut slow = spec();
    slow.tenants[0].quota = Quota {
        calls_per_second: Some(1),
        ..Quota::default()
    };
    let mut asked = 0;
    let mut rig = Rig::with(slow, move |_, _| {
        asked += 1;
        if asked <= 5 {
            Ruling::reply(407)
        } else {
            parallel(&[BOB])
        }
    });
    let first = |rig: &mut Rig, branch: &str| {
        rig.receive(&request("INVITE", branch, CONTACT), udp(ALICE));
        rig.take().remove(0).first_line().to_owned()
    };
    for branch in ["1", "2", "3", "4", "5"] {
        assert!(first(&mut rig, branch).starts_with("SIP/2.0 407 "));
    }
    assert!(first(&mut rig, "6").starts_with("SIP/2.0 100 "));
    let refused = first(&mut rig, "7");
    assert_eq!(refused, "SIP/2.0 503 Too Many Calls Per Second");
    rig.pass(1_000);
    rig.take();
    assert!(first(&mut rig, "8").starts_with("SIP/2.0 100 "));
}

/// An invented To tag is no way past the number of calls.
#[test]
fn an_invite_of_an_unknown_dialog_counts_as_a_call() {
    let mut small = spec();
    small.tenants[0].quota = Quota {
        calls: Some(1),
        ..Quota::default()
    };
    let mut rig = Rig::with(small, |_, _| parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", CONTACT), udp(ALICE));
    rig.take();
    let invented = request("INVITE", "2", CONTACT)
        .replace("@home.example>\r\nCall", "@home.example>;tag=b9\r\nCall");
    assert!(invented.contains("tag=b9"));
    rig.receive(&invented, udp(ALICE));
    assert_eq!(rig.first_lines(), ["SIP/2.0 486 Too Many Calls"]);
}
