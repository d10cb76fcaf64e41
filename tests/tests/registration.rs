//! REGISTER as phones do it, and the location service as callers see it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::time::Duration;

use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Setup, Sipp, Transport};

fn users(count: usize) -> Vec<(String, String)> {
    (0..count)
        .map(|n| (format!("user{n:03}"), "secret".to_owned()))
        .collect()
}

#[test]
fn sipp_registers_users_with_digest() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let net = Loopback::new();
        let mut setup = Setup::residential(&net, "auth = \"register\"");
        for (user, password) in users(20) {
            setup = setup.user(&format!("{user}@lab.test"), &password);
        }
        let sipbox = setup.start();
        let counts = Sipp::new("uac_register", net.sip())
            .to(sipbox.address)
            .over(transport)
            .calls(20, 20)
            .key("domain", DOMAIN)
            .users(users(20))
            .run();
        assert_eq!(counts.retransmissions, 0, "{transport:?}");
        assert_eq!(sipbox.statistic("usrloc:registered_users"), 20);
    }
}

#[test]
fn a_wrong_password_is_challenged_again() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "auth = \"register\"")
        .user("user000@lab.test", "right")
        .start();
    Sipp::new("uac_register_wrong", net.sip())
        .to(sipbox.address)
        .calls(2, 10)
        .key("domain", DOMAIN)
        .users(users(1))
        .run();
    assert_eq!(sipbox.statistic("usrloc:registered_users"), 0);
}

/// Unknown users and wrong passwords must look the same, but for the nonce.
#[test]
fn unknown_users_cannot_be_told_from_wrong_passwords() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "auth = \"register\"")
        .user("known@lab.test", "right")
        .start();
    let mut answers = Vec::new();
    for user in ["known", "nobody"] {
        let mut agent = Agent::udp(user, DOMAIN, net.sip(), sipbox.address);
        let request = agent.request("REGISTER", "sip:lab.test");
        let (_, response) = agent.authenticated(request, "wrong");
        let names: Vec<String> = response
            .headers
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        let challenge = response.get("WWW-Authenticate").to_owned();
        let parts: Vec<String> = challenge
            .split(',')
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.contains("nonce="))
            .collect();
        let nonce = sipbox_tests::digest::Challenge::parse(&challenge)
            .nonce
            .len();
        answers.push((response.status(), names, parts, nonce));
    }
    assert_eq!(answers[0].0, Some(401));
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_domain_that_is_not_served_gets_404() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "").start();
    let mut agent = Agent::udp("alice", "elsewhere.test", net.sip(), sipbox.address);
    let request = agent.request("REGISTER", "sip:elsewhere.test");
    agent.send(&request);
    agent.expect(&request, 404);
}

#[test]
fn bindings_are_listed_refreshed_and_removed() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "auth = \"register\"")
        .user("bob@lab.test", "secret")
        .start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    let response = bob.register("secret");
    assert_eq!(response.values("Contact").len(), 1, "{response}");
    assert!(response.get("Contact").contains(&bob.contact), "{response}");

    // A second device; both are listed.
    let mut other = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    let response = other.register("secret");
    assert_eq!(response.values("Contact").len(), 2, "{response}");

    // One alone is removed by expires=0, all by `*`.
    let mut request = other.request("REGISTER", "sip:lab.test");
    request.set("Contact", format!("<{}>;expires=0", other.contact));
    let (_, response) = other.authenticated(request, "secret");
    assert_eq!(response.status(), Some(200));
    assert_eq!(response.values("Contact").len(), 1, "{response}");
    let mut request = bob.request("REGISTER", "sip:lab.test");
    request.set("Contact", "*");
    request.set("Expires", 0);
    let (_, response) = bob.authenticated(request, "secret");
    assert_eq!(response.status(), Some(200));
    assert!(response.header("Contact").is_none(), "{response}");

    // Nobody is there to be called any more.
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let invite = alice.request("INVITE", "sip:bob@lab.test");
    alice.send(&invite);
    let response = alice.answer_to(&invite, false);
    assert!(matches!(response.status(), Some(404 | 480)), "{response}");
    alice.acknowledge(&invite, &response);
}

