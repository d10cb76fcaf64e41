//! Dialogs and leases on the running proxy: `policies/limits` before the residential
//! policy, and the commands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::time::Duration;

use serde_json::{Value, json};
use sipbox_tests::agent::Dialog;
use sipbox_tests::process::wait_until;
use sipbox_tests::random_ends::{Obedient, RandomEnds};
use sipbox_tests::sipbox::{DOMAIN, residential};
use sipbox_tests::{Agent, Loopback, Message, Setup, Sipbox, guest};

/// One tenant whose calls are limited.
fn limited(net: &Loopback, settings: &str) -> Setup {
    chained(net, settings, "", "")
}

/// The same with a policy in between, and with limits of its own.
fn chained(net: &Loopback, settings: &str, between: &str, limits: &str) -> Setup {
    let address = net.sip();
    let toml = format!(
        "[[tenant]]\nname = \"home\"\ndomains = [\"{DOMAIN}\"]\n\
         grants = [\"auth\", \"location\", \"nat\", \"dialogs\", \"leases\"]\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {settings}\n\
         {between}\
         [[tenant.policy]]\nbuiltin = \"residential\"\nsettings = {}\n\
         [tenant.limits]\ncpu = \"100ms\"\n{limits}\n",
        guest::limits().display(),
        residential(DOMAIN, address, "")
    );
    Setup::at(address).tenants(&toml).default_tenant("home")
}

struct Phones {
    sipbox: Sipbox,
    alice: Agent,
    bob: Agent,
}

/// alice and bob behind a proxy that limits calls; bob is registered.
fn phones(settings: &str) -> Phones {
    let net = Loopback::new();
    let sipbox = limited(&net, settings).start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    bob.register("");
    let alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    Phones { sipbox, alice, bob }
}

impl Phones {
    /// What both sides know of an answered call.
    fn call(&mut self) -> (Dialog, Dialog) {
        let invite = self.alice.request("INVITE", "sip:bob@lab.test");
        self.alice.send(&invite);
        let arrived = self.bob.expect_request("INVITE");
        self.bob.respond(&arrived, 180, "Ringing");
        self.alice.expect(&invite, 180);
        let answer = self.bob.respond(&arrived, 200, "OK");
        let response = self.alice.expect(&invite, 200);
        let mut caller = Dialog::of_caller(&invite, &response);
        let ack = caller.request(&self.alice, "ACK");
        self.alice.send(&ack);
        self.bob.expect_request("ACK");
        (caller, Dialog::of_callee(&arrived, &answer))
    }

    fn hang_up(&mut self, caller: &mut Dialog) {
        let bye = caller.request(&self.alice, "BYE");
        self.alice.send(&bye);
        let arrived = self.bob.expect_request("BYE");
        self.bob.respond(&arrived, 200, "OK");
        self.alice.expect(&bye, 200);
    }

    /// Those that are not over: one that is stays for as long as its INVITE's transaction.
    fn dialogs(&self) -> Vec<Value> {
        let list = self.sipbox.rpc("dlg_list", &json!({}));
        let list = list.get("Dialogs").and_then(Value::as_array).unwrap();
        let lives = |dialog: &&Value| dialog.get("state") != Some(&json!(5));
        list.iter().filter(lives).cloned().collect()
    }

    fn assert_nothing_left(&self) {
        self.sipbox.assert_no_call_left();
        wait_until("no dialog is listed", Duration::from_secs(5), || {
            self.dialogs().is_empty()
        });
    }
}

