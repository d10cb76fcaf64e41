//! Which of our addresses a datagram leaves from, where a listener has many: the one
//! that its receiver wrote to.

use std::net::IpAddr;

use super::*;

const FIRST: &str = "192.0.2.101";
const SECOND: &str = "2001:db8::102";

/// A flow whose peer wrote to this address of ours.
fn at(ours: &str, peer: &str) -> Flow {
    Flow {
        local: Some(ours.parse().unwrap()),
        ..udp(peer)
    }
}

/// Where each message that was sent goes to and leaves from.
fn ways<const N: usize>(rig: &mut Rig) -> [(String, Option<IpAddr>); N] {
    rig.take_n().map(|sent| match sent.hop {
        NextHop::Address { local, .. } => (sent.to(), local),
        NextHop::Flow { .. } => panic!("a connection: {}", sent.text),
    })
}

fn way(to: &str, from: Option<&str>) -> (String, Option<IpAddr>) {
    (format!("udp/{to}"), from.map(|ip| ip.parse().unwrap()))
}

#[test]
fn responses_leave_from_where_their_request_came_to() {
    let mut rig = Rig::new(|_, _| parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), at(FIRST, "192.0.2.1:4444"));
    let sent = rig.take();
    let [trying, invite] = &sent[..] else {
        panic!("{sent:?}");
    };
    // Also to another port than it came from; a request to an address is nobody's flow.
    let NextHop::Address { local, .. } = trying.hop else {
        panic!("{trying:?}");
    };
    assert_eq!((trying.to(), local), way(ALICE, Some(FIRST)));
    assert_eq!(
        invite.hop,
        NextHop::Address {
            listener: UDP,
            transport: Transport::Udp,
            address: address(BOB),
            local: None,
        }
    );
    let busy = response(&invite.text, 486, "");
    rig.receive(&busy, at(SECOND, BOB));
    // The ACK goes where the INVITE went.
    let mut ways = ways::<2>(&mut rig);
    ways.sort();
    assert_eq!(ways, [way(ALICE, Some(FIRST)), way(BOB, None)]);
    rig.receive(&request("INVITE", "1", ""), at(FIRST, "192.0.2.1:4444"));
    assert_eq!(self::ways(&mut rig), [way(ALICE, Some(FIRST))]);
}

#[test]
fn requests_to_a_binding_leave_from_where_it_was_registered() {
    let mut rig = Rig::new(|_, _| {
        let target = ResolvedTarget {
            flow: Some(at(SECOND, BOB)),
            ..ResolvedTarget::uri("sip:bob@10.0.0.2")
        };
        relay(vec![vec![target]], 0, 0)
    });
    rig.receive(&request("INVITE", "1", ""), at(FIRST, ALICE));
    let sent = rig.take();
    let invite = &sent[1].text;
    rig.receive(&response(invite, 180, ""), at(SECOND, BOB));
    assert_eq!(ways(&mut rig), [way(ALICE, Some(FIRST))]);
    rig.receive(&request("CANCEL", "1", ""), at(FIRST, ALICE));
    rig.receive(&response(invite, 487, ""), at(SECOND, BOB));
    // 200 and CANCEL, ACK and 487.
    let mut ways = ways::<4>(&mut rig);
    ways.sort();
    let (up, down) = (way(ALICE, Some(FIRST)), way(BOB, Some(SECOND)));
    assert_eq!(ways, [up.clone(), up, down.clone(), down]);
}

/// Nobody remembers how a stateless request came: our Via does.
#[test]
fn responses_to_a_stateless_forward_leave_from_where_the_request_came_to() {
    for ours in [FIRST, SECOND] {
        let mut rig = Rig::new(|_, _| {
            Ruling::ForwardStateless(ResolvedTarget::uri(format!("sip:bob@{BOB}")))
        });
        rig.receive(&request("INVITE", "1", ""), at(ours, ALICE));
        let [invite] = rig.take_n();
        rig.receive(&request("CANCEL", "1", ""), at(ours, ALICE));
        let [cancel] = rig.take_n();
        assert_eq!(cancel.all("Via"), invite.all("Via"));
        for sent in [&invite, &cancel] {
            rig.receive(&response(&sent.text, 200, ""), at(SECOND, BOB));
            assert_eq!(ways(&mut rig), [way(ALICE, Some(ours))]);
        }
        // Nothing is added where a listener has one address.
        rig.receive(&request("INVITE", "2", ""), udp(ALICE));
        let [invite] = rig.take_n();
        assert!(!invite.all("Via")[0].contains("local"), "{}", invite.text);
        rig.receive(&response(&invite.text, 200, ""), udp(BOB));
        assert_eq!(ways(&mut rig), [way(ALICE, None)]);
    }
}

#[test]
fn a_flow_is_a_small_value() {
    assert!(size_of::<Flow>() <= 64, "{}", size_of::<Flow>());
    assert!(size_of::<NextHop>() <= 96, "{}", size_of::<NextHop>());
}