#[test]
fn a_binding_expires_by_itself() {
    let net = Loopback::new();
    let sipbox = Setup::residential(
        &net,
        "auth = \"register\", min_expires = 1, default_expires = 60",
    )
    .user("bob@lab.test", "secret")
    .start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    let request = bob.request("REGISTER", "sip:lab.test").with("Expires", 1);
    let (_, response) = bob.authenticated(request, "secret");
    assert_eq!(response.status(), Some(200), "{response}");
    sipbox_tests::process::wait_until("the binding expires", Duration::from_secs(4), || {
        sipbox.statistic("usrloc:registered_users") == 0
    });
}

/// Parallel forking: both devices ring, one answers, the other is cancelled.
#[test]
fn both_devices_ring_and_the_slower_is_cancelled() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "auth = \"register\"")
        .user("bob@lab.test", "secret")
        .start();
    let mut desk = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    let mut mobile = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    desk.register("secret");
    mobile.register("secret");
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let invite = alice.request("INVITE", "sip:bob@lab.test");
    alice.send(&invite);
    let at_desk = desk.expect_request("INVITE");
    let at_mobile = mobile.expect_request("INVITE");
    assert_ne!(at_desk.branch(), at_mobile.branch());
    desk.respond(&at_desk, 180, "Ringing");
    mobile.respond(&at_mobile, 180, "Ringing");
    mobile.respond(&at_mobile, 200, "OK");
    alice.expect(&invite, 200);
    let cancel = desk.expect_request("CANCEL");
    assert_eq!(cancel.branch(), at_desk.branch(), "RFC 3261 section 9.1");
    desk.respond(&cancel, 200, "OK");
    desk.respond(&at_desk, 487, "Request Terminated");
    let ack = desk.expect_request("ACK");
    assert_eq!(ack.branch(), at_desk.branch());
}

/// Who may send: the From of our domain must prove who it is.
#[test]
fn calls_are_authenticated_where_the_domain_says_so() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "auth = \"all\"")
        .user("alice@lab.test", "secret")
        .user("bob@lab.test", "secret")
        .user("mallory@lab.test", "secret")
        .start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    bob.register("secret");

    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let invite = alice.request("INVITE", "sip:bob@lab.test");
    alice.send(&invite);
    let response = alice.expect(&invite, 407);
    alice.acknowledge(&invite, &response);
    let challenge = sipbox_tests::digest::Challenge::parse(response.get("Proxy-Authenticate"));
    let mut again = alice.again(&invite);
    let value = challenge.answer("alice", "secret", "INVITE", "sip:bob@lab.test", 1);
    again.set("Proxy-Authorization", value);
    alice.send(&again);
    let arrived = bob.expect_request("INVITE");
    assert!(
        arrived.header("Proxy-Authorization").is_none(),
        "credentials for our realm go no further:\n{arrived}"
    );
    bob.respond(&arrived, 486, "Busy Here");
    let response = alice.expect(&again, 486);
    alice.acknowledge(&again, &response);

    // Right credentials, but not those of the From.
    let mut mallory = Agent::udp("mallory", DOMAIN, net.sip(), sipbox.address);
    let mut invite = mallory.request("INVITE", "sip:bob@lab.test");
    invite.set("From", "<sip:alice@lab.test>;tag=m");
    let (invite, response) = mallory.authenticated(invite, "secret");
    assert_eq!(response.status(), Some(403), "{response}");
    mallory.acknowledge(&invite, &response);
}

/// Who registers somebody else is not rung: the Contact is (RFC 3261 section 10.3). A phone
/// whose NAT shows in its Via is reached the way it came, whatever its Contact says.
#[test]
fn a_registrar_script_is_not_rung_for_its_phones() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "").start();
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    let mut script = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    script.contact.clone_from(&bob.contact);
    script.register("");
    let request = alice.request("MESSAGE", &bob.aor());
    alice.send(&request);
    let arrived = bob.expect_request("MESSAGE");
    bob.respond(&arrived, 200, "OK");
    alice.expect(&request, 200);

    let mut carol = Agent::udp("carol", DOMAIN, net.sip(), sipbox.address);
    carol.contact = format!("sip:carol@{}", bob.link.local());
    let mut request = carol.request("REGISTER", "sip:lab.test");
    request.set("Via", "SIP/2.0/UDP 10.0.0.7;rport;branch=z9hG4bKbehind");
    carol.send(&request);
    carol.expect(&request, 200);
    let request = alice.request("MESSAGE", &carol.aor());
    alice.send(&request);
    let arrived = carol.expect_request("MESSAGE");
    carol.respond(&arrived, 200, "OK");
    alice.expect(&request, 200);
    assert!(bob.hears_nothing_for(Duration::from_millis(100)));
}
