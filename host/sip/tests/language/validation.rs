//! The rules beyond RFC 4475's messages.

use sipbox_sip::validate::{Limits, check};
use sipbox_sip::{Fault, ResponseBuilder};

use super::{lines, parse};

const REQUEST: &str = "OPTIONS sip:a@b SIP/2.0
    Via: SIP/2.0/UDP h;branch=z9hG4bK1
    From: <sip:c@d>;tag=1
    To: <sip:a@b>
    Call-ID: x
    CSeq: 1 OPTIONS
    Max-Forwards: 70

    ";

fn judged(text: &str, limits: &Limits) -> Result<(), Fault> {
    check(parse(&lines(text)), limits).map(|_| ())
}

#[test]
fn a_plain_request_passes() {
    assert_eq!(judged(REQUEST, &Limits::default()), Ok(()));
}

#[test]
fn each_broken_part_is_named() {
    let cases = [
        ("SIP/2.0\n", "SIP/3.0\n", 505, "Version Not Supported"),
        ("SIP/2.0\n", "HTTP/1.1\n", 400, "Bad Request: SIP-Version"),
        (
            "From: <sip:c@d>;tag=1\n",
            "",
            400,
            "Bad Request: missing From",
        ),
        ("To: <sip:a@b>", "To: <sip:a@b", 400, "Bad Request: To"),
        (
            "To: <sip:a@b>",
            "To: <sip:a@b>\nt: <sip:a@b>",
            400,
            "Bad Request: several To",
        ),
        ("Call-ID: x", "Call-ID: x y", 400, "Bad Request: Call-ID"),
        (
            "CSeq: 1 OPTIONS",
            "CSeq: 1 options",
            400,
            "Bad Request: CSeq method differs",
        ),
        (
            "CSeq: 1 OPTIONS",
            "CSeq: one OPTIONS",
            400,
            "Bad Request: CSeq",
        ),
        (
            "Max-Forwards: 70",
            "Max-Forwards: many",
            400,
            "Bad Request: Max-Forwards",
        ),
        (
            "Max-Forwards: 70",
            "Contact: <sip:x>;;",
            400,
            "Bad Request: Contact",
        ),
        (
            "Max-Forwards: 70",
            "Route: sip:x;lr",
            400,
            "Bad Request: Route",
        ),
        (
            "Max-Forwards: 70",
            "Record-Route: <x>",
            400,
            "Bad Request: Record-Route",
        ),
        ("Max-Forwards: 70", "Path: ,", 400, "Bad Request: Path"),
        (
            "Max-Forwards: 70",
            "Via: SIP/2.0/UDP",
            400,
            "Bad Request: Via",
        ),
        (
            "Max-Forwards: 70",
            "v: SIP/9.0/UDP h",
            400,
            "Bad Request: Via protocol",
        ),
        (
            "Max-Forwards: 70",
            "no header",
            400,
            "Bad Request: malformed header line",
        ),
        (
            "Max-Forwards: 70",
            "X: a\rb",
            400,
            "Bad Request: CR without LF",
        ),
        (
            "Max-Forwards: 70",
            "l: 99",
            400,
            "Bad Request: body shorter than Content-Length",
        ),
        ("sip:a@b SIP", "tel:+1 SIP", 0, ""),
        (
            "sip:a@b SIP",
            "urn:service:sos SIP",
            416,
            "Unsupported URI Scheme",
        ),
        ("sip:a@b SIP", "sip:a@ SIP", 400, "Bad Request: Request-URI"),
        ("OPTIONS sip", "OPT<>ONS sip", 400, "Bad Request: method"),
    ];
    for (old, new, status, reason) in cases {
        assert!(REQUEST.contains(old), "{old}");
        let text = REQUEST.replacen(old, new, 1);
        match judged(&text, &Limits::default()) {
            Ok(()) => assert_eq!(status, 0, "{new:?}"),
            Err(fault) => {
                assert_eq!((fault.status, fault.reason), (status, reason), "{new:?}");
                assert!(
                    fault.answerable && fault.rfc.starts_with("RFC "),
                    "{fault:?}"
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_answered_is_said_to_be_so() {
    let no_via = REQUEST.replace("Via: SIP/2.0/UDP h;branch=z9hG4bK1\n", "");
    let fault = judged(&no_via, &Limits::default()).unwrap_err();
    assert_eq!(
        (fault.reason, fault.answerable),
        ("Bad Request: missing Via", false)
    );
    let ack = REQUEST
        .replace("OPTIONS", "ACK")
        .replace("To: <sip:a@b>\n", "");
    assert!(!judged(&ack, &Limits::default()).unwrap_err().answerable);
    let response = REQUEST.replace("OPTIONS sip:a@b SIP/2.0", "SIP/2.0 200 OK");
    assert_eq!(judged(&response, &Limits::default()), Ok(()));
    let broken = response.replace("CSeq: 1 OPTIONS", "CSeq: x");
    assert!(!judged(&broken, &Limits::default()).unwrap_err().answerable);
}

#[test]
fn limits_have_their_statuses() {
    let small = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        judged(REQUEST, &limits).unwrap_err().status
    };
    assert_eq!(small(|limits| limits.message = 20), 513);
    assert_eq!(small(|limits| limits.headers = 3), 513);
    assert_eq!(small(|limits| limits.request_uri = 3), 414);
    // RFC 3261 20.14: on a stream Content-Length is mandatory.
    assert_eq!(small(|limits| limits.datagram = false), 400);
}

/// A head that is cut off in its last line can still be answered.
#[test]
fn the_answer_to_a_cut_off_request_is_well_formed() {
    let text = lines(REQUEST.trim_end());
    let cut = &text[..text.len() - 2];
    let message = parse(cut);
    let fault = check(message, &Limits::default()).unwrap_err();
    assert_eq!(fault.reason, "Bad Request: header fields without end");
    assert!(fault.answerable);
    let mut out = Vec::new();
    let builder = ResponseBuilder::new(message, fault.status).reason(fault.reason.as_bytes());
    builder.to_tag(b"t").write(&mut out).unwrap();
    let response = parse(&out);
    let top = check(response, &Limits::default());
    assert_eq!(top.map(|checked| checked.via).ok(), response.via_top().ok());
}

/// RFC 4475 3.3.10.
#[test]
fn a_response_does_not_go_on_to_many() {
    for (host, ok) in [
        ("255.255.255.255", false),
        ("224.0.1.75", false),
        ("0.0.0.0", false),
        ("[ff02::1]", false),
        ("192.0.2.1", true),
        ("192.0.2.1;received=255.255.255.255", false),
        ("name.example", true),
    ] {
        let text = REQUEST
            .replace("OPTIONS sip:a@b SIP/2.0", "SIP/2.0 200 OK")
            .replace("From:", &format!("Via: SIP/2.0/UDP {host}\nFrom:"));
        assert_eq!(judged(&text, &Limits::default()).is_ok(), ok, "{host}");
    }
}
