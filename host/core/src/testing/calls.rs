//! Ordinary calls, with what the network does to them.

use super::*;

/// INVITE, 180, 200, ACK, BYE, 200 through a proxy that record-routes.
fn relay_to_bob(message: Message<'_>, facts: &Facts) -> Ruling {
    if facts.in_dialog {
        return Ruling::Relay(Relay::default());
    }
    assert_eq!(message.request_uri(), b"sip:bob@home.example");
    Ruling::Relay(Relay {
        groups: vec![targets(&[BOB])],
        record_route: Some(vec![]),
        ..Relay::default()
    })
}

#[test]
fn a_call_goes_through_from_invite_to_bye() {
    let mut rig = Rig::new(relay_to_bob);
    rig.receive(
        &request("INVITE", "1", "Contact: <sip:alice@192.0.2.1>\r\n"),
        udp(ALICE),
    );
    let [trying, invite] = rig.take_n();
    assert_eq!(trying.first_line(), "SIP/2.0 100 Trying");
    assert_eq!(trying.to(), format!("udp/{ALICE}"));
    assert_eq!(invite.first_line(), "INVITE sip:bob@192.0.2.2:5060 SIP/2.0");
    assert_eq!(invite.to(), format!("udp/{BOB}"));
    assert_eq!(invite.header("Max-Forwards").as_deref(), Some("69"));
    let vias = invite.all("Via");
    assert!(
        vias[0].starts_with("SIP/2.0/UDP 192.0.2.100:5060;branch=z9hG4bK"),
        "{vias:?}"
    );
    assert_eq!(vias[1], format!("SIP/2.0/UDP {ALICE};branch=z9hG4bK1"));
    let route = invite.header("Record-Route").unwrap();
    assert!(
        route.starts_with("<sip:192.0.2.100:5060;lr;ftag=a1;sig="),
        "{route}"
    );

    rig.receive(&response(&invite.text, 180, ""), udp(BOB));
    let [ringing] = rig.take_n();
    assert_eq!(ringing.first_line(), "SIP/2.0 180 X");
    assert_eq!(ringing.to(), format!("udp/{ALICE}"));
    assert_eq!(
        ringing.all("Via"),
        [format!("SIP/2.0/UDP {ALICE};branch=z9hG4bK1")]
    );

    let ok = response(&invite.text, 200, "Contact: <sip:bob@192.0.2.2>\r\n");
    rig.receive(&ok, udp(BOB));
    let [answered] = rig.take_n();
    assert_eq!(answered.first_line(), "SIP/2.0 200 X");

    // The ACK for a 2xx is a request of its own, along the route set.
    let dialog = format!("To: <sip:bob@home.example>;tag=b1\r\nRoute: {route}\r\n");
    let ack = request_to("ACK", "sip:bob@192.0.2.2", "2", &dialog);
    rig.receive(&ack, udp(ALICE));
    let [ack] = rig.take_n();
    assert_eq!(ack.first_line(), "ACK sip:bob@192.0.2.2 SIP/2.0");
    assert_eq!(ack.to(), format!("udp/{BOB}"));
    assert_eq!(ack.header("Route"), None);
    assert_eq!(ack.all("Via").len(), 2);

    // BYE from the callee, the other way round.
    let bye = format!(
        "BYE sip:alice@192.0.2.1 SIP/2.0\r\n\
         Via: SIP/2.0/UDP {BOB};branch=z9hG4bKb\r\nMax-Forwards: 70\r\n\
         From: <sip:bob@home.example>;tag=b1\r\nTo: <sip:alice@home.example>;tag=a1\r\n\
         Call-ID: call-1\r\nCSeq: 7 BYE\r\nRoute: {route}\r\nContent-Length: 0\r\n\r\n"
    );
    rig.receive(&bye, udp(BOB));
    let [bye] = rig.take_n();
    assert_eq!(bye.first_line(), "BYE sip:alice@192.0.2.1 SIP/2.0");
    assert_eq!(bye.to(), format!("udp/{ALICE}"));
    rig.receive(&response(&bye.text, 200, ""), udp(ALICE));
    let [done] = rig.take_n();
    assert_eq!(done.first_line(), "SIP/2.0 200 X");
    assert_eq!(done.to(), format!("udp/{BOB}"));
    rig.finish();
}

