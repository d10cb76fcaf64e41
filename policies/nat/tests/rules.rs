//! The rules of the NAT policy, one test each, run on the test kit.

use policy_nat::Nat;
use serde_json::json;
use sipbox_guest::nat::BindingFlags;
use sipbox_guest::{Edit, Hooks, ReplyVerdict, RouteOutcome, Transport, Verdict};
use sipbox_testkit::{Call, Kit, Run};

fn kit() -> Kit<Nat> {
    Kit::new(json!({}))
}

/// A request of a phone at 10.0.0.7 whose router has a public address.
fn natted(method: &str) -> Call {
    Call::request(method, "sip:bob@example.com")
        .set("Via", "SIP/2.0/UDP 10.0.0.7:5060;branch=z9hG4bK1")
        .set("Contact", "<sip:alice@10.0.0.7:5060>")
        .source("198.51.100.7", 31000, Transport::Udp)
}

/// What the run made of a header field.
fn set<V>(run: &Run<V>, name: &str) -> Option<String> {
    run.edits.iter().find_map(|edit| match edit {
        Edit::SetHeader(field) if field.name == name => Some(field.value.clone()),
        _ => None,
    })
}

fn uri<V>(run: &Run<V>) -> Option<String> {
    run.edits.iter().find_map(|edit| match edit {
        Edit::SetRequestUri(uri) => Some(uri.clone()),
        _ => None,
    })
}

#[test]
fn a_phone_with_a_public_address_is_left_alone() {
    let run = kit().on_request(Call::request("INVITE", "sip:bob@example.com"));
    assert_eq!(run.verdict, Verdict::Next);
    assert!(run.edits.is_empty() && run.route_params.is_empty());
    assert!(!run.nat.force_rport);
    // Whoever it calls may be behind a translation.
    assert_eq!(run.armed, Hooks::REPLY);
    run.assert_host_calls(&["view", "classify_source", "arm"]);
}

#[test]
fn responses_go_to_the_source_port_of_whoever_names_another_one() {
    let via = "SIP/2.0/UDP 192.0.2.10:5062;branch=z9hG4bK1";
    let call = || Call::request("OPTIONS", "sip:bob@example.com").set("Via", via);
    let settings = json!({ "tests": ["private-contact"] });
    let run = Kit::<Nat>::new(settings).on_request(call());
    assert!(run.nat.force_rport);
    // A port of its own makes it no phone behind a translation, if nobody asks for that.
    assert!(run.vars.is_empty());
}

#[test]
fn who_calls_from_behind_a_translation_is_reached_at_the_source() {
    let run = kit().on_request(natted("INVITE"));
    assert_eq!(run.verdict, Verdict::Next);
    assert_eq!(
        set(&run, "Contact").as_deref(),
        Some("<sip:alice@198.51.100.7:31000;org=MTAuMC4wLjc6NTA2MA>")
    );
    assert_eq!(run.route_params, [("nat".to_owned(), "yes".to_owned())]);
    assert_eq!(run.vars.get("nat").map(String::as_str), Some("yes"));
    assert!(run.logs.is_empty(), "{:?}", run.logs);
}

#[test]
fn a_registration_is_kept_at_the_source_and_pinged() {
    let register = |settings: serde_json::Value| {
        let call = natted("REGISTER");
        Kit::<Nat>::new(settings).on_request(call)
    };
    let run = register(json!({}));
    assert_eq!(run.verdict, Verdict::Next);
    assert!(run.edits.is_empty(), "the Contact is the phone's own");
    assert!(run.nat.register);
    let natted = BindingFlags::NATTED;
    assert_eq!(run.nat.flags, natted | BindingFlags::SIPPING);
    assert_eq!(register(json!({ "ping": "off" })).nat.flags, natted);
    assert_eq!(register(json!({ "ping": "bytes" })).nat.flags, natted);
    assert_eq!(
        register(json!({ "ping": "sip-remove" })).nat.flags,
        natted | BindingFlags::SIPPING | BindingFlags::REMOVE_ON_TIMEOUT
    );
    let plain = Call::register("alice", "example.com", "<sip:alice@192.0.2.10:5060>");
    let run = kit().on_request(plain);
    assert!(!run.nat.register && run.nat.flags.is_empty());
}

