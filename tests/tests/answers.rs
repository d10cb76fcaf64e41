//! What the proxy sends in its own name: a policy's 2xx to an INVITE, and stateless
//! forwards that are too long for a datagram.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::time::{Duration, Instant};

use sipbox_tests::agent::Dialog;
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Link, Listener, Loopback, Message, Setup, Sipbox, guest};

/// A policy that answers everything with 200; 64 T1 are 6.4 seconds.
fn answering(net: &Loopback) -> Sipbox {
    let tenant = format!(
        "[[tenant]]\nname = \"home\"\ndomains = [\"{DOMAIN}\"]\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {{ behaviour = \"busy\" }}\n",
        guest::hostile().display()
    );
    Setup::new(net)
        .tenants(&tenant)
        .with("[timers]\nt1 = \"100ms\"\n")
        .start()
}

fn answered(alice: &mut Agent) -> (Message, Message) {
    let invite = alice.request("INVITE", "sip:service@lab.test");
    alice.send(&invite);
    let ok = alice.expect(&invite, 200);
    for name in ["To", "Contact", "Call-ID", "CSeq"] {
        assert!(ok.header(name).is_some(), "no {name}:\n{ok}");
    }
    assert!(ok.tag("To").is_some(), "{ok}");
    (invite, ok)
}

/// RFC 3261 section 13.3.1.4: repeated at growing intervals until the ACK comes.
#[test]
fn a_policys_2xx_is_repeated_until_it_is_acknowledged() {
    let net = Loopback::new();
    let sipbox = answering(&net);
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let (invite, ok) = answered(&mut alice);
    let mut times = vec![Instant::now()];
    for _ in 0..3 {
        let again = alice.expect(&invite, 200);
        assert_eq!(again.to_string(), ok.to_string(), "the same each time");
        times.push(Instant::now());
    }
    let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    println!("repeated after {gaps:?}");
    for (gap, least) in gaps.iter().zip([80, 180, 380]) {
        assert!(*gap >= Duration::from_millis(least), "{gaps:?}");
    }
    let mut dialog = Dialog::of_caller(&invite, &ok);
    let ack = dialog.request(&alice, "ACK");
    alice.send(&ack);
    // 64 T1 go by, and no BYE comes.
    assert!(alice.hears_nothing_for(Duration::from_secs(7)));
    // The policy has answered; whoever wants to end this session asks it again.
    let bye = dialog.request(&alice, "BYE");
    alice.send(&bye);
    alice.expect(&bye, 200);
}

/// The same section: without an ACK in 64 T1 the session is ended by a BYE.
#[test]
fn a_policys_2xx_that_nobody_acknowledges_is_taken_back() {
    let net = Loopback::new();
    let sipbox = answering(&net);
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let begun = Instant::now();
    let (invite, ok) = answered(&mut alice);
    let mut repeated = 0;
    let bye = loop {
        let message = alice.receive("a BYE");
        if message.status().is_none() {
            break message;
        }
        assert_eq!(message.branch(), invite.branch(), "{message}");
        repeated += 1;
    };
    let after = begun.elapsed();
    println!("{repeated} copies, BYE after {after:?}");
    assert!(repeated >= 5, "{repeated}");
    assert!(after >= Duration::from_millis(6400), "{after:?}");
    assert_eq!(bye.method(), "BYE");
    assert_eq!(bye.request_uri(), alice.contact);
    assert_eq!(bye.tag("From"), ok.tag("To"));
    assert_eq!(bye.tag("To"), invite.tag("From"));
    assert_eq!(bye.get("Call-ID"), invite.get("Call-ID"));
    alice.respond(&bye, 200, "OK");
    assert!(
        alice.hears_nothing_for(Duration::from_millis(500)),
        "neither is repeated"
    );
}

fn transactions(sipbox: &Sipbox) -> [u64; 2] {
    ["tm:inuse_transactions", "tm:inuse_client_transactions"].map(|name| sipbox.statistic(name))
}

/// Where `MESSAGE` needs no transaction, and `bob` is registered at an address.
fn stateless(net: &Loopback) -> (Sipbox, Agent) {
    let sipbox = Setup::residential(net, "")
        .listener("stateless = [\"MESSAGE\"]\n")
        .start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    bob.register("");
    (sipbox, bob)
}

fn long_message(alice: &Agent) -> Message {
    alice
        .request("MESSAGE", "sip:bob@lab.test")
        .with_body("text/plain", "-".repeat(1400))
}

/// Bob gets it, and his answer goes back.
fn answer(alice: &mut Agent, request: &Message, bob: &mut Agent, via: &str) {
    let arrived = bob.expect_request("MESSAGE");
    assert!(
        arrived.get("Via").starts_with(via),
        "expected {via}:\n{arrived}"
    );
    assert_eq!(arrived.body, request.body);
    bob.respond(&arrived, 200, "OK");
    alice.expect(request, 200);
}

/// RFC 3261 section 18.1.1 holds for stateless forwards too.
#[test]
fn a_long_stateless_forward_goes_over_tcp() {
    let net = Loopback::new();
    let (sipbox, mut bob) = stateless(&net);
    let before = transactions(&sipbox);
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let short = alice.request("MESSAGE", "sip:bob@lab.test");
    alice.send(&short);
    answer(&mut alice, &short, &mut bob, "SIP/2.0/UDP ");

    let listener = Listener::bind(bob.link.local());
    let long = long_message(&alice);
    alice.send(&long);
    let link: Link = listener
        .accept(Duration::from_secs(3))
        .expect("a connection to bob");
    let mut over_tcp = Agent::over("bob", DOMAIN, link);
    answer(&mut alice, &long, &mut over_tcp, "SIP/2.0/TCP ");
    assert!(
        bob.hears_nothing_for(Duration::from_millis(200)),
        "nothing over UDP"
    );
    assert_eq!(transactions(&sipbox), before);
}

#[test]
fn a_long_stateless_forward_falls_back_to_udp_where_tcp_is_refused() {
    let net = Loopback::new();
    let (sipbox, mut bob) = stateless(&net);
    let before = transactions(&sipbox);
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let long = long_message(&alice);
    alice.send(&long);
    answer(&mut alice, &long, &mut bob, "SIP/2.0/UDP ");
    assert_eq!(transactions(&sipbox), before);
}
