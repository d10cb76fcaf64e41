//! Settings are checked once, and asked often.

use std::time::Duration;

use sipbox_sip::{Transport, Uri};

use super::*;

fn listener(name: &str, transport: Transport, address: &str) -> ListenerSpec {
    ListenerSpec {
        name: name.into(),
        transport,
        address: address.parse().unwrap(),
        advertised: None,
        tenant: None,
        stateless: vec![],
    }
}

fn tenant(id: u32, domains: &[&str]) -> TenantSpec {
    TenantSpec {
        id: TenantId(id),
        name: format!("t{id}"),
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        stateless: vec![],
        transactions: None,
        quota: Default::default(),
    }
}

fn spec() -> SettingsSpec {
    SettingsSpec {
        listeners: vec![
            listener("udp", Transport::Udp, "192.0.2.1:5060"),
            listener("tcp", Transport::Tcp, "192.0.2.1:5062"),
            listener("six", Transport::Udp, "[2001:db8::1]:5060"),
        ],
        tenants: vec![
            tenant(3, &["B.example"]),
            tenant(1, &["a.example", "c.example"]),
        ],
        ..SettingsSpec::default()
    }
}

#[test]
fn what_cannot_work_is_refused() {
    let wildcard = listener("any", Transport::Udp, "0.0.0.0:5060");
    let cases: [(SettingsSpec, SettingsError); 5] = [
        (
            SettingsSpec {
                listeners: vec![],
                ..spec()
            },
            SettingsError::Listeners(0),
        ),
        (
            SettingsSpec {
                listeners: vec![wildcard],
                ..spec()
            },
            SettingsError::Advertised("any".into()),
        ),
        (
            SettingsSpec {
                tenants: vec![tenant(1, &["x"]), tenant(2, &["X"])],
                ..spec()
            },
            SettingsError::Domain("X".into()),
        ),
        (
            SettingsSpec {
                tenants: vec![tenant(1, &["x y"])],
                ..spec()
            },
            SettingsError::Host("x y".into()),
        ),
        (
            SettingsSpec {
                timers: Timers {
                    t1: Duration::ZERO,
                    ..Timers::default()
                },
                ..spec()
            },
            SettingsError::Timer("t1"),
        ),
    ];
    for (spec, error) in cases {
        assert_eq!(Settings::new(spec).err(), Some(error));
    }
}

#[test]
fn texts_of_via_and_record_route_name_transport_and_advertised_address() {
    let advertised = HostPort {
        host: "Edge.example".into(),
        port: None,
    };
    let mut spec = spec();
    spec.listeners[1].advertised = Some(advertised);
    let settings = Settings::new(spec).unwrap();
    let texts: Vec<_> = settings
        .listeners()
        .iter()
        .map(|l| (l.via.as_str(), l.hostport.as_str()))
        .collect();
    assert_eq!(
        texts,
        [
            ("SIP/2.0/UDP 192.0.2.1:5060;branch=", "192.0.2.1:5060"),
            (
                "SIP/2.0/TCP Edge.example:5062;branch=",
                "Edge.example:5062;transport=tcp"
            ),
            (
                "SIP/2.0/UDP [2001:db8::1]:5060;branch=",
                "[2001:db8::1]:5060"
            ),
        ]
    );
}

#[test]
fn hosts_that_mean_us_are_known_by_address_name_and_port() {
    let mut spec = spec();
    spec.listeners[1].advertised = Some(HostPort {
        host: "edge.example".into(),
        port: None,
    });
    spec.aliases = vec![
        HostPort {
            host: "sip.example".into(),
            port: None,
        },
        HostPort {
            host: "[2001:db8::2]".trim_matches(['[', ']']).into(),
            port: Some(5070),
        },
    ];
    let settings = Settings::new(spec).unwrap();
    for (uri, ours) in [
        ("sip:192.0.2.1", true),
        ("sip:192.0.2.1:5061", false),
        ("sip:EDGE.example:5062", true),
        ("sip:192.0.2.1:5062", true),
        ("sip:edge.example", false),
        ("sip:Sip.Example:1234", true),
        ("sip:[2001:db8:0::1]", true),
        ("sip:[2001:db8::2]:5070", true),
        ("sip:[2001:db8::2]", false),
        ("sip:a.example", false),
        ("tel:192.0.2.1", false),
    ] {
        assert_eq!(
            settings.is_us(&Uri::parse(uri.as_bytes()).unwrap()),
            ours,
            "{uri}"
        );
    }
}

#[test]
fn domains_and_tenants_are_found_whatever_their_case_and_order() {
    let settings = Settings::new(spec()).unwrap();
    assert_eq!(settings.domain(b"b.EXAMPLE"), Some(TenantId(3)));
    assert_eq!(settings.domain(b"c.example"), Some(TenantId(1)));
    assert_eq!(settings.domain(b"d.example"), None);
    assert_eq!(settings.tenant(TenantId(3)).map(|t| &*t.name), Some("t3"));
    assert_eq!(settings.tenant(TenantId(2)).map(|t| &*t.name), None);
    assert_eq!(settings.tenant_by_param(b"t1"), Some(TenantId(1)));
    assert_eq!(escaped("way 2/\u{e4}"), "way%202%2F%C3%A4");
}

#[test]
fn a_request_leaves_from_where_it_came_if_that_fits() {
    let settings = Settings::new(spec()).unwrap();
    let leaves = |from, transport, to: &str| {
        settings
            .outbound(ListenerId(from), transport, to.parse().unwrap())
            .map(|l| l.0)
    };
    assert_eq!(leaves(0, Transport::Udp, "198.51.100.1"), Some(0));
    assert_eq!(leaves(0, Transport::Udp, "2001:db8::9"), Some(2));
    assert_eq!(leaves(2, Transport::Tcp, "198.51.100.1"), Some(1));
    assert_eq!(leaves(0, Transport::Tls, "198.51.100.1"), None);
}

/// RFC 4320 4.1: Timer E is reset to T2 when it fires, so not before T1 has passed.
#[test]
fn timer_e_grows_to_t2_when_it_fires() {
    let grown = |t1, t2| {
        let timers = Timers {
            t1: Duration::from_millis(t1),
            t2: Duration::from_millis(t2),
            ..Timers::default()
        };
        timers.e_grown().as_millis()
    };
    assert_eq!(grown(500, 4000), 3500);
    assert_eq!(grown(500, 1000), 500);
    assert_eq!(grown(500, 600), 500);
    assert_eq!(grown(500, 500), 500);
}
