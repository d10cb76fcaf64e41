//! The same policy in Rust, in C and in TypeScript, on the running proxy: what goes over the wire is
//! the same byte for byte, settings are refused with what is wrong with them, and what goes wrong in
//! a hook arrives in the log while the fallback answers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::net::SocketAddr;

use sipbox_tests::guest::LANGUAGES;
use sipbox_tests::sipbox::{DOMAIN, cli};
use sipbox_tests::{Agent, Loopback, Message, Setup, guest, process};

const SETTINGS: &str = r#"{ country_code = "49", international_prefixes = ["00", "0011"],
    remove_headers = ["P-Preferred-Identity", "Via"],
    set_headers = [{ name = "X-Trunk", value = "north; q=1" }, { name = "Privacy", value = "none" }],
    blocked_callers = ["+49900*", "+1"], blocked_callees = ["+441*", "+4930666", "119"],
    reason = "Not From Here", count_header = "X-Provisional" }"#;

fn setup(address: SocketAddr, language: &str, settings: &str, next_hop: SocketAddr) -> Setup {
    // TOML's inline tables stand on one line.
    let settings = settings
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ");
    let tenant = format!(
        "[[tenant]]\nname = \"home\"\ndomains = [\"{DOMAIN}\"]\n\
         [tenant.limits]\ncpu = \"200ms\"\n\
         [[tenant.policy]]\nname = \"screen\"\ncomponent = \"{}\"\nmemory_mib = 32\n\
         settings = {settings}\n\
         [[tenant.policy]]\ncomponent = \"{}\"\nsettings = {{ next_hop = \"sip:{next_hop}\" }}\n",
        guest::screen(language).display(),
        guest::route_to().display()
    );
    Setup::at(address).tenants(&tenant).default_tenant("home")
}

/// A message without what differs between two runs of the program: branches and route tokens.
fn shown(message: &Message) -> String {
    let mut shown = format!("{}\n", message.start);
    for (name, value) in &message.headers {
        let value = match value.find(";branch=z9hG4bK") {
            Some(at) => value.split_at(at).0,
            None => value,
        };
        if name != "Record-Route" {
            shown.push_str(&format!("{name}: {value}\n"));
        }
    }
    shown
}

/// What is dialled, and the Request-URI that comes out.
const DIALLED: [(&str, &str); 13] = [
    ("sip:0301234567@lab.test", "sip:+49301234567@lab.test"),
    (
        "sip:0044-20.7946(0)00@lab.test",
        "sip:+44207946000@lab.test",
    ),
    ("sip:+49-30-1234567@lab.test", "sip:+49301234567@lab.test"),
    ("sip:0011212555@lab.test", "sip:+212555@lab.test"),
    (
        "sip:+49301@lab.test:5070;user=phone",
        "sip:+49301@lab.test:5070;user=phone",
    ),
    (
        "sip:0301:secret@lab.test;x=0301",
        "sip:+49301:secret@lab.test;x=0301",
    ),
    ("sip:bob@lab.test", "sip:bob@lab.test"),
    ("sip:110@lab.test", "sip:110@lab.test"),
    ("sip:0@lab.test", "sip:0@lab.test"),
    ("sip:00@lab.test", "sip:00@lab.test"),
    ("sip:000123@lab.test", "sip:000123@lab.test"),
    (
        "sip:+1234567890123456@lab.test",
        "sip:+1234567890123456@lab.test",
    ),
    (
        "sip:0301234567;ext=1@lab.test",
        "sip:0301234567;ext=1@lab.test",
    ),
];

/// One run with all scenarios; what came out, message by message.
fn run(
    language: &str,
    address: SocketAddr,
    sent: &[Message],
    blocked: &[Message],
    alice: &mut Agent,
    bob: &mut Agent,
) -> Vec<String> {
    let mut sipbox = setup(address, language, SETTINGS, bob.link.local()).start();
    let mut seen = Vec::new();
    for request in sent {
        alice.send(request);
        let arrived = bob.expect_request(&request.method());
        seen.push(shown(&arrived));
        if request.method() == "INVITE" {
            for (status, reason) in [(180, "Ringing"), (183, "Session Progress")] {
                bob.respond(&arrived, status, reason);
                seen.push(shown(&alice.expect(request, status)));
            }
            bob.respond(&arrived, 486, "Busy Here");
            let response = alice.expect(request, 486);
            alice.acknowledge(request, &response);
            seen.push(shown(&response));
        } else {
            bob.respond(&arrived, 200, "OK");
            seen.push(shown(&alice.expect(request, 200)));
        }
    }
    for request in blocked {
        alice.send(request);
        let response = alice.expect(request, 403);
        // The tag of our own responses is drawn anew.
        let to = response
            .get("To")
            .split(";tag=")
            .next()
            .unwrap_or_default()
            .to_owned();
        let mut response = response.clone();
        response.set("To", to);
        seen.push(shown(&response));
    }
    let warned = sipbox.logged("remove-header: ");
    assert!(
        warned.to_lowercase().contains("protected") && warned.contains("policy=\"screen\""),
        "{warned}"
    );
    let told = sipbox.logged("blocked: ");
    assert!(told.contains("blocked: +499001 calls bob"), "{told}");
    let failed = sipbox.statistics("policy").to_string();
    assert!(!failed.contains("/failed/trap\":1"), "{failed}");
    sipbox.stop();
    seen
}

