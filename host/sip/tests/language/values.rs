//! Typed header values: addresses, Via, CSeq, numbers, lists, credentials.

use std::net::SocketAddr;

use sipbox_sip::auth::{AuthParams, Credentials};
use sipbox_sip::name_addr::q_value;
use sipbox_sip::via::write_received;
use sipbox_sip::{CSeq, Contact, HeaderId, Host, NameAddr, Transport, ValueError, Via};

use super::{lines, parse};

fn addr(text: &str) -> NameAddr<'_> {
    NameAddr::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn addresses_in_every_form() {
    // text, display name, URI, tag
    let cases: &[(&str, Option<&str>, &str, Option<&str>)] = &[
        ("sip:a@b", None, "sip:a@b", None),
        ("sip:a@b;tag=1", None, "sip:a@b", Some("1")),
        ("sip:a@b ; tag = 1", None, "sip:a@b", Some("1")),
        ("<sip:a@b;tag=2>;tag=1", None, "sip:a@b;tag=2", Some("1")),
        ("caller<sip:a@b>", Some("caller"), "sip:a@b", None),
        ("A. B  C <sip:a@b>;x", Some("A. B  C"), "sip:a@b", None),
        (
            "\"A, \\\"B\\\" <c>\" <sip:a,b@c>",
            Some("A, \"B\" <c>"),
            "sip:a,b@c",
            None,
        ),
        ("\"\"<sip:a@b?x=y>", Some(""), "sip:a@b?x=y", None),
        ("J\u{f6}rg <sip:a@b>", Some("J\u{f6}rg"), "sip:a@b", None),
        ("<tel:+1-2>\r\n ;tag=x", None, "tel:+1-2", Some("x")),
        ("<http://x/>", None, "http://x/", None),
    ];
    for (text, display, uri, tag) in cases {
        let parsed = addr(text);
        let name = parsed
            .display_name()
            .map(|n| String::from_utf8(n.into_owned()).unwrap());
        assert_eq!(name.as_deref(), *display, "{text}");
        assert_eq!(parsed.uri_raw(), uri.as_bytes(), "{text}");
        assert_eq!(parsed.tag(), tag.map(str::as_bytes), "{text}");
    }
}

#[test]
fn addresses_that_are_none() {
    for text in [
        "",
        "<>",
        "<sip:a@b",
        "sip:a@b>",
        "\"A <sip:a@b>",
        "A, B <sip:a@b>",
        "< sip:a@b >",
        "sip:a@b?x=y",
        "sip:a,b@c",
        "<sip:a@b>;;",
        "<sip:a@b>;=x",
        "<sip:a@b> x",
        "<sip:a@b>,<sip:c@d>",
        "A <sip:a@b",
        "a@b",
        "<a@b>",
        "<sip:a@b>;x=\"",
        "<sip:a@b>;x=<y>",
        "*",
    ] {
        assert!(NameAddr::parse(text.as_bytes()).is_err(), "{text:?}");
    }
}

#[test]
fn contact_parameters() {
    let text = "<sip:a@b>;q=0.7;expires=60;+sip.instance=\"<urn:uuid:1>\";reg-id=2";
    let contact = addr(text);
    assert_eq!(
        (contact.q(), contact.expires(), contact.reg_id()),
        (Some(700), Some(60), Some(2))
    );
    assert_eq!(contact.instance().unwrap(), &b"<urn:uuid:1>"[..]);
    let odd = addr("<sip:a@b>;q=x;expires=x;reg-id=0");
    assert_eq!(
        (odd.q(), odd.expires(), odd.reg_id()),
        (None, Some(3600), None)
    );
    assert_eq!(
        addr("<sip:a@b>;expires=280297596632815").expires(),
        Some(u32::MAX)
    );
    assert_eq!(addr("<sip:a@b>").expires(), None);
    assert_eq!(Contact::parse(b" * "), Ok(Contact::Star));
    assert!(Contact::parse(b"**").is_err());
}

#[test]
fn q_values_are_thousandths() {
    for (text, q) in [
        ("1", Some(1000)),
        ("1.0", Some(1000)),
        ("0", Some(0)),
        ("0.5", Some(500)),
        ("0.333", Some(333)),
        ("0.9999", Some(999)),
        ("1.", Some(1000)),
        (".5", Some(500)),
        ("1.001", None),
        ("2", None),
        ("", None),
        ("-1", None),
        ("0.x", None),
        ("0,5", None),
    ] {
        assert_eq!(q_value(text.as_bytes()), q, "{text}");
    }
}

