//! Record-Route as policies ask for it, and what they are told of a route that comes back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{INVITE, Tenant};
use sipbox_core::policy::{
    BranchCall, CallState, Destination, Edit, HookFailure, HookInput, HookOutput, RouteParams,
    RouteSignature, Target, Verdict,
};

const GUEST: &str = "record-route";

/// What the policy was answered, the transaction's memory, and the verdict.
fn asked(settings: &str) -> (String, CallState, Result<Verdict, HookFailure>) {
    let mut tenant = Tenant::one(GUEST, settings);
    let mut call = tenant.call(INVITE);
    let verdict = tenant
        .run(0, HookInput::Request, &mut call)
        .map(common::verdict);
    let answers = match &call.edits[..] {
        [Edit::SetHeader(_, value), ..] => value.clone(),
        _ => String::new(),
    };
    (answers, call.state, verdict)
}

fn pairs(params: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    params.iter().map(pair).collect()
}

#[test]
fn parameters_may_come_before_record_route_and_after_it() {
    let settings = r#"{"add":[["nat","yes"]],"record":[["x",""]],"verdict":[["y","1"]]}"#;
    let (answers, state, verdict) = asked(settings);
    assert_eq!(answers, "ok ok");
    assert_eq!(state.route_params, pairs(&[("nat", "yes"), ("x", "")]));
    assert_eq!(state.record_route, Some(Default::default()));
    let Verdict::Relay(plan) = verdict.unwrap() else {
        panic!("no relay")
    };
    assert_eq!(plan.record_route, Some(pairs(&[("y", "1")])));
    // A parameter alone asks for nothing.
    let (answers, state, _) = asked(r#"{"add":[["nat","yes"]]}"#);
    assert_eq!((answers.as_str(), state.record_route), ("ok", None));
}

#[test]
fn it_is_asked_for_once_in_a_call() {
    let (answers, state, _) =
        asked(r#"{"record":[["a","1"]],"again":true,"preset":["x.example"]}"#);
    assert_eq!(answers, "ok out-of-place out-of-place");
    assert_eq!(state.record_route.unwrap().preset, None);
}

#[test]
fn the_hosts_parameters_are_protected() {
    for name in [
        "lr",
        "LR",
        "r2",
        "ftag",
        "tn",
        "did",
        "sig",
        "transport",
        "maddr",
    ] {
        let (answers, state, _) = asked(&format!(r#"{{"add":[["{name}","1"]]}}"#));
        assert_eq!(answers, "protected", "{name}");
        assert_eq!(state, CallState::default());
        let (answers, ..) = asked(&format!(r#"{{"record":[["{name}","1"]]}}"#));
        assert_eq!(answers, "protected", "{name}");
        let (.., verdict) = asked(&format!(r#"{{"verdict":[["{name}","1"]]}}"#));
        assert!(matches!(verdict, Err(HookFailure::BadVerdict(_))), "{name}");
    }
    let (answers, ..) = asked(r#"{"add":[["a>","1"],["","1"],["b","x;y"]]}"#);
    assert_eq!(answers, "malformed malformed malformed");
}

#[test]
fn presets_are_hosts_with_ports_and_parameters() {
    let (answers, state, _) = asked(r#"{"preset":["edge.example:5070;transport=tcp","[::1]"]}"#);
    assert_eq!(answers, "ok");
    let preset = state.record_route.unwrap().preset.unwrap();
    assert_eq!(preset.outbound, "edge.example:5070;transport=tcp");
    assert_eq!(preset.inbound.as_deref(), Some("[::1]"));
    for text in [
        "",
        "a b",
        "user@x",
        "x>",
        "x,y",
        "x?h=1",
        "x:port",
        "x;lr",
        "x;r2=on",
        "x;sig=1",
        "x;transport=pigeon",
        "x;maddr=1.2.3.4",
    ] {
        let settings = format!(r#"{{"preset":["x.example","{text}"]}}"#);
        let (answers, state, _) = asked(&settings);
        assert_eq!(answers, "malformed", "{text}");
        assert_eq!(state.record_route, None);
    }
}

#[test]
fn on_branch_asks_for_its_branch() {
    let mut tenant = Tenant::one(GUEST, r#"{"branch":[["b","1"]]}"#);
    let mut call = tenant.call(INVITE);
    let target = Target {
        destination: Destination::Registered("bob@example.org".into()),
        q: 1000,
        id: 0,
        options: Vec::new(),
    };
    let input = HookInput::Branch(BranchCall { target });
    let output = tenant.run(0, input, &mut call).unwrap();
    assert_eq!(output, HookOutput::Branch(true));
    assert_eq!(call.state.route_params, pairs(&[("b", "1")]));
}

/// What `on-route` saw.
fn told(settings: &str, change: impl FnOnce(&mut sipbox_core::policy::Facts)) -> String {
    let mut tenant = Tenant::one(GUEST, settings);
    let mut call = tenant.call(INVITE);
    let mut facts = (*call.facts).clone();
    change(&mut facts);
    call.facts = Arc::new(facts);
    let output = tenant.run(0, HookInput::Route, &mut call).unwrap();
    assert_eq!(output, HookOutput::Done);
    let [Edit::AddHeader(name, value)] = &call.edits[..] else {
        panic!("{:?}", call.edits)
    };
    assert_eq!(name, "X-Route");
    value.clone()
}

#[test]
fn on_route_is_told_what_came_back() {
    let told_of = |params: &[u8], signature| {
        told("{}", |facts| {
            facts.route_params = RouteParams::from_slice(params);
            facts.route_signature = signature;
        })
    };
    assert_eq!(
        told_of(b";lr;nat=yes", RouteSignature::Valid),
        "loose valid downstream matches yes"
    );
    assert_eq!(
        told_of(b";lr;nat=no", RouteSignature::None),
        "loose unsigned downstream differs no"
    );
    assert_eq!(
        told_of(b"", RouteSignature::Invalid),
        "loose invalid downstream differs none"
    );
}

#[test]
fn a_pattern_is_a_regular_expression_of_bounded_size() {
    let with = |pattern: &str| {
        let settings = format!(r#"{{"pattern":"{pattern}"}}"#);
        let told = told(&settings, |_| ());
        told.split(' ').nth(3).unwrap().to_owned()
    };
    assert_eq!(with("^lr;nat=.es$"), "matches");
    assert_eq!(with("^nat"), "differs");
    assert_eq!(with("("), "malformed");
    assert_eq!(with("((a{99}){99}){99}"), "limit");
}

#[test]
fn a_policy_without_the_hook_is_not_woken_up() {
    let mut tenant = Tenant::one("routes", "{}");
    let mut call = tenant.call(INVITE);
    let output = tenant.run(0, HookInput::Route, &mut call).unwrap();
    assert_eq!(output, HookOutput::Absent);
}
