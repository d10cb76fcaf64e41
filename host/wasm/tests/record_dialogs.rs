//! Recorded calls of policies that follow calls and limit them replay as others do: by what
//! `dialogs` and `leases` answered, by what an earlier policy has staged, and by what
//! `on-dialog` was told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;

use std::sync::Arc;

use common::{INVITE, Tenant, component, facts, reply, spec, verdict};
use sipbox_core::dialog::{Change, DialogId, EndReason, Known, Side, State, Validity};
use sipbox_core::flow::TenantId;
use sipbox_core::lease::{Acquired, LeaseTable};
use sipbox_core::policy::{
    AuthOutcome, BindingView, CallError, Capabilities, DialogCall, DialogView, HookCall,
    HookFailure, HookInput, HookOutput, LogLevel, PolicyHost, Realm, SaveLimits, SaveOutcome,
    Verdict,
};
use sipbox_core::shared::{Shared, SharedLimits, SharedNow};
use sipbox_core::time::Time;
use sipbox_wasm::{
    Capability, ChainHost, Difference, Limits, PolicySpec, Recorder, Recording, replay,
};

/// A host with one dialog, or none.
struct World {
    dialog: Option<DialogView>,
    leases: LeaseTable,
    shared: Shared,
}

const TENANT: TenantId = TenantId(3);

impl World {
    fn new(dialog: Option<DialogView>) -> Arc<Self> {
        Arc::new(Self {
            dialog,
            leases: LeaseTable::new(1, &[7; 16]),
            shared: Shared::in_memory(&SharedLimits::default(), &[7; 16]),
        })
    }
}

impl Capabilities for World {
    fn check(&self, _: &HookCall, _: &Realm) -> Result<AuthOutcome, CallError> {
        Ok(AuthOutcome::Authenticated("alice".into()))
    }

    fn lookup(&self, _: &HookCall, _: &str) -> Result<Vec<BindingView>, CallError> {
        Ok(Vec::new())
    }

    fn save(&self, _: &HookCall, _: &str, _: &SaveLimits) -> Result<SaveOutcome, CallError> {
        Ok(SaveOutcome::Queried(0))
    }

    fn remove(&self, _: &HookCall, _: &str) -> Result<u32, CallError> {
        Ok(0)
    }

    fn dialog(&self, _: &HookCall) -> Option<DialogView> {
        self.dialog.clone()
    }

    fn test_and_set(&self, _: &HookCall, _: &str, on: bool) -> Result<bool, CallError> {
        Ok(!on)
    }

    fn profile_size(&self, _: &HookCall, profile: &str, _: &str) -> Result<u32, CallError> {
        assert_ne!(profile, "none", "a fault of the host");
        Ok(3)
    }

    fn validate_dialog(&self, _: &HookCall) -> Result<Validity, CallError> {
        Ok(Validity::RouteSet)
    }

    fn acquire(
        &self,
        _: &HookCall,
        scope: &str,
        key: &str,
        limit: u32,
    ) -> Result<Acquired, CallError> {
        Ok(self.leases.acquire(TENANT, scope, key, limit))
    }

    fn leases_held(&self, _: &HookCall, scope: &str, key: &str) -> Result<u32, CallError> {
        Ok(self.leases.held(TENANT, scope, key))
    }

    fn shared(&self) -> Result<SharedNow<'_>, CallError> {
        Ok(self.shared.at(Time::from_millis(1000)))
    }

    fn log(&self, _: &HookCall, _: &str, _: LogLevel, _: &str) {}
}

fn answered() -> DialogView {
    DialogView {
        id: "3f.12".into(),
        state: State::Confirmed,
        from: Some(Side::Callee),
        lasted: 61,
        left: 3539,
        vars: vec![("caller".into(), "alice".into())],
        flags: vec!["seen".into()],
        profiles: vec![("out".into(), "bob".into())],
    }
}

