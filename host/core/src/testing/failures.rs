//! CANCEL, time-outs, transport errors, shutdown, broken steps.

use super::*;
use crate::stack::Counts;

fn ack_of(sent: &Sent, branch: &str) -> String {
    request(
        "ACK",
        branch,
        &format!("To: {}\r\n", sent.header("To").unwrap()),
    )
}

#[test]
fn a_cancel_reaches_the_ringing_phone_and_487_comes_back() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    rig.receive(&response(&invite.text, 180, ""), udp(BOB));
    rig.take();
    let cancel = request("CANCEL", "1", "");
    rig.receive(&cancel, udp(ALICE));
    let [ok, down] = rig.take_n();
    assert_eq!(ok.first_line(), "SIP/2.0 200 OK");
    assert_eq!(ok.header("CSeq").as_deref(), Some("1 CANCEL"));
    assert_eq!(down.first_line(), "CANCEL sip:bob@192.0.2.2:5060 SIP/2.0");
    assert_eq!(down.all("Via"), [invite.header("Via").unwrap()]);
    // The caller's copy is absorbed, ours is retransmitted until it is answered.
    rig.receive(&cancel, udp(ALICE));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 OK"]);
    rig.pass(600);
    let [again] = rig.take_n();
    assert_eq!(again.text, down.text);
    rig.receive(&response(&down.text, 200, ""), udp(BOB));
    rig.pass(5000);
    assert_eq!(rig.take().len(), 0);
    rig.receive(&response(&invite.text, 487, ""), udp(BOB));
    let [ack, up] = rig.take_n();
    assert_eq!(ack.first_line(), "ACK sip:bob@192.0.2.2:5060 SIP/2.0");
    assert_eq!(up.first_line(), "SIP/2.0 487 X");
    rig.receive(&ack_of(&up, "1"), udp(ALICE));
    rig.finish();
}

#[test]
fn a_cancel_waits_for_a_provisional_response() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 OK"]);
    rig.receive(&response(&invite.text, 100, ""), udp(BOB));
    assert_eq!(rig.first_lines(), ["CANCEL sip:bob@192.0.2.2:5060 SIP/2.0"]);
    // A phone that answers neither: 487 after 64 T1.
    rig.pass(33_000);
    assert_eq!(
        rig.first_lines().last().map(String::as_str),
        Some("SIP/2.0 487 Request Terminated")
    );
    rig.finish();
}

#[test]
fn a_cancel_while_the_policy_thinks_wins_over_the_verdict() {
    let mut rig = Rig::undecided();
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    let [ok, terminated] = rig.take_n();
    assert_eq!(ok.header("CSeq").as_deref(), Some("1 CANCEL"));
    assert_eq!(terminated.first_line(), "SIP/2.0 487 Request Terminated");
    assert_eq!(
        ok.header("To"),
        terminated.header("To"),
        "9.2: the same tag"
    );
    assert!(!rig.answer(parallel(&[BOB])), "the verdict comes too late");
    assert_eq!(rig.take().len(), 0);
    rig.receive(&ack_of(&terminated, "1"), udp(ALICE));
    rig.finish();
}

#[test]
fn a_chain_that_never_answers_ends_with_500_and_its_verdict_counts_no_more() {
    let mut rig = Rig::undecided();
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    rig.receive(&request("MESSAGE", "2", ""), udp(ALICE));
    rig.pass(20_000);
    assert_eq!(rig.first_lines(), ["SIP/2.0 100 Trying"], "the MESSAGE");
    rig.pass(10_010);
    assert_eq!(rig.first_lines(), ["SIP/2.0 500 Server Internal Error"; 2]);
    assert!(!rig.answer(parallel(&[BOB])));
    assert!(!rig.answer(parallel(&[BOB])));
    rig.take();
    rig.finish();
}

