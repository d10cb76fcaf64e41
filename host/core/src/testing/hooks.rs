//! The later hooks of a transaction: branch, reply, failure.

use super::*;
use crate::policy::BranchRoute;
use crate::stack::{BranchVerdict, ReplyVerdict};

fn armed(branch: bool, reply: bool, failure: bool, ruling: fn() -> Ruling) -> Rig {
    let mut rig = Rig::new(move |_, _| ruling());
    rig.armed = Armed {
        branch,
        reply,
        failure,
    };
    rig
}

/// Branches are asked about one after the other.
fn answer_branches(rig: &mut Rig, keep: impl Fn(&str) -> bool, edit: impl Fn(&str) -> String) {
    while let Some(ask) = rig.asks.pop() {
        let Ask::Branch {
            id, request, state, ..
        } = ask
        else {
            panic!("{ask:?}")
        };
        assert!(rig.asks.is_empty());
        let text = String::from_utf8_lossy(request.as_ref().bytes()).into_owned();
        let keep = keep(&text);
        let request = OwnedMessage::parse(edit(&text).into()).unwrap();
        let verdict = BranchVerdict {
            keep,
            request,
            route: BranchRoute::default(),
            state,
        };
        assert!(rig.call(|stack, env, out| stack.branch_verdict(env, id, verdict, out)));
    }
}