#[test]
fn requests_of_the_dialog_go_both_ways() {
    // To the phone behind the translation: it sees the Contact that it gave.
    let to_phone = Call::request("BYE", "sip:alice@198.51.100.7:31000;org=MTAuMC4wLjc6NTA2MA")
        .in_dialog(RouteOutcome::Loose)
        .route_params("lr;nat=yes");
    let run = kit().on_request(to_phone);
    assert_eq!(uri(&run).as_deref(), Some("sip:alice@10.0.0.7:5060"));
    assert_eq!(
        run.nat.next_hop.as_deref(),
        Some("sip:alice@198.51.100.7:31000;org=MTAuMC4wLjc6NTA2MA")
    );
    assert_eq!(run.vars.get("nat").map(String::as_str), Some("yes"));
    assert_eq!(set(&run, "Contact"), None);

    // From it: the Contact that it refreshes is mended again.
    let from_phone = natted("INVITE").in_dialog(RouteOutcome::Loose);
    let run = kit().on_request(from_phone);
    assert!(
        set(&run, "Contact")
            .unwrap()
            .contains("@198.51.100.7:31000")
    );
    assert_eq!(run.armed, Hooks::REPLY);
    assert_eq!(uri(&run), None);
}

#[test]
fn a_request_behind_another_route_follows_it() {
    let call = Call::request("BYE", "sip:a@198.51.100.7:31000;org=MTAuMC4wLjc6NTA2MA")
        .in_dialog(RouteOutcome::Loose)
        .header("Route", "<sip:edge.example.com;lr>");
    let run = kit().on_request(call);
    assert_eq!(uri(&run).as_deref(), Some("sip:a@10.0.0.7:5060"));
    assert_eq!(run.nat.next_hop, None);
}

#[test]
fn a_response_from_behind_a_translation_is_mended_and_a_redirection_is_not() {
    let response = |status| {
        natted("INVITE")
            .response(status, "X")
            .set("Contact", "<sip:bob@192.168.1.2>")
    };
    let run = kit().on_reply(response(200));
    assert_eq!(run.verdict, ReplyVerdict::Forward);
    assert!(
        set(&run, "Contact")
            .unwrap()
            .starts_with("<sip:bob@198.51.100.7:31000;org=")
    );
    assert!(kit().on_reply(response(302)).edits.is_empty());
    let public = response(200).set("Contact", "<sip:bob@203.0.113.1>");
    assert!(kit().on_reply(public).edits.is_empty());
}

#[test]
fn loopback_and_private_sources_are_no_translation_unless_the_operator_says_so() {
    let local = || {
        Call::request("INVITE", "sip:bob@example.com")
            .set("Via", "SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1")
            .set("Contact", "<sip:alice@127.0.0.1:5070>")
            .source("127.0.0.1", 5070, Transport::Udp)
    };
    assert!(kit().on_request(local()).route_params.is_empty());
    let kit = Kit::<Nat>::new(json!({ "tests": ["loopback"] }));
    assert!(!kit.on_request(local()).route_params.is_empty());
}

#[test]
fn session_descriptions_are_mended_if_the_operator_says_so() {
    let sdp = "v=0\r\nc=IN IP4 10.0.0.7\r\nm=audio 4000 RTP/AVP 0\r\n";
    let call = || natted("INVITE").body("application/sdp", sdp);
    let body = |run: &Run| {
        run.edits.iter().find_map(|edit| match edit {
            Edit::SetBody(body) => Some(String::from_utf8(body.bytes.clone()).unwrap()),
            _ => None,
        })
    };
    assert_eq!(body(&kit().on_request(call())), None);
    let kit = Kit::<Nat>::new(json!({ "sdp": ["rewrite-media-ip", "oldip-skip"] }));
    assert_eq!(
        body(&kit.on_request(call())),
        Some(sdp.replace("10.0.0.7", "198.51.100.7"))
    );
}

#[test]
fn a_cancel_only_gets_its_answer_to_the_right_port() {
    let run = kit().on_request(natted("CANCEL"));
    assert_eq!(run.verdict, Verdict::Next);
    run.assert_host_calls(&["view", "classify_source", "force_rport"]);
    let off = Kit::<Nat>::new(json!({ "force_rport": false }));
    off.on_request(natted("CANCEL"))
        .assert_host_calls(&["view"]);
}

#[test]
fn settings_are_checked() {
    let refused = |settings: serde_json::Value| Kit::<Nat>::configured(settings).err().unwrap();
    assert!(refused(json!({ "tests": ["nat"] })).contains("unknown variant `nat`"));
    assert!(refused(json!({ "contact_params": "ob" })).contains("semicolon"));
    assert!(refused(json!({ "pings": "sip" })).contains("unknown field"));
    let off = Kit::<Nat>::new(json!({ "force_rport": false, "preserve_uri": false }));
    let run = off.on_request(natted("INVITE"));
    assert!(!run.nat.force_rport);
    assert_eq!(
        set(&run, "Contact").as_deref(),
        Some("<sip:alice@198.51.100.7:31000>")
    );
}
