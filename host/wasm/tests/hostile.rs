//! Guests that misbehave: each is contained with a reason of its own, and the
//! next call of the same policy works.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{INVITE, Tenant, field, reply, spec};
use sipbox_core::policy::{HookFailure, HookInput};
use sipbox_wasm::{Capability, Chain, CpuBudget, Limits, LoadError, PolicySpec, Pools, WasmStats};

fn settings(behaviour: &str) -> String {
    format!(r#"{{"behaviour":"{behaviour}","when_user":"bob"}}"#)
}

/// What each behaviour ends with.
const BEHAVIOURS: [(&str, &str); 13] = [
    ("endless-loop", "cpu"),
    ("host-call-loop", "host-calls"),
    ("allocation-bomb", "memory"),
    ("deep-recursion", "trap"),
    ("panic", "trap"),
    ("giant-string", "output"),
    ("giant-verdict", "output"),
    ("many-targets", "output"),
    ("log-flood", "log"),
    ("edit-flood", "edits"),
    ("variable-flood", "edits"),
    ("ill-formed-verdict", "bad-verdict"),
    ("unknown-option", "bad-verdict"),
];

#[test]
fn each_is_contained_and_the_next_call_works() {
    for (behaviour, reason) in BEHAVIOURS {
        // Only the first is about CPU time; a debug build on a loaded machine
        // must not let it end the others.
        let mut spec = spec("hostile", &settings(behaviour));
        if reason != "cpu" {
            spec.limits.cpu = Duration::from_secs(2);
        }
        let mut tenant = Tenant::new(vec![spec]);
        for round in 1..=2 {
            let mut call = tenant.call(INVITE);
            let begun = Instant::now();
            let failure = tenant.run(0, HookInput::Request, &mut call).unwrap_err();
            assert_eq!(failure.name(), reason, "{behaviour}: {failure}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{behaviour}");
            assert_eq!(tenant.failed("hostile", reason), round, "{behaviour}");
            assert!(
                call.edits.is_empty() && call.effects.is_empty(),
                "{behaviour}"
            );
            assert!(call.state.vars.is_empty(), "{behaviour}");
            let good = tenant.request(&INVITE.replace("sip:bob@", "sip:carol@"));
            assert_eq!(reply(good.unwrap()).status, 200, "{behaviour}");
        }
        let lines = tenant.host.lines.lock().unwrap();
        let bytes: usize = lines.iter().map(|(_, line)| line.len()).sum();
        assert!(bytes <= 2 * 4096, "{behaviour} logged {bytes}");
    }
}

#[test]
fn ill_formed_edits_are_refused_one_by_one() {
    let mut tenant = Tenant::one("hostile", &settings("ill-formed-edits"));
    let mut call = tenant.call(INVITE);
    let output = tenant.run(0, HookInput::Request, &mut call).unwrap();
    let reply = reply(common::verdict(output));
    for (name, outcome) in [
        ("crlf", "malformed"),
        ("lf", "malformed"),
        ("nul", "malformed"),
        ("name", "malformed"),
        ("empty-name", "malformed"),
        ("via", "protected"),
        ("length", "protected"),
        ("uri", "malformed"),
        ("empty-uri", "malformed"),
        ("param", "malformed"),
    ] {
        assert_eq!(field(&reply, &format!("X-{name}")), outcome, "{name}");
    }
    assert!(call.edits.is_empty(), "{:?}", call.edits);
    assert!(call.state.route_params.is_empty());
}

#[test]
fn a_component_that_sleeps_ends_with_wasi_wait() {
    let mut tenant = Tenant::one("sleeper", "");
    let begun = Instant::now();
    let failure = tenant.request(INVITE).unwrap_err();
    assert_eq!(failure, HookFailure::WasiWait);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it sleeps a minute"
    );
    assert_eq!(tenant.failed("sleeper", "wasi-wait"), 1);
}

#[test]
fn a_foreign_import_is_refused_by_its_name() {
    let error = common::engine()
        .load_file(&common::guest("foreign"))
        .unwrap_err();
    let LoadError::ForeignImport(import) = &error else {
        panic!("{error}")
    };
    assert_eq!(import, "sipbox:foreign/files#read");
}

