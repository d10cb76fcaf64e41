//! What the residential policy decides in the sandbox, call by call: each is
//! recorded there and replayed on a fresh instance of the component.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod cases;
#[path = "../common/mod.rs"]
mod common;

use std::sync::Arc;

use bytes::Bytes;
use cases::cases;
use common::{component, facts};
use sipbox_core::flow::TenantId;
use sipbox_core::policy::{
    AuthOutcome, BindingView, CallError, Capabilities, Direction, Facts, HookCall, HookInput,
    HookOutput, LogLevel, PolicyHost, Realm, RouteOutcome, RouteParams, SaveLimits, SaveOutcome,
    Verdict,
};
use sipbox_sip::OwnedMessage;
use sipbox_wasm::{
    Capability, Chain, ChainHost, Difference, Limits, PolicySpec, Pools, Recorder, Recording,
    WasmStats, replay,
};

/// What the host answers in one case.
#[derive(Clone)]
struct World {
    auth: Result<AuthOutcome, CallError>,
    bindings: Result<Vec<BindingView>, CallError>,
    save: Result<SaveOutcome, CallError>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            auth: Ok(AuthOutcome::None),
            bindings: Ok(Vec::new()),
            save: Ok(SaveOutcome::Saved(1)),
        }
    }
}

impl Capabilities for World {
    fn check(&self, _: &HookCall, _: &Realm) -> Result<AuthOutcome, CallError> {
        self.auth.clone()
    }

    fn lookup(&self, _: &HookCall, _: &str) -> Result<Vec<BindingView>, CallError> {
        self.bindings.clone()
    }

    fn save(&self, _: &HookCall, _: &str, _: &SaveLimits) -> Result<SaveOutcome, CallError> {
        self.save.clone()
    }

    fn remove(&self, _: &HookCall, _: &str) -> Result<u32, CallError> {
        Ok(0)
    }

    fn log(&self, _: &HookCall, _: &str, _: LogLevel, _: &str) {}
}

fn alice() -> World {
    World {
        auth: Ok(AuthOutcome::Authenticated("alice".into())),
        ..World::default()
    }
}

fn bound(bindings: &[(&str, u16)]) -> World {
    let binding = |(contact, q): &(&str, u16)| BindingView {
        contact: (*contact).into(),
        q: *q,
        expires: 600,
        path: vec!["<sip:edge.example.com;lr>".into()],
        received: "sip:198.51.100.7:41234".into(),
        flow: "flow-7".into(),
        instance: "<urn:uuid:0C67446E-F1A1-11D9-94D3-000A95A0E128>".into(),
        user_agent: "Phone/4.2".into(),
        flags: sipbox_core::policy::BindingFlags::default(),
    };
    World {
        bindings: Ok(bindings.iter().map(binding).collect()),
        ..alice()
    }
}

fn down() -> CallError {
    CallError::Unavailable("the database is away".into())
}

/// A request as a phone behind a proxy would send it.
struct Sent {
    method: &'static str,
    uri: &'static str,
    from: &'static str,
    to: &'static str,
    more: &'static str,
    body: &'static [u8],
}

const INVITE: Sent = Sent {
    method: "INVITE",
    uri: "sip:bob@example.com",
    from: "\"Alice\" <sip:alice@example.com>;tag=a1",
    to: "<sip:bob@example.com>",
    more: "",
    body: b"v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\n",
};

const REGISTER: Sent = Sent {
    method: "REGISTER",
    uri: "sip:example.com",
    to: "<sip:alice@example.com>",
    more: "Expires: 600\r\n",
    body: b"",
    ..INVITE
};

const BYE: Sent = Sent {
    method: "BYE",
    uri: "sip:bob@198.51.100.7:41234",
    to: "<sip:bob@example.com>;tag=b1",
    body: b"",
    ..INVITE
};

impl Sent {
    fn bytes(&self) -> Bytes {
        let mut bytes = format!(
            "{method} {uri} SIP/2.0\r\n\
             Via: SIP/2.0/TCP 192.0.2.10:5060;branch=z9hG4bK74bf9;rport\r\n\
             v: SIP/2.0/UDP 10.0.0.7;branch=z9hG4bKinner\r\n\
             Max-Forwards: 69\r\n\
             From: {from}\r\n\
             To: {to}\r\n\
             i: 3848276298220188511@192.0.2.10\r\n\
             CSeq: 2 {method}\r\n\
             m: <sip:alice@192.0.2.10:5060;transport=tcp>;q=0.7\r\n\
             {more}Content-Length: {length}\r\n\r\n",
            method = self.method,
            uri = self.uri,
            from = self.from,
            to = self.to,
            more = self.more,
            length = self.body.len(),
        )
        .into_bytes();
        bytes.extend_from_slice(self.body);
        bytes.into()
    }
}

/// What comes out: `reply 404`, `relay 2+1` (targets of each group), `redirect 3`,
/// `relay`, `drop`.
fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Reply(reply) => format!("reply {}", reply.status),
        Verdict::Relay(plan) if plan.groups.is_empty() => "relay".into(),
        Verdict::Relay(plan) => {
            let sizes: Vec<_> = plan.groups.iter().map(|g| g.len().to_string()).collect();
            format!("relay {}", sizes.join("+"))
        }
        Verdict::Redirect(targets) => format!("redirect {}", targets.len()),
        Verdict::Drop => "drop".into(),
        other => format!("{other:?}"),
    }
}

