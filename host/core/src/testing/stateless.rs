//! Requests that are forwarded without a transaction (RFC 3261 16.11), and what
//! belongs to them.

use super::*;
use crate::policy::Reply;
use crate::stack::Counts;

fn stateless_invites() -> SettingsSpec {
    let mut spec = spec();
    spec.listeners[0].stateless = vec![sipbox_sip::Method::Invite];
    spec
}

fn to_bob() -> Ruling {
    Ruling::ForwardStateless(ResolvedTarget::uri(format!("sip:bob@{BOB}")))
}

#[test]
fn cancel_and_ack_of_a_stateless_invite_go_the_same_way() {
    let relay: fn() -> Ruling = || parallel(&[BOB]);
    let route = "Route: <sip:192.0.2.100;lr>\r\n";
    let credentials = "Proxy-Authorization: Digest username=\"a\"\r\nProxy-Require: \r\n";
    for (spec, ruling) in [
        (stateless_invites(), relay),
        (stateless_invites(), to_bob as fn() -> Ruling),
        // Without the setting there is a transaction while the policy thinks.
        (spec(), to_bob as fn() -> Ruling),
    ] {
        for (branch, extra) in [("1", ""), ("2", route), ("3", credentials)] {
            let mut rig = Rig::with(spec.clone(), move |_, _| ruling());
            let invite = request("INVITE", branch, extra);
            rig.receive(&invite, udp(ALICE));
            assert_eq!(rig.stack.counts(), Counts::default());
            let down = rig.take().pop().unwrap();
            assert_eq!(down.first_line(), "INVITE sip:bob@192.0.2.2:5060 SIP/2.0");
            let kept = if extra == route { route } else { "" };
            rig.receive(&request("CANCEL", branch, kept), udp(ALICE));
            let [cancel] = rig.take_n();
            assert_eq!(cancel.first_line(), "CANCEL sip:bob@192.0.2.2:5060 SIP/2.0");
            assert_eq!(cancel.hop, down.hop);
            assert_eq!(cancel.all("Via"), down.all("Via"), "{extra}");
            rig.receive(&response(&cancel.text, 200, ""), udp(BOB));
            let [ok] = rig.take_n();
            assert_eq!(ok.first_line(), "SIP/2.0 200 X");
            assert_eq!(ok.to(), format!("udp/{ALICE}"));
            // 17.1.1.3: the ACK for a failure has the branch of its INVITE.
            rig.receive(&response(&down.text, 487, ""), udp(BOB));
            let [up] = rig.take_n();
            let to = format!("To: {}\r\n{kept}", up.header("To").unwrap());
            rig.receive(&request("ACK", branch, &to), udp(ALICE));
            let [ack] = rig.take_n();
            assert_eq!(ack.first_line(), "ACK sip:bob@192.0.2.2:5060 SIP/2.0");
            assert_eq!(ack.all("Via"), down.all("Via"), "{extra}");
            assert_eq!(rig.stack.counts(), Counts::default());
        }
    }
}

/// What is forwarded without a transaction begins a call as well.
#[test]
fn a_stateless_invite_counts_against_the_rate() {
    for (mut spec, ruling) in [
        (stateless_invites(), parallel(&[BOB])),
        (stateless_invites(), to_bob()),
        (spec(), to_bob()),
    ] {
        spec.tenants[0].quota.calls_per_second = Some(2);
        let mut rig = Rig::with(spec, move |_, _| ruling.clone());
        for branch in ["1", "2", "3"] {
            rig.receive(&request("INVITE", branch, ""), udp(ALICE));
        }
        let down = "INVITE sip:bob@192.0.2.2:5060 SIP/2.0";
        let refused = "SIP/2.0 503 Too Many Calls Per Second";
        assert_eq!(rig.first_lines(), [down, down, refused]);
        // What belongs to those that were let in goes on.
        for method in ["CANCEL", "ACK"] {
            rig.receive(&request(method, "1", ""), udp(ALICE));
            assert!(rig.first_lines()[0].starts_with(method));
        }
        rig.pass(1_000);
        rig.receive(&request("INVITE", "4", ""), udp(ALICE));
        assert!(rig.first_lines().contains(&down.to_owned()));
        rig.finish();
    }
}