#[test]
fn a_dialog_follows_its_call_and_is_listed() {
    let mut phones = phones("{ user = { calls = 2 }, tenant = 10 }");
    let invite = phones.alice.request("INVITE", "sip:bob@lab.test");
    phones.alice.send(&invite);
    let arrived = phones.bob.expect_request("INVITE");
    let route = arrived.get("Record-Route").to_owned();
    assert!(route.contains(";did="), "{route}");
    assert_eq!(phones.dialogs()[0]["state"], 1);
    phones.bob.respond(&arrived, 180, "Ringing");
    phones.alice.expect(&invite, 180);
    assert_eq!(phones.dialogs()[0]["state"], 2);
    assert_eq!(phones.sipbox.statistic("dialog:early_dialogs"), 1);
    phones.bob.respond(&arrived, 200, "OK");
    let response = phones.alice.expect(&invite, 200);
    assert_eq!(phones.dialogs()[0]["state"], 3);
    let mut caller = Dialog::of_caller(&invite, &response);
    let ack = caller.request(&phones.alice, "ACK");
    phones.alice.send(&ack);
    phones.bob.expect_request("ACK");
    let dialog = phones.dialogs()[0].clone();
    assert_eq!(dialog["state"], 4);
    assert_eq!(dialog["callid"], invite.get("Call-ID"));
    assert_eq!(dialog["from_uri"], "sip:alice@lab.test");
    assert_eq!(dialog["caller_contact"], phones.alice.contact);
    assert_eq!(dialog["CALLEES"][0]["callee_contact"], phones.bob.contact);
    assert_eq!(dialog["leases"][0]["value"], "alice@lab.test");
    assert_eq!(phones.sipbox.statistic("dialog:active_dialogs"), 1);
    assert_eq!(phones.sipbox.statistic("leases:held"), 2);
    let of_call = json!({ "callid": invite.get("Call-ID") });
    let found = phones.sipbox.rpc("dlg_list", &of_call);
    assert_eq!(found["Dialogs"].as_array().unwrap().len(), 1);
    let none = json!({ "callid": "nobody" });
    assert!(phones.sipbox.try_rpc("dlg_list", &none).is_err());

    phones.hang_up(&mut caller);
    phones.assert_nothing_left();
    assert_eq!(phones.sipbox.statistic("dialog:processed_dialogs"), 1);
}

#[test]
fn who_has_as_many_calls_as_allowed_is_refused_until_one_ends() {
    let mut phones = phones("{ user = { calls = 1 } }");
    let (mut caller, _) = phones.call();
    let refused = phones.alice.request("INVITE", "sip:bob@lab.test");
    phones.alice.send(&refused);
    let response = phones.alice.answer_to(&refused, false);
    assert_eq!(response.status(), Some(486), "{response}");
    phones.alice.acknowledge(&refused, &response);
    assert_eq!(phones.dialogs().len(), 1, "the other call goes on");
    phones.hang_up(&mut caller);
    phones.assert_nothing_left();

    // One that fails, and one that is cancelled, take nothing with them.
    let invite = phones.alice.request("INVITE", "sip:bob@lab.test");
    phones.alice.send(&invite);
    let arrived = phones.bob.expect_request("INVITE");
    phones.bob.respond(&arrived, 486, "Busy Here");
    let response = phones.alice.expect(&invite, 486);
    phones.alice.acknowledge(&invite, &response);
    phones.assert_nothing_left();
    let invite = phones.alice.request("INVITE", "sip:bob@lab.test");
    phones.alice.send(&invite);
    let arrived = phones.bob.expect_request("INVITE");
    phones.bob.respond(&arrived, 180, "Ringing");
    phones.alice.expect(&invite, 180);
    let cancel = phones.alice.cancel(&invite);
    phones.alice.send(&cancel);
    phones.alice.expect(&cancel, 200);
    let cancelled = phones.bob.expect_request("CANCEL");
    phones.bob.respond(&cancelled, 200, "OK");
    phones.bob.respond(&arrived, 487, "Request Terminated");
    let response = phones.alice.expect(&invite, 487);
    phones.alice.acknowledge(&invite, &response);
    phones.assert_nothing_left();
    let (mut caller, _) = phones.call();
    phones.hang_up(&mut caller);
    phones.assert_nothing_left();
}

/// What the proxy says in the name of the other side.
fn expect_bye(agent: &mut Agent, within: &Message) -> Message {
    let bye = agent.expect_request("BYE");
    assert_eq!(bye.get("Call-ID"), within.get("Call-ID"));
    agent.respond(&bye, 200, "OK");
    bye
}