struct Case {
    name: &'static str,
    /// Options of the domain `example.com`.
    options: &'static str,
    sent: Sent,
    route: RouteOutcome,
    world: World,
    expected: &'static str,
}

impl Case {
    fn facts(&self) -> Facts {
        let in_dialog = self.sent.to.contains(";tag=");
        Facts {
            tenant: TenantId(1),
            in_dialog,
            direction: if in_dialog {
                Direction::Upstream
            } else {
                Direction::Unknown
            },
            route_outcome: self.route,
            route_params: RouteParams::new(),
            dialog: None,
            ..facts()
        }
    }

    /// Runs the case in the sandbox, through a recorder.
    fn record(&self) -> Recording {
        let settings = format!(
            r#"{{"preloaded_route":"{}","domains":{{"example.com":{{{}}},"example.org":{{}}}}}}"#,
            if self.name.contains("followed") {
                "follow"
            } else {
                "deny"
            },
            self.options
        );
        let spec = PolicySpec {
            name: Arc::from("residential"),
            component: component("policy-residential"),
            settings: Arc::from(settings),
            grants: Capability::ALL.to_vec(),
            limits: Limits::default(),
        };
        let stats = WasmStats::default();
        let chain = Chain::new(&Arc::from("home"), vec![spec], None, &stats).unwrap();
        let mut pools = Pools::new();
        let mut host = ChainHost::new(&mut pools, &chain);
        let mut recorder = Recorder::new(&mut host);
        let request = OwnedMessage::parse(self.sent.bytes()).unwrap();
        let world = Arc::new(self.world.clone());
        let mut call = HookCall::new(request, Arc::new(self.facts()), world);
        let output = recorder.call(0, HookInput::Request, &mut call);
        let Ok(HookOutput::Verdict(verdict)) = output else {
            panic!("{}: {output:?}", self.name)
        };
        assert_eq!(words(&verdict), self.expected, "{}", self.name);
        recorder.recordings.remove(0)
    }
}

/// As a file would bring it.
fn read_back(json: &str) -> Recording {
    serde_json::from_str(json).unwrap()
}

#[test]
fn recorded_calls_replay_on_a_fresh_instance_to_identical_verdicts() {
    for case in cases() {
        let recording = case.record();
        let read = read_back(&serde_json::to_string(&recording).unwrap());
        assert_eq!(read, recording, "{}", case.name);
        replay(&component("policy-residential"), &read)
            .unwrap_or_else(|difference| panic!("{}: {difference}", case.name));
    }
}

/// A replay that could not fail would prove nothing: every part of a recording
/// that says what came out, or what the host answered, is changed once.
#[test]
fn a_recording_that_was_changed_does_not_replay() {
    type Change = fn(&mut serde_json::Value) -> bool;
    let changes: [(&str, Change); 6] = [
        ("the verdict", |recording| {
            recording["outcome"]["verdict"]["Ok"] = "Verdict(Drop again)".into();
            true
        }),
        ("an edit too many", |recording| {
            recording["outcome"]["edits"] = serde_json::json!(["Remove(Subject)"]);
            true
        }),
        ("the effects", |recording| {
            let effects = recording["outcome"]["effects"].as_array_mut().unwrap();
            if effects.pop().is_none() {
                effects.push("Challenge".into());
            }
            true
        }),
        ("the answers of the host", |recording| {
            let answers = recording["answers"].as_array_mut().unwrap();
            answers.pop().is_some()
        }),
        ("what was asked", |recording| {
            let question = serde_json::json!({
                "asked": { "Remove": { "aor": "alice@example.com" } },
                "answer": { "Ok": { "Count": 0 } },
            });
            recording["answers"].as_array_mut().unwrap().push(question);
            true
        }),
        ("the method", |recording| {
            // A request outside of a dialog: this one is dropped.
            let text = recording["request"]["Text"].as_str();
            let Some(text) = text.filter(|_| recording["facts"]["in_dialog"] == false) else {
                return false;
            };
            let method = text.split(' ').next().unwrap().to_owned();
            recording["request"]["Text"] = text.replace(&method, "ACK").into();
            true
        }),
    ];
    for (what, change) in changes {
        let mut changed = 0;
        for case in cases() {
            let mut json = serde_json::to_value(case.record()).unwrap();
            if !change(&mut json) {
                continue;
            }
            changed += 1;
            let difference = replay(
                &component("policy-residential"),
                &read_back(&json.to_string()),
            );
            let Err(difference) = difference else {
                panic!("{}, {what}: replayed all the same", case.name)
            };
            assert!(
                matches!(
                    difference,
                    Difference::Asked { .. } | Difference::Outcome { .. }
                ),
                "{}, {what}: {difference}",
                case.name
            );
        }
        assert!(changed > 10, "{what} was changed {changed} times only");
    }
}
