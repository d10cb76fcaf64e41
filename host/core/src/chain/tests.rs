//! The order of a chain, with policies that are closures.

use bytes::Bytes;
use sipbox_sip::Transport;

use super::*;
use crate::dialog::{Change, DialogId, EndReason, Known, Side, State};
use crate::flow::{Flow, ListenerId, TenantId};
use crate::lease::{Acquired, LeaseTable};
use crate::policy::{
    AuthOutcome, BindingView, CallError, DialogView, Direction, LogLevel, Realm, RouteOutcome,
    RouteParams, RouteSignature, SaveLimits, SaveOutcome, Target,
};
use crate::time::WallTime;

mod routes;

struct NoCapabilities;

impl Capabilities for NoCapabilities {
    fn check(&self, _: &HookCall, _: &Realm) -> Result<AuthOutcome, CallError> {
        Ok(AuthOutcome::None)
    }
    fn lookup(&self, _: &HookCall, _: &str) -> Result<Vec<BindingView>, CallError> {
        Ok(Vec::new())
    }
    fn save(&self, _: &HookCall, _: &str, _: &SaveLimits) -> Result<SaveOutcome, CallError> {
        Ok(SaveOutcome::Saved(1))
    }
    fn remove(&self, _: &HookCall, _: &str) -> Result<u32, CallError> {
        Ok(0)
    }
    fn log(&self, _: &HookCall, _: &str, _: LogLevel, _: &str) {}
}

type Script<'a> =
    dyn FnMut(usize, &HookInput, &mut HookCall) -> Result<HookOutput, HookFailure> + 'a;

struct Scripted<'a>(&'a mut Script<'a>);

impl PolicyHost for Scripted<'_> {
    fn call(
        &mut self,
        policy: usize,
        input: HookInput,
        call: &mut Box<HookCall>,
    ) -> Result<HookOutput, HookFailure> {
        (self.0)(policy, &input, call)
    }
}

fn facts(in_dialog: bool) -> Arc<Facts> {
    Arc::new(Facts {
        tenant: TenantId(0),
        tenant_name: "t".into(),
        listener_name: "l".into(),
        flow: Flow {
            listener: ListenerId(0),
            transport: Transport::Udp,
            peer: ([127, 0, 0, 1], 5070).into(),
            connection: None,
            local: None,
        },
        now: WallTime(0),
        in_dialog,
        direction: Direction::Unknown,
        route_outcome: if in_dialog {
            RouteOutcome::Loose
        } else {
            RouteOutcome::None
        },
        route_signature: RouteSignature::None,
        leaves: None,
        route_params: RouteParams::new(),
        dialog: None,
    })
}