#[test]
fn the_wire_is_the_same_in_every_language() {
    let net = Loopback::new();
    let address = net.sip();
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), address);
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), address);
    let mut sent: Vec<Message> = DIALLED
        .iter()
        .map(|(dialled, _)| {
            alice
                .request("MESSAGE", dialled)
                .with("P-Preferred-Identity", "<sip:alice@lab.test>")
                .with("Privacy", "id")
                .with("Privacy", "user")
                .with("Subject", "gr\u{fc}\u{df}e \u{1f44b}")
        })
        .collect();
    sent.push(alice.request("INVITE", "sip:0301234567@lab.test"));
    let from = |user: &str, uri: &str| {
        let mut request = alice.request("MESSAGE", uri);
        request.set("From", format!("<sip:{user}@lab.test>;tag=f1"));
        request
    };
    let blocked = [
        from("0900-1", "sip:bob@lab.test"),
        from("+1", "sip:bob@lab.test"),
        from("alice", "sip:0044(1)23@lab.test"),
        from("alice", "sip:+49-30-666@lab.test"),
        from("alice", "sip:119@lab.test"),
    ];

    let mut all = Vec::new();
    for language in LANGUAGES {
        let seen = run(language, address, &sent, &blocked, &mut alice, &mut bob);
        all.push((language, seen));
    }
    let (_, first) = all.first().unwrap();
    let requests = first
        .iter()
        .filter(|message| message.starts_with("MESSAGE "));
    for ((dialled, expected), message) in DIALLED.iter().zip(requests) {
        assert!(
            message.starts_with(&format!("MESSAGE {expected} SIP/2.0\n")),
            "{dialled}: {message}"
        );
        for part in ["X-Trunk: north; q=1\n", "Privacy: none\n"] {
            assert_eq!(message.matches(part).count(), 1, "{part}: {message}");
        }
        assert!(!message.contains("P-Preferred-Identity"), "{message}");
    }
    for (status, count) in [("180 ", 1), ("183 ", 2), ("486 ", 2)] {
        let answer = first
            .iter()
            .find(|m| m.starts_with(&format!("SIP/2.0 {status}")));
        let counted = format!("X-Provisional: {count}\n");
        assert!(answer.unwrap().contains(&counted), "{answer:?}");
    }
    let refused = first
        .iter()
        .filter(|m| m.starts_with("SIP/2.0 403 Not From Here\n"));
    assert_eq!(refused.count(), blocked.len());
    for (language, seen) in &all {
        assert_eq!(seen.len(), first.len(), "{language}");
        for (theirs, ours) in seen.iter().zip(first) {
            assert_eq!(theirs, ours, "{language}");
        }
    }
}

/// What is wrong, and what the text has to point at.
const WRONG: [(&str, &str); 8] = [
    ("{}", "country_code"),
    (
        r#"{ country_code = "+49" }"#,
        "country_code: expected 1 to 3 digits",
    ),
    (
        r#"{ country_code = "49", trunk_prefx = "0" }"#,
        "`trunk_prefx`",
    ),
    (
        r#"{ country_code = "49", trunk_prefix = "0x" }"#,
        "trunk_prefix: expected digits",
    ),
    (
        r#"{ country_code = "49", remove_headers = ["Subject", "a b"] }"#,
        "remove_headers[1]: expected the name of a header field",
    ),
    (
        r#"{ country_code = "49", set_headers = [{ name = "X-A", value = "a\r\nX-B: b" }] }"#,
        "set_headers[0].value: expected a text of one line",
    ),
    (
        r#"{ country_code = "49", set_headers = [{ name = "X-A", vaule = "a" }] }"#,
        "`vaule`",
    ),
    (
        r#"{ country_code = "49", blocked_callers = ["+49*1"] }"#,
        "blocked_callers[0]: expected a number, or its beginning and `*`",
    ),
];

#[test]
fn bad_settings_are_refused_with_what_is_wrong() {
    let address = Loopback::new().sip();
    for language in LANGUAGES {
        for (settings, expected) in WRONG {
            let folder = process::folder();
            let toml = setup(address, language, settings, address).toml();
            std::fs::write(folder.path().join("sipbox.toml"), toml).unwrap();
            let output = cli(folder.path(), &["check"]);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(
                output.status.code(),
                Some(1),
                "{language} {settings}: {said}"
            );
            assert!(
                said.contains("settings refused") && said.contains(expected),
                "{language} {settings}: {said}"
            );
        }
    }
}

/// A thrown exception, a failed assertion, a panic: the fallback answers, and the operator reads
/// text and line.
#[test]
fn what_goes_wrong_is_logged_while_the_fallback_answers() {
    for (language, said) in [
        ("ts", "onRequest: Error: lost in onRequest at src/guest.ts:"),
        ("c", "guest.c:"),
        ("rust", "hooks-rust/src/lib.rs:"),
    ] {
        let net = Loopback::new();
        let tenant = format!(
            "[[tenant]]\nname = \"bad\"\ndomains = [\"bad.test\"]\n\
             [tenant.limits]\ncpu = \"200ms\"\n\
             [[tenant.policy]]\nname = \"hooks\"\ncomponent = \"{}\"\n",
            guest::hooks(language).display()
        );
        let sipbox = Setup::new(&net).tenants(&tenant).start();
        let mut eve = Agent::udp("eve", "bad.test", net.sip(), sipbox.address);
        for _ in 0..2 {
            let request = eve.request("OPTIONS", "sip:throw@bad.test");
            eve.send(&request);
            let response = eve.expect(&request, 503);
            assert_eq!(
                response.get("Warning"),
                "399 sipbox \"policy failed: trap\""
            );
        }
        let line = sipbox.logged(said);
        assert!(
            line.contains("ERROR")
                && line.contains("lost in on")
                && line.contains("tenant=\"bad\"")
                && line.contains("policy=\"hooks\""),
            "{line}"
        );
        assert_eq!(sipbox.statistic("policy:bad/hooks/failed/trap"), 2);
    }
}
