//! Policies in every language of the SDKs: the same guest in Rust, in C and in TypeScript does the
//! same, says what went wrong, and does not grow however often it is called.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{INVITE, Tenant, component, reply, verdict};
use sipbox_core::policy::{
    BranchCall, Destination, Edit, FailedTarget, Failure, HookCall, HookFailure, HookInput,
    HookOutput, LogLevel, Target, UriTarget, Verdict,
};
use sipbox_sip::OwnedMessage;
use sipbox_wasm::{Capability, Limits, PolicySpec};

const LANGUAGES: [&str; 3] = ["rust", "c", "ts"];

const RINGING: &str = "SIP/2.0 180 Ringing\r\n\
    Via: SIP/2.0/UDP 10.0.0.7:5060;branch=z9hG4bKabc;rport\r\n\
    From: \"Alice A.\" <sip:alice@example.org>;tag=a1\r\n\
    To: <sip:bob@example.org>;tag=b1\r\n\
    Call-ID: call-1@10.0.0.7\r\n\
    CSeq: 314 INVITE\r\n\
    Contact: <sip:bob@10.0.0.8>\r\n\
    Content-Length: 0\r\n\r\n";

/// A tenant with one policy. What the tests of a loaded machine measure is memory: CPU time has
/// room.
fn tenant(name: &str, settings: &str) -> Tenant {
    Tenant::new(vec![PolicySpec {
        name: Arc::from(name),
        component: component(name),
        settings: Arc::from(settings),
        grants: Capability::ALL.to_vec(),
        limits: Limits {
            cpu: Duration::from_secs(2),
            ..Limits::default()
        },
    }])
}

fn target() -> Target {
    let uri = UriTarget {
        uri: "sip:bob@10.0.0.8".into(),
        ..UriTarget::default()
    };
    Target {
        destination: Destination::Uri(uri),
        q: 1000,
        id: 7,
        options: Vec::new(),
    }
}

fn branch() -> HookInput {
    HookInput::Branch(BranchCall { target: target() })
}

fn failure() -> HookInput {
    HookInput::Failure(Failure {
        status: 486,
        reason: "Busy Here".into(),
        failed: vec![FailedTarget {
            id: 7,
            uri: "sip:bob@10.0.0.8".into(),
            status: 486,
        }],
        cancelled: false,
    })
}

/// The call of a hook, with a response where it is about one.
fn call(tenant: &Tenant, input: &HookInput, user: &str) -> Box<HookCall> {
    let to = |text: &str| text.replace("sip:bob@example.org", &format!("sip:{user}@example.org"));
    let mut call = tenant.call(&to(INVITE));
    if matches!(input, HookInput::Reply) {
        call.response = Some(OwnedMessage::parse(Bytes::from(to(RINGING))).unwrap());
    }
    call
}

fn hook_name(input: &HookInput) -> &'static str {
    match input {
        HookInput::Route => "on-route",
        HookInput::Request => "on-request",
        HookInput::Branch(_) => "on-branch",
        HookInput::Reply => "on-reply",
        HookInput::Failure(_) => "on-failure",
        HookInput::Dialog(_) => "on-dialog",
    }
}

fn edited<'a>(call: &'a HookCall, field: &str) -> Vec<&'a str> {
    call.edits
        .iter()
        .filter_map(|edit| match edit {
            Edit::SetHeader(name, value) | Edit::AddHeader(name, value) if name == field => {
                Some(value.as_str())
            }
            _ => None,
        })
        .collect()
}

/// Offsets count bytes, wherever texts have characters of several, and bytes that are none.
#[test]
fn parts_behind_whatever_bytes_are_the_same_in_every_language() {
    for language in LANGUAGES {
        let mut tenant = tenant(&format!("guest-hooks-{language}"), "{}");
        let mut call = tenant.call(INVITE);
        let (before, behind) = INVITE.split_once("Contact: <sip:alice@").unwrap();
        let before = before.replace("Alice A.", "Zo\u{eb} \u{20ac} \u{1f44b}");
        let message = [
            before.as_bytes(),
            b"X-Bytes: \xff\xe2\x82 \xf0\x9f\r\n \xc3\xbc\r\n",
            "Contact: <sip:\u{e9}l\u{1f44b}@".as_bytes(),
            behind.as_bytes(),
        ];
        call.request = OwnedMessage::parse(Bytes::from(message.concat())).unwrap();
        tenant.run(0, HookInput::Request, &mut call).unwrap();
        let [read] = edited(&call, "X-Read")[..] else {
            panic!("{language}: {:?}", call.edits)
        };
        let contact: Vec<&str> = read.split('|').skip(7).take(2).collect();
        assert_eq!(contact, ["\u{e9}l\u{1f44b}", "10.0.0.7"], "{language}");
    }
}

