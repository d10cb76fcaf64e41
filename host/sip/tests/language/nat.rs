//! What addresses tell of their translation, and how texts are mended.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use sipbox_sip::nat::{self, Facts, SdpFixes};
use sipbox_sip::{Contact, Parts, Transport, Uri};

use crate::{lines, parse};

fn facts(message: &str, source: &str, asked: Facts) -> Facts {
    let bytes = lines(message);
    nat::classify(
        parse(&bytes),
        &Parts::of(parse(&bytes)),
        source.parse().unwrap(),
        Transport::Udp,
        asked,
    )
}

fn request(via: &str, contact: &str) -> String {
    format!(
        "INVITE sip:b@example.org SIP/2.0
        Via: SIP/2.0/UDP {via};branch=z9hG4bK1
        Contact: {contact}
        Content-Length: 0

        "
    )
}

#[test]
fn each_test_of_nat_uac_test_is_a_fact() {
    let none = Facts::empty();
    for (via, contact, source, expected) in [
        (
            "192.0.2.1:5060",
            "<sip:a@192.0.2.1>",
            "192.0.2.1:5060",
            none,
        ),
        (
            "192.0.2.1:5062",
            "<sip:a@192.0.2.1>",
            "192.0.2.1:5060",
            Facts::DIFF_PORT_SRC_VIA,
        ),
        (
            "192.0.2.9",
            "<sip:a@192.0.2.1>",
            "192.0.2.1:5060",
            Facts::DIFF_IP_SRC_VIA,
        ),
        (
            "x.example.org",
            "<sip:a@x.example.org>",
            "192.0.2.1:5060",
            none,
        ),
        (
            "df7.invalid",
            "<sip:a@df7.Invalid.>",
            "192.0.2.1:5060",
            Facts::DIFF_IP_SRC_VIA.with(Facts::DIFF_IP_SRC_CONTACT),
        ),
        (
            "10.0.0.1",
            "<sip:a@172.16.3.4:5061>",
            "192.0.2.1:5060",
            Facts::DIFF_IP_SRC_VIA
                .with(Facts::PRIVATE_VIA)
                .with(Facts::PRIVATE_CONTACT)
                .with(Facts::DIFF_IP_SRC_CONTACT)
                .with(Facts::DIFF_PORT_SRC_CONTACT),
        ),
        (
            "192.0.2.1",
            "<sip:a@192.0.2.1>, <sip:a@[fe80::1]>",
            "192.0.2.1:5060",
            Facts::PRIVATE_CONTACT.with(Facts::DIFF_IP_SRC_CONTACT),
        ),
        ("192.0.2.1", "*", "192.0.2.1:5060", none),
        ("192.0.2.1", "<tel:+1>", "192.0.2.1:5060", none),
        (
            "100.64.0.1",
            "<sip:a@100.64.0.1>",
            "100.64.0.1:5060",
            Facts::PRIVATE_SOURCE
                .with(Facts::PRIVATE_VIA)
                .with(Facts::PRIVATE_CONTACT)
                .with(Facts::CARRIER_GRADE_NAT),
        ),
        (
            "192.0.0.2",
            "<sip:a@192.0.0.2>",
            "192.0.0.2:5060",
            Facts::CARRIER_GRADE_NAT,
        ),
        (
            "127.0.0.1",
            "<sip:a@127.0.0.1>",
            "127.0.0.1:5060",
            Facts::LOOPBACK,
        ),
        (
            "[2001:db8::1]",
            "<sip:a@[2001:db8::1]>",
            "[2001:db8::1]:5060",
            Facts::IPV6,
        ),
        (
            "[fd00::1]",
            "<sip:a@[fd00::1]>",
            "[fd00::1]:5060",
            Facts::IPV6
                .with(Facts::PRIVATE_SOURCE)
                .with(Facts::PRIVATE_VIA)
                .with(Facts::PRIVATE_CONTACT),
        ),
    ] {
        let message = request(via, contact);
        let found = facts(&message, source, Facts::all());
        assert_eq!(found, expected, "{via} {contact} {source}");
        for asked in [
            Facts::PRIVATE_VIA,
            Facts::DIFF_PORT_SRC_CONTACT,
            Facts::CARRIER_GRADE_NAT,
            Facts::PRIVATE_SOURCE.with(Facts::IPV6),
        ] {
            assert_eq!(facts(&message, source, asked), expected.and(asked));
        }
    }
}

