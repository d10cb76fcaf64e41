//! Our Record-Route (RFC 3261 16.6 step 4, RFC 5658), and its return.

use super::routes::{DIALOG, facts_of};
use super::*;
use crate::policy::{
    BranchRoute, Direction, RecordRouting, RouteOutcome, RoutePreset, RouteSignature,
};

const TCP_BOB: &str = "192.0.2.2:5060;transport=tcp";

fn recorded(to: &'static str, params: &[(&str, &str)]) -> Ruling {
    Ruling::Relay(Relay {
        groups: vec![targets(&[to])],
        record_route: Some(pairs(params)),
        ..Relay::default()
    })
}

fn pairs(params: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    params.iter().map(pair).collect()
}

/// The Record-Route values of an INVITE that Alice sends to Bob, the upper first.
fn values(spec: SettingsSpec, to: &'static str, params: &'static [(&str, &str)]) -> Vec<String> {
    let mut rig = Rig::with(spec, move |_, _| recorded(to, params));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    invite.all("Record-Route")
}

/// A request of that dialog from Alice, or from Bob.
fn back(method: &str, routes: &[String], upstream: bool) -> String {
    let routes: String = routes.iter().map(|r| format!("Route: {r}\r\n")).collect();
    let extra = format!("{DIALOG}{routes}");
    let text = request_to(method, "sip:bob@192.0.2.2", "2", &extra);
    let text = text.replace("Call-ID: call-2", "Call-ID: call-1");
    if !upstream {
        return text;
    }
    text.replace(";tag=a1", ";tag=x")
        .replace(";tag=b1", ";tag=a1")
        .replace(";tag=x", ";tag=b1")
}

#[test]
fn it_tells_direction_and_tenant_later() {
    for sign in [true, false] {
        let mut two = spec();
        two.record_route.sign = sign;
        two.tenants.push(TenantSpec {
            id: TenantId(1),
            name: "way 2".into(),
            domains: vec!["work.example".into()],
            stateless: vec![],
            transactions: None,
            quota: Default::default(),
        });
        let mut rig = Rig::with(two.clone(), |_, _| recorded(BOB, &[("nat", "yes")]));
        let invite = request_to("INVITE", "sip:bob@Work.Example", "1", "");
        rig.receive(&invite, udp(ALICE));
        let [_, sent] = rig.take_n();
        let routes = sent.all("Record-Route");
        let expected = "<sip:192.0.2.100:5060;lr;tn=way%202;ftag=a1;nat=yes";
        assert!(routes[0].starts_with(expected), "{routes:?}");
        assert_eq!(routes[0].contains(";sig="), sign);
        for (upstream, direction) in [(false, Direction::Downstream), (true, Direction::Upstream)] {
            let (facts, _) = facts_of(two.clone(), &back("BYE", &routes, upstream));
            assert_eq!(
                (facts.tenant, facts.direction),
                (TenantId(1), direction),
                "{sign}"
            );
            assert_eq!(&*facts.tenant_name, "way 2");
            let params = String::from_utf8_lossy(&facts.route_params).into_owned();
            assert!(params.contains(";nat=yes"), "{params}");
            let signature = if sign {
                RouteSignature::Valid
            } else {
                RouteSignature::None
            };
            assert_eq!(facts.route_signature, signature);
        }
    }
}

#[test]
fn a_change_of_transport_is_recorded_on_both_sides() {
    let routes = values(spec(), TCP_BOB, &[]);
    assert!(
        routes[0].starts_with("<sip:192.0.2.100:5060;transport=tcp;r2=on;lr;ftag=a1;sig="),
        "{routes:?}"
    );
    assert!(
        routes[1].starts_with("<sip:192.0.2.100:5060;r2=on;lr;ftag=a1;sig="),
        "{routes:?}"
    );
    assert_eq!(routes.len(), 2);
    // Both come off together, and the second says where the request leaves. Alice's
    // requests bring them in the other order.
    let (facts, text) = facts_of(spec(), &back("BYE", &routes, true));
    assert_eq!(facts.leaves, Some(UDP));
    assert_eq!(facts.route_signature, RouteSignature::Valid);
    assert_eq!(all(&text, "Route").len(), 0);
    let mut turned = routes.clone();
    turned.reverse();
    let (facts, text) = facts_of(spec(), &back("BYE", &turned, false));
    assert_eq!(facts.leaves, Some(TCP));
    assert_eq!(facts.direction, Direction::Downstream);
    assert_eq!(all(&text, "Route").len(), 0);
    // Without the pair there is one value, of the side that the request leaves.
    let mut single = spec();
    single.record_route.enable_double_rr = false;
    let routes = values(single, TCP_BOB, &[]);
    assert_eq!(routes.len(), 1);
    assert!(routes[0].starts_with("<sip:192.0.2.100:5060;transport=tcp;lr;"));
}