/// What `on-dialog` is told of it.
fn news(change: Change) -> HookInput {
    HookInput::Dialog(Box::new(DialogCall {
        change,
        call_id: "call-1".into(),
        from_uri: "sip:alice@example.org".into(),
        to_uri: "sip:bob@example.org".into(),
        from_tag: "a1".into(),
        to_tag: "b1".into(),
        start: 1_790_000_000,
        dialog: answered(),
    }))
}

/// A call of the world, that asks this.
fn call(tenant: &Tenant, world: &Arc<World>, asked: &[&str], end: &str) -> Box<HookCall> {
    let mut message = INVITE.replace("X-Probe: before\r\n", "");
    for asked in asked {
        message = message.replace("Subject:", &format!("X-Ask: {asked}\r\nSubject:"));
    }
    let message = message.replace("Subject:", &format!("X-End: {end}\r\nSubject:"));
    let mut call = tenant.call(&message);
    call.capabilities = Arc::clone(world) as Arc<dyn Capabilities>;
    call
}

/// The request of a dialog that the host knows.
fn known(call: &mut Box<HookCall>) {
    call.facts = Arc::new(sipbox_core::policy::Facts {
        in_dialog: true,
        dialog: Some(Known {
            id: DialogId::parse(b"3f.12").unwrap(),
            from: Side::Callee,
        }),
        ..facts()
    });
}

fn record(
    tenant: &mut Tenant,
    policy: usize,
    input: HookInput,
    call: &mut Box<HookCall>,
) -> (Result<HookOutput, HookFailure>, Recording) {
    let mut chain = ChainHost::new(&mut tenant.pools, &tenant.chain);
    let mut recorder = Recorder::new(&mut chain);
    let output = recorder.call(policy, input, call);
    let recording = recorder.recordings.remove(0);
    // As a file would bring it.
    let json = serde_json::to_string_pretty(&recording).unwrap();
    let read: Recording = serde_json::from_str(&json).unwrap();
    assert_eq!(read, recording);
    (output, read)
}

fn answers(output: Result<HookOutput, HookFailure>) -> Vec<String> {
    let reply = reply(verdict(output.unwrap()));
    let answers = reply.headers.into_iter();
    let answers = answers.filter(|(name, _)| name == "X-Answer");
    answers.map(|(_, answer)| answer).collect()
}

fn replays(guest: &str, recording: &Recording) {
    replay(&component(guest), recording).unwrap_or_else(|difference| panic!("{difference}"));
}

#[test]
fn a_call_that_begins_a_dialog_and_takes_leases_replays() {
    let mut tenant = Tenant::one("dialogs", "{}");
    let world = World::new(None);
    let held = world.leases.acquire(TENANT, "trunk", "t", 1);
    let asked = [
        "known",
        "current",
        "fetch caller",
        "validate",
        "create 60",
        "create",
        "current",
        "store caller alice",
        "fetch caller",
        "set seen",
        "is-set seen",
        "test-and-set seen true",
        "reset seen",
        "join out bob",
        "change out carol",
        "is-in out bob",
        "is-in out carol",
        "size out",
        "leave out",
        "timeout 90",
        "current",
        "acquire user alice 2",
        "acquire user alice 2",
        "acquire user bob 2",
        "acquire trunk t 1",
        "held user alice",
        "release 3",
        "held user bob",
        "release 99",
        "acquire-all user carol 1 trunk t 1 user dave 1",
        "held user carol",
        "acquire-all user carol 1 user alice 2 user dave 1",
        "held user carol",
        // One that the call has stays, whatever becomes of the others.
        "acquire-all user alice 2 user frank 1 trunk t 1",
        "held user alice",
        "acquire-all user erin 1 bad\u{1} x 1",
        "held user erin",
    ];
    let mut call = call(&tenant, &world, &asked, "reply");
    let (output, recording) = record(&mut tenant, 0, HookInput::Request, &mut call);
    let expected = [
        "false",
        "none",
        "out-of-place",
        "Validity::RouteSet",
        "true",
        "false",
        "DialogState::Unconfirmed Party::Caller 60",
        "done",
        "alice",
        "done",
        "true",
        "false",
        "done",
        "done",
        "done",
        "false",
        "true",
        "3",
        "done",
        "done",
        "DialogState::Unconfirmed Party::Caller 90",
        "granted 2",
        "granted 2",
        "granted 3",
        "full 1",
        "1",
        "done",
        "1",
        "malformed",
        "full 1",
        "0",
        "granted",
        "1",
        "full 2",
        "1",
        "malformed",
        "0",
    ];
    assert_eq!(answers(output), expected);
    assert_eq!(recording.outcome.effects.len(), 10, "{recording:?}");
    // The recording is enough: what the world has is another thing by now.
    drop((call, held, world));
    replays("guest-dialogs", &recording);
}