#[test]
fn retransmissions_are_absorbed_while_the_policy_thinks() {
    let mut rig = Rig::undecided();
    let invite = request("INVITE", "1", "");
    rig.receive(&invite, udp(ALICE));
    assert_eq!(rig.first_lines(), [""; 0]);
    rig.receive(&invite, udp(ALICE));
    rig.receive(&invite, udp(ALICE));
    assert_eq!(rig.asks.len(), 1);
    assert_eq!(rig.first_lines(), ["SIP/2.0 100 Trying"; 2]);
    assert!(rig.answer(parallel(&[BOB])));
    assert_eq!(rig.first_lines(), ["INVITE sip:bob@192.0.2.2:5060 SIP/2.0"]);
    rig.receive(&invite, udp(ALICE));
    assert_eq!(rig.first_lines(), ["SIP/2.0 100 Trying"]);
    assert_eq!(rig.asks.len(), 0);
}

#[test]
fn an_invite_is_retransmitted_until_something_is_heard() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    rig.pass(499);
    assert_eq!(rig.take().len(), 0);
    rig.pass(3100);
    let again = rig.take();
    assert_eq!(again.len(), 3, "at 0.5, 1.5 and 3.5 s");
    assert!(again.iter().all(|sent| sent.text == invite.text));
    rig.receive(&response(&invite.text, 100, ""), udp(BOB));
    rig.pass(20_000);
    assert_eq!(rig.take().len(), 0, "100 stops it, and goes no further");
}

#[test]
fn an_invite_that_nobody_answers_ends_with_408() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    let invite = request("INVITE", "1", "");
    rig.receive(&invite, udp(ALICE));
    rig.take();
    rig.pass(32_100);
    let sent = rig.take();
    let last = sent.last().unwrap();
    assert_eq!(last.first_line(), "SIP/2.0 408 Request Timeout");
    assert!(last.header("To").unwrap().contains(";tag="));
    let to = last.header("To").unwrap();
    rig.receive(&request("ACK", "1", &format!("To: {to}\r\n")), udp(ALICE));
    rig.pass(40_000);
    assert_eq!(rig.take().len(), 0, "the ACK stops Timer G");
    rig.finish();
}

#[test]
fn a_final_response_is_retransmitted_until_the_ack() {
    let mut rig = Rig::new(|_, _| Ruling::reply(486));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [busy] = rig.take_n();
    assert_eq!(busy.first_line(), "SIP/2.0 486 Busy Here");
    rig.pass(600);
    let [again] = rig.take_n();
    assert_eq!(again.text, busy.text);
    let to = busy.header("To").unwrap();
    rig.receive(&request("ACK", "1", &format!("To: {to}\r\n")), udp(ALICE));
    rig.pass(3000);
    assert_eq!(rig.take().len(), 0);
    rig.finish();
    // Without an ACK it ends by Timer H.
    rig.receive(&request("INVITE", "2", ""), udp(ALICE));
    rig.pass(31_900);
    assert_eq!(rig.take().len(), 11);
    rig.finish();
}

#[test]
fn a_request_that_is_no_invite_hears_one_100_and_times_out_silently() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    rig.receive(&request("MESSAGE", "1", ""), udp(ALICE));
    let [message] = rig.take_n();
    assert_eq!(
        message.first_line(),
        "MESSAGE sip:bob@192.0.2.2:5060 SIP/2.0"
    );
    rig.pass(33_000);
    let mut lines = rig.first_lines();
    lines.retain(|line| !line.starts_with("MESSAGE"));
    assert_eq!(lines, ["SIP/2.0 100 Trying"]);
    rig.finish();
    // A 408 that comes goes no further either (RFC 4320).
    rig.receive(&request("MESSAGE", "2", ""), udp(ALICE));
    let [message] = rig.take_n();
    rig.receive(&response(&message.text, 408, ""), udp(BOB));
    assert_eq!(rig.take().len(), 0);
    rig.finish();
}

