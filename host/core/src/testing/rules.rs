//! What is refused before anybody is asked (RFC 3261 16.3), and replies.

use super::*;
use crate::policy::{Body, Reply};

fn status_of(spec: SettingsSpec, text: &str) -> (String, Option<Sent>) {
    let mut rig = Rig::with(spec, |_, _| Ruling::reply(200));
    rig.receive(text, udp(ALICE));
    let sent = rig.take().pop();
    let line = sent
        .as_ref()
        .map(|sent| sent.first_line().to_owned())
        .unwrap_or_default();
    let refused = rig
        .events
        .iter()
        .any(|event| matches!(event, Event::Refused { .. }));
    assert!(!refused || rig.stack.counts() == crate::stack::Counts::default());
    (line, sent)
}

#[test]
fn broken_requests_are_answered_by_rule() {
    let supported = SettingsSpec {
        supported: vec!["path".into()],
        ..spec()
    };
    for (text, status) in [
        (request("OPTIONS", "1", ""), "200 OK"),
        (
            request("MESSAGE", "1", "Max-Forwards: 0\r\n"),
            "483 Too Many Hops",
        ),
        (request("OPTIONS", "1", "Max-Forwards: 1\r\n"), "200 OK"),
        (request("OPTIONS", "1", "Proxy-Require: path\r\n"), "200 OK"),
        (
            request("OPTIONS", "1", "Proxy-Require: foo, Path, bar\r\n"),
            "420 Bad Extension",
        ),
        (
            request_to("OPTIONS", "urn:service:sos", "1", ""),
            "416 Unsupported URI Scheme",
        ),
        (
            request("OPTIONS", "1", "").replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia"),
            "505 Version Not Supported",
        ),
        (
            request("OPTIONS", "1", "CSeq: 2 OPTIONS\r\n"),
            "400 Bad Request: several CSeq",
        ),
    ] {
        let (line, sent) = status_of(supported.clone(), &text);
        assert_eq!(line, format!("SIP/2.0 {status}"), "{text}");
        if status.starts_with("420") {
            assert_eq!(
                sent.unwrap().header("Unsupported").as_deref(),
                Some("foo, bar")
            );
        }
    }
}

#[test]
fn without_a_hop_left_a_request_may_be_answered_but_goes_no_further() {
    let answers: fn() -> Ruling = || Ruling::reply(200);
    let redirects: fn() -> Ruling = || Ruling::Redirect(targets(&[BOB]));
    let relays: fn() -> Ruling = || parallel(&[BOB]);
    let forwards: fn() -> Ruling = || Ruling::ForwardStateless(ResolvedTarget::uri("sip:b@x"));
    for (method, ruling, status) in [
        ("OPTIONS", answers, "200 OK"),
        ("OPTIONS", redirects, "302 Moved Temporarily"),
        ("OPTIONS", relays, "483 Too Many Hops"),
        ("OPTIONS", forwards, "483 Too Many Hops"),
        ("REGISTER", answers, "200 OK"),
        ("REGISTER", relays, "483 Too Many Hops"),
        ("MESSAGE", answers, "483 Too Many Hops"),
        ("INVITE", answers, "483 Too Many Hops"),
    ] {
        for stateless in [false, true] {
            let mut spec = spec();
            if stateless {
                let methods = [sipbox_sip::Method::Options, sipbox_sip::Method::Register];
                spec.tenants[0].stateless = methods.to_vec();
            }
            let mut rig = Rig::with(spec, move |_, _| ruling());
            rig.receive(&request(method, "1", "Max-Forwards: 0\r\n"), udp(ALICE));
            assert_eq!(rig.first_lines(), [format!("SIP/2.0 {status}")], "{method}");
            rig.finish();
        }
    }
}

#[test]
fn a_missing_max_forwards_becomes_70() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    rig.receive(
        &request("MESSAGE", "1", "").replace("Max-Forwards: 70\r\n", ""),
        udp(ALICE),
    );
    let [sent] = rig.take_n();
    assert_eq!(sent.all("Max-Forwards"), ["70"]);
}

#[test]
fn a_loop_is_refused_and_a_spiral_is_not() {
    // To ourselves, with the same Request-URI: a loop.
    let mut rig = Rig::new(|message, _| {
        let uri = message.request_uri().to_vec();
        let next_hop = Bytes::from_static(b"sip:192.0.2.100");
        let target = ResolvedTarget {
            next_hop,
            ..ResolvedTarget::uri(uri)
        };
        Ruling::Relay(Relay {
            groups: vec![vec![target]],
            ..Relay::default()
        })
    });
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, first] = rig.take_n();
    assert_eq!(first.to(), "udp/192.0.2.100:5060");
    rig.receive(&first.text, udp("192.0.2.100:5060"));
    assert_eq!(rig.first_lines(), ["SIP/2.0 482 Loop Detected"]);
    // With another Request-URI it may come round again (RFC 5393 4.2).
    let spiral = first
        .text
        .replace("sip:bob@home.example SIP", "sip:carol@home.example SIP");
    rig.receive(&spiral, udp("192.0.2.100:5060"));
    let [_, second] = rig.take_n();
    assert_eq!(second.first_line(), "INVITE sip:carol@home.example SIP/2.0");
    assert_eq!(second.all("Via").len(), 3);
    rig.receive(&second.text, udp("192.0.2.100:5060"));
    assert_eq!(rig.first_lines(), ["SIP/2.0 482 Loop Detected"]);
}

