//! Record-Route and its return over real sockets: pairs over transports and addresses, strict
//! routers, target refresh, presets, restarts, and what is not believed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::net::SocketAddr;

use sipbox_tests::agent::Dialog;
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Message, Setup, Sipbox, Sipp, Transport, guest};

/// A tenant with the policy that record-routes as these settings (TOML) say, and perhaps
/// others behind it.
fn tenant(settings: &str) -> String {
    format!(
        "[[tenant]]\nname = \"home\"\ndomains = [\"{DOMAIN}\"]\ngrants = [\"auth\", \"location\", \"nat\", \"dialogs\", \"leases\"]\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {{ {settings} }}\n",
        guest::record_route().display()
    )
}

/// A listener more.
fn listener(name: &str, transport: &str, address: SocketAddr) -> String {
    format!(
        "[[listener]]\nname = \"{name}\"\ntransport = \"{transport}\"\naddress = \"{address}\"\n\
         tenant = \"home\"\n"
    )
}

fn start(net: &Loopback, settings: &str) -> Sipbox {
    Setup::new(net)
        .tenants(&tenant(settings))
        .default_tenant("home")
        .start()
}

/// UDP on one address and TCP on another: INFO, UPDATE and re-INVITE from both sides, and the
/// BYE of the callee, find their way through both values.
#[test]
fn both_sides_of_a_dialog_reach_each_other_through_a_pair() {
    let net = Loopback::new();
    let (alice, bob, outside) = (net.sip(), net.sip(), net.sip());
    let settings =
        format!("target = \"sip:bob@{bob};transport=tcp\", record = [[\"nat\", \"yes\"]]");
    let _sipbox = Setup::new(&net)
        .tenants(&tenant(&settings))
        .default_tenant("home")
        .with(&listener("outside", "udp", outside))
        .start();
    let uas = Sipp::new("uas_dialog", bob)
        .over(Transport::Tcp)
        .calls(10, 10)
        .start();
    let uac = Sipp::new("uac_dialog", alice)
        .to(outside)
        .calls(10, 10)
        .key("domain", DOMAIN)
        .key("target", "bob@lab.test")
        .run();
    let uas = uas.finish();
    assert_eq!((uac.retransmissions, uas.retransmissions), (0, 0));
    assert_eq!((uac.unexpected, uas.unexpected), (0, 0));
}

/// From IPv4 to IPv6 and back: neither side could reach the other's address of ours.
#[test]
fn both_sides_of_a_dialog_reach_each_other_over_address_families() {
    let net = Loopback::new();
    let free = || {
        let socket = std::net::UdpSocket::bind("[::1]:0").unwrap();
        socket.local_addr().unwrap()
    };
    let (six, at) = (free(), free());
    let sipbox = Setup::new(&net)
        .tenants(&tenant(&format!("target = \"sip:bob@{at}\", record = []")))
        .default_tenant("home")
        .with(&listener("six", "udp", six))
        .start();
    let mut bob = Agent::udp("bob", DOMAIN, at, six);
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let invite = alice.request("INVITE", "sip:bob@lab.test");
    alice.send(&invite);
    let arrived = bob.expect_request("INVITE");
    let recorded = arrived.values("Record-Route");
    assert!(
        recorded[0].starts_with(&format!("<sip:{six};r2=on;lr;")),
        "{arrived}"
    );
    assert!(recorded[1].starts_with(&format!("<sip:{};r2=on;lr;", sipbox.address)));
    let answer = bob.respond(&arrived, 200, "OK");
    let ok = alice.expect(&invite, 200);
    let mut at_alice = Dialog::of_caller(&invite, &ok);
    let mut at_bob = Dialog::of_callee(&arrived, &answer);
    let ack = at_alice.request(&alice, "ACK");
    alice.send(&ack);
    bob.expect_request("ACK");
    let info = at_bob.request(&bob, "INFO");
    bob.send(&info);
    let arrived = alice.expect_request("INFO");
    alice.respond(&arrived, 200, "OK");
    bob.expect(&info, 200);
    let bye = at_alice.request(&alice, "BYE");
    alice.send(&bye);
    let arrived = bob.expect_request("BYE");
    bob.respond(&arrived, 200, "OK");
    alice.expect(&bye, 200);
}

struct Call {
    sipbox: Sipbox,
    alice: Agent,
    bob: Agent,
    /// Of Alice's INVITE, as Bob got it.
    arrived: Message,
    invite: Message,
}

/// Alice calls Bob, who has not answered yet.
fn ringing(settings: &str) -> Call {
    let net = Loopback::new();
    let at = net.sip();
    let target = format!("target = \"sip:bob@{at}\"");
    let comma = if settings.is_empty() { "" } else { ", " };
    let sipbox = start(&net, &format!("{target}{comma}{settings}"));
    let mut bob = Agent::udp("bob", DOMAIN, at, sipbox.address);
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let invite = alice.request("INVITE", "sip:bob@lab.test");
    alice.send(&invite);
    let arrived = bob.expect_request("INVITE");
    Call {
        sipbox,
        alice,
        bob,
        arrived,
        invite,
    }
}

