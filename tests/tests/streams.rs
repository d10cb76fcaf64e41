//! TCP as RFC 3261 section 18 and RFC 5626 want it: framing, keep-alives, and
//! which connection a message goes down.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Link, Listener, Loopback, Message, Setup};

fn options(agent: &Agent, proxy: SocketAddr) -> Message {
    agent.request("OPTIONS", &format!("sip:{proxy}"))
}

#[test]
fn several_messages_in_one_segment_are_all_answered() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "").start();
    let mut agent = Agent::tcp("alice", DOMAIN, net.ip(), sipbox.address);
    let requests: Vec<Message> = (0..5).map(|_| options(&agent, sipbox.address)).collect();
    let bytes: Vec<u8> = requests.iter().flat_map(Message::bytes).collect();
    agent.link.send(&bytes);
    let mut answered = Vec::new();
    for _ in &requests {
        let response = agent.receive("an answer");
        assert_eq!(response.status(), Some(200), "{response}");
        answered.push(response.branch());
    }
    let mut expected: Vec<String> = requests.iter().map(Message::branch).collect();
    expected.sort();
    answered.sort();
    assert_eq!(answered, expected);
}

#[test]
fn one_message_in_many_segments_is_answered() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "").start();
    let mut agent = Agent::tcp("alice", DOMAIN, net.ip(), sipbox.address);
    let request = options(&agent, sipbox.address).with_body("text/plain", "x".repeat(50));
    for piece in request.bytes().chunks(7) {
        agent.link.send(piece);
        sleep(Duration::from_millis(2));
    }
    agent.expect(&request, 200);
}

/// RFC 5626 section 4.4.1: a double CRLF is answered with a single one.
#[test]
fn a_ping_is_answered_with_a_pong() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "").start();
    let mut agent = Agent::tcp("alice", DOMAIN, net.ip(), sipbox.address);
    agent.link.send(b"\r\n\r\n");
    let mut buffer = [0; 16];
    let end = Instant::now() + Duration::from_secs(3);
    let length = agent.link.read_some(&mut buffer, end).expect("a pong");
    assert_eq!(&buffer[..length], b"\r\n");
    // And in front of a request it does no harm.
    let request = options(&agent, sipbox.address);
    let bytes = [b"\r\n\r\n".as_slice(), &request.bytes()].concat();
    agent.link.send(&bytes);
    agent.expect(&request, 200);
}

/// RFC 3261 section 18.2.2: over the connection that the request came by,
/// whatever the Via says.
#[test]
fn a_response_takes_the_connection_of_its_request() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "").start();
    let elsewhere = net.sip();
    let listener = Listener::bind(elsewhere);
    let mut agent = Agent::tcp("alice", DOMAIN, net.ip(), sipbox.address);
    let mut request = options(&agent, sipbox.address);
    let via = format!(
        "SIP/2.0/TCP {elsewhere};branch=z9hG4bK{}",
        sipbox_tests::agent::unique()
    );
    request.set("Via", via);
    agent.send(&request);
    agent.expect(&request, 200);
    assert!(
        listener.accept(Duration::from_millis(200)).is_none(),
        "no second connection"
    );
}

/// Answers the INVITE of `caller` at `callee`, and both sides end the call.
fn invite_reaches(caller: &mut Agent, callee: &mut Agent) {
    let invite = caller.request("INVITE", &callee.aor());
    caller.send(&invite);
    let arrived = callee.expect_request("INVITE");
    callee.respond(&arrived, 486, "Busy Here");
    let response = caller.expect(&invite, 486);
    caller.acknowledge(&invite, &response);
    callee.expect_request("ACK");
}

/// The Contact names a port where nobody listens: only the connection leads to bob.
#[test]
fn a_request_goes_down_the_connection_that_registered() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "auth = \"register\"")
        .user("bob@lab.test", "secret")
        .start();
    let mut bob = Agent::tcp("bob", DOMAIN, net.ip(), sipbox.address);
    bob.contact = format!("sip:bob@{};transport=tcp", SocketAddr::new(net.ip(), 9));
    bob.register("secret");
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    invite_reaches(&mut alice, &mut bob);
    invite_reaches(&mut alice, &mut bob);
}