#[test]
fn a_request_of_a_dialog_replays_with_what_the_host_knows_of_it() {
    let mut tenant = Tenant::one("dialogs", "{}");
    let world = World::new(Some(answered()));
    let asked = [
        "known",
        "current",
        "validate",
        "fetch caller",
        "store caller bob",
        "is-set seen",
        "test-and-set seen false",
        "is-in out bob",
        "size out bob",
        "create",
        "timeout 10",
        "current",
        "release 1",
        "held user alice",
        "end",
    ];
    let mut call = call(&tenant, &world, &asked, "reply");
    known(&mut call);
    let Acquired::Granted(lease) = world.leases.acquire(TENANT, "user", "alice", 1) else {
        panic!("it is full")
    };
    call.state.leases.push(lease);
    let (output, recording) = record(&mut tenant, 0, HookInput::Request, &mut call);
    let expected = [
        "true",
        "DialogState::Confirmed Party::Callee 3539",
        "Validity::RouteSet",
        "alice",
        "done",
        "true",
        "true",
        "true",
        "3",
        "out-of-place",
        "done",
        "DialogState::Confirmed Party::Callee 10",
        "done",
        "1",
        "done",
    ];
    assert_eq!(answers(output), expected);
    drop((call, world));
    replays("guest-dialogs", &recording);
}

/// What the first policy staged, no capability knows yet.
#[test]
fn a_later_policy_replays_with_what_an_earlier_one_has_staged() {
    let mut tenant = Tenant::new(vec![spec("dialogs", "{}"), spec("dialogs", "{}")]);
    let world = World::new(None);
    let asked = [
        "create 60",
        "store caller alice",
        "set seen",
        "join out bob",
        "change out carol",
        "join in bob",
        "leave in bob",
        "timeout 90",
        "acquire user alice 1",
        "acquire user bob 1",
        "release 2",
    ];
    let mut call = call(&tenant, &world, &asked, "next");
    let (output, first) = record(&mut tenant, 0, HookInput::Request, &mut call);
    assert_eq!(verdict(output.unwrap()), Verdict::Next);
    let asked = [
        "create",
        "current",
        "fetch caller",
        "is-set seen",
        "is-in out carol",
        "is-in out bob",
        "is-in in bob",
        "acquire user alice 1",
        "release 2",
        "held user alice",
        "end",
    ];
    let second = self::call(&tenant, &world, &asked, "reply");
    call.request = second.request;
    let (output, second) = record(&mut tenant, 1, HookInput::Request, &mut call);
    let expected = [
        "false",
        "DialogState::Unconfirmed Party::Caller 90",
        "alice",
        "true",
        "true",
        "false",
        "false",
        "granted 1",
        "malformed",
        "1",
        "done",
    ];
    assert_eq!(answers(output), expected);
    drop((call, world));
    for recording in [first, second] {
        replays("guest-dialogs", &recording);
    }
}

#[test]
fn what_a_trap_took_back_is_taken_back_in_a_replay() {
    let mut tenant = Tenant::one("dialogs", "{}");
    let world = World::new(None);
    let asked = ["create", "store caller alice", "acquire user alice 1"];
    let mut call = call(&tenant, &world, &asked, "panic");
    let (output, recording) = record(&mut tenant, 0, HookInput::Request, &mut call);
    assert!(matches!(output, Err(HookFailure::Trap(_))));
    assert!(recording.outcome.effects.is_empty());
    assert_eq!(world.leases.held(TENANT, "user", "alice"), 0);
    replays("guest-dialogs", &recording);
}