impl Call {
    /// Bob answers; both sides of the dialog, Alice's first.
    fn answer(&mut self) -> (Dialog, Dialog) {
        let answer = self.bob.respond(&self.arrived, 200, "OK");
        let ok = self.alice.expect(&self.invite, 200);
        let mut at_alice = Dialog::of_caller(&self.invite, &ok);
        let ack = at_alice.request(&self.alice, "ACK");
        self.alice.send(&ack);
        self.bob.expect_request("ACK");
        (at_alice, Dialog::of_callee(&self.arrived, &answer))
    }

    /// What Bob gets of a request of Alice's; he answers it.
    fn downstream(&mut self, request: &Message) -> Message {
        self.alice.send(request);
        let arrived = self.bob.expect_request(&request.method());
        self.bob.respond(&arrived, 200, "OK");
        self.alice.expect(request, 200);
        arrived
    }

    /// What Alice gets of a request of Bob's; she answers it.
    fn upstream(&mut self, request: &Message) -> Message {
        self.bob.send(request);
        let arrived = self.alice.expect_request(&request.method());
        self.alice.respond(&arrived, 200, "OK");
        self.bob.expect(request, 200);
        arrived
    }
}

#[test]
fn policies_hear_of_their_parameters_and_of_the_direction() {
    let mut call = ringing("record = [[\"nat\", \"yes\"]], add = [[\"x\", \"1\"]]");
    assert_eq!(call.arrived.get("X-Asked"), "ok ok");
    let (mut at_alice, mut at_bob) = call.answer();
    let info = at_alice.request(&call.alice, "INFO");
    let arrived = call.downstream(&info);
    assert_eq!(arrived.get("X-Route"), "loose valid downstream matches yes");
    let info = at_bob.request(&call.bob, "INFO");
    let arrived = call.upstream(&info);
    assert_eq!(arrived.get("X-Route"), "loose valid upstream matches yes");
}

/// The secret lies in a file: who was in a call stays in it.
#[test]
fn a_dialog_outlives_a_restart() {
    let mut call = ringing("record = [[\"nat\", \"yes\"]]");
    let (_, mut at_bob) = call.answer();
    call.sipbox.kill();
    call.sipbox.start_again();
    let bye = at_bob.request(&call.bob, "BYE");
    let arrived = call.upstream(&bye);
    assert_eq!(arrived.get("X-Route"), "loose valid upstream matches yes");
    let key = std::fs::metadata(call.sipbox.file("sipbox.key")).unwrap();
    assert_eq!(key.len(), 65);
}

/// The residential policy lets nobody in who only writes a To tag.
#[test]
fn forged_routes_are_refused() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "")
        .user("bob@lab.test", "secret")
        .start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    bob.register("secret");
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let invite = alice.request("INVITE", "sip:bob@lab.test");
    alice.send(&invite);
    let arrived = bob.expect_request("INVITE");
    bob.respond(&arrived, 200, "OK");
    let ok = alice.expect(&invite, 200);
    let mut dialog = Dialog::of_caller(&invite, &ok);
    let real = dialog.request(&alice, "BYE");
    let victim = net.sip();
    for route in [
        format!("<sip:{};lr>", sipbox.address),
        real.get("Route").replace(";sig=", ";nat=yes;sig="),
    ] {
        let mut forged = real.clone();
        forged.set("Route", &route);
        forged.set("Via", alice.via());
        forged.set_request_uri(&format!("sip:anybody@{victim}"));
        alice.send(&forged);
        alice.expect(&forged, 403);
    }
    // Taken over into another dialog.
    let mut stolen = real.clone();
    stolen.set("Call-ID", "another");
    stolen.set("Via", alice.via());
    alice.send(&stolen);
    alice.expect(&stolen, 403);
    alice.send(&real);
    let arrived = bob.expect_request("BYE");
    bob.respond(&arrived, 200, "OK");
    alice.expect(&real, 200);
}

/// RFC 3261 16.4 and 16.6 step 6: on either side of us a router may be strict.
#[test]
fn strict_routers_are_understood_on_either_side() {
    let mut call = ringing("record = [[\"nat\", \"yes\"]]");
    // Between us and Bob a strict router records itself.
    let strict = call.bob.link.local();
    let mut answer = call.arrived.clone();
    answer.insert_first("Record-Route", format!("<sip:strict@{strict}>"));
    call.arrived = answer;
    let (mut at_alice, _) = call.answer();
    let info = at_alice.request(&call.alice, "INFO");
    let target = info.request_uri().to_owned();
    let arrived = call.downstream(&info);
    assert_eq!(arrived.request_uri(), format!("sip:strict@{strict}"));
    assert_eq!(arrived.values("Route"), [format!("<{target}>")]);

    // And one between Alice and us: it puts our value into the Request-URI, and the target
    // at the end of the route set.
    let mut call = ringing("record = [[\"nat\", \"yes\"]]");
    let (mut at_alice, _) = call.answer();
    let mut info = at_alice.request(&call.alice, "INFO");
    let ours = info.get("Route").trim_matches(['<', '>']).to_owned();
    let target = info.request_uri().to_owned();
    info.set("Route", format!("<{target}>"));
    info.set_request_uri(&ours);
    let arrived = call.downstream(&info);
    assert_eq!(arrived.request_uri(), target);
    assert!(arrived.header("Route").is_none(), "{arrived}");
    assert_eq!(
        arrived.get("X-Route"),
        "strict valid downstream matches yes"
    );
}