#[test]
fn a_shutdown_ends_what_is_being_decided_and_what_rings() {
    let mut rig = Rig::undecided();
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    rig.receive(&request("INVITE", "2", ""), udp(ALICE));
    assert!(rig.answer(parallel(&[BOB])));
    let [_, invite] = rig.take_n();
    rig.receive(&response(&invite.text, 180, ""), udp(BOB));
    rig.take();
    rig.call(Stack::shutdown);
    let mut lines = rig.first_lines();
    lines.sort();
    assert_eq!(
        lines,
        [
            "CANCEL sip:bob@192.0.2.2:5060 SIP/2.0",
            "SIP/2.0 503 Service Unavailable",
            "SIP/2.0 503 Service Unavailable",
        ]
    );
    assert!(
        !rig.answer(parallel(&[BOB])),
        "a verdict after the shutdown"
    );
    rig.receive(&response(&invite.text, 487, ""), udp(BOB));
    assert!(
        rig.first_lines()
            .iter()
            .all(|line| !line.starts_with("SIP/2.0 487"))
    );
    rig.receive(&request("INVITE", "3", ""), udp(ALICE));
    assert_eq!(rig.first_lines(), ["SIP/2.0 503 Service Unavailable"]);
    rig.finish();
}

#[test]
fn a_cancel_that_matches_nothing_gets_481() {
    let mut rig = Rig::new(|_, _| Ruling::reply(404));
    rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    assert_eq!(
        rig.first_lines(),
        ["SIP/2.0 481 Call/Transaction Does Not Exist"]
    );
    rig.finish();
}

#[test]
fn a_cancel_of_another_request_than_an_invite_is_answered_and_changes_nothing() {
    // 9.2: extension methods have transactions too.
    for method in ["MESSAGE", "REGISTER", "FROBNICATE"] {
        let mut rig = Rig::new(|_, _| parallel(&[BOB]));
        rig.receive(&request(method, "1", ""), udp(ALICE));
        let [down] = rig.take_n();
        let cancel = request("CANCEL", "1", "");
        for _copy in 0..2 {
            rig.receive(&cancel, udp(ALICE));
            let [ok] = rig.take_n();
            assert_eq!(ok.first_line(), "SIP/2.0 200 OK", "{method}");
            assert_eq!(ok.header("CSeq").as_deref(), Some("1 CANCEL"));
        }
        rig.receive(&response(&down.text, 202, ""), udp(BOB));
        assert_eq!(rig.first_lines(), ["SIP/2.0 202 X"], "{method}");
        // Answered, it lives on for a while.
        rig.receive(&cancel, udp(ALICE));
        assert_eq!(rig.first_lines(), ["SIP/2.0 200 OK"], "{method}");
        rig.finish();
    }
}

