//! Calls that a policy answers itself: RFC 3261 13.3.1.4 and RFC 6026.

use super::*;
use crate::policy::Reply;

/// A policy that picks up by itself, and knows what it made.
fn picks_up() -> Ruling {
    Ruling::Reply(Reply {
        status: 200,
        headers: vec![("Contact".into(), "<sip:desk@192.0.2.100:5060>".into())],
        ..Reply::default()
    })
}

fn invite(extra: &str) -> String {
    request(
        "INVITE",
        "1",
        &format!("Contact: <sip:alice@{ALICE}>\r\n{extra}"),
    )
}

/// The ACK of the caller: a request of its own, with a branch of its own.
fn ack_of(ok: &Sent, branch: &str) -> String {
    let to = format!("To: {}\r\n", ok.header("To").unwrap());
    request_to("ACK", "sip:desk@192.0.2.100:5060", branch, &to)
        .replace(&format!("Call-ID: call-{branch}"), "Call-ID: call-1")
}

fn answering() -> Rig {
    Rig::new(|message, _| {
        assert_eq!(message.method(), sipbox_sip::Method::Invite);
        picks_up()
    })
}

#[test]
fn a_2xx_of_a_policy_is_sent_again_until_its_ack_comes_and_the_ack_ends_here() {
    let mut rig = answering();
    rig.receive(&invite(""), udp(ALICE));
    let [ok] = rig.take_n();
    assert_eq!(ok.first_line(), "SIP/2.0 200 OK");
    // T1, doubling up to T2.
    for wait in [500, 1000, 2000, 4000, 4000] {
        rig.pass(wait - 1);
        assert_eq!(rig.take().len(), 0, "{wait}");
        rig.pass(1);
        let [again] = rig.take_n();
        assert_eq!((&again.text, again.to()), (&ok.text, ok.to()));
    }
    // RFC 6026 7.1: the INVITE again is absorbed; 9.2: a CANCEL comes too late.
    rig.receive(&invite(""), udp(ALICE));
    assert_eq!(rig.take().len(), 0);
    rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    let [cancelled] = rig.take_n();
    assert_eq!(cancelled.first_line(), "SIP/2.0 200 OK");
    assert_eq!(cancelled.header("To"), ok.header("To"));
    // An ACK of another dialog or of another request is not its ACK.
    rig.judge = Some(Box::new(|_, _| Ruling::Drop));
    let ack = ack_of(&ok, "2");
    for other in [
        ack.replace("CSeq: 1 ", "CSeq: 2 "),
        ack.replace("Call-ID: call-1", "Call-ID: call-2"),
        ack.replace(";tag=a1", ";tag=a2"),
    ] {
        rig.receive(&other, udp(ALICE));
    }
    rig.pass(4000);
    assert_eq!(rig.take().len(), 1);
    rig.judge = Some(Box::new(|_, _| panic!("the policy gets no ACK")));
    rig.receive(&ack, udp(ALICE));
    rig.pass(5000);
    rig.receive(&ack, udp(ALICE));
    assert_eq!(rig.take().len(), 0);
    let absorbed = Event::Dropped(crate::outbox::Dropped::AbsorbedAck);
    let absorbed = rig.events.iter().filter(|event| **event == absorbed);
    assert_eq!(absorbed.count(), 2);
    rig.finish();
    assert_eq!(rig.take().len(), 0, "no BYE");
}

#[test]
fn a_2xx_goes_down_the_connection_again_too() {
    // 13.3.1.4: a 2xx goes from end to end, whatever the transport of the first hop.
    let mut rig = answering();
    rig.receive(
        &invite("").replace("SIP/2.0/UDP", "SIP/2.0/TCP"),
        tcp(ALICE, 7),
    );
    let [ok] = rig.take_n();
    rig.pass(500);
    let [again] = rig.take_n();
    assert_eq!((again.text, again.hop), (ok.text.clone(), ok.hop));
    rig.receive(
        &ack_of(&ok, "2").replace("SIP/2.0/UDP", "SIP/2.0/TCP"),
        tcp(ALICE, 7),
    );
    rig.finish();
    assert_eq!(rig.take().len(), 0);
}