#[test]
fn a_change_of_address_family_is_recorded_on_both_sides() {
    let mut both = spec();
    let mut six = both.listeners[0].clone();
    six.name = "six".into();
    six.address = "[2001:db8::100]:5060".parse().unwrap();
    both.listeners.push(six);
    let routes = values(both.clone(), "[2001:db8::2]:5060", &[]);
    assert!(routes[0].starts_with("<sip:[2001:db8::100]:5060;r2=on;lr;"));
    assert!(routes[1].starts_with("<sip:192.0.2.100:5060;r2=on;lr;"));
    assert_eq!(routes.len(), 2);
    let (facts, text) = facts_of(both.clone(), &back("BYE", &routes, true));
    assert_eq!((facts.leaves, all(&text, "Route").len()), (Some(UDP), 0));
    let mut turned = routes;
    turned.reverse();
    let (facts, text) = facts_of(both, &back("BYE", &turned, false));
    assert_eq!(
        (facts.leaves, all(&text, "Route").len()),
        (Some(ListenerId(2)), 0)
    );
    assert_eq!(facts.direction, Direction::Downstream);
}

/// Two listeners of one transport: the second value is the only one who knows from which
/// of them the other side is used to hear.
#[test]
fn a_request_of_a_dialog_leaves_from_the_listener_that_its_pair_names() {
    let mut two = spec();
    let mut inside = two.listeners[0].clone();
    inside.name = "inside".into();
    inside.address = "10.0.0.1:5060".parse().unwrap();
    two.listeners.push(inside);
    let mut rig = Rig::with(two, |_, _| Ruling::Relay(Relay::default()));
    rig.settings = {
        let mut spec = spec();
        spec.record_route.sign = false;
        spec.listeners = rig
            .settings
            .listeners()
            .iter()
            .map(|l| ListenerSpec {
                name: (*l.name).into(),
                transport: l.transport,
                address: l.address,
                advertised: None,
                tenant: None,
                stateless: vec![],
            })
            .collect();
        Arc::new(Settings::new(spec).unwrap())
    };
    let routes = [
        "<sip:192.0.2.100:5060;r2=on;lr>".to_owned(),
        "<sip:10.0.0.1:5060;r2=on;lr>".to_owned(),
    ];
    rig.receive(&back("BYE", &routes, false), udp(ALICE));
    let [bye] = rig.take_n();
    assert!(bye.all("Via")[0].starts_with("SIP/2.0/UDP 10.0.0.1:5060;"));
    rig.receive(
        &back("ACK", &routes, false).replace("z9hG4bK2", "z9hG4bK3"),
        udp(ALICE),
    );
    let [ack] = rig.take_n();
    assert!(ack.all("Via")[0].starts_with("SIP/2.0/UDP 10.0.0.1:5060;"));
    // One value says no more than where the request came to.
    let one = &routes[1..];
    rig.receive(
        &back("INFO", one, false).replace("z9hG4bK2", "z9hG4bK4"),
        udp(ALICE),
    );
    let [info] = rig.take_n();
    assert!(info.all("Via")[0].starts_with("SIP/2.0/UDP 192.0.2.100:5060;"));
}