#[test]
fn every_hook_does_the_same_in_every_language() {
    for language in LANGUAGES {
        let mut tenant = tenant(&format!("guest-hooks-{language}"), "{}");
        let mut request = call(&tenant, &HookInput::Request, "bob");
        let Verdict::Relay(plan) =
            verdict(tenant.run(0, HookInput::Request, &mut request).unwrap())
        else {
            panic!("{language}: no relay")
        };
        let Destination::Uri(uri) = &plan.groups[0][0].destination else {
            panic!("{language}: {plan:?}")
        };
        assert_eq!(uri.uri, "sip:bob@example.org:5070;transport=udp");
        assert_eq!(uri.next_hop, "sip:192.0.2.9:5070");
        assert!(plan.record_route.is_some(), "{language}");
        assert_eq!(
            edited(&request, "X-Read"),
            [
                "INVITE|sip:bob@example.org:5070;transport=udp|alice|example.org|a1|\
                 sip:bob@example.org|call-1@10.0.0.7|alice|10.0.0.7|before|-|5|acme"
            ],
            "{language}"
        );
        assert_eq!(edited(&request, "X-Hooks"), ["request"], "{language}");
        let armed = request.armed;
        assert!(armed.branch && armed.reply && armed.failure, "{language}");

        let mut of_route = call(&tenant, &HookInput::Route, "bob");
        tenant.run(0, HookInput::Route, &mut of_route).unwrap();
        assert_eq!(edited(&of_route, "X-Hooks"), ["route loose"], "{language}");

        let mut of_branch = call(&tenant, &branch(), "bob");
        let kept = tenant.run(0, branch(), &mut of_branch).unwrap();
        assert_eq!(kept, HookOutput::Branch(true), "{language}");
        assert_eq!(edited(&of_branch, "X-Hooks"), ["branch 7"], "{language}");

        let mut of_reply = call(&tenant, &HookInput::Reply, "bob");
        of_reply.state = request.state.clone();
        let forwarded = tenant.run(0, HookInput::Reply, &mut of_reply).unwrap();
        assert_eq!(forwarded, HookOutput::Reply(true), "{language}");
        assert_eq!(edited(&of_reply, "X-Hooks"), ["reply 180 2"], "{language}");

        let mut of_failure = call(&tenant, &failure(), "bob");
        let answer = reply(verdict(tenant.run(0, failure(), &mut of_failure).unwrap()));
        assert_eq!((answer.status, &*answer.reason), (480, "Best was 486"));
    }
}

/// What ends a call in each language, and what the operator reads of it.
#[test]
fn what_goes_wrong_in_a_guest_is_logged_with_its_line() {
    const REQUEST: HookInput = HookInput::Request;
    let line = |file: &str, text: &str| -> u32 {
        let guests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests");
        let source = std::fs::read_to_string(guests.join(file)).unwrap();
        let at = source.lines().position(|line| line.contains(text));
        u32::try_from(at.unwrap() + 1).unwrap()
    };
    let (ts, c, rust) = (
        "hooks-ts/src/guest.ts",
        "hooks-c/guest.c",
        "hooks-rust/src/lib.rs",
    );
    for (language, user, input, expected) in [
        (
            "ts",
            "throw",
            REQUEST,
            format!(
                "onRequest: Error: lost in onRequest at src/guest.ts:{}, called from src/guest.ts:{}",
                line(ts, "throw new Error("),
                line(ts, "return lost(\"onRequest\")")
            ),
        ),
        (
            "ts",
            "throw-refused",
            REQUEST,
            "onRequest: protected: ".to_owned(),
        ),
        (
            "ts",
            "throw-branch",
            branch(),
            format!(
                "called from src/guest.ts:{}",
                line(ts, "lost(\"onBranch\")")
            ),
        ),
        (
            "ts",
            "throw-reply",
            HookInput::Reply,
            format!("called from src/guest.ts:{}", line(ts, "lost(\"onReply\")")),
        ),
        (
            "ts",
            "throw-failure",
            failure(),
            format!(
                "called from src/guest.ts:{}",
                line(ts, "lost(\"onFailure\")")
            ),
        ),
        (
            "ts",
            "random",
            REQUEST,
            "Math.random: a policy decides by its message alone".to_owned(),
        ),
        (
            "c",
            "throw",
            REQUEST,
            format!(
                "guest.c:{}: lost in on_request",
                line(c, "lost in %s\", \"on_request")
            ),
        ),
        (
            "c",
            "throw-assert",
            REQUEST,
            format!(
                "guest.c:{}: exports_sipbox_policy_request_hook_on_request: assertion \
                 `view.index.len == 0` failed",
                line(c, "assert(view.index.len == 0)")
            ),
        ),
        ("c", "throw-abort", REQUEST, "abort() was called".to_owned()),
        (
            "c",
            "throw-branch",
            branch(),
            format!("guest.c:{}: lost in on_branch", line(c, "\"on_branch\"")),
        ),
        (
            "c",
            "throw-reply",
            HookInput::Reply,
            format!("guest.c:{}: lost in on_reply", line(c, "\"on_reply\"")),
        ),
        (
            "c",
            "throw-failure",
            failure(),
            format!("guest.c:{}: lost in on_failure", line(c, "\"on_failure\"")),
        ),
        (
            "rust",
            "throw",
            REQUEST,
            format!(
                "hooks-rust/src/lib.rs:{}: lost in on_request",
                line(rust, "panic!(")
            ),
        ),
        (
            "rust",
            "throw-refused",
            REQUEST,
            format!(
                "hooks-rust/src/lib.rs:{}: Via is the host's",
                line(rust, "assert!(!refused")
            ),
        ),
    ] {
        let name = format!("guest-hooks-{language}");
        let mut tenant = tenant(&name, "{}");
        let mut failing = call(&tenant, &input, user);
        let failed = tenant.run(0, input, &mut failing).unwrap_err();
        assert!(
            matches!(failed, HookFailure::Trap(_)),
            "{language} {user}: {failed}"
        );
        assert!(failing.edits.is_empty() && failing.state.vars.is_empty());
        let lines = tenant.host.lines.lock().unwrap().clone();
        let said = lines.iter().any(|(level, line)| {
            *level == LogLevel::Error
                && line.replace("hooks_rust", "hooks-rust").contains(&expected)
        });
        assert!(said, "{language} {user}: no {expected:?} in {lines:?}");
        // The next call gets an instance that works.
        drop(lines);
        let mut good = call(&tenant, &REQUEST, "bob");
        tenant.run(0, REQUEST, &mut good).unwrap();
    }
}

