//! Several targets: parallel, serial, and what comes back (RFC 3261 16.7).

use super::*;

fn fork(addresses: &'static [&'static str]) -> (Rig, Vec<Sent>) {
    let mut rig = Rig::new(move |_, _| parallel(addresses));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let mut sent = rig.take();
    assert_eq!(sent.remove(0).first_line(), "SIP/2.0 100 Trying");
    (rig, sent)
}

#[test]
fn the_first_2xx_cancels_the_others() {
    let (mut rig, branches) = fork(&[BOB, CAROL]);
    assert_eq!(branches.len(), 2);
    for branch in &branches {
        assert_eq!(
            branch.header("Max-Breadth").as_deref(),
            Some("30"),
            "RFC 5393 5.3.3"
        );
    }
    rig.receive(&response(&branches[0].text, 180, ""), udp(BOB));
    rig.receive(&response(&branches[1].text, 180, ""), udp(CAROL));
    assert_eq!(rig.first_lines(), ["SIP/2.0 180 X"; 2]);
    rig.receive(&response(&branches[1].text, 200, ""), udp(CAROL));
    let [ok, cancel] = rig.take_n();
    assert_eq!(ok.first_line(), "SIP/2.0 200 X");
    assert_eq!(cancel.to(), format!("udp/{BOB}"));
    rig.receive(&response(&cancel.text, 200, ""), udp(BOB));
    rig.receive(&response(&branches[0].text, 487, ""), udp(BOB));
    let [ack] = rig.take_n();
    assert!(ack.first_line().starts_with("ACK"));
    rig.finish();
}

#[test]
fn every_2xx_goes_up_even_after_its_cancel() {
    let (mut rig, branches) = fork(&[BOB, CAROL]);
    rig.receive(&response(&branches[0].text, 180, ""), udp(BOB));
    rig.take();
    rig.receive(&response(&branches[1].text, 200, ""), udp(CAROL));
    assert_eq!(rig.take().len(), 2);
    // Bob picked up before the CANCEL arrived.
    rig.receive(&response(&branches[0].text, 200, ""), udp(BOB));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    rig.finish();
}

#[test]
fn a_2xx_goes_up_even_after_a_failure_did() {
    let mut rig = Rig::new(|_, _| relay(vec![targets(&[BOB])], 0, 5_000));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    rig.receive(&response(&invite.text, 180, ""), udp(BOB));
    rig.take();
    rig.pass(5_010);
    let lines = rig.first_lines();
    assert_eq!(
        lines,
        [
            "CANCEL sip:bob@192.0.2.2:5060 SIP/2.0",
            "SIP/2.0 408 Request Timeout"
        ]
    );
    rig.receive(&response(&invite.text, 200, ""), udp(BOB));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    rig.finish();
}

#[test]
fn a_6xx_ends_everything_once_all_branches_have_ended() {
    let mut rig =
        Rig::new(|_, _| relay(vec![targets(&[BOB, CAROL]), targets(&["192.0.2.4"])], 0, 0));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, bob, carol] = rig.take_n();
    rig.receive(&response(&carol.text, 180, ""), udp(CAROL));
    rig.take();
    rig.receive(&response(&bob.text, 603, ""), udp(BOB));
    let [_ack, cancel] = rig.take_n();
    assert_eq!(cancel.to(), format!("udp/{CAROL}"));
    rig.receive(&response(&carol.text, 487, ""), udp(CAROL));
    let [_ack, up] = rig.take_n();
    assert_eq!(up.first_line(), "SIP/2.0 603 X");
    rig.finish();
}

#[test]
fn the_best_response_goes_up_when_all_have_failed() {
    for (first, second, best) in [
        (486, 404, 486),
        (404, 302, 302),
        (503, 480, 480),
        (480, 407, 407),
        (503, 503, 500),
    ] {
        let (mut rig, branches) = fork(&[BOB, CAROL]);
        rig.receive(&response(&branches[0].text, first, ""), udp(BOB));
        assert_eq!(rig.take().len(), 1, "only the ACK");
        rig.receive(&response(&branches[1].text, second, ""), udp(CAROL));
        let [_ack, up] = rig.take_n();
        assert!(
            up.first_line().starts_with(&format!("SIP/2.0 {best} ")),
            "{first} {second}"
        );
        rig.finish();
    }
}

#[test]
fn challenges_of_several_branches_are_merged() {
    let (mut rig, branches) = fork(&[BOB, CAROL]);
    let challenge = |realm: &str| format!("Proxy-Authenticate: Digest realm=\"{realm}\"\r\n");
    rig.receive(&response(&branches[0].text, 407, &challenge("b")), udp(BOB));
    rig.receive(
        &response(&branches[1].text, 407, &challenge("c")),
        udp(CAROL),
    );
    let up = rig.take().pop().unwrap();
    assert_eq!(
        up.all("Proxy-Authenticate"),
        ["Digest realm=\"b\"", "Digest realm=\"c\""]
    );
    rig.finish();
}

