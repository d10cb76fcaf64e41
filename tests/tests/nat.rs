//! Phones behind address translation: real ones, behind two routers that translate
//! addresses and ports and forget mappings soon.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use sipbox_tests::baresip::Baresip;
use sipbox_tests::nat::{FORGETS, PHONE, Place, Translated};
use sipbox_tests::sipbox::{DOMAIN, Sipbox, residential};
use sipbox_tests::{Setup, guest};

/// The NAT policy in front of the residential one, and pings in this interval.
fn start(net: &Translated, interval: &str) -> Sipbox {
    let tenant = format!(
        "[[tenant]]\nname = \"home\"\ndomains = [\"{DOMAIN}\"]\n\
         grants = [\"auth\", \"location\", \"nat\", \"dialogs\", \"leases\"]\n\
         [[tenant.policy]]\ncomponent = \"{}\"\n\
         settings = {{ ping = \"sip-remove\", sdp = [\"rewrite-media-ip\"] }}\n\
         [[tenant.policy]]\nbuiltin = \"residential\"\nsettings = {}\n",
        guest::nat().display(),
        residential(DOMAIN, net.proxy(), "auth = \"all\"")
    );
    let setup = Setup::at(net.proxy())
        .tenants(&tenant)
        .default_tenant("home")
        .with(&format!(
            "[nathelper]\nnatping_interval = \"{interval}\"\nping_threshold = \"500ms\"\n\
             [timers]\nb = \"2s\"\nf = \"2s\"\n"
        ))
        .user("alice@lab.test", "alice-secret")
        .user("bob@lab.test", "bob-secret");
    net.at(Place::Public, || setup.start())
}

fn phone(net: &Translated, place: Place, user: &str) -> Baresip {
    let mut phone = net.at(place, || {
        Baresip::start(
            user,
            DOMAIN,
            &format!("{user}-secret"),
            PHONE.parse().unwrap(),
            net.proxy(),
            "udp",
        )
    });
    phone.wait_registered();
    phone
}

fn contact(sipbox: &Sipbox, user: &str) -> Value {
    let aor = format!("{user}@{DOMAIN}");
    let shown = sipbox.rpc("ul_show_contact", &json!(["location", aor]));
    shown["Contacts"][0].clone()
}

#[test]
fn phones_behind_two_translations_stay_reachable_and_talk() {
    let net = Translated::new();
    let sipbox = start(&net, "1s");
    let mut alice = phone(&net, Place::First, "alice");
    let mut bob = phone(&net, Place::Second, "bob");

    for (user, router) in [("alice", "203.0.113.1"), ("bob", "203.0.113.2")] {
        let contact = contact(&sipbox, user);
        let named = contact["Contact"].as_str().unwrap();
        assert!(named.contains(PHONE), "{contact}");
        let received = contact["Received"].as_str().unwrap();
        assert!(
            received.starts_with(&format!("sip:{router}:31")),
            "{contact}"
        );
        assert_eq!(contact["Cflags"], "NAT SIP_PING_FLAG RM_ONTO_FLAG");
    }

    // Without pings the routers would have forgotten both.
    sleep(3 * FORGETS);
    let answered = sipbox.statistic("nathelper:pings_answered");
    assert!(answered >= 10, "{answered} pings were answered");

    alice.call("sip:bob@lab.test");
    bob.wait_for("CALL_ESTABLISHED");
    sleep(FORGETS + Duration::from_secs(1));
    alice.hang_up();
    bob.wait_for("CALL_CLOSED");
    for phone in [&mut alice, &mut bob] {
        let (sent, received) = phone.packets();
        assert!(
            sent > 60 && received > 60,
            "sent {sent}, received {received}"
        );
    }

    // The other way round: requests of the dialog from either side, each with a Contact of
    // its own, and the callee hangs up.
    bob.call("sip:alice@lab.test");
    alice.wait_for("CALL_ESTABLISHED");
    let before = sipbox.statistic("tm:2xx_transactions");
    for phone in [&mut alice, &mut bob] {
        phone.hold();
        sleep(Duration::from_millis(500));
        phone.resume();
        sleep(Duration::from_millis(500));
    }
    let reinvites = sipbox.statistic("tm:2xx_transactions") - before;
    assert!(reinvites >= 4, "{reinvites} of 4 re-INVITEs were answered");
    sleep(FORGETS);
    alice.hang_up();
    bob.wait_for("CALL_CLOSED");

    assert_eq!(sipbox.statistic("nathelper:removed_contacts"), 0);
    assert_eq!(sipbox.statistic("tm:timeout_finalresponse"), 0);

    // Who does not answer any more is gone before the registration ends.
    alice.kill();
    sipbox_tests::process::wait_until(
        "alice's binding is removed",
        Duration::from_secs(10),
        || sipbox.statistic("nathelper:removed_contacts") == 1,
    );
    assert_eq!(sipbox.statistic("usrloc:registered_users"), 1);
    bob.quit();
}

/// The same without pings: what they are for.
#[test]
fn without_pings_a_translation_forgets_the_phone() {
    let net = Translated::new();
    let sipbox = start(&net, "0s");
    let _alice = phone(&net, Place::First, "alice");
    let mut bob = phone(&net, Place::Second, "bob");
    sleep(2 * FORGETS);
    bob.call_in_vain("sip:alice@lab.test");
    assert_eq!(sipbox.statistic("nathelper:pings_sent"), 0);
}

#[test]
fn pings_are_stopped_and_go_on_by_command() {
    let net = Translated::new();
    let sipbox = start(&net, "1s");
    let _alice = phone(&net, Place::First, "alice");
    let status = |params: Value| sipbox.rpc("nathelper:enable_ping", &params);
    assert_eq!(status(json!([])), json!({ "Status": 1 }));
    assert_eq!(status(json!([0])), json!({ "Status": 0 }));
    sleep(Duration::from_millis(300));
    let sent = sipbox.statistic("nathelper:pings_sent");
    sleep(Duration::from_millis(2500));
    assert_eq!(sipbox.statistic("nathelper:pings_sent"), sent);
    let again = sipbox.rpc("nh_enable_ping", &json!([1]));
    assert_eq!(again, json!({ "Status": 1 }));
    sipbox_tests::process::wait_until("pings", Duration::from_secs(5), || {
        sipbox.statistic("nathelper:pings_sent") > sent
    });
}
