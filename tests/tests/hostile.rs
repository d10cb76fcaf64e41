//! Every way to misbehave, against the whole program: it is contained, the
//! declared fallback is answered, and the next call of the policy works.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use sipbox_tests::agent::cseq;
use sipbox_tests::process::wait_until;
use sipbox_tests::{Agent, Loopback, Setup, Sipbox, guest};

fn tenant(component: &Path, settings: &str) -> String {
    tenant_named("bad", component, settings)
}

fn tenant_named(name: &str, component: &Path, settings: &str) -> String {
    format!(
        "[[tenant]]\nname = \"{name}\"\ndomains = [\"{name}.test\"]\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {settings}\n",
        component.display()
    )
}

/// What each behaviour ends with: a reason of its own, by which the operator learns
/// of it.
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

/// A request that the policy fails: the fallback, and why.
fn refused(agent: &mut Agent, reason: &str) {
    refused_at(agent, "bad.test", reason);
}

fn refused_at(agent: &mut Agent, domain: &str, reason: &str) {
    let request = agent.request("OPTIONS", &format!("sip:evil@{domain}"));
    agent.send(&request);
    let response = agent.answer_to(&request, false);
    assert_eq!(response.status(), Some(503), "{reason}:\n{response}");
    assert_eq!(
        response.get("Warning"),
        format!("399 sipbox \"policy failed: {reason}\"")
    );
}

/// Statistic and log name that reason, that often, and no other.
fn accounted(sipbox: &Sipbox, policy: &str, reason: &str, times: usize) {
    let statistics = sipbox.statistics("policy");
    let failures: BTreeMap<&str, u64> = statistics
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| name.contains("/failed/"))
        .map(|(name, count)| (&**name, count.as_u64().unwrap()))
        .filter(|(_, count)| *count > 0)
        .collect();
    let name = format!("policy:bad/{policy}/failed/{reason}");
    assert_eq!(failures, BTreeMap::from([(&*name, times as u64)]));
    let failed = |line: &&str| line.contains("policy failed");
    // Lines are written by a thread that nobody waits for.
    wait_until("the log lines", Duration::from_secs(5), || {
        sipbox.log().lines().filter(failed).count() >= times
    });
    let log = sipbox.log();
    let lines: Vec<&str> = log.lines().filter(failed).collect();
    let words = [
        "WARN",
        "tenant=\"bad\"",
        &format!("policy=\"{policy}\""),
        &format!("reason=\"{reason}\""),
    ];
    assert!(
        lines.len() == times
            && lines
                .iter()
                .all(|line| words.iter().all(|word| line.contains(word))),
        "{words:?} in each of {lines:#?}"
    );
}

#[test]
fn each_behaviour_is_contained_and_the_next_call_works() {
    let component = guest::hostile();
    for (behaviour, reason) in BEHAVIOURS {
        let net = Loopback::new();
        let settings = format!("{{ behaviour = \"{behaviour}\", when_user = \"evil\" }}");
        // Only the first is about CPU time: a loaded machine must not let it end the others.
        let limits = match reason {
            "cpu" => "",
            _ => "[tenant.limits]\ncpu = \"200ms\"\n",
        };
        let sipbox = Setup::new(&net)
            .tenants(&(tenant(&component, &settings) + limits))
            .start();
        let mut agent = Agent::udp("eve", "bad.test", net.sip(), sipbox.address);
        for _ in 0..2 {
            refused(&mut agent, reason);
            let request = agent.request("OPTIONS", "sip:good@bad.test");
            agent.send(&request);
            agent.expect(&request, 200);
        }
        accounted(&sipbox, "guest-hostile", reason, 2);
    }
}

/// A guest that sleeps a minute through `wasi:io/poll`, where no clock of the host's
/// reaches it, is not let to.
#[test]
fn a_policy_that_sleeps_is_ended_at_once() {
    let net = Loopback::new();
    let sipbox = Setup::new(&net)
        .tenants(&tenant(&guest::sleeper(), "{}"))
        .start();
    let mut agent = Agent::udp("eve", "bad.test", net.sip(), sipbox.address);
    for _ in 0..2 {
        refused(&mut agent, "wasi-wait");
    }
    accounted(&sipbox, "guest-sleeper", "wasi-wait", 2);
}

