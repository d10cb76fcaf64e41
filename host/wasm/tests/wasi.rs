//! The WASI functions that are served: what a guest gets from them.

mod common;

use common::{INVITE, Tenant, field, reply};
use sipbox_core::policy::LogLevel;

#[test]
fn a_guest_gets_the_calls_time_and_nothing_of_the_machine() {
    let mut tenant = Tenant::one("wasi", "");
    let reply = reply(tenant.request(INVITE).unwrap());
    assert_eq!(field(&reply, "X-Nothing"), "(0, 0, false, false, 0, false)");
    assert_eq!(field(&reply, "X-Written"), "true");
    assert_eq!(field(&reply, "X-Wall"), "1790000000.123000000");
    assert_eq!(field(&reply, "X-Monotonic"), "1790000000123000000");
}

#[test]
fn standard_streams_are_lines_of_the_log() {
    let mut tenant = Tenant::one("wasi", "");
    tenant.request(INVITE).unwrap();
    let lines = tenant.host.lines.lock().unwrap();
    let expected = [
        (LogLevel::Info, "hello".to_owned()),
        (LogLevel::Info, "world".to_owned()),
        (LogLevel::Warn, "careful".to_owned()),
    ];
    assert_eq!(
        *lines, expected,
        "a line without an end is written when the call ends"
    );
}

#[test]
fn randomness_follows_from_the_call() {
    let mut tenant = Tenant::one("wasi", "");
    let mut draw = |message: &str| {
        let reply = reply(tenant.request(message).unwrap());
        ["X-Random", "X-Bytes", "X-Seed"].map(|name| field(&reply, name).to_owned())
    };
    let first = draw(INVITE);
    assert_eq!(draw(INVITE), first, "the same call draws the same");
    let other = draw(&INVITE.replace("call-1", "call-2"));
    for (a, b) in first.iter().zip(&other) {
        assert_ne!(a, b, "another call draws something else");
    }
}

#[test]
fn exit_and_poll_end_the_call_with_their_reasons() {
    let mut tenant = Tenant::one("wasi", "");
    let exit = tenant
        .request(&INVITE.replace("sip:bob@", "sip:exit@"))
        .unwrap_err();
    assert_eq!(exit.name(), "trap");
    assert!(exit.to_string().contains("exit with failure"), "{exit}");
    let poll = tenant
        .request(&INVITE.replace("sip:bob@", "sip:poll@"))
        .unwrap_err();
    assert_eq!(poll.name(), "wasi-wait");
    assert_eq!(reply(tenant.request(INVITE).unwrap()).status, 200);
}

#[test]
fn wasi_imports_are_named_in_the_list() {
    let policy = common::load("wasi");
    let imports: Vec<_> = policy.imports().iter().map(String::as_str).collect();
    for import in [
        "wasi:cli/exit@0.2.3#exit",
        "wasi:random/random@0.2.3#get-random-u64",
    ] {
        assert!(imports.contains(&import), "{imports:?}");
    }
    policy.check_grants(&[]).unwrap();
}