#[test]
fn a_request_that_is_no_invite_is_told_to_be_patient_late_and_by_100_only() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    let message = request("MESSAGE", "1", "");
    rig.receive(&message, udp(ALICE));
    let [forwarded] = rig.take_n();
    for (at, heard) in [(500, 0), (1000, 0), (1990, 0), (10, 1), (4000, 1)] {
        rig.pass(at);
        let mut lines = rig.first_lines();
        lines.retain(|line| !line.starts_with("MESSAGE"));
        assert_eq!(lines.len(), usize::from(at == 10), "it need not ask again");
        rig.receive(&message, udp(ALICE));
        let lines = rig.first_lines();
        assert_eq!(lines, vec!["SIP/2.0 100 Trying"; heard], "{at} ms later");
    }
    rig.receive(&response(&forwarded.text, 183, ""), udp(BOB));
    assert_eq!(rig.take().len(), 0);
    rig.receive(&response(&forwarded.text, 200, ""), udp(BOB));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    rig.finish();
}

/// RFC 4320 4.1, where nothing is sent again that could ask for it.
#[test]
fn over_a_stream_a_request_is_told_to_be_patient_too() {
    let over_tcp = |method| request(method, "1", "").replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    let relayed = || Rig::new(|_, _| parallel(&["192.0.2.2:5060;transport=tcp"]));
    for (mut rig, sent) in [(relayed(), 1), (Rig::undecided(), 0)] {
        rig.receive(&over_tcp("MESSAGE"), tcp(ALICE, 7));
        assert_eq!(rig.take().len(), sent);
        rig.pass(3_499);
        assert_eq!(rig.take().len(), 0);
        rig.pass(1);
        assert_eq!(rig.first_lines(), ["SIP/2.0 100 Trying"]);
        rig.pass(20_000);
        assert_eq!(rig.take().len(), 0, "once");
        rig.finish();
    }
    // Who has been answered, or will never be, hears nothing of it.
    for ruling in [Ruling::reply(200), Ruling::Drop] {
        let answered = usize::from(ruling != Ruling::Drop);
        let mut rig = Rig::new(move |_, _| ruling.clone());
        rig.receive(&over_tcp("MESSAGE"), tcp(ALICE, 7));
        rig.finish();
        assert_eq!(rig.take().len(), answered);
    }
}

#[test]
fn a_response_to_another_request_is_sent_again_with_the_request() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    let message = request("MESSAGE", "1", "");
    rig.receive(&message, udp(ALICE));
    let [forwarded] = rig.take_n();
    rig.receive(&message, udp(ALICE));
    assert_eq!(rig.take().len(), 0, "Trying has nothing to say");
    rig.receive(&response(&forwarded.text, 200, ""), udp(BOB));
    let [first] = rig.take_n();
    rig.receive(&message, udp(ALICE));
    let [second] = rig.take_n();
    assert_eq!(first.text, second.text);
    rig.finish();
}

#[test]
fn a_failure_is_acknowledged_hop_by_hop() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    rig.receive(
        &request("INVITE", "1", "Route: <sip:192.0.2.100;lr>\r\n"),
        udp(ALICE),
    );
    let [_, invite] = rig.take_n();
    let busy = response(&invite.text, 486, "");
    rig.receive(&busy, udp(BOB));
    let [ack, up] = rig.take_n();
    assert_eq!(ack.first_line(), "ACK sip:bob@192.0.2.2:5060 SIP/2.0");
    assert_eq!(ack.all("Via"), [invite.header("Via").unwrap()]);
    assert_eq!(ack.header("CSeq").as_deref(), Some("1 ACK"));
    assert_eq!(
        ack.header("To").as_deref(),
        Some("<sip:bob@home.example>;tag=b1")
    );
    assert_eq!(up.first_line(), "SIP/2.0 486 X");
    rig.receive(&busy, udp(BOB));
    let [again] = rig.take_n();
    assert_eq!(again.text, ack.text);
    rig.finish();
}

