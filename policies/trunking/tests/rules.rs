//! The rules of the trunking policy, one test each, run on the test kit.
#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests"
)]

use policy_trunking::Trunking;
use serde_json::{Value, json};
use sipbox_guest::dialogs::{CreateFlags, Validity};
use sipbox_guest::{
    FailedTarget, Failure, Hooks, RouteOutcome, RouteSignature, Transport, Verdict,
};
use sipbox_testkit::{Call, Kit, Run, TestDialog, World};

/// A trunk by address, one by account and one by both; two gateways.
fn settings() -> Value {
    json!({
        "realm": "trunks.example.com",
        "trunks": [
            { "name": "north", "max_calls": 2, "sources": [
                { "address": "192.0.2.0/24" },
                { "address": "2001:db8::/32", "port": 5070, "transport": "tcp" },
            ]},
            { "name": "south", "account": "south" },
            { "name": "east", "account": "east", "sources": [{ "address": "198.51.100.7" }] },
        ],
        "gateways": [
            { "name": "one", "uri": "sip:203.0.113.1" },
            { "name": "two", "uri": "sip:203.0.113.2:5080;transport=tcp", "max_calls": 1 },
        ],
        "routes": [
            { "prefix": "49", "gateways": ["one", "two"] },
            { "prefix": "4930", "gateways": ["two"], "strip": 2, "add": "0" },
            { "prefix": "4930", "trunks": ["south"], "gateways": ["one"] },
            { "domain": "pbx.example.com", "gateways": ["two"] },
        ],
    })
}

fn world() -> World {
    World::new()
        .account("trunks.example.com", "south", "wind")
        .account("trunks.example.com", "east", "coast")
        .account("trunks.example.com", "stranger", "danger")
}

fn kit(settings: &Value) -> Kit<Trunking> {
    Kit::new(settings).in_world(world())
}

fn call(uri: &str) -> Call {
    Call::request("INVITE", uri).source("192.0.2.10", 5060, Transport::Udp)
}

fn from_elsewhere(uri: &str) -> Call {
    call(uri).source("203.0.113.99", 5060, Transport::Udp)
}

fn failed(status: u16) -> Failure {
    Failure {
        status,
        reason: String::new(),
        failed: vec![FailedTarget {
            id: 0,
            uri: "sip:x".into(),
            status,
        }],
        cancelled: false,
    }
}

fn trunk(run: &Run) -> Option<&str> {
    run.vars.get("trunking.trunk").map(String::as_str)
}

const NUMBER: &str = "sip:4989123@example.com";

#[test]
fn a_trunk_is_known_by_its_address() {
    let run = kit(&settings()).on_request(call(NUMBER));
    assert_eq!(trunk(&run), Some("north"));
    run.assert_relayed_to(&[&["sip:4989123@203.0.113.1"]]);
    run.assert_record_route(true);
    assert_eq!(run.armed, Hooks::FAILURE);
    assert_eq!(run.vars["trunking.gateway"], "one");

    let v6 = |port, transport| call(NUMBER).source("2001:db8::7", port, transport);
    let run = kit(&settings()).on_request(v6(5070, Transport::Tcp));
    assert_eq!(trunk(&run), Some("north"));
    for call in [v6(5071, Transport::Tcp), v6(5070, Transport::Udp)] {
        kit(&settings())
            .on_request(call)
            .assert_challenge(407, "trunks.example.com");
    }
}

#[test]
fn a_source_that_no_trunk_has_is_403() {
    let mut only = settings();
    only["trunks"] = json!([{ "name": "north", "sources": [{ "address": "192.0.2.0/24" }] }]);
    only["routes"] = json!([{ "gateways": ["one"] }]);
    only.as_object_mut().unwrap().remove("realm");
    let run = kit(&only).on_request(from_elsewhere(NUMBER));
    run.assert_reply_saying(403, "Unknown Source");
    let options =
        Call::request("OPTIONS", "sip:example.com").source("203.0.113.99", 1, Transport::Udp);
    kit(&only).on_request(options).assert_reply(403);
    only["unknown_source"] = json!("next");
    let run = kit(&only).on_request(from_elsewhere(NUMBER));
    assert_eq!((&run.verdict, trunk(&run)), (&Verdict::Next, None));
}