#[test]
fn the_cancel_of_an_element_without_branches_finds_the_way_too() {
    let mut rig = Rig::with(stateless_invites(), |_, _| to_bob());
    let old = |text: String| text.replace(";branch=z9hG4bK1", "");
    rig.receive(&old(request("INVITE", "1", "")), udp(ALICE));
    rig.receive(&old(request("CANCEL", "1", "")), udp(ALICE));
    let [invite, cancel] = rig.take_n();
    assert_eq!(cancel.all("Via"), invite.all("Via"));
}

#[test]
fn a_cancel_that_matches_nothing_goes_on_only_if_the_policy_forwards_it() {
    let reply = |status| Reply::of(status);
    for ruling in [
        Ruling::Reply(reply(200)),
        Ruling::Reply(reply(404)),
        Ruling::ReplyStateless(reply(401)),
        Ruling::Redirect(targets(&[BOB])),
        Ruling::Drop,
        Ruling::Best,
    ] {
        let mut rig = Rig::new(move |_, _| ruling.clone());
        rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
        assert_eq!(
            rig.first_lines(),
            ["SIP/2.0 481 Call/Transaction Does Not Exist"]
        );
        assert_eq!(rig.stack.counts(), Counts::default());
    }
    // Also while the element drains: it is no new call.
    let mut rig = Rig::new(|_, _| to_bob());
    rig.stack.drain();
    rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    assert_eq!(rig.first_lines(), ["CANCEL sip:bob@192.0.2.2:5060 SIP/2.0"]);
    // 16.3: a fault is told as what it is.
    rig.receive(&request("CANCEL", "2", "Max-Forwards: 0\r\n"), udp(ALICE));
    assert_eq!(rig.first_lines(), ["SIP/2.0 483 Too Many Hops"]);
    rig.finish();
}

#[test]
fn a_stateless_request_that_cannot_be_sent_is_answered() {
    let nowhere = || Ruling::ForwardStateless(ResolvedTarget::uri("tel:+123"));
    for (method, line) in [
        ("MESSAGE", "SIP/2.0 503 Service Unavailable"),
        ("CANCEL", "SIP/2.0 481 Call/Transaction Does Not Exist"),
    ] {
        let mut rig = Rig::new(move |_, _| nowhere());
        rig.receive(&request(method, "1", ""), udp(ALICE));
        assert_eq!(rig.first_lines(), [line]);
        // The same of a name that does not resolve.
        let mut rig = Rig::new(|_, _| {
            Ruling::ForwardStateless(ResolvedTarget::uri("sip:bob@nowhere.example"))
        });
        rig.receive(&request(method, "1", ""), udp(ALICE));
        let token = rig.resolves.pop().unwrap().token;
        let error = crate::outbox::ResolveError::NoSuchName;
        rig.call(|stack, env, out| stack.resolved(env, token, Err(error), out));
        assert_eq!(rig.first_lines(), [line]);
        rig.finish();
    }
    // An ACK is never answered.
    let mut rig = Rig::new(move |_, _| nowhere());
    rig.receive(&request("ACK", "1", ""), udp(ALICE));
    assert_eq!(rig.take().len(), 0);
}

#[test]
fn a_stateless_request_that_comes_back_as_it_left_is_a_loop() {
    let mut rig = Rig::with(stateless_invites(), |_, _| {
        Ruling::ForwardStateless(ResolvedTarget::default())
    });
    let uri = format!("sip:bob@{BOB}");
    for extra in ["", "Proxy-Authorization: Digest username=\"a\"\r\n"] {
        rig.receive(&request_to("INVITE", &uri, "1", extra), udp(ALICE));
        let [down] = rig.take_n();
        rig.receive(&down.text, udp(BOB));
        assert_eq!(rig.first_lines(), ["SIP/2.0 482 Loop Detected"]);
    }
}

