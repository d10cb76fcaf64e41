//! `dialog-hook` on the running proxy: a guest that follows calls writes down what it is
//! told of them, in the order in which it is told.
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
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Message, Setup, Sipbox, guest};

struct Phones {
    sipbox: Sipbox,
    bob: Agent,
    net: Loopback,
}

/// A proxy that sends calls to bob and follows them; `more` tenants beside it.
fn phones(settings: &str, more: &str) -> Phones {
    let net = Loopback::new();
    let address = net.sip();
    let bob = Agent::udp("bob", DOMAIN, net.sip(), address);
    let tenant = format!(
        "[[tenant]]\nname = \"home\"\ndomains = [\"{DOMAIN}\"]\n\
         grants = [\"dialogs\", \"leases\", \"kv\"]\n\
         [tenant.limits]\ncpu = \"400ms\"\ncpu_budget = \"4s\"\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {{ to = \"sip:{}\"{settings} }}\n{more}",
        guest::dialogs().display(),
        bob.link.local(),
    );
    let setup = Setup::at(address).tenants(&tenant).workers(2);
    let sipbox = setup.default_tenant("home").start();
    Phones { sipbox, bob, net }
}

impl Phones {
    fn alice(&self) -> Agent {
        Agent::udp("alice", DOMAIN, self.net.sip(), self.sipbox.address)
    }

    fn ring(&mut self, alice: &mut Agent) -> (Message, Message) {
        let invite = alice.request("INVITE", "sip:bob@lab.test");
        alice.send(&invite);
        (invite, self.bob.expect_request("INVITE"))
    }

    /// What both sides know of an answered call.
    fn call(&mut self, alice: &mut Agent) -> (Message, Dialog) {
        let (invite, arrived) = self.ring(alice);
        self.bob.respond(&arrived, 200, "OK");
        let response = alice.expect(&invite, 200);
        let mut caller = Dialog::of_caller(&invite, &response);
        let ack = caller.request(alice, "ACK");
        alice.send(&ack);
        self.bob.expect_request("ACK");
        (invite, caller)
    }

    fn hang_up(&mut self, alice: &mut Agent, caller: &mut Dialog) {
        let bye = caller.request(alice, "BYE");
        alice.send(&bye);
        let arrived = self.bob.expect_request("BYE");
        self.bob.respond(&arrived, 200, "OK");
        alice.expect(&bye, 200);
    }

    /// What the guest wrote down.
    fn written(&self, what: &str, invite: &Message) -> String {
        let key = format!("{what}:{}", invite.get("Call-ID"));
        let params = json!({ "system": "home", "attr": key });
        let found = self.sipbox.try_rpc("cache_fetch", &params);
        let value = found.ok().and_then(|found| found.get("value").cloned());
        let value = value.unwrap_or_default();
        value.as_str().unwrap_or_default().to_owned()
    }

    fn assert_told(&self, invite: &Message, expected: &str) {
        let count = |text: &str| text.split(", ").count();
        wait_until(expected, Duration::from_secs(60), || {
            let told = self.written("told", invite);
            !told.is_empty() && count(&told) >= count(expected)
        });
        assert_eq!(self.written("told", invite), expected);
    }
}

#[test]
fn a_call_is_told_from_its_beginning_to_its_bye() {
    let mut phones = phones("", "");
    let mut alice = phones.alice();
    let (invite, mut caller) = phones.call(&mut alice);
    phones.assert_told(&invite, "created, confirmed");
    phones.hang_up(&mut alice, &mut caller);
    phones.assert_told(&invite, "created, confirmed, ended Downstream BYE");
    // Whose call it was, and the variable that `on-request` gave the dialog.
    let tag = |message: &Message, name| message.tag(name).unwrap_or_default().to_owned();
    let bye = caller.request(&alice, "BYE");
    let expected = format!(
        "alice sip:alice@{DOMAIN} {} sip:bob@{DOMAIN} {}",
        tag(&bye, "From"),
        tag(&bye, "To")
    );
    assert_eq!(phones.written("of", &invite), expected);
}

#[test]
fn a_call_that_fails_and_one_that_is_cancelled_are_told() {
    let mut phones = phones("", "");
    let mut alice = phones.alice();
    let (invite, arrived) = phones.ring(&mut alice);
    phones.bob.respond(&arrived, 486, "Busy Here");
    let response = alice.expect(&invite, 486);
    alice.acknowledge(&invite, &response);
    phones.bob.expect_request("ACK");
    phones.assert_told(&invite, "created, failed 486");

    let (invite, arrived) = phones.ring(&mut alice);
    phones.bob.respond(&arrived, 180, "Ringing");
    alice.expect(&invite, 180);
    let cancel = alice.cancel(&invite);
    alice.send(&cancel);
    alice.expect(&cancel, 200);
    let cancelled = phones.bob.expect_request("CANCEL");
    phones.bob.respond(&cancelled, 200, "OK");
    phones.bob.respond(&arrived, 487, "Request Terminated");
    let response = alice.expect(&invite, 487);
    alice.acknowledge(&invite, &response);
    phones.assert_told(&invite, "created, failed 487");
}

#[test]
fn a_call_whose_time_is_over_and_one_that_is_ended_by_command_are_told() {
    let mut phones = phones(", timeout = 1", "");
    let mut alice = phones.alice();
    let (invite, _) = phones.call(&mut alice);
    for agent in [&mut alice, &mut phones.bob] {
        let bye = agent.expect_request("BYE");
        agent.respond(&bye, 200, "OK");
    }
    phones.assert_told(&invite, "created, confirmed, timed out");

    // This one has time.
    let mut phones = self::phones("", "");
    let mut alice = phones.alice();
    let (invite, _) = phones.call(&mut alice);
    let of_call = json!({ "callid": invite.get("Call-ID") });
    let found: Value = phones.sipbox.rpc("dlg_list", &of_call);
    let end = json!({ "dialog_id": found["Dialogs"][0]["ID"] });
    assert_eq!(phones.sipbox.rpc("dlg_end_dlg", &end), json!("OK"));
    for agent in [&mut alice, &mut phones.bob] {
        let bye = agent.expect_request("BYE");
        agent.respond(&bye, 200, "OK");
    }
    phones.assert_told(&invite, "created, confirmed, ended MI Termination");
}

/// A worker is told for long that a dialog was created; the other one hears meanwhile that
/// it was answered and is over.
#[test]
fn what_happens_while_something_is_told_is_told_behind_it() {
    let mut phones = phones(", slow = 5000000", "");
    for _ in 0..5 {
        let mut alice = phones.alice();
        let (invite, mut caller) = phones.call(&mut alice);
        phones.hang_up(&mut alice, &mut caller);
        phones.assert_told(&invite, "created, confirmed, ended Downstream BYE");
    }
}

/// Beside another tenant, one whose policy takes long is told by a worker of its own, which
/// makes way for everybody.
#[test]
fn a_confined_tenant_is_told_in_order_as_well() {
    let other = "[[tenant]]\nname = \"other\"\ndomains = [\"other.test\"]\n";
    let mut phones = phones(", slow = 20000000", other);
    let mut alice = phones.alice();
    for _ in 0..2 {
        let (invite, mut caller) = phones.call(&mut alice);
        phones.hang_up(&mut alice, &mut caller);
        phones.assert_told(&invite, "created, confirmed, ended Downstream BYE");
        phones.sipbox.logged("calls run long");
    }
}
