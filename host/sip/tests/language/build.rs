//! Messages made new.

use sipbox_sip::{BuildError, HeaderId, RequestBuilder, ResponseBuilder};

use super::{lines, parse};

fn invite() -> Vec<u8> {
    lines(
        "INVITE sip:bob@192.0.2.4 SIP/2.0
        Via: SIP/2.0/UDP proxy;branch=z9hG4bK2 , SIP/2.0/UDP alice;branch=z9hG4bK1
        v: SIP/2.0/TCP older
        Max-Forwards: 69
        Record-Route: <sip:proxy;lr>
        Route: <sip:next;lr>
        route: <sip:last;lr>
        f: Alice <sip:alice@a>;tag=1
        To: Bob <sip:bob@b>
        i: call
        CSeq: 314159 INVITE
        Timestamp: 54.0
        Require: 100rel
        Contact: <sip:alice@h>
        Content-Length: 0

        ",
    )
}

fn respond<'a>(
    request: &'a [u8],
    build: impl FnOnce(ResponseBuilder<'a>) -> ResponseBuilder<'a>,
    status: u16,
) -> String {
    let mut out = Vec::new();
    build(ResponseBuilder::new(parse(request), status))
        .write(&mut out)
        .unwrap();
    String::from_utf8(out).unwrap()
}

fn text(message: &str) -> String {
    String::from_utf8(lines(message)).unwrap()
}

/// RFC 3261 8.2.6.2 and 12.1.1.
#[test]
fn a_response_copies_what_it_must() {
    let request = invite();
    let out = respond(
        &request,
        |r| {
            r.to_tag(b"x")
                .record_route()
                .header(HeaderId::Contact, b"<sip:us>")
                .body(b"a/b", b"body")
        },
        200,
    );
    let expected = text(
        "SIP/2.0 200 OK
        Via: SIP/2.0/UDP proxy;branch=z9hG4bK2 , SIP/2.0/UDP alice;branch=z9hG4bK1
        v: SIP/2.0/TCP older
        Record-Route: <sip:proxy;lr>
        f: Alice <sip:alice@a>;tag=1
        To: Bob <sip:bob@b>;tag=x
        i: call
        CSeq: 314159 INVITE
        Contact: <sip:us>
        Content-Type: a/b
        Content-Length: 4

        body",
    );
    assert_eq!(out, expected.trim_end());
}

/// RFC 3261 8.2.6.1.
#[test]
fn a_100_has_the_timestamp_and_no_tag() {
    let request = invite();
    let out = respond(&request, |r| r.to_tag(b"x").timestamp_delay(b"0.2"), 100);
    assert!(out.starts_with("SIP/2.0 100 Trying\r\n"));
    assert!(out.contains("\r\nTimestamp: 54.0 0.2\r\n"));
    assert!(out.contains("\r\nTo: Bob <sip:bob@b>\r\n"));
    assert!(!respond(&request, |r| r, 180).contains("Timestamp"));
}

#[test]
fn the_topmost_via_can_be_what_it_became_on_receipt() {
    let request = invite();
    let out = respond(
        &request,
        |r| r.top_via(b"SIP/2.0/UDP proxy;received=1.2.3.4"),
        404,
    );
    assert!(out.starts_with(
        "SIP/2.0 404 Not Found\r\nVia: SIP/2.0/UDP proxy;received=1.2.3.4\r\n\
         Via: SIP/2.0/UDP alice;branch=z9hG4bK1\r\nv: SIP/2.0/TCP older\r\nf: "
    ));
}

#[test]
fn a_tag_is_added_only_where_none_is() {
    for (to, expected) in [
        ("<sip:b@c>;tag=old", "<sip:b@c>;tag=old"),
        ("sip:b@c;x=y", "sip:b@c;x=y;tag=new"),
        ("<sip:b@c;tag=uri>", "<sip:b@c;tag=uri>;tag=new"),
        ("\"broken <sip:b@c>;TAG=old", "\"broken <sip:b@c>;TAG=old"),
        ("\"broken <sip:b@c>", "\"broken <sip:b@c>;tag=new"),
    ] {
        let request = lines(&format!(
            "A sip:a SIP/2.0\nVia: SIP/2.0/UDP h\nTo: {to}\n\n"
        ));
        let out = respond(&request, |r| r.to_tag(b"new"), 400);
        assert!(out.contains(&format!("\r\nTo: {expected}\r\n")), "{out}");
    }
}

