//! Next hops that are names, and bindings whose next hop is a flow.

use super::*;
use crate::stack::Counts;

#[test]
fn a_name_is_resolved_while_the_transaction_waits() {
    let mut rig = Rig::new(|_, _| parallel(&["far.example"]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    assert_eq!(rig.first_lines(), ["SIP/2.0 100 Trying"]);
    let resolve = rig.resolves.pop().unwrap();
    assert_eq!(
        (&resolve.host[..], resolve.port),
        (&b"far.example"[..], None)
    );
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    assert_eq!(rig.first_lines(), ["SIP/2.0 100 Trying"]);
    let candidate = |text: &str| crate::outbox::NextHopCandidate {
        transport: Transport::Udp,
        address: address(text),
    };
    let found = [candidate(BOB), candidate(CAROL)].into_iter().collect();
    let token = resolve.token;
    rig.call(|stack, env, out| stack.resolved(env, token, Ok(found), out));
    let [first] = rig.take_n();
    assert_eq!(first.to(), format!("udp/{BOB}"));
    // RFC 3263 4.3: a server that says 503 or cannot be reached has a successor.
    rig.receive(&response(&first.text, 503, ""), udp(BOB));
    let [_ack, second] = rig.take_n();
    assert_eq!(second.to(), format!("udp/{CAROL}"));
    rig.receive(&response(&second.text, 200, ""), udp(CAROL));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    rig.finish();
}

#[test]
fn a_name_that_does_not_exist_fails_its_branch_only() {
    let mut rig = Rig::new(|_, _| serial(&["nowhere.example", BOB]));
    rig.receive(&request("MESSAGE", "1", ""), udp(ALICE));
    let token = rig.resolves.pop().unwrap().token;
    let error = crate::outbox::ResolveError::NoSuchName;
    rig.call(|stack, env, out| stack.resolved(env, token, Err(error), out));
    let [message] = rig.take_n();
    assert_eq!(message.to(), format!("udp/{BOB}"));
    // An answer that comes twice means nothing.
    rig.call(|stack, env, out| stack.resolved(env, token, Err(error), out));
    rig.receive(&response(&message.text, 200, ""), udp(BOB));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    rig.finish();
}

#[test]
fn a_cancel_during_a_look_up_ends_the_call() {
    let mut rig = Rig::new(|_, _| parallel(&["far.example"]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    rig.take();
    rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    assert_eq!(
        rig.first_lines(),
        ["SIP/2.0 200 OK", "SIP/2.0 487 Request Terminated"]
    );
    let token = rig.resolves.pop().unwrap().token;
    let found = std::iter::once(crate::outbox::NextHopCandidate {
        transport: Transport::Udp,
        address: address(BOB),
    });
    let found = found.collect();
    rig.call(|stack, env, out| stack.resolved(env, token, Ok(found), out));
    assert_eq!(rig.take().len(), 0);
    rig.finish();
}

#[test]
fn a_bindings_flow_is_used_or_the_branch_fails() {
    let flow = tcp("198.51.100.1:40000", 9);
    let mut rig = Rig::new(move |_, _| {
        let contact = ResolvedTarget {
            flow: Some(flow),
            path: [Bytes::from_static(b"<sip:edge.example;lr>")]
                .into_iter()
                .collect(),
            ..ResolvedTarget::uri("sip:bob@10.0.0.9:5555;transport=tcp")
        };
        relay(vec![vec![contact], targets(&[CAROL])], 0, 0)
    });
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    assert_eq!(
        invite.hop,
        NextHop::Flow {
            flow,
            reconnect: None
        }
    );
    assert_eq!(
        invite.first_line(),
        "INVITE sip:bob@10.0.0.9:5555;transport=tcp SIP/2.0"
    );
    assert_eq!(
        invite.header("Route").as_deref(),
        Some("<sip:edge.example;lr>")
    );
    let token = invite.token.unwrap();
    rig.call(|stack, env, out| stack.transport_error(env, token, out));
    let [next] = rig.take_n();
    assert_eq!(next.to(), format!("udp/{CAROL}"));
}

#[test]
fn an_ack_to_a_name_waits_without_a_transaction() {
    let mut rig = Rig::new(|_, _| Ruling::Relay(Relay::default()));
    let dialog = "To: <sip:bob@home.example>;tag=b1\r\n";
    let ack = request_to("ACK", "sip:bob@far.example", "1", dialog);
    rig.receive(&ack, udp(ALICE));
    assert_eq!(
        rig.stack.counts(),
        Counts {
            open: 1,
            waiting: 1,
            timers: 1,
            ..Counts::default()
        }
    );
    let token = rig.resolves.pop().unwrap().token;
    let found = std::iter::once(crate::outbox::NextHopCandidate {
        transport: Transport::Udp,
        address: address(BOB),
    });
    let found = found.collect();
    rig.call(|stack, env, out| stack.resolved(env, token, Ok(found), out));
    let [forwarded] = rig.take_n();
    assert_eq!(forwarded.to(), format!("udp/{BOB}"));
    assert_eq!(rig.stack.counts(), Counts::default());
    rig.receive(&ack.replace("z9hG4bK1", "z9hG4bK2"), udp(ALICE));
    rig.finish();
}

#[test]
fn a_look_up_that_is_never_answered_fails_its_branch() {
    let mut rig = Rig::new(|_, _| serial(&["far.example", BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    rig.pass(29_900);
    assert_eq!(rig.first_lines(), ["SIP/2.0 100 Trying"]);
    rig.pass(200);
    let [invite] = rig.take_n();
    assert_eq!(invite.to(), format!("udp/{BOB}"));
    rig.receive(&response(&invite.text, 200, ""), udp(BOB));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    rig.finish();
}