#[test]
fn a_command_ends_a_call_with_a_bye_to_both_sides() {
    let mut phones = phones("{ user = { calls = 1 } }");
    let (mut caller, mut callee) = phones.call();
    // Sequence numbers go on from what was seen.
    let info = callee.request(&phones.bob, "INFO");
    phones.bob.send(&info);
    let arrived = phones.alice.expect_request("INFO");
    phones.alice.respond(&arrived, 200, "OK");
    phones.bob.expect(&info, 200);
    let id = phones.dialogs()[0]["ID"].clone();
    let end = json!({ "dialog_id": id, "extra_hdrs": "X-Reason: tired\r\n" });
    assert_eq!(phones.sipbox.rpc("dlg_end_dlg", &end), json!("OK"));
    let bye = expect_bye(&mut phones.alice, &info);
    assert_eq!(bye.get("X-Reason"), "tired");
    let number = |message: &Message| sipbox_tests::agent::cseq(message);
    assert_eq!(number(&bye), number(&info) + 1);
    let next = caller.request(&phones.alice, "INFO");
    let bye = expect_bye(&mut phones.bob, &info);
    assert_eq!(number(&bye), number(&next));
    assert_eq!(bye.request_uri(), phones.bob.contact);
    phones.assert_nothing_left();
    assert!(phones.sipbox.try_rpc("dlg_end_dlg", &end).is_err());
}

#[test]
fn a_call_whose_time_is_over_is_ended() {
    let mut phones = phones("{ user = { calls = 1 }, timeout = 2 }");
    let (caller, _) = phones.call();
    let within = caller.clone().request(&phones.alice, "INFO");
    expect_bye(&mut phones.alice, &within);
    expect_bye(&mut phones.bob, &within);
    phones.assert_nothing_left();
    assert_eq!(phones.sipbox.statistic("dialog:expired_dialogs"), 1);
}

#[test]
fn a_side_that_is_gone_ends_the_call() {
    let mut phones = phones("{ user = { calls = 1 }, ping = 1 }");
    let (caller, _) = phones.call();
    let within = caller.clone().request(&phones.alice, "INFO");
    let ping = phones.alice.expect_request("OPTIONS");
    phones.alice.respond(&ping, 200, "OK");
    let ping = phones.bob.expect_request("OPTIONS");
    phones
        .bob
        .respond(&ping, 481, "Call/Transaction Does Not Exist");
    expect_bye(&mut phones.bob, &within);
    expect_bye(&mut phones.alice, &within);
    phones.assert_nothing_left();
}

#[test]
fn dialogs_and_leases_survive_sudden_death() {
    let mut phones = phones("{ user = { calls = 1 }, source = { calls = 5 } }");
    let (mut caller, mut callee) = phones.call();
    let before = phones.dialogs();
    // Written behind, once it has been answered for a second.
    std::thread::sleep(Duration::from_millis(3500));
    phones.sipbox.kill();
    phones.sipbox.start_again();
    let after = phones.dialogs();
    assert_eq!(after.len(), 1);
    for key in [
        "ID",
        "state",
        "callid",
        "caller_tag",
        "caller_contact",
        "caller_cseq",
        "caller_bind_addr",
        "leases",
        "values",
        "profiles",
        "timestart",
    ] {
        assert_eq!(after[0][key], before[0][key], "{key}");
    }
    for key in ["callee_tag", "callee_contact", "callee_route_set"] {
        let (before, after) = (&before[0]["CALLEES"][0], &after[0]["CALLEES"][0]);
        assert_eq!(before[key], after[key], "{key}");
    }
    assert_eq!(phones.sipbox.statistic("leases:held"), 2);
    // Its requests find it, and it still limits.
    let info = callee.request(&phones.bob, "INFO");
    phones.bob.send(&info);
    let arrived = phones.alice.expect_request("INFO");
    phones.alice.respond(&arrived, 200, "OK");
    phones.bob.expect(&info, 200);
    let refused = phones.alice.request("INVITE", "sip:bob@lab.test");
    phones.alice.send(&refused);
    let response = phones.alice.answer_to(&refused, false);
    assert_eq!(response.status(), Some(486), "{response}");
    phones.alice.acknowledge(&refused, &response);
    phones.hang_up(&mut caller);
    phones.assert_nothing_left();
    // The row has gone as well.
    std::thread::sleep(Duration::from_millis(2500));
    phones.sipbox.kill();
    phones.sipbox.start_again();
    assert!(phones.dialogs().is_empty());
}