#[test]
fn a_response_needs_a_request_and_clean_values() {
    let request = invite();
    let build = |change: fn(ResponseBuilder<'_>) -> ResponseBuilder<'_>, status| {
        let mut out = b"kept".to_vec();
        let result = change(ResponseBuilder::new(parse(&request), status)).write(&mut out);
        assert!(result.is_ok() || out == b"kept");
        result
    };
    assert_eq!(build(|r| r, 99), Err(BuildError::Status));
    assert_eq!(build(|r| r, 700), Err(BuildError::Status));
    assert_eq!(build(|r| r.reason(b"a\r\nb"), 200), Err(BuildError::Value));
    assert_eq!(build(|r| r.to_tag(b"a\r\nb"), 200), Err(BuildError::Value));
    assert_eq!(build(|r| r.top_via(b"a\nb"), 200), Err(BuildError::Value));
    assert_eq!(
        build(|r| r.header("X", b"a\0"), 200),
        Err(BuildError::Value)
    );
    assert_eq!(build(|r| r.header("X Y", b"a"), 200), Err(BuildError::Name));
    assert_eq!(build(|r| r.reason(b"\xff"), 200), Ok(()));
    let response = lines("SIP/2.0 200 OK\nVia: x\n\n");
    let builder = ResponseBuilder::new(parse(&response), 200);
    assert_eq!(builder.write(&mut Vec::new()), Err(BuildError::Source));
}

/// RFC 3261 9.1.
#[test]
fn a_cancel_belongs_to_its_invite() {
    let request = invite();
    let mut out = Vec::new();
    let builder = RequestBuilder::cancel(parse(&request)).unwrap();
    builder
        .header(HeaderId::Reason, b"SIP;cause=200")
        .write(&mut out)
        .unwrap();
    let expected = text(
        "CANCEL sip:bob@192.0.2.4 SIP/2.0
        Via: SIP/2.0/UDP proxy;branch=z9hG4bK2
        Route: <sip:next;lr>
        route: <sip:last;lr>
        f: Alice <sip:alice@a>;tag=1
        To: Bob <sip:bob@b>
        i: call
        CSeq: 314159 CANCEL
        Max-Forwards: 70
        Reason: SIP;cause=200
        Content-Length: 0

        ",
    );
    assert_eq!(
        String::from_utf8(out).unwrap().trim_end(),
        expected.trim_end()
    );
}

/// RFC 3261 17.1.1.3.
#[test]
fn an_ack_for_a_failure_takes_to_from_the_response() {
    let request = invite();
    let response = lines("SIP/2.0 486 Busy\nTo: Bob <sip:bob@b>;tag=9\n\n");
    let mut out = Vec::new();
    let builder = RequestBuilder::ack(parse(&request), parse(&response)).unwrap();
    builder.write(&mut out).unwrap();
    let ack = parse(&out);
    assert_eq!(ack.method_token(), b"ACK");
    assert_eq!(ack.cseq().unwrap().method, b"ACK");
    assert_eq!(ack.cseq().unwrap().number, 314_159);
    assert_eq!(ack.to().unwrap().tag(), Some(&b"9"[..]));
    assert_eq!(ack.vias().count(), 1);
    assert_eq!(ack.routes().count(), 2);
    let wrong = RequestBuilder::ack(parse(&response), parse(&request));
    assert!(matches!(wrong, Err(BuildError::Source)));
    let bare = lines("INVITE sip:a SIP/2.0\nVia: x\n\n");
    assert!(matches!(
        RequestBuilder::cancel(parse(&bare)),
        Err(BuildError::Field(_))
    ));
}

#[test]
fn a_request_from_scratch() {
    let mut out = Vec::new();
    RequestBuilder::new(b"OPTIONS", b"sip:bob@b")
        .header(HeaderId::From, b"<sip:a>;tag=1")
        .header(HeaderId::To, b"<sip:b>")
        .header(HeaderId::CallId, b"x")
        .cseq(7)
        .header(HeaderId::Via, b"SIP/2.0/UDP h;branch=z9hG4bKx")
        .header(HeaderId::MaxForwards, b"3")
        .body(b"text/plain", b"hi")
        .write(&mut out)
        .unwrap();
    let message = parse(&out);
    let top = sipbox_sip::validate::check(message, &Default::default());
    assert_eq!(top.map(|checked| checked.via).ok(), message.via_top().ok());
    assert_eq!(message.headers()[0].id, HeaderId::Via);
    assert_eq!(message.max_forwards(), Ok(Some(3)));
    assert_eq!(message.body(), b"hi");
    let write = |method: &'static [u8], uri: &'static [u8]| {
        RequestBuilder::new(method, uri).write(&mut Vec::new())
    };
    assert_eq!(write(b"A B", b"sip:a"), Err(BuildError::Method));
    assert_eq!(write(b"A", b"sip:a b"), Err(BuildError::RequestUri));
}
