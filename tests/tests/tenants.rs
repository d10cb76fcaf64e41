//! Tenants, chains and policies: who decides what becomes of a request.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::path::Path;
use std::time::Duration;

use sipbox_tests::sipbox::{DOMAIN, residential};
use sipbox_tests::{Agent, Loopback, Setup, guest};

fn component_tenant(name: &str, domain: &str, component: &Path, settings: &str) -> String {
    format!(
        "[[tenant]]\nname = \"{name}\"\ndomains = [\"{domain}\"]\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {settings}\n",
        component.display()
    )
}

/// The same user name in two domains: neither sees the other's bindings, and
/// each is served by its own chain.
#[test]
fn tenants_with_the_same_user_stay_apart() {
    let net = Loopback::new();
    let sipbox = Setup::new(&net)
        .tenant("red", "red.test", "auth = \"register\"")
        .tenant(
            "blue",
            "blue.test",
            "auth = \"register\", mode = \"redirect\"",
        )
        .user("bob@red.test", "red-secret")
        .user("bob@blue.test", "blue-secret")
        .start();
    let mut red = Agent::udp("bob", "red.test", net.sip(), sipbox.address);
    let mut blue = Agent::udp("bob", "blue.test", net.sip(), sipbox.address);
    // The other's password opens nothing.
    let request = blue.request("REGISTER", "sip:blue.test");
    let (_, response) = blue.authenticated(request, "red-secret");
    assert_eq!(response.status(), Some(401), "{response}");
    assert_eq!(red.register("red-secret").values("Contact").len(), 1);
    assert_eq!(blue.register("blue-secret").values("Contact").len(), 1);

    // red forwards to red's bob.
    let mut alice = Agent::udp("alice", "red.test", net.sip(), sipbox.address);
    let invite = alice.request("INVITE", "sip:bob@red.test");
    alice.send(&invite);
    let arrived = red.expect_request("INVITE");
    red.respond(&arrived, 486, "Busy Here");
    let response = alice.expect(&invite, 486);
    alice.acknowledge(&invite, &response);
    assert!(blue.hears_nothing_for(Duration::from_millis(100)));

    // blue redirects to blue's bob.
    let mut carol = Agent::udp("carol", "blue.test", net.sip(), sipbox.address);
    let invite = carol.request("INVITE", "sip:bob@blue.test");
    carol.send(&invite);
    let response = carol.expect(&invite, 302);
    carol.acknowledge(&invite, &response);
    let contacts = response.values("Contact");
    assert_eq!(contacts.len(), 1, "{response}");
    assert!(contacts[0].contains(&blue.contact), "{response}");

    // red's bindings go, blue's stay.
    let mut request = red.request("REGISTER", "sip:red.test");
    request.set("Contact", "*");
    request.set("Expires", 0);
    let (_, response) = red.authenticated(request, "red-secret");
    assert_eq!(response.status(), Some(200), "{response}");
    assert_eq!(sipbox.statistic("usrloc:registered_users"), 1);
}

/// No routing decision is native.
#[test]
fn an_empty_chain_answers_404() {
    let net = Loopback::new();
    let sipbox = Setup::new(&net)
        .tenants("[[tenant]]\nname = \"bare\"\ndomains = [\"lab.test\"]\n")
        .default_tenant("bare")
        .start();
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    for method in ["OPTIONS", "MESSAGE", "REGISTER", "INVITE"] {
        let request = alice.request(method, "sip:lab.test");
        alice.send(&request);
        let response = alice.expect(&request, 404);
        if method == "INVITE" {
            alice.acknowledge(&request, &response);
        }
    }
}

/// A domain that nobody serves, on a listener without a tenant.
#[test]
fn a_request_that_no_tenant_claims_gets_404() {
    let net = Loopback::new();
    let sipbox = Setup::new(&net).tenant("red", "red.test", "").start();
    let mut eve = Agent::udp("eve", "elsewhere.test", net.sip(), sipbox.address);
    let request = eve.request("MESSAGE", "sip:bob@nowhere.test");
    eve.send(&request);
    eve.expect(&request, 404);
}

