//! Kamailio's dialog module as an oracle: the same calls through both, the same states on the
//! way, and the same requests at the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::time::Duration;

use sipbox_tests::agent::Dialog;
use sipbox_tests::kamailio::{Kamailio, Observed, compare};
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Message, Setup, guest};

const MODULES: [&str; 7] = ["tm", "sl", "rr", "pv", "textops", "siputils", "dialog"];
const ROUTES: &str = r#"
modparam("dialog", "enable_stats", 1)
modparam("dialog", "send_bye", 1)
modparam("dialog", "default_timeout", 43200)
modparam("dialog", "timeout_avp", "$avp(timeout)")
request_route {
    if (has_totag()) {
        if (loose_route()) {
            if ($DLG_status != $null) {
                append_hf("X-State: $DLG_status\r\n");
            } else {
                append_hf("X-State: none\r\n");
            }
            if ($hdr(X-End) != $null) { dlg_bye("all"); }
            t_relay();
            exit;
        }
        if (!is_method("ACK")) { sl_send_reply("404", "Not Here"); }
        exit;
    }
    if (is_method("CANCEL")) { t_relay(); exit; }
    if (is_method("INVITE")) {
        if ($hdr(X-Timeout) != $null) { $avp(timeout) = $(hdr(X-Timeout){s.int}); }
        dlg_manage();
    }
    record_route();
    t_relay();
}
"#;

struct Stage {
    alice: Agent,
    bob: Agent,
}

/// A call that has been answered.
struct Call {
    caller: Dialog,
    callee: Dialog,
    invite: Message,
    ok: Message,
}

impl Stage {
    fn new(net: &Loopback, proxy: SocketAddr) -> Self {
        let udp = |user: &str| Agent::udp(user, DOMAIN, net.sip(), proxy);
        Self {
            alice: udp("alice"),
            bob: udp("bob"),
        }
    }

    /// Alice calls Bob, who answers; the ACK is not sent yet.
    fn answered(&mut self, timeout: Option<u32>) -> Call {
        let mut invite = self.alice.request("INVITE", &self.bob.contact.clone());
        if let Some(timeout) = timeout {
            invite = invite.with("X-Timeout", timeout);
        }
        self.alice.send(&invite);
        let arrived = self.bob.expect_request("INVITE");
        self.bob.respond(&arrived, 180, "Ringing");
        self.alice.expect(&invite, 180);
        let answer = self.bob.respond(&arrived, 200, "OK");
        let ok = self.alice.expect(&invite, 200);
        Call {
            caller: Dialog::of_caller(&invite, &ok),
            callee: Dialog::of_callee(&arrived, &answer),
            invite,
            ok,
        }
    }

    fn acknowledge(&mut self, call: &mut Call) {
        let ack = call.caller.request(&self.alice, "ACK");
        self.alice.send(&ack);
        self.bob.expect_request("ACK");
    }

    /// The state that the proxy has of the dialog of a request that goes through it.
    fn state(&mut self, call: &mut Call, upstream: bool, method: &str) -> String {
        let (from, to, dialog) = if upstream {
            (&mut self.bob, &mut self.alice, &mut call.callee)
        } else {
            (&mut self.alice, &mut self.bob, &mut call.caller)
        };
        let request = dialog.request(from, method);
        from.send(&request);
        let got = to.expect_request(method);
        to.respond(&got, 200, "OK");
        from.expect(&request, 200);
        got.get("X-State").to_owned()
    }

    /// The BYEs of the proxy itself: who gets one, whether its Request-URI is the agent's own
    /// Contact, whether the tags are those of the call, and whether Route is empty.
    ///
    /// Nobody answers before both have arrived: to Kamailio a dialog is over with the first 200,
    /// and if that overtakes the second BYE, it is never sent ("terminating non-confirmed dialogs
    /// not supported").
    fn byes(&mut self, call: &Call) -> Vec<String> {
        let tags = (call.invite.tag("From"), call.ok.tag("To"));
        let id = call.invite.get("Call-ID");
        let arrived = [&mut self.alice, &mut self.bob].map(|agent| {
            loop {
                let bye = agent.expect_request("BYE");
                if bye.get("Call-ID") == id {
                    break bye;
                }
                // One of the call before came once more.
                agent.respond(&bye, 200, "OK");
            }
        });
        let mut byes = Vec::new();
        for (agent, bye, ours, theirs) in [
            (&mut self.alice, &arrived[0], &tags.0, &tags.1),
            (&mut self.bob, &arrived[1], &tags.1, &tags.0),
        ] {
            agent.respond(bye, 200, "OK");
            byes.push(format!(
                "{}: contact {} to {} from {} routes {}",
                agent.user,
                bye.request_uri() == agent.contact,
                bye.tag("To") == *ours,
                bye.tag("From") == *theirs,
                bye.values("Route").len(),
            ));
        }
        byes
    }
}

/// Everything that is compared, with what it is.
fn observed(net: &Loopback, proxy: SocketAddr) -> Observed {
    let mut seen: Observed = Vec::new();
    let mut note = |what, result: &dyn std::fmt::Debug| seen.push((what, format!("{result:?}")));

    let mut stage = Stage::new(net, proxy);
    let mut call = stage.answered(None);
    note("before the ACK", &stage.state(&mut call, true, "INFO"));
    stage.acknowledge(&mut call);
    note("after the ACK", &stage.state(&mut call, false, "INFO"));
    note("from the callee", &stage.state(&mut call, true, "UPDATE"));
    note("in the BYE", &stage.state(&mut call, true, "BYE"));
    note("after the BYE", &stage.state(&mut call, false, "INFO"));

    let mut call = stage.answered(None);
    stage.acknowledge(&mut call);
    let end = call
        .caller
        .request(&stage.alice, "INFO")
        .with("X-End", "now");
    stage.alice.send(&end);
    let info = stage.bob.expect_request("INFO");
    stage.bob.respond(&info, 200, "OK");
    note("ended from the middle", &stage.byes(&call));

    let mut call = stage.answered(Some(2));
    stage.acknowledge(&mut call);
    note("its time is over", &stage.byes(&call));
    std::thread::sleep(Duration::from_millis(500));
    note("after its time", &stage.state(&mut call, false, "INFO"));
    seen
}

/// Where Kamailio does something else, and why we do not.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "in the BYE",
        "a BYE ends the dialog when it is answered: the call counts until the other side has heard",
    ),
    (
        "after its time",
        "a dialog that is over is known for as long as the transaction of its INVITE, for a late 2xx",
    ),
];

#[test]
fn dialogs_live_and_end_as_kamailio_has_them() {
    let net = Loopback::new();
    let kamailio = Kamailio::start(net.sip(), &MODULES, ROUTES);
    let theirs = observed(&net, kamailio.address);
    let tenant = format!(
        "[[tenant]]\nname = \"home\"\ndomains = [\"{DOMAIN}\"]\ngrants = [\"nat\", \"dialogs\"]\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {{ module = \"dialog\" }}\n",
        guest::mirror().display()
    );
    let net = Loopback::new();
    let sipbox = Setup::new(&net)
        .tenants(&tenant)
        .default_tenant("home")
        .start();
    let ours = observed(&net, sipbox.address);
    compare(&theirs, &ours, DIFFERENCES);
}
