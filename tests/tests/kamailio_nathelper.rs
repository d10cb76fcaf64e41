//! Kamailio's nathelper as an oracle: the same requests in, the same facts about their source
//! and the same mended messages out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::net::SocketAddr;

use sipbox_tests::kamailio::{Kamailio, Observed, compare};
use sipbox_tests::message::uri;
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Message, Setup, guest};

const MODULES: [&str; 7] = ["tm", "sl", "rr", "pv", "textops", "siputils", "nathelper"];
/// The numbers of nat_uac_test that both have, under our names.
const TESTS: [(u32, &str); 7] = [
    (1, "private-contact"),
    (2, "diff-ip-src-via"),
    (4, "private-via"),
    (8, "private-sdp"),
    (16, "diff-port-src-via"),
    (32, "private-source"),
    (128, "diff-port-src-contact"),
];

fn routes() -> String {
    let mut text = String::from(
        "request_route {\n    if (is_method(\"OPTIONS\")) { sl_send_reply(\"200\", \"OK\"); exit; }\n",
    );
    for (number, name) in TESTS {
        text.push_str(&format!(
            "    if (nat_uac_test(\"{number}\")) {{ append_hf(\"X-Fact: {name}\\r\\n\"); }}\n"
        ));
    }
    text.push_str(
        "    force_rport();\n    fix_nated_contact();\n    if (has_body()) { fix_nated_sdp(\"10\"); }\n    t_relay();\n}\n",
    );
    text
}

fn session(address: &str) -> String {
    format!(
        "v=0\r\no=alice 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n\
         m=audio 4000 RTP/AVP 0\r\n"
    )
}

/// A request, by what stands in its Via, Contact and session description. `%` stands for
/// where it comes from.
struct Case {
    what: &'static str,
    via: &'static str,
    contact: &'static str,
    media: Option<&'static str>,
}

const CASES: [Case; 12] = [
    Case {
        what: "public",
        via: "%",
        contact: "<sip:alice@%>",
        media: None,
    },
    Case {
        what: "private Via",
        via: "10.0.0.7:5060",
        contact: "<sip:alice@%>",
        media: None,
    },
    Case {
        what: "172.16/12",
        via: "172.31.255.1",
        contact: "<sip:alice@172.32.0.1>",
        media: None,
    },
    Case {
        what: "192.168/16",
        via: "192.168.9.9:5070",
        contact: "<sip:alice@192.168.9.9:5070>",
        media: None,
    },
    Case {
        what: "private Contact",
        via: "%",
        contact: "\"Alice\" <sip:alice@10.1.2.3:5070>;q=0.5",
        media: None,
    },
    Case {
        what: "carrier's Contact",
        via: "%",
        contact: "<sip:alice@100.64.3.3>",
        media: None,
    },
    Case {
        what: "above 100.64/10",
        via: "%",
        contact: "<sip:alice@100.128.0.1>",
        media: None,
    },
    Case {
        what: "another public Via",
        via: "198.51.100.3:5060",
        contact: "<sip:alice@%>",
        media: None,
    },
    Case {
        what: "parameters of the Contact",
        via: "%",
        contact: "<sip:alice@192.168.1.4:5090;ob;x=y>;+sip.instance=\"a\"",
        media: None,
    },
    Case {
        what: "private media",
        via: "%",
        contact: "<sip:alice@%>",
        media: Some("192.168.1.4"),
    },
    Case {
        what: "public media",
        via: "%",
        contact: "<sip:alice@%>",
        media: Some("198.51.100.9"),
    },
    Case {
        what: "private all over",
        via: "10.0.0.7",
        contact: "<sip:alice@10.0.0.7>",
        media: Some("10.0.0.7"),
    },
];

/// What comes out: facts, Contact, addresses of the body, and whether the answer found its way.
fn observed(net: &Loopback, proxy: SocketAddr) -> Observed {
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), proxy);
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), proxy);
    let source = alice.link.local().to_string();
    let target = bob.contact.clone();
    CASES
        .iter()
        .map(|case| {
            let mut request = alice.request("MESSAGE", &target);
            let branch = request.branch();
            let via = case.via.replace('%', &source);
            // Without `rport`: the sender does not ask where the answer goes.
            request.set("Via", format!("SIP/2.0/UDP {via};branch={branch}"));
            request.set("Contact", case.contact.replace('%', &source));
            if let Some(address) = case.media {
                request = request.with_body("application/sdp", session(address));
            }
            alice.send(&request);
            let got = bob.expect_request("MESSAGE");
            bob.respond(&got, 200, "OK");
            alice.expect(&request, 200);
            (case.what, shown(&got, &source))
        })
        .collect()
}

fn shown(got: &Message, source: &str) -> String {
    let (address, _) = source.rsplit_once(':').unwrap();
    let named = |text: &str| text.replace(source, "%").replace(address, "%IP");
    let mut facts = got.values("X-Fact");
    facts.sort_unstable();
    let body = String::from_utf8_lossy(&got.body);
    let media: Vec<String> = body
        .lines()
        .filter(|line| line.starts_with("o=") || line.starts_with("c="))
        .map(named)
        .collect();
    let contact = got.get("Contact");
    let params = contact.split_once('>').map_or("", |(_, params)| params);
    format!("{facts:?} {}{params} {media:?}", named(uri(contact)))
}

/// Where Kamailio does something else, and why we do not.
const DIFFERENCES: &[(&str, &str)] = &[];

#[test]
fn sources_are_judged_and_messages_mended_as_kamailio_does_it() {
    let net = Loopback::new();
    let kamailio = Kamailio::start(net.sip(), &MODULES, &routes());
    let theirs = observed(&net, kamailio.address);
    let tenant = format!(
        "[[tenant]]\nname = \"home\"\ndomains = [\"{DOMAIN}\"]\ngrants = [\"nat\", \"dialogs\"]\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {{ module = \"nathelper\" }}\n",
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
