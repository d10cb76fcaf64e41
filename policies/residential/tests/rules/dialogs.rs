//! Requests in dialogs, and Route on initial ones.

use serde_json::json;
use sipbox_guest::{RouteOutcome, RouteSignature};
use sipbox_testkit::Call;

use crate::{domain, kit, trusting};

#[test]
fn in_dialog_requests_follow_their_route_set_unasked() {
    for method in [
        "BYE", "INVITE", "ACK", "UPDATE", "INFO", "NOTIFY", "OPTIONS",
    ] {
        for outcome in [RouteOutcome::Loose, RouteOutcome::Strict] {
            let call = Call::request(method, "sip:bob@192.0.2.7").in_dialog(outcome);
            let run = domain(json!({})).on_request(call);
            run.assert_relayed_as_it_is().assert_record_route(false);
            run.assert_host_calls(&["view"]);
        }
    }
}

#[test]
fn in_dialog_requests_without_our_route_are_not_here() {
    for uri in ["sip:bob@192.0.2.7", "sip:bob@example.com"] {
        let call = Call::request("BYE", uri).in_dialog(RouteOutcome::None);
        trusting()
            .on_request(call)
            .assert_reply_saying(404, "Not Here");
    }
}

#[test]
fn an_ack_is_never_answered() {
    let astray = Call::request("ACK", "sip:bob@192.0.2.7").in_dialog(RouteOutcome::None);
    let initial = Call::request("ACK", "sip:bob@example.com");
    let preloaded = Call::request("ACK", "sip:bob@example.com").route(RouteOutcome::Preloaded);
    for call in [astray, initial, preloaded] {
        domain(json!({})).on_request(call).assert_dropped();
    }
}

#[test]
fn an_initial_request_whose_route_names_others_is_denied() {
    for call in [
        Call::request("INVITE", "sip:bob@example.com"),
        Call::request("MESSAGE", "sip:erin@example.net"),
        Call::register("alice", "example.com", "<sip:alice@192.0.2.10>"),
    ] {
        trusting()
            .on_request(call.route(RouteOutcome::Preloaded))
            .assert_reply_saying(403, "Preload Route denied");
    }
}

#[test]
fn a_preloaded_route_can_be_followed_by_those_who_may_call_outside() {
    let kit = kit(&json!({ "preloaded_route": "follow", "domains": { "example.com": {} } }));
    let call = || Call::request("INVITE", "sip:bob@example.com").route(RouteOutcome::Preloaded);
    kit.on_request(call()).assert_challenge(407, "example.com");
    kit.on_request(call().proxy_authorization("example.com", "alice", "wonderland"))
        .assert_relayed_as_it_is()
        .assert_record_route(true);
    kit.on_request(call().from("<sip:dave@example.net>"))
        .assert_reply_saying(403, "Relay Forbidden");
}

#[test]
fn a_route_that_names_only_us_changes_nothing() {
    // The host has consumed it: the outcome is `none`.
    trusting()
        .on_request(Call::request("INVITE", "sip:bob@example.com").route(RouteOutcome::None))
        .assert_relayed_to(&[&["registered bob@example.com"]]);
}

#[test]
fn a_route_that_we_did_not_write_is_no_dialog() {
    let forged = |method: &str| {
        Call::request(method, "sip:bob@192.0.2.7")
            .in_dialog(RouteOutcome::Loose)
            .route_signature(RouteSignature::Invalid)
    };
    let strict = trusting();
    strict
        .on_request(forged("BYE"))
        .assert_reply_saying(403, "Forged Route denied");
    strict.on_request(forged("ACK")).assert_dropped();
    strict
        .on_request(forged("BYE").route_signature(RouteSignature::Valid))
        .assert_relayed_as_it_is();
    let lenient = json!({ "forged_route": "follow", "domains": { "example.com": {} } });
    kit(&lenient)
        .on_request(forged("BYE"))
        .assert_relayed_as_it_is();
}
