//! What policies say about address translation: RFC 3581 on behalf of the client, and
//! where a restored Request-URI is sent.

use super::*;
use crate::chain;
use crate::location::{Aor, Datagram, LocationRow, LocationService, Ping, PingId};
use crate::policy::Edit;
use crate::stack::Pong;

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

/// A binding of Bob's that came by this flow.
fn ping(flow: Flow, request: Option<PingId>) -> Ping {
    let row = LocationRow {
        contact_id: 7,
        username: "bob".into(),
        domain: "home.example".into(),
        contact: "sip:bob@10.0.0.2:5060;ob".into(),
        received: None,
        path: None,
        expires: 0,
        q: 1.0,
        callid: "c".into(),
        cseq: 1,
        last_modified: WallTime(0),
        flags: 0,
        cflags: None,
        user_agent: String::new(),
        socket: None,
        methods: None,
        sip_instance: None,
        kv_store: None,
        attr: None,
    };
    let service = LocationService::new(1, &[1; 16]);
    service.load([row], WallTime(0), |_| Some(TenantId(0)), |_| None);
    let bob = Aor::parse("bob@home.example").unwrap();
    let mut bindings = service.lookup(TenantId(0), &bob, WallTime(0));
    Ping {
        binding: bindings.pop().unwrap(),
        flow,
        request,
    }
}

#[test]
fn a_ping_is_a_request_down_the_flow_whose_answer_is_known_by_its_branch() {
    let mut spec = spec();
    spec.pings.from = "sip:pinger@home.example".into();
    let mut rig = Rig::with(spec, |_, _| Ruling::Drop);
    let id = PingId {
        shard: 3,
        serial: (5 << 48) + 77,
    };
    let sent = ping(udp("198.51.100.7:31000"), Some(id));
    rig.call(|stack, env, out| stack.ping(env, &sent, out));
    let [options] = rig.take_n();
    assert_eq!(options.to(), "udp/198.51.100.7:31000");
    assert_eq!(
        options.first_line(),
        "OPTIONS sip:bob@10.0.0.2:5060;ob SIP/2.0"
    );
    assert!(
        options
            .header("From")
            .unwrap()
            .starts_with("<sip:pinger@home.example>;tag=")
    );
    // It is a request that we would take ourselves.
    let mut index = Index::new();
    let message = Message::parse(options.text.as_bytes(), &mut index).unwrap();
    let limits = sipbox_sip::validate::Limits::default();
    sipbox_sip::validate::check(message, &limits).unwrap();

    let pongs = |rig: &mut Rig, text: &str| {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let mut index = Index::new();
        let message = Message::parse(&bytes, &mut index).unwrap();
        let from = udp("198.51.100.7:31000");
        rig.call(|stack, env, out| {
            stack.receive(env, message, &bytes, from, out);
            std::mem::take(&mut out.pongs)
        })
    };
    let ok = response(&options.text, 200, "");
    assert_eq!(pongs(&mut rig, &ok), [Pong { id, status: 200 }]);
    // Nobody makes one up.
    let branch = options.text.split("branch=").nth(1).unwrap();
    let other = match &branch[40..41] {
        "a" => "b",
        _ => "a",
    };
    let forged = ok.replacen(&branch[..41], &format!("{}{other}", &branch[..40]), 1);
    assert_eq!(pongs(&mut rig, &forged), []);
    rig.finish();
}

#[test]
fn a_ping_that_asks_for_no_answer_is_what_its_transport_wants() {
    for (flow, datagram, bytes) in [
        (udp(BOB), Datagram::Zeros, "\0\0\0\0"),
        (udp(BOB), Datagram::Crlf, "\r\n\r\n"),
        (tcp(BOB, 1), Datagram::Zeros, "\r\n\r\n"),
    ] {
        let mut spec = spec();
        spec.pings.datagram = datagram;
        let mut rig = Rig::with(spec, |_, _| Ruling::Drop);
        rig.call(|stack, env, out| stack.ping(env, &ping(flow, None), out));
        let [sent] = rig.take_n();
        assert_eq!(sent.text, bytes);
    }
    let mut spec = spec();
    spec.pings.datagram = Datagram::Stun;
    let mut rig = Rig::with(spec, |_, _| Ruling::Drop);
    rig.call(|stack, env, out| {
        stack.ping(env, &ping(udp(BOB), None), out);
        assert_eq!(out.arena.len(), 20);
        assert_eq!(out.arena[..8], [0, 0x11, 0, 0, 0x21, 0x12, 0xA4, 0x42]);
    });
}