proptest! {
    /// A Contact whose parts are known is not read again, and says the same.
    #[test]
    fn what_is_known_of_a_contact_says_what_reading_it_again_says(
        contact in "(\"a,b\" )?(<sips?:([a-z]@)?(10\\.0\\.0\\.[1-3]|192\\.0\\.2\\.1|h\\.invalid|\\[fe80::1\\])\
            (:506[01])?(;transport=(tcp|tls|ws))?>|SIP:10\\.0\\.0\\.1|sip:100\\.64\\.0\\.1;x=1|\\*|<tel:1>)\
            (;q=1)?(, ?<sip:10\\.0\\.0\\.9>)?",
        second in prop::bool::weighted(0.2),
    ) {
        let mut message = request("192.0.2.1", &contact);
        if second {
            message = message.replace("Content-Length", "m: <sip:10.0.0.8:99>\n        Content-Length");
        }
        let bytes = lines(&message);
        let message = parse(&bytes);
        let said = |parts: &Parts| {
            let source = "10.0.0.1:5060".parse().unwrap();
            nat::classify(message, parts, source, Transport::Udp, Facts::all())
        };
        prop_assert_eq!(said(&Parts::of(message)), said(&Parts::default()));
    }
}

#[test]
fn nothing_follows_from_the_via_of_a_response() {
    let message = "SIP/2.0 200 OK
        Via: SIP/2.0/UDP 10.0.0.1:5999;branch=z9hG4bK1
        Contact: <sip:b@10.0.0.2>
        Content-Length: 0

        ";
    assert_eq!(
        facts(message, "192.0.2.1:5060", Facts::all()),
        Facts::PRIVATE_CONTACT.with(Facts::DIFF_IP_SRC_CONTACT)
    );
}

const SDP: &str = "v=0\r\no=a 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n\
    m=audio 4000 RTP/AVP 0\r\nm=video 4002 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\n";

fn multipart() -> String {
    format!(
        "ignored\r\n--x y\r\nContent-Type: application/sdp\r\n\r\n{SDP}\r\n\
         --x y\r\nContent-Type: text/plain\r\n\r\nc=IN IP4 10.0.0.9\r\n\r\n--x y--\r\n"
    )
}