/// Beside others, a tenant whose policy runs long is asked apart: it waits for
/// itself, gets the fallback where that takes too long, and nobody else waits.
#[test]
fn a_tenant_that_runs_long_waits_for_itself_alone() {
    let net = Loopback::new();
    let settings = "{ behaviour = \"endless-loop\", when_user = \"evil\" }";
    let sipbox = Setup::residential(&net, "")
        .tenants(&tenant(&guest::hostile(), settings))
        .start();
    let mut eve = Agent::udp("eve", "bad.test", net.sip(), sipbox.address);
    let mut alice = Agent::udp("alice", "lab.test", net.sip(), sipbox.address);
    let evil = |eve: &mut Agent| {
        let request = eve.request("OPTIONS", "sip:evil@bad.test");
        eve.send(&request);
    };
    // The first one is not expected yet.
    evil(&mut eve);
    let first = eve.link.receive(Duration::from_secs(5)).unwrap();
    assert_eq!(first.get("Warning"), "399 sipbox \"policy failed: cpu\"");
    // 60 calls of 5 ms, a third of a second for one after the other.
    let begin = Instant::now();
    for _ in 0..60 {
        evil(&mut eve);
    }
    let request = alice.request("OPTIONS", &format!("sip:{}", sipbox.address));
    alice.send(&request);
    alice.expect(&request, 200);
    let waited = begin.elapsed();
    let mut reasons = BTreeMap::<String, u32>::new();
    while let Some(response) = eve.link.receive(Duration::from_secs(1)) {
        assert_eq!(response.status(), Some(503), "{response}");
        *reasons
            .entry(response.get("Warning").to_owned())
            .or_default() += 1;
    }
    println!("alice waited {waited:?}; eve got {reasons:?}");
    assert_eq!(reasons.values().sum::<u32>(), 60);
    assert!(
        reasons.contains_key("399 sipbox \"policy failed: confined\""),
        "{reasons:?}"
    );
    assert!(
        reasons["399 sipbox \"policy failed: cpu\""] >= 32,
        "{reasons:?}"
    );
    assert!(waited < Duration::from_millis(100), "{waited:?}");
    // Well-behaved calls of the same tenant are served, in their turn.
    let request = eve.request("OPTIONS", "sip:good@bad.test");
    eve.send(&request);
    eve.expect(&request, 200);
    let failed = |reason| sipbox.statistic(&format!("policy:bad/guest-hostile/failed/{reason}"));
    println!("{} cpu, {} confined", failed("cpu"), failed("confined"));
    assert_eq!(failed("cpu") + failed("confined"), 61);
    for line in ["calls run long", "confined"] {
        let _ = sipbox.logged(line);
    }
}

/// Requests of a dialog keep their order, those for which no place is free included: the
/// fallback relays them, and they may not overtake those that wait.
#[test]
fn a_dialog_keeps_its_order_where_policies_run_long() {
    let net = Loopback::new();
    let settings = "{ behaviour = \"endless-loop\", when_user = \"evil\" }";
    // Unsigned, a route of ours is enough for the fallback.
    let sipbox = Setup::residential(&net, "")
        .with("[record_route]\nsign = false\n")
        .workers(1)
        .tenants(&tenant(&guest::hostile(), settings))
        .start();
    let mut bob = Agent::udp("bob", "bad.test", net.sip(), sipbox.address);
    let mut eve = Agent::udp("eve", "bad.test", net.sip(), sipbox.address);
    refused(&mut eve, "cpu");
    let route = format!("<sip:{};lr>, <sip:{};lr>", sipbox.address, bob.link.local());
    let mut request = eve
        .request("MESSAGE", "sip:evil@bad.test")
        .with("Route", route);
    let to = format!("{};tag=bob", request.get("To"));
    request.set("To", to);
    for _ in 0..60 {
        eve.send(&request);
        request = eve.again(&request);
    }
    let mut arrived = Vec::new();
    while arrived.len() < 60 {
        let Some(message) = bob.link.receive(Duration::from_secs(5)) else {
            break;
        };
        let number = cseq(&message);
        if !arrived.contains(&number) {
            arrived.push(number);
        }
    }
    assert_eq!(arrived, (1..=60).collect::<Vec<u32>>());
    let confined = sipbox.statistic("policy:bad/guest-hostile/failed/confined");
    assert!(confined > 0, "there was no place for some");
}

