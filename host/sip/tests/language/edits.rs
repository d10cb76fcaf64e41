//! Edits: each helper, composition, order, and what is refused.

use sipbox_sip::{EditError, EditList, HeaderId, Span};

use super::{lines, parse, written};

fn request() -> Vec<u8> {
    lines(
        "INVITE sip:bob@example.org SIP/2.0
        Via: SIP/2.0/UDP one
        X-First: 1
        v: SIP/2.0/UDP two
        Max-Forwards:  70
        Route: <sip:a;lr>, <sip:b;lr> ,<sip:c;lr>
        Content-Length: 4

        body",
    )
}

fn edited(change: impl FnOnce(&mut EditList)) -> String {
    let bytes = request();
    let message = parse(&bytes);
    let mut edits = EditList::new();
    change(&mut edits);
    written(message, &edits)
}

/// The lines by which the edited message differs from the original, without
/// their line ends: `-` for gone, `+` for new.
fn difference(change: impl FnOnce(&mut EditList)) -> Vec<String> {
    let (old, new) = (
        String::from_utf8(parse(&request()).bytes().to_vec()).unwrap(),
        edited(change),
    );
    let (old, new): (Vec<_>, Vec<_>) = (old.split("\r\n").collect(), new.split("\r\n").collect());
    let gone = old
        .iter()
        .filter(|line| !new.contains(line))
        .map(|line| format!("-{line}"));
    let came = new
        .iter()
        .filter(|line| !old.contains(line))
        .map(|line| format!("+{line}"));
    gone.chain(came).collect()
}

#[test]
fn without_edits_nothing_changes() {
    assert_eq!(edited(|_| ()).as_bytes(), parse(&request()).bytes());
}

#[test]
fn what_a_proxy_does_to_a_request() {
    let bytes = request();
    let message = parse(&bytes);
    let out = edited(|edits| {
        edits
            .set_request_uri(message, b"sip:bob@192.0.2.1:5062")
            .unwrap();
        edits
            .prepend_header(message, HeaderId::Via, b"SIP/2.0/UDP proxy")
            .unwrap();
        edits
            .prepend_header(message, HeaderId::RecordRoute, b"<sip:proxy;lr>")
            .unwrap();
        edits
            .replace_value(message.field(HeaderId::MaxForwards).unwrap(), b"69")
            .unwrap();
        edits.append_header(message, "X-Last", b"2").unwrap();
    });
    let expected = lines(
        "INVITE sip:bob@192.0.2.1:5062 SIP/2.0
        Record-Route: <sip:proxy;lr>
        Via: SIP/2.0/UDP proxy
        Via: SIP/2.0/UDP one
        X-First: 1
        v: SIP/2.0/UDP two
        Max-Forwards:  69
        Route: <sip:a;lr>, <sip:b;lr> ,<sip:c;lr>
        Content-Length: 4
        X-Last: 2

        body",
    );
    assert_eq!(out.as_bytes(), &expected[..expected.len() - 2]);
}

#[test]
fn what_is_prepended_last_comes_out_on_top() {
    let bytes = request();
    let message = parse(&bytes);
    let out = edited(|edits| {
        for value in [b"1", b"2", b"3"] {
            edits.prepend_header(message, HeaderId::Via, value).unwrap();
        }
        for value in [b"4", b"5"] {
            edits.append_header(message, HeaderId::Via, value).unwrap();
        }
    });
    let values: Vec<_> = out
        .split("\r\n")
        .filter_map(|line| line.strip_prefix("Via: ").or(line.strip_prefix("v: ")))
        .collect();
    assert_eq!(
        values,
        [
            "3",
            "2",
            "1",
            "SIP/2.0/UDP one",
            "SIP/2.0/UDP two",
            "4",
            "5"
        ]
    );
}

/// The field before ends where the field after begins: both keep their own.
#[test]
fn appended_and_prepended_fields_meet_in_order() {
    let bytes = request();
    let message = parse(&bytes);
    let out = edited(|edits| {
        edits
            .prepend_header(message, HeaderId::MaxForwards, b"before")
            .unwrap();
        edits
            .append_header(message, HeaderId::Via, b"after")
            .unwrap();
        edits
            .remove_field(message.field(HeaderId::MaxForwards).unwrap())
            .unwrap();
    });
    assert!(out.contains("v: SIP/2.0/UDP two\r\nVia: after\r\nMax-Forwards: before\r\nRoute:"));
}

