//! What policies say about address translation: RFC 3581 on behalf of the client, and
//! where a restored Request-URI is sent.

use super::*;
use crate::chain;
use crate::policy::Edit;

/// Alice's phone sits behind a translation that gave it another port.
const SOURCE: &str = "198.51.100.7:31000";

fn forced(rig: &Rig, request: &OwnedMessage, ruling: Ruling) -> Decision {
    let request = chain::apply(request, &[Edit::ForceRport]).unwrap();
    let mut decision = rig.decide(request, ruling);
    decision.state.nat.force_rport = true;
    decision
}

fn answer(rig: &mut Rig, decide: impl FnOnce(&Rig, &OwnedMessage) -> Decision) {
    let Some(Ask::Request { id, request, .. }) = rig.asks.pop() else {
        panic!("no question")
    };
    let decision = decide(rig, &request);
    assert!(rig.call(|stack, env, out| stack.request_verdict(env, id, decision, out)));
}

#[test]
fn without_force_rport_responses_go_by_the_via() {
    let mut rig = Rig::new(|_, _| Ruling::reply(404));
    rig.receive(&request("OPTIONS", "1", ""), udp(SOURCE));
    let [reply] = rig.take_n();
    assert_eq!(reply.to(), "udp/198.51.100.7:5060");
    rig.finish();
}

#[test]
fn force_rport_sends_responses_to_the_source_port_and_tells_the_next_hop() {
    let mut rig = Rig::undecided();
    rig.receive(&request("INVITE", "1", ""), udp(SOURCE));
    answer(&mut rig, |rig, request| {
        forced(rig, request, parallel(&[BOB]))
    });
    let [trying, invite] = rig.take_n();
    assert_eq!(trying.to(), "udp/198.51.100.7:31000");
    let via = format!("SIP/2.0/UDP {ALICE};branch=z9hG4bK1;rport=31000;received=198.51.100.7");
    assert_eq!(trying.header("Via").as_deref(), Some(&*via));
    assert_eq!(invite.all("Via")[1], via);

    rig.receive(&response(&invite.text, 180, ""), udp(BOB));
    let [ringing] = rig.take_n();
    assert_eq!(ringing.to(), "udp/198.51.100.7:31000");

    // The CANCEL asks for no port either.
    rig.receive(&request("CANCEL", "1", ""), udp(SOURCE));
    let [ok, cancel] = rig.take_n();
    assert_eq!(
        (ok.first_line(), ok.to()),
        ("SIP/2.0 200 OK", "udp/198.51.100.7:31000".to_owned())
    );
    rig.receive(&response(&cancel.text, 200, ""), udp(BOB));
    rig.receive(&response(&invite.text, 487, ""), udp(BOB));
    let sent = rig.take();
    let ended = sent.iter().find(|sent| sent.first_line().contains("487"));
    assert_eq!(ended.unwrap().to(), "udp/198.51.100.7:31000");
    rig.finish();
}

#[test]
fn an_answer_of_a_policy_and_one_without_a_transaction_go_there_too() {
    for ruling in [
        Ruling::reply(403),
        Ruling::ReplyStateless(crate::policy::Reply::of(403)),
    ] {
        let mut rig = Rig::undecided();
        rig.receive(&request("OPTIONS", "1", ""), udp(SOURCE));
        answer(&mut rig, |rig, request| forced(rig, request, ruling));
        let [reply] = rig.take_n();
        assert_eq!(reply.first_line(), "SIP/2.0 403 Forbidden");
        assert_eq!(reply.to(), "udp/198.51.100.7:31000");
        rig.finish();
    }
}

#[test]
fn a_client_that_asks_itself_is_left_alone() {
    let text = request("OPTIONS", "1", "").replace("branch=z9hG4bK1", "rport;branch=z9hG4bK1");
    let message = OwnedMessage::parse(text.clone().into()).unwrap();
    let edited = chain::apply(&message, &[Edit::ForceRport]).unwrap();
    assert_eq!(edited.as_ref().bytes(), text.as_bytes());
}

#[test]
fn a_restored_request_uri_is_sent_to_where_it_came_from() {
    let mut rig = Rig::undecided();
    let bye = |branch| {
        request_to(
            "BYE",
            "sip:bob@10.0.0.2:5060",
            branch,
            "To: <sip:bob@home.example>;tag=b1\r\n",
        )
    };
    rig.receive(&bye("1"), udp(ALICE));
    answer(&mut rig, |rig, request| {
        let mut decision = rig.decide(request.clone(), parallel(&[]));
        decision.state.nat.next_hop = Some("sip:bob@192.0.2.2:31001".into());
        decision
    });
    let [sent] = rig.take_n();
    assert_eq!(sent.to(), "udp/192.0.2.2:31001");
    assert_eq!(sent.first_line(), "BYE sip:bob@10.0.0.2:5060 SIP/2.0");
    rig.receive(&response(&sent.text, 200, ""), udp("192.0.2.2:31001"));
    rig.take();

    // The policy's own target counts for more.
    rig.receive(&bye("2"), udp(ALICE));
    answer(&mut rig, |rig, request| {
        let mut decision = rig.decide(request.clone(), parallel(&[CAROL]));
        decision.state.nat.next_hop = Some("sip:bob@192.0.2.2:31001".into());
        decision
    });
    let [sent] = rig.take_n();
    assert_eq!(sent.to(), "udp/192.0.2.3:5060");
    rig.receive(&response(&sent.text, 200, ""), udp(CAROL));
    rig.take();
    rig.finish();
}

#[test]
fn so_is_the_ack_that_has_no_transaction() {
    let mut rig = Rig::undecided();
    let ack = request_to(
        "ACK",
        "sip:bob@10.0.0.2:5060",
        "3",
        "To: <sip:bob@home.example>;tag=b1\r\n",
    );
    rig.receive(&ack, udp(ALICE));
    let Some(Ask::Stateless {
        id, request, facts, ..
    }) = rig.asks.pop()
    else {
        panic!("no question")
    };
    let mut decision = rig.decide(request, parallel(&[]));
    decision.state.nat.next_hop = Some("sip:bob@192.0.2.2:31001".into());
    rig.call(|stack, env, out| stack.forward_stateless(env, id, &facts, decision, out));
    let [sent] = rig.take_n();
    assert_eq!(sent.to(), "udp/192.0.2.2:31001");
    assert_eq!(sent.first_line(), "ACK sip:bob@10.0.0.2:5060 SIP/2.0");
}
