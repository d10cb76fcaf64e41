//! Kamailio's rr module as an oracle: the same requests in, the same routing out.
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
use sipbox_tests::{Agent, Loopback, Message, Setup, Sipbox, guest};

const MODULES: [&str; 6] = ["tm", "sl", "rr", "pv", "textops", "siputils"];
const ROUTES: &str = r#"
modparam("rr", "append_fromtag", 1)
modparam("rr", "enable_double_rr", 1)
request_route {
    if (has_totag()) {
        if (loose_route()) {
            if (check_route_param("nat=yes")) { append_hf("X-Nat: yes\r\n"); }
            if (is_direction("downstream")) { append_hf("X-Direction: downstream\r\n"); }
            t_relay();
            exit;
        }
        if (!is_method("ACK")) { sl_send_reply("404", "Not Here"); }
        exit;
    }
    if (loose_route()) {
        sl_send_reply("403", "Preload Route denied");
        exit;
    }
    add_rr_param(";nat=yes");
    record_route();
    t_relay();
}
"#;

/// A proxy that record-routes with `;nat=yes` and lets dialogs follow their routes.
enum Proxy {
    Sipbox(Sipbox),
    Kamailio(Kamailio),
}

impl Proxy {
    fn sipbox(net: &Loopback) -> Self {
        let tenant = format!(
            "[[tenant]]\nname = \"home\"\ndomains = [\"{DOMAIN}\"]\n\
             grants = [\"auth\", \"location\", \"nat\", \"dialogs\", \"leases\"]\n\
             [[tenant.policy]]\ncomponent = \"{}\"\n\
             settings = {{ add = [[\"nat\", \"yes\"]], record = [] }}\n",
            guest::record_route().display()
        );
        let setup = Setup::new(net).tenants(&tenant).default_tenant("home");
        Self::Sipbox(setup.start())
    }

    fn kamailio(net: &Loopback) -> Self {
        Self::Kamailio(Kamailio::start(net.sip(), &MODULES, ROUTES))
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Sipbox(sipbox) => sipbox.address,
            Self::Kamailio(kamailio) => kamailio.address,
        }
    }
}

/// Everybody who may get a request, and the proxy between.
struct Stage {
    proxy: Proxy,
    alice: Agent,
    bob: Agent,
    /// Over TCP.
    carol: Agent,
    /// A router between.
    dave: Agent,
}

/// What comes out, with addresses by name: who got it, Request-URI, Route values, and what the
/// proxy knew of it.
type Routing = (String, String, Vec<String>, Vec<String>);

impl Stage {
    fn new(net: &Loopback, proxy: Proxy) -> Self {
        let at = proxy.address();
        let udp = |user: &str| Agent::udp(user, DOMAIN, net.sip(), at);
        Self {
            alice: udp("alice"),
            bob: udp("bob"),
            carol: Agent::tcp("carol", DOMAIN, net.ip(), at),
            dave: udp("dave"),
            proxy,
        }
    }

    fn agent(&mut self, name: &str) -> &mut Agent {
        match name {
            "alice" => &mut self.alice,
            "bob" => &mut self.bob,
            "carol" => &mut self.carol,
            _ => &mut self.dave,
        }
    }

    /// The text with names for addresses, and without the parameters that are each proxy's own.
    fn named(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for agent in [&self.alice, &self.bob, &self.carol, &self.dave] {
            text = text.replace(&agent.link.local().to_string(), &agent.user);
        }
        let at = self.proxy.address();
        text = text
            .replace(&at.to_string(), "proxy")
            .replace(&at.ip().to_string(), "proxy");
        let Some((head, tail)) = text.split_once(';') else {
            return text;
        };
        let (tail, end) = tail
            .strip_suffix('>')
            .map_or((tail, ""), |tail| (tail, ">"));
        let mut params: Vec<&str> = tail
            .split(';')
            .filter(|param| !param.starts_with("sig=") && !param.starts_with("ftag="))
            .collect();
        params.sort_unstable();
        format!("{head};{}{end}", params.join(";"))
    }

    /// Who of these gets the request that `from` sends, and what it looks like then. A final
    /// answer of the proxy's own is its status.
    fn routed(&mut self, from: &str, request: &Message) -> Routing {
        self.agent(from).send(request);
        for _ in 0..60 {
            for to in ["alice", "bob", "carol", "dave"] {
                let pause = Duration::from_millis(20);
                let Some(got) = self.agent(to).link.receive(pause) else {
                    continue;
                };
                match got.status() {
                    Some(status) if status < 200 => continue,
                    Some(status) => return (to.into(), status.to_string(), vec![], vec![]),
                    None => {}
                }
                if request.method() != "ACK" {
                    self.agent(to).respond(&got, 200, "OK");
                    self.agent(from).expect(request, 200);
                }
                let routes = got.values("Route");
                let routes = routes.iter().map(|route| self.named(route)).collect();
                let known = ["X-Nat", "X-Direction"];
                let mut facts: Vec<String> = known
                    .iter()
                    .filter_map(|name| got.header(name).map(str::to_owned))
                    .collect();
                if let Some(told) = got.header("X-Route") {
                    facts.extend(told.contains(" matches").then(|| "yes".to_owned()));
                    facts.extend(told.contains("downstream").then(|| "downstream".to_owned()));
                }
                return (to.into(), self.named(got.request_uri()), routes, facts);
            }
        }
        ("nobody".into(), String::new(), vec![], vec![])
    }

