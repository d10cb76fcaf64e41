//! Recorded calls replay on a fresh instance to identical verdicts and edits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;

use std::sync::Arc;

use common::{INVITE, Tenant, spec, verdict};
use sipbox_core::policy::{
    BranchCall, Destination, Failure, HookInput, PolicyHost, Target, Verdict,
};
use sipbox_wasm::{ChainHost, Difference, Recorder, Recording, replay};

fn record(tenant: &mut Tenant, inputs: &[HookInput], message: &str) -> Vec<Recording> {
    let mut call = tenant.call(message);
    let mut host = ChainHost::new(&mut tenant.pools, &tenant.chain);
    let mut recorder = Recorder::new(&mut host);
    for input in inputs {
        call.edits.clear();
        call.effects.clear();
        let _ = recorder.call(0, input.clone(), &mut call);
    }
    recorder.recordings
}

/// As a file would bring it.
fn through_json(recording: &Recording) -> Recording {
    serde_json::from_str(&serde_json::to_string_pretty(recording).unwrap()).unwrap()
}

#[test]
fn recorded_calls_replay_to_the_same_outcome() {
    let target = Target {
        destination: Destination::Registered("bob@example.org".into()),
        q: 500,
        id: 7,
        options: Vec::new(),
    };
    let failure = Failure {
        status: 486,
        reason: "Busy".into(),
        ..Failure::default()
    };
    let inputs = [
        HookInput::Request,
        HookInput::Branch(BranchCall { target }),
        HookInput::Failure(failure),
    ];
    for (guest, settings) in [
        ("probe", r#"{"do":"facts"}"#),
        ("probe", r#"{"do":"lookup"}"#),
        ("probe", r#"{"do":"stage-and-relay"}"#),
        ("probe", r#"{"do":"stage-and-panic"}"#),
        ("routes", r#"{"table":{"bob":"sip:bob@10.0.0.8"}}"#),
        ("wasi", ""),
    ] {
        let mut tenant = Tenant::one(guest, settings);
        let recordings = record(&mut tenant, &inputs, INVITE);
        assert_eq!(recordings.len(), 3);
        for recording in &recordings {
            let read = through_json(recording);
            assert_eq!(&read, recording, "{guest} {settings}");
            replay(&common::load(guest), &read)
                .unwrap_or_else(|difference| panic!("{guest} {settings}: {difference}"));
        }
    }
}

#[test]
fn a_recorder_changes_nothing_for_the_call() {
    let mut tenant = Tenant::one("probe", r#"{"do":"stage-and-relay"}"#);
    let mut plain = tenant.call(INVITE);
    let expected = tenant.run(0, HookInput::Request, &mut plain).unwrap();
    let mut call = tenant.call(INVITE);
    let mut host = ChainHost::new(&mut tenant.pools, &tenant.chain);
    let output = Recorder::new(&mut host)
        .call(0, HookInput::Request, &mut call)
        .unwrap();
    assert_eq!(output, expected);
    assert_eq!(
        (&call.edits, &call.effects, &call.state, call.armed),
        (&plain.edits, &plain.effects, &plain.state, plain.armed)
    );
    let host = Arc::clone(&tenant.host) as Arc<dyn sipbox_core::policy::Capabilities>;
    assert!(
        Arc::ptr_eq(&call.capabilities, &host),
        "the tenant's capabilities are back"
    );
    assert!(matches!(verdict(output), Verdict::Relay(_)));
}

#[test]
fn another_policy_or_another_answer_is_a_difference() {
    let mut tenant = Tenant::one("probe", r#"{"do":"lookup"}"#);
    let recordings = record(&mut tenant, &[HookInput::Request], INVITE);
    let [recording] = &recordings[..] else {
        panic!("{recordings:?}")
    };

    let mut asks_nothing = recording.clone();
    asks_nothing.settings = r#"{"do":"facts"}"#.into();
    let difference = replay(&common::load("probe"), &asks_nothing).unwrap_err();
    assert!(
        matches!(difference, Difference::Asked { .. }),
        "{difference}"
    );

    let json = serde_json::to_string(recording).unwrap();
    let moved: Recording =
        serde_json::from_str(&json.replacen("sip:bob@10.0.0.9", "sip:bob@10.0.0.10", 1)).unwrap();
    let difference = replay(&common::load("probe"), &moved).unwrap_err();
    assert!(
        matches!(difference, Difference::Outcome { .. }),
        "{difference}"
    );

    let other = sipbox_wasm::PolicySpec {
        ..spec("routes", "{}")
    };
    let difference = replay(&other.component, recording).unwrap_err();
    assert!(
        matches!(difference, Difference::Instance(_)),
        "{difference}"
    );
}