#[test]
fn a_failed_send_counts_as_503_of_its_branch() {
    let mut rig = Rig::new(|_, _| serial(&["192.0.2.2;transport=tcp", CAROL]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    let token = invite.token.unwrap();
    rig.call(|stack, env, out| stack.transport_error(env, token, out));
    let [second] = rig.take_n();
    assert_eq!(second.to(), format!("udp/{CAROL}"));
    rig.call(|stack, env, out| stack.transport_error(env, token, out));
    assert_eq!(
        rig.take().len(),
        0,
        "a late report about a branch that is gone"
    );
    let token = second.token.unwrap();
    rig.call(|stack, env, out| stack.transport_error(env, token, out));
    let [up] = rig.take_n();
    assert_eq!(
        up.first_line(),
        "SIP/2.0 500 Server Internal Error",
        "16.7 step 6"
    );
    rig.finish();
}

#[test]
fn a_large_request_goes_over_tcp_and_over_udp_when_that_fails() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    let padding = format!("Subject: {}\r\n", "x".repeat(1300));
    rig.receive(&request("INVITE", "1", &padding), udp(ALICE));
    let [_, over_tcp] = rig.take_n();
    assert_eq!(over_tcp.to(), format!("tcp/{BOB}"));
    let via = over_tcp.header("Via").unwrap();
    assert!(
        via.starts_with("SIP/2.0/TCP 192.0.2.100:5060;branch="),
        "{via}"
    );
    rig.pass(1900);
    assert_eq!(rig.take().len(), 0, "TCP retransmits by itself");
    let token = over_tcp.token.unwrap();
    rig.call(|stack, env, out| stack.transport_error(env, token, out));
    let [over_udp] = rig.take_n();
    assert_eq!(over_udp.to(), format!("udp/{BOB}"));
    assert_eq!(over_udp.header("Via").unwrap(), via.replace("/TCP", "/UDP"));
    rig.pass(600);
    assert_eq!(rig.first_lines().len(), 1, "now it is retransmitted");
    rig.receive(&response(&over_udp.text, 200, ""), udp(BOB));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    rig.finish();

    // An explicit transport is obeyed, and 0 turns the rule off.
    let mut rig = Rig::new(|_, _| parallel(&["192.0.2.2:5060;transport=udp"]));
    rig.receive(&request("INVITE", "1", &padding), udp(ALICE));
    assert_eq!(rig.take()[1].to(), format!("udp/{BOB}"));
    let mut rig = Rig::with(SettingsSpec { mtu: 0, ..spec() }, |_, _| parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", &padding), udp(ALICE));
    assert_eq!(rig.take()[1].to(), format!("udp/{BOB}"));
}

#[test]
fn timer_c_cancels_a_call_that_rings_for_ever_and_each_ringing_restarts_it() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    rig.receive(&response(&invite.text, 180, ""), udp(BOB));
    rig.pass(180_000);
    rig.receive(&response(&invite.text, 183, ""), udp(BOB));
    rig.take();
    rig.pass(184_900);
    assert_eq!(rig.take().len(), 0);
    // A 100 is no sign of life (16.7 step 2).
    rig.receive(&response(&invite.text, 100, ""), udp(BOB));
    rig.pass(200);
    assert_eq!(rig.first_lines(), ["CANCEL sip:bob@192.0.2.2:5060 SIP/2.0"]);
    rig.receive(&response(&invite.text, 487, ""), udp(BOB));
    // The caller did not cancel: to it the call has timed out.
    assert_eq!(rig.first_lines()[1], "SIP/2.0 408 Request Timeout");
    rig.finish();
}

#[test]
fn a_step_that_panics_ends_its_transaction_and_nothing_else() {
    let mut rig = Rig::undecided();
    for branch in 0..32 {
        rig.receive(&request("INVITE", &branch.to_string(), ""), udp(ALICE));
    }
    let asks = std::mem::take(&mut rig.asks);
    let mut asks = asks.into_iter();
    let Some(Ask::Request {
        id,
        request: broken,
        ..
    }) = asks.next()
    else {
        panic!()
    };
    let decision = rig.decide(broken, parallel(&[BOB]));
    rig = rig.mutate(Mutation::Panic);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        rig.call(|stack, env, out| stack.request_verdict(env, id, decision, out));
    }));
    assert!(caught.is_err());
    rig.stack.mutation = None;
    rig.call(Stack::mend);
    assert_eq!(rig.first_lines(), ["SIP/2.0 500 Server Internal Error"]);
    rig.call(Stack::mend);
    // The other transactions of the shard go on, and it takes new ones.
    let mut relayed = 0;
    for ask in asks {
        let Ask::Request { id, request, .. } = ask else {
            panic!()
        };
        let decision = rig.decide(request, parallel(&[BOB]));
        assert!(rig.call(|stack, env, out| stack.request_verdict(env, id, decision, out)));
        relayed += 1;
    }
    assert_eq!(relayed, 31);
    assert_eq!(
        rig.events
            .iter()
            .filter(|event| **event == Event::Broken)
            .count(),
        1
    );
    assert_eq!(rig.stack.counts().unfinished, 31);
    rig.take();
    rig.judge = Some(Box::new(|_, _| parallel(&[BOB])));
    for branch in 100..132 {
        rig.receive(&request("MESSAGE", &branch.to_string(), ""), udp(ALICE));
    }
    assert_eq!(rig.take().len(), 32);
    rig.finish();
}