    /// Alice calls somebody; both sides of the dialog, and the Record-Route that was written.
    fn call(&mut self, callee: &str) -> (Dialog, Dialog, Vec<String>) {
        let target = self.agent(callee).contact.clone();
        let invite = self.alice.request("INVITE", &target);
        self.alice.send(&invite);
        let arrived = self.agent(callee).expect_request("INVITE");
        let answer = self.agent(callee).respond(&arrived, 200, "OK");
        let ok = self.alice.expect(&invite, 200);
        let mut caller = Dialog::of_caller(&invite, &ok);
        let ack = caller.request(&self.alice, "ACK");
        self.alice.send(&ack);
        self.agent(callee).expect_request("ACK");
        let recorded = arrived.values("Record-Route");
        let named = recorded.iter().map(|value| self.named(value)).collect();
        (caller, Dialog::of_callee(&arrived, &answer), named)
    }
}

/// Everything that is compared, with what it is.
fn observed(net: &Loopback, proxy: Proxy) -> Observed {
    let mut stage = Stage::new(net, proxy);
    let mut seen: Observed = Vec::new();
    let mut note = |what, result: &dyn std::fmt::Debug| seen.push((what, format!("{result:?}")));

    for (callee, [written, down, up]) in [
        (
            "bob",
            [
                "Record-Route over UDP",
                "downstream over UDP",
                "upstream over UDP",
            ],
        ),
        (
            "carol",
            [
                "Record-Route to TCP",
                "downstream to TCP",
                "upstream from TCP",
            ],
        ),
    ] {
        let (mut caller, mut other, recorded) = stage.call(callee);
        note(written, &recorded);
        for method in ["INFO", "BYE"] {
            let request = caller.request(&stage.alice, method);
            note(down, &stage.routed("alice", &request));
            let agent = stage.agent(callee);
            let request = other.request(agent, method);
            note(up, &stage.routed(callee, &request));
        }
    }

    // Routes behind ours: a loose router and a strict one.
    let (mut caller, ..) = stage.call("bob");
    let dave = stage.dave.link.local();
    for (what, next) in [
        ("a loose next hop", format!("<sip:{dave};lr>")),
        ("a strict next hop", format!("<sip:{dave}>")),
    ] {
        let request = caller.request(&stage.alice, "INFO").with("Route", next);
        note(what, &stage.routed("alice", &request));
    }

    // A strict router in front, for one value and for a pair.
    for (what, callee) in [
        ("a strict router", "bob"),
        ("a strict router and a pair", "carol"),
    ] {
        let (mut caller, ..) = stage.call(callee);
        let mut request = caller.request(&stage.alice, "INFO");
        let mut routes = request.values("Route");
        let ours = routes.remove(0);
        routes.push(format!("<{}>", request.request_uri()));
        request.set("Route", routes.join(", "));
        request.set_request_uri(ours.trim_matches(['<', '>']));
        note(what, &stage.routed("alice", &request));
    }

    // In a dialog without a route of ours.
    let (mut caller, ..) = stage.call("bob");
    let mut request = caller.request(&stage.alice, "INFO");
    request.headers.retain(|(name, _)| name != "Route");
    note("no route", &stage.routed("alice", &request));

    // Initial requests.
    let at = stage.proxy.address();
    for (what, route) in [
        ("a route to us", format!("<sip:{at};lr>")),
        ("two routes to us", format!("<sip:{at};lr>, <sip:{at};lr>")),
        ("a route to others", format!("<sip:{dave};lr>")),
        (
            "a route to us and others",
            format!("<sip:{at};lr>, <sip:{dave};lr>"),
        ),
    ] {
        let target = stage.bob.contact.clone();
        let request = stage.alice.request("MESSAGE", &target).with("Route", route);
        note(what, &stage.routed("alice", &request));
    }
    seen
}

/// Where Kamailio does something else, and why we do not.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "no route",
        "the policy of this test leaves what has no route to the host, which follows the Request-URI",
    ),
    (
        "two routes to us",
        "OpenSIPS takes all of its own off an initial request, Kamailio the first only",
    ),
];

#[test]
fn requests_are_routed_as_kamailio_routes_them() {
    let net = Loopback::new();
    let theirs = observed(&net, Proxy::kamailio(&net));
    let net = Loopback::new();
    let ours = observed(&net, Proxy::sipbox(&net));
    compare(&theirs, &ours, DIFFERENCES);
}
