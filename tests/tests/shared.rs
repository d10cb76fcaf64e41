//! What the calls of a tenant share on the running proxy: a guest that limits requests by
//! counters and writes to `kv` what it is told to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use sipbox_tests::process::wait_until;
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Setup, Sipbox, guest};

fn tenant(name: &str, domain: &str, settings: &str, limits: &str) -> String {
    format!(
        "[[tenant]]\nname = \"{name}\"\ndomains = [\"{domain}\"]\ngrants = [\"kv\", \"counters\"]\n\
         [tenant.limits]\ncpu = \"100ms\"\n{limits}\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {settings}\n",
        guest::shared().display()
    )
}

fn home(net: &Loopback, settings: &str) -> Setup {
    Setup::at(net.sip()).tenants(&tenant("home", DOMAIN, settings, ""))
}

fn reload(sipbox: &Sipbox, setup: &Setup) {
    sipbox.configure(setup);
    let _ = sipbox.rpc("reload", &json!({}));
}

/// The status, the answers and the policy's version.
fn ask(agent: &mut Agent, domain: &str, asked: &[&str], end: &str) -> (u16, Vec<String>, String) {
    let mut request = agent.request("OPTIONS", &format!("sip:anyone@{domain}"));
    for asked in asked {
        request = request.with("X-Ask", asked);
    }
    let request = request.with("X-End", end);
    agent.send(&request);
    let response = agent.answer_to(&request, false);
    let version = response.header("X-Version").unwrap_or_default().to_owned();
    (
        response.status().unwrap(),
        response.values("X-Answer"),
        version,
    )
}

fn answers(agent: &mut Agent, asked: &[&str]) -> Vec<String> {
    let (status, answers, _) = ask(agent, DOMAIN, asked, "reply");
    assert_eq!(status, 200);
    answers
}

#[test]
fn a_source_that_asks_too_often_is_refused_also_after_a_reload() {
    let net = Loopback::new();
    let limit = "limit = { most = 5, window = 3600 }";
    let setup = home(&net, &format!("{{ version = \"1\", {limit} }}"));
    let sipbox = setup.start();
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let status = |agent: &mut Agent, end| ask(agent, DOMAIN, &[], end).0;
    assert_eq!(status(&mut alice, "reply"), 200);
    // What traps counts as well.
    assert_eq!(status(&mut alice, "panic"), 503);
    for wanted in [200, 200, 200, 403, 403] {
        assert_eq!(status(&mut alice, "reply"), wanted);
    }
    assert_eq!(sipbox.statistic("counters:active"), 1);
    assert_eq!(sipbox.statistic("tenant:home/counters"), 1);
    let mut changed = setup.clone();
    let settings = format!("{{ version = \"2\", {limit} }}");
    changed.replace_tenants(&tenant("home", DOMAIN, &settings, ""));
    reload(&sipbox, &changed);
    assert_eq!(status(&mut alice, "reply"), 403);
    // Another window is another counter.
    let settings = "{ version = \"3\", limit = { most = 5, window = 60 } }";
    changed.replace_tenants(&tenant("home", DOMAIN, settings, ""));
    reload(&sipbox, &changed);
    let (status, _, version) = ask(&mut alice, DOMAIN, &[], "reply");
    assert_eq!((status, &*version), (200, "3"));
    assert_eq!(sipbox.statistic("counters:active"), 2);
}

#[test]
fn a_window_slides_on_the_running_proxy() {
    let net = Loopback::new();
    let sipbox = home(&net, "{ limit = { most = 2, window = 1 } }").start();
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let mut status = || ask(&mut alice, DOMAIN, &[], "reply").0;
    assert_eq!([status(), status(), status()], [200, 200, 403]);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(status(), 200);
    wait_until("the counter is gone", Duration::from_secs(5), || {
        sipbox.statistic("counters:active") == 0
    });
}

#[test]
fn a_value_of_one_call_is_read_by_the_next_and_outlives_a_reload() {
    let net = Loopback::new();
    let setup = home(&net, "{ version = \"1\" }");
    let mut sipbox = setup.start();
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    assert_eq!(
        answers(&mut alice, &["get a", "set a one 0"]),
        ["none", "set"]
    );
    assert_eq!(
        answers(&mut bob, &["text a", "set b two 100"]),
        ["one", "set"]
    );
    // Neither a trap nor a chain that ends without a verdict of its own keeps it all.
    assert_eq!(
        ask(&mut bob, DOMAIN, &["set a trapped 0", "remove b"], "panic").0,
        503
    );
    assert_eq!(answers(&mut alice, &["text a", "text b"]), ["one", "two"]);
    assert_eq!(ask(&mut bob, DOMAIN, &["set c three 0"], "next").0, 404);
    assert_eq!(answers(&mut alice, &["text c"]), ["three"]);
    assert_eq!(sipbox.statistic("kv:entries"), 3);

    let mut changed = setup.clone();
    let limits = "kv_entries = 4\nkv_mib = 1\nkv_value_bytes = 10\ncounters = 2";
    changed.replace_tenants(&tenant("home", DOMAIN, "{ version = \"2\" }", limits));
    reload(&sipbox, &changed);
    let asked = ["text a", "swap a 1", "text c"];
    let (_, found, version) = ask(&mut alice, DOMAIN, &asked, "reply");
    assert_eq!(
        (found, &*version),
        (vec!["one".into(), "stored".into(), "three".into()], "2")
    );
    // The new limits hold.
    let asked = ["set d 4 0", "set e 5 0", "value 11", "counters 3"];
    let expected = [
        "set",
        "limit kv_entries",
        "limit kv_value_bytes",
        "2 limit counters",
    ];
    assert_eq!(answers(&mut bob, &asked), expected);

    sipbox.stop();
    sipbox.start_again();
    assert_eq!(answers(&mut alice, &["get a"]), ["none"], "it is in memory");
}

