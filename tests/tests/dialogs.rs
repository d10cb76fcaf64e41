//! Single calls message by message: what the proxy adds, keeps and refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::time::Duration;

use sipbox_tests::agent::Dialog;
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Message, Setup, Sipbox};

struct Call {
    sipbox: Sipbox,
    alice: Agent,
    bob: Agent,
}

/// alice and bob behind a proxy; bob is registered.
fn two_users(settings: &str) -> Call {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, settings)
        .user("bob@lab.test", "secret")
        .start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    bob.register("secret");
    let alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    Call { sipbox, alice, bob }
}

#[test]
fn a_call_is_recorded_and_its_requests_follow_the_route_set() {
    let Call {
        sipbox,
        mut alice,
        mut bob,
    } = two_users("");
    let proxy = sipbox.address.ip().to_string();
    let invite = alice.request("INVITE", "sip:bob@lab.test");
    alice.send(&invite);
    let trying = alice.receive("a 100");
    assert_eq!(trying.status(), Some(100), "{trying}");

    let arrived = bob.expect_request("INVITE");
    assert_eq!(
        arrived.request_uri(),
        bob.contact,
        "the Contact that bob registered"
    );
    let vias = arrived.values("Via");
    assert_eq!(vias.len(), 2, "{arrived}");
    assert!(
        vias[0].contains(&proxy) && vias[0].contains("branch=z9hG4bK"),
        "{arrived}"
    );
    assert!(vias[1].starts_with(invite.get("Via")), "{arrived}");
    assert_eq!(arrived.get("Max-Forwards"), "69");
    let recorded = arrived.values("Record-Route");
    assert_eq!(recorded.len(), 1, "{arrived}");
    assert!(
        recorded[0].contains(&proxy) && recorded[0].contains(";lr"),
        "{arrived}"
    );
    for name in ["From", "To", "Call-ID", "CSeq", "Contact"] {
        assert_eq!(
            arrived.header(name),
            invite.header(name),
            "{name} is not the proxy's"
        );
    }

    bob.respond(&arrived, 180, "Ringing");
    let ringing = alice.expect(&invite, 180);
    assert_eq!(
        ringing.values("Via").len(),
        1,
        "our Via is gone:\n{ringing}"
    );
    let answer = bob.respond(&arrived, 200, "OK");
    let ok = alice.expect(&invite, 200);
    assert_eq!(ok.values("Record-Route"), recorded, "{ok}");

    let mut at_alice = Dialog::of_caller(&invite, &ok);
    let mut at_bob = Dialog::of_callee(&arrived, &answer);
    let ack = at_alice.request(&alice, "ACK");
    alice.send(&ack);
    let arrived = bob.expect_request("ACK");
    assert!(
        arrived.header("Route").is_none(),
        "our Route is consumed:\n{arrived}"
    );
    assert_eq!(arrived.request_uri(), bob.contact);

    let bye = at_bob.request(&bob, "BYE");
    bob.send(&bye);
    let arrived = alice.expect_request("BYE");
    assert!(
        arrived.header("Route").is_none(),
        "our Route is consumed:\n{arrived}"
    );
    assert_eq!(arrived.request_uri(), alice.contact);
    assert_eq!(arrived.values("Via").len(), 2);
    alice.respond(&arrived, 200, "OK");
    bob.expect(&bye, 200);
}

/// RFC 3581: `rport` in a Via asks for the port that the request came from.
#[test]
fn responses_go_to_the_source_port_that_rport_asks_for() {
    let Call {
        sipbox,
        mut alice,
        bob: _bob,
    } = two_users("");
    let local = alice.link.local();
    let mut request = alice.request("OPTIONS", &format!("sip:{}", sipbox.address));
    // The sent-by is a lie; only the source is right.
    request.set("Via", "SIP/2.0/UDP 192.0.2.1:7777;rport;branch=z9hG4bKlie");
    alice.send(&request);
    let response = alice.expect(&request, 200);
    let via = response.get("Via");
    assert!(via.contains(&format!("rport={}", local.port())), "{via}");
    assert!(via.contains(&format!("received={}", local.ip())), "{via}");
}

