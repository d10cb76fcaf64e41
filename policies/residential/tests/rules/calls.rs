//! Where initial requests go.

use serde_json::json;
use sipbox_guest::location::Binding;
use sipbox_guest::{Destination, Error, Verdict};
use sipbox_testkit::{Call, World, binding};

use crate::{domain, invite, kit, trusting};

fn preferred(contact: &str, q: u16) -> Binding {
    Binding {
        q,
        ..binding(contact)
    }
}

fn three_phones() -> World {
    World::new()
        .registered("bob@example.com", preferred("sip:bob@192.0.2.3", 300))
        .registered("bob@example.com", preferred("sip:bob@192.0.2.1", 900))
        .registered("bob@example.com", preferred("sip:bob@192.0.2.2", 900))
}

#[test]
fn a_call_to_a_user_goes_to_all_bindings_without_a_look_at_them() {
    let run = trusting().on_request(invite("sip:bob@example.com"));
    run.assert_relayed_to(&[&["registered bob@example.com"]]);
    run.assert_host_calls(&["view", "create_dialog"]);
}

#[test]
fn domain_names_are_compared_without_case_and_users_with() {
    trusting()
        .on_request(invite("sip:Bob@EXAMPLE.com"))
        .assert_relayed_to(&[&["registered Bob@example.com"]]);
}

#[test]
fn any_name_of_a_domain_means_its_users() {
    let kit = domain(json!({ "auth": "off", "names": ["192.0.2.1", "[2001:db8::1]"] }));
    for uri in [
        "sip:bob@192.0.2.1:5060",
        "sip:bob@[2001:DB8::1]",
        "sips:bob@example.com;lr",
    ] {
        kit.on_request(invite(uri))
            .assert_relayed_to(&[&["registered bob@example.com"]]);
    }
}

#[test]
fn serial_forking_tries_groups_by_preference_with_equal_ones_together() {
    let kit = domain(json!({ "auth": "off", "forking": "serial", "ring_timeout": 12 }))
        .in_world(three_phones());
    let run = kit.on_request(invite("sip:bob@example.com"));
    run.assert_relayed_to(&[
        &["sip:bob@192.0.2.1", "sip:bob@192.0.2.2"],
        &["sip:bob@192.0.2.3"],
    ]);
    assert_eq!(run.relay().ring_timeout, 12_000);
    run.assert_record_route(true);
}

#[test]
fn serial_forking_keeps_the_path_and_flow_of_a_binding() {
    let phone = Binding {
        path: vec!["<sip:edge.example.com;lr>".into()],
        flow: "tcp-7".into(),
        ..binding("sip:bob@192.0.2.1")
    };
    let run = domain(json!({ "auth": "off", "forking": "serial" }))
        .in_world(World::new().registered("bob@example.com", phone))
        .on_request(invite("sip:bob@example.com"));
    let Destination::Uri(target) = &run.relay().groups[0][0].destination else {
        panic!("{:?}", run.verdict);
    };
    assert_eq!(target.path, ["<sip:edge.example.com;lr>"]);
    assert_eq!(target.flow, "tcp-7");
}

#[test]
fn a_redirecting_domain_answers_with_the_contacts_best_first() {
    let kit = domain(json!({ "auth": "off", "mode": "redirect" })).in_world(three_phones());
    let run = kit.on_request(invite("sip:bob@example.com"));
    assert_eq!(
        run.contacts(),
        [
            "sip:bob@192.0.2.1",
            "sip:bob@192.0.2.2",
            "sip:bob@192.0.2.3"
        ]
    );
}

#[test]
fn nobody_registered_is_unavailable_or_not_found_as_the_domain_says() {
    for mode in [
        json!({ "mode": "redirect" }),
        json!({ "forking": "serial" }),
        json!({}),
    ] {
        for (setting, status) in [("480", 480), ("404", 404)] {
            let mut options = mode.clone();
            options["auth"] = json!("off");
            options["unknown_user"] = json!(setting);
            let run = domain(options).on_request(invite("sip:nobody@example.com"));
            match &run.verdict {
                // The host answers 480 itself when it finds no binding.
                Verdict::Relay(_) if mode == json!({}) && status == 480 => {
                    run.assert_relayed_to(&[&["registered nobody@example.com"]]);
                }
                _ => {
                    run.assert_reply(status);
                }
            }
        }
    }
}

#[test]
fn a_domain_that_knows_unknown_users_still_calls_the_known() {
    domain(json!({ "auth": "off", "unknown_user": "404" }))
        .in_world(three_phones())
        .on_request(invite("sip:bob@example.com"))
        .assert_relayed_to(&[&["registered bob@example.com"]]);
}

#[test]
fn an_address_without_a_user_is_incomplete() {
    trusting()
        .on_request(invite("sip:example.com"))
        .assert_reply(484);
}

