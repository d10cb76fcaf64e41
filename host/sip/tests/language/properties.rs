//! Properties over generated messages, and over any bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use sipbox_sip::stream::{Frame, FrameLimits, Framer};
use sipbox_sip::uri::{equivalent, escape_user, unescape};
use sipbox_sip::validate::{Limits, check, check_changed};
use sipbox_sip::{EditList, HeaderId, Index, Message, OwnedMessage, Span, Uri};

use super::invariants;

fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![20 => 0x21u8..=0x7e, 2 => Just(b' '), 1 => 0x80u8..=0xff];
    vec(byte, 1..20).prop_map(|mut bytes| {
        // White space at the ends is not part of a value.
        bytes.insert(0, b'x');
        bytes.push(b'x');
        bytes
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..HeaderId::ALL.len()).prop_map(|at| HeaderId::ALL[at].name().to_owned()),
        "[A-Za-z][A-Za-z0-9-]{0,20}",
        Just("v".to_owned()),
        Just("k".to_owned()),
    ]
    .prop_filter("the length is written apart", |name| {
        HeaderId::from_name(name.as_bytes()) != HeaderId::ContentLength
    })
}

#[derive(Debug, Clone)]
struct Parts {
    method: String,
    fields: Vec<(String, Vec<u8>, bool)>,
    body: Vec<u8>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let field = (name(), value(), any::<bool>());
    ("[A-Z]{1,12}", vec(field, 1..40), vec(any::<u8>(), 0..80)).prop_map(
        |(method, fields, body)| Parts {
            method,
            fields,
            body,
        },
    )
}

fn serialised(parts: &Parts) -> Vec<u8> {
    let mut out = format!("{} sip:u@h SIP/2.0\r\n", parts.method).into_bytes();
    for (name, value, folded) in &parts.fields {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(if *folded { b" :\r\n\t" } else { b": " });
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("l: {}\r\n\r\n", parts.body.len()).as_bytes());
    out.extend_from_slice(&parts.body);
    out
}

#[derive(Debug, Clone)]
enum Change {
    Prepend(String, Vec<u8>),
    Append(String, Vec<u8>),
    Set(String, Vec<u8>),
    Remove(String),
    Body(Vec<u8>),
    RequestUri(String),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (name(), value()).prop_map(|(n, v)| Change::Prepend(n, v)),
        (name(), value()).prop_map(|(n, v)| Change::Append(n, v)),
        (name(), value()).prop_map(|(n, v)| Change::Set(n, v)),
        name().prop_map(Change::Remove),
        vec(any::<u8>(), 0..40).prop_map(Change::Body),
        "sip:[a-z]{1,8}@[a-z]{1,8}".prop_map(Change::RequestUri),
    ]
}

/// A change of something that is judged, which may be for the worse.
fn judged() -> impl Strategy<Value = Change> {
    let name = || {
        prop::sample::select(vec![
            "Via",
            "From",
            "To",
            "Call-ID",
            "CSeq",
            "Max-Forwards",
            "m",
            "Route",
            "Path",
            "Expires",
            "X",
        ])
        .prop_map(str::to_owned)
    };
    let value = || {
        prop::sample::select(vec![
            "<sip:c@192.0.2.3>;tag=2",
            "sip:d@example.org",
            "<sip:e;lr>, <sip:f@g>",
            "2 INVITE",
            "2 BYE",
            "17",
            "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK2",
            "not < anything",
        ])
        .prop_map(|value| value.as_bytes().to_vec())
    };
    prop_oneof![
        (name(), value()).prop_map(|(n, v)| Change::Append(n, v)),
        (name(), value()).prop_map(|(n, v)| Change::Set(n, v)),
        name().prop_map(Change::Remove),
        vec(any::<u8>(), 0..40).prop_map(Change::Body),
        prop::sample::select(vec!["sip:x@y;z", "tel:+1", "sip:h:1"])
            .prop_map(|uri| Change::RequestUri(uri.to_owned())),
    ]
}

fn apply(change: &Change, message: Message<'_>, edits: &mut EditList) {
    match change {
        Change::Prepend(name, value) => edits.prepend_header(message, name.as_str(), value),
        Change::Append(name, value) => edits.append_header(message, name.as_str(), value),
        Change::Set(name, value) => edits.set_header(message, name.as_str(), value),
        Change::Remove(name) => edits.remove_header(message, name.as_str()),
        Change::Body(body) => edits.set_body(message, body),
        Change::RequestUri(uri) => edits.set_request_uri(message, uri.as_bytes()),
    }
    .unwrap();
}