#[test]
fn a_gone_connection_yields_to_the_next_binding() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "forking = \"serial\"")
        .user("bob@lab.test", "secret")
        .start();
    // The better binding's connection goes; its Contact leads nowhere.
    let mut gone = Agent::tcp("bob", DOMAIN, net.ip(), sipbox.address);
    gone.contact = format!("sip:bob@{};transport=tcp", SocketAddr::new(net.ip(), 9));
    let mut request = gone.request("REGISTER", "sip:lab.test");
    request.set("Contact", format!("<{}>;q=1.0", gone.contact));
    let (_, response) = gone.authenticated(request, "secret");
    assert_eq!(response.status(), Some(200), "{response}");
    let mut stays = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    let mut request = stays.request("REGISTER", "sip:lab.test");
    request.set("Contact", format!("<{}>;q=0.5", stays.contact));
    let (_, response) = stays.authenticated(request, "secret");
    assert_eq!(response.status(), Some(200), "{response}");
    drop(gone);
    sleep(Duration::from_millis(200));
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    invite_reaches(&mut alice, &mut stays);
}

#[test]
fn a_user_whose_only_connection_is_gone_is_unavailable() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "")
        .user("bob@lab.test", "secret")
        .start();
    let mut gone = Agent::tcp("bob", DOMAIN, net.ip(), sipbox.address);
    gone.contact = format!("sip:bob@{};transport=tcp", SocketAddr::new(net.ip(), 9));
    gone.register("secret");
    drop(gone);
    sleep(Duration::from_millis(200));
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let invite = alice.request("INVITE", "sip:bob@lab.test");
    alice.send(&invite);
    let response = alice.expect(&invite, 480);
    alice.acknowledge(&invite, &response);
}

/// An INVITE that is longer than 1300 bytes.
fn long_invite(alice: &Agent) -> Message {
    alice.request("INVITE", "sip:bob@lab.test").with_body(
        "application/sdp",
        format!("v=0\r\ns={}\r\n", "-".repeat(1400)),
    )
}

/// RFC 3261 section 18.1.1: too long for a datagram.
#[test]
fn a_long_request_goes_over_tcp() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "")
        .user("bob@lab.test", "secret")
        .start();
    let address = net.sip();
    let mut bob = Agent::udp("bob", DOMAIN, address, sipbox.address);
    bob.register("secret");
    let listener = Listener::bind(address);
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let invite = long_invite(&alice);
    alice.send(&invite);
    let link = listener
        .accept(Duration::from_secs(3))
        .expect("a connection to bob");
    let mut bob_over_tcp = Agent::over("bob", DOMAIN, link);
    let arrived = bob_over_tcp.expect_request("INVITE");
    let via = arrived.values("Via").remove(0);
    assert!(
        via.starts_with("SIP/2.0/TCP "),
        "the Via says how it travels: {via}"
    );
    assert_eq!(arrived.body, invite.body);
    bob_over_tcp.respond(&arrived, 486, "Busy Here");
    let response = alice.expect(&invite, 486);
    alice.acknowledge(&invite, &response);
    bob_over_tcp.expect_request("ACK");
    assert!(
        bob.hears_nothing_for(Duration::from_millis(100)),
        "nothing over UDP"
    );
}

#[test]
fn a_long_request_falls_back_to_udp_where_tcp_is_refused() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "")
        .user("bob@lab.test", "secret")
        .start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    bob.register("secret");
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let invite = long_invite(&alice);
    alice.send(&invite);
    let arrived = bob.expect_request("INVITE");
    let via = arrived.values("Via").remove(0);
    assert!(
        via.starts_with("SIP/2.0/UDP "),
        "the Via says how it travels: {via}"
    );
    bob.respond(&arrived, 486, "Busy Here");
    let response = alice.expect(&invite, 486);
    alice.acknowledge(&invite, &response);
    bob.expect_request("ACK");
}

/// A connection whose bytes are no SIP message is answered or closed, and
/// harms no other.
#[test]
fn rubbish_on_a_connection_ends_that_connection_only() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "").start();
    let mut good = Agent::tcp("alice", DOMAIN, net.ip(), sipbox.address);
    let mut bad = Link::tcp(net.ip(), sipbox.address);
    bad.send(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: nonsense\r\n\r\n");
    assert!(
        bad.closes_within(Duration::from_secs(5)),
        "the connection is closed"
    );
    let request = options(&good, sipbox.address);
    good.send(&request);
    good.expect(&request, 200);
}

/// A peer that announces a body and never sends it holds nothing up.
#[test]
fn an_unfinished_message_holds_nobody_up() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "").start();
    let mut slow = Link::tcp(net.ip(), sipbox.address);
    slow.send(b"OPTIONS sip:x SIP/2.0\r\nContent-Length: 100\r\n\r\nhalf");
    let mut agent = Agent::tcp("alice", DOMAIN, net.ip(), sipbox.address);
    let request = options(&agent, sipbox.address);
    agent.send(&request);
    agent.expect(&request, 200);
}