#[test]
fn groups_are_tried_one_after_the_other() {
    let mut rig = Rig::new(|_, _| serial(&[BOB, CAROL]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, bob] = rig.take_n();
    assert_eq!(bob.header("Max-Breadth").as_deref(), Some("60"));
    rig.receive(&response(&bob.text, 486, ""), udp(BOB));
    let [_ack, carol] = rig.take_n();
    assert_eq!(carol.first_line(), "INVITE sip:bob@192.0.2.3:5060 SIP/2.0");
    assert_eq!(
        carol.header("Max-Breadth").as_deref(),
        Some("60"),
        "RFC 5393 5.3.3.1: a branch that has ended gave it back"
    );
    assert_ne!(
        carol.header("Via"),
        bob.header("Via"),
        "a branch of its own"
    );
    rig.receive(&response(&carol.text, 404, ""), udp(CAROL));
    assert_eq!(rig.first_lines()[1], "SIP/2.0 486 X");
    rig.finish();
}

#[test]
fn a_group_rings_only_so_long() {
    let mut rig = Rig::new(|_, _| relay(vec![targets(&[BOB]), targets(&[CAROL])], 10_000, 0));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, bob] = rig.take_n();
    rig.receive(&response(&bob.text, 180, ""), udp(BOB));
    rig.pass(9_900);
    rig.take();
    rig.pass(110);
    let [cancel, carol] = rig.take_n();
    assert!(cancel.first_line().starts_with("CANCEL"));
    assert_eq!(carol.to(), format!("udp/{CAROL}"));
    rig.receive(&response(&bob.text, 487, ""), udp(BOB));
    assert_eq!(rig.take().len(), 1, "the ACK; the 487 is nobody's news");
    rig.receive(&response(&carol.text, 200, ""), udp(CAROL));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    rig.finish();
}

#[test]
fn a_cancel_ends_the_groups_that_are_left() {
    let mut rig = Rig::new(|_, _| serial(&[BOB, CAROL]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, bob] = rig.take_n();
    rig.receive(&response(&bob.text, 180, ""), udp(BOB));
    rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    rig.take();
    rig.receive(&response(&bob.text, 487, ""), udp(BOB));
    assert_eq!(rig.first_lines()[1], "SIP/2.0 487 X");
    rig.finish();
}

#[test]
fn more_branches_than_max_breadth_allows_get_440() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB, CAROL, "192.0.2.4"]));
    rig.receive(&request("INVITE", "1", "Max-Breadth: 2\r\n"), udp(ALICE));
    let up = rig.take().pop().unwrap();
    assert_eq!(up.first_line(), "SIP/2.0 440 Max-Breadth Exceeded");
    rig.finish();
    rig.take();
    rig.receive(&request("INVITE", "2", "Max-Breadth: 7\r\n"), udp(ALICE));
    let shares: Vec<_> = rig.take()[1..]
        .iter()
        .map(|sent| sent.header("Max-Breadth").unwrap())
        .collect();
    assert_eq!(shares, ["3", "2", "2"], "nothing is left over");
    rig.finish();
}

#[test]
fn every_request_leaves_with_a_max_breadth_that_we_allow() {
    for (stated, left) in [
        ("", "60"),
        ("Max-Breadth: 5\r\n", "5"),
        ("Max-Breadth: 61\r\n", "60"),
        ("Max-Breadth: 1000\r\n", "60"),
        ("Max-Breadth: many\r\n", "60"),
    ] {
        for method in ["INVITE", "MESSAGE", "ACK"] {
            let mut rig = Rig::new(|_, _| parallel(&[BOB]));
            rig.receive(&request(method, "1", stated), udp(ALICE));
            let down = rig.take().pop().unwrap();
            let (left, fields) = match (method, stated) {
                ("ACK", "") => (None, 0),
                ("ACK", _) => continue,
                _ => (Some(left), 1),
            };
            assert_eq!(down.header("Max-Breadth").as_deref(), left, "{stated}");
            assert_eq!(down.all("Max-Breadth").len(), fields);
        }
        let mut rig = Rig::new(|_, _| {
            Ruling::ForwardStateless(ResolvedTarget::uri(format!("sip:bob@{BOB}")))
        });
        rig.receive(&request("MESSAGE", "1", stated), udp(ALICE));
        let [down] = rig.take_n();
        assert_eq!(down.all("Max-Breadth"), [left], "{stated}");
    }
}