#[test]
fn private_media_is_looked_for_only_when_asked() {
    let with = |content_type: &str, body: &str| {
        format!(
            "INVITE sip:b@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
             Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let of = |message: String, asked| {
        nat::classify(
            parse(message.as_bytes()),
            &Parts::default(),
            "192.0.2.1:5060".parse().unwrap(),
            Transport::Udp,
            asked,
        )
    };
    let sdp = with("application/SDP", SDP);
    assert_eq!(of(sdp.clone(), Facts::all()), Facts::PRIVATE_SDP);
    assert_eq!(of(sdp, Facts::PRIVATE_VIA), Facts::empty());
    let mixed = with("multipart/mixed;boundary=\"x y\"", &multipart());
    assert_eq!(of(mixed, Facts::all()), Facts::PRIVATE_SDP);
    let text = with("text/plain", SDP);
    assert_eq!(of(text, Facts::all()), Facts::empty());
    let held = with("application/sdp", "v=0\r\nc=IN IP4 0.0.0.0\r\n");
    assert_eq!(of(held, Facts::all()), Facts::empty());
}

fn fixed(value: &str, source: &str, transport: Transport, params: &str, preserve: bool) -> String {
    let source = source.parse().unwrap();
    let fixed = nat::fix_contacts(
        value.as_bytes(),
        source,
        transport,
        params.as_bytes(),
        preserve,
    );
    match fixed.unwrap() {
        Some(fixed) => String::from_utf8(fixed).unwrap(),
        None => value.to_owned(),
    }
}

#[test]
fn contacts_get_the_address_of_the_source() {
    use Transport::{Tcp, Tls, Udp, Ws};
    let source = "192.0.2.1:6000";
    for (value, transport, params, fixed_value) in [
        ("<sip:a@10.0.0.1>", Udp, "", "<sip:a@192.0.2.1:6000>"),
        (
            "sip:a@10.0.0.1;expires=5",
            Udp,
            "",
            "<sip:a@192.0.2.1:6000>;expires=5",
        ),
        ("*", Udp, "", "*"),
        ("<tel:+1>", Udp, "", "<tel:+1>"),
        ("<sip:10.0.0.1:1>", Udp, "", "<sip:192.0.2.1:6000>"),
        (
            "\"A, <B>\" <sip:a:pw@h:1;ob?X=y>;q=0.5 , <sip:b@[fd00::1]:2>",
            Udp,
            "",
            "\"A, <B>\" <sip:a:pw@192.0.2.1:6000;ob?X=y>;q=0.5 , <sip:b@192.0.2.1:6000>",
        ),
        (
            "<sip:a@10.0.0.1;transport=udp;x>",
            Tcp,
            "",
            "<sip:a@192.0.2.1:6000;transport=tcp;x>",
        ),
        (
            "<sip:a@10.0.0.1>",
            Tls,
            "",
            "<sip:a@192.0.2.1:6000;transport=tls>",
        ),
        ("<sips:a@10.0.0.1>", Tls, "", "<sips:a@192.0.2.1:6000>"),
        (
            "<sip:a@x.invalid>",
            Ws,
            "",
            "<sip:a@192.0.2.1:6000;transport=ws>",
        ),
        (
            "<sip:a@10.0.0.1;maddr=10.0.0.2>",
            Udp,
            ";nat=yes",
            "<sip:a@192.0.2.1:6000;nat=yes>",
        ),
    ] {
        assert_eq!(fixed(value, source, transport, params, false), fixed_value);
    }
    assert_eq!(
        fixed("<sip:a@10.0.0.1>", "[2001:db8::1]:6000", Udp, "", false),
        "<sip:a@[2001:db8::1]:6000>"
    );
    let source = source.parse().unwrap();
    assert!(nat::fix_contacts(b"<sip:a@x", source, Udp, b"", false).is_err());
    assert!(nat::fix_contacts(b"<sip:a@x>", source, Udp, b";a>", false).is_err());
    assert!(nat::check_params(b";a=b;c").is_ok());
    for bad in [&b";a>"[..], b"?a=b", b";a,b", b";a b"] {
        assert!(nat::check_params(bad).is_err());
    }
}

#[test]
fn a_preserved_contact_is_restored() {
    let source = "192.0.2.1:6000";
    for uri in [
        "sip:a@10.0.0.1:5062",
        "sip:a@10.0.0.1;ob",
        "sip:a@[fd00::1]:5062;ob?X=y",
        "sip:a@phone.lan;org=MTAuMC4wLjk6MQ",
    ] {
        let value = fixed(&format!("<{uri}>"), source, Transport::Udp, "", true);
        let mended = value.trim_matches(['<', '>']);
        assert!(mended.starts_with("sip:a@192.0.2.1:6000"), "{mended}");
        assert_eq!(mended.matches(";org=").count(), 1, "{mended}");
        let back = nat::restore_uri(mended.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(back).unwrap(), uri);
    }
    for uri in [
        "sip:a@192.0.2.1",
        "sip:a@x;org=%20",
        "sip:a@x;org=AAAA",
        "tel:+1",
    ] {
        assert_eq!(nat::restore_uri(uri.as_bytes()), None, "{uri}");
    }
}

#[test]
fn received_is_added_for_another_registrar() {
    let source: SocketAddr = "192.0.2.1:6000".parse().unwrap();
    let of = |value: &str, transport, in_uri| {
        let added = nat::add_received(value.as_bytes(), source, transport, in_uri).unwrap();
        added.map(|added| String::from_utf8(added).unwrap())
    };
    assert_eq!(
        of(
            "<sip:a@10.0.0.1>;expires=5, <sip:b@h>",
            Transport::Udp,
            false
        )
        .unwrap(),
        "<sip:a@10.0.0.1>;expires=5;received=\"sip:192.0.2.1:6000\", \
         <sip:b@h>;received=\"sip:192.0.2.1:6000\""
    );
    assert_eq!(
        of("<sip:a@10.0.0.1?X=y>;q=1", Transport::Tcp, true).unwrap(),
        "<sip:a@10.0.0.1;received=sip:192.0.2.1:6000%3Btransport%3Dtcp?X=y>;q=1"
    );
    assert_eq!(of("*", Transport::Udp, false), None);
}

fn sdp(fixes: SdpFixes, address: &str, fields: &str) -> String {
    let address = address.parse().unwrap();
    let fixed = nat::fix_body(
        b"application/sdp",
        SDP.as_bytes(),
        fixes,
        address,
        fields.as_bytes(),
    );
    fixed.map_or_else(|| SDP.to_owned(), |fixed| String::from_utf8(fixed).unwrap())
}

#[test]
fn session_descriptions_are_mended_by_flags() {
    let media = SdpFixes::REWRITE_MEDIA_IP;
    let mended = SDP.replace("c=IN IP4 10.0.0.1", "c=IN IP4 192.0.2.1");
    assert_eq!(
        sdp(media, "192.0.2.1", ""),
        format!("{mended}a=oldcip:10.0.0.1\r\n")
    );
    assert_eq!(
        sdp(media.with(SdpFixes::OLDIP_SKIP), "192.0.2.1", ""),
        mended
    );
    let null = media
        .with(SdpFixes::REWRITE_NULL_IPS)
        .with(SdpFixes::OLDIP_SKIP);
    assert_eq!(
        sdp(null, "2001:db8::1", ""),
        SDP.replace("c=IN IP4 10.0.0.1", "c=IN IP6 2001:db8::1")
            .replace("c=IN IP4 0.0.0.0", "c=IN IP6 2001:db8::1")
    );
    assert_eq!(
        sdp(SdpFixes::REWRITE_ORIGIN_IP, "192.0.2.1", ""),
        SDP.replace("o=a 1 1 IN IP4 10.0.0.1", "o=a 1 1 IN IP4 192.0.2.1")
            + "a=oldoip:10.0.0.1\r\n"
    );
    let add = SdpFixes::ADD_DIR_ACTIVE.with(SdpFixes::ADD_NO_RTPPROXY);
    assert_eq!(
        sdp(add, "192.0.2.1", "a=x:y"),
        format!("{SDP}a=direction:active\r\na=nortpproxy:yes\r\na=x:y\r\n")
    );
    assert_eq!(sdp(SdpFixes::empty(), "192.0.2.1", ""), SDP);
    assert_eq!(sdp(media, "10.0.0.1", ""), SDP, "it says so already");
}

#[test]
fn a_description_in_a_multipart_body_is_mended_alone() {
    let fixes = SdpFixes::REWRITE_MEDIA_IP;
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let body = multipart();
    let of = |content_type: &str| {
        let fixed = nat::fix_body(
            content_type.as_bytes(),
            body.as_bytes(),
            fixes,
            address,
            b"",
        );
        fixed.map(|fixed| String::from_utf8(fixed).unwrap())
    };
    let fixed = of("multipart/mixed; boundary=\"x y\"").unwrap();
    let expected = body
        .replace("c=IN IP4 10.0.0.1", "c=IN IP4 192.0.2.1")
        .replace(
            "c=IN IP4 0.0.0.0\r\n",
            "c=IN IP4 0.0.0.0\r\na=oldcip:10.0.0.1\r\n",
        );
    assert_eq!(fixed, expected);
    assert_eq!(of("multipart/mixed; boundary=other"), None);
    assert_eq!(of("multipart/mixed"), None);
    assert_eq!(of("application/isup"), None);
}

proptest! {
    #[test]
    fn a_mended_contact_is_a_contact_at_the_source(
        user in "[a-z0-9]{1,8}",
        host in "(10\\.[0-9]\\.[0-9]\\.[0-9]|[a-z]{1,9}\\.lan|\\[fd00::[0-9a-f]{1,4}\\])",
        port in proptest::option::of(1u16..),
        params in "(;ob|;x=[a-z]{1,3}|;transport=(udp|tcp|tls)|;maddr=10\\.0\\.0\\.1){0,3}",
        tail in "(;q=0\\.5|;expires=[0-9]{1,4}|;\\+sip\\.instance=\"<a,b>\"){0,2}",
        preserve in any::<bool>(),
        source_port in 1u16..,
        reliable in any::<bool>(),
    ) {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let value = format!("<sip:{user}@{host}{port}{params}>{tail}");
        let transport = if reliable { Transport::Tcp } else { Transport::Udp };
        let source = SocketAddr::new("198.51.100.7".parse().unwrap(), source_port);
        let fixed = nat::fix_contacts(value.as_bytes(), source, transport, b"", preserve)
            .unwrap()
            .unwrap_or_else(|| value.clone().into());
        let contact = Contact::parse(&fixed).unwrap();
        let address = contact.addr().unwrap();
        prop_assert_eq!(address.uri.host.ip(), Some(source.ip()));
        prop_assert_eq!(address.uri.port, Some(source_port));
        prop_assert_eq!(address.uri.user, Some(user.as_bytes()));
        prop_assert!(address.uri.maddr().is_none());
        prop_assert!(address.uri.transport().unwrap_or(Transport::Udp) == transport);
        if preserve {
            let back = nat::restore_uri(address.uri.raw).unwrap();
            let back = Uri::parse(&back).unwrap();
            let old = Contact::parse(value.as_bytes()).unwrap();
            let old = old.addr().unwrap();
            prop_assert_eq!(back.host_raw, old.uri.host_raw);
            prop_assert_eq!(back.port, old.uri.port);
        } else {
            // Once more changes nothing.
            let again = nat::fix_contacts(&fixed, source, transport, b"", false).unwrap();
            prop_assert_eq!(again, None);
        }
    }

    #[test]
    fn no_text_breaks_the_mending(
        value in proptest::collection::vec(any::<u8>(), 0..80),
        body in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'c'), Just(b'=')], 0..80),
        fixes in 0u8..64,
    ) {
        let source: SocketAddr = "192.0.2.1:5060".parse().unwrap();
        let _ = nat::restore_uri(&value);
        if let Ok(Some(fixed)) = nat::fix_contacts(&value, source, Transport::Udp, b"", true) {
            prop_assert!(Contact::parse(&fixed).is_ok() || fixed.contains(&b','));
        }
        let flags = [
            SdpFixes::ADD_DIR_ACTIVE, SdpFixes::REWRITE_MEDIA_IP, SdpFixes::ADD_NO_RTPPROXY,
            SdpFixes::REWRITE_ORIGIN_IP, SdpFixes::REWRITE_NULL_IPS, SdpFixes::OLDIP_SKIP,
        ];
        let fixes = flags.iter().enumerate().filter(|(bit, _)| fixes & (1 << bit) != 0)
            .fold(SdpFixes::empty(), |all, (_, flag)| all.with(*flag));
        let _ = nat::fix_body(b"application/sdp", &body, fixes, source.ip(), b"");
        let _ = nat::fix_body(b"multipart/mixed;boundary=c", &body, fixes, source.ip(), b"a=x");
    }
}