fn message(first_line: &str) -> OwnedMessage {
    let text = format!(
        "{first_line}\r\nVia: SIP/2.0/UDP a.example;branch=z9hG4bK1\r\nFrom: <sip:a@a>;tag=1\r\n\
         To: <sip:b@b>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    OwnedMessage::parse(Bytes::from(text)).unwrap()
}

fn invite() -> OwnedMessage {
    message("INVITE sip:b@b SIP/2.0")
}

fn with_chain<T>(
    policies: usize,
    in_dialog: bool,
    script: &mut Script<'_>,
    test: impl FnOnce(&mut ChainRun<'_>) -> T,
) -> T {
    let mut script = |p: usize, i: &HookInput, c: &mut HookCall| script(p, i, c);
    let mut host = Scripted(&mut script);
    test(&mut ChainRun {
        host: &mut host,
        policies,
        facts: facts(in_dialog),
        capabilities: Arc::new(NoCapabilities),
    })
}

fn subject(message: &OwnedMessage) -> Option<String> {
    message
        .as_ref()
        .header(HeaderId::Subject)
        .map(|v| String::from_utf8_lossy(v).into_owned())
}

fn branch() -> BranchCall {
    BranchCall {
        target: Target {
            destination: crate::policy::Destination::Registered("a@b".into()),
            q: 1000,
            id: 7,
            options: Vec::new(),
        },
    }
}

const NEXT: Result<HookOutput, HookFailure> = Ok(HookOutput::Verdict(Verdict::Next));

fn reply(status: u16) -> Result<HookOutput, HookFailure> {
    Ok(HookOutput::Verdict(Verdict::Reply(Reply::of(status))))
}

#[test]
fn policies_are_asked_in_order_until_one_decides_and_see_the_edits_of_those_before() {
    let mut seen = Vec::new();
    let outcome = with_chain(
        3,
        false,
        &mut |policy, _, call| {
            seen.push((policy, subject(&call.request)));
            call.edits
                .push(Edit::SetHeader("Subject".into(), format!("{policy}")));
            if policy == 1 { reply(403) } else { NEXT }
        },
        |chain| chain.on_request(invite(), CallState::default()),
    );
    assert_eq!(seen, [(0, None), (1, Some("0".to_owned()))]);
    assert_eq!(outcome.by, Some(1));
    assert_eq!(subject(&outcome.request).as_deref(), Some("1"));
    assert!(matches!(
        outcome.verdict,
        Verdict::Reply(Reply { status: 403, .. })
    ));
}

#[test]
fn an_empty_chain_answers_404_and_relays_within_dialogs() {
    let run = |in_dialog| {
        with_chain(0, in_dialog, &mut |_, _, _| NEXT, |chain| {
            chain.on_request(invite(), CallState::default()).verdict
        })
    };
    assert!(matches!(
        run(false),
        Verdict::Reply(Reply { status: 404, .. })
    ));
    assert_eq!(run(true), Verdict::Relay(RelayPlan::default()));
}

/// A To tag alone proves nothing: without our route, or with one that others wrote, a
/// request is not let through for want of a decision.
#[test]
fn what_did_not_go_through_here_is_not_relayed_for_want_of_a_verdict() {
    use RouteOutcome::{Foreign, Loose, None, Strict};
    use RouteSignature::{Expired, Invalid, Valid};
    let signed = RouteSignature::None;
    let known = Known {
        id: DialogId::parse(b"1.2").unwrap(),
        from: Side::Caller,
    };
    for (outcome, signature, dialog, method, goes_on) in [
        (Loose, signed, Option::None, Method::Invite, true),
        (Strict, Valid, Option::None, Method::Bye, true),
        (None, signed, Option::None, Method::Bye, false),
        (Foreign, signed, Option::None, Method::Bye, false),
        (Loose, Invalid, Option::None, Method::Bye, false),
        (Loose, Expired, Option::None, Method::Bye, true),
        (Loose, Expired, Option::None, Method::Message, false),
        (Loose, Expired, Option::None, Method::Invite, false),
        (Foreign, signed, Some(known), Method::Invite, true),
    ] {
        let facts = Facts {
            route_outcome: outcome,
            route_signature: signature,
            dialog,
            ..(*facts(true)).clone()
        };
        let told = (outcome, signature, dialog.is_some(), method);
        assert_eq!(facts.goes_on(method), goes_on, "{told:?}");
        let name = method.to_string();
        let script: &mut Script<'_> = &mut |_, _, _| Err(HookFailure::Cpu);
        let mut host = Scripted(script);
        for policies in [0, 1] {
            let mut chain = ChainRun {
                host: &mut host,
                policies,
                facts: Arc::new(facts.clone()),
                capabilities: Arc::new(NoCapabilities),
            };
            let request = message(&format!("{name} sip:b@b SIP/2.0"));
            let outcome = chain.on_request(request, CallState::default());
            let relayed = outcome.verdict == Verdict::Relay(RelayPlan::default());
            assert_eq!(relayed, goes_on, "{told:?}");
        }
    }
}

#[test]
fn an_ack_is_never_answered() {
    let ack = message("ACK sip:b@b SIP/2.0");
    for policies in [0, 1] {
        let outcome = with_chain(policies, false, &mut |_, _, _| reply(200), |chain| {
            chain.on_request(ack.clone(), CallState::default())
        });
        assert_eq!(outcome.verdict, Verdict::Drop);
    }
}

#[test]
fn a_trap_discards_all_that_was_staged_and_answers_503_with_its_reason() {
    let script = &mut |policy: usize, _: &HookInput, call: &mut HookCall| {
        if policy == 1 {
            return Err(HookFailure::Cpu);
        }
        call.edits
            .push(Edit::AddHeader("Subject".into(), "x".into()));
        call.effects
            .push(Effect::RemoveLocation { aor: "a@b".into() });
        call.state.vars.push(("k".into(), "v".into()));
        NEXT
    };
    let outcome = with_chain(2, false, script, |chain| {
        chain.on_request(invite(), CallState::default())
    });
    let Verdict::Reply(reply) = &outcome.verdict else {
        panic!("{:?}", outcome.verdict)
    };
    assert_eq!(reply.status, 503);
    assert_eq!(
        reply.headers,
        [(
            "Warning".to_owned(),
            "399 sipbox \"policy failed: cpu\"".into()
        )]
    );
    assert_eq!(
        outcome.failed,
        Some(Failed {
            policy: 1,
            reason: HookFailure::Cpu
        })
    );
    assert_eq!(outcome.state, CallState::default());
    assert!(outcome.effects.is_empty());
    assert_eq!(outcome.request.buffer(), invite().buffer());
}

#[test]
fn a_trap_within_a_dialog_relays_the_request_as_it_came() {
    let outcome = with_chain(
        1,
        true,
        &mut |_, _, _| Err(HookFailure::Trap("x".into())),
        |chain| chain.on_request(invite(), CallState::default()),
    );
    assert_eq!(outcome.verdict, Verdict::Relay(RelayPlan::default()));
}

#[test]
fn hooks_are_armed_by_policy_and_replies_pass_in_reverse() {
    let armed = with_chain(
        3,
        false,
        &mut |policy, _, call| {
            call.armed = Armed {
                reply: policy != 1,
                ..Armed::default()
            };
            if policy == 2 { reply(200) } else { NEXT }
        },
        |chain| chain.on_request(invite(), CallState::default()).armed,
    );
    let mut order = Vec::new();
    let result = with_chain(
        3,
        false,
        &mut |policy, _, call| {
            let response = call.response.as_ref().unwrap();
            order.push((policy, subject(response)));
            call.edits
                .push(Edit::SetHeader("Subject".into(), format!("{policy}")));
            Ok(HookOutput::Reply(true))
        },
        |chain| {
            chain.on_reply(
                invite(),
                message("SIP/2.0 180 Ringing"),
                CallState::default(),
                &armed,
            )
        },
    );
    assert_eq!(order, [(2, None), (0, Some("2".to_owned()))]);
    assert!(result.keep);
    assert_eq!(subject(&result.message.unwrap()).as_deref(), Some("0"));
}

#[test]
fn a_failed_reply_hook_forwards_what_the_earlier_ones_made() {
    let armed = ArmedSet::from_elem(
        Armed {
            reply: true,
            ..Armed::default()
        },
        2,
    );
    let result = with_chain(
        2,
        false,
        &mut |policy, _, call| {
            if policy == 0 {
                return Err(HookFailure::Memory);
            }
            call.edits
                .push(Edit::SetHeader("Subject".into(), "1".into()));
            Ok(HookOutput::Reply(true))
        },
        |chain| {
            chain.on_reply(
                invite(),
                message("SIP/2.0 200 OK"),
                CallState::default(),
                &armed,
            )
        },
    );
    assert!(result.keep);
    assert_eq!(subject(&result.message.unwrap()).as_deref(), Some("1"));
    assert_eq!(
        result.failed,
        Some(Failed {
            policy: 0,
            reason: HookFailure::Memory
        })
    );
}

#[test]
fn the_failure_hook_must_be_armed_again_and_next_leaves_the_best_response() {
    let armed = ArmedSet::from_elem(
        Armed {
            failure: true,
            ..Armed::default()
        },
        2,
    );
    let mut order = Vec::new();
    let outcome = with_chain(
        2,
        false,
        &mut |policy, input, call| {
            assert!(matches!(input, HookInput::Failure(failure) if failure.status == 486));
            order.push(policy);
            call.armed.failure = policy == 1;
            NEXT
        },
        |chain| {
            let failure = Failure {
                status: 486,
                ..Failure::default()
            };
            chain.on_failure(invite(), None, &failure, CallState::default(), armed)
        },
    );
    assert_eq!(order, [1, 0]);
    assert_eq!(outcome.verdict, Verdict::Next);
    assert!(outcome.armed[1].failure && !outcome.armed[0].failure);
}

#[test]
fn a_branch_is_tried_only_if_every_armed_policy_keeps_it() {
    let branch = branch();
    let armed = ArmedSet::from_elem(
        Armed {
            branch: true,
            ..Armed::default()
        },
        3,
    );
    for (answers, keep) in [
        ([Ok(true), Ok(true), Ok(true)], true),
        ([Ok(true), Ok(false), Ok(true)], false),
        ([Ok(true), Ok(true), Err(HookFailure::Budget)], false),
    ] {
        let result = with_chain(
            3,
            false,
            &mut |policy, _, _| answers[policy].clone().map(HookOutput::Branch),
            |chain| chain.on_branch(invite(), &branch, CallState::default(), &armed),
        );
        assert_eq!(result.keep, keep, "{answers:?}");
    }
}

/// Each is well-formed as an edit; what they make together would be refused if it
/// came from outside.
#[test]
fn edits_that_make_no_valid_message_are_a_bad_verdict() {
    let add = |name: &str, value: &str| Edit::AddHeader(name.into(), value.into());
    let set = |name: &str, value: &str| Edit::SetHeader(name.into(), value.into());
    for edits in [
        vec![set("Contact", "garbage<")],
        vec![add("Expires", "1"), add("Expires", "2")],
        vec![set("CSeq", "1 OPTIONS")],
        vec![Edit::SetRequestUri("sip:b@b?Subject=x".into())],
    ] {
        let script = &mut |_: usize, _: &HookInput, call: &mut HookCall| {
            call.edits = edits.clone();
            NEXT
        };
        let outcome = with_chain(1, false, script, |chain| {
            chain.on_request(invite(), CallState::default())
        });
        let failed = outcome.failed.map(|failed| failed.reason);
        assert!(
            matches!(failed, Some(HookFailure::BadVerdict(_))),
            "{edits:?}: {failed:?}"
        );
        assert_eq!(outcome.request.buffer(), invite().buffer());
    }
}

#[test]
fn a_trap_in_the_middle_of_a_failure_lets_the_best_response_go_and_asks_nobody_else() {
    let armed = ArmedSet::from_elem(
        Armed {
            failure: true,
            ..Armed::default()
        },
        3,
    );
    let mut order = Vec::new();
    let outcome = with_chain(
        3,
        false,
        &mut |policy, _, call| {
            order.push(policy);
            if policy == 1 {
                return Err(HookFailure::Cpu);
            }
            call.effects
                .push(Effect::RemoveLocation { aor: "a@b".into() });
            NEXT
        },
        |chain| {
            let failure = Failure::default();
            chain.on_failure(invite(), None, &failure, CallState::default(), armed)
        },
    );
    assert_eq!(order, [2, 1]);
    assert_eq!(outcome.verdict, Verdict::Next);
    assert_eq!(outcome.effects.len(), 1, "what the last one staged counts");
    let failed = outcome.failed.map(|failed| failed.policy);
    assert_eq!(failed, Some(1));
    // Who was asked has to ask again; the first one was not.
    let left: Vec<bool> = outcome.armed.iter().map(|armed| armed.failure).collect();
    assert_eq!(left, [true, false, false]);
}

#[test]
fn a_trap_in_the_middle_of_the_replies_asks_nobody_before_it() {
    let armed = ArmedSet::from_elem(
        Armed {
            reply: true,
            ..Armed::default()
        },
        3,
    );
    let mut order = Vec::new();
    let result = with_chain(
        3,
        false,
        &mut |policy, _, call| {
            order.push(policy);
            call.edits
                .push(Edit::SetHeader("Subject".into(), format!("{policy}")));
            if policy == 1 {
                return Err(HookFailure::Trap("x".into()));
            }
            Ok(HookOutput::Reply(true))
        },
        |chain| {
            let response = message("SIP/2.0 180 Ringing");
            chain.on_reply(invite(), response, CallState::default(), &armed)
        },
    );
    assert_eq!(order, [2, 1]);
    assert!(result.keep);
    assert_eq!(subject(&result.message.unwrap()).as_deref(), Some("2"));
}

#[test]
fn an_edit_that_changes_nothing_leaves_the_message_where_it_is() {
    let invite = invite();
    let text = String::from_utf8_lossy(invite.buffer()).replace(";branch", ";rport;branch");
    let asks = OwnedMessage::parse(Bytes::from(text)).unwrap();
    let after = apply(&asks, &[Edit::ForceRport]).unwrap();
    assert_eq!(after.buffer().as_ptr(), asks.buffer().as_ptr());
    let after = apply(&invite, &[Edit::ForceRport]).unwrap();
    assert_ne!(after.buffer().as_ptr(), invite.buffer().as_ptr());
}

/// Whose edits contradict each other has staged nothing, in any hook; those before it have.
#[test]
fn edits_that_contradict_each_other_take_back_all_that_their_policy_staged() {
    let script = &mut |policy: usize, input: &HookInput, call: &mut HookCall| {
        let vars = &mut call.state_mut().vars;
        vars.push((format!("v{policy}"), "x".into()));
        call.effects.push(Effect::RemoveLocation {
            aor: format!("{policy}@b"),
        });
        if policy == 1 {
            let add = |value: &str| Edit::AddHeader("Expires".into(), value.into());
            call.edits.extend([add("1"), add("2")]);
        }
        match input {
            HookInput::Branch(_) => Ok(HookOutput::Branch(true)),
            HookInput::Reply => Ok(HookOutput::Reply(true)),
            _ => NEXT,
        }
    };
    let all = Armed {
        branch: true,
        reply: true,
        failure: true,
    };
    let armed = || ArmedSet::from_elem(all, 2);
    let check = |staged: &[Effect], state: &CallState, stays: &[usize]| {
        let aors: Vec<String> = staged
            .iter()
            .map(|effect| match effect {
                Effect::RemoveLocation { aor } => aor.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        let names: Vec<String> = stays.iter().map(|at| format!("{at}@b")).collect();
        assert_eq!(aors, names);
        for policy in 0..2 {
            let name = format!("v{policy}");
            let kept = state.vars.iter().any(|(known, _)| *known == name);
            assert_eq!(kept, stays.contains(&policy), "of {policy}");
        }
    };
    with_chain(2, false, script, |chain| {
        let state = CallState::default;
        let branch = chain.on_branch(invite(), &branch(), state(), &armed());
        assert!(!branch.keep);
        check(&branch.effects, &branch.state, &[0]);
        // From the last to the first: nobody came before the one that failed.
        let ok = message("SIP/2.0 200 OK");
        let reply = chain.on_reply(invite(), ok, state(), &armed());
        assert!(reply.keep && reply.failed.is_some());
        check(&reply.effects, &reply.state, &[]);
        let failure = Failure::default();
        let failed = chain.on_failure(invite(), None, &failure, state(), armed());
        assert!(failed.failed.is_some());
        check(&failed.effects, &failed.state, &[]);
    });
}

#[test]
fn who_is_told_of_a_dialog_sees_what_those_before_it_staged() {
    let ended = DialogCall {
        change: Change::Ended(EndReason::DownstreamBye),
        call_id: "c".into(),
        from_uri: "sip:a@a".into(),
        to_uri: "sip:b@b".into(),
        from_tag: "1".into(),
        to_tag: "2".into(),
        start: 0,
        dialog: DialogView {
            id: "1.2".into(),
            state: State::Deleted,
            from: None,
            lasted: 0,
            left: 0,
            vars: Vec::new(),
            flags: Vec::new(),
            profiles: Vec::new(),
        },
    };
    let mut seen = Vec::new();
    let told = with_chain(
        3,
        false,
        &mut |_, _, call| {
            seen.push(call.effects.len());
            call.effects
                .push(Effect::RemoveLocation { aor: "a@b".into() });
            Ok(HookOutput::Done)
        },
        |chain| chain.on_dialog(invite(), &ended),
    );
    assert_eq!(seen, [0, 1, 2]);
    assert_eq!(told.effects.len(), 3);
}

/// What a policy asked for in vain goes back at once; what it gave back is the call's again
/// when the policy fails.
#[test]
fn leases_that_were_refused_together_leave_the_others_alone() {
    let table = LeaseTable::new(1, &[7; 16]);
    let take = |key: &str| match table.acquire(TenantId(0), "user", key, 1) {
        Acquired::Granted(lease) => lease,
        Acquired::Full(held) => panic!("{key} is full with {held}"),
    };
    let held = || ["a", "b", "c"].map(|key| table.held(TenantId(0), "user", key));
    let mut call = HookCall::new(invite(), facts(false), Arc::new(NoCapabilities));
    call.state.leases.extend([take("a"), take("b")]);
    let checkpoint = call.checkpoint();
    let released = call.state_mut().leases.remove(0);
    call.effects.push(Effect::Release(released));
    let before = call.state.leases.len();
    call.take_lease(take("c"));
    call.keep_leases(before);
    assert_eq!(held(), [1, 1, 0]);
    call.undo(checkpoint);
    assert_eq!((call.state.leases.len(), held()), (2, [1, 1, 0]));
}
