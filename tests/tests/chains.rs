//! Chains of three on the running proxy: the order of the hooks, edits seen by the next policy,
//! replies in reverse, variables under declared names, and a policy that goes wrong in the middle.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use sipbox_tests::server::{RINGING, SILENT};
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Message, Server, Setup, Sipbox, guest};

struct Lab {
    sipbox: Sipbox,
    alice: Agent,
    first: Server,
    second: Server,
}

/// Three members of a chain; `middle` is said of the one in the middle.
fn lab(middle: &str) -> Lab {
    let net = Loopback::new();
    let proxy = net.sip();
    let first = Server::start("first", net.sip(), proxy);
    let second = Server::start("second", net.sip(), proxy);
    let policy = |mark: &str, more: &str| {
        format!(
            "[[tenant.policy]]\nname = \"{mark}\"\ncomponent = \"{}\"\n\
             settings = {{ mark = \"{mark}\"{more} }}\n",
            guest::chain().display()
        )
    };
    let to = format!(
        ", to = \"sip:{}\", instead = \"sip:{}\"",
        first.address, second.address
    );
    let toml = format!(
        "[[tenant]]\nname = \"home\"\ndomains = [\"{DOMAIN}\"]\n{}{}{}[tenant.limits]\ncpu = \"100ms\"\n",
        policy("a", ""),
        policy("b", middle),
        policy("c", &to),
    );
    let setup = Setup::at(proxy).tenants(&toml).default_tenant("home");
    let timers = "[timers]\nt1 = \"100ms\"\nb = \"1s\"\n";
    let sipbox = setup.with(timers).start();
    Lab {
        alice: Agent::udp("alice", DOMAIN, net.sip(), proxy),
        sipbox,
        first,
        second,
    }
}

impl Lab {
    fn call(&mut self, user: &str) -> (Message, Message) {
        self.alice.invite(&format!("sip:{user}@{DOMAIN}"))
    }

    fn hang_up(&mut self, invite: &Message, answer: &Message) {
        let dialog = self.alice.begin(invite, answer);
        self.alice.hang_up(dialog);
    }

    fn still_serves(&mut self) {
        let (invite, answer) = self.call("bob");
        assert_eq!(answer.status(), Some(200), "{answer}");
        self.hang_up(&invite, &answer);
    }
}

#[test]
fn requests_pass_in_order_and_replies_in_reverse() {
    let mut lab = lab("");
    let (invite, answer) = lab.call("bob");
    assert_eq!(answer.status(), Some(200));
    let arrived = &lab.first.calls()[0];
    assert_eq!(
        arrived.get("X-Chain"),
        "a,b,c",
        "each sees the edits before it"
    );
    assert_eq!(arrived.get("X-Branch"), "a,b,c");
    assert_eq!(answer.get("X-Replies"), "c,b,a");
    lab.hang_up(&invite, &answer);
    assert!(lab.second.calls().is_empty());
}

#[test]
fn a_variable_is_seen_by_others_under_a_declared_name_only() {
    let mut lab = lab("");
    let (invite, answer) = lab.call("bob");
    let arrived = &lab.first.calls()[0];
    // What was shared, and what it found under a name that nobody declared.
    assert_eq!(
        arrived.values("X-Variables"),
        ["a a -", "b a+b -", "c a+b+c -"]
    );
    // In a later hook each finds its own.
    assert_eq!(answer.values("X-Own"), ["c c", "b b", "a a"]);
    lab.hang_up(&invite, &answer);
}

#[test]
fn a_failure_is_told_in_reverse_until_one_has_another_target() {
    let mut lab = lab("");
    lab.first.answers(503);
    let (invite, answer) = lab.call("bob");
    assert_eq!(answer.status(), Some(200));
    let arrived = &lab.second.calls()[0];
    assert_eq!(arrived.get("X-Failures"), "c", "the others are not asked");
    assert_eq!(arrived.get("X-Chain"), "a,b,c");
    assert_eq!(answer.get("X-Replies"), "c,b,a");
    lab.hang_up(&invite, &answer);
    // Where it fails as well the other two are asked, and the best response goes on.
    lab.second.answers(486);
    let (_, answer) = lab.call("bob");
    assert_eq!(answer.status(), Some(486));
    assert_eq!(answer.get("X-Replies"), "c,b,a");
}