#[test]
fn list_elements_go_one_by_one() {
    let bytes = request();
    let message = parse(&bytes);
    let route: Vec<_> = message.values(HeaderId::Route).collect();
    let cases: &[(&[usize], Option<&str>)] = &[
        (&[0], Some("<sip:b;lr> ,<sip:c;lr>")),
        (&[1], Some("<sip:a;lr> ,<sip:c;lr>")),
        (&[2], Some("<sip:a;lr>, <sip:b;lr>")),
        (&[0, 1], Some("<sip:c;lr>")),
        (&[1, 0], Some("<sip:c;lr>")),
        (&[1, 2], Some("<sip:a;lr>")),
        (&[2, 1], Some("<sip:a;lr>")),
        (&[0, 2], Some("<sip:b;lr>")),
        (&[2, 0, 2], Some("<sip:b;lr>")),
        (&[0, 1, 2], None),
        (&[2, 1, 0], None),
        (&[1, 0, 2], None),
    ];
    for (gone, left) in cases {
        let out = edited(|edits| {
            for at in *gone {
                edits.remove_value(message, &route[*at]).unwrap();
            }
        });
        match left {
            Some(left) => assert!(
                out.contains(&format!("\r\nRoute: {left}\r\n")),
                "{gone:?}: {out}"
            ),
            None => assert!(!out.contains("Route"), "{gone:?}: {out}"),
        }
    }
    let out = edited(|edits| {
        edits.remove_value(message, &route[0]).unwrap();
        edits
            .remove_field(message.field(HeaderId::Route).unwrap())
            .unwrap();
        edits.remove_value(message, &route[1]).unwrap();
    });
    assert!(!out.contains("Route"), "{out}");
    let out = edited(|edits| {
        edits.replace_element(&route[1], b"<sip:x>").unwrap();
        edits.remove_value(message, &route[0]).unwrap();
    });
    assert!(out.contains("\r\nRoute: <sip:x> ,<sip:c;lr>\r\n"), "{out}");
}

#[test]
fn setting_a_header_leaves_exactly_one() {
    let bytes = request();
    let message = parse(&bytes);
    let set = |name: &'static str, values: &[&str]| {
        difference(|edits| {
            for value in values {
                edits.set_header(message, name, value.as_bytes()).unwrap();
            }
        })
    };
    assert_eq!(set("X-First", &["a", "b"]), ["-X-First: 1", "+X-First: b"]);
    assert_eq!(set("x-new", &["a", "b"]), ["+x-new: b"]);
    assert_eq!(
        set("Via", &["z"]),
        ["-Via: SIP/2.0/UDP one", "-v: SIP/2.0/UDP two", "+Via: z"]
    );
    let gone = difference(|edits| {
        edits.append_header(message, "X-First", b"2").unwrap();
        edits.set_header(message, "X-Other", b"3").unwrap();
        edits.remove_header(message, "x-first").unwrap();
        edits.remove_header(message, HeaderId::Subject).unwrap();
    });
    assert_eq!(gone, ["-X-First: 1", "+X-Other: 3"]);
    let above = edited(|edits| {
        edits.set_header(message, "X-First", b"set").unwrap();
        edits.prepend_header(message, "X-First", b"above").unwrap();
        edits.append_header(message, "X-First", b"below").unwrap();
    });
    assert!(above.contains("\r\nX-First: above\r\nX-First: set\r\nX-First: below\r\n"));
    let back = difference(|edits| {
        edits.remove_header(message, HeaderId::MaxForwards).unwrap();
        edits
            .set_header(message, HeaderId::MaxForwards, b"5")
            .unwrap();
    });
    assert_eq!(back, ["-Max-Forwards:  70", "+Max-Forwards: 5"]);
}

#[test]
fn a_new_body_brings_its_length() {
    let bytes = request();
    let message = parse(&bytes);
    let out = edited(|edits| {
        edits.set_body(message, b"first try").unwrap();
        edits.set_body(message, b"longer body").unwrap();
    });
    assert!(
        out.ends_with("\r\nContent-Length: 11\r\n\r\nlonger body"),
        "{out}"
    );

    let bare = lines("A sip:a SIP/2.0\nVia: x\n\n");
    let message = parse(&bare);
    let mut edits = EditList::new();
    edits.set_body(message, b"one").unwrap();
    edits.set_body(message, b"three").unwrap();
    assert_eq!(
        written(message, &edits),
        "A sip:a SIP/2.0\r\nVia: x\r\nContent-Length: 5\r\n\r\nthree"
    );
    edits.set_body(message, b"").unwrap();
    assert!(written(message, &edits).ends_with("Content-Length: 0\r\n\r\n"));
}

#[test]
fn injection_is_refused() {
    let bytes = request();
    let message = parse(&bytes);
    let field = *message.field(HeaderId::MaxForwards).unwrap();
    let element = message.values(HeaderId::Route).next().unwrap();
    let mut edits = EditList::new();
    for value in [&b"a\r\nX: y"[..], b"a\nb", b"a\rb", b"a\0b"] {
        assert_eq!(
            edits.append_header(message, "X", value),
            Err(EditError::Value)
        );
        assert_eq!(
            edits.prepend_header(message, "X", value),
            Err(EditError::Value)
        );
        assert_eq!(edits.set_header(message, "X", value), Err(EditError::Value));
        assert_eq!(edits.replace_value(&field, value), Err(EditError::Value));
        assert_eq!(
            edits.replace_element(&element, value),
            Err(EditError::Value)
        );
    }
    for name in ["", "a b", "a:", "X\r\nY", "\u{e9}"] {
        assert_eq!(
            edits.append_header(message, name, b"x"),
            Err(EditError::Name),
            "{name:?}"
        );
    }
    for uri in [&b""[..], b"sip:a SIP/2.0\r\nX: y", b"<sip:a>", b"sip:a b"] {
        assert_eq!(
            edits.set_request_uri(message, uri),
            Err(EditError::RequestUri)
        );
    }
    assert!(edits.is_empty());
    let response = lines("SIP/2.0 200 OK\nVia: x\n\n");
    assert_eq!(
        edits.set_request_uri(parse(&response), b"sip:a"),
        Err(EditError::NotARequest)
    );
}