#[test]
fn a_tenant_sees_nothing_of_anothers_values() {
    let net = Loopback::new();
    let setup = home(&net, "{}").tenants(&tenant("red", "red.test", "{}", ""));
    let sipbox = setup.start();
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let mut rob = Agent::udp("rob", "red.test", net.sip(), sipbox.address);
    answers(&mut alice, &["set a secret 0", "add calls a 7 3600"]);
    let asked = ["get a", "read calls a 3600", "swap-if a mine absent"];
    let (_, found, _) = ask(&mut rob, "red.test", &asked, "reply");
    assert_eq!(found, ["none", "0", "stored"]);
    assert_eq!(
        answers(&mut alice, &["text a", "read calls a 3600"]),
        ["secret", "7"]
    );
    // Filling one's own quota leaves others theirs.
    let (_, found, _) = ask(&mut rob, "red.test", &["counters 900"], "reply");
    assert_eq!(found, ["all"]);
    assert_eq!(sipbox.statistic("tenant:red/counters"), 900);
    assert_eq!(sipbox.statistic("tenant:home/counters"), 1);
}

#[test]
fn values_are_read_and_written_by_command() {
    let net = Loopback::new();
    let sipbox = home(&net, "{}").start();
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let of = |attr: &str| json!({ "system": "home", "attr": attr });
    let refused = |answer: Result<_, _>| assert!(answer.is_err(), "{answer:?}");
    refused(sipbox.try_rpc("cache_fetch", &of("a")));
    refused(sipbox.try_rpc("cache_fetch", &json!({ "system": "red", "attr": "a" })));
    let stored = json!({ "system": "home", "attr": "a", "value": "given", "expire": 50 });
    assert_eq!(sipbox.rpc("cache_store", &stored), "OK");
    assert_eq!(
        answers(&mut alice, &["get a", "set b 1 0"]),
        ["given 50", "set"]
    );
    let fetched = sipbox.rpc("cache_fetch", &of("b"));
    assert_eq!(fetched, json!({ "key": "b", "value": "1", "expire": 0 }));
    assert_eq!(sipbox.rpc("cache_remove", &of("b")), "OK");
    assert_eq!(answers(&mut alice, &["get b"]), ["none"]);
}

/// Several phones add to one counter at the same time: no two get the same number.
#[test]
fn each_request_gets_a_number_of_its_own_over_all_workers() {
    const PHONES: usize = 4;
    const EACH: usize = 40;
    let net = Loopback::new();
    let sipbox = home(&net, "{}").workers(2).start();
    let numbers: Vec<u32> = std::thread::scope(|scope| {
        let phones: Vec<_> = (0..PHONES)
            .map(|n| {
                let mut phone = Agent::udp(&format!("p{n}"), DOMAIN, net.sip(), sipbox.address);
                scope.spawn(move || {
                    let mut add = || answers(&mut phone, &["add calls all 1 3600"]);
                    (0..EACH)
                        .map(|_| add()[0].parse().unwrap())
                        .collect::<Vec<u32>>()
                })
            })
            .collect();
        let joined = phones.into_iter().flat_map(|phone| phone.join().unwrap());
        joined.collect()
    });
    assert_eq!(numbers.len(), PHONES * EACH);
    let different: BTreeSet<u32> = numbers.into_iter().collect();
    assert_eq!(different.len(), PHONES * EACH);
    assert_eq!(different.last(), u32::try_from(PHONES * EACH).ok().as_ref());
}

/// A call that comes too soon after another one is refused before its policies' writes are
/// made, and where a policy says that its sender is.
#[test]
fn a_call_that_is_refused_for_its_rate_writes_nothing_and_is_told_so_behind_nat() {
    let net = Loopback::new();
    let nobody = net.sip();
    let tenant = format!(
        "[[tenant]]\nname = \"home\"\ndomains = [\"{DOMAIN}\"]\n\
         grants = [\"nat\", \"kv\", \"counters\"]\n\
         [tenant.limits]\ncalls_per_second = 1\n\
         [[tenant.policy]]\ncomponent = \"{}\"\n\
         [[tenant.policy]]\ncomponent = \"{}\"\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {{ next_hop = \"sip:{nobody}\" }}\n",
        guest::nat().display(),
        guest::shared().display(),
        guest::route_to().display(),
    );
    let sipbox = Setup::at(net.sip()).tenants(&tenant).start();
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let (mut refused, calls) = (Vec::new(), 20);
    for call in 0..calls {
        let mut invite = alice
            .request("INVITE", &format!("sip:bob@{DOMAIN}"))
            .with("X-Ask", format!("set call{call} made 0"))
            .with("X-End", "next");
        // Nobody hears what goes to the address that her Via has.
        let via = format!("SIP/2.0/UDP {nobody};branch={}", invite.branch());
        invite.set("Via", via);
        alice.send(&invite);
        let answer = alice.answer_to(&invite, false);
        alice.acknowledge(&invite, &answer);
        if answer.reason() == "Too Many Calls Per Second" {
            refused.push(call);
        }
    }
    // However slow the machine is: the first is let in, and one of the others comes too soon.
    assert!(!refused.is_empty() && !refused.contains(&0), "{refused:?}");
    for call in 0..calls {
        let asked = json!({ "system": "home", "attr": format!("call{call}") });
        let written = sipbox.try_rpc("cache_fetch", &asked).is_ok();
        assert_eq!(
            written,
            !refused.contains(&call),
            "call {call} of {refused:?}"
        );
    }
}