#[test]
fn a_trap_in_the_middle_ends_the_chain_with_503() {
    let mut lab = lab(", trap = \"request\"");
    let (_, answer) = lab.call("trap");
    assert_eq!(answer.status(), Some(503));
    assert_eq!(
        answer.get("Warning"),
        "399 sipbox \"policy failed: trap\"",
        "{answer}"
    );
    // Neither what the first one did counts, nor is the last one asked.
    assert!(answer.header("X-Replies").is_none(), "no hook is armed");
    assert!(lab.first.calls().is_empty());
    lab.sipbox.logged("b was told to");
    lab.still_serves();
}

#[test]
fn a_trap_at_a_branch_drops_that_branch() {
    let mut lab = lab(", trap = \"branch\"");
    let (_, answer) = lab.call("trap");
    assert!(answer.status() >= Some(400), "{answer}");
    assert!(lab.first.calls().is_empty());
    lab.still_serves();
}

#[test]
fn a_trap_at_a_reply_lets_it_pass_as_the_ones_behind_left_it() {
    let mut lab = lab(", trap = \"reply\"");
    let (invite, answer) = lab.call("trap");
    assert_eq!(answer.status(), Some(200));
    assert_eq!(answer.get("X-Replies"), "c", "neither b's edits nor a's");
    lab.hang_up(&invite, &answer);
    lab.still_serves();
}

#[test]
fn a_trap_at_a_failure_lets_the_best_response_go_on() {
    // The last one has no other target to offer.
    let mut lab = lab(", trap = \"failure\"");
    lab.first.answers(503);
    lab.second.answers(486);
    let (_, answer) = lab.call("trap");
    // c went on to the second, where it failed; b is told of that and goes wrong.
    assert_eq!(answer.status(), Some(486), "{answer}");
    lab.sipbox.logged("b was told to");
    lab.first.answers(200);
    lab.still_serves();
}

#[test]
fn within_a_dialog_a_trap_relays_the_request_as_it_came() {
    let mut lab = lab(", trap = \"dialog\"");
    let (invite, answer) = lab.call("bob");
    assert_eq!(answer.status(), Some(200), "{answer}");
    lab.hang_up(&invite, &answer);
    lab.sipbox.logged("b was told to");
}

/// The shipped ones: what phones behind NAT call through a limit to servers.
#[test]
fn nat_limits_and_load_balancer_make_a_chain() {
    let net = Loopback::new();
    let proxy = net.sip();
    let first = Server::start("first", net.sip(), proxy);
    let second = Server::start("second", net.sip(), proxy);
    let toml = format!(
        "[[tenant]]\nname = \"home\"\ndomains = [\"{DOMAIN}\"]\n\
         grants = [\"nat\", \"dialogs\", \"leases\", \"counters\"]\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {{ tests = [\"loopback\"] }}\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {{ user = {{ calls = 1 }}, timeout = 60 }}\n\
         [[tenant.policy]]\ncomponent = \"{}\"\n\
         settings = {{ targets = [{{ uri = \"sip:{}\", max_calls = 9, priority = 1 }}, \
         {{ uri = \"sip:{}\", max_calls = 9 }}] }}\n[tenant.limits]\ncpu = \"100ms\"\n",
        guest::nat().display(),
        guest::limits().display(),
        guest::load_balancer().display(),
        first.address,
        second.address,
    );
    let setup = Setup::at(proxy).tenants(&toml).default_tenant("home");
    let sipbox = setup.with("[timers]\nt1 = \"100ms\"\nb = \"1s\"\n").start();
    let mut lab = Lab {
        alice: Agent::udp("alice", DOMAIN, net.sip(), proxy),
        sipbox,
        first,
        second,
    };
    lab.first.answers(SILENT);
    let (invite, answer) = lab.call("bob");
    assert_eq!(answer.status(), Some(200), "{answer}");
    let arrived = &lab.second.calls()[0];
    let route = arrived.get("Record-Route");
    assert!(
        route.contains(";nat=yes") && route.contains(";did="),
        "{route}"
    );
    assert!(
        arrived.get("Contact").contains(";org="),
        "mended: {arrived}"
    );
    // One of the user, one of the second target.
    assert_eq!(lab.sipbox.statistic("leases:held"), 2);
    let (_, refused) = lab.call("bob");
    assert_eq!(refused.status(), Some(486));
    lab.hang_up(&invite, &answer);
    lab.sipbox.assert_no_call_left();
    let dialogs = lab.sipbox.statistic("dialog:processed_dialogs");
    assert_eq!(dialogs, 1, "limits and balancer share it");
    lab.first.answers(RINGING);
}