#[test]
fn a_trunk_with_an_account_proves_it() {
    let run = kit(&settings()).on_request(from_elsewhere(NUMBER));
    run.assert_challenge(407, "trunks.example.com");
    let with = |user, password| {
        from_elsewhere(NUMBER).proxy_authorization("trunks.example.com", user, password)
    };
    let run = kit(&settings()).on_request(with("south", "wind"));
    assert_eq!(trunk(&run), Some("south"));
    kit(&settings())
        .on_request(with("south", "sea"))
        .assert_challenge(407, "trunks.example.com");
    // An account of the realm that is no trunk's, and one that is bound to an address.
    for (user, password) in [("stranger", "danger"), ("east", "coast")] {
        let run = kit(&settings()).on_request(with(user, password));
        run.assert_reply_saying(403, "Not Of This Trunk");
    }
    let mut as_server = settings();
    as_server["challenge"] = json!(401);
    kit(&as_server)
        .on_request(from_elsewhere(NUMBER))
        .assert_challenge(401, "trunks.example.com");
}

#[test]
fn a_trunk_with_address_and_account_needs_both() {
    let east = || call(NUMBER).source("198.51.100.7", 5060, Transport::Udp);
    kit(&settings())
        .on_request(east())
        .assert_challenge(407, "trunks.example.com");
    let with = |user, password| east().proxy_authorization("trunks.example.com", user, password);
    let run = kit(&settings()).on_request(with("east", "coast"));
    assert_eq!(trunk(&run), Some("east"));
    let run = kit(&settings()).on_request(with("south", "wind"));
    run.assert_reply_saying(403, "Not Of This Trunk");
}

#[test]
fn who_brings_no_credentials_may_be_for_the_policies_behind() {
    let mut open = settings();
    open["unknown_source"] = json!("next");
    let run = kit(&open).on_request(from_elsewhere(NUMBER));
    assert_eq!(run.verdict, Verdict::Next);
    let wrong = from_elsewhere(NUMBER).proxy_authorization("trunks.example.com", "south", "x");
    kit(&open)
        .on_request(wrong)
        .assert_challenge(407, "trunks.example.com");
    // Its address says that it is east.
    let east = call(NUMBER).source("198.51.100.7", 5060, Transport::Udp);
    kit(&open)
        .on_request(east)
        .assert_challenge(407, "trunks.example.com");
}

#[test]
fn a_trunk_has_as_many_calls_as_its_limit_says() {
    let north = kit(&settings());
    for _ in 0..2 {
        let run = north.on_request(call(NUMBER));
        let dialog = run.dialog.clone().expect("a dialog");
        assert!(dialog.wanted.contains(CreateFlags::BYE_ON_TIMEOUT));
        assert_eq!(run.leases[0].scope, "trunk");
    }
    north.on_request(call(NUMBER)).assert_reply(486);
    let mut other = settings();
    other["status"] = json!(503);
    other["reason"] = json!("Trunk Full");
    let full = kit(&other).in_world(world().leased("trunk", "north", 2));
    full.on_request(call(NUMBER))
        .assert_reply_saying(503, "Trunk Full");
    // Other requests take no place, and a trunk without a limit counts none.
    let message = Call::request("MESSAGE", NUMBER);
    full.on_request(message).assert_record_route(false);
    let south = from_elsewhere(NUMBER).proxy_authorization("trunks.example.com", "south", "wind");
    let mut unlimited = settings();
    unlimited["routes"] = json!([{ "gateways": ["one"] }]);
    let run = kit(&unlimited).on_request(south);
    assert!(run.leases.is_empty() && run.dialog.is_some());
}