#[test]
fn a_timer_that_panics_ends_its_transaction_and_no_other() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    for branch in 0..3 {
        rig.receive(&request("INVITE", &branch.to_string(), ""), udp(ALICE));
        rig.pass(1);
    }
    let invites: Vec<Sent> = rig
        .take()
        .into_iter()
        .filter(|sent| sent.token.is_some())
        .collect();
    rig.receive(&response(&invites[0].text, 180, ""), udp(BOB));
    rig.pass(500);
    rig.receive(&response(&invites[1].text, 180, ""), udp(BOB));
    rig.pass(184_400);
    rig.take();
    // Timer C of the first.
    rig.now = rig.now + Duration::from_millis(200);
    rig = rig.mutate(Mutation::Panic);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for shard in 0..rig.stack.shards() {
            rig.call(|stack, env, out| stack.tick(env, shard, out));
        }
    }));
    assert!(caught.is_err());
    rig.stack.mutation = None;
    rig.call(Stack::mend);
    assert_eq!(
        rig.first_lines(),
        [
            "CANCEL sip:bob@192.0.2.2:5060 SIP/2.0",
            "SIP/2.0 500 Server Internal Error"
        ]
    );
    // A phone that picks up all the same is heard (RFC 6026 8.7), and the other call stands.
    rig.receive(&response(&invites[0].text, 200, ""), udp(BOB));
    rig.receive(&response(&invites[1].text, 200, ""), udp(BOB));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X", "SIP/2.0 200 X"]);
    rig.finish();
}

#[test]
fn a_question_that_nobody_will_answer_is_over_at_once() {
    let mut rig = Rig::undecided();
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let id = rig.asks[0].id().unwrap();
    rig.call(|stack, env, out| stack.undecided(env, id, out));
    assert_eq!(rig.first_lines(), ["SIP/2.0 500 Server Internal Error"]);
    assert!(!rig.answer(parallel(&[BOB])), "too late");
    rig.finish();
    // One that was answered, or is not the one that waits, goes on.
    let mut rig = Rig::undecided();
    rig.armed.branch = true;
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let first = rig.asks[0].id().unwrap();
    assert!(rig.answer(parallel(&[BOB])));
    assert_eq!(rig.first_lines(), ["SIP/2.0 100 Trying"]);
    rig.call(|stack, env, out| stack.undecided(env, first, out));
    assert_eq!(rig.take().len(), 0);
    let second = rig.asks[0].id().unwrap();
    rig.call(|stack, env, out| stack.undecided(env, second, out));
    assert_eq!(rig.first_lines(), ["SIP/2.0 500 Server Internal Error"]);
    rig.finish();
}

#[test]
fn a_stateless_reply_leaves_nothing_and_its_ack_is_absorbed() {
    let mut rig = Rig::new(|_, _| {
        Ruling::ReplyStateless(crate::policy::Reply {
            status: 503,
            ..Default::default()
        })
    });
    let invite = request("INVITE", "1", "");
    rig.receive(&invite, udp(ALICE));
    assert_eq!(rig.stack.counts(), Counts::default());
    rig.receive(&invite, udp(ALICE));
    let [first, second] = rig.take_n();
    assert_eq!(first.text, second.text, "the same tag each time (8.2.7)");
    rig.receive(&ack_of(&first, "1"), udp(ALICE));
    assert_eq!(rig.take().len(), 0);
    assert_eq!(rig.asks.len(), 0);
}

#[test]
fn a_stateless_forward_leaves_nothing_and_its_responses_find_their_way() {
    let mut rig =
        Rig::new(|_, _| Ruling::ForwardStateless(ResolvedTarget::uri(format!("sip:bob@{BOB}"))));
    let message = request("MESSAGE", "1", "");
    rig.receive(&message, udp(ALICE));
    rig.receive(&message, udp(ALICE));
    let [first, second] = rig.take_n();
    assert_eq!(
        first.text, second.text,
        "16.11: the branch is the same for each copy"
    );
    assert_eq!(rig.stack.counts(), Counts::default());
    rig.receive(&response(&first.text, 200, ""), udp(BOB));
    let [ok] = rig.take_n();
    assert_eq!(ok.to(), format!("udp/{ALICE}"));
    assert_eq!(ok.all("Via").len(), 1);
}

#[test]
fn a_dropped_request_is_absorbed_for_a_while() {
    let mut rig = Rig::new(|_, _| Ruling::Drop);
    for method in ["INVITE", "MESSAGE"] {
        rig.receive(&request(method, method, ""), udp(ALICE));
        rig.receive(&request(method, method, ""), udp(ALICE));
    }
    assert_eq!(rig.take().len(), 0);
    assert_eq!(rig.stack.counts().servers, 2);
    rig.finish();
}