#[test]
fn without_an_ack_the_session_is_ended_by_a_bye_along_the_recorded_routes() {
    let routes = "Record-Route: <sip:192.0.2.71;lr>, <sip:192.0.2.72;lr>\r\n";
    let strict = "Record-Route: <sip:192.0.2.71>, <sip:192.0.2.72;lr>\r\n";
    for (extra, line, route, to) in [
        ("", format!("BYE sip:alice@{ALICE} SIP/2.0"), vec![], ALICE),
        (
            routes,
            format!("BYE sip:alice@{ALICE} SIP/2.0"),
            vec!["<sip:192.0.2.71;lr>", "<sip:192.0.2.72;lr>"],
            "192.0.2.71:5060",
        ),
        (
            strict,
            "BYE sip:192.0.2.71 SIP/2.0".to_owned(),
            vec!["<sip:192.0.2.72;lr>", "<sip:alice@192.0.2.1:5060>"],
            "192.0.2.71:5060",
        ),
    ] {
        let mut rig = answering();
        rig.receive(&invite(extra), udp(ALICE));
        let [ok] = rig.take_n();
        rig.pass(31_999);
        assert_eq!(rig.take().len(), 10);
        rig.pass(1);
        let [bye] = rig.take_n();
        assert_eq!(bye.first_line(), line);
        assert_eq!(bye.to(), format!("udp/{to}"));
        assert_eq!(bye.header("From"), ok.header("To"));
        assert_eq!(bye.header("To"), ok.header("From"));
        assert_eq!(bye.header("Call-ID"), ok.header("Call-ID"));
        assert_eq!(bye.header("CSeq").as_deref(), Some("1 BYE"));
        assert_eq!(bye.header("Max-Forwards").as_deref(), Some("70"));
        assert_eq!(bye.all("Route"), route);
        let vias = bye.all("Via");
        assert_eq!(vias.len(), 1);
        assert!(vias[0].starts_with("SIP/2.0/UDP 192.0.2.100:5060;branch=z9hG4bK"));
        // It is a client transaction like any other.
        rig.pass(500);
        assert_eq!(rig.take_n::<1>()[0].text, bye.text);
        rig.receive(&response(&bye.text, 200, ""), udp(to));
        rig.pass(10_000);
        assert_eq!(rig.take().len(), 0);
        rig.finish();
    }
}

#[test]
fn a_bye_that_nobody_answers_or_can_be_sent_leaves_nothing() {
    // Nobody answers.
    let mut rig = answering();
    rig.receive(&invite(""), udp(ALICE));
    rig.finish();
    // Nobody to send it to: no Contact.
    let mut rig = answering();
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    rig.finish();
    assert!(
        rig.first_lines()
            .iter()
            .all(|line| line == "SIP/2.0 200 OK")
    );
    // A dialog that others began: its numbers are not known here.
    let mut rig = answering();
    rig.receive(&invite("To: <sip:bob@home.example>;tag=b1\r\n"), udp(ALICE));
    rig.finish();
    assert!(
        rig.first_lines()
            .iter()
            .all(|line| line == "SIP/2.0 200 OK")
    );
    // It cannot be sent.
    let mut rig = answering();
    rig.receive(&invite(""), udp(ALICE));
    rig.pass(32_000);
    let bye = rig.take().pop().unwrap();
    let token = bye.token.unwrap();
    rig.call(|stack, env, out| stack.transport_error(env, token, out));
    rig.finish();
    assert_eq!(rig.take().len(), 0);
}