/// The same call, before and after a reload that puts a policy of twenty lines
/// in the residential one's place.
#[test]
fn a_policy_of_twenty_lines_changes_the_route() {
    let net = Loopback::new();
    let component = guest::route_to();
    let setup = Setup::residential(&net, "");
    let sipbox = setup.start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    bob.register("secret");
    let mut elsewhere = Agent::udp("other", DOMAIN, net.sip(), sipbox.address);
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);

    let request = alice.request("MESSAGE", "sip:bob@lab.test");
    alice.send(&request);
    let arrived = bob.expect_request("MESSAGE");
    bob.respond(&arrived, 200, "OK");
    alice.expect(&request, 200);

    let settings = format!("{{ next_hop = \"sip:{}\" }}", elsewhere.link.local());
    let mut changed = setup.clone();
    changed.replace_tenants(&component_tenant("home", DOMAIN, &component, &settings));
    sipbox.configure(&changed);
    let _ = sipbox.rpc("reload", &serde_json::json!({}));

    let request = alice.request("MESSAGE", "sip:bob@lab.test");
    alice.send(&request);
    let arrived = elsewhere.expect_request("MESSAGE");
    assert_eq!(arrived.request_uri(), "sip:bob@lab.test");
    elsewhere.respond(&arrived, 200, "OK");
    alice.expect(&request, 200);
    assert!(bob.hears_nothing_for(Duration::from_millis(100)));
}

/// RFC 3261 section 16.10: a CANCEL that matches nothing goes the way that its INVITE
/// would go, each copy with the same branch, and nothing is left behind.
#[test]
fn a_cancel_that_matches_nothing_goes_where_the_policy_sends_it() {
    let net = Loopback::new();
    let callee = net.sip();
    let settings = format!("{{ next_hop = \"sip:{callee}\" }}");
    let tenant = component_tenant("home", DOMAIN, &guest::route_to(), &settings);
    let sipbox = Setup::new(&net).tenants(&tenant).start();
    let mut bob = Agent::udp("bob", DOMAIN, callee, sipbox.address);
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let cancel = alice.cancel(&alice.request("INVITE", "sip:bob@lab.test"));
    alice.send(&cancel);
    let first = bob.expect_request("CANCEL");
    alice.send(&cancel);
    let second = bob.expect_request("CANCEL");
    assert_eq!(first.branch(), second.branch());
    assert_eq!(first.values("Via").len(), 2, "{first}");
    bob.respond(&second, 200, "OK");
    alice.expect(&cancel, 200);
    assert_eq!(sipbox.statistic("tm:inuse_transactions"), 0);
}

/// A chain asks one policy after the other: the first knows one user only.
#[test]
fn the_next_policy_decides_what_the_first_leaves() {
    let net = Loopback::new();
    let (bob, service) = (net.sip(), net.sip());
    let setup = Setup::new(&net).default_tenant("home");
    let tenant = component_tenant(
        "home",
        DOMAIN,
        &guest::routes(),
        &format!("{{ table = {{ service = \"sip:{service}\" }} }}"),
    );
    let second = format!(
        "[[tenant.policy]]\nbuiltin = \"residential\"\nsettings = {}\n",
        residential(DOMAIN, setup.address(), "")
    );
    let tenant = tenant.replacen(
        "domains = ",
        "grants = [\"auth\", \"location\", \"nat\", \"dialogs\", \"leases\"]\ndomains = ",
        1,
    );
    let sipbox = setup.tenants(&(tenant + &second)).start();
    let mut bob = Agent::udp("bob", DOMAIN, bob, sipbox.address);
    bob.register("secret");
    let mut service = Agent::udp("service", DOMAIN, service, sipbox.address);
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    for (user, callee) in [("bob", &mut bob), ("service", &mut service)] {
        let request = alice.request("MESSAGE", &format!("sip:{user}@lab.test"));
        alice.send(&request);
        let arrived = callee.expect_request("MESSAGE");
        callee.respond(&arrived, 200, "OK");
        alice.expect(&request, 200);
    }
}

/// A policy that imports what its tenant does not grant is not loaded.
#[test]
fn a_capability_that_is_not_granted_refuses_the_configuration() {
    let net = Loopback::new();
    let setup = Setup::residential(&net, "");
    let sipbox = setup.start();
    let mut changed = setup.clone();
    let settings = residential(DOMAIN, setup.address(), "");
    let tenant = component_tenant("home", DOMAIN, &guest::residential(), &settings);
    changed.replace_tenants(&tenant);
    sipbox.configure(&changed);
    let refused = sipbox
        .try_rpc("reload", &serde_json::json!({}))
        .unwrap_err();
    assert!(
        refused.to_string().contains("auth"),
        "the import is named: {refused}"
    );
    // The old configuration is in force.
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let request = alice.request("OPTIONS", &format!("sip:{}", sipbox.address));
    alice.send(&request);
    alice.expect(&request, 200);
}

