//! What the chain does about routes: `on-route`, preloaded routes, and Record-Route of one
//! branch.

use super::*;
use crate::policy::{Destination, Options, PRELOADED, RecordRouting, RoutePreset};

fn with_outcome<T>(
    policies: usize,
    outcome: RouteOutcome,
    script: &mut Script<'_>,
    test: impl FnOnce(&mut ChainRun<'_>) -> T,
) -> T {
    let dialog = !matches!(outcome, RouteOutcome::None | RouteOutcome::Preloaded);
    with_chain(policies, dialog, script, |chain| {
        let mut facts = (*chain.facts).clone();
        facts.route_outcome = outcome;
        chain.facts = Arc::new(facts);
        test(chain)
    })
}

/// OpenSIPS's `register_rrcb`: each module hears of a local route, whoever decides then.
#[test]
fn every_policy_hears_of_a_route_of_ours_before_the_first_decides() {
    for (outcome, heard) in [
        (RouteOutcome::Loose, 3),
        (RouteOutcome::Strict, 3),
        (RouteOutcome::Foreign, 0),
        (RouteOutcome::None, 0),
        (RouteOutcome::Preloaded, 0),
    ] {
        let mut seen = Vec::new();
        let decided = with_outcome(
            3,
            outcome,
            &mut |policy, input, call| {
                seen.push((policy, input.clone(), subject(&call.request)));
                if *input != HookInput::Route {
                    return reply(200);
                }
                call.armed.reply = policy == 2;
                let text = format!("{policy}");
                call.edits.push(Edit::SetHeader("Subject".into(), text));
                call.state.vars.push((format!("{policy}"), "set".into()));
                Ok(HookOutput::Done)
            },
            |chain| chain.on_request(invite(), CallState::default()),
        );
        let asked: Vec<usize> = seen
            .iter()
            .filter(|(_, input, _)| *input == HookInput::Route)
            .map(|(policy, ..)| *policy)
            .collect();
        assert_eq!(asked, [0, 1, 2][..heard], "{outcome:?}");
        let last = seen.last().unwrap();
        assert_eq!((last.0, &last.1), (0, &HookInput::Request));
        assert_eq!(last.2.as_deref(), (heard > 0).then_some("2"));
        assert_eq!(decided.state.vars.len(), heard);
        let replies: Vec<bool> = decided.armed.iter().map(|armed| armed.reply).collect();
        assert_eq!(replies, [false, false, heard > 0]);
    }
}

#[test]
fn a_trap_in_on_route_is_a_trap() {
    let outcome = with_outcome(
        2,
        RouteOutcome::Loose,
        &mut |policy, input, call| {
            call.state.vars.push(("x".into(), "y".into()));
            match (policy, input) {
                (1, HookInput::Route) => Err(HookFailure::Memory),
                (_, HookInput::Route) => Ok(HookOutput::Done),
                _ => reply(200),
            }
        },
        |chain| chain.on_request(invite(), CallState::default()),
    );
    assert_eq!(outcome.verdict, Verdict::Relay(RelayPlan::default()));
    assert_eq!(outcome.state, CallState::default());
    assert_eq!(outcome.failed.map(|failed| failed.policy), Some(1));
}

/// A policy that does not think of preloaded routes is no open relay.
#[test]
fn a_preloaded_route_needs_a_word_of_the_policy() {
    let request = || {
        let text = invite();
        let text = String::from_utf8_lossy(text.as_ref().bytes()).into_owned();
        let routes = "Route: <sip:far.example;lr>, <sip:away.example;lr>\r\nTo:";
        OwnedMessage::parse(text.replace("To:", routes).into()).unwrap()
    };
    let option = |value: &str| vec![(Preloaded::OPTION.to_owned(), value.to_owned())];
    let plan = |options: Options| {
        Verdict::Relay(RelayPlan {
            options,
            ..RelayPlan::default()
        })
    };
    let stateless = |options: Options| {
        Verdict::ForwardStateless(Target {
            destination: Destination::Registered("b@b".into()),
            q: 0,
            id: 0,
            options,
        })
    };
    let routes = |request: &OwnedMessage| request.as_ref().all(HeaderId::Route).count();
    for (verdict, forwarded, left) in [
        (plan(vec![]), false, 1),
        (stateless(vec![]), false, 1),
        (plan(option("follow")), true, 1),
        (stateless(option("follow")), true, 1),
        (plan(option("strip")), true, 0),
        (stateless(option("strip")), true, 0),
    ] {
        let mut script =
            |_: usize, _: &HookInput, _: &mut HookCall| Ok(HookOutput::Verdict(verdict.clone()));
        let outcome = with_outcome(1, RouteOutcome::Preloaded, &mut script, |chain| {
            chain.on_request(request(), CallState::default())
        });
        assert_eq!(routes(&outcome.request), left, "{verdict:?}");
        if forwarded {
            assert_eq!(outcome.verdict, verdict);
        } else {
            let Verdict::Reply(reply) = outcome.verdict else {
                panic!("{verdict:?}")
            };
            assert_eq!((reply.status, &*reply.reason), (403, PRELOADED));
        }
        // Whatever it says, a request that brings no such route is not concerned.
        let outcome = with_outcome(1, RouteOutcome::None, &mut script, |chain| {
            chain.on_request(request(), CallState::default())
        });
        assert_eq!((routes(&outcome.request), outcome.verdict), (1, verdict));
    }
}

/// `add_rr_param` and `record_route` in a branch route are of that branch.
#[test]
fn what_on_branch_asks_of_record_route_is_of_its_branch() {
    let params = |names: &[&str]| -> Vec<(String, String)> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), String::new()))
            .collect()
    };
    let begun = CallState {
        route_params: params(&["all"]),
        record_route: Some(RecordRouting::default()),
        ..CallState::default()
    };
    let preset = RecordRouting {
        preset: Some(Box::new(RoutePreset::default())),
    };
    let armed = ArmedSet::from_elem(
        Armed {
            branch: true,
            ..Armed::default()
        },
        2,
    );
    let branch = BranchCall {
        target: Target {
            destination: Destination::Registered("b@b".into()),
            q: 0,
            id: 0,
            options: vec![],
        },
    };
    let result = with_chain(
        2,
        false,
        &mut |policy, _, call| {
            call.state
                .route_params
                .extend(params(&[["x", "y"][policy]]));
            call.state.vars.push((format!("{policy}"), String::new()));
            if policy == 1 {
                call.state.record_route = Some(preset.clone());
            }
            Ok(HookOutput::Branch(true))
        },
        |chain| chain.on_branch(invite(), &branch, begun.clone(), &armed),
    );
    assert_eq!(result.route.params, params(&["x", "y"]));
    assert_eq!(result.route.record_route, Some(preset));
    assert_eq!(result.state.route_params, begun.route_params);
    assert_eq!(result.state.record_route, begun.record_route);
    assert_eq!(
        result.state.vars.len(),
        2,
        "variables are the transaction's"
    );
}