#[test]
fn late_and_forged_responses_are_dropped() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    rig.receive(&request("MESSAGE", "1", ""), udp(ALICE));
    let [message] = rig.take_n();
    let ok = response(&message.text, 200, "");
    let via = message.header("Via").unwrap();
    let branch = via.split("branch=").nth(1).unwrap();
    for wrong in [
        ok.replace("192.0.2.100:5060", "192.0.2.99:5060"),
        ok.replace(branch, "z9hG4bKother"),
        ok.replace(
            &branch[20..],
            &branch[20..].chars().rev().collect::<String>(),
        ),
        ok.replace("CSeq: 1 MESSAGE", "CSeq: 1 CANCEL"),
    ] {
        rig.receive(&wrong, udp(BOB));
        assert_eq!(rig.take().len(), 0, "{wrong}");
    }
    rig.receive(&ok, udp(BOB));
    assert_eq!(rig.take().len(), 1);
    rig.finish();
    rig.receive(&ok, udp(BOB));
    assert_eq!(rig.take().len(), 0);
}

#[test]
fn a_2xx_that_comes_again_goes_up_again() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    let ok = response(&invite.text, 200, "");
    for _ in 0..3 {
        rig.receive(&ok, udp(BOB));
        assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
        rig.pass(1000);
    }
    assert_eq!(rig.take().len(), 0, "only the callee retransmits it");
    rig.finish();
}

#[test]
fn rport_and_received_lead_responses_back() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    let nat = "198.51.100.7:40000";
    let plain = request("MESSAGE", "1", "").replace(ALICE, "10.0.0.5:5070");
    rig.receive(&plain, udp(nat));
    let [message] = rig.take_n();
    assert_eq!(
        message.all("Via")[1],
        "SIP/2.0/UDP 10.0.0.5:5070;branch=z9hG4bK1;received=198.51.100.7"
    );
    rig.receive(&response(&message.text, 200, ""), udp(BOB));
    let [ok] = rig.take_n();
    assert_eq!(ok.to(), "udp/198.51.100.7:5070");
    let rport = plain
        .replace("z9hG4bK1", "z9hG4bK2;rport")
        .replace("call-1", "call-2");
    rig.receive(&rport, udp(nat));
    let [message] = rig.take_n();
    assert!(
        message.all("Via")[1].contains(";rport=40000"),
        "{}",
        message.all("Via")[1]
    );
    rig.receive(&response(&message.text, 200, ""), udp(BOB));
    let [ok] = rig.take_n();
    assert_eq!(ok.to(), "udp/198.51.100.7:40000");
}

#[test]
fn over_tcp_nothing_is_retransmitted_and_responses_go_down_the_connection() {
    let mut rig = Rig::new(|_, _| parallel(&["192.0.2.2:5060;transport=tcp"]));
    let invite = request("INVITE", "1", "").replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    rig.receive(&invite, tcp("192.0.2.1:33333", 7));
    let [trying, invite] = rig.take_n();
    assert_eq!(
        trying.hop,
        NextHop::Flow {
            flow: tcp("192.0.2.1:33333", 7),
            reconnect: Some(address(ALICE))
        }
    );
    assert_eq!(invite.to(), format!("tcp/{BOB}"));
    assert!(
        invite
            .header("Via")
            .unwrap()
            .starts_with("SIP/2.0/TCP 192.0.2.100:5060;branch=")
    );
    rig.pass(20_000);
    assert_eq!(rig.take().len(), 0);
    rig.receive(&response(&invite.text, 486, ""), tcp(BOB, 8));
    assert_eq!(rig.take().len(), 2, "ACK and 486");
    rig.pass(5_000);
    assert_eq!(rig.take().len(), 0);
    rig.finish();
}

#[test]
fn a_call_goes_on_with_the_listeners_that_it_began_with() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    let mut other = spec();
    for listener in &mut other.listeners {
        listener.address = address("192.0.2.101:5060");
    }
    rig.settings = Arc::new(Settings::new(other).unwrap());
    rig.receive(&response(&invite.text, 200, ""), udp(BOB));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    rig.finish();
}