/// The sandbox's stack ends before the interpreter's does: nobody is left to say a line.
#[test]
fn a_recursion_without_end_is_a_trap_that_says_so() {
    let mut tenant = tenant("guest-hooks-ts", "{}");
    let mut deep = call(&tenant, &HookInput::Request, "throw-deep");
    let failed = tenant.run(0, HookInput::Request, &mut deep).unwrap_err();
    assert!(failed.to_string().contains("stack"), "{failed}");
}

#[test]
fn the_console_and_the_clock_of_typescript_are_the_hosts() {
    let mut tenant = tenant("guest-hooks-ts", "{}");
    let mut said = call(&tenant, &HookInput::Request, "console");
    let answer = tenant.run(0, HookInput::Request, &mut said).unwrap();
    assert_eq!(reply(verdict(answer)).status, 200);
    let lines = tenant.host.lines.lock().unwrap();
    assert_eq!(
        lines[..],
        [(
            LogLevel::Warn,
            r#"said by console {"at":true,"date":true}"#.to_owned()
        )]
    );
}

#[test]
fn memory_stays_flat_over_fifty_thousand_calls_in_rust() {
    soak("rust");
}

#[test]
fn memory_stays_flat_over_fifty_thousand_calls_in_c() {
    soak("c");
}

#[test]
fn memory_stays_flat_over_fifty_thousand_calls_in_typescript() {
    soak("ts");
}

/// 50,000 calls of each hook: after the first thousand, the memory of the instance stays what it
/// is, and no call needs another instance.
fn soak(language: &str) {
    const WARM: usize = 1000;
    const CALLS: usize = 50_000;
    let screen = r#"{"country_code":"49","count_header":"X-Count","remove_headers":["Subject"],
        "set_headers":[{"name":"X-Set","value":"1"}],"blocked_callers":["+4930*"]}"#;
    for (name, settings) in [
        (format!("guest-hooks-{language}"), "{}"),
        (format!("policy-screen-{language}"), screen),
    ] {
        let mut tenant = tenant(&name, settings);
        let stats = tenant.stats.policy(&Arc::from("acme"), &Arc::from(&*name));
        let mut first = call(&tenant, &HookInput::Request, "bob");
        tenant.run(0, HookInput::Request, &mut first).unwrap();
        let instances = stats.instances();
        let mut inputs = vec![HookInput::Request, HookInput::Reply];
        if name.starts_with("guest") {
            inputs.extend([HookInput::Route, branch(), failure()]);
        }
        for input in inputs {
            let mut hook = call(&tenant, &input, "00493012345");
            let mut warm = 0;
            for round in 0..CALLS + WARM {
                tenant.run(0, input.clone(), &mut hook).unwrap();
                hook.edits.clear();
                hook.state = Default::default();
                hook.armed = Default::default();
                if round == WARM {
                    warm = tenant.pools.memory();
                }
            }
            let after = tenant.pools.memory();
            println!("{name} {}: {warm} bytes, then {after}", hook_name(&input));
            assert!(
                warm > 0 && after == warm,
                "{name}: {warm} bytes, then {after}"
            );
            tenant.host.lines.lock().unwrap().clear();
        }
        assert_eq!(
            stats.instances(),
            instances,
            "{name}: no call needed another one"
        );
    }
}
