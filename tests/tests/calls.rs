//! SIPp on both sides: whole calls through the residential policy, over UDP,
//! TCP and mixed, with and without loss.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::time::Duration;

use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Setup, Sipbox, Sipp, Transport};

/// Registers bob at the address where a SIPp callee will be: from that very
/// address, since a binding keeps the flow that registered it.
fn register_bob(sipbox: &Sipbox, callee: SocketAddr) {
    Agent::udp("bob", DOMAIN, callee, sipbox.address).register("secret");
}

/// Runs `calls` calls between two scenarios with the callee registered over UDP.
fn call_over_udp(settings: &str, caller: &str, callee: &str, calls: u32) {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, settings)
        .user("bob@lab.test", "secret")
        .start();
    let (alice, bob) = (net.sip(), net.sip());
    register_bob(&sipbox, bob);
    let uas = Sipp::new(callee, bob).calls(calls, 10).start();
    let uac = Sipp::new(caller, alice)
        .to(sipbox.address)
        .calls(calls, 10)
        .key("domain", DOMAIN)
        .key("target", "bob@lab.test")
        .run();
    let uas = uas.finish();
    assert_eq!(
        (uac.retransmissions, uas.retransmissions),
        (0, 0),
        "nothing is lost on loopback"
    );
    assert_eq!(
        (uac.unexpected, uas.unexpected),
        (0, 0),
        "nothing comes that nobody waits for"
    );
}

#[test]
fn the_caller_hangs_up() {
    call_over_udp("", "uac_call", "uas_call", 20);
}

#[test]
fn the_callee_hangs_up() {
    call_over_udp("", "uac_bye_from_callee", "uas_bye_from_callee", 20);
}

#[test]
fn a_call_is_renegotiated() {
    call_over_udp("", "uac_reinvite", "uas_reinvite", 20);
}

#[test]
fn a_ringing_call_is_cancelled() {
    call_over_udp("", "uac_cancel", "uas_cancel", 20);
}

#[test]
fn a_busy_callee_is_busy() {
    call_over_udp("", "uac_busy", "uas_busy", 20);
}

#[test]
fn options_reach_a_registered_user() {
    call_over_udp("", "uac_options_user", "uas_options", 20);
}

#[test]
fn options_to_the_proxy_are_answered() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "").start();
    for transport in [Transport::Udp, Transport::Tcp] {
        let uac = Sipp::new("uac_options", net.sip())
            .to(sipbox.address)
            .over(transport)
            .calls(20, 20)
            .key("domain", DOMAIN)
            .run();
        assert_eq!(uac.retransmissions, 0, "{transport:?}");
    }
}

/// Timer C: the callee rings on and on (RFC 3261 section 16.8).
#[test]
fn ringing_without_end_is_given_up() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "")
        .with("[timers]\nc = \"2s\"\n")
        .user("bob@lab.test", "secret")
        .start();
    let (alice, bob) = (net.sip(), net.sip());
    register_bob(&sipbox, bob);
    let uas = Sipp::new("uas_cancel", bob).calls(5, 10).start();
    Sipp::new("uac_timeout", alice)
        .to(sipbox.address)
        .calls(5, 10)
        .key("domain", DOMAIN)
        .key("target", "bob@lab.test")
        .run();
    uas.finish();
}

/// Timer B: the callee never says a word (RFC 3261 section 17.1.1.2).
#[test]
fn silence_is_given_up() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "")
        .with("[timers]\nb = \"2s\"\n")
        .user("bob@lab.test", "secret")
        .start();
    let (alice, bob) = (net.sip(), net.sip());
    register_bob(&sipbox, bob);
    let uas = Sipp::new("uas_silent", bob).calls(5, 10).start();
    Sipp::new("uac_timeout", alice)
        .to(sipbox.address)
        .calls(5, 10)
        .key("domain", DOMAIN)
        .key("target", "bob@lab.test")
        .run();
    uas.finish();
}

#[test]
fn a_redirecting_domain_names_the_contact() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "mode = \"redirect\"")
        .user("bob@lab.test", "secret")
        .start();
    register_bob(&sipbox, net.sip());
    let uac = Sipp::new("uac_redirect", net.sip())
        .to(sipbox.address)
        .calls(10, 10)
        .key("domain", DOMAIN)
        .key("target", "bob@lab.test")
        .run();
    assert_eq!(uac.retransmissions, 0);
}

/// Callers and callees on different transports: the callee is called by its
/// address, which an own user may.
fn call_between(caller: Transport, callee: Transport) {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "").start();
    let (alice, bob) = (net.sip(), net.sip());
    let parameter = if callee == Transport::Udp {
        ""
    } else {
        ";transport=tcp"
    };
    for (uac, uas) in [
        ("uac_call", "uas_call"),
        ("uac_bye_from_callee", "uas_bye_from_callee"),
    ] {
        let uas = Sipp::new(uas, bob).over(callee).calls(10, 10).start();
        let uac = Sipp::new(uac, alice)
            .to(sipbox.address)
            .over(caller)
            .calls(10, 10)
            .key("domain", DOMAIN)
            .key("target", format!("bob@{bob}{parameter}"))
            .run();
        let uas = uas.finish();
        assert_eq!((uac.retransmissions, uas.retransmissions), (0, 0));
    }
}

#[test]
fn calls_over_tcp_alone() {
    call_between(Transport::Tcp, Transport::Tcp);
}

#[test]
fn calls_with_a_connection_each() {
    call_between(Transport::TcpEach, Transport::Tcp);
}

#[test]
fn calls_from_udp_to_tcp() {
    call_between(Transport::Udp, Transport::Tcp);
}

#[test]
fn calls_from_tcp_to_udp() {
    call_between(Transport::Tcp, Transport::Udp);
}

/// Every twentieth datagram is lost, on both sides and in both directions.
#[test]
fn every_call_completes_in_spite_of_loss() {
    use sipbox_tests::relay::{LossyRelay, seed};
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "")
        .user("bob@lab.test", "secret")
        .start();
    let (alice, bob) = (net.sip(), net.sip());
    let (near_alice, near_bob) = (net.sip(), net.sip());
    let seed = seed();
    // bob's binding is the relay's address: registered from there, before it runs.
    Agent::udp("bob", DOMAIN, near_bob, sipbox.address).register("secret");
    let to_alice = LossyRelay::start(near_alice, alice, sipbox.address, 5, seed);
    let to_bob = LossyRelay::start(near_bob, bob, sipbox.address, 5, seed ^ 1);
    let limit = Duration::from_secs(38);
    let uas = Sipp::new("uas_lossy", bob)
        .calls(100, 20)
        .within(limit)
        .lossy()
        .key("contact", near_bob)
        .start();
    let uac = Sipp::new("uac_lossy", alice)
        .to(near_alice)
        .calls(100, 20)
        .within(limit)
        .lossy()
        .key("domain", DOMAIN)
        .key("target", "bob@lab.test")
        .run();
    uas.finish();
    let lost = to_alice.counts().1 + to_bob.counts().1;
    assert!(
        lost > 20,
        "the relays lost only {lost} datagrams: nothing is proved"
    );
    assert!(
        uac.retransmissions > 0,
        "the caller repeated nothing: nothing is proved"
    );
}
