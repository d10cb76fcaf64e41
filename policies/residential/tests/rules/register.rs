//! REGISTER: RFC 3261 section 10.3.

use serde_json::json;
use sipbox_guest::auth::Algorithm;
use sipbox_guest::{Error, RouteOutcome};
use sipbox_testkit::{Call, Effect};

use crate::{domain, kit, trusting, world};

fn register() -> Call {
    Call::register("alice", "example.com", "<sip:alice@192.0.2.10>;expires=600")
}

fn authorized() -> Call {
    register().authorization("example.com", "alice", "wonderland")
}

#[test]
fn a_register_without_credentials_is_challenged_by_the_domain() {
    let run = domain(json!({})).on_request(register());
    run.assert_challenge(401, "example.com");
    run.assert_host_calls(&["view", "check", "challenge"]);
}

#[test]
fn the_challenge_offers_the_algorithms_of_the_domain_in_their_order() {
    for (names, algorithms) in [
        (json!(["md5"]), vec![Algorithm::Md5]),
        (
            json!(["sha256", "md5"]),
            vec![Algorithm::Sha256, Algorithm::Md5],
        ),
    ] {
        let run = domain(json!({ "algorithms": names })).on_request(register());
        let expected = Effect::Challenge {
            realm: "example.com".into(),
            proxy: false,
            algorithms,
        };
        assert_eq!(run.effects, [expected]);
    }
}

#[test]
fn right_credentials_save_the_binding_of_the_address_of_record() {
    let kit = domain(json!({}));
    kit.on_request(authorized()).assert_reply(200);
    let bindings = kit.world().bindings("alice@example.com");
    assert_eq!(bindings.len(), 1);
    assert_eq!(bindings[0].contact, "sip:alice@192.0.2.10");
    assert_eq!(bindings[0].expires, 600);
}

#[test]
fn wrong_stale_and_slowed_down_credentials_are_challenged_alike() {
    let wrong = register().authorization("example.com", "alice", "guess");
    let unknown = register().authorization("example.com", "mallory", "guess");
    let stale = authorized().stale();
    for call in [wrong, unknown, stale] {
        domain(json!({}))
            .on_request(call)
            .assert_challenge(401, "example.com");
    }
    domain(json!({}))
        .in_world(world().throttled("alice"))
        .on_request(authorized())
        .assert_challenge(401, "example.com");
}

#[test]
fn credentials_of_another_user_are_forbidden() {
    let call = register().authorization("example.com", "bob", "builder");
    let run = domain(json!({})).on_request(call);
    run.assert_reply_saying(403, "Forbidden auth ID");
    assert!(run.effects.is_empty());
}

#[test]
fn an_escaped_user_name_is_the_same_user() {
    let kit = domain(json!({}));
    let call = Call::register("%61lice", "example.com", "<sip:alice@192.0.2.10>").authorization(
        "example.com",
        "alice",
        "wonderland",
    );
    kit.on_request(call).assert_reply(200);
    assert_eq!(kit.world().bindings("alice@example.com").len(), 1);
}

#[test]
fn a_domain_that_is_not_served_is_not_found() {
    let call = Call::register("dave", "example.net", "<sip:dave@192.0.2.10>");
    let run = domain(json!({})).on_request(call);
    run.assert_reply(404);
    run.assert_host_calls(&["view"]);
}

#[test]
fn an_address_of_record_of_another_domain_is_not_found() {
    let kit = kit(&json!({ "auth": "off", "domains": { "example.com": {}, "example.org": {} } }));
    let call = Call::register("alice", "example.com", "<sip:alice@192.0.2.10>")
        .to("<sip:alice@example.org>");
    kit.on_request(call).assert_reply(404);
}

#[test]
fn an_address_of_record_without_a_user_is_not_found() {
    let call = register().to("<sip:example.com>");
    trusting().on_request(call).assert_reply(404);
}

#[test]
fn an_address_of_record_is_a_sip_uri() {
    for to in ["<isbn:2983792873>", "<tel:+358501234567>"] {
        let call = register().to(to);
        trusting().on_request(call).assert_reply(400);
    }
    let call = register().to("<SIPS:alice@example.com>");
    trusting().on_request(call).assert_reply(200);
}

#[test]
fn another_name_of_the_domain_registers_the_same_address_of_record() {
    let kit = domain(json!({ "names": ["sip.example.com", "192.0.2.1"] }));
    let call = Call::register("alice", "SIP.example.com", "<sip:alice@192.0.2.10>").authorization(
        "example.com",
        "alice",
        "wonderland",
    );
    kit.on_request(call).assert_reply(200);
    assert_eq!(kit.world().bindings("alice@example.com").len(), 1);
}

#[test]
fn without_authentication_everybody_may_register() {
    let run = trusting().on_request(register());
    run.assert_reply(200);
    run.assert_host_calls(&["view", "save"]);
}

#[test]
fn the_limits_of_the_domain_are_given_to_the_location_service() {
    let kit = domain(json!({
        "auth": "off", "min_expires": 120, "default_expires": 300, "max_expires": 900,
        "max_contacts": 2,
    }));
    let run = kit.on_request(register());
    let [Effect::Save { aor, limits, .. }] = run.effects.as_slice() else {
        panic!("{:?}", run.effects);
    };
    assert_eq!(aor, "alice@example.com");
    assert_eq!(
        (
            limits.min_expires,
            limits.default_expires,
            limits.max_expires,
            limits.max_contacts
        ),
        (120, 300, 900, 2)
    );
}

#[test]
fn what_the_location_service_refuses_is_answered_with_its_status() {
    let short = Call::register("alice", "example.com", "<sip:alice@192.0.2.10>;expires=5");
    trusting().on_request(short).assert_reply(423);
    for status in [400, 403, 500] {
        trusting()
            .in_world(world().saves_are_refused(status))
            .on_request(register())
            .assert_reply(status);
    }
}

#[test]
fn a_query_is_answered_and_changes_nothing() {
    let kit = trusting();
    kit.on_request(register()).assert_reply(200);
    let run = kit.on_request(register().without("Contact"));
    run.assert_reply(200);
    assert!(run.effects.is_empty());
    assert_eq!(kit.world().bindings("alice@example.com").len(), 1);
}

#[test]
fn a_failing_backend_is_a_server_error_and_a_log_line() {
    let broken = || Error::Unavailable("database is gone".into());
    let auth = domain(json!({}))
        .in_world(world().auth_fails(broken()))
        .on_request(authorized());
    let location = trusting()
        .in_world(world().location_fails(broken()))
        .on_request(register());
    for run in [auth, location] {
        run.assert_reply(500);
        run.assert_logged(sipbox_guest::log::Level::Error, "database is gone");
        assert!(run.effects.is_empty());
    }
}

#[test]
fn an_extension_that_the_registrar_does_not_know_is_named_in_a_420() {
    let run = trusting().on_request(register().header("Require", "path, gruu,outbound"));
    run.assert_reply(420);
    assert_eq!(run.reply_headers("Unsupported"), ["gruu, outbound"]);
    trusting()
        .on_request(register().header("Require", "Path"))
        .assert_reply(200);
}

#[test]
fn a_register_with_a_to_tag_is_still_a_register() {
    trusting()
        .on_request(register().in_dialog(RouteOutcome::None))
        .assert_reply(200);
}