#[test]
fn a_policy_that_traps_takes_no_lease_with_it() {
    let net = Loopback::new();
    let hostile = format!(
        "[[tenant.policy]]\ncomponent = \"{}\"\n\
         settings = {{ behaviour = \"panic\", when_user = \"evil\" }}\n",
        guest::hostile().display()
    );
    let sipbox = chained(&net, "{ user = { calls = 1 }, tenant = 5 }", &hostile, "").start();
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    for _ in 0..5 {
        let (_, response) = alice.invite("sip:evil@lab.test");
        assert_eq!(response.status(), Some(503), "{response}");
    }
    sipbox.assert_no_call_left();
    let list = sipbox.rpc("dlg_list", &json!({}));
    assert_eq!(list["Dialogs"], json!([]));
}

#[test]
fn a_tenant_has_a_quota_whatever_its_policies_say() {
    let net = Loopback::new();
    let quota = "calls = 1\ncalls_per_second = 1\n";
    let address = net.sip();
    // No policy counts anything here: the host follows the call by itself.
    let toml = format!(
        "[[tenant]]\nname = \"home\"\ndomains = [\"{DOMAIN}\"]\ngrants = [\"auth\", \"location\", \"nat\", \"dialogs\", \"leases\"]\n\
         [[tenant.policy]]\nbuiltin = \"residential\"\nsettings = {}\n[tenant.limits]\n{quota}",
        residential(DOMAIN, address, "")
    );
    let setup = Setup::at(address).tenants(&toml).default_tenant("home");
    let sipbox = setup.start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    bob.register("");
    let alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let mut phones = Phones { sipbox, alice, bob };
    let (mut caller, _) = phones.call();
    assert_eq!(phones.sipbox.statistic("leases:held"), 1);
    let refused = |phones: &mut Phones| {
        let invite = phones.alice.request("INVITE", "sip:bob@lab.test");
        phones.alice.send(&invite);
        let response = phones.alice.answer_to(&invite, false);
        phones.alice.acknowledge(&invite, &response);
        response.status().unwrap()
    };
    assert_eq!(refused(&mut phones), 486, "too many");
    phones.hang_up(&mut caller);
    assert_eq!(refused(&mut phones), 503, "too fast");
    phones.assert_nothing_left();
    std::thread::sleep(Duration::from_millis(1100));
    let (mut caller, _) = phones.call();
    phones.hang_up(&mut caller);
    phones.assert_nothing_left();
}

#[test]
fn ten_thousand_calls_with_random_ends_leave_no_dialog() {
    let net = Loopback::new();
    let setup = limited(
        &net,
        "{ user = { calls = 100000 }, tenant = 100000, timeout = 5 }",
    );
    let sipbox = setup.start();
    let local = net.sip();
    let mut bob = Agent::udp("bob", DOMAIN, local, sipbox.address);
    bob.register("");
    drop(bob);
    let obedient = Obedient::start("bob", DOMAIN, local, sipbox.address);
    let ends = RandomEnds {
        caller: net.sip(),
        proxy: sipbox.address,
        domain: DOMAIN.to_owned(),
        callee: "bob".to_owned(),
        rate: 400,
        calls: 10_000,
        patience: Duration::from_secs(45),
    }
    .run();
    println!("{ends:?}");
    // Datagrams that a loaded machine loses may leave a phone in the dark, never the proxy.
    assert!(ends.open < 500, "{ends:?}");
    assert_eq!(ends.ended.len(), 8, "{ends:?}");
    assert_eq!(sipbox.statistic("dialog:processed_dialogs"), 10_000);
    sipbox.assert_no_call_left();
    wait_until("no dialog is listed", Duration::from_secs(60), || {
        sipbox.rpc("dlg_list", &json!({}))["Dialogs"] == json!([])
    });
    assert!(sipbox.statistic("dialog:expired_dialogs") > 1000);
    drop(obedient);
}