/// RFC 3261 12.2: a re-INVITE names another Contact, and the next request goes there.
#[test]
fn a_target_refresh_changes_where_requests_go() {
    let mut call = ringing("record = []");
    let (mut at_alice, mut at_bob) = call.answer();
    let moved = Loopback::new().sip();
    let mut elsewhere = Agent::udp("alice", DOMAIN, moved, call.sipbox.address);
    let mut again = at_alice.request(&call.alice, "INVITE");
    again.set("Contact", format!("<sip:alice@{moved}>"));
    call.alice.send(&again);
    let arrived = call.bob.expect_request("INVITE");
    assert!(arrived.get("Contact").contains(&moved.to_string()));
    call.bob.respond(&arrived, 200, "OK");
    call.alice.expect(&again, 200);
    at_bob.retarget(&format!("sip:alice@{moved}"));
    let bye = at_bob.request(&call.bob, "BYE");
    call.bob.send(&bye);
    let arrived = elsewhere.expect_request("BYE");
    elsewhere.respond(&arrived, 200, "OK");
    call.bob.expect(&bye, 200);
}

#[test]
fn presets_are_written_and_those_of_strangers_are_logged() {
    let call = ringing("preset = [\"edge.example:5070\", \"inside.example;transport=tcp\"]");
    let values = call.arrived.values("Record-Route");
    assert!(
        values[0].starts_with("<sip:edge.example:5070;r2=on;lr;"),
        "{values:?}"
    );
    assert!(
        values[1].starts_with("<sip:inside.example;transport=tcp;r2=on;lr;"),
        "{values:?}"
    );
    let line = call
        .sipbox
        .logged("record-route-preset names no listener and no alias");
    assert!(line.contains("edge.example:5070"), "{line}");
}

/// A policy that does not think of it is no open relay.
#[test]
fn a_preloaded_route_is_followed_for_those_only_who_say_so() {
    for (settings, followed, left) in [
        ("", false, 0),
        ("preloaded = \"follow\"", true, 1),
        ("preloaded = \"strip\"", true, 0),
    ] {
        let net = Loopback::new();
        let (at, far) = (net.sip(), net.sip());
        let target = format!("target = \"sip:bob@{at}\"");
        let comma = if settings.is_empty() { "" } else { ", " };
        let sipbox = start(&net, &format!("{target}{comma}{settings}"));
        let mut bob = Agent::udp("bob", DOMAIN, at, sipbox.address);
        let mut stranger = Agent::udp("stranger", DOMAIN, far, sipbox.address);
        let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
        let invite = alice.request("INVITE", "sip:bob@lab.test").with(
            "Route",
            format!("<sip:{};lr>, <sip:{far};lr>", sipbox.address),
        );
        alice.send(&invite);
        if !followed {
            let refused = alice.expect(&invite, 403);
            assert_eq!(refused.reason(), "Preload Route denied");
            alice.acknowledge(&invite, &refused);
            continue;
        }
        let next = if left == 1 { &mut stranger } else { &mut bob };
        let arrived = next.expect_request("INVITE");
        assert_eq!(arrived.values("Route").len(), left, "{arrived}");
        next.respond(&arrived, 486, "Busy Here");
        let busy = alice.expect(&invite, 486);
        alice.acknowledge(&invite, &busy);
    }
}

/// The options stand in `[record_route]`, and a reload changes them.
#[test]
fn the_options_are_settings() {
    let net = Loopback::new();
    let at = net.sip();
    let options = "[record_route]\nappend_fromtag = false\nenable_full_lr = true\n\
                   add_username = true\nsign = false\n";
    let sipbox = Setup::new(&net)
        .tenants(&tenant(&format!("target = \"sip:bob@{at}\", record = []")))
        .default_tenant("home")
        .with(options)
        .start();
    let mut bob = Agent::udp("bob", DOMAIN, at, sipbox.address);
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let invite = alice.request("INVITE", "sip:bob@lab.test");
    alice.send(&invite);
    let arrived = bob.expect_request("INVITE");
    let expected = format!("<sip:bob@{};lr=on>", sipbox.address);
    assert_eq!(arrived.values("Record-Route"), [expected]);
    bob.respond(&arrived, 486, "Busy Here");
    let busy = alice.expect(&invite, 486);
    alice.acknowledge(&invite, &busy);
}