#[test]
fn an_ack_is_never_answered() {
    let mut rig = Rig::new(|_, _| Ruling::reply(404));
    rig.receive(
        &request("ACK", "1", "To: <sip:bob@home.example>;tag=b1\r\n"),
        udp(ALICE),
    );
    rig.receive(&request("ACK", "2", "Max-Forwards: 0\r\n"), udp(ALICE));
    rig.receive(
        &request("ACK", "3", "").replace("Call-ID", "X-Call-ID"),
        udp(ALICE),
    );
    assert_eq!(rig.take().len(), 0);
    rig.finish();
}

#[test]
fn a_reply_carries_what_the_policy_said_and_what_the_rfc_demands() {
    let mut rig = Rig::new(|_, _| {
        Ruling::Reply(Reply {
            status: 200,
            reason: "Fine".into(),
            headers: vec![("Allow".into(), "INVITE, ACK".into())],
            body: Some(Body {
                content_type: "text/plain".into(),
                bytes: Bytes::from_static(b"hello"),
            }),
            options: vec![],
        })
    });
    rig.receive(
        &request("OPTIONS", "1", "Record-Route: <sip:a;lr>\r\n"),
        udp(ALICE),
    );
    let [reply] = rig.take_n();
    assert_eq!(reply.first_line(), "SIP/2.0 200 Fine");
    assert_eq!(reply.header("Allow").as_deref(), Some("INVITE, ACK"));
    assert_eq!(reply.header("Server").as_deref(), Some("Sipbox"));
    assert_eq!(reply.header("Content-Length").as_deref(), Some("5"));
    assert_eq!(
        reply.header("Record-Route"),
        None,
        "OPTIONS makes no dialog"
    );
    assert!(reply.text.ends_with("\r\n\r\nhello"));
    assert!(
        reply
            .header("To")
            .unwrap()
            .starts_with("<sip:bob@home.example>;tag=")
    );
    rig.finish();
}

#[test]
fn a_redirect_lists_contacts_by_q() {
    let mut rig = Rig::new(|_, _| {
        let with_q = |uri: &'static str, q| ResolvedTarget {
            q,
            ..ResolvedTarget::uri(uri)
        };
        Ruling::Redirect(vec![with_q("sip:b@x", 300), with_q("sip:a@x", 1000)])
    });
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [reply] = rig.take_n();
    assert_eq!(reply.first_line(), "SIP/2.0 302 Moved Temporarily");
    assert_eq!(
        reply.all("Contact"),
        ["<sip:a@x>;q=1.000", "<sip:b@x>;q=0.300"]
    );
    rig.finish();
}

#[test]
fn methods_declared_stateless_have_no_transaction() {
    use sipbox_sip::Method;
    let mut spec = spec();
    spec.listeners[0].stateless = vec![Method::Options, Method::Invite];
    let mut rig = Rig::with(spec, |_, _| parallel(&[BOB]));
    for method in ["OPTIONS", "INVITE"] {
        rig.receive(&request(method, method, ""), udp(ALICE));
        assert_eq!(
            rig.first_lines(),
            [format!("{method} sip:bob@192.0.2.2:5060 SIP/2.0")]
        );
    }
    // Its CANCEL and ACK go the same way, under the same branch (16.10, 16.11).
    rig.receive(&request("CANCEL", "INVITE", ""), udp(ALICE));
    let [cancel] = rig.take_n();
    rig.receive(&request("INVITE", "INVITE", ""), udp(ALICE));
    let [invite] = rig.take_n();
    assert_eq!(cancel.header("Via"), invite.header("Via"));
    assert_eq!(rig.stack.counts(), crate::stack::Counts::default());
}

#[test]
fn requests_of_rfc_2543_are_matched_by_their_fields() {
    let mut rig = Rig::new(|_, _| Ruling::reply(486));
    let old = |method: &str, to: &str| {
        format!(
            "{method} sip:bob@home.example SIP/2.0\r\nVia: SIP/2.0/UDP {ALICE}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:alice@home.example>;tag=a1\r\nTo: {to}\r\n\
             Call-ID: old\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
        )
    };
    rig.receive(&old("INVITE", "<sip:bob@home.example>"), udp(ALICE));
    let [busy] = rig.take_n();
    rig.receive(&old("INVITE", "<sip:bob@home.example>"), udp(ALICE));
    assert_eq!(rig.take_n::<1>()[0].text, busy.text);
    rig.receive(&old("ACK", "<sip:bob@home.example>;tag=other"), udp(ALICE));
    rig.pass(600);
    assert_eq!(
        rig.take().len(),
        1,
        "an ACK for somebody else's response changes nothing"
    );
    rig.receive(&old("ACK", &busy.header("To").unwrap()), udp(ALICE));
    rig.pass(5000);
    assert_eq!(rig.take().len(), 0);
    rig.finish();
}