#[test]
fn vias_in_every_form() {
    let via =
        Via::parse(b"SIP / 2.0 / UDP\r\n  h.example : 5080 ; branch = z9hG4bK1;rport").unwrap();
    assert_eq!(via.known_transport(), Some(Transport::Udp));
    assert_eq!((via.host, via.port), (Host::Name(b"h.example"), Some(5080)));
    assert_eq!(
        (via.branch(), via.rport()),
        (Some(&b"z9hG4bK1"[..]), Some(None))
    );
    assert!(via.has_cookie());

    let text =
        b"SIP/2.0/TLS [2001:db8::1];received=2001:db8::2;rport=99;ttl=5;maddr=x;branch=Z9HG4BKa";
    let via = Via::parse(text).unwrap();
    assert_eq!(via.host, Host::V6("2001:db8::1".parse().unwrap()));
    assert_eq!(via.received(), Some("2001:db8::2".parse().unwrap()));
    assert_eq!(
        (via.rport(), via.ttl(), via.maddr()),
        (Some(Some(99)), Some(5), Some(&b"x"[..]))
    );
    assert_eq!((via.port, via.port_or_default()), (None, 5061));
    assert!(via.has_cookie());
    let via = Via::parse(b"SIP/2.0/UNKNOWN h").unwrap();
    assert_eq!(
        (via.known_transport(), via.branch(), via.rport()),
        (None, None, None)
    );
    assert!(!via.has_cookie());

    for text in [
        "",
        "SIP/2.0/UDP",
        "SIP/2.0/UDPh",
        "SIP/2.0 h",
        "SIP/2.0/UDP h:",
        "SIP/2.0/UDP h:0",
        "SIP/2.0/UDP h;;",
        "SIP/2.0/UDP h x",
        "SIP/2.0/UDP h;=x",
        "SIP/2.0/UDP [::1",
        "SIP/2.0/UDP a..b",
    ] {
        assert!(Via::parse(text.as_bytes()).is_err(), "{text:?}");
    }
    let broken = Via::parse_lenient(b"SIP/2.0/UDP 192.0.2.15;;,;,,").unwrap();
    assert_eq!(broken.host, Host::V4("192.0.2.15".parse().unwrap()));
    assert!(Via::parse_lenient(b"SIP/2.0/UDP ;x").is_err());
}

/// RFC 3261 18.2.1 and RFC 3581 4.
#[test]
fn a_received_via_tells_where_it_came_from() {
    let cases = [
        (
            "SIP/2.0/UDP 192.0.2.1:5060;branch=b",
            "192.0.2.1:5060",
            None,
        ),
        (
            "SIP/2.0/UDP h;branch=b",
            "192.0.2.1:9",
            Some("SIP/2.0/UDP h;branch=b;received=192.0.2.1"),
        ),
        (
            "SIP/2.0/UDP 192.0.2.1;rport;branch=b",
            "192.0.2.1:9",
            Some("SIP/2.0/UDP 192.0.2.1;rport=9;branch=b;received=192.0.2.1"),
        ),
        (
            "SIP/2.0/UDP h ; rport=1 ; received=1.1.1.1 ; x=\"y;z\"",
            "[2001:db8::1]:9",
            Some("SIP/2.0/UDP h;rport=9;x=\"y;z\";received=2001:db8::1"),
        ),
        (
            "SIP/2.0/UDP 192.0.2.1;received=9.9.9.9",
            "192.0.2.1:1",
            Some("SIP/2.0/UDP 192.0.2.1"),
        ),
        (
            "SIP/2.0/UDP 192.0.2.1;branch=b",
            "[::ffff:192.0.2.1]:1",
            None,
        ),
    ];
    for (value, source, expected) in cases {
        let via = Via::parse(value.as_bytes()).unwrap();
        let mut out = Vec::new();
        let changed = write_received(
            value.as_bytes(),
            &via,
            source.parse::<SocketAddr>().unwrap(),
            &mut out,
        );
        assert_eq!(changed, expected.is_some(), "{value}");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            expected.unwrap_or(value),
            "{value}"
        );
    }
}

#[test]
fn cseq_has_a_range_and_a_method() {
    assert_eq!(
        CSeq::parse(b"0009\r\n  INVITE"),
        Ok(CSeq {
            number: 9,
            method: b"INVITE"
        })
    );
    assert_eq!(
        CSeq::parse(b"2147483647 X"),
        Ok(CSeq {
            number: 2_147_483_647,
            method: b"X"
        })
    );
    assert_eq!(
        CSeq::parse(b"2147483648 X"),
        Err(ValueError::OutOfRange("CSeq"))
    );
    assert_eq!(
        CSeq::parse(b"36893488147419103232 X"),
        Err(ValueError::OutOfRange("CSeq"))
    );
    for text in ["", "1", "1 ", "X", "1INVITE", "-1 X", "1 X Y", "1 <"] {
        assert!(CSeq::parse(text.as_bytes()).is_err(), "{text:?}");
    }
}