#[test]
fn a_retransmission_is_absorbed() {
    let Call {
        mut alice,
        mut bob,
        sipbox: _sipbox,
    } = two_users("");
    let invite = alice.request("INVITE", "sip:bob@lab.test");
    for _ in 0..3 {
        alice.send(&invite);
    }
    let arrived = bob.expect_request("INVITE");
    bob.respond(&arrived, 486, "Busy Here");
    let response = alice.expect(&invite, 486);
    bob.expect_request("ACK");
    // The last response comes again for another copy, and bob hears nothing of it.
    alice.send(&invite);
    let again = alice.expect(&invite, 486);
    assert_eq!(again.tag("To"), response.tag("To"));
    alice.acknowledge(&invite, &response);
    assert!(bob.hears_nothing_for(Duration::from_millis(200)));
}

/// RFC 3261 section 16.3.
#[test]
fn requests_that_cannot_go_on_are_refused() {
    let Call {
        mut alice,
        mut bob,
        sipbox: _sipbox,
    } = two_users("");
    let base = alice.request("OPTIONS", "sip:bob@lab.test");
    let mut hops = alice.again(&base);
    hops.set("Max-Forwards", 0);
    let mut require = alice.again(&base);
    require.set("Proxy-Require", "teleport");
    let mut scheme = alice.again(&base);
    scheme.start = "OPTIONS smtp:bob@lab.test SIP/2.0".to_owned();
    let mut no_user = alice.again(&base);
    no_user.start = "INVITE sip:lab.test SIP/2.0".to_owned();
    no_user.set("CSeq", "7 INVITE");
    let mut version = alice.again(&base);
    version.start = "OPTIONS sip:bob@lab.test SIP/3.0".to_owned();
    for (request, status) in [
        (hops, 483),
        (require, 420),
        (scheme, 416),
        (no_user, 484),
        (version, 505),
    ] {
        alice.send(&request);
        let response = alice.expect(&request, status);
        if status == 420 {
            assert_eq!(response.get("Unsupported"), "teleport");
        }
        if request.method() == "INVITE" {
            alice.acknowledge(&request, &response);
        }
    }
    assert!(
        bob.hears_nothing_for(Duration::from_millis(100)),
        "none of them went on"
    );
}

/// RFC 5393: the same request again through the same proxy is a loop.
#[test]
fn a_loop_is_detected() {
    let Call {
        sipbox,
        mut alice,
        mut bob,
    } = two_users("");
    // bob's phone forwards everything back to bob's address of record.
    let invite = alice.request("INVITE", "sip:bob@lab.test");
    alice.send(&invite);
    let arrived = bob.expect_request("INVITE");
    let mut looped = arrived.clone();
    looped.start = "INVITE sip:bob@lab.test SIP/2.0".to_owned();
    looped.headers.insert(0, ("Via".to_owned(), bob.via()));
    bob.link.send(&looped.bytes());
    let response = bob.answer_to(&looped, false);
    assert_eq!(
        response.status(),
        Some(482),
        "{response}\n{}",
        sipbox.address
    );
    bob.acknowledge(&looped, &response);
    bob.respond(&arrived, 482, "Loop Detected");
    let response = alice.answer_to(&invite, false);
    alice.acknowledge(&invite, &response);
}

