//! Log lines for machines.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use serde_json::Value;
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Setup};

/// Every line is one JSON object, and that of a decision says whose, of what, and what
/// was decided.
#[test]
fn json_logs_are_read_line_by_line() {
    let net = Loopback::new();
    let mut sipbox = Setup::residential(&net, "")
        .with("[log]\nformat = \"json\"\nfilter = \"debug\"\n")
        .start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    bob.register("");
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    // What a log line quotes must not end it.
    let mut nobody = alice.request("MESSAGE", "sip:no%22body@lab.test");
    nobody.set("Call-ID", "quo\"ted\\id");
    nobody.set("Route", "<sip:192.0.2.99;lr>");
    alice.send(&nobody);
    alice.expect(&nobody, 403);
    let message = alice.request("MESSAGE", "sip:bob@lab.test");
    alice.send(&message);
    let arrived = bob.expect_request("MESSAGE");
    bob.respond(&arrived, 200, "OK");
    alice.expect(&message, 200);
    sipbox.stop();

    let log = sipbox.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
    }
    let decision = |call_id: &str| {
        let of_call = |line: &&Value| line["message"] == "decision" && line["call_id"] == call_id;
        let found: Vec<&Value> = lines.iter().filter(of_call).collect();
        assert_eq!(found.len(), 1, "one line for each decision: {found:#?}");
        found[0]
    };
    let refused = decision("quo\"ted\\id");
    let relayed = decision(message.get("Call-ID"));
    for (fields, uri) in [
        (refused, "sip:no%22body@lab.test"),
        (relayed, "sip:bob@lab.test"),
    ] {
        for (field, value) in [
            ("tenant", "home"),
            ("policy", "residential"),
            ("method", "MESSAGE"),
            ("request_uri", uri),
        ] {
            assert_eq!(fields[field], value, "{fields}");
        }
    }
    assert_eq!(refused["verdict"], "reply 403", "{refused}");
    assert_eq!(relayed["verdict"], "relay to 1 in 1", "{relayed}");
}