/// Two tenants that ran long: who has one call does not wait for all of the other's.
#[test]
fn confined_tenants_take_turns() {
    let net = Loopback::new();
    let component = guest::hostile();
    let settings = "{ behaviour = \"endless-loop\", when_user = \"evil\" }";
    let limits = "[tenant.limits]\ncpu = \"100ms\"\ncpu_budget = \"60s\"\n";
    let [bad, worse] = ["bad", "worse"].map(|name| tenant_named(name, &component, settings));
    let sipbox = Setup::new(&net)
        .tenants(&format!("{bad}{limits}{worse}{limits}"))
        .start();
    let mut bad = Agent::udp("eve", "bad.test", net.sip(), sipbox.address);
    let mut worse = Agent::udp("mallory", "worse.test", net.sip(), sipbox.address);
    refused_at(&mut worse, "worse.test", "cpu");
    refused_at(&mut bad, "bad.test", "cpu");
    for _ in 0..20 {
        let request = bad.request("OPTIONS", "sip:evil@bad.test");
        bad.send(&request);
    }
    // The first is on.
    std::thread::sleep(Duration::from_millis(20));
    for _ in 0..3 {
        let begun = Instant::now();
        let request = worse.request("OPTIONS", "sip:good@worse.test");
        worse.send(&request);
        worse.expect(&request, 200);
        let waited = begun.elapsed();
        println!("waited {waited:?} beside two seconds of the other's calls");
        assert!(waited < Duration::from_millis(600), "{waited:?}");
    }
}

/// A reload with the same tenant gives neither good conduct nor CPU time back.
#[test]
fn a_reload_does_not_forget_how_policies_behaved() {
    let net = Loopback::new();
    let settings = "{ behaviour = \"endless-loop\", when_user = \"evil\" }";
    let limits = "[tenant.limits]\ncpu = \"200ms\"\ncpu_budget = \"100ms\"\n";
    let setup =
        Setup::residential(&net, "").tenants(&(tenant(&guest::hostile(), settings) + limits));
    let sipbox = setup.start();
    let mut eve = Agent::udp("eve", "bad.test", net.sip(), sipbox.address);
    refused(&mut eve, "cpu");
    sipbox.configure(&setup);
    let _ = sipbox.rpc("reload", &serde_json::json!({}));
    // 100 ms are owed.
    let request = eve.request("OPTIONS", "sip:good@bad.test");
    eve.send(&request);
    let response = eve.expect(&request, 503);
    assert_eq!(
        response.get("Warning"),
        "399 sipbox \"policy failed: budget\""
    );
    std::thread::sleep(Duration::from_millis(1500));
    refused(&mut eve, "cpu");
    let confined = sipbox.log().matches("calls run long").count();
    assert_eq!(confined, 1, "once, for ten seconds: {}", sipbox.log());
}

/// Refused edits are errors that the guest sees; nothing of them leaves.
#[test]
fn ill_formed_edits_are_refused_one_by_one() {
    let net = Loopback::new();
    let settings = "{ behaviour = \"ill-formed-edits\" }";
    let sipbox = Setup::new(&net)
        .tenants(&tenant(&guest::hostile(), settings))
        .start();
    let mut agent = Agent::udp("eve", "bad.test", net.sip(), sipbox.address);
    let request = agent.request("OPTIONS", "sip:any@bad.test");
    agent.send(&request);
    let response = agent.expect(&request, 200);
    for (name, outcome) in [
        ("X-crlf", "malformed"),
        ("X-lf", "malformed"),
        ("X-nul", "malformed"),
        ("X-name", "malformed"),
        ("X-empty-name", "malformed"),
        ("X-via", "protected"),
        ("X-length", "protected"),
        ("X-uri", "malformed"),
        ("X-empty-uri", "malformed"),
        ("X-param", "malformed"),
    ] {
        assert_eq!(response.get(name), outcome, "{name}:\n{response}");
    }
}

/// Components that cannot be loaded refuse the configuration, with a reason.
#[test]
fn components_that_cannot_be_trusted_are_refused_at_load() {
    let net = Loopback::new();
    let setup = Setup::residential(&net, "");
    let sipbox = setup.start();
    for (behaviour, reason) in [
        ("loop-in-configure", "configure failed: cpu limit"),
        ("panic-in-configure", "configure failed: instantiation"),
    ] {
        let settings = format!("{{ behaviour = \"{behaviour}\" }}");
        let changed = setup.clone().tenants(&tenant(&guest::hostile(), &settings));
        sipbox.configure(&changed);
        let refused = sipbox.try_rpc("reload", &serde_json::json!({}));
        let refused = refused.unwrap_err().to_string();
        println!("{behaviour}: {refused}");
        assert!(refused.contains(reason), "{behaviour}: {refused}");
    }
    let mut agent = Agent::udp("alice", "lab.test", net.sip(), sipbox.address);
    let request = agent.request("OPTIONS", &format!("sip:{}", sipbox.address));
    agent.send(&request);
    agent.expect(&request, 200);
}