/// A Route that names only us is an outbound proxy's; one that names others is
/// a way to use us as a springboard.
#[test]
fn a_route_to_us_is_consumed_and_one_to_others_refused() {
    let Call {
        sipbox,
        mut alice,
        mut bob,
    } = two_users("");
    let ours = format!("<sip:{};lr>", sipbox.address);
    let request = alice
        .request("OPTIONS", "sip:bob@lab.test")
        .with("Route", &ours);
    alice.send(&request);
    let arrived = bob.expect_request("OPTIONS");
    assert!(arrived.header("Route").is_none(), "{arrived}");
    bob.respond(&arrived, 200, "OK");
    alice.expect(&request, 200);

    let request = alice
        .request("OPTIONS", "sip:bob@lab.test")
        .with("Route", &ours)
        .with("Route", format!("<sip:{};lr>", bob.link.local()));
    alice.send(&request);
    alice.expect(&request, 403);
    assert!(bob.hears_nothing_for(Duration::from_millis(100)));
}

#[test]
fn a_stranger_may_call_us_but_not_through_us() {
    let Call {
        sipbox,
        bob,
        alice: _alice,
    } = two_users("");
    let net = Loopback::new();
    let mut stranger = Agent::udp("eve", "elsewhere.test", net.sip(), sipbox.address);
    let request = stranger.request("OPTIONS", &format!("sip:victim@{}", bob.link.local()));
    stranger.send(&request);
    stranger.expect(&request, 403);
}

/// ACK is never answered (RFC 3261 section 17), nor is a response that nobody asked for.
#[test]
fn stray_messages_are_met_with_silence() {
    let Call {
        sipbox,
        mut alice,
        mut bob,
    } = two_users("");
    let mut ack = alice.request("ACK", "sip:bob@lab.test");
    ack.set("To", "<sip:bob@lab.test>;tag=none");
    alice.send(&ack);
    let stray = Message::response(&alice.request("INVITE", "sip:bob@lab.test"), 200, "OK", "t");
    let mut ours = stray.clone();
    let via = format!("SIP/2.0/UDP {};branch=z9hG4bKnever", sipbox.address);
    ours.headers.insert(0, ("Via".to_owned(), via));
    alice.send(&stray);
    alice.send(&ours);
    assert!(alice.hears_nothing_for(Duration::from_millis(300)));
    assert!(bob.hears_nothing_for(Duration::from_millis(50)));
    // It still lives.
    let request = alice.request("OPTIONS", &format!("sip:{}", sipbox.address));
    alice.send(&request);
    alice.expect(&request, 200);
}

/// RFC 3261 section 16.10: a CANCEL that matches nothing goes where its INVITE would
/// have gone, unchallenged; section 9.2 where it would have gone nowhere.
#[test]
fn a_cancel_of_nothing_goes_on_or_is_told_so() {
    let Call {
        sipbox: _sipbox,
        mut alice,
        mut bob,
    } = two_users("auth = \"all\"");
    for user in ["nobody", "bob"] {
        let invite = alice.request("INVITE", &format!("sip:{user}@lab.test"));
        let cancel = alice.cancel(&invite);
        alice.send(&cancel);
        if user == "bob" {
            let arrived = bob.expect_request("CANCEL");
            assert_eq!(arrived.values("Via").len(), 2, "{arrived}");
            bob.respond(&arrived, 481, "Call/Transaction Does Not Exist");
        }
        alice.expect(&cancel, 481);
    }
}

/// Section 18.3: over UDP a longer body is cut, a shorter one is an error.
#[test]
fn bodies_are_held_against_their_length() {
    let Call {
        mut alice,
        mut bob,
        sipbox: _sipbox,
    } = two_users("");
    let mut long = alice
        .request("MESSAGE", "sip:bob@lab.test")
        .with_body("text/plain", "hello");
    long.set("Content-Length", 4);
    alice.send(&long);
    let arrived = bob.expect_request("MESSAGE");
    assert_eq!(arrived.body, b"hell");
    bob.respond(&arrived, 200, "OK");
    alice.expect(&long, 200);

    let mut short = alice
        .request("MESSAGE", "sip:bob@lab.test")
        .with_body("text/plain", "hello");
    short.set("Content-Length", 6);
    alice.send(&short);
    alice.expect(&short, 400);
    assert!(bob.hears_nothing_for(Duration::from_millis(100)));
}
