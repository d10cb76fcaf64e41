//! `policies/trunking` on the running proxy: trunks by address and by digest, with limits, and
//! gateways of which the second takes over.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::time::Duration;

use sipbox_tests::process::wait_until;
use sipbox_tests::server::{ANSWERS, SILENT};
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Message, Server, Setup, Sipbox, guest};

struct Lab {
    sipbox: Sipbox,
    /// A trunk by its address, with two calls at a time.
    pbx: Agent,
    /// A trunk by its account, with one.
    shop: Agent,
    west: Server,
    east: Server,
}

fn lab(more: &str) -> Lab {
    let net = Loopback::new();
    let proxy = net.sip();
    let (pbx, shop) = (net.sip(), net.sip());
    let west = Server::start("west", net.sip(), proxy);
    let east = Server::start("east", net.sip(), proxy);
    let toml = format!(
        "[[tenant]]\nname = \"carrier\"\ndomains = [\"{DOMAIN}\"]\n\
         grants = [\"auth\", \"dialogs\", \"leases\"]\n\
         [[tenant.policy]]\ncomponent = \"{}\"\n[tenant.policy.settings]\n\
         realm = \"{DOMAIN}\"\n\
         trunks = [{{ name = \"pbx\", max_calls = 2, sources = [{{ address = \"{}\" }}] }}, \
         {{ name = \"shop\", max_calls = 1, account = \"shop\" }}]\n\
         gateways = [{{ name = \"west\", uri = \"sip:{}\", max_calls = 9 }}, \
         {{ name = \"east\", uri = \"sip:{}\" }}]\n\
         routes = [{{ prefix = \"00\", strip = 2, gateways = [\"west\", \"east\"] }}]\n{more}\n\
         [tenant.limits]\ncpu = \"100ms\"\n",
        guest::trunking().display(),
        pbx.ip(),
        west.address,
        east.address,
    );
    let sipbox = Setup::at(proxy)
        .tenants(&toml)
        .default_tenant("carrier")
        .user(&format!("shop@{DOMAIN}"), "till")
        .user(&format!("stranger@{DOMAIN}"), "danger")
        .with("[timers]\nt1 = \"100ms\"\nb = \"1s\"\n")
        .start();
    Lab {
        pbx: Agent::udp("alice", DOMAIN, pbx, proxy),
        shop: Agent::udp("shop", DOMAIN, shop, proxy),
        sipbox,
        west,
        east,
    }
}

const NUMBER: &str = "sip:00493012345@lab.test";

/// The same with credentials, after the challenge.
fn proven(agent: &mut Agent, password: &str) -> Message {
    let invite = agent.request("INVITE", NUMBER);
    let (invite, answer) = agent.authenticated(invite, password);
    if answer.status() == Some(200) {
        agent.begin(&invite, &answer);
    } else {
        agent.acknowledge(&invite, &answer);
    }
    answer
}

#[test]
fn a_trunk_by_address_has_as_many_calls_as_its_limit_says() {
    let mut lab = lab("");
    let first = lab.pbx.call(NUMBER);
    let second = lab.pbx.call(NUMBER);
    let seen = lab.west.calls();
    assert_eq!(seen.len(), 2);
    let gateway = lab.west.address;
    assert_eq!(seen[0].request_uri(), format!("sip:493012345@{gateway}"));
    assert_eq!(lab.pbx.invite(NUMBER).1.status(), Some(486));
    lab.pbx.hang_up(first);
    wait_until("a free line", Duration::from_secs(5), || {
        lab.sipbox.statistic("leases:held") == 2
    });
    let third = lab.pbx.call(NUMBER);
    for dialog in [second, third] {
        lab.pbx.hang_up(dialog);
    }
    lab.sipbox.assert_no_call_left();
    assert_eq!(lab.pbx.invite("sip:123@lab.test").1.status(), Some(404));
    assert!(lab.east.calls().is_empty());
}

#[test]
fn a_trunk_by_digest_has_its_own_limit_and_strangers_have_none() {
    let mut lab = lab("");
    let answer = proven(&mut lab.shop, "till");
    assert_eq!(answer.status(), Some(200), "{answer}");
    assert_eq!(lab.west.calls().len(), 1);
    let refused = proven(&mut lab.shop, "till");
    assert_eq!(refused.status(), Some(486), "{refused}");
    // The other trunk has its own.
    let dialog = lab.pbx.call(NUMBER);
    lab.pbx.hang_up(dialog);
    // A wrong password, and an account that is no trunk's.
    let (_, challenge) = lab.shop.invite(NUMBER);
    assert_eq!(challenge.status(), Some(407));
    assert!(challenge.get("Proxy-Authenticate").contains("lab.test"));
    lab.shop.user = "stranger".into();
    assert_eq!(proven(&mut lab.shop, "danger").status(), Some(403));
    assert_eq!(lab.west.calls().len(), 1, "the other trunk's");
}

#[test]
fn the_second_gateway_takes_over() {
    let mut lab = lab("");
    for status in [503, 500, SILENT] {
        lab.west.answers(status);
        let dialog = lab.pbx.call(NUMBER);
        assert_eq!((lab.west.calls().len(), lab.east.calls().len()), (1, 1));
        // That of the trunk; west's is free again, and east is not limited.
        assert_eq!(lab.sipbox.statistic("leases:held"), 1);
        lab.pbx.hang_up(dialog);
        lab.sipbox.assert_no_call_left();
    }
    for status in [404, 486, 603] {
        lab.west.answers(status);
        assert_eq!(lab.pbx.invite(NUMBER).1.status(), Some(status));
        assert_eq!((lab.west.calls().len(), lab.east.calls().len()), (1, 0));
    }
    lab.west.answers(503);
    lab.east.answers(500);
    let answer = lab.pbx.invite(NUMBER).1;
    assert_eq!(
        (answer.status(), answer.reason()),
        (Some(503), "No Gateway Left")
    );
    lab.sipbox.assert_no_call_left();
    lab.east.answers(ANSWERS);
}

#[test]
fn who_is_no_trunk_is_refused() {
    let mut lab = lab("");
    let net = Loopback::new();
    let mut stranger = Agent::udp("alice", DOMAIN, net.sip(), lab.sipbox.address);
    assert_eq!(stranger.invite(NUMBER).1.status(), Some(407));
    let options = lab.pbx.request("OPTIONS", "sip:lab.test");
    lab.pbx.send(&options);
    lab.pbx.expect(&options, 200);
    // A To tag opens no way.
    let mut forged = stranger.request("BYE", "sip:493012345@198.51.100.1");
    let to = format!("{};tag=1", forged.get("To"));
    forged.set("To", to);
    stranger.send(&forged);
    let answer = stranger.expect(&forged, 404);
    assert_eq!(answer.reason(), "Not Here");
    assert!(lab.west.calls().is_empty() && lab.east.calls().is_empty());
}

#[test]
fn requests_of_calls_have_to_fit_their_dialog() {
    let mut lab = lab("validate = true");
    let mut dialog = lab.pbx.call(NUMBER);
    let info = dialog.request(&lab.pbx, "INFO");
    lab.pbx.send(&info);
    lab.pbx.expect(&info, 200);
    let mut elsewhere = dialog.clone();
    elsewhere.retarget("sip:somebody@198.51.100.1");
    let astray = elsewhere.request(&lab.pbx, "INFO");
    lab.pbx.send(&astray);
    lab.pbx.expect(&astray, 403);
    lab.pbx.hang_up(dialog);
    lab.sipbox.assert_no_call_left();
}
