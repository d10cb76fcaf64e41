//! The index: lines, names, folds, line ends, many fields.

use sipbox_sip::{ContentLength, HeaderId, Index, Message, Method, OwnedMessage};

use super::{lines, parse};

#[test]
fn a_request_is_split_into_its_parts() {
    let bytes = lines(
        "INVITE sip:bob@example.org SIP/2.0
        Via: SIP/2.0/UDP h
        i :  abc
        L: 4

        body and more",
    );
    let message = parse(&bytes);
    assert!(message.is_request());
    assert_eq!(
        (message.method(), message.method_token()),
        (Method::Invite, &b"INVITE"[..])
    );
    assert_eq!(message.request_uri(), b"sip:bob@example.org");
    assert_eq!(
        message.get(message.request_uri_span()),
        message.request_uri()
    );
    assert_eq!(
        (message.version(), message.status()),
        (&b"SIP/2.0"[..], None)
    );
    assert_eq!(message.header(HeaderId::CallId), Some(&b"abc"[..]));
    assert_eq!(message.body(), b"body");
    assert_eq!(message.trailing(), b" and more\r\n");
    let names: Vec<_> = message
        .headers()
        .iter()
        .map(|field| message.get(field.name))
        .collect();
    assert_eq!(names, [&b"Via"[..], b"i", b"L"]);
}

#[test]
fn a_response_is_split_into_its_parts() {
    for (line, status, reason) in [
        ("SIP/2.0 200 OK", Some(200), "OK"),
        ("sip/2.0 486 Busy  Here ", Some(486), "Busy  Here "),
        ("SIP/2.0 100 ", Some(100), ""),
        ("SIP/2.0 100", Some(100), ""),
        ("SIP/2.0 99 x", None, "x"),
        ("SIP/2.0 700 x", None, "x"),
        ("SIP/2.0 0200 x", None, "x"),
        ("SIP/2.0 2x0 x", None, "x"),
    ] {
        let bytes = format!("{line}\r\nVia: x\r\n\r\n").into_bytes();
        let message = parse(&bytes);
        assert!(!message.is_request(), "{line}");
        assert_eq!(message.status(), status, "{line}");
        assert_eq!(message.reason(), reason.as_bytes(), "{line}");
        assert_eq!(message.request_uri(), b"", "{line}");
    }
}

#[test]
fn methods_are_case_sensitive() {
    for (token, method) in [
        ("INVITE", Method::Invite),
        ("invite", Method::Other),
        ("INVITEX", Method::Other),
    ] {
        let bytes = format!("{token} sip:a@b SIP/2.0\r\nX: y\r\n\r\n").into_bytes();
        assert_eq!(parse(&bytes).method(), method, "{token}");
    }
    for method in Method::ALL {
        assert_eq!(Method::from_token(method.token().as_bytes()), *method);
    }
}

#[test]
fn folds_belong_to_the_field_before_them() {
    let bytes = b"A sip:a SIP/2.0\r\nSubject: one\r\n two\r\n\t\r\n three \r\nTo:\r\n x\r\n\r\n";
    let message = parse(bytes);
    assert_eq!(message.headers().len(), 2);
    assert_eq!(
        message.header(HeaderId::Subject),
        Some(&b"one\r\n two\r\n\t\r\n three"[..])
    );
    assert_eq!(message.header(HeaderId::To), Some(&b"x"[..]));
    let subject = message.field(HeaderId::Subject).unwrap();
    assert!(message.get(subject.line).ends_with(b"three \r\n"));
}

#[test]
fn line_feeds_alone_end_lines_too() {
    let bytes = b"\n\r\nA sip:a SIP/2.0\nVia: x\nTo: y\r\n\nbody";
    let message = parse(bytes);
    assert_eq!(message.header(HeaderId::Via), Some(&b"x"[..]));
    assert_eq!(message.header(HeaderId::To), Some(&b"y"[..]));
    assert_eq!(message.body(), b"body");
    assert!(message.bytes().starts_with(b"A sip:a"));
}

#[test]
fn empty_values_and_strange_lines_do_not_disturb_their_neighbours() {
    let bytes = b"A sip:a SIP/2.0\r\nSupported:\r\nno colon here\r\n: x\r\nb d: x\r\nTo: y\r\n\r\n";
    let message = parse(bytes);
    assert_eq!(message.headers().len(), 2);
    assert_eq!(message.header(HeaderId::Supported), Some(&b""[..]));
    assert_eq!(message.values(HeaderId::Supported).count(), 0);
    assert_eq!(message.header(HeaderId::To), Some(&b"y"[..]));
}

#[test]
fn bytes_above_127_stay_as_they_are() {
    let bytes = b"A sip:a SIP/2.0\r\nSubject: \xff\xfe\r\nX-\xff: y\r\nX: \xc3\x28\r\n\r\n";
    let message = parse(bytes);
    assert_eq!(message.header(HeaderId::Subject), Some(&b"\xff\xfe"[..]));
    assert_eq!(message.headers().len(), 2);
    assert_eq!(message.bytes(), bytes);
}

#[test]
fn hundreds_of_fields_are_found() {
    let mut text = String::from("A sip:a SIP/2.0\r\n");
    for n in 0..300 {
        text.push_str(&format!("X-{n}: {n}\r\n"));
    }
    text.push_str("To: late\r\nTo: later\r\nl: 0\r\n\r\n");
    let message = parse(text.as_bytes());
    assert_eq!(message.header(HeaderId::To), Some(&b"late"[..]));
    assert_eq!(message.all(HeaderId::To).count(), 2);
    assert_eq!(message.header(HeaderId::From), None);
    assert_eq!(message.by_name(b"x-299").count(), 1);
}

#[test]
fn one_index_serves_message_after_message() {
    let mut index = Index::new();
    let first = lines("A sip:a SIP/2.0\nVia: x\nTo: y\nl: 3\n\nabcdef");
    assert_eq!(Message::parse(&first, &mut index).unwrap().body(), b"abc");
    assert!(index.parse(b"\r\n").is_err());
    assert_eq!(index.headers().len(), 0);
    let second = lines("B sip:b SIP/2.0\nFrom: z\n\nabcdef");
    let message = Message::parse(&second, &mut index).unwrap();
    assert_eq!(message.header(HeaderId::Via), None);
    assert_eq!(message.header(HeaderId::From), Some(&b"z"[..]));
    assert_eq!(message.body(), b"abcdef\r\n");
    assert_eq!(index.content_length(), ContentLength::Absent);
}

#[test]
fn an_owned_message_shares_its_bytes() {
    let bytes = bytes::Bytes::from(lines("A sip:a SIP/2.0\nVia: x\nl: 0\n\n"));
    let owned = OwnedMessage::parse(bytes.clone()).unwrap();
    let copy = owned.clone();
    assert_eq!(copy.as_ref().header(HeaderId::Via), Some(&b"x"[..]));
    assert_eq!(copy.buffer().as_ptr(), bytes.as_ptr());
}
