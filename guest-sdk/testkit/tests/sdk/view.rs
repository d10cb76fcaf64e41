//! Reading the view.

use sipbox_guest::{Direction, Request, RouteOutcome, Transport, Verdict};
use sipbox_testkit::Call;

use crate::{asking, reading};

const INVITE: &str = "\
INVITE sips:b%6Fb;x=1:secret@[2001:db8::7]:5071;transport=tcp;lr?Subject=hi SIP/2.0
v: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK776asdhds
f: \"Alice, \\\"A\\\"\" <sip:alice@EXAMPLE.com:5070>;tag=19;x=y
T: tel:+49-30-1234;phone-context=example.com
i: a84b4c76e66710
CSeq: 314159   INVITE
m: <sip:alice@192.0.2.10:5066;transport=udp>;expires=60
X-Note: one
 two
x-note: three
k: path, 100rel
X-Bytes: caf\u{e9}

v=0
";

#[test]
fn parts_of_the_request_uri() {
    reading(Call::text(INVITE), |request| {
        let target = request.request_uri();
        assert_eq!(request.method(), "INVITE");
        assert_eq!(target.scheme(), "sips");
        assert_eq!(target.user(), Some("b%6Fb;x=1"));
        assert_eq!(target.host(), "[2001:db8::7]");
        assert_eq!(target.port(), Some(5071));
        assert_eq!(target.params(), "transport=tcp;lr");
        assert_eq!(target.param("Transport"), Some("tcp"));
        assert_eq!(target.param("lr"), Some(""));
        assert_eq!(target.param("maddr"), None);
        assert_eq!(target.aor().as_deref(), Some("bob;x=1@[2001:db8::7]"));
    });
}

#[test]
fn parts_of_from_to_and_contact() {
    reading(Call::text(INVITE), |request| {
        let from = request.from();
        assert_eq!(from.uri(), "sip:alice@EXAMPLE.com:5070");
        assert_eq!((from.user(), from.host()), (Some("alice"), "EXAMPLE.com"));
        assert_eq!((from.port(), from.tag()), (Some(5070), Some("19")));
        assert_eq!(from.display_name(), Some("\"Alice, \\\"A\\\"\""));
        assert_eq!(from.aor().as_deref(), Some("alice@example.com"));
        let to = request.to();
        assert_eq!((to.user(), to.host()), (Some("+49-30-1234"), ""));
        assert_eq!((to.tag(), to.display_name(), to.port()), (None, None, None));
        let contact = request.contact().expect("there is a Contact");
        assert_eq!(
            (contact.user(), contact.host()),
            (Some("alice"), "192.0.2.10")
        );
        assert_eq!((contact.port(), contact.tag()), (Some(5066), None));
    });
    reading(Call::text(INVITE).without("m"), |request| {
        assert!(request.contact().is_none());
    });
}

#[test]
fn header_fields_in_any_form_and_case() {
    reading(Call::text(INVITE), |request| {
        assert_eq!(request.call_id(), "a84b4c76e66710");
        assert_eq!(
            (request.cseq_number(), request.cseq_method()),
            (Some(314_159), "INVITE")
        );
        for name in ["Supported", "k", "K", "sUPPORTED"] {
            assert_eq!(request.header(name), Some("path, 100rel"), "{name}");
        }
        let notes: Vec<&str> = request.headers("X-NOTE").collect();
        assert_eq!(notes.len(), 2);
        assert!(notes[0].starts_with("one") && notes[0].ends_with("two"));
        assert!(
            !notes[0].contains(['\r', '\n']),
            "a fold is blanks: {:?}",
            notes[0]
        );
        assert_eq!(notes[1], "three");
        assert_eq!(request.header("Expires"), None);
        let all: Vec<&str> = request.all_headers().map(|(name, _)| name).collect();
        assert_eq!(
            all,
            [
                "Via",
                "From",
                "To",
                "Call-ID",
                "CSeq",
                "Contact",
                "X-Note",
                "x-note",
                "Supported",
                "X-Bytes"
            ]
        );
    });
}

#[test]
fn exact_bytes_are_fetched_once_and_only_if_they_are_asked_for() {
    let run = asking(Call::text(INVITE), |request| {
        assert_eq!(request.header_bytes("Expires"), None);
        let bytes = request.header_bytes("X-Note");
        assert_eq!(bytes, Some(b"one\r\n two".as_slice()));
        assert_eq!(request.header_bytes("x-bytes").map(<[u8]>::len), Some(5));
        Verdict::Next
    });
    run.assert_host_calls(&["view", "bytes"]);
}

#[test]
fn a_broken_index_is_no_panic() {
    use sipbox_guest::bindings::host::sipbox::policy::message::MessageView;
    let broken = Request::from_view(MessageView {
        text: "INVITE".to_owned(),
        index: vec![
            1,
            3,
            u32::MAX,
            2,
            u32::MAX,
            u32::MAX,
            129,
            0,
            6,
            400,
            0,
            1,
            7,
        ],
    });
    assert_eq!(broken.method(), "");
    assert_eq!(broken.request_uri().text(), "");
    assert_eq!(broken.header("Via"), None);
    assert_eq!(broken.all_headers().collect::<Vec<_>>(), [("", "INVITE")]);
}

#[test]
fn facts_that_are_not_in_the_bytes() {
    let call = Call::text(INVITE)
        .source("2001:db8::9", 40_000, Transport::Wss)
        .tenant("acme")
        .listener("edge")
        .at(1_900_000_000)
        .in_dialog(RouteOutcome::Strict)
        .direction(Direction::Upstream)
        .route_params("lr;nat=yes")
        .authenticated_user("alice");
    let call = call.set("To", "<sip:bob@example.com>;tag=7");
    reading(call, |request| {
        let source = request.source();
        assert_eq!((source.address, source.port), ("2001:db8::9", 40_000));
        assert_eq!(source.transport, Transport::Wss);
        assert_eq!((request.tenant(), request.listener()), ("acme", "edge"));
        assert_eq!(request.now().seconds, 1_900_000_000);
        assert!(request.in_dialog());
        assert_eq!(request.route_outcome(), RouteOutcome::Strict);
        assert_eq!(request.direction(), Direction::Upstream);
        assert_eq!(request.route_param("nat"), Some("yes"));
        assert_eq!(request.route_param("lr"), Some(""));
        assert_eq!(request.route_param("pn"), None);
        assert_eq!(request.authenticated_user(), Some("alice"));
        assert_eq!(request.body_length(), 4);
    });
    reading(Call::request("INVITE", "sip:bob@example.com"), |request| {
        assert!(!request.in_dialog());
        assert_eq!(request.route_outcome(), RouteOutcome::None);
        assert_eq!(request.authenticated_user(), None);
        assert_eq!(request.route_param("lr"), None);
    });
}

#[test]
fn equal_users_have_one_canonical_text() {
    for (written, canonical) in [
        ("alice", "alice"),
        ("%61lice", "alice"),
        ("%41lice", "Alice"),
        ("a%20b", "a%20b"),
        ("a%2fb", "a/b"),
        ("a%c3%a9", "a%C3%A9"),
        ("a%40b", "a%40b"),
        ("a%4", "a%4"),
        ("%", "%"),
        ("%zz", "%zz"),
        ("100%é", "100%é"),
        ("%+1", "%+1"),
    ] {
        assert_eq!(
            sipbox_guest::canonical_user(written),
            canonical,
            "{written}"
        );
    }
    assert_eq!(
        sipbox_guest::aor("%61lice", "EXAMPLE.Com"),
        "alice@example.com"
    );
}
