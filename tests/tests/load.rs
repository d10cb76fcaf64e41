//! Calls at a rate: nothing fails, nothing is repeated by us, nothing stays
//! behind. These tests have the machine to themselves (`.config/nextest.toml`
//! knows them by name; inside one process a lock keeps them apart).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sipbox_tests::call_load::{Answerer, CallLoad, CallReport};
use sipbox_tests::sipbox::{DOMAIN, residential};
use sipbox_tests::{Agent, Loopback, Setup, Sipbox, Sipp, guest};

static MACHINE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no transaction and no timer is left. Timer H, the longest that
/// may follow, is set short.
fn wait_idle(sipbox: &Sipbox) {
    sipbox_tests::process::wait_until("all transactions end", Duration::from_secs(20), || {
        sipbox.statistic("tm:inuse_transactions") == 0
            && sipbox.statistic("tm:inuse_client_transactions") == 0
    });
}

/// T1 and T4 of a network without distance: transactions end after 64 T1.
const SHORT: &str = "[timers]\nt1 = \"100ms\"\nt4 = \"1s\"\n";

#[test]
fn a_load_of_100_calls_a_second_leaves_no_trace() {
    let _alone = alone();
    let net = Loopback::new();
    let mut sipbox = Setup::residential(&net, "").with(SHORT).start();
    let (alice, bob) = (net.sip(), net.sip());
    Agent::udp("bob", DOMAIN, bob, sipbox.address).register("secret");
    let proxy = sipbox.address;
    let run = |calls: u32| {
        let uas = Sipp::new("uas_call", bob).calls(calls, 100).start();
        let uac = Sipp::new("uac_call", alice)
            .to(proxy)
            .calls(calls, 100)
            .key("domain", DOMAIN)
            .key("target", "bob@lab.test")
            .run();
        (uac, uas.finish())
    };
    // Caches and pools fill.
    run(300);
    wait_idle(&sipbox);
    let before = sipbox.memory();
    let repeated = sipbox.statistic("tm:retransmissions");
    let (uac, uas) = run(1000);
    wait_idle(&sipbox);
    let after = sipbox.memory();
    println!("resident memory: {before} KiB before, {after} KiB after 1000 calls");
    println!("uac: {uac:?}\nuas: {uas:?}");
    assert_eq!((uac.retransmissions, uas.retransmissions), (0, 0));
    assert_eq!(sipbox.statistic("tm:retransmissions"), repeated, "of ours");
    assert!(
        after <= before + before / 20 + 2048,
        "{before} KiB grew to {after} KiB"
    );
}

fn calls_to(
    net: &Loopback,
    sipbox: &Sipbox,
    domain: &str,
    callee: &str,
    calls: u32,
    rate: u32,
) -> CallLoad {
    CallLoad {
        caller: net.sip(),
        proxy: sipbox.address,
        domain: domain.to_owned(),
        callee: callee.to_owned(),
        rate,
        calls,
    }
}

/// Ten reloads that replace the residential policy, by the one that is built in
/// and by a component file in turn.
#[test]
fn swaps_of_the_policy_under_load_lose_no_call() {
    let _alone = alone();
    let net = Loopback::new();
    let builtin = Setup::residential(&net, "");
    let mut from_file = builtin.clone();
    from_file.replace_tenants(&format!(
        "[[tenant]]\nname = \"home\"\ndomains = [\"{DOMAIN}\"]\ngrants = [\"auth\", \"location\", \"nat\", \"dialogs\", \"leases\"]\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {}\n",
        guest::residential().display(),
        residential(DOMAIN, builtin.address(), "max_contacts = 9")
    ));
    let sipbox = builtin.start();
    let bob = net.sip();
    Agent::udp("bob", DOMAIN, bob, sipbox.address).register("secret");
    let callee = Answerer::start("bob", DOMAIN, bob, sipbox.address);
    let load = calls_to(&net, &sipbox, DOMAIN, "bob", 1000, 100);
    let calls = std::thread::spawn(move || load.run());
    let mut versions = Vec::new();
    for swap in 0..10 {
        std::thread::sleep(Duration::from_millis(800));
        sipbox.configure(if swap % 2 == 0 { &from_file } else { &builtin });
        versions.push(sipbox.rpc("reload", &serde_json::json!({})));
    }
    let report = calls.join().unwrap();
    println!("{}", summary("100 calls/s during ten reloads", &report));
    assert_eq!(
        (report.calls, report.completed),
        (1000, 1000),
        "{:?}",
        report.refused
    );
    assert_eq!((report.repeated, callee.repeated()), (0, 0));
    versions.dedup();
    assert_eq!(
        versions.len(),
        10,
        "each reload is a version of its own: {versions:?}"
    );
}

