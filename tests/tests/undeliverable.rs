//! Next hops where nobody listens: the network says so (RFC 3261 section 18.4), and
//! nobody waits for a timer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Setup, Sipbox};

/// Far below Timer B and F, far above what a busy machine needs.
const SOON: Duration = Duration::from_secs(4);

fn bind(sipbox: &Sipbox, aor: &str, at: SocketAddr, q: &str) {
    let _ = sipbox.rpc(
        "ul_add",
        &json!({"table_name": "location", "aor": aor, "contact": format!("sip:x@{at}"),
                "expires": 60, "q": q, "flags": 0, "cflags": 0, "methods": 0}),
    );
}

#[test]
fn a_closed_port_is_answered_or_passed_over_at_once() {
    let net = Loopback::new();
    let (closed, open) = (net.sip(), net.sip());
    let sipbox = Setup::residential(&net, "forking = \"serial\"").start();
    bind(&sipbox, "gone@lab.test", closed, "1.0");
    bind(&sipbox, "bob@lab.test", closed, "1.0");
    bind(&sipbox, "bob@lab.test", open, "0.5");
    let mut bob = Agent::udp("bob", DOMAIN, open, sipbox.address);
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    for method in ["INVITE", "MESSAGE"] {
        let begin = Instant::now();
        let request = alice.request(method, "sip:gone@lab.test");
        alice.send(&request);
        let response = alice.expect(&request, 500);
        if method == "INVITE" {
            alice.acknowledge(&request, &response);
        }
        assert!(begin.elapsed() < SOON, "{method}: {:?}", begin.elapsed());

        let begin = Instant::now();
        let request = alice.request(method, "sip:bob@lab.test");
        alice.send(&request);
        let arrived = bob.expect_request(method);
        assert!(begin.elapsed() < SOON, "{method}: {:?}", begin.elapsed());
        bob.respond(&arrived, 486, "Busy Here");
        let response = alice.expect(&request, 486);
        if method == "INVITE" {
            alice.acknowledge(&request, &response);
            bob.expect_request("ACK");
        }
    }
    assert!(sipbox.statistic("net:undeliverable") >= 4);
}