#[test]
fn the_most_exact_route_counts() {
    let to = |uri: &str| {
        kit(&settings())
            .on_request(call(uri))
            .targets()
            .concat()
            .remove(0)
    };
    assert_eq!(
        to("sip:4930123@example.com"),
        "sip:030123@203.0.113.2:5080;transport=tcp"
    );
    assert_eq!(to("sip:4940123@example.com"), "sip:4940123@203.0.113.1");
    assert_eq!(
        to("sip:12@PBX.example.com"),
        "sip:12@203.0.113.2:5080;transport=tcp"
    );
    assert_eq!(to("sip:49@pbx.example.com"), "sip:49@203.0.113.1");
    let south = from_elsewhere("sip:4930123@example.com").proxy_authorization(
        "trunks.example.com",
        "south",
        "wind",
    );
    let run = kit(&settings()).on_request(south);
    run.assert_relayed_to(&[&["sip:4930123@203.0.113.1"]]);

    let nowhere = || call("sip:123@example.com");
    kit(&settings())
        .on_request(nowhere())
        .assert_reply_saying(404, "No Route");
    let mut open = settings();
    open["no_route"] = json!("next");
    let run = kit(&open).on_request(nowhere());
    assert_eq!((&run.verdict, trunk(&run)), (&Verdict::Next, Some("north")));
    assert!(run.leases.is_empty());
}

#[test]
fn the_next_gateway_takes_over() {
    for status in [408, 500, 502, 503, 504] {
        let kit = kit(&settings());
        let first = kit.on_request(call(NUMBER));
        let second = kit.on_failure(first.then(), &failed(status));
        second.assert_relayed_to(&[&["sip:4989123@203.0.113.2:5080;transport=tcp"]]);
        second.assert_record_route(true);
        assert_eq!(second.vars["trunking.gateway"], "two");
        assert_eq!(kit.world().leases("gateway", "two"), 1);
        let last = kit.on_failure(second.then(), &failed(status));
        last.assert_reply_saying(503, "No Gateway Left");
        assert_eq!(kit.world().leases("gateway", "two"), 0);
    }
}

#[test]
fn what_the_called_side_says_goes_to_the_trunk() {
    let kit = kit(&settings());
    let run = kit.on_request(call(NUMBER));
    for status in [302, 404, 480, 486, 488, 600, 603] {
        let after = kit.on_failure(run.then(), &failed(status));
        assert_eq!(after.verdict, Verdict::Next, "{status}");
    }
    let cancelled = Failure {
        cancelled: true,
        ..failed(408)
    };
    assert_eq!(
        kit.on_failure(run.then(), &cancelled).verdict,
        Verdict::Next
    );
    assert_eq!(
        kit.on_failure(call(NUMBER), &failed(503)).verdict,
        Verdict::Next
    );
}

#[test]
fn a_full_gateway_is_passed_over_and_when_all_are_it_is_503() {
    let busy = kit(&settings()).in_world(world().leased("gateway", "two", 1));
    let run = busy.on_request(call("sip:4930123@example.com"));
    run.assert_reply_saying(503, "All Gateways Full");
    let first = busy.on_request(call(NUMBER));
    busy.on_failure(first.then(), &failed(503))
        .assert_reply_saying(503, "No Gateway Left");
}

#[test]
fn a_trunk_that_asks_whether_we_are_there_is_told() {
    let options = |uri| Call::request("OPTIONS", uri);
    kit(&settings())
        .on_request(options("sip:example.com"))
        .assert_reply(200);
    let run = kit(&settings()).on_request(options(NUMBER));
    run.assert_relayed_to(&[&["sip:4989123@203.0.113.1"]]);
    let run = kit(&settings()).on_request(Call::register("a", "example.com", "<sip:a@192.0.2.10>"));
    assert_eq!(run.verdict, Verdict::Next);
    kit(&settings())
        .on_request(Call::request("CANCEL", NUMBER))
        .assert_reply(481);
    kit(&settings())
        .on_request(Call::request("ACK", NUMBER))
        .assert_dropped();
}

#[test]
fn requests_of_dialogs_follow_their_routes() {
    let within = |outcome| from_elsewhere(NUMBER).in_dialog(outcome);
    let run = kit(&settings()).on_request(within(RouteOutcome::Loose));
    assert_eq!(run.verdict, Verdict::Next);
    let run = kit(&settings()).on_request(within(RouteOutcome::Foreign));
    run.assert_reply_saying(404, "Not Here");
    let forged = within(RouteOutcome::Loose).route_signature(RouteSignature::Invalid);
    kit(&settings()).on_request(forged).assert_reply(403);
}