fn summary(what: &str, report: &CallReport) -> String {
    format!(
        "{what}: {} of {} calls, p50 {:?}, p99 {:?}",
        report.completed,
        report.calls,
        report.quantile(0.50),
        report.quantile(0.99)
    )
}

/// A tenant with the limits that everyone has.
fn hostile_tenant(component: &Path, behaviour: &str) -> String {
    format!(
        "[[tenant]]\nname = \"bad\"\ndomains = [\"bad.test\"]\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {{ behaviour = \"{behaviour}\" }}\n",
        component.display()
    )
}

/// Enough calls that their 99th percentile does not hang on one or two of them.
const CALLS: u32 = 500;

/// 50 calls/s of a healthy tenant, alone and beside 50/s of a hostile one.
fn healthy_beside(behaviour: &str, hostile_status: u16) {
    let _alone = alone();
    let net = Loopback::new();
    let component = guest::hostile();
    let sipbox = Setup::residential(&net, "")
        .tenants(&hostile_tenant(&component, behaviour))
        .start();
    let bob = net.sip();
    Agent::udp("bob", DOMAIN, bob, sipbox.address).register("secret");
    let callee = Answerer::start("bob", DOMAIN, bob, sipbox.address);
    let by_itself = calls_to(&net, &sipbox, DOMAIN, "bob", CALLS, 50).run();
    assert_eq!(by_itself.completed, CALLS, "{by_itself:?}");
    let hostile = calls_to(&net, &sipbox, "bad.test", "any", CALLS, 50);
    let healthy = calls_to(&net, &sipbox, DOMAIN, "bob", CALLS, 50);
    let hostile = std::thread::spawn(move || hostile.run());
    let beside = healthy.run();
    let hostile = hostile.join().unwrap();
    println!("{}", summary("alone", &by_itself));
    println!("{}", summary(&format!("beside {behaviour}"), &beside));
    println!(
        "the hostile tenant's calls ended with {:?}",
        hostile.refused
    );
    assert_eq!(
        (beside.calls, beside.completed),
        (CALLS, CALLS),
        "{:?}",
        beside.refused
    );
    assert_eq!(
        (beside.repeated, callee.repeated()),
        (0, 0),
        "repeated by us"
    );
    assert_eq!(
        hostile.refused.get(&hostile_status),
        Some(&CALLS),
        "the declared fallback: {:?}",
        hostile.refused
    );
    let (alone, with) = (by_itself.quantile(0.99), beside.quantile(0.99));
    assert!(
        with <= alone * 5,
        "p99 {alone:?} alone and {with:?} beside {behaviour}"
    );
}

#[test]
fn a_healthy_tenant_beside_an_endless_loop() {
    healthy_beside("endless-loop", 503);
}

#[test]
fn a_healthy_tenant_beside_an_allocation_bomb() {
    healthy_beside("allocation-bomb", 503);
}

#[test]
fn a_healthy_tenant_beside_a_host_call_loop() {
    healthy_beside("host-call-loop", 503);
}

#[test]
fn a_healthy_tenant_beside_a_panic() {
    healthy_beside("panic", 503);
}

#[test]
fn a_healthy_tenant_beside_a_log_flood() {
    healthy_beside("log-flood", 503);
}