#[test]
fn a_capability_that_is_not_granted_is_refused_by_its_name() {
    let without = PolicySpec {
        grants: Vec::new(),
        ..spec("probe", r#"{"do":"arm"}"#)
    };
    let errors = Tenant::try_new(vec![without]).err().unwrap();
    let [
        (0, LoadError::NotGranted { import, capability }),
        (0, LoadError::NotGranted { import: other, .. }),
        (0, LoadError::NotGranted { import: last, .. }),
    ] = &errors[..]
    else {
        panic!("{errors:?}")
    };
    assert_eq!(import, "sipbox:policy/auth@0.1.0#challenge");
    assert_eq!(*capability, Capability::Auth);
    assert!(
        other.starts_with("sipbox:policy/location@0.1.0#"),
        "{other}"
    );
    assert!(last.starts_with("sipbox:policy/nat@0.1.0#"), "{last}");
    // With wrong settings besides, both are said.
    let without = PolicySpec {
        grants: vec![],
        ..spec("probe", r#"{"do":"nothing that it knows"}"#)
    };
    let errors = Tenant::try_new(vec![without]).err().unwrap();
    let refused = |error: &LoadError| matches!(error, LoadError::NotGranted { .. });
    assert!(errors.iter().any(|(_, error)| refused(error)), "{errors:?}");
    assert!(
        errors
            .iter()
            .any(|(_, error)| matches!(error, LoadError::Settings(_))),
        "{errors:?}"
    );
}

#[test]
fn a_policy_that_cannot_be_configured_is_refused_at_load() {
    for (behaviour, reason) in [
        ("loop-in-configure", "cpu"),
        ("panic-in-configure", "instantiate"),
    ] {
        let errors = Tenant::try_new(vec![spec("hostile", &settings(behaviour))])
            .err()
            .unwrap();
        let [(0, LoadError::Configure(failure))] = &errors[..] else {
            panic!("{errors:?}")
        };
        assert_eq!(failure.name(), reason, "{behaviour}: {failure}");
    }
}

#[test]
fn what_is_no_component_is_refused() {
    let store = common::engine();
    assert!(matches!(
        store.load(b"#!/bin/sh"),
        Err(LoadError::NotAComponent(_))
    ));
    assert!(matches!(
        store.load(b"\0asm\x01\0\0\0"),
        Err(LoadError::NotAComponent(_))
    ));
    assert!(matches!(
        store.load(b"\0asm\x0d\0\x01\0junk"),
        Err(LoadError::Compile(_))
    ));
    // A component, but an empty one.
    assert!(matches!(
        store.load(b"\0asm\x0d\0\x01\0"),
        Err(LoadError::NoHook)
    ));
}

#[test]
fn a_well_behaved_guest_beside_four_spinning_threads_never_traps() {
    let mut tenant = Tenant::one("routes", r#"{"otherwise":404}"#);
    let stop = Arc::new(AtomicBool::new(false));
    let spinners: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let begun = Instant::now();
    let mut calls = 0u32;
    // Long enough for the machine's scheduler to take the thread away in the
    // midst of many calls.
    while begun.elapsed() < Duration::from_secs(3) || calls < 500 {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "only {calls} calls"
        );
        let verdict = tenant.request(INVITE);
        assert_eq!(reply(verdict.unwrap()).status, 404, "call {calls}");
        calls += 1;
    }
    stop.store(true, Ordering::Relaxed);
    for spinner in spinners {
        spinner.join().unwrap();
    }
    assert!(
        !tenant.chain.conduct().confined(),
        "confined for the time that others used"
    );
}

#[test]
fn a_tenant_whose_calls_run_long_is_confined_and_one_that_only_fails_is_not() {
    for (behaviour, confined) in [("endless-loop", true), ("panic", false)] {
        let mut tenant = Tenant::one("hostile", &settings(behaviour));
        tenant
            .pools
            .warm(&tenant.chain, common::facts().now)
            .unwrap();
        let good = INVITE.replace("sip:bob@", "sip:carol@");
        assert_eq!(reply(tenant.request(&good).unwrap()).status, 200);
        assert!(!tenant.chain.conduct().confined(), "{behaviour}, good");
        tenant.request(INVITE).unwrap_err();
        assert_eq!(tenant.chain.conduct().confined(), confined, "{behaviour}");
    }
}

/// Calls of half a millisecond: none is long, and together they would hold a worker up.
#[test]
fn a_tenant_whose_calls_add_up_is_confined_too() {
    let busy = |rounds: u32| format!(r#"{{"behaviour":"busy","rounds":{rounds}}}"#);
    let time_of = |rounds: u32| {
        let mut tenant = Tenant::one("hostile", &busy(rounds));
        tenant.request(INVITE).unwrap();
        let before = sipbox_wasm::thread_cpu();
        tenant.request(INVITE).unwrap();
        sipbox_wasm::thread_cpu() - before
    };
    let mut rounds = 1000;
    while time_of(rounds) < Duration::from_micros(700) {
        rounds = rounds * 5 / 4;
    }
    let mut tenant = Tenant::one("hostile", &busy(rounds));
    let calls = (1..200).find(|_| {
        assert_eq!(reply(tenant.request(INVITE).unwrap()).status, 200);
        tenant.chain.conduct().confined()
    });
    println!(
        "{rounds} rounds take {:?}: confined after {calls:?}",
        time_of(rounds)
    );
    assert!(calls.is_some_and(|calls| calls > 1), "{calls:?}");
}

/// A reload makes a chain: neither confinement nor an overdrawn budget end by that.
#[test]
fn a_chain_that_succeeds_another_keeps_conduct_and_budget() {
    let stats = WasmStats::default();
    let chain = |budget: u64| {
        let budget = Arc::new(CpuBudget::new(Duration::from_millis(budget)));
        let mut looping = spec("hostile", &settings("endless-loop"));
        // One call overdraws it by seconds.
        looping.limits.cpu = Duration::from_millis(100);
        Chain::new(&Arc::from("acme"), vec![looping], Some(budget), &stats).unwrap()
    };
    let mut pools = Pools::new();
    let mut run = |chain: &Chain| {
        use sipbox_core::policy::PolicyHost;
        let host = Arc::default();
        let mut call = common::call(INVITE, &host);
        sipbox_wasm::ChainHost::new(&mut pools, chain)
            .call(0, HookInput::Request, &mut call)
            .unwrap_err()
    };
    let before = chain(10);
    while run(&before) != HookFailure::Budget {}
    assert!(before.conduct().confined());

    let mut after = chain(20);
    assert!(!after.conduct().confined(), "it knows nothing yet");
    after.succeed(&before);
    assert!(after.conduct().confined());
    assert_eq!(run(&after), HookFailure::Budget);
}

/// Who is slow in `configure` was so when the chain was loaded; no message waits for it.
#[test]
fn a_message_does_not_meet_configure() {
    let slow = r#"{"behaviour":"slow-in-configure","rounds":200000}"#;
    let tenant = Tenant::new(vec![spec("hostile", slow)]);
    tenant.chain.stock(2).unwrap();
    let instances = || {
        tenant
            .stats
            .policy(&Arc::from("acme"), &Arc::from("hostile"))
            .instances()
    };
    let made = instances();
    // Two workers: one that was told of the chain, one that meets a message first.
    let mut told = Pools::new();
    told.warm(&tenant.chain, common::facts().now).unwrap();
    for mut pools in [told, Pools::new()] {
        use sipbox_core::policy::PolicyHost;
        let mut call = tenant.call(INVITE);
        sipbox_wasm::ChainHost::new(&mut pools, &tenant.chain)
            .call(0, HookInput::Request, &mut call)
            .unwrap();
    }
    assert_eq!(instances(), made);
    assert!(!tenant.chain.conduct().confined());
}

/// More policies than instances: all are served, and who is called stays warm.
#[test]
fn the_policy_that_rested_longest_makes_room() {
    let tenant = Tenant::new(vec![spec("routes", "{}"); 4]);
    let mut pools = Pools::new().keeping(2);
    let stats = tenant
        .stats
        .policy(&Arc::from("acme"), &Arc::from("routes"));
    let mut at = common::facts().now;
    let mut made_by = |policy| {
        use sipbox_core::policy::PolicyHost;
        let mut call = tenant.call(INVITE);
        at.0 += 1;
        Arc::make_mut(&mut call.facts).now = at;
        let before = stats.instances();
        sipbox_wasm::ChainHost::new(&mut pools, &tenant.chain)
            .call(policy, HookInput::Request, &mut call)
            .unwrap();
        assert!(pools.instances() <= 2);
        stats.instances() - before
    };
    let made: Vec<_> = [0, 1, 0, 2, 0, 1, 3, 1, 0]
        .into_iter()
        .map(&mut made_by)
        .collect();
    assert_eq!(made, [1, 1, 0, 1, 0, 1, 1, 0, 1]);
}

/// What the engine has no room for is made on first use.
#[test]
fn the_stock_takes_what_fits() {
    let engine = sipbox_wasm::Engine::new(&sipbox_wasm::EngineSettings {
        cache: None,
        instances: sipbox_wasm::EngineSettings::for_workers(3),
    })
    .unwrap();
    let store = sipbox_wasm::ComponentStore::new(&engine);
    let mut routes = spec("routes", "{}");
    routes.component = store.load_file(&common::built("guest-routes")).unwrap();
    let tenant = Tenant::new(vec![routes; 2]);
    let stats = tenant
        .stats
        .policy(&Arc::from("acme"), &Arc::from("routes"));
    let before = stats.instances();
    tenant.chain.stock(2).unwrap();
    tenant.chain.stock(2).unwrap();
    assert_eq!(stats.instances() - before, 3);
    let mut pools = Pools::new().keeping(engine.share(1));
    let now = common::facts().now;
    pools.warm(&tenant.chain, now).unwrap();
    tenant.chain.stock(2).unwrap();
    assert_eq!(stats.instances() - before, 5, "two slots were free again");
}

#[test]
fn what_is_refused_beforehand_is_counted_and_calls_nobody() {
    use sipbox_core::policy::PolicyHost;
    let mut tenant = Tenant::one("hostile", &settings("endless-loop"));
    let mut call = tenant.call(INVITE);
    let refused = sipbox_wasm::ChainHost::new(&mut tenant.pools, &tenant.chain)
        .refusing(Some(HookFailure::Confined))
        .call(0, HookInput::Request, &mut call);
    assert_eq!(refused, Err(HookFailure::Confined));
    assert_eq!(tenant.failed("hostile", "confined"), 1);
    assert_eq!(tenant.pools.instances(), 0);
}

#[test]
fn cpu_time_is_counted_not_wall_time() {
    // A guest that computes for a known CPU time, less than its limit, while
    // the machine is so loaded that the wall clock passes the limit.
    let limits = Limits {
        cpu: Duration::from_millis(60),
        ..Limits::default()
    };
    let mut tenant = Tenant::new(vec![PolicySpec {
        limits,
        ..spec("hostile", &settings("endless-loop"))
    }]);
    let cpu = |work: &mut dyn FnMut()| {
        let clock = || {
            let time = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
            Duration::from(nix::time::clock_gettime(time).unwrap())
        };
        let begun = clock();
        work();
        clock() - begun
    };
    tenant
        .pools
        .warm(&tenant.chain, common::facts().now)
        .unwrap();
    let used = cpu(&mut || {
        assert_eq!(tenant.request(INVITE), Err(HookFailure::Cpu));
    });
    assert!(
        used >= Duration::from_millis(57),
        "cut off after {used:?} of CPU time"
    );
    assert!(used < Duration::from_millis(150), "ran for {used:?}");
}

#[test]
fn a_tenant_whose_budget_is_used_up_is_not_called() {
    let stats = WasmStats::default();
    let budget = Arc::new(CpuBudget::new(Duration::from_millis(20)));
    let specs = vec![spec("hostile", &settings("endless-loop"))];
    let chain = Chain::new(&Arc::from("acme"), specs, Some(budget), &stats).unwrap();
    let mut pools = Pools::new();
    let mut run = |message: &str| {
        let host = Arc::default();
        let mut call = common::call(message, &host);
        use sipbox_core::policy::PolicyHost;
        sipbox_wasm::ChainHost::new(&mut pools, &chain)
            .call(0, HookInput::Request, &mut call)
            .map(common::verdict)
    };
    let reasons: Vec<_> = (0..10).map(|_| run(INVITE).unwrap_err().name()).collect();
    assert!(reasons.starts_with(&["cpu", "cpu"]), "{reasons:?}");
    assert!(
        reasons.ends_with(&["budget", "budget", "budget"]),
        "{reasons:?}"
    );
    let good = INVITE.replace("sip:bob@", "sip:carol@");
    assert_eq!(run(&good), Err(HookFailure::Budget));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(reply(run(&good).unwrap()).status, 200, "a second later");
}