#[test]
fn overlapping_edits_are_refused_and_leave_the_list_as_it_was() {
    let bytes = request();
    let message = parse(&bytes);
    let route = message.field(HeaderId::Route).unwrap();
    let element = message.values(HeaderId::Route).next().unwrap();
    let mut edits = EditList::new();
    edits.replace_value(route, b"<sip:z>").unwrap();
    let before = written(message, &edits);
    assert_eq!(
        edits.remove_value(message, &element),
        Err(EditError::Overlap)
    );
    assert_eq!(
        edits.replace_element(&element, b"<sip:y>"),
        Err(EditError::Overlap)
    );
    assert_eq!(
        edits.insert_at(route.value.start + 1, b"x"),
        Err(EditError::Overlap)
    );
    let across = Span {
        start: route.value.start - 2,
        end: route.value.start + 2,
    };
    assert_eq!(edits.remove(across), Err(EditError::Overlap));
    assert_eq!(written(message, &edits), before);
    // The whole field covers its value: the later edit wins.
    edits.remove_field(route).unwrap();
    assert!(!written(message, &edits).contains("Route"));
}

#[test]
fn edits_outside_of_the_message_are_refused() {
    let bytes = request();
    let message = parse(&bytes);
    let end = u32::try_from(bytes.len()).unwrap();
    let mut out = b"kept".to_vec();
    for span in [
        Span {
            start: end,
            end: end + 1,
        },
        Span {
            start: end - 1,
            end: end + 9,
        },
    ] {
        let mut edits = EditList::new();
        edits.replace(span, b"x").unwrap();
        assert_eq!(edits.write(message, &mut out), Err(EditError::OutOfBounds));
    }
    let mut edits = EditList::new();
    assert_eq!(
        edits.remove(Span { start: 5, end: 4 }),
        Err(EditError::OutOfBounds)
    );
    assert_eq!(out, b"kept");
    let other = lines("A sip:a SIP/2.0\nContact: <sip:somewhere.else.example>\n\n");
    let foreign = parse(&other).values(HeaderId::Contact).next().unwrap();
    assert_eq!(
        edits.remove_value(message, &foreign),
        Err(EditError::Element)
    );
}

#[test]
fn nothing_is_put_behind_a_head_without_end() {
    let bytes = b"A sip:a SIP/2.0\r\nVia: x";
    let message = parse(bytes);
    let mut edits = EditList::new();
    assert_eq!(
        edits.append_header(message, "X", b"y"),
        Err(EditError::Unterminated)
    );
    assert_eq!(edits.set_body(message, b"y"), Err(EditError::Unterminated));
    edits.prepend_header(message, HeaderId::Via, b"y").unwrap();
    assert_eq!(
        written(message, &edits),
        "A sip:a SIP/2.0\r\nVia: y\r\nVia: x"
    );
}

#[test]
fn a_cleared_list_starts_anew() {
    let bytes = request();
    let message = parse(&bytes);
    let mut edits = EditList::new();
    let route = message.values(HeaderId::Route).next().unwrap();
    edits.remove_value(message, &route).unwrap();
    assert_eq!(edits.len(), 1);
    edits.clear();
    assert!(edits.is_empty());
    assert_eq!(written(message, &edits).as_bytes(), message.bytes());
    let second = message.values(HeaderId::Route).nth(1).unwrap();
    edits.remove_value(message, &second).unwrap();
    assert!(written(message, &edits).contains("Route: <sip:a;lr> ,<sip:c;lr>\r\n"));
}

/// Also one that was the only one of its field, in whose place a field was set since.
#[test]
fn an_element_that_is_gone_is_not_removed_again() {
    let bytes = lines(
        "INVITE sip:bob@example.org SIP/2.0
        Route: <sip:p;lr>
        Content-Length: 0

        ",
    );
    let message = parse(&bytes);
    let route = message.values(HeaderId::Route).next().unwrap();
    let mut edits = EditList::new();
    edits.remove_value(message, &route).unwrap();
    edits
        .set_header(message, HeaderId::Route, b"<sip:q;lr>")
        .unwrap();
    edits.remove_value(message, &route).unwrap();
    assert!(written(message, &edits).contains("Route: <sip:q;lr>\r\n"));
}
