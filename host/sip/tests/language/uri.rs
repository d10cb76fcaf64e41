//! URIs: the grammar's parts, RFC 3261 19.1.3's examples, 19.1.4's comparison.

use sipbox_sip::uri::{equivalent, escape_header, escape_param, escape_user, unescape};
use sipbox_sip::{Host, Scheme, Transport, Uri};

fn uri(text: &str) -> Uri<'_> {
    Uri::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn the_parts_of_a_sip_uri() {
    let u = uri("sip:alice:secret%20word@atlanta.example.com:5070;transport=TCP;lr?a=b&c=d");
    assert_eq!(u.scheme, Scheme::Sip);
    assert_eq!(u.user, Some(&b"alice"[..]));
    assert_eq!(u.password, Some(&b"secret%20word"[..]));
    assert_eq!(u.host, Host::Name(b"atlanta.example.com"));
    assert_eq!(u.port, Some(5070));
    assert_eq!(u.transport(), Some(Transport::Tcp));
    assert!(u.lr());
    let headers: Vec<_> = u.header_pairs().collect();
    assert_eq!(headers, [(&b"a"[..], &b"b"[..]), (b"c", b"d")]);

    let u = uri("sips:[2001:db8::9]:5081;maddr=192.0.2.1");
    assert_eq!(u.scheme, Scheme::Sips);
    assert_eq!(u.host, Host::V6("2001:db8::9".parse().unwrap()));
    assert_eq!(u.host_raw, b"[2001:db8::9]");
    assert_eq!((u.port, u.user), (Some(5081), None));
    assert_eq!(u.maddr(), Some(Host::V4("192.0.2.1".parse().unwrap())));
}

#[test]
fn every_form_that_is_a_uri() {
    for text in [
        "sip:host",
        "SIP:host.",
        "sip:1.2.3.4",
        "sip:user@3com.example",
        "sip:_sip.under_score.example",
        "sip:alice@atlanta.com;maddr=239.255.255.1;ttl=15",
        "sip:+1-212-555-1212:1234@gateway.com;user=phone",
        "sip:1212@gateway.com",
        "sip:alice;day=tuesday@atlanta.com",
        "sip:*72#@example.org",
        "sip:sips%3Auser%40example.com@example.net",
        "sip:atlanta.com;method=REGISTER?to=alice%40atlanta.com",
        "sip:a@b;x=",
        "tel:+1-201-555-0123",
        "tel:7042;phone-context=example.com",
        "tel:*67;phone-context=+1",
        "urn:service:sos",
        "http://www.example.com/x?y=z#f",
        "isbn:2983792873",
        "soap.beep://192.0.2.103:3002",
    ] {
        assert_eq!(uri(text).raw, text.as_bytes());
    }
}

#[test]
fn every_form_that_is_none() {
    for text in [
        "",
        "sip:",
        "sip",
        ":host",
        "1sip:host",
        "sip:@host",
        "sip:user@",
        "sip:a b@host",
        "sip:host:0",
        "sip:host:65536",
        "sip:host:",
        "sip:host:5060x",
        "sip:a@b@c",
        "sip:a@b;x=c@d",
        "sip:a%4@host",
        "sip:a%zz@host",
        "sip:256.1.1.1",
        "sip:1.2.3",
        "sip:[::1",
        "sip:[g::1]",
        "sip:host;",
        "sip:host;;a",
        "sip:host;=a",
        "sip:host?",
        "sip:host?a=b&",
        "sip:ho..st",
        "<sip:host>",
        "sip:host>",
        "sip:\"a\"@host",
        "sip:host;a=\"b\"",
        "tel:",
        "tel:+",
        "tel:abc xyz",
        "tel:+1?x=y",
        "tel:1;",
        "foo:",
        "sip:a@b\r\n",
        "sip:h\0st",
    ] {
        assert!(Uri::parse(text.as_bytes()).is_err(), "{text:?}");
    }
}

#[test]
fn a_missing_port_stands_for_the_transports() {
    for (text, port) in [
        ("sip:a", 5060),
        ("sips:a", 5061),
        ("sip:a;transport=tls", 5061),
        ("sip:a;transport=ws", 80),
        ("sips:a;transport=wss", 443),
        ("sips:a;transport=tcp", 5061),
        ("sip:a:9;transport=tls", 9),
    ] {
        assert_eq!(uri(text).port_or_default(), port, "{text}");
    }
}

/// The pairs of RFC 3261 19.1.4, and some on the edges of its rules.
#[test]
fn equivalence_is_that_of_the_rfc() {
    let same = [
        (
            "sip:%61lice@atlanta.com;transport=TCP",
            "sip:alice@AtLanTa.CoM;Transport=tcp",
        ),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        ("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]"),
        ("sip:a%3ab@h", "sip:a%3Ab@h"),
        ("tel:+1-201-555-0123", "tel:+12015550123"),
        (
            "tel:1;phone-context=A.example;x=1",
            "tel:1;X=1;phone-context=a.example",
        ),
        ("URN:service:sos", "urn:service:sos"),
        ("sip:h;ttl=;ttl=1", "sip:h;ttl=1;TTL="),
    ];
    for (a, b) in same {
        assert!(equivalent(&uri(a), &uri(b)), "{a} {b}");
        assert!(equivalent(&uri(b), &uri(a)), "{b} {a}");
    }
    let different = [
        (
            "SIP:ALICE@AtLanTa.CoM;Transport=udp",
            "sip:alice@AtLanTa.CoM;Transport=UDP",
        ),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        (
            "sip:bob@biloxi.com",
            "sip:bob@biloxi.com:6000;transport=tcp",
        ),
        (
            "sip:carol@chicago.com",
            "sip:carol@chicago.com?Subject=next%20meeting",
        ),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
        (
            "sip:carol@chicago.com;security=on",
            "sip:carol@chicago.com;security=off",
        ),
        ("sip:a@h", "sips:a@h"),
        ("sip:a@h", "sip:h"),
        ("sip:a@h", "sip:a:p@h"),
        ("sip:a@h", "sip:a@h;user=phone"),
        ("sip:a@h", "sip:a@h;maddr=x"),
        ("sip:a%3Bb@h", "sip:a;b@h"),
        ("sip:a@h?x=1", "sip:a@h?x=2"),
        ("tel:1", "tel:2"),
        ("tel:1", "tel:1;phone-context=a"),
        ("urn:service:sos", "urn:service:SOS"),
        ("tel:1", "urn:1"),
        ("sip:h;ttl=1;ttl=2", "sip:h;ttl=1;ttl=3"),
    ];
    for (a, b) in different {
        assert!(!equivalent(&uri(a), &uri(b)), "{a} {b}");
        assert!(!equivalent(&uri(b), &uri(a)), "{b} {a}");
    }
}

#[test]
fn escaping_and_unescaping() {
    assert_eq!(unescape(b"a%20b%00%e9%25"), &b"a b\0\xe9%"[..]);
    assert_eq!(unescape(b"100%"), &b"100%"[..]);
    assert_eq!(unescape(b"%4"), &b"%4"[..]);
    let escaped = |escape: fn(&[u8], &mut Vec<u8>), text: &[u8]| {
        let mut out = Vec::new();
        escape(text, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(escaped(escape_user, b"a b@c:#;\xff"), "a%20b%40c%3A%23;%FF");
    assert_eq!(escaped(escape_param, b"<a>;=b"), "%3Ca%3E%3B%3Db");
    assert_eq!(escaped(escape_header, b"<sip:a;lr>"), "%3Csip:a%3Blr%3E");
}