#[test]
fn options_to_us_is_answered_with_what_we_can_do() {
    let run = domain(json!({})).on_request(Call::request("OPTIONS", "sip:example.com"));
    run.assert_reply(200);
    for (name, part) in [
        ("Allow", "INVITE"),
        ("Accept", "*/*"),
        ("Supported", "path"),
    ] {
        assert!(
            run.reply_headers(name)
                .iter()
                .any(|value| value.contains(part)),
            "{name}"
        );
    }
    run.assert_host_calls(&["view"]);
}

#[test]
fn options_to_us_that_require_what_we_do_not_know_name_it_in_a_420() {
    let options = |require| Call::request("OPTIONS", "sip:example.com").header("Require", require);
    let run = trusting().on_request(options("path, teleport"));
    run.assert_reply(420);
    assert_eq!(run.reply_headers("Unsupported"), ["teleport"]);
    trusting().on_request(options("path")).assert_reply(200);
}

#[test]
fn options_to_a_user_is_routed() {
    trusting()
        .on_request(Call::request("OPTIONS", "sip:bob@example.com"))
        .assert_relayed_to(&[&["registered bob@example.com"]])
        .assert_record_route(false);
}

#[test]
fn a_foreign_destination_is_relayed_to_its_uri() {
    trusting()
        .on_request(invite("sip:erin@example.net"))
        .assert_relayed_as_it_is()
        .assert_record_route(true);
}

#[test]
fn only_requests_that_may_make_a_dialog_are_recorded() {
    for (method, recorded) in [
        ("INVITE", true),
        ("SUBSCRIBE", true),
        ("REFER", true),
        ("MESSAGE", false),
        ("OPTIONS", false),
        ("PUBLISH", false),
        ("INFO", false),
    ] {
        for uri in ["sip:bob@example.com", "sip:erin@example.net"] {
            trusting()
                .on_request(Call::request(method, uri))
                .assert_record_route(recorded);
        }
    }
}

#[test]
fn a_domain_may_stay_off_the_path_of_its_dialogs() {
    let kit = domain(json!({ "auth": "off", "record_route": false }));
    for uri in ["sip:bob@example.com", "sip:erin@example.net"] {
        kit.on_request(invite(uri)).assert_record_route(false);
    }
}

#[test]
fn an_alias_stands_for_a_user_an_address_or_a_uri() {
    let kit = kit(&json!({
        "auth": "off",
        "domains": {
            "example.com": { "aliases": {
                "sales": "alice",
                "office": "carol@example.org",
                "desk": "dave@example.net",
                "gate": "sip:gate@192.0.2.50:5070;transport=tcp",
            } },
            "example.org": {},
        },
    }));
    for (user, target) in [
        ("sales", "registered alice@example.com"),
        ("office", "registered carol@example.org"),
        ("desk", "sip:dave@example.net"),
        ("gate", "sip:gate@192.0.2.50:5070;transport=tcp"),
        ("other", "registered other@example.com"),
    ] {
        kit.on_request(invite(&format!("sip:{user}@example.com")))
            .assert_relayed_to(&[&[target]])
            .assert_record_route(true);
    }
}

#[test]
fn an_alias_elsewhere_is_redirected_to_in_a_redirecting_domain() {
    let kit = domain(json!({
        "auth": "off", "mode": "redirect", "aliases": { "desk": "dave@example.net" },
    }));
    let run = kit.on_request(invite("sip:desk@example.com"));
    assert_eq!(run.contacts(), ["sip:dave@example.net"]);
}

#[test]
fn a_telephone_number_is_a_user_of_the_callers_domain() {
    trusting()
        .on_request(invite("tel:+49-30-(1234)"))
        .assert_relayed_to(&[&["registered +49301234@example.com"]]);
    trusting()
        .on_request(invite("tel:+49301234").from("<sip:dave@example.net>"))
        .assert_reply_saying(403, "Relay Forbidden");
}

#[test]
fn a_failing_location_service_is_a_server_error() {
    let broken = World::new().location_fails(Error::Unavailable("disk".into()));
    domain(json!({ "auth": "off", "forking": "serial" }))
        .in_world(broken)
        .on_request(invite("sip:bob@example.com"))
        .assert_reply(500)
        .assert_logged(sipbox_guest::log::Level::Error, "disk");
}

#[test]
fn each_domain_goes_by_its_own_options_and_else_by_the_common_ones() {
    let kit = kit(&json!({
        "auth": "off",
        "mode": "redirect",
        "domains": { "example.com": {}, "example.org": { "mode": "proxy" } },
    }))
    .in_world(three_phones());
    assert_eq!(
        kit.on_request(invite("sip:bob@example.com"))
            .contacts()
            .len(),
        3
    );
    kit.on_request(invite("sip:carol@example.org"))
        .assert_relayed_to(&[&["registered carol@example.org"]]);
}