#[test]
fn list_elements_keep_their_field_and_place() {
    let bytes = lines(
        "OPTIONS sip:a@b SIP/2.0
        Contact: <sip:a,b@c>;x=\"1,\\\",2\" , sip:d@e
        k: a
        m: \"f, <g\" <sip:h@i>
        Supported:
        Supported: b,,c
        k: d,
        ",
    );
    let message = parse(&bytes);
    let contacts: Vec<_> = message.values(HeaderId::Contact).collect();
    let texts: Vec<_> = contacts.iter().map(|v| (v.field, v.as_bytes())).collect();
    assert_eq!(
        texts,
        [
            (0, &b"<sip:a,b@c>;x=\"1,\\\",2\""[..]),
            (0, b"sip:d@e"),
            (2, b"\"f, <g\" <sip:h@i>"),
        ]
    );
    for value in &contacts {
        assert_eq!(message.get(value.span), value.as_bytes());
    }
    let supported: Vec<_> = message
        .values(HeaderId::Supported)
        .map(|v| v.as_bytes())
        .collect();
    assert_eq!(supported, [&b"a"[..], b"b", b"", b"c", b"d", b""]);
    assert!(message.has_token(HeaderId::Supported, b"B"));
    assert!(!message.has_token(HeaderId::Supported, b"x"));
}

#[test]
fn numbers_that_are_missing_malformed_or_large() {
    let message = |header: &str| lines(&format!("OPTIONS sip:a@b SIP/2.0\n{header}\nX: y\n\n"));
    let bytes = message("Max-Forwards: 256");
    assert_eq!(
        parse(&bytes).max_forwards(),
        Err(ValueError::OutOfRange("Max-Forwards"))
    );
    let bytes = message("Max-Forwards: 1 2");
    assert_eq!(
        parse(&bytes).max_forwards(),
        Err(ValueError::Malformed("Max-Forwards"))
    );
    let bytes = message("Expires: 99999999999999999999999");
    assert_eq!(parse(&bytes).expires(), Ok(Some(u32::MAX)));
    assert_eq!(parse(&bytes).max_forwards(), Ok(None));
    let bytes = message("Max-Breadth: 300");
    assert_eq!(parse(&bytes).max_breadth(), Ok(Some(255)));
    let bytes = message("l: 0\nContent-Length: 0");
    assert_eq!(parse(&bytes).content_length(), Ok(Some(0)));
    let bytes = message("l: 0\nContent-Length: 1");
    assert!(parse(&bytes).content_length().is_err());
    let bytes = message("l: 4294967296");
    assert!(parse(&bytes).content_length().is_err());
}

#[test]
fn digest_credentials() {
    let text = b"Digest username=\"a\\\"b\", realm=\"r, s\",nonce=\"n\" ,\r\n uri=\"sip:x\", \
        response=\"00ff\", algorithm=SHA-256, nc=0000000a, qop=auth, cnonce=\"c\", opaque=\"\"";
    let found = Credentials::parse(text).unwrap();
    assert_eq!(found.username, &b"a\"b"[..]);
    assert_eq!(found.realm, &b"r, s"[..]);
    assert_eq!(found.uri, &b"sip:x"[..]);
    assert_eq!(found.algorithm.as_deref(), Some(&b"SHA-256"[..]));
    assert_eq!(
        (found.nonce_count(), found.opaque.as_deref()),
        (Some(10), Some(&b""[..]))
    );
    for text in [
        "Digest",
        "Digest username=\"a\"",
        "Basic YTpi",
        "",
        "Digest username=\"a\", realm=\"r\", nonce=\"n\", uri=\"u\", response=\"x",
        "Digest username=\"a\" realm=\"r\" nonce=\"n\" uri=\"u\" response=\"x\"",
    ] {
        assert!(Credentials::parse(text.as_bytes()).is_err(), "{text:?}");
    }
    let other = AuthParams::parse(b"NoOneKnowsThisScheme opaque-data=here").unwrap();
    assert!(!other.is_digest());
    assert_eq!(other.get(b"opaque-data").unwrap(), &b"here"[..]);
    let bad_count = Credentials {
        nc: Some(b"1".into()),
        ..found
    };
    assert_eq!(bad_count.nonce_count(), None);
}
