//! Verdicts that write something first: the core says whether they count.

use super::*;
use crate::error::Internal;
use crate::stack::Unsettled;

/// The name of the one open question, and the request.
fn asked(rig: &Rig) -> (crate::ids::AskId, OwnedMessage) {
    match &rig.asks[..] {
        [Ask::Request { id, request, .. }] => (*id, request.clone()),
        asks => panic!("{asks:?}"),
    }
}

fn settle(rig: &mut Rig) -> Result<(), Unsettled> {
    let (id, _) = asked(rig);
    rig.call(|stack, env, out| stack.settle(env, id, true, out))
}

const LATE: Result<(), Unsettled> = Err(Unsettled::Late);

#[test]
fn what_comes_before_the_verdict_wins_over_its_writes() {
    let cancel: fn(&mut Rig) = |rig| rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    let time_out: fn(&mut Rig) = |rig| rig.pass(30_010);
    let shutdown: fn(&mut Rig) = |rig| rig.call(Stack::shutdown);
    for (method, stop, line) in [
        ("INVITE", cancel, "SIP/2.0 487 Request Terminated"),
        ("REGISTER", time_out, "SIP/2.0 500 Server Internal Error"),
        ("REGISTER", shutdown, "SIP/2.0 503 Service Unavailable"),
    ] {
        let mut rig = Rig::undecided();
        rig.receive(&request(method, "1", ""), udp(ALICE));
        rig.take();
        stop(&mut rig);
        assert_eq!(rig.first_lines().pop().as_deref(), Some(line));
        assert_eq!(settle(&mut rig), LATE, "{line}");
        assert!(!rig.answer(Ruling::reply(200)));
        assert_eq!(rig.take().len(), 0);
        rig.finish();
    }
}

#[test]
fn a_verdict_that_counts_is_not_overtaken_while_it_is_stored() {
    let cancel: fn(&mut Rig) = |rig| rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    let shutdown: fn(&mut Rig) = |rig| rig.call(Stack::shutdown);
    let ok = "SIP/2.0 200 OK";
    for (method, stop, ruling, line) in [
        ("REGISTER", shutdown, Ruling::reply(200), ok),
        (
            "INVITE",
            cancel,
            Ruling::reply(403),
            "SIP/2.0 403 Forbidden",
        ),
        // What was written is written, but nobody has to ring for it.
        (
            "INVITE",
            cancel,
            parallel(&[BOB]),
            "SIP/2.0 487 Request Terminated",
        ),
        (
            "INVITE",
            shutdown,
            parallel(&[BOB]),
            "SIP/2.0 503 Service Unavailable",
        ),
    ] {
        let mut rig = Rig::undecided();
        rig.receive(&request(method, "1", ""), udp(ALICE));
        assert_eq!(settle(&mut rig), Ok(()));
        assert_eq!(settle(&mut rig), LATE, "it is given once");
        stop(&mut rig);
        let lines = rig.first_lines();
        assert!(lines.iter().all(|line| line == ok), "{lines:?}");
        assert!(rig.answer(ruling));
        assert_eq!(rig.first_lines(), [line]);
        rig.finish();
    }
}

/// A call that comes too soon after others is refused before anything is written, and one
/// that was let in is not asked about again.
#[test]
fn what_is_refused_for_its_rate_writes_nothing() {
    let mut slow = spec();
    slow.tenants[0].quota.calls_per_second = Some(1);
    let mut rig = Rig::undecided_with(slow);
    let begin = |rig: &mut Rig, branch: &str| {
        rig.receive(&request("INVITE", branch, ""), udp(ALICE));
        rig.take();
        settle(rig)
    };
    assert_eq!(begin(&mut rig, "1"), Ok(()));
    assert!(rig.answer(parallel(&[BOB])));
    let sent = rig.first_lines();
    assert!(
        sent.iter().any(|line| line.starts_with("INVITE ")),
        "{sent:?}"
    );
    let refused = begin(&mut rig, "2");
    assert_eq!(refused, Err(Unsettled::Refused(Internal::TenantRate)));
    assert!(rig.answer(Ruling::Reply(Internal::TenantRate.reply())));
    let line = "SIP/2.0 503 Too Many Calls Per Second";
    assert_eq!(rig.first_lines(), [line]);
    rig.pass(1_000);
    rig.take();
    assert_eq!(begin(&mut rig, "3"), Ok(()));
}

#[test]
fn a_store_that_never_answers_holds_no_transaction_for_ever() {
    let mut rig = Rig::undecided();
    rig.receive(&request("REGISTER", "1", ""), udp(ALICE));
    rig.pass(20_000);
    assert_eq!(settle(&mut rig), Ok(()));
    rig.pass(29_990);
    rig.take();
    rig.pass(20);
    assert_eq!(rig.first_lines(), ["SIP/2.0 500 Server Internal Error"]);
    assert!(!rig.answer(Ruling::reply(200)));
    rig.finish();
}

#[test]
fn a_failure_verdict_that_writes_is_asked_for_too() {
    for settled in [true, false] {
        let mut rig = Rig::new(|_, _| parallel(&[BOB]));
        rig.armed = Armed {
            failure: true,
            ..Armed::default()
        };
        rig.receive(&request("INVITE", "1", ""), udp(ALICE));
        let [_, invite] = rig.take_n();
        rig.receive(&response(&invite.text, 486, ""), udp(BOB));
        rig.take();
        let Some(Ask::Failure {
            id, request: asked, ..
        }) = rig.asks.pop()
        else {
            panic!()
        };
        if settled {
            let settled = rig.call(|stack, env, out| stack.settle(env, id, true, out));
            assert_eq!(settled, Ok(()));
        }
        rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
        let mut lines = rig.first_lines();
        if !settled {
            let settled = rig.call(|stack, env, out| stack.settle(env, id, true, out));
            assert_eq!(settled, LATE);
        }
        let decision = rig.decide(asked, parallel(&[CAROL]));
        let counts = rig.call(|stack, env, out| stack.failure_verdict(env, id, decision, out));
        assert_eq!(counts, settled);
        lines.extend(rig.first_lines());
        let last = if settled {
            "SIP/2.0 486 X"
        } else {
            "SIP/2.0 487 Request Terminated"
        };
        assert_eq!(lines, ["SIP/2.0 200 OK", last]);
        rig.finish();
    }
}