#[test]
fn a_strict_router_brings_a_pair_back() {
    let routes = values(spec(), TCP_BOB, &[("nat", "yes")]);
    let own = routes[0].trim_matches(['<', '>']);
    let extra = format!("{DIALOG}Route: {}, <sip:bob@192.0.2.2>\r\n", routes[1]);
    let (facts, text) = facts_of(spec(), &request_to("BYE", own, "1", &extra));
    assert_eq!(facts.route_outcome, RouteOutcome::Strict);
    assert_eq!(facts.route_signature, RouteSignature::Valid);
    assert_eq!(facts.leaves, Some(UDP));
    assert!(
        text.starts_with("BYE sip:bob@192.0.2.2 SIP/2.0\r\n"),
        "{text}"
    );
    assert_eq!(all(&text, "Route").len(), 0);
    // Nobody is left to send it to.
    let extra = format!("{DIALOG}Route: {}\r\n", routes[1]);
    let (facts, _) = facts_of(spec(), &request_to("BYE", own, "2", &extra));
    assert_eq!(facts.route_outcome, RouteOutcome::None);
    // A GRUU of ours is no Record-Route value (RFC 5627).
    let gruu = "sip:192.0.2.100;lr;gr=x";
    let extra = format!("{DIALOG}Route: <sip:bob@192.0.2.2;lr>\r\n");
    let (facts, text) = facts_of(spec(), &request_to("BYE", gruu, "2", &extra));
    assert_eq!(facts.route_outcome, RouteOutcome::Foreign);
    assert!(text.starts_with(&format!("BYE {gruu} ")), "{text}");
}

/// What somebody forges, takes over from another dialog, or adds, is not told.
#[test]
fn parameters_count_in_the_dialog_that_they_were_written_for_only() {
    let routes = values(spec(), BOB, &[("nat", "yes")]);
    let good = back("BYE", &routes, false);
    let signature = |text: &str| {
        let (facts, _) = facts_of(spec(), text);
        let told = !facts.route_params.is_empty();
        let known = facts.direction != Direction::Unknown;
        assert_eq!(told, facts.route_signature == RouteSignature::Valid);
        assert_eq!(known, told);
        assert_eq!(facts.route_outcome, RouteOutcome::Loose);
        facts.route_signature
    };
    assert_eq!(signature(&good), RouteSignature::Valid);
    for (from, to) in [
        (";nat=yes", ";nat=no"),
        (";nat=yes", ""),
        (";nat=yes", ";nat=yes;did=1.2"),
        (";sig=", ";gis="),
        (";sig=", ";sig=x"),
        ("Call-ID: ", "Call-ID: x"),
        ("tag=a1", "tag=a2"),
        (";ftag=a1", ";ftag=b1"),
    ] {
        assert_ne!(good.replace(from, to), good);
        assert_eq!(
            signature(&good.replace(from, to)),
            RouteSignature::Invalid,
            "{from} -> {to}"
        );
    }
    // User agents have their own ideas of `lr`, and some write names in capitals.
    for (from, to) in [(";lr;", ";lr=on;"), (";nat=", ";NAT="), (";lr;", ";LR;")] {
        let text = good.replace(from, to);
        assert_ne!(text, good);
        assert_eq!(signature(&text), RouteSignature::Valid, "{from} -> {to}");
    }
}

/// Neither the tenant nor the listener is for strangers to choose.
#[test]
fn a_forged_route_chooses_neither_tenant_nor_listener() {
    let mut two = spec();
    two.tenants.push(TenantSpec {
        id: TenantId(1),
        name: "work".into(),
        domains: vec!["work.example".into()],
        ..two.tenants[0].clone()
    });
    let forged = [
        "<sip:192.0.2.100:5060;r2=on;lr;tn=work>".to_owned(),
        "<sip:192.0.2.100:5060;transport=tcp;r2=on;lr;tn=work>".to_owned(),
    ];
    let request = back("BYE", &forged, false).replace("@192.0.2.2 ", "@home.example ");
    let (facts, _) = facts_of(two, &request);
    assert_eq!(facts.route_signature, RouteSignature::Invalid);
    assert_eq!(facts.tenant, TenantId(0));
    assert_eq!(facts.leaves, None);
}

/// Each value of a pair is signed with its address: nobody chooses another way out by a
/// second value that he writes, or by another host in ours.
#[test]
fn the_second_value_of_a_pair_is_ours_too() {
    let routes = values(spec(), TCP_BOB, &[]);
    let [tcp, udp] = [routes[0].clone(), routes[1].clone()];
    let says = |pair: [String; 2]| {
        let (facts, _) = facts_of(spec(), &back("INFO", &pair, true));
        (facts.route_signature, facts.leaves)
    };
    let good = says([tcp.clone(), udp.clone()]);
    assert_eq!(good, (RouteSignature::Valid, Some(UDP)));
    let (unsigned, _) = udp.split_once(";sig=").unwrap();
    for second in [
        format!("{unsigned}>"),
        udp.replace(";sig=", ";sig=a"),
        udp.replace("192.0.2.100:5060", "192.0.2.100"),
    ] {
        assert_ne!(second, udp);
        let found = says([tcp.clone(), second.clone()]);
        assert_eq!(found, (RouteSignature::Invalid, None), "{second}");
    }
}