#[test]
fn the_name_in_a_contact_is_resolved_for_the_bye() {
    use crate::outbox::NextHopCandidate;
    for answer in [true, false] {
        let mut rig = answering();
        let named = invite("").replace(&format!("alice@{ALICE}"), "alice@phones.example");
        rig.receive(&named, udp(ALICE));
        rig.pass(32_000);
        rig.take();
        let [resolve] = <[_; 1]>::try_from(std::mem::take(&mut rig.resolves)).unwrap();
        assert_eq!(resolve.host, "phones.example");
        if answer {
            let candidates = [NextHopCandidate {
                transport: Transport::Udp,
                address: address(CAROL),
            }];
            rig.call(|stack, env, out| {
                stack.resolved(
                    env,
                    resolve.token,
                    Ok(candidates.into_iter().collect()),
                    out,
                );
            });
            let [bye] = rig.take_n();
            assert_eq!(bye.first_line(), "BYE sip:alice@phones.example SIP/2.0");
            assert_eq!(bye.to(), format!("udp/{CAROL}"));
        }
        rig.finish();
    }
}

#[test]
fn a_2xx_in_place_of_a_failure_is_the_local_agents_too() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    rig.armed = Armed {
        failure: true,
        ..Armed::default()
    };
    rig.receive(&invite(""), udp(ALICE));
    let [_, down] = rig.take_n();
    rig.receive(&response(&down.text, 486, ""), udp(BOB));
    rig.take();
    let Some(Ask::Failure { id, request, .. }) = rig.asks.pop() else {
        panic!()
    };
    let decision = rig.decide(request, picks_up());
    assert!(rig.call(|stack, env, out| stack.failure_verdict(env, id, decision, out)));
    let [ok] = rig.take_n();
    assert_eq!(ok.first_line(), "SIP/2.0 200 OK");
    rig.pass(500);
    assert_eq!(rig.take_n::<1>()[0].text, ok.text);
    rig.receive(&ack_of(&ok, "2"), udp(ALICE));
    rig.pass(40_000);
    assert_eq!(rig.take().len(), 0);
    rig.finish();
}

#[test]
fn a_phone_that_picks_up_after_the_policy_answered_is_not_swallowed() {
    // RFC 6026 8.7, for a branch that was given up.
    let mut rig = Rig::new(|_, _| {
        let Ruling::Relay(relay) = parallel(&[BOB]) else {
            unreachable!()
        };
        Ruling::Relay(Relay {
            ring_timeout: 5_000,
            ..relay
        })
    });
    rig.armed = Armed {
        failure: true,
        ..Armed::default()
    };
    rig.receive(&invite(""), udp(ALICE));
    let [_, down] = rig.take_n();
    rig.receive(&response(&down.text, 180, ""), udp(BOB));
    rig.pass(5_000);
    rig.take();
    let Some(Ask::Failure { id, request, .. }) = rig.asks.pop() else {
        panic!()
    };
    for (status, lines) in [(180, vec!["SIP/2.0 180 Ringing"]), (200, vec![])] {
        if status == 200 {
            rig.receive(&response(&down.text, 200, ""), udp(BOB));
            assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
            continue;
        }
        let decision = rig.decide(request.clone(), Ruling::reply(status));
        assert!(rig.call(|stack, env, out| stack.failure_verdict(env, id, decision, out)));
        assert_eq!(rig.first_lines(), lines);
    }
    rig.finish();
    assert_eq!(
        rig.take().len(),
        0,
        "the one final response was the phone's"
    );
}