#[test]
fn a_large_stateless_request_goes_over_tcp_and_over_udp_when_that_fails() {
    let padding = format!("Subject: {}\r\n", "x".repeat(1300));
    let large = request("INVITE", "1", &padding);
    for fails in [true, false] {
        let mut rig = Rig::with(stateless_invites(), |_, _| to_bob());
        rig.receive(&large, udp(ALICE));
        let [over_tcp] = rig.take_n();
        assert_eq!(over_tcp.to(), format!("tcp/{BOB}"));
        let via = over_tcp.header("Via").unwrap();
        assert!(via.starts_with("SIP/2.0/TCP 192.0.2.100:5060;"), "{via}");
        let token = over_tcp.token.unwrap();
        if fails {
            rig.pass(2000);
            rig.call(|stack, env, out| stack.transport_error(env, token, out));
            let [over_udp] = rig.take_n();
            assert_eq!(over_udp.to(), format!("udp/{BOB}"));
            assert_eq!(over_udp.header("Via").unwrap(), via.replace("/TCP", "/UDP"));
            assert!(over_udp.token.is_none());
            rig.call(|stack, env, out| stack.transport_error(env, token, out));
            assert_eq!(rig.take().len(), 0);
        } else {
            // Later nobody remembers.
            rig.pass(4010);
            assert_eq!(rig.stack.counts(), Counts::default());
            rig.call(|stack, env, out| stack.transport_error(env, token, out));
            assert_eq!(rig.take().len(), 0);
        }
        assert_eq!(rig.stack.counts(), Counts::default());
        // Its CANCEL is small, and found by its branch.
        rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
        let [cancel] = rig.take_n();
        assert_eq!(cancel.to(), format!("udp/{BOB}"));
        let branch = via.split("branch=").nth(1).unwrap();
        assert!(cancel.header("Via").unwrap().ends_with(branch));
        rig.finish();
    }
    // What names its transport gets it; 0 turns the rule off; a name counts like an
    // address, a datagram binding too.
    let explicit =
        || Ruling::ForwardStateless(ResolvedTarget::uri("sip:bob@192.0.2.2;transport=udp"));
    let mut rig = Rig::with(stateless_invites(), move |_, _| explicit());
    rig.receive(&large, udp(ALICE));
    assert_eq!(rig.take_n::<1>()[0].to(), format!("udp/{BOB}"));
    let off = SettingsSpec {
        mtu: 0,
        ..stateless_invites()
    };
    let mut rig = Rig::with(off, |_, _| to_bob());
    rig.receive(&large, udp(ALICE));
    assert_eq!(rig.take_n::<1>()[0].to(), format!("udp/{BOB}"));
    let mut rig = Rig::with(stateless_invites(), |_, _| {
        Ruling::ForwardStateless(ResolvedTarget::uri("sip:bob@far.example"))
    });
    rig.receive(&large, udp(ALICE));
    let token = rig.resolves.pop().unwrap().token;
    let found = crate::outbox::NextHopCandidate {
        transport: Transport::Udp,
        address: address(BOB),
    };
    let found = std::iter::once(found).collect();
    rig.call(|stack, env, out| stack.resolved(env, token, Ok(found), out));
    assert_eq!(rig.take_n::<1>()[0].to(), format!("tcp/{BOB}"));
    rig.finish();
    let mut rig = Rig::with(stateless_invites(), |_, _| {
        Ruling::ForwardStateless(ResolvedTarget {
            flow: Some(udp(BOB)),
            ..ResolvedTarget::uri("sip:bob@10.0.0.2")
        })
    });
    rig.receive(&large, udp(ALICE));
    assert_eq!(rig.take_n::<1>()[0].to(), format!("tcp/{BOB}"));
    rig.finish();
}