/// After its lifetime a signature says less: the dialog was here, long ago.
#[test]
fn a_signature_expires() {
    let routes = values(spec(), BOB, &[("nat", "yes")]);
    let hour = 3_600_000;
    for (later, expected) in [
        (0, RouteSignature::Valid),
        (11 * hour, RouteSignature::Valid),
        (13 * hour, RouteSignature::Expired),
        (1000 * hour, RouteSignature::Expired),
    ] {
        let mut rig = Rig::undecided();
        rig.now = Time::from_millis(1000 + later);
        rig.receive(&back("BYE", &routes, false), udp(ALICE));
        let Some(Ask::Request { facts, .. }) = rig.asks.pop() else {
            panic!("no question");
        };
        assert_eq!(facts.route_signature, expected, "{later} ms");
        assert!(!facts.route_params.is_empty());
        assert_eq!(facts.direction, Direction::Downstream);
    }
    // The time is signed as well.
    let [route] = routes.as_slice() else {
        panic!("{routes:?}")
    };
    let (head, _) = route.split_at(route.len() - 5);
    let (facts, _) = facts_of(spec(), &back("BYE", &[format!("{head}ffff>")], false));
    assert_eq!(facts.route_signature, RouteSignature::Invalid);
}

/// Another key is another proxy; the same key is the same one after a restart.
#[test]
fn the_key_of_routes_outlives_the_others() {
    let routes = values(spec(), BOB, &[("nat", "yes")]);
    for (route_key, expected) in [
        ([4; 16], RouteSignature::Valid),
        ([5; 16], RouteSignature::Invalid),
    ] {
        let mut rig = Rig::new(|_, _| Ruling::Drop);
        rig.judge = None;
        rig.stack = Stack::new(StackOptions {
            shards: 4,
            node: 2,
            boot: 77,
            key: [9; 16],
            route_key,
        });
        rig.receive(&back("BYE", &routes, false), udp(ALICE));
        let Some(Ask::Request { facts, .. }) = rig.asks.pop() else {
            panic!("no question");
        };
        assert_eq!(facts.route_signature, expected);
    }
}

/// A route to us that somebody has configured for its first requests has no parameters to
/// be signed. In a dialog ours always has some.
#[test]
fn a_bare_route_proves_nothing() {
    for (dialog, signature) in [
        ("", RouteSignature::None),
        (DIALOG, RouteSignature::Invalid),
    ] {
        let extra = format!("{dialog}Route: <sip:192.0.2.100;lr>\r\n");
        let (facts, _) = facts_of(spec(), &request("OPTIONS", "1", &extra));
        assert_eq!(facts.route_signature, signature);
    }
    let extra = "Route: <sip:192.0.2.100;lr;nat=yes>\r\n";
    let (facts, _) = facts_of(spec(), &request("OPTIONS", "1", extra));
    assert_eq!(facts.route_signature, RouteSignature::Invalid);
    assert!(facts.route_params.is_empty());
}

#[test]
fn the_options_are_opensips_own() {
    let mut bare = spec();
    bare.record_route = crate::settings::RecordRouteSpec {
        append_fromtag: false,
        enable_full_lr: true,
        add_username: true,
        ignore_user: Some("carol".into()),
        sign: false,
        ..Default::default()
    };
    let routes = values(bare.clone(), BOB, &[("x", ""), ("y", "1")]);
    assert_eq!(routes, ["<sip:bob@192.0.2.100:5060;lr=on;x;y=1>"]);
    let (facts, _) = facts_of(bare.clone(), &back("BYE", &routes, false));
    assert_eq!(facts.route_outcome, RouteOutcome::Loose);
    assert_eq!(facts.direction, Direction::Unknown);
    let carol = ["<sip:carol@192.0.2.100:5060;lr>".to_owned()];
    let (facts, _) = facts_of(bare, &back("BYE", &carol, false));
    assert_eq!(facts.route_outcome, RouteOutcome::Foreign);
}

