//! What must hold for any bytes. The fuzz targets, the replay of their corpus and
//! the property tests all call these functions.
#![allow(dead_code, reason = "each target uses one of them")]

use sipbox_sip::sdp::Sdp;
use sipbox_sip::stream::{Frame, FrameErrorKind, FrameLimits, Framer};
use sipbox_sip::uri::{equivalent, escape_user, unescape};
use sipbox_sip::validate::{Limits, check};
use sipbox_sip::{
    EditList, HeaderId, Index, Message, NameAddr, Parts, RequestBuilder, ResponseBuilder, Uri, Via,
};

/// One datagram: what is read lies inside of it; unedited it leaves as it came;
/// with a proxy's edits it is a message that differs in nothing else; a fault that
/// is said to be answerable can be answered with a message that passes.
pub(crate) fn message(bytes: &[u8]) {
    let mut index = Index::new();
    let Ok(message) = Message::parse(bytes, &mut index) else {
        return;
    };
    for field in message.headers() {
        assert!(field.line.covers(field.value) && field.line.covers(field.name));
        let value = message.get(field.value);
        values(value);
    }
    for id in HeaderId::ALL {
        for value in message.values(*id) {
            assert_eq!(message.get(value.span), value.as_bytes());
        }
    }
    let mut plain = Vec::new();
    EditList::new()
        .write(message, &mut plain)
        .expect("no edit, no error");
    assert_eq!(plain, message.bytes());
    match check(message, &Limits::default()) {
        Ok(checked) => {
            if message.is_request() {
                assert_eq!(checked.parts, Parts::of(message));
            }
            forwarded(message, &plain);
        }
        Err(fault) if fault.answerable => answered(message, fault.status, fault.reason),
        Err(_) => {}
    }
    let _ = check(
        message,
        &Limits {
            datagram: false,
            ..Limits::default()
        },
    );
    let mut out = Vec::new();
    if let Ok(cancel) = RequestBuilder::cancel(message) {
        let _ = cancel.write(&mut out);
    }
}

fn forwarded(message: Message<'_>, plain: &[u8]) {
    let mut edits = EditList::new();
    edits
        .prepend_header(message, HeaderId::Via, b"SIP/2.0/UDP p;branch=z9hG4bKp")
        .expect("edit");
    edits.append_header(message, "X-Fuzz", b"x").expect("edit");
    let mut out = Vec::new();
    edits.write(message, &mut out).expect("in bounds");
    let mut index = Index::new();
    let sent = Message::parse(&out, &mut index).expect("a valid message stays one");
    assert_eq!(check(sent, &Limits::default()).err(), None);
    assert_eq!(sent.headers().len(), message.headers().len() + 2);
    assert_eq!(sent.body(), message.body());
    let mut undo = EditList::new();
    undo.remove_field(sent.field(HeaderId::Via).expect("ours"))
        .expect("edit");
    let added = sent.by_name(b"X-Fuzz").last().expect("ours");
    undo.remove_field(added).expect("edit");
    let mut back = Vec::new();
    undo.write(sent, &mut back).expect("in bounds");
    assert_eq!(back, plain);
}

fn answered(message: Message<'_>, status: u16, reason: &'static str) {
    let mut out = Vec::new();
    let response = ResponseBuilder::new(message, status)
        .reason(reason.as_bytes())
        .to_tag(b"t");
    response
        .write(&mut out)
        .expect("an answerable request is answered");
    let mut index = Index::new();
    let response = Message::parse(&out, &mut index).expect("the answer is a message");
    assert_eq!(response.status(), Some(status));
    let top = |message: Message<'_>| message.via_top_lenient().ok().map(|via| via.port);
    assert_eq!(top(response), top(message));
    assert_eq!(response.body(), b"");
    assert!(index.end() == out.len());
}

/// One URI, also read as an address and as a Via: a URI is equivalent to itself,
/// and its user part survives unescaping and escaping.
pub(crate) fn uri(bytes: &[u8]) {
    values(bytes);
    let Ok(uri) = Uri::parse(bytes) else {
        return;
    };
    assert_eq!(uri.raw, bytes);
    assert!(equivalent(&uri, &uri), "{uri:?}");
    if let Some(user) = uri.user.filter(|_| uri.is_sip()) {
        let mut text = b"sip:".to_vec();
        escape_user(&unescape(user), &mut text);
        text.extend_from_slice(b"@h");
        let again = Uri::parse(&text).expect("escaped user parts are well-formed");
        assert_eq!(unescape(again.user.unwrap_or_default()), unescape(user));
    }
    let bracketed = [b"<", bytes, b">"].concat();
    assert_eq!(
        NameAddr::parse(&bracketed).map(|address| address.uri_raw()),
        Ok(bytes)
    );
}

/// One stream, cut in two at a place that its first byte tells: the frames are
/// those of the whole stream, and each message is one for the index.
pub(crate) fn framing(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else {
        return;
    };
    let cut = usize::from(*cut).min(stream.len());
    let (first, second) = stream.split_at_checked(cut).unwrap_or((stream, b""));
    assert_eq!(frames(&[stream]), frames(&[first, second]));
}

type Frames = (Vec<Frame>, Option<FrameErrorKind>);

fn frames(pieces: &[&[u8]]) -> Frames {
    let mut framer = Framer::new(FrameLimits {
        head: 4096,
        body: 4096,
    });
    let mut found = Vec::new();
    for piece in pieces {
        framer.feed(piece);
        loop {
            match framer.next() {
                Ok(Some(frame)) => {
                    if let Frame::Message(bytes) = &frame {
                        let mut index = Index::new();
                        index
                            .parse(bytes)
                            .expect("a framed message is one for the index");
                        assert_eq!(index.end(), bytes.len());
                    }
                    found.push(frame);
                }
                Ok(None) => break,
                Err(error) => return (found, Some(error.kind)),
            }
        }
    }
    (found, None)
}

fn values(value: &[u8]) {
    let via = Via::parse(value);
    if let Ok(via) = via {
        assert_eq!(Via::parse_lenient(value), Ok(via));
        let mut out = Vec::new();
        let source = std::net::SocketAddr::from(([192, 0, 2, 1], 9));
        sipbox_sip::via::write_received(value, &via, source, &mut out);
        let again = Via::parse(&out).expect("an amended Via is well-formed");
        assert_eq!(
            (again.host, again.port, again.branch()),
            (via.host, via.port, via.branch())
        );
    }
    let _ = sipbox_sip::CSeq::parse(value);
    let _ = sipbox_sip::auth::Credentials::parse(value);
    let _ = sipbox_sip::name_addr::q_value(value);
    let _ = (
        sipbox_sip::lex::unfold(value),
        sipbox_sip::lex::unquote(value),
    );
    if let Ok(address) = NameAddr::parse(value) {
        let _ = (
            address.tag(),
            address.q(),
            address.expires(),
            address.instance(),
        );
    }
    let sdp = Sdp::new(value);
    for section in sdp.media().chain([sdp.session()]) {
        let _ = (
            section.media(),
            section.connections().count(),
            section.attributes().count(),
        );
    }
}
