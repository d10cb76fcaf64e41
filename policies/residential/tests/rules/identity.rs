//! Who may send what to whom.

use serde_json::json;
use sipbox_guest::Error;
use sipbox_testkit::{Call, World};

use crate::{domain, invite, kit, trusting, world};

fn authorized(uri: &str) -> Call {
    invite(uri).proxy_authorization("example.com", "alice", "wonderland")
}

#[test]
fn a_user_of_the_domain_is_asked_for_credentials_as_by_a_proxy() {
    let run = domain(json!({})).on_request(invite("sip:bob@example.com"));
    run.assert_challenge(407, "example.com");
    run.assert_host_calls(&["view", "check", "challenge"]);
}

#[test]
fn every_method_is_asked_for_credentials() {
    for method in [
        "INVITE",
        "MESSAGE",
        "SUBSCRIBE",
        "PUBLISH",
        "REFER",
        "NOTIFY",
        "X-NEW",
    ] {
        domain(json!({}))
            .on_request(Call::request(method, "sip:bob@example.com"))
            .assert_challenge(407, "example.com");
    }
}

#[test]
fn a_cancel_goes_the_way_of_its_invite_without_a_challenge() {
    let cancel = |uri| Call::request("CANCEL", uri);
    for auth in ["off", "register", "all"] {
        let run = domain(json!({ "auth": auth })).on_request(cancel("sip:bob@example.com"));
        run.assert_relayed_to(&[&["registered bob@example.com"]]);
        run.assert_record_route(false);
        run.assert_host_calls(&["view"]);
    }
    // Out of the domain only where nobody is asked.
    domain(json!({}))
        .on_request(cancel("sip:x@elsewhere.example"))
        .assert_reply(481);
    domain(json!({ "auth": "off" }))
        .on_request(cancel("sip:x@elsewhere.example"))
        .assert_relayed_to(&[]);
}

#[test]
fn right_credentials_let_the_call_through() {
    let run = domain(json!({})).on_request(authorized("sip:bob@example.com"));
    run.assert_relayed_to(&[&["registered bob@example.com"]]);
    run.assert_host_calls(&["view", "check", "create_dialog"]);
}

#[test]
fn credentials_for_a_registrar_do_not_count_at_a_proxy() {
    let call = invite("sip:bob@example.com").authorization("example.com", "alice", "wonderland");
    domain(json!({}))
        .on_request(call)
        .assert_challenge(407, "example.com");
}

#[test]
fn a_caller_that_is_not_the_user_of_the_credentials_is_forbidden() {
    let call = invite("sip:bob@example.com").proxy_authorization("example.com", "bob", "builder");
    domain(json!({}))
        .on_request(call)
        .assert_reply_saying(403, "Forbidden auth ID");
}

#[test]
fn a_caller_without_a_user_part_is_forbidden() {
    let call = authorized("sip:bob@example.com").from("<sip:example.com>");
    domain(json!({}))
        .on_request(call)
        .assert_reply_saying(403, "Forbidden auth ID");
}

#[test]
fn a_user_may_call_under_an_alias_of_their_own() {
    let aliases = json!({ "aliases": { "sales": "alice", "support": "bob" } });
    let sales = authorized("sip:bob@example.com").from("<sip:sales@example.com>");
    domain(aliases.clone())
        .on_request(sales)
        .assert_relayed_to(&[&["registered bob@example.com"]]);
    let support = authorized("sip:bob@example.com").from("<sip:support@example.com>");
    domain(aliases)
        .on_request(support)
        .assert_reply_saying(403, "Forbidden auth ID");
}

#[test]
fn each_domain_asks_in_its_own_realm() {
    let kit = kit(&json!({ "domains": { "example.com": {}, "example.org": {} } }));
    let carol = || invite("sip:bob@example.com").from("<sip:carol@example.org>");
    kit.on_request(carol()).assert_challenge(407, "example.org");
    kit.on_request(carol().proxy_authorization("example.org", "carol", "christmas"))
        .assert_relayed_to(&[&["registered bob@example.com"]]);
}

#[test]
fn a_stranger_may_call_our_users() {
    let run =
        domain(json!({})).on_request(invite("sip:bob@example.com").from("<sip:dave@example.net>"));
    run.assert_relayed_to(&[&["registered bob@example.com"]]);
    run.assert_host_calls(&["view", "create_dialog"]);
}

#[test]
fn a_stranger_may_not_reach_strangers_through_us() {
    for method in ["INVITE", "OPTIONS", "MESSAGE"] {
        let call = Call::request(method, "sip:erin@example.net").from("<sip:dave@example.net>");
        domain(json!({}))
            .on_request(call)
            .assert_reply_saying(403, "Relay Forbidden");
    }
}

#[test]
fn an_open_relay_lets_strangers_through() {
    let call = invite("sip:erin@example.net").from("<sip:dave@example.net>");
    kit(&json!({ "relay": "open", "domains": { "example.com": {} } }))
        .on_request(call)
        .assert_relayed_as_it_is();
}

#[test]
fn own_users_reach_foreign_destinations_with_credentials() {
    domain(json!({}))
        .on_request(authorized("sip:erin@example.net"))
        .assert_relayed_as_it_is()
        .assert_record_route(true);
}

#[test]
fn where_only_register_is_authenticated_calls_inside_are_not_asked_but_calls_outside_are() {
    let kit = domain(json!({ "auth": "register" }));
    kit.on_request(invite("sip:bob@example.com"))
        .assert_relayed_to(&[&["registered bob@example.com"]]);
    kit.on_request(invite("sip:erin@example.net"))
        .assert_challenge(407, "example.com");
    kit.on_request(authorized("sip:erin@example.net"))
        .assert_relayed_as_it_is();
    domain(json!({ "auth": "register", "relay": "open" }))
        .on_request(invite("sip:erin@example.net"))
        .assert_relayed_as_it_is();
}

#[test]
fn without_authentication_from_is_believed() {
    let run = trusting().on_request(invite("sip:erin@example.net"));
    run.assert_relayed_as_it_is();
    run.assert_host_calls(&["view", "create_dialog"]);
}

#[test]
fn a_failing_backend_is_a_server_error() {
    let broken = World::new().auth_fails(Error::Unavailable("timeout".into()));
    domain(json!({}))
        .in_world(broken)
        .on_request(authorized("sip:bob@example.com"))
        .assert_reply(500)
        .assert_logged(sipbox_guest::log::Level::Error, "timeout");
}

#[test]
fn a_stale_nonce_is_challenged_again() {
    domain(json!({}))
        .in_world(world())
        .on_request(authorized("sip:bob@example.com").stale())
        .assert_challenge(407, "example.com");
}

#[test]
fn a_domain_may_accept_credentials_for_another_uri() {
    for (options, loose) in [(json!({}), false), (json!({ "uri_check": "loose" }), true)] {
        for call in [
            authorized("sip:bob@example.com"),
            Call::register("alice", "example.com", "<sip:alice@192.0.2.10>"),
        ] {
            let run = domain(options.clone()).on_request(call);
            let check = &run.recording.exchanges[1].call;
            assert_eq!(
                check.contains(r#"("uri-check", "loose")"#),
                loose,
                "{check}"
            );
        }
    }
}