#[test]
fn a_preset_stands_for_our_addresses() {
    let mut rig = Rig::new(|_, _| {
        Ruling::Relay(Relay {
            groups: vec![targets(&[BOB])],
            ..Relay::default()
        })
    });
    let preset = |outbound: &str, inbound: Option<&str>| RecordRouting {
        preset: Some(Box::new(RoutePreset {
            outbound: outbound.into(),
            inbound: inbound.map(Into::into),
        })),
    };
    rig.state.record_route = Some(preset("edge.example:5070;transport=tcp", None));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    let [route] = &invite.all("Record-Route")[..] else {
        panic!("{}", invite.text);
    };
    assert!(
        route.starts_with("<sip:edge.example:5070;transport=tcp;lr;ftag=a1;sig="),
        "{route}"
    );
    rig.state.record_route = Some(preset("out.example", Some("in.example;x=1")));
    rig.receive(&request("INVITE", "2", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    let routes = invite.all("Record-Route");
    assert!(routes[0].starts_with("<sip:out.example;r2=on;lr;ftag=a1;sig="));
    assert!(routes[1].starts_with("<sip:in.example;x=1;r2=on;lr;ftag=a1;sig="));
    assert_eq!(routes.len(), 2);
}

/// `add_rr_param` before or after `record_route`: verdict, policies and branch add up, and
/// of one name the last counts.
#[test]
fn parameters_of_all_add_up() {
    let mut rig = Rig::undecided();
    rig.armed = Armed {
        branch: true,
        ..Armed::default()
    };
    rig.state.route_params = pairs(&[("nat", "yes"), ("A", "2")]);
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    assert!(rig.answer(Ruling::Relay(Relay {
        groups: vec![targets(&[BOB, CAROL])],
        record_route: Some(pairs(&[("a", "1"), ("b", "")])),
        ..Relay::default()
    })));
    rig.take();
    for more in [&[("c", "3")][..], &[]] {
        let at = rig
            .asks
            .iter()
            .position(|ask| matches!(ask, Ask::Branch { .. }));
        let Ask::Branch {
            id, request, state, ..
        } = rig.asks.remove(at.unwrap())
        else {
            unreachable!()
        };
        let verdict = crate::stack::BranchVerdict {
            keep: true,
            request,
            route: BranchRoute {
                record_route: None,
                params: pairs(more),
            },
            state,
        };
        assert!(rig.call(|stack, env, out| stack.branch_verdict(env, id, verdict, out)));
    }
    let [first, second] = rig.take_n();
    let route = |sent: &Sent| sent.header("Record-Route").unwrap();
    assert!(
        route(&first).contains(";a=2;b;nat=yes;c=3;sig="),
        "{}",
        route(&first)
    );
    assert!(
        route(&second).contains(";a=2;b;nat=yes;sig="),
        "{}",
        route(&second)
    );
}

/// A dialog that begins at a SIPS URI stays with it (RFC 3261 16.6 step 4).
#[test]
fn a_sips_request_gets_a_sips_value() {
    let mut rig = Rig::new(|_, _| recorded(BOB, &[]));
    rig.receive(
        &request_to("INVITE", "sips:bob@home.example", "1", ""),
        udp(ALICE),
    );
    let [_, invite] = rig.take_n();
    let route = invite.header("Record-Route").unwrap();
    assert!(route.starts_with("<sips:192.0.2.100:5060;lr;"), "{route}");
}

/// What has begun has as much room again, but a To tag alone is no beginning.
#[test]
fn the_room_of_dialogs_is_for_those_that_went_through_us() {
    let routes = values(spec(), BOB, &[]);
    let mut crowded = spec();
    crowded.transactions = 1;
    let mut rig = Rig::with(crowded, |_, _| Ruling::Drop);
    rig.judge = None;
    rig.receive(&request("MESSAGE", "1", ""), udp(ALICE));
    let forged = request("BYE", "2", DIALOG);
    rig.receive(&forged, udp(ALICE));
    assert_eq!(
        rig.first_lines(),
        ["SIP/2.0 503 Too Many Transactions Of Tenant"]
    );
    rig.receive(
        &back("BYE", &routes, false).replace("z9hG4bK2", "z9hG4bK3"),
        udp(ALICE),
    );
    assert_eq!(rig.take().len(), 0, "a call may end");
    rig.finish();
}