/// A tenant that has all the transactions that it may have is refused more, statelessly,
/// and nobody else is.
#[test]
fn a_tenant_at_its_limit_of_transactions_hinders_no_other() {
    let net = Loopback::new();
    let blue = Setup::new(&net).tenant("blue", "blue.test", "");
    let with_red = |transactions: u32| {
        let red = format!(
            "[[tenant]]\nname = \"red\"\ndomains = [\"red.test\"]\n\
             [tenant.limits]\ntransactions = {transactions}\n"
        );
        blue.clone().tenants(&red)
    };
    let setup = with_red(5);
    let sipbox = setup.start();
    let mut rob = Agent::udp("rob", "red.test", net.sip(), sipbox.address);
    let mut bob = Agent::udp("bob", "blue.test", net.sip(), sipbox.address);
    bob.register("secret");
    let message = |rob: &mut Agent, status| {
        let request = rob.request("MESSAGE", "sip:any@red.test");
        rob.send(&request);
        (rob.expect(&request, status), request)
    };
    // Each is remembered for 32 seconds after its answer.
    let (_, first) = message(&mut rob, 404);
    for _ in 1..5 {
        message(&mut rob, 404);
    }
    for _ in 0..50 {
        let (response, _) = message(&mut rob, 503);
        let line = response.to_string();
        assert!(
            line.starts_with("SIP/2.0 503 Too Many Transactions Of Tenant"),
            "{response}"
        );
        // Whoever sends for several tenants is not made to wait by one of them.
        assert_eq!(response.header("Retry-After"), None);
    }
    // What was answered before is answered again.
    rob.send(&first);
    rob.expect(&first, 404);
    for _ in 0..20 {
        let request = bob.request("MESSAGE", "sip:bob@blue.test");
        bob.send(&request);
        let arrived = bob.expect_request("MESSAGE");
        bob.respond(&arrived, 200, "OK");
        bob.expect(&request, 200);
    }
    for (name, value) in [
        ("tenant:red/transactions", 5),
        ("tenant:red/refused", 50),
        ("tenant:blue/refused", 0),
        ("sipbox:refused_requests", 50),
    ] {
        assert_eq!(sipbox.statistic(name), value, "{name}");
    }
    let line = sipbox.logged("requests are refused");
    assert!(line.contains("tenant=\"red\""), "{line}");
    assert_eq!(sipbox.log().matches("requests are refused").count(), 1);
    // A reload changes the limit, and forgets no transaction.
    sipbox.configure(&with_red(7));
    let _ = sipbox.rpc("reload", &serde_json::json!({}));
    message(&mut rob, 404);
    message(&mut rob, 404);
    message(&mut rob, 503);
}

/// Nobody inherits the bindings of a tenant that a reload removed, be it the last one or
/// not; who has its domain again finds them.
#[test]
fn a_removed_tenants_bindings_are_nobody_elses() {
    let net = Loopback::new();
    let none = serde_json::json!({});
    let red = Setup::new(&net).tenant("red", "red.test", "");
    let both = red.clone().tenant("blue", "blue.test", "");
    let sipbox = both.start();
    let mut bob = Agent::udp("bob", "blue.test", net.sip(), sipbox.address);
    bob.register("secret");
    let mut rob = Agent::udp("rob", "red.test", net.sip(), sipbox.address);
    rob.register("secret");
    let contacts = || sipbox.statistic("usrloc:location-contacts");
    assert_eq!(contacts(), 2);

    sipbox.configure(&red);
    let _ = sipbox.rpc("reload", &none);
    assert_eq!(contacts(), 1, "red's");

    // The id of the removed tenant is not given to the next one.
    sipbox.configure(&red.clone().tenant("green", "green.test", ""));
    let _ = sipbox.rpc("reload", &none);
    assert_eq!(contacts(), 1, "{}", sipbox.rpc("ul_dump", &none));
    let mut alice = Agent::udp("alice", "green.test", net.sip(), sipbox.address);
    let request = alice.request("MESSAGE", "sip:bob@green.test");
    alice.send(&request);
    alice.expect(&request, 480);
    assert!(bob.hears_nothing_for(Duration::from_millis(100)));

    // Removed and added at once, under another name: a start would find them.
    let purple = red.clone().tenant("purple", "blue.test", "");
    for setup in [&both, &purple] {
        sipbox.configure(setup);
        let _ = sipbox.rpc("reload", &none);
        assert_eq!(contacts(), 2, "{}", sipbox.rpc("ul_dump", &none));
        let request = alice.request("MESSAGE", "sip:bob@blue.test");
        alice.send(&request);
        let arrived = bob.expect_request("MESSAGE");
        bob.respond(&arrived, 200, "OK");
        alice.expect(&request, 200);
    }
}