#[test]
fn a_branch_is_asked_about_edited_or_skipped() {
    let mut rig = armed(true, false, false, || parallel(&[BOB, CAROL]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    assert_eq!(rig.first_lines(), ["SIP/2.0 100 Trying"]);
    assert_eq!(rig.asks.len(), 1);
    answer_branches(
        &mut rig,
        |text| !text.contains("192.0.2.3"),
        |text| text.replace("Max-Forwards", "X-Edited: yes\r\nMax-Forwards"),
    );
    let [bob] = rig.take_n();
    assert_eq!(bob.first_line(), "INVITE sip:bob@192.0.2.2:5060 SIP/2.0");
    assert_eq!(bob.header("X-Edited").as_deref(), Some("yes"));
    rig.receive(&response(&bob.text, 486, ""), udp(BOB));
    assert_eq!(rig.first_lines()[1], "SIP/2.0 486 X");
    rig.finish();
}

#[test]
fn when_every_branch_is_skipped_there_is_no_target() {
    let mut rig = armed(true, false, false, || parallel(&[BOB, CAROL]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    answer_branches(&mut rig, |_| false, str::to_owned);
    assert_eq!(rig.first_lines()[1], "SIP/2.0 480 Temporarily Unavailable");
    rig.finish();
}

#[test]
fn a_cancel_while_branches_are_asked_about_ends_the_call() {
    let mut rig = armed(true, false, false, || parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    rig.take();
    let Some(Ask::Branch {
        id,
        request: asked,
        state,
        ..
    }) = rig.asks.pop()
    else {
        panic!()
    };
    rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    assert_eq!(
        rig.first_lines(),
        ["SIP/2.0 200 OK", "SIP/2.0 487 Request Terminated"]
    );
    let verdict = BranchVerdict {
        keep: true,
        request: asked,
        route: BranchRoute::default(),
        state,
    };
    assert!(!rig.call(|stack, env, out| stack.branch_verdict(env, id, verdict, out)));
    assert_eq!(rig.take().len(), 0);
    rig.finish();
}

fn answer_reply(rig: &mut Rig, forward: bool, edit: impl Fn(&str) -> String) -> bool {
    let Some(Ask::Reply {
        id,
        response,
        state,
        ..
    }) = rig.asks.pop()
    else {
        panic!()
    };
    let text = String::from_utf8_lossy(response.as_ref().bytes()).into_owned();
    let response = OwnedMessage::parse(edit(&text).into()).unwrap();
    let verdict = ReplyVerdict {
        forward,
        response,
        state,
    };
    rig.call(|stack, env, out| stack.reply_verdict(env, id, verdict, out))
}

#[test]
fn replies_pass_the_policies_which_may_drop_provisional_ones_only() {
    let mut rig = armed(false, true, false, || parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    rig.pass(400);
    rig.receive(&response(&invite.text, 180, ""), udp(BOB));
    assert_eq!(rig.take().len(), 0);
    let Some(Ask::Reply { facts, .. }) = rig.asks.last() else {
        panic!()
    };
    // The message of this hook is the response: it came from Bob, now.
    assert_eq!(facts.flow, udp(BOB));
    assert_eq!(facts.now, WallTime(1_700_000_000_000 + rig.now.as_millis()));
    assert!(answer_reply(&mut rig, false, str::to_owned));
    assert_eq!(rig.take().len(), 0, "dropped");
    let edit = |text: &str| text.replace("Content-Length", "X-Seen: yes\r\nContent-Length");
    rig.receive(&response(&invite.text, 183, ""), udp(BOB));
    assert!(answer_reply(&mut rig, true, edit));
    assert_eq!(rig.first_lines(), ["SIP/2.0 183 X"]);
    let ok = response(&invite.text, 200, "");
    rig.receive(&ok, udp(BOB));
    assert_eq!(rig.take().len(), 0);
    assert!(
        answer_reply(&mut rig, false, edit),
        "a final response goes on all the same"
    );
    let [up] = rig.take_n();
    assert_eq!(up.header("X-Seen").as_deref(), Some("yes"));
    // A copy of it is edited as the first one was.
    rig.receive(&ok, udp(BOB));
    assert!(answer_reply(&mut rig, true, edit));
    let [again] = rig.take_n();
    assert_eq!(again.text, up.text);
    rig.finish();
}

#[test]
fn a_reply_that_nobody_gives_back_goes_up_as_it_is() {
    let mut rig = armed(false, true, false, || parallel(&[BOB]));
    rig.receive(&request("MESSAGE", "1", ""), udp(ALICE));
    let [message] = rig.take_n();
    rig.receive(&response(&message.text, 200, ""), udp(BOB));
    rig.pass(30_010);
    let lines = rig.first_lines();
    assert_eq!(lines, ["SIP/2.0 100 Trying", "SIP/2.0 200 X"]);
    assert!(!answer_reply(&mut rig, true, str::to_owned));
    assert_eq!(rig.take().len(), 0);
    rig.finish();
}

fn answer_failure(rig: &mut Rig, ruling: Ruling) -> bool {
    let Some(Ask::Failure { id, request, .. }) = rig.asks.pop() else {
        panic!()
    };
    let decision = rig.decide(request, ruling);
    rig.call(|stack, env, out| stack.failure_verdict(env, id, decision, out))
}

#[test]
fn a_failure_may_be_tried_elsewhere() {
    let mut rig = armed(false, false, true, || parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    rig.receive(&response(&invite.text, 486, ""), udp(BOB));
    assert_eq!(rig.take().len(), 1, "the ACK");
    let Some(Ask::Failure {
        failure,
        response: best,
        ..
    }) = rig.asks.last()
    else {
        panic!()
    };
    assert_eq!((failure.status, failure.cancelled), (486, false));
    assert_eq!(failure.failed[0].uri, "sip:bob@192.0.2.2:5060");
    assert_eq!(best.as_ref().unwrap().as_ref().status(), Some(486));
    rig.armed = Armed::default();
    assert!(answer_failure(&mut rig, parallel(&[CAROL])));
    let [voicemail] = rig.take_n();
    assert_eq!(voicemail.to(), format!("udp/{CAROL}"));
    rig.receive(&response(&voicemail.text, 200, ""), udp(CAROL));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    rig.finish();
}

#[test]
fn a_failure_may_be_answered_or_left_as_it_is() {
    for (ruling, line) in [
        (Ruling::Best, "SIP/2.0 486 X"),
        (Ruling::reply(480), "SIP/2.0 480 Temporarily Unavailable"),
    ] {
        let mut rig = armed(false, false, true, || parallel(&[BOB]));
        rig.receive(&request("INVITE", "1", ""), udp(ALICE));
        let [_, invite] = rig.take_n();
        rig.receive(&response(&invite.text, 486, ""), udp(BOB));
        rig.take();
        assert!(answer_failure(&mut rig, ruling));
        assert_eq!(rig.first_lines(), [line]);
        rig.finish();
    }
}

#[test]
fn a_cancelled_call_is_not_tried_elsewhere() {
    let mut rig = armed(false, false, true, || parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    rig.receive(&response(&invite.text, 180, ""), udp(BOB));
    rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    rig.receive(&response(&invite.text, 487, ""), udp(BOB));
    rig.take();
    let Some(Ask::Failure { failure, .. }) = rig.asks.last() else {
        panic!()
    };
    assert!(failure.cancelled);
    assert!(answer_failure(&mut rig, parallel(&[CAROL])));
    assert_eq!(rig.first_lines(), ["SIP/2.0 487 X"]);
    // A CANCEL that comes while the failure is being decided wins at once.
    let mut rig = armed(false, false, true, || parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    rig.receive(&response(&invite.text, 486, ""), udp(BOB));
    rig.take();
    rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    assert_eq!(rig.first_lines()[1], "SIP/2.0 487 Request Terminated");
    assert!(!answer_failure(&mut rig, parallel(&[CAROL])));
    assert_eq!(rig.take().len(), 0);
    rig.finish();
}

/// A policy that answers every failure with the same dead target is stopped.
#[test]
fn a_failure_hook_that_never_gives_up_is_asked_so_often_and_no_more() {
    // There is no listener for TLS, so the target fails at once.
    const NOWHERE: &str = "sips:nobody@192.0.2.9";
    let mut rig = armed(false, false, true, || parallel(&[NOWHERE]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let mut rounds = 0;
    while matches!(rig.asks.last(), Some(Ask::Failure { .. })) {
        rounds += 1;
        assert!(rounds < 1000);
        assert!(answer_failure(&mut rig, parallel(&[NOWHERE])));
    }
    assert_eq!(rounds, 32);
    let last = rig.first_lines().pop().unwrap();
    assert!(last.starts_with("SIP/2.0 5"), "{last}");
    rig.finish();
}

/// The variables that a question shows.
fn vars(ask: &Ask) -> Vec<(&str, &str)> {
    let (Ask::Branch { state, .. } | Ask::Reply { state, .. } | Ask::Failure { state, .. }) = ask
    else {
        panic!("{ask:?}")
    };
    state
        .vars
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// Answers the one open question as a policy would that sets a variable.
fn answer_setting(rig: &mut Rig, name: &str) -> bool {
    assert_eq!(rig.asks.len(), 1, "one question at a time");
    let set = |mut state: CallState| {
        state.vars.push((name.to_owned(), "x".to_owned()));
        state
    };
    match rig.asks.remove(0) {
        Ask::Branch {
            id, request, state, ..
        } => {
            let verdict = BranchVerdict {
                keep: true,
                request,
                route: BranchRoute::default(),
                state: set(state),
            };
            rig.call(|stack, env, out| stack.branch_verdict(env, id, verdict, out))
        }
        Ask::Reply {
            id,
            response,
            state,
            ..
        } => {
            let verdict = ReplyVerdict {
                forward: true,
                response,
                state: set(state),
            };
            rig.call(|stack, env, out| stack.reply_verdict(env, id, verdict, out))
        }
        Ask::Failure {
            id, request, state, ..
        } => {
            let decision = Decision {
                state: set(state),
                ..rig.decide(request, Ruling::Best)
            };
            rig.call(|stack, env, out| stack.failure_verdict(env, id, decision, out))
        }
        ask => panic!("{ask:?}"),
    }
}

/// Two branches, a provisional reply, a failure: no hook undoes what another one set.
#[test]
fn the_hooks_of_a_transaction_are_asked_one_after_the_other() {
    let mut rig = armed(true, true, true, || parallel(&[BOB, CAROL]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    assert!(answer_setting(&mut rig, "bob"));
    let [_, bob] = rig.take_n();
    assert_eq!(vars(&rig.asks[0]), [("bob", "x")]);
    // Bob rings and refuses while the second branch is asked about.
    rig.receive(&response(&bob.text, 180, ""), udp(BOB));
    rig.receive(&response(&bob.text, 486, ""), udp(BOB));
    assert_eq!(rig.take().len(), 1, "the ACK");
    assert!(matches!(rig.asks[..], [Ask::Branch { .. }]));
    assert!(answer_setting(&mut rig, "carol"));
    let [carol] = rig.take_n();
    assert!(matches!(rig.asks[..], [Ask::Reply { .. }]));
    assert_eq!(vars(&rig.asks[0]), [("bob", "x"), ("carol", "x")]);
    // Carol refuses while the first reply is looked at.
    rig.receive(&response(&carol.text, 480, ""), udp(CAROL));
    assert_eq!(rig.take().len(), 1, "the ACK");
    assert!(answer_setting(&mut rig, "ringing"));
    assert_eq!(rig.first_lines(), ["SIP/2.0 180 X"]);
    assert!(matches!(rig.asks[..], [Ask::Failure { .. }]));
    assert_eq!(vars(&rig.asks[0]).len(), 3);
    rig.armed = Armed {
        reply: true,
        ..Armed::default()
    };
    assert!(answer_setting(&mut rig, "failed"));
    assert_eq!(rig.take().len(), 0);
    assert_eq!(vars(&rig.asks[0]).len(), 4);
    assert!(answer_setting(&mut rig, "final"));
    let [refused] = rig.first_lines().try_into().unwrap();
    assert!(["SIP/2.0 486 X", "SIP/2.0 480 X"].contains(&&*refused));
    rig.finish();
}

#[test]
fn what_no_policy_wants_to_see_waits_for_none() {
    let mut rig = armed(true, false, false, || parallel(&[BOB, CAROL]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    assert!(answer_setting(&mut rig, "bob"));
    let [_, bob] = rig.take_n();
    rig.receive(&response(&bob.text, 180, ""), udp(BOB));
    assert_eq!(rig.first_lines(), ["SIP/2.0 180 X"]);
    // Bob picks up: Carol's branch is not wanted any more, so its answer comes too late.
    rig.receive(&response(&bob.text, 200, ""), udp(BOB));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    assert!(!answer_setting(&mut rig, "carol"));
    assert_eq!(rig.take().len(), 0);
    rig.finish();
}

#[test]
fn a_question_that_is_over_holds_nobody_up_and_changes_nothing() {
    let mut rig = armed(true, true, false, || parallel(&[BOB, CAROL]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    assert!(answer_setting(&mut rig, "bob"));
    let [_, bob] = rig.take_n();
    rig.receive(&response(&bob.text, 200, ""), udp(BOB));
    let asked: Vec<Ask> = std::mem::take(&mut rig.asks);
    let [Ask::Branch { .. }, Ask::Reply { .. }] = &asked[..] else {
        panic!("{asked:?}")
    };
    let mut asked = asked.into_iter();
    rig.asks.extend(asked.next());
    assert!(!answer_setting(&mut rig, "carol"));
    rig.asks.extend(asked.next());
    assert_eq!(vars(&rig.asks[0]), [("bob", "x")]);
    assert!(answer_setting(&mut rig, "final"));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    // A copy of the 2xx sees what the first one left.
    rig.receive(&response(&bob.text, 200, ""), udp(BOB));
    assert_eq!(vars(&rig.asks[0]), [("bob", "x"), ("final", "x")]);
    assert!(answer_setting(&mut rig, "again"));
    rig.finish();
}

/// A phone that rings without end fills no memory, and its answer gets through.
#[test]
fn so_many_responses_wait_for_their_turn_and_no_more() {
    let mut rig = armed(false, true, false, || parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, bob] = rig.take_n();
    for _ in 0..1000 {
        rig.receive(&response(&bob.text, 180, ""), udp(BOB));
    }
    rig.receive(&response(&bob.text, 200, ""), udp(BOB));
    for copy in 0..33 {
        assert!(answer_setting(&mut rig, &copy.to_string()));
        assert_eq!(rig.first_lines(), ["SIP/2.0 180 X"]);
    }
    assert!(answer_setting(&mut rig, "final"));
    assert_eq!(rig.first_lines(), ["SIP/2.0 200 X"]);
    assert_eq!(rig.asks.len(), 0);
    rig.finish();
}

/// A question that nobody answers ends with all that waits behind it.
#[test]
fn what_waits_behind_a_question_without_an_answer_goes_on_with_it() {
    let mut rig = armed(false, true, false, || parallel(&[BOB]));
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, bob] = rig.take_n();
    rig.receive(&response(&bob.text, 180, ""), udp(BOB));
    rig.receive(&response(&bob.text, 200, ""), udp(BOB));
    assert_eq!(rig.take().len(), 0);
    rig.pass(30_010);
    assert_eq!(rig.first_lines(), ["SIP/2.0 180 X", "SIP/2.0 200 X"]);
    assert!(!answer_setting(&mut rig, "late"));
    rig.finish();
}

/// No timer of a question outlives its answer.
#[test]
fn an_answered_call_has_the_timers_of_one_without_hooks() {
    let answered = |hooked: bool| {
        let mut rig = armed(false, hooked, false, || parallel(&[BOB]));
        rig.receive(&request("INVITE", "1", ""), udp(ALICE));
        let [_, invite] = rig.take_n();
        for status in [180, 200] {
            rig.receive(&response(&invite.text, status, ""), udp(BOB));
            if hooked {
                assert!(answer_reply(&mut rig, true, str::to_owned));
            }
        }
        rig.stack.counts().timers
    };
    assert_eq!(answered(true), answered(false));
    let refused = |hooked: bool| {
        let mut rig = armed(hooked, false, hooked, || parallel(&[BOB]));
        rig.receive(&request("INVITE", "1", ""), udp(ALICE));
        if hooked {
            answer_branches(&mut rig, |_| true, str::to_owned);
        }
        let [_, invite] = rig.take_n();
        rig.receive(&response(&invite.text, 486, ""), udp(BOB));
        if hooked {
            assert!(answer_failure(&mut rig, Ruling::Best));
        }
        rig.stack.counts().timers
    };
    assert_eq!(refused(true), refused(false));
    // A failure that is answered 200 leaves what an answer without a branch does, and the
    // Timer D of the branch.
    let mut plain = Rig::new(|_, _| Ruling::reply(200));
    plain.receive(&request("INVITE", "1", ""), udp(ALICE));
    let mut rig = armed(false, false, true, || {
        relay(vec![targets(&[BOB])], 60_000, 90_000)
    });
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let [_, invite] = rig.take_n();
    rig.receive(&response(&invite.text, 486, ""), udp(BOB));
    assert!(answer_failure(&mut rig, Ruling::reply(200)));
    assert_eq!(rig.stack.counts().timers, plain.stack.counts().timers + 1);
}