/// The fields of a message by name, each name's values in their order: what is
/// left when the order between different names is forgotten.
fn by_name(message: Message<'_>) -> Vec<(String, Vec<Vec<u8>>)> {
    let mut found: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
    for field in message.headers() {
        let name = match field.id {
            HeaderId::Other => String::from_utf8_lossy(message.get(field.name)).to_lowercase(),
            id => id.name().to_lowercase(),
        };
        let value = message.get(field.value).to_vec();
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => found.push((name, vec![value])),
        }
    }
    found.sort();
    found
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(parts in parts()) {
        let bytes = serialised(&parts);
        let mut index = Index::new();
        let message = Message::parse(&bytes, &mut index).unwrap();
        prop_assert_eq!(message.method_token(), parts.method.as_bytes());
        prop_assert_eq!(message.headers().len(), parts.fields.len() + 1);
        for (field, (name, value, _)) in message.headers().iter().zip(&parts.fields) {
            prop_assert_eq!(message.get(field.name), name.as_bytes());
            prop_assert_eq!(message.get(field.value), value.as_slice());
            prop_assert_eq!(field.id, HeaderId::from_name(name.as_bytes()));
        }
        prop_assert_eq!(message.body(), parts.body.as_slice());
        let mut out = Vec::new();
        EditList::new().write(message, &mut out).unwrap();
        prop_assert_eq!(out, bytes);
    }

    /// What is known of a message that lost some fields is what a new look at it finds.
    #[test]
    fn a_message_without_some_fields_is_known(
        mut parts in parts(),
        asked in vec((0..6usize, 0..40usize), 0..6),
        gone in vec(prop::bool::weighted(0.3), 50),
        elements in vec(0..8usize, 0..3),
    ) {
        const ASKED: [(&str, &str); 6] = [
            ("From", "\"A\" <sip:a@192.0.2.1:5070>;tag=1"),
            ("To", "sip:b@example.org;tag=2"),
            ("m", "<sip:c@[2001:db8::1]:5060;ob>"),
            ("CSeq", "17 OPTIONS"),
            ("Route", "<sip:p;lr>, <sip:q> ,sip:r"),
            ("X-Empty", ""),
        ];
        for (which, at) in asked {
            let (name, value) = ASKED[which];
            let at = at.min(parts.fields.len());
            parts.fields.insert(at, (name.to_owned(), value.into(), false));
        }
        let bytes = serialised(&parts);
        let mut index = Index::new();
        let message = Message::parse(&bytes, &mut index).unwrap();
        let mut edits = EditList::new();
        for (field, _) in message.headers().iter().zip(gone).filter(|(_, gone)| *gone) {
            edits.remove_field(field).unwrap();
        }
        for at in elements {
            let values: Vec<_> = message.values(HeaderId::Route).collect();
            if let Some(value) = values.get(at) {
                let _ = edits.remove_value(message, value);
            }
        }
        let known = sipbox_sip::Parts::of(message);
        let mut memory = Vec::new();
        let edited = edits.edited(message, Some(&known), &mut memory);
        let anew = OwnedMessage::parse(memory.clone().into());
        match (edited, anew) {
            (Ok(edited), Ok(anew)) => {
                prop_assert_eq!(edited.buffer(), anew.buffer());
                prop_assert_eq!(edited.as_ref().index(), anew.as_ref().index());
                prop_assert_eq!(edited.parts(), anew.parts());
            }
            (edited, anew) => prop_assert_eq!(edited.is_err(), anew.is_err()),
        }
    }

    /// Several edits on one message, written at once, give what one edit after
    /// another gives, each on the message that the one before left.
    #[test]
    fn edits_compose(parts in parts(), changes in vec(change(), 0..12)) {
        let bytes = serialised(&parts);
        let mut index = Index::new();
        let message = Message::parse(&bytes, &mut index).unwrap();
        let mut edits = EditList::new();
        for change in &changes {
            apply(change, message, &mut edits);
        }
        let mut at_once = Vec::new();
        edits.write(message, &mut at_once).unwrap();

        let mut stepwise = bytes.clone();
        for change in &changes {
            let mut index = Index::new();
            let Ok(message) = Message::parse(&stepwise, &mut index) else { break };
            let mut edits = EditList::new();
            apply(change, message, &mut edits);
            let mut out = Vec::new();
            edits.write(message, &mut out).unwrap();
            stepwise = out;
        }
        let (mut first, mut second) = (Index::new(), Index::new());
        let first = Message::parse(&at_once, &mut first).unwrap();
        let second = Message::parse(&stepwise, &mut second).unwrap();
        prop_assert_eq!(by_name(first), by_name(second));
        prop_assert_eq!(first.body(), second.body());
        prop_assert_eq!(first.request_uri(), second.request_uri());
        prop_assert_eq!(first.bytes(), at_once.as_slice());
    }

    /// What is known of a changed message, and whether it passes, is what a new look at all of
    /// it says, although only what was changed is looked at.
    #[test]
    fn a_changed_message_is_known_and_judged(changes in vec(judged(), 0..4)) {
        let bytes = b"\r\nINVITE sip:b@example.org;x=y SIP/2.0\r\n\
            Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\n\
            From: \"A\" <sip:a@192.0.2.1>;tag=1\r\n\
            Contact: <sip:a@192.0.2.1:5070>\r\n\
            To: sip:b@example.org\r\n\
            Call-ID: c\r\n\
            CSeq: 1 INVITE\r\n\
            Max-Forwards: 70\r\n\
            Content-Length: 2\r\n\r\nhi";
        let limits = Limits::default();
        let mut index = Index::new();
        let message = Message::parse(bytes, &mut index).unwrap();
        let known = check(message, &limits).unwrap().parts;
        let mut edits = EditList::new();
        let mut changed = Vec::new();
        for change in &changes {
            apply(change, message, &mut edits);
            if let Change::Append(name, _) | Change::Set(name, _) | Change::Remove(name) = change {
                changed.push(HeaderId::from_name(name.as_bytes()));
            }
        }
        let mut out = Vec::new();
        edits.write(message, &mut out).unwrap();
        let mut index = Index::new();
        let edited = Message::parse(&out, &mut index).unwrap();
        let parts = edits.parts_of(message, &known, edited, &changed);
        prop_assert_eq!(parts, sipbox_sip::Parts::of(edited));
        let all = check(edited, &limits).map(|_| ());
        prop_assert_eq!(check_changed(edited, &limits, &changed).is_ok(), all.is_ok(), "{:?}", all);
    }

    /// Raw edits against a model: apply them from the back to a plain vector.
    #[test]
    fn disjoint_replacements_match_a_plain_splice(
        parts in parts(),
        cuts in vec(any::<prop::sample::Index>(), 2..10),
        texts in vec(vec(any::<u8>(), 0..10), 5),
        order in any::<u64>(),
    ) {
        let bytes = serialised(&parts);
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        places.sort_unstable();
        places.dedup();
        let mut splices: Vec<(usize, usize, &[u8])> = places
            .chunks_exact(2)
            .zip(&texts)
            .map(|(pair, text)| (pair[0], pair[1], text.as_slice()))
            .collect();
        let mut model = bytes.clone();
        for (start, end, text) in splices.iter().rev() {
            model.splice(start..end, text.iter().copied());
        }
        let rotate = usize::try_from(order % 7).unwrap() % splices.len().max(1);
        splices.rotate_left(rotate);
        let mut index = Index::new();
        let message = Message::parse(&bytes, &mut index).unwrap();
        let mut edits = EditList::new();
        for (start, end, text) in &splices {
            edits.replace(Span::new(*start, *end), text).unwrap();
        }
        let mut out = Vec::new();
        edits.write(message, &mut out).unwrap();
        prop_assert_eq!(out, model);
    }

    #[test]
    fn a_stream_is_cut_the_same_way_in_any_pieces(
        messages in vec(parts(), 1..4),
        pieces in vec(1usize..50, 1..200),
    ) {
        let expected: Vec<_> = messages.iter().map(serialised).collect();
        let stream = expected.concat();
        let mut framer = Framer::new(FrameLimits::default());
        let mut found = Vec::new();
        let mut rest = stream.as_slice();
        for size in pieces.into_iter().chain(std::iter::repeat(64)) {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            framer.feed(piece);
            rest = after;
            while let Some(frame) = framer.next().unwrap() {
                if let Frame::Message(bytes) = frame {
                    found.push(bytes.to_vec());
                }
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn escaped_user_parts_come_back(user in vec(any::<u8>(), 1..30)) {
        let mut escaped = b"sip:".to_vec();
        escape_user(&user, &mut escaped);
        escaped.extend_from_slice(b"@h");
        let uri = Uri::parse(&escaped).unwrap();
        prop_assert_eq!(unescape(uri.user.unwrap()).into_owned(), user);
        prop_assert!(equivalent(&uri, &uri));
    }

    /// No input panics, and what is read lies inside of the input.
    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..300)) {
        survive(&bytes);
    }

    #[test]
    fn broken_messages_are_survived(
        parts in parts(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = serialised(&parts);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survive(&bytes);
    }

    #[test]
    fn nearly_right_values_are_survived(text in "[ \t\r\n\"\\\\<>:;,=?@%a-z0-9SIP/.\\[\\]*+-]{0,60}") {
        invariants::uri(text.as_bytes());
    }
}

fn survive(bytes: &[u8]) {
    invariants::message(bytes);
    invariants::uri(bytes);
    invariants::framing(bytes);
}
