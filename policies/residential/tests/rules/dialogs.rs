//! Requests in dialogs, and Route on initial ones.

use serde_json::json;
use sipbox_guest::dialogs::CreateFlags;
use sipbox_guest::{RouteOutcome, RouteSignature};
use sipbox_testkit::{Call, TestDialog};

use crate::{domain, kit, trusting};

#[test]
fn in_dialog_requests_follow_their_route_set_unasked() {
    for method in [
        "BYE", "INVITE", "ACK", "UPDATE", "INFO", "NOTIFY", "OPTIONS",
    ] {
        for outcome in [RouteOutcome::Loose, RouteOutcome::Strict] {
            let mut call = Call::request(method, "sip:bob@192.0.2.7").in_dialog(outcome);
            if matches!(method, "INVITE" | "OPTIONS") {
                call = call.dialog(TestDialog::confirmed());
            }
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

/// A route of ours with a good signature says that a dialog was here once. Whoever has one
/// could send an INVITE to anybody by it.
#[test]
fn an_invite_of_a_dialog_that_nobody_knows_is_no_way_past_us() {
    let again = || {
        Call::request("INVITE", "sip:+19005550100@carrier.example")
            .in_dialog(RouteOutcome::Loose)
            .route_signature(RouteSignature::Valid)
    };
    // It had a dialog that is over.
    domain(json!({}))
        .on_request(again().route_params("lr;did=1.2;ftag=a1"))
        .assert_reply(481);
    // It was never followed: the same credentials as at the first.
    let unfollowed = json!({ "dialogs": false });
    domain(unfollowed.clone())
        .on_request(again())
        .assert_challenge(407, "example.com");
    domain(unfollowed.clone())
        .on_request(again().proxy_authorization("example.com", "alice", "wonderland"))
        .assert_relayed_as_it_is();
    // So does all that can begin something.
    for method in ["MESSAGE", "REFER", "SUBSCRIBE"] {
        let call = Call::request(method, "sip:erin@example.net")
            .in_dialog(RouteOutcome::Loose)
            .route_signature(RouteSignature::Valid);
        domain(json!({}))
            .on_request(call)
            .assert_challenge(407, "example.com");
    }
    // The other side of a call has none.
    let upstream = || again().from("<sip:erin@example.net>");
    domain(unfollowed.clone())
        .on_request(upstream())
        .assert_relayed_as_it_is();
    domain(unfollowed)
        .on_request(upstream().route_signature(RouteSignature::Expired))
        .assert_reply_saying(403, "Expired Route denied");
}

#[test]
fn calls_are_followed_by_the_host_and_no_other_dialogs() {
    let run = trusting().on_request(Call::request("INVITE", "sip:bob@example.com"));
    let dialog = run.dialog.as_ref().expect("a dialog");
    assert_eq!(dialog.wanted, CreateFlags::BYE_ON_TIMEOUT);
    for (method, options) in [
        ("SUBSCRIBE", json!({ "auth": "off" })),
        ("INVITE", json!({ "auth": "off", "dialogs": false })),
        ("INVITE", json!({ "auth": "off", "record_route": false })),
    ] {
        let run = domain(options).on_request(Call::request(method, "sip:bob@example.com"));
        assert!(run.dialog.is_none(), "{method}");
    }
    let short = json!({ "auth": "off", "dialog_timeout": 600 });
    let run = domain(short).on_request(Call::request("INVITE", "sip:bob@example.com"));
    assert_eq!(run.dialog.expect("a dialog").facts.timeout, 600);
}

/// However many names a user has, and whoever is called.
#[test]
fn a_user_has_no_more_calls_than_are_allowed() {
    let kit = kit(&json!({ "auth": "off", "domains": {
        "example.com": { "calls": 2, "aliases": { "sales": "alice" } },
        "example.org": { "dialogs": false },
    } }));
    let call = |from: &str, to: &str| {
        let call = Call::request("INVITE", to).from(&format!("<sip:{from}>"));
        kit.on_request(call)
    };
    let first = call("alice@example.com", "sip:carol@example.org");
    assert!(first.dialog.is_some(), "a lease ends with its dialog");
    call("sales@example.com", "sip:bob@example.com")
        .assert_relayed_to(&[&["registered bob@example.com"]]);
    for from in ["alice@example.com", "sales@example.com"] {
        call(from, "sip:bob@example.com").assert_reply_saying(486, "Too Many Calls");
    }
    call("bob@example.com", "sip:alice@example.com")
        .assert_relayed_to(&[&["registered alice@example.com"]]);
    // Whoever is not counted is not limited.
    for _ in 0..3 {
        call("carol@example.org", "sip:bob@example.com")
            .assert_relayed_to(&[&["registered bob@example.com"]]);
    }
}

#[test]
fn phones_behind_a_translation_are_helped_if_that_is_wanted() {
    let natted = || {
        Call::request("INVITE", "sip:bob@example.com")
            .set("Contact", "<sip:alice@10.0.0.7:5060>")
            .source("198.51.100.7", 31000, sipbox_guest::Transport::Udp)
    };
    let run = trusting().on_request(natted());
    assert!(run.edits.is_empty() && run.route_params.is_empty());
    let helping = kit(&json!({ "auth": "off", "nat": {}, "domains": { "example.com": {} } }));
    let run = helping.on_request(natted());
    assert!(!run.edits.is_empty());
    assert_eq!(run.route_params, [("nat".to_owned(), "yes".to_owned())]);
    run.assert_relayed_to(&[&["registered bob@example.com"]]);
}
