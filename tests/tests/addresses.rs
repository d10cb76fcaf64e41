//! What addresses messages name, and which they travel by: IPv6, advertised addresses,
//! listeners on every address.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use serde_json::json;
use sipbox_tests::agent::Dialog;
use sipbox_tests::message::{parameter, uri};
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Message, Setup};

/// A port of the IPv6 loopback address, of which there is but one.
fn ipv6() -> SocketAddr {
    free(IpAddr::V6(Ipv6Addr::LOCALHOST))
}

/// A port that is free over UDP and TCP.
fn free(ip: IpAddr) -> SocketAddr {
    loop {
        let udp = UdpSocket::bind((ip, 0)).unwrap();
        let address = udp.local_addr().unwrap();
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// A call from `alice` to `bob`, ended by him: INVITE as it arrives, and the 200.
fn call(alice: &mut Agent, bob: &mut Agent) -> (Message, Message) {
    let invite = alice.request("INVITE", &bob.aor());
    alice.send(&invite);
    let arrived = bob.expect_request("INVITE");
    let answer = bob.respond(&arrived, 200, "OK");
    let ok = alice.expect(&invite, 200);
    let mut at_alice = Dialog::of_caller(&invite, &ok);
    let mut at_bob = Dialog::of_callee(&arrived, &answer);
    let ack = at_alice.request(alice, "ACK");
    alice.send(&ack);
    let acknowledged = bob.expect_request("ACK");
    assert_eq!(acknowledged.values("Route"), [""; 0], "{acknowledged}");
    let bye = at_bob.request(bob, "BYE");
    bob.send(&bye);
    let over = alice.expect_request("BYE");
    assert_eq!(over.values("Route"), [""; 0], "{over}");
    assert_eq!(over.request_uri(), alice.contact);
    alice.respond(&over, 200, "OK");
    bob.expect(&bye, 200);
    (arrived, ok)
}

/// Registration with digest and calls, each way between UDP and TCP: literals stand in
/// brackets where RFC 3261 section 25.1 wants a host, and without them in `received`.
#[test]
fn calls_over_ipv6() {
    let sipbox = Setup::at(ipv6())
        .tenant("home", DOMAIN, "auth = \"register\"")
        .user("alice@lab.test", "wonder")
        .user("bob@lab.test", "secret")
        .start();
    let literal = format!("[::1]:{}", sipbox.address.port());
    let mut alice = Agent::tcp("alice", DOMAIN, sipbox.address.ip(), sipbox.address);
    let mut bob = Agent::udp("bob", DOMAIN, ipv6(), sipbox.address);
    for (agent, password) in [(&mut alice, "wonder"), (&mut bob, "secret")] {
        let response = agent.register(password);
        let contacts = response.values("Contact");
        assert_eq!(contacts.len(), 1, "{response}");
        assert_eq!(uri(&contacts[0]), agent.contact);
    }
    assert_eq!(sipbox.statistic("usrloc:registered_users"), 2);

    let (arrived, ok) = call(&mut alice, &mut bob);
    let vias = arrived.values("Via");
    assert!(
        vias[0].starts_with(&format!("SIP/2.0/UDP {literal};branch=")),
        "{arrived}"
    );
    let routes = arrived.values("Record-Route");
    assert!(!routes.is_empty(), "{arrived}");
    for route in &routes {
        assert!(route.starts_with(&format!("<sip:{literal}")), "{arrived}");
    }
    assert_eq!(ok.values("Record-Route"), routes);

    let (arrived, _) = call(&mut bob, &mut alice);
    assert!(
        arrived.values("Via")[0].starts_with(&format!("SIP/2.0/TCP {literal};branch=")),
        "{arrived}"
    );

    // RFC 3261 section 18.2.1, RFC 3581.
    let mut request = bob.request("OPTIONS", &format!("sip:{literal}"));
    request.set(
        "Via",
        "SIP/2.0/UDP [2001:db8::9]:7;rport;branch=z9hG4bKelsewhere",
    );
    bob.send(&request);
    let response = bob.answer_to(&request, false);
    let via = response.get("Via");
    assert!(via.starts_with("SIP/2.0/UDP [2001:db8::9]:7;"), "{via}");
    assert_eq!(parameter(via, "received").as_deref(), Some("::1"), "{via}");
    let port = bob.link.local().port().to_string();
    assert_eq!(parameter(via, "rport"), Some(port), "{via}");
}

/// What a listener advertises stands in Via and Record-Route, and a Route that names it
/// is ours.
#[test]
fn an_advertised_address_names_us() {
    let net = Loopback::new();
    let name = "edge.lab.test:5070";
    let sipbox = Setup::residential(&net, "")
        .listener(&format!("advertised = \"{name}\"\n"))
        .start();
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    bob.register("");
    let (arrived, ok) = call(&mut alice, &mut bob);
    assert!(
        arrived.values("Via")[0].starts_with(&format!("SIP/2.0/UDP {name};branch=")),
        "{arrived}"
    );
    let routes = arrived.values("Record-Route");
    assert_eq!(routes.len(), 1, "{arrived}");
    assert!(routes[0].starts_with(&format!("<sip:{name};")), "{arrived}");
    assert_eq!(ok.values("Record-Route"), routes);
    for message in [&arrived, &ok] {
        let ip = sipbox.address.ip().to_string();
        assert!(!message.to_string().contains(&ip), "{message}");
    }

    // As an outbound proxy.
    let request = alice
        .request("MESSAGE", "sip:bob@lab.test")
        .with("Route", format!("<sip:{name};lr>"));
    alice.send(&request);
    let arrived = bob.expect_request("MESSAGE");
    assert_eq!(arrived.values("Route"), [""; 0], "{arrived}");
    bob.respond(&arrived, 200, "OK");
    alice.expect(&request, 200);
    // The same name with another port is somebody else.
    let request = alice
        .request("MESSAGE", "sip:bob@lab.test")
        .with("Route", "<sip:edge.lab.test:5071;lr>");
    alice.send(&request);
    alice.expect(&request, 403);
    assert!(bob.hears_nothing_for(Duration::from_millis(100)));
}

/// A listener on every address: who wrote to one of them hears from that one, and all
/// hear of the advertised one.
#[test]
fn a_listener_on_every_address_answers_from_the_one_that_was_asked() {
    let net = Loopback::new();
    let everywhere = free(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let mut sipbox = Setup::at(everywhere)
        .tenant("home", DOMAIN, "")
        .listener("advertised = \"edge.lab.test\"\n")
        .start();
    let port = everywhere.port();
    let asked = [net.ip(), net.ip()].map(|ip| SocketAddr::new(ip, port));
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), asked[0]);
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), asked[1]);
    bob.register("");
    assert_eq!(bob.link.heard_from(), asked[1]);
    let (arrived, _) = call(&mut alice, &mut bob);
    let via = format!("SIP/2.0/UDP edge.lab.test:{port};branch=");
    assert!(arrived.values("Via")[0].starts_with(&via), "{arrived}");

    // Whoever writes in between, and whatever is started again.
    for again in [false, true] {
        for stranger in 0..10_000_u16 {
            let [high, low] = stranger.to_be_bytes();
            let stranger = UdpSocket::bind((Ipv4Addr::new(127, 77, high, low), 0)).unwrap();
            stranger.send_to(b"\r\n\r\n", asked[0]).unwrap();
        }
        if again {
            sipbox.stop();
            sipbox.start_again();
        }
        let request = alice.request("MESSAGE", &bob.aor());
        alice.send(&request);
        let arrived = bob.expect_request("MESSAGE");
        assert_eq!(bob.link.heard_from(), asked[1], "started again: {again}");
        bob.respond(&arrived, 200, "OK");
        alice.expect(&request, 200);
        assert_eq!(alice.link.heard_from(), asked[0]);
    }
    let asked_for = json!({"table_name": "location", "aor": "bob@lab.test"});
    let contacts = sipbox.rpc("ul_show_contact", &asked_for).to_string();
    let socket = format!("\"udp:{}\"", asked[1]);
    assert!(contacts.contains(&socket), "{contacts}");
}