#[test]
fn a_branch_that_was_given_up_holds_its_breadth_until_it_has_ended() {
    // The phone answers its CANCEL, does not, or hangs up on its own.
    for answers in [true, false] {
        let groups = || relay(vec![targets(&[BOB]), targets(&[CAROL])], 10_000, 0);
        let mut rig = Rig::new(move |_, _| groups());
        rig.receive(&request("INVITE", "1", "Max-Breadth: 1\r\n"), udp(ALICE));
        let [_, bob] = rig.take_n();
        rig.receive(&response(&bob.text, 180, ""), udp(BOB));
        rig.pass(10_010);
        let cancel = rig.take().pop().unwrap();
        assert!(cancel.first_line().starts_with("CANCEL"));
        rig.pass(1000);
        let lines = rig.first_lines();
        assert!(
            lines.iter().all(|line| line.starts_with("CANCEL")),
            "{lines:?}"
        );
        if answers {
            rig.receive(&response(&cancel.text, 200, ""), udp(BOB));
            assert_eq!(rig.take().len(), 0, "that is no final response");
            rig.receive(&response(&bob.text, 487, ""), udp(BOB));
        } else {
            rig.pass(31_000);
        }
        let carol = rig.take().pop().unwrap();
        assert_eq!(carol.first_line(), "INVITE sip:bob@192.0.2.3:5060 SIP/2.0");
        assert_eq!(carol.header("Max-Breadth").as_deref(), Some("1"));
        rig.receive(&response(&carol.text, 200, ""), udp(CAROL));
        assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
        rig.finish();
    }
    // With room for both nobody waits, and each has its part.
    let groups = || relay(vec![targets(&[BOB]), targets(&[CAROL])], 10_000, 0);
    let mut rig = Rig::new(move |_, _| groups());
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, bob] = rig.take_n();
    assert_eq!(bob.header("Max-Breadth").as_deref(), Some("30"));
    rig.receive(&response(&bob.text, 180, ""), udp(BOB));
    rig.take();
    rig.pass(10_010);
    let [_cancel, carol] = rig.take_n();
    assert_eq!(carol.header("Max-Breadth").as_deref(), Some("30"));
    rig.finish();
    // Also for whom a policy names when it hears of the failure.
    let mut rig = Rig::new(move |_, _| relay(vec![targets(&[BOB])], 10_000, 0));
    rig.armed.failure = true;
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, bob] = rig.take_n();
    assert_eq!(bob.header("Max-Breadth").as_deref(), Some("30"));
    rig.pass(10_010);
    rig.take();
    let Some(Ask::Failure { id, request, .. }) = rig.asks.pop() else {
        panic!()
    };
    rig.armed = Armed::default();
    let decision = rig.decide(request, parallel(&[CAROL]));
    assert!(rig.call(|stack, env, out| stack.failure_verdict(env, id, decision, out)));
    let [carol] = rig.take_n();
    assert_eq!(carol.header("Max-Breadth").as_deref(), Some("30"));
    rig.finish();
}

#[test]
fn a_cancel_while_a_group_waits_for_breadth_ends_the_call() {
    let groups = || relay(vec![targets(&[BOB]), targets(&[CAROL])], 10_000, 0);
    let mut rig = Rig::new(move |_, _| groups());
    rig.receive(&request("INVITE", "1", "Max-Breadth: 1\r\n"), udp(ALICE));
    let [_, bob] = rig.take_n();
    rig.receive(&response(&bob.text, 180, ""), udp(BOB));
    rig.pass(10_010);
    rig.take();
    rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    assert_eq!(
        rig.first_lines(),
        ["SIP/2.0 200 OK", "SIP/2.0 487 Request Terminated"]
    );
    rig.receive(&response(&bob.text, 487, ""), udp(BOB));
    rig.finish();
}

/// 16.8, 9.1: what becomes of a branch that was given up, whatever its phone says.
#[test]
fn a_branch_that_was_given_up_is_freed_whatever_its_phone_does() {
    let by_ring = || relay(vec![targets(&[BOB])], 10_000, 0);
    let by_total = || relay(vec![targets(&[BOB])], 0, 10_000);
    let by_timer_c = || parallel(&[BOB]);
    for ruling in [by_ring as fn() -> Ruling, by_total, by_timer_c] {
        for (provisional, to_cancel, to_invite) in [
            (false, false, false),
            (true, false, false),
            (true, true, false),
            (true, false, true),
            (true, true, true),
        ] {
            let mut rig = Rig::new(move |_, _| ruling());
            rig.receive(&request("INVITE", "1", ""), udp(ALICE));
            let [_, bob] = rig.take_n();
            if provisional {
                rig.receive(&response(&bob.text, 180, ""), udp(BOB));
            }
            let mut cancel = None;
            for _ in 0..200 {
                rig.pass(1000);
                let sent = rig.take();
                let down = |sent: &Sent| sent.first_line().starts_with("CANCEL");
                if let Some(found) = sent.into_iter().find(down) {
                    cancel = Some(found);
                    break;
                }
            }
            assert_eq!(cancel.is_some(), provisional, "9.1");
            if let Some(cancel) = &cancel {
                if to_cancel {
                    rig.receive(&response(&cancel.text, 200, ""), udp(BOB));
                }
                // It rings on, which is no answer.
                rig.receive(&response(&bob.text, 180, ""), udp(BOB));
                if to_invite {
                    rig.receive(&response(&bob.text, 487, ""), udp(BOB));
                }
            }
            rig.pass(33_000);
            assert_eq!(rig.stack.counts().clients, 0);
            rig.finish();
        }
    }
}
