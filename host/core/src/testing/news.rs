//! What policies are told of dialogs: in the order in which it happened, by one at a time.

use super::dialogs::{BOBS, CONTACT, from_alice, rig};
use super::*;
use crate::dialog::{Change, DialogId, EndReason};

/// An INVITE whose verdict this worker carries out; which dialog there is something to tell
/// of, and the branch.
fn begin(rig: &mut Rig) -> (DialogId, Sent) {
    rig.judge = None;
    rig.receive(&request("INVITE", "1", CONTACT), udp(ALICE));
    let Ask::Request {
        id, request, facts, ..
    } = rig.asks.remove(0)
    else {
        panic!("another question");
    };
    let mut plan = parallel(&[BOB]);
    if let Ruling::Relay(relay) = &mut plan {
        relay.record_route = Some(vec![]);
    }
    let mut decision = rig.decide(request.clone(), plan);
    decision.state = rig.dialog_state(&request, &facts, Wanted::default(), 2);
    let mut news = Vec::new();
    rig.call(|stack, env, out| {
        assert!(stack.request_verdict(env, id, decision, out));
        news.append(&mut out.news);
    });
    rig.judge = Some(Box::new(|_, _| Ruling::Relay(Relay::default())));
    let mut sent = rig.take().into_iter();
    let invite = sent.rfind(|sent| sent.text.starts_with("INVITE"));
    assert_eq!(news.len(), 1);
    (news[0], invite.expect("a branch"))
}

/// The first worker's policies are slow, and the second one hears of the answer: it leaves
/// that to the first, who tells all of it in its order.
#[test]
fn what_happens_while_somebody_tells_is_told_behind_it_by_the_same() {
    let mut rig = rig(Wanted::default());
    let (dialog, invite) = begin(&mut rig);
    let route = invite.header("Record-Route").expect("a Record-Route");
    let first = rig.stack.dialogs().next_notice(dialog);
    assert_eq!(first.map(|notice| notice.change), Some(Change::Created));
    rig.receive(&response(&invite.text, 200, BOBS), udp(BOB));
    rig.receive(&from_alice("ACK", 1, &route), udp(ALICE));
    rig.take();
    assert!(rig.changes().is_empty(), "something overtakes");
    rig.receive(&from_alice("BYE", 2, &route), udp(ALICE));
    rig.respond_to("BYE", 200);
    assert!(rig.changes().is_empty());
    // Nobody needs the dialog any more, but what it came to is to be told.
    rig.pass(400_000);
    assert!(rig.dialog().is_none());
    let mut told = Vec::new();
    rig.stack.dialogs().told(dialog);
    while let Some(notice) = rig.stack.dialogs().next_notice(dialog) {
        assert!(rig.stack.dialogs().next_notice(dialog).is_none());
        told.push(notice.change);
        rig.stack.dialogs().told(dialog);
    }
    let ended = Change::Ended(EndReason::DownstreamBye);
    assert_eq!(told, [Change::Confirmed, ended]);
}

/// Two workers look at the same time: one of them finds something, and none is left.
#[test]
fn nothing_is_told_twice() {
    let mut rig = rig(Wanted::default());
    let (dialog, invite) = begin(&mut rig);
    rig.receive(&response(&invite.text, 486, ""), udp(BOB));
    assert_eq!(rig.changes(), [Change::Created, Change::Failed(486)]);
    assert!(rig.stack.dialogs().next_notice(dialog).is_none());
    rig.stack.dialogs().told(dialog);
    assert!(rig.stack.dialogs().next_notice(dialog).is_none());
}