#[test]
fn an_answer_that_makes_a_dialog_says_where_we_are() {
    let udp_invite = || invite("");
    let tcp_invite = || invite("").replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    let secure = || invite("").replace("INVITE sip:bob", "INVITE sips:bob");
    let subscribe = || {
        request(
            "SUBSCRIBE",
            "1",
            &format!("Contact: <sip:alice@{ALICE}>\r\n"),
        )
    };
    let message = || request("MESSAGE", "1", "");
    for (text, flow, status, contact) in [
        (
            udp_invite(),
            udp(ALICE),
            200,
            Some("<sip:192.0.2.100:5060>"),
        ),
        (
            udp_invite(),
            udp(ALICE),
            183,
            Some("<sip:192.0.2.100:5060>"),
        ),
        (
            tcp_invite(),
            tcp(ALICE, 7),
            200,
            Some("<sip:192.0.2.100:5060;transport=tcp>"),
        ),
        (secure(), udp(ALICE), 200, Some("<sips:192.0.2.100:5060>")),
        (subscribe(), udp(ALICE), 202, Some("<sip:192.0.2.100:5060>")),
        (udp_invite(), udp(ALICE), 486, None),
        (message(), udp(ALICE), 200, None),
    ] {
        for stateless in [false, true] {
            let mut rig = Rig::new(move |_, _| {
                let reply = Reply::of(status);
                if stateless {
                    Ruling::ReplyStateless(reply)
                } else {
                    Ruling::Reply(reply)
                }
            });
            rig.receive(&text, flow);
            let [answer] = rig.take_n();
            assert_eq!(answer.all("Contact"), Vec::from_iter(contact), "{text}");
        }
    }
    // The policy's own word stands, in the short form too.
    for name in ["Contact", "m"] {
        let mut rig = Rig::new(move |_, _| {
            Ruling::Reply(Reply {
                status: 200,
                headers: vec![(name.into(), "<sip:desk@192.0.2.9>".into())],
                ..Reply::default()
            })
        });
        rig.receive(&invite(""), udp(ALICE));
        let [ok] = rig.take_n();
        let contacts = [ok.all("Contact"), ok.all("m")].concat();
        assert_eq!(contacts, ["<sip:desk@192.0.2.9>"]);
    }
}

#[test]
fn the_bye_goes_back_the_way_that_the_caller_came() {
    const SOURCE: &str = "198.51.100.7:40000";
    let behind_nat = || invite("").replace(&format!("alice@{ALICE}"), "alice@10.0.0.5:5060");
    let asked_for = |text: String| text.replace(";branch", ";rport;branch");
    let by_name = || invite("").replace(&format!("UDP {ALICE}"), "UDP pc.example");
    for (text, flow, to) in [
        // A connection, whose other end listens nowhere.
        (
            behind_nat().replace("SIP/2.0/UDP", "SIP/2.0/TCP"),
            tcp(SOURCE, 7),
            format!("tcp/{SOURCE}"),
        ),
        (
            asked_for(behind_nat()),
            udp(SOURCE),
            format!("udp/{SOURCE}"),
        ),
        (by_name(), udp(ALICE), format!("udp/{ALICE}")),
        // It is where it says that it is: its Contact counts (12.2.1.1).
        (
            invite("").replace(&format!("alice@{ALICE}"), &format!("alice@{CAROL}")),
            udp(ALICE),
            format!("udp/{CAROL}"),
        ),
    ] {
        let mut rig = answering();
        rig.receive(&text, flow);
        rig.pass(32_000);
        let bye = rig.take().pop().unwrap();
        assert!(
            bye.first_line().starts_with("BYE sip:alice@"),
            "{}",
            bye.text
        );
        assert_eq!(bye.to(), to);
        if flow.connection.is_some() {
            let via = bye.header("Via").unwrap();
            assert!(via.starts_with("SIP/2.0/TCP 192.0.2.100:5060;branch="));
            assert_eq!(
                bye.hop,
                NextHop::Flow {
                    flow,
                    reconnect: Some(address("198.51.100.7:5060"))
                }
            );
        }
        rig.finish();
    }
    // Between the caller and us stands a proxy, which knows the way to the caller's Contact.
    let via = format!("Via: SIP/2.0/UDP {ALICE}");
    let proxied = behind_nat().replace(
        &via,
        &format!("Via: SIP/2.0/TCP {BOB};branch=z9hG4bKp\r\n{via}"),
    );
    let mut rig = answering();
    rig.receive(&proxied, tcp(BOB, 8));
    rig.pass(32_000);
    assert_eq!(rig.take().pop().unwrap().to(), "udp/10.0.0.5:5060");
}