#[test]
fn every_event_of_a_dialog_replays() {
    let mut tenant = Tenant::one("dialogs", "{}");
    let world = World::new(Some(answered()));
    let changes = [
        Change::Created,
        Change::Confirmed,
        Change::Ended(EndReason::DownstreamBye),
        Change::Ended(EndReason::UpstreamBye),
        Change::Ended(EndReason::Command),
        Change::Ended(EndReason::Ping),
        Change::Ended(EndReason::Race),
        Change::Failed(486),
        Change::TimedOut,
    ];
    let mut told = String::new();
    for change in changes {
        let mut call = call(&tenant, &world, &[], "reply");
        known(&mut call);
        let input = news(change);
        let (output, recording) = record(&mut tenant, 0, input, &mut call);
        assert_eq!(output, Ok(HookOutput::Done));
        replays("guest-dialogs", &recording);
        for staged in sipbox_core::policy::last_writes(call.effects.iter()) {
            let now = Time::from_millis(1000);
            staged.commit(now).now().unwrap().unwrap();
        }
        let found = world.shared.kv.get("told:call-1", Time::from_millis(1000));
        let found = found.now().unwrap().unwrap().unwrap();
        told = String::from_utf8_lossy(&found.value).into_owned();
    }
    assert_eq!(
        told,
        "created, confirmed, ended Downstream BYE, ended Upstream BYE, ended MI Termination, \
         ended Ping Timeout, ended SIP Race Condition, failed 486, timed out"
    );
}

/// An end or a state that there is not is no event that could be told.
#[test]
fn an_event_that_cannot_be_read_is_not_replayed_as_another_one() {
    let mut tenant = Tenant::one("dialogs", "{}");
    let world = World::new(Some(answered()));
    let mut call = call(&tenant, &world, &[], "reply");
    known(&mut call);
    let input = news(Change::Ended(EndReason::Ping));
    let (_, recording) = record(&mut tenant, 0, input, &mut call);
    let json = serde_json::to_value(&recording).unwrap();
    for (at, value, said) in [
        (
            "/input/Dialog/change/Ended",
            "Pong".into(),
            "the end `Pong`",
        ),
        (
            "/input/Dialog/dialog/state",
            9.into(),
            "state 9 of a dialog",
        ),
    ] {
        let mut json = json.clone();
        *json.pointer_mut(at).unwrap() = value;
        let read = serde_json::from_value(json).unwrap();
        let difference = replay(&component("guest-dialogs"), &read).unwrap_err();
        assert!(matches!(&difference, Difference::Recording(what) if what == said));
    }
}

/// `policies/limits` and `policies/residential` as they are shipped.
fn shipped(name: &str, settings: &str) -> Tenant {
    Tenant::new(vec![PolicySpec {
        name: Arc::from(name),
        component: component(&format!("policy-{name}")),
        settings: Arc::from(settings),
        grants: Capability::ALL.to_vec(),
        limits: Limits::default(),
    }])
}

#[test]
fn the_shipped_policies_replay_who_is_let_in_and_who_is_not() {
    let residential =
        r#"{"domains":{"example.org":{"dialogs":true,"record_route":true,"calls":1}}}"#;
    for (name, settings, full) in [
        (
            "limits",
            r#"{"user":{"calls":1},"tenant":5,"timeout":60}"#,
            486,
        ),
        ("residential", residential, 486),
    ] {
        let mut tenant = shipped(name, settings);
        let world = World::new(None);
        let mut first = call(&tenant, &world, &[], "");
        let (output, let_in) = record(&mut tenant, 0, HookInput::Request, &mut first);
        let verdict_in = verdict(output.unwrap());
        assert!(!first.state.leases.is_empty(), "{name}: {verdict_in:?}");
        let mut second = call(&tenant, &world, &[], "");
        let (output, refused) = record(&mut tenant, 0, HookInput::Request, &mut second);
        assert_eq!(reply(verdict(output.unwrap())).status, full, "{name}");
        // One of a dialog that is known is not counted.
        let mut within = call(&tenant, &world, &[], "");
        known(&mut within);
        let (_, within) = record(&mut tenant, 0, HookInput::Request, &mut within);
        drop((first, second, world));
        for recording in [let_in, refused, within] {
            replays(&format!("policy-{name}"), &recording);
        }
    }
}

