//! Route and Record-Route (RFC 3261 16.4, 16.6, 16.12), tenants, next hops.

use sipbox_sip::{Hop, HostPort};

use super::*;
use crate::policy::RouteOutcome;
use crate::settings::StaticRoute;

pub(super) const DIALOG: &str = "To: <sip:bob@home.example>;tag=b1\r\n";
const US: &str = "<sip:192.0.2.100;lr>";
const UPPER: &str = "<sip:192.0.2.100;transport=tcp;r2=on;lr>";
const LOWER: &str = "<sip:192.0.2.100;r2=on;lr>";

/// Without signatures, so that routes can be written by hand.
fn unsigned() -> SettingsSpec {
    let mut spec = spec();
    spec.record_route.sign = false;
    spec
}

/// What the policies of a request were told, and what became of it.
pub(super) fn facts_of(spec: SettingsSpec, text: &str) -> (Facts, String) {
    let mut rig = Rig::with(spec, |_, _| Ruling::Drop);
    rig.judge = None;
    rig.receive(text, udp(ALICE));
    match rig.asks.pop() {
        Some(Ask::Request { request, facts, .. }) => {
            let bytes = request.as_ref().bytes();
            (
                (*facts).clone(),
                String::from_utf8_lossy(bytes).into_owned(),
            )
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn route_values_that_name_us_are_removed_and_told() {
    let other = "<sip:next.example;lr>";
    for (to, routes, outcome, left) in [
        ("", vec![], RouteOutcome::None, vec![]),
        ("", vec![US], RouteOutcome::None, vec![]),
        ("", vec![US, other], RouteOutcome::Preloaded, vec![other]),
        ("", vec![other], RouteOutcome::Preloaded, vec![other]),
        (DIALOG, vec![US], RouteOutcome::Loose, vec![]),
        ("", vec![US, US], RouteOutcome::None, vec![]),
        // It comes through here again, as its dialog's first request did.
        (
            DIALOG,
            vec![US, US, other],
            RouteOutcome::Loose,
            vec![US, other],
        ),
        (
            DIALOG,
            vec![UPPER, LOWER, US],
            RouteOutcome::Loose,
            vec![US],
        ),
        (DIALOG, vec![LOWER, other], RouteOutcome::Loose, vec![other]),
        (DIALOG, vec![other], RouteOutcome::Foreign, vec![other]),
        (
            DIALOG,
            vec!["<sip:192.0.2.100:5061;lr>"],
            RouteOutcome::Foreign,
            vec!["<sip:192.0.2.100:5061;lr>"],
        ),
        (DIALOG, vec![], RouteOutcome::None, vec![]),
    ] {
        let mut extra = to.to_owned();
        for route in &routes {
            extra.push_str(&format!("Route: {route}\r\n"));
        }
        let (facts, text) = facts_of(spec(), &request("OPTIONS", "1", &extra));
        assert_eq!(facts.route_outcome, outcome, "{routes:?}");
        assert_eq!(all(&text, "Route"), left, "{routes:?}");
        // The same in one field.
        if routes.len() > 1 {
            let extra = format!("{to}Route: {}\r\n", routes.join(", "));
            let (facts, text) = facts_of(spec(), &request("OPTIONS", "1", &extra));
            assert_eq!(facts.route_outcome, outcome, "{routes:?}");
            assert_eq!(
                all(&text, "Route").join(", "),
                left.join(", "),
                "{routes:?}"
            );
        }
    }
}

#[test]
fn what_a_strict_router_did_is_undone() {
    let extra = format!("{DIALOG}Route: <sip:next.example;lr>, <sip:bob@192.0.2.2>\r\n");
    let text = request_to("BYE", "sip:192.0.2.100;lr;nat=yes", "1", &extra);
    let (facts, text) = facts_of(unsigned(), &text);
    assert_eq!(facts.route_outcome, RouteOutcome::Strict);
    assert_eq!(&facts.route_params[..], b";lr;nat=yes");
    assert!(
        text.starts_with("BYE sip:bob@192.0.2.2 SIP/2.0\r\n"),
        "{text}"
    );
    assert_eq!(all(&text, "Route"), ["<sip:next.example;lr>"]);
}

#[test]
fn aliases_mean_us_and_domains_of_tenants_do_not() {
    let alias = HostPort {
        host: "proxy.example".into(),
        port: None,
    };
    let spec = SettingsSpec {
        aliases: vec![alias],
        ..spec()
    };
    let with = |route: &str| {
        let extra = format!("{DIALOG}Route: {route}\r\n");
        facts_of(spec.clone(), &request("BYE", "1", &extra))
            .0
            .route_outcome
    };
    assert_eq!(with("<sip:PROXY.example:5062;lr>"), RouteOutcome::Loose);
    assert_eq!(with("<sip:home.example;lr>"), RouteOutcome::Foreign);
}

#[test]
fn a_maddr_that_is_ours_is_stripped() {
    let uri = "sip:bob@home.example:5060;maddr=192.0.2.100;transport=udp;x=1";
    let (_, text) = facts_of(spec(), &request_to("OPTIONS", uri, "1", ""));
    assert!(
        text.starts_with("OPTIONS sip:bob@home.example;x=1 SIP/2.0"),
        "{text}"
    );
    let uri = "sip:bob@home.example;maddr=192.0.2.101";
    let (_, text) = facts_of(spec(), &request_to("OPTIONS", uri, "1", ""));
    assert!(
        text.starts_with(&format!("OPTIONS {uri} SIP/2.0")),
        "{text}"
    );
}

#[test]
fn the_tenant_is_found_by_domain_then_caller_then_listener() {
    let mut spec = spec();
    for (at, domain) in [(1, "work.example"), (2, "rest.example")] {
        spec.tenants.push(TenantSpec {
            id: TenantId(at),
            name: domain.into(),
            domains: vec![domain.into()],
            stateless: vec![],
            transactions: None,
            quota: Default::default(),
        });
    }
    spec.listeners[0].tenant = Some(TenantId(2));
    let of = |text: &str| facts_of(spec.clone(), text).0.tenant.0;
    assert_eq!(of(&request("INVITE", "1", "")), 0);
    assert_eq!(
        of(&request_to("INVITE", "sip:bob@WORK.example", "1", "")),
        1
    );
    assert_eq!(
        of(&request_to("INVITE", "sip:bob@else.example", "1", "")),
        0,
        "alice's"
    );
    let stranger = request_to("INVITE", "sip:bob@else.example", "1", "")
        .replace("alice@home.example", "alice@else.example");
    assert_eq!(of(&stranger), 2, "the listener's");
    let register = request_to(
        "REGISTER",
        "sip:home.example",
        "1",
        "To: <sip:bob@work.example>\r\n",
    );
    assert_eq!(of(&register), 1, "To names the address of record");
}

#[test]
fn nobodys_request_gets_404() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    let stranger = request_to("INVITE", "sip:bob@else.example", "1", "")
        .replace("alice@home.example", "alice@else.example");
    rig.receive(&stranger, udp(ALICE));
    assert_eq!(rig.first_lines(), ["SIP/2.0 404 Not Found"]);
}

#[test]
fn a_next_hop_that_is_a_strict_router_gets_the_request_uri() {
    let mut rig = Rig::new(|_, _| Ruling::Relay(Relay::default()));
    let extra = format!("{DIALOG}Route: {US}, <sip:192.0.2.7>, <sip:192.0.2.8;lr>\r\n");
    rig.receive(
        &request_to("BYE", "sip:bob@192.0.2.2", "1", &extra),
        udp(ALICE),
    );
    let [bye] = rig.take_n();
    assert_eq!(bye.first_line(), "BYE sip:192.0.2.7 SIP/2.0");
    assert_eq!(bye.to(), "udp/192.0.2.7:5060");
    assert_eq!(
        bye.all("Route").join(", "),
        "<sip:192.0.2.8;lr>, <sip:bob@192.0.2.2>"
    );
}

#[test]
fn static_routes_and_the_outbound_proxy_need_no_dns() {
    let hop = |host: &str, transport| Hop {
        host: host.into(),
        port: None,
        transport,
    };
    let spec = SettingsSpec {
        routes: vec![StaticRoute {
            domain: "gw.example".into(),
            next_hop: hop("192.0.2.50", Some(Transport::Tcp)),
        }],
        outbound_proxy: Some(hop("192.0.2.51", None)),
        ..spec()
    };
    let mut rig = Rig::with(spec, |message, _| {
        let uri = message.request_uri().to_vec();
        Ruling::Relay(Relay {
            groups: vec![vec![ResolvedTarget::uri(uri)]],
            ..Relay::default()
        })
    });
    for (uri, hop) in [
        ("sip:1@GW.example", "tcp/192.0.2.50:5060"),
        ("sip:1@else.example", "udp/192.0.2.51:5060"),
        ("sip:1@192.0.2.2", "udp/192.0.2.2:5060"),
    ] {
        rig.receive(
            &request_to("MESSAGE", uri, &uri.replace([':', '@'], "-"), ""),
            udp(ALICE),
        );
        let [sent] = rig.take_n();
        assert_eq!(sent.to(), hop);
        assert!(sent.first_line().contains(uri), "the Request-URI stays");
    }
    assert_eq!(rig.resolves.len(), 0);
}

#[test]
fn headers_and_method_are_left_out_of_a_request_uri() {
    let mut rig = Rig::new(|_, _| {
        let uri = format!("sip:bob@{BOB};method=INVITE;x=1?Subject=hi");
        Ruling::Relay(Relay {
            groups: vec![vec![ResolvedTarget::uri(uri)]],
            ..Relay::default()
        })
    });
    rig.receive(&request("MESSAGE", "1", ""), udp(ALICE));
    let [sent] = rig.take_n();
    assert_eq!(
        sent.first_line(),
        "MESSAGE sip:bob@192.0.2.2:5060;x=1 SIP/2.0"
    );
}