/// A binding's target: down its flow.
fn bound(contact: &str, flow: Flow) -> Ruling {
    let target = ResolvedTarget {
        flow: Some(flow),
        ..ResolvedTarget::uri(contact.to_owned())
    };
    Ruling::Relay(Relay {
        groups: vec![vec![target]],
        ..Relay::default()
    })
}

#[test]
fn a_binding_whose_connection_is_gone_makes_its_user_unavailable() {
    let mut rig = Rig::new(|_, _| bound("sip:bob@192.0.2.2;transport=tcp", tcp(BOB, 7)));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    let token = invite.token.unwrap();
    rig.call(|stack, env, out| stack.transport_error(env, token, out));
    let [up] = rig.take_n();
    assert_eq!(up.first_line(), "SIP/2.0 480 Temporarily Unavailable");
    rig.finish();
}

#[test]
fn a_large_request_to_a_datagram_binding_tries_tcp_and_comes_back_to_the_flow() {
    let contact = "sip:bob@10.0.0.2:5060";
    let mut rig = Rig::new(move |_, _| bound(contact, udp(BOB)));
    let padding = format!("Subject: {}\r\n", "x".repeat(1300));
    rig.receive(&request("INVITE", "1", &padding), udp(ALICE));
    let [_, over_tcp] = rig.take_n();
    assert_eq!(over_tcp.to(), format!("tcp/{BOB}"));
    let token = over_tcp.token.unwrap();
    rig.call(|stack, env, out| stack.transport_error(env, token, out));
    let [over_udp] = rig.take_n();
    assert_eq!(over_udp.to(), format!("udp/{BOB}"));
    rig.receive(&response(&over_udp.text, 200, ""), udp(BOB));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    rig.finish();

    // A Contact that asks for UDP gets it.
    let contact = "sip:bob@10.0.0.2:5060;transport=udp";
    let mut rig = Rig::new(move |_, _| bound(contact, udp(BOB)));
    rig.receive(&request("INVITE", "1", &padding), udp(ALICE));
    assert_eq!(rig.take()[1].to(), format!("udp/{BOB}"));
}

#[test]
fn a_refusal_that_forgot_the_other_vias_counts_all_the_same() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    let refusal = response(&invite.text, 486, "");
    let upstream = format!("Via: {}\r\n", invite.all("Via")[1]);
    assert!(refusal.contains(&upstream), "{refusal}");
    rig.receive(&refusal.replace(&upstream, ""), udp(BOB));
    let [_ack, up] = rig.take_n();
    assert_eq!(up.first_line(), "SIP/2.0 486 Busy Here");
    rig.receive(&ack_of(&up, "1"), udp(ALICE));
    rig.finish();
}

#[test]
fn a_folded_top_via_is_answered_and_relayed() {
    // RFC 4475 3.1.1.1, from its own address and from another.
    for source in [ALICE, CAROL] {
        let mut rig = Rig::new(|_, _| parallel(&[BOB]));
        let folded = format!("Via: SIP  / 2.0\r\n /UDP\r\n    {ALICE};branch=z9hG4bK1");
        let invite = request("INVITE", "1", "").replace(
            &format!("Via: SIP/2.0/UDP {ALICE};branch=z9hG4bK1"),
            &folded,
        );
        assert!(invite.contains(&folded), "{invite}");
        rig.receive(&invite, udp(source));
        let [trying, down] = rig.take_n();
        assert_eq!(trying.first_line(), "SIP/2.0 100 Trying");
        assert_eq!(down.first_line(), "INVITE sip:bob@192.0.2.2:5060 SIP/2.0");
        assert!(
            down.text.contains(&folded),
            "what nobody changed stays: {}",
            down.text
        );
        let unfolded = down.text.replace("\r\n ", " ");
        rig.receive(&response(&unfolded, 486, ""), udp(BOB));
        let [_ack, up] = rig.take_n();
        assert_eq!(up.first_line(), "SIP/2.0 486 X");
    }
}