#[test]
fn a_replay_says_what_is_asked_instead() {
    let mut tenant = shipped("limits", r#"{"user":{"calls":1},"timeout":60}"#);
    let world = World::new(None);
    let mut call = call(&tenant, &world, &[], "");
    let (_, recording) = record(&mut tenant, 0, HookInput::Request, &mut call);
    let said = |settings: &str| {
        let mut other = recording.clone();
        other.settings = settings.to_owned();
        match replay(&component("policy-limits"), &other) {
            Err(Difference::Asked { asked, recorded }) => (asked, recorded),
            other => panic!("{settings}: {other:?}"),
        }
    };
    let acquired =
        |limit| format!(r#"Acquire {{ scope: "user", key: "alice@example.org", limit: {limit} }}"#);
    // Another limit, one more, and none at all.
    assert_eq!(
        said(r#"{"user":{"calls":2},"timeout":60}"#),
        (acquired(2), acquired(1))
    );
    let (asked, recorded) = said(r#"{"user":{"calls":1},"tenant":7,"timeout":60}"#);
    assert_eq!(
        (&*asked, &*recorded),
        (
            r#"Acquire { scope: "tenant", key: "calls", limit: 7 }"#,
            "nothing"
        )
    );
    assert_eq!(
        said(r#"{"timeout":60}"#),
        ("nothing".to_owned(), acquired(1))
    );
    // The same questions, and another dialog: that is an effect.
    let mut longer = recording.clone();
    longer.settings = r#"{"user":{"calls":1},"timeout":61}"#.to_owned();
    let difference = replay(&component("policy-limits"), &longer).unwrap_err();
    let Difference::Outcome { recorded, replayed } = difference else {
        panic!("{difference}")
    };
    assert!(
        recorded.effects[0].contains("timeout: Some(60)"),
        "{recorded:?}"
    );
    assert!(
        replayed.effects[0].contains("timeout: Some(61)"),
        "{replayed:?}"
    );
}

/// Whoever reached a limit of its tenant reaches it again.
#[test]
fn a_call_that_reached_a_limit_replays_with_it() {
    let mut tenant = Tenant::new(vec![PolicySpec {
        limits: Limits {
            edits: 2,
            ..Limits::default()
        },
        ..spec("dialogs", "{}")
    }]);
    let world = World::new(None);
    let asked = ["create", "store a 1", "store b 2"];
    let mut call = call(&tenant, &world, &asked, "reply");
    let (output, recording) = record(&mut tenant, 0, HookInput::Request, &mut call);
    assert_eq!(output, Err(HookFailure::Edits));
    replays("guest-dialogs", &recording);
}

/// Nobody is left who could give them back: not the instance, which would go on.
#[test]
fn the_leases_of_a_call_go_when_a_function_of_the_host_panics() {
    let world = World::new(Some(answered()));
    let mut tenant = Tenant::new(vec![spec("dialogs", "{}")]);
    let mut broken = call(
        &tenant,
        &world,
        &["acquire user alice 1", "size none"],
        "reply",
    );
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tenant.run(0, HookInput::Request, &mut broken)
    }));
    assert!(panicked.is_err());
    drop(broken);
    assert_eq!(world.leases.held(TENANT, "user", "alice"), 0);
    let mut next = call(&tenant, &world, &["acquire user alice 1"], "reply");
    let answers = answers(tenant.run(0, HookInput::Request, &mut next));
    assert!(answers[0].starts_with("granted"), "{answers:?}");
}