#[test]
fn a_dialog_that_is_followed_can_be_held_to_its_rules() {
    let mut strict = settings();
    strict["validate"] = json!(true);
    strict["ping"] = json!(60);
    let strict = kit(&strict);
    let run = strict.on_request(call(NUMBER));
    let dialog = run.dialog.clone().expect("a dialog");
    assert!(dialog.wanted.contains(CreateFlags::OPTIONS_PING_CALLEE));
    let within = |validity| {
        let dialog = TestDialog {
            validity,
            ..TestDialog::confirmed()
        };
        call(NUMBER).in_dialog(RouteOutcome::Loose).dialog(dialog)
    };
    assert_eq!(
        strict.on_request(within(Validity::Valid)).verdict,
        Verdict::Next
    );
    strict.on_request(within(Validity::Cseq)).assert_reply(500);
    strict
        .on_request(within(Validity::RemoteTarget))
        .assert_reply(403);
    let lost = || call(NUMBER).in_dialog(RouteOutcome::Loose);
    strict.on_request(lost()).assert_reply(481);
    let notify = Call::request("NOTIFY", NUMBER).in_dialog(RouteOutcome::Loose);
    assert_eq!(strict.on_request(notify).verdict, Verdict::Next);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let with = |key: &str, value: Value| {
        let mut settings = settings();
        settings[key] = value;
        settings
    };
    let source = |address: &str| {
        with(
            "trunks",
            json!([{ "name": "a", "account": "a", "sources": [{ "address": address }] }]),
        )
    };
    for (settings, words) in [
        (json!({}), "trunks"),
        (json!({ "trunks": [] }), "`trunks` names none"),
        (
            with("trunks", json!([{ "name": "a" }])),
            "trunk `a`: has neither `sources` nor an `account`",
        ),
        (
            with(
                "trunks",
                json!([{ "name": "a", "account": "x" }, { "name": "a", "account": "y" }]),
            ),
            "trunk `a` is named twice",
        ),
        (
            with(
                "trunks",
                json!([{ "name": "a", "account": "x" }, { "name": "b", "account": "x" }]),
            ),
            "trunk `a`: has the `account` of trunk `b`",
        ),
        (
            source("192.0.2.256"),
            "trunk `a`: `192.0.2.256` is no address",
        ),
        (source("192.0.2.1/24"), "bits behind the network's 24"),
        (source("192.0.2.0/33"), "0 to 32 bits"),
        (source("2001:db8::1/64"), "bits behind"),
        (with("realm", Value::Null), "trunk `south` has an `account`"),
        (with("challenge", json!(403)), "`challenge` is 403"),
        (with("algorithms", json!([])), "`algorithms` is empty"),
        (with("status", json!(200)), "`status` is 200"),
        (with("timeout", json!(0)), "`timeout` is 0"),
        (
            with("gateways", json!([{ "name": "one", "uri": "x" }])),
            "gateway `one`: `x` is no SIP URI",
        ),
        (
            with("routes", json!([{ "gateways": [] }])),
            "route 1: `gateways` names none",
        ),
        (
            with("routes", json!([{ "gateways": ["three"] }])),
            "route 1: there is no gateway `three`",
        ),
        (
            with(
                "routes",
                json!([{ "gateways": ["one"], "trunks": ["west"] }]),
            ),
            "route 1: there is no trunk `west`",
        ),
        (
            with("routes", json!([{ "gateways": ["one"], "prefix": "4 9" }])),
            "`prefix`: `4 9`",
        ),
        (with("routs", json!([])), "routs"),
    ] {
        let refused = Kit::<Trunking>::configured(&settings).err();
        let reason = refused.unwrap_or_else(|| "accepted".into());
        assert!(reason.contains(words), "{words}: {reason}");
    }
}

#[test]
fn a_silent_gateway_has_so_long() {
    let mut settings = settings();
    for (seconds, milliseconds) in [(None, 4_000), (Some(2), 2_000), (Some(0), 0)] {
        if let Some(seconds) = seconds {
            settings["fr_timeout"] = json!(seconds);
        }
        let run = kit(&settings).on_request(call(NUMBER));
        assert_eq!(run.relay().fr_timeout, milliseconds);
    }
}
