//! Running it: reload, graceful stop, sudden death, the command line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Message, Setup};

#[test]
fn a_stop_finishes_the_transactions_in_flight() {
    let net = Loopback::new();
    let mut sipbox = Setup::residential(&net, "").start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    bob.register("secret");
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let invite = alice.request("INVITE", "sip:bob@lab.test");
    alice.send(&invite);
    let arrived = bob.expect_request("INVITE");
    bob.respond(&arrived, 180, "Ringing");
    alice.expect(&invite, 180);

    sipbox.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(500));
    // Still ringing; the answer comes now and gets through, and so does the ACK.
    bob.respond(&arrived, 486, "Busy Here");
    let response = alice.expect(&invite, 486);
    alice.acknowledge(&invite, &response);
    bob.expect_request("ACK");
    let status = sipbox.wait_end(Duration::from_secs(40));
    assert!(status.success(), "{status}");
}

/// Transactions that only absorb retransmissions (Timers H, I, J, K) wait for nobody,
/// so a stop does not wait for them.
#[test]
fn an_idle_program_stops_at_once() {
    let net = Loopback::new();
    let mut sipbox = Setup::residential(&net, "").start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    bob.register("secret");
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let message = alice.request("MESSAGE", "sip:bob@lab.test");
    alice.send(&message);
    let arrived = bob.expect_request("MESSAGE");
    bob.respond(&arrived, 200, "OK");
    alice.expect(&message, 200);
    let invite = alice.request("INVITE", "sip:bob@lab.test");
    alice.send(&invite);
    let arrived = bob.expect_request("INVITE");
    bob.respond(&arrived, 486, "Busy Here");
    bob.expect_request("ACK");
    let response = alice.expect(&invite, 486);
    alice.acknowledge(&invite, &response);
    assert!(
        sipbox.statistic("tm:inuse_transactions") >= 2,
        "both are still there"
    );

    let begin = Instant::now();
    sipbox.stop();
    let took = begin.elapsed();
    println!("stopped after {took:?}");
    // The shortest of those timers runs 5 s.
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// kill -9 under REGISTER load: with durability `commit` each answered REGISTER
/// is there afterwards.
#[test]
fn every_answered_register_survives_sudden_death() {
    let net = Loopback::new();
    let mut sipbox = Setup::residential(&net, "").start();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (local, proxy, stop) = (net.sip(), sipbox.address, stop.clone());
            std::thread::spawn(move || register_without_end(client, local, proxy, &stop))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(3));
    sipbox.kill();
    stop.store(true, Ordering::Relaxed);
    let answered: BTreeSet<String> = clients
        .into_iter()
        .flat_map(|client| client.join().unwrap())
        .collect();
    assert!(
        answered.len() > 200,
        "only {} REGISTERs were answered",
        answered.len()
    );

    sipbox.start_again();
    let dump = sipbox.rpc("ul_dump", &json!({})).to_string();
    let missing: Vec<&String> = answered
        .iter()
        .filter(|user| !dump.contains(&format!("{user}@{DOMAIN}")))
        .collect();
    println!("{} answered, {} missing", answered.len(), missing.len());
    assert!(
        missing.is_empty(),
        "answered with 200, and gone: {missing:?}"
    );
}

/// Registers one new user after the other and gives those that got a 200. Eight
/// at a time, so that one commit serves several.
fn register_without_end(
    client: usize,
    local: std::net::SocketAddr,
    proxy: std::net::SocketAddr,
    stop: &AtomicBool,
) -> Vec<String> {
    let mut agent = Agent::udp("nobody", DOMAIN, local, proxy);
    let mut answered = Vec::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..8 {
            number += 1;
            let user = format!("user-{client}-{number}");
            let mut request = agent
                .request("REGISTER", "sip:lab.test")
                .with("Expires", 600);
            for name in ["From", "To"] {
                request.set(name, format!("<sip:{user}@lab.test>;tag={user}"));
            }
            request.set("To", format!("<sip:{user}@lab.test>"));
            request.set("Call-ID", &user);
            agent.send(&request);
        }
        let end = Instant::now() + Duration::from_millis(500);
        for _ in 0..8 {
            let left = end.saturating_duration_since(Instant::now());
            let Some(response) = agent.link.receive(left) else {
                break;
            };
            if response.status() == Some(200) {
                answered.push(response.get("Call-ID").to_owned());
            }
        }
    }
    answered
}

/// Bindings and accounts outlive an orderly restart; a call finds its way.
#[test]
fn bindings_survive_a_restart() {
    let net = Loopback::new();
    let mut sipbox = Setup::residential(&net, "auth = \"register\"")
        .user("bob@lab.test", "secret")
        .start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    bob.register("secret");
    sipbox.stop();
    sipbox.start_again();
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let request = alice.request("MESSAGE", "sip:bob@lab.test");
    alice.send(&request);
    let arrived = bob.expect_request("MESSAGE");
    bob.respond(&arrived, 200, "OK");
    alice.expect(&request, 200);
    bob.register("secret");
}

/// A broken file changes nothing and says where it is broken.
#[test]
fn a_broken_configuration_is_refused_and_the_old_one_stays() {
    let net = Loopback::new();
    let setup = Setup::residential(&net, "");
    let sipbox = setup.start();
    let good = std::fs::read_to_string(sipbox.file("sipbox.toml")).unwrap();
    let broken = good.replace("builtin = \"residential\"", "bultin = \"residential\"");
    assert_ne!(good, broken);
    std::fs::write(sipbox.file("sipbox.toml"), &broken).unwrap();

    let refused = sipbox
        .try_rpc("reload", &json!({}))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("bultin"), "{refused}");
    let check = sipbox.cli(&["check", "sipbox.toml"]);
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&check.stdout),
        String::from_utf8_lossy(&check.stderr)
    );
    assert!(!check.status.success());
    let line = 1 + broken
        .lines()
        .position(|line| line.starts_with("bultin"))
        .unwrap();
    assert!(
        said.contains("bultin") && said.contains("builtin"),
        "names it and suggests:\n{said}"
    );
    assert!(
        said.contains(&format!("sipbox.toml:{line}:")),
        "line {line}:\n{said}"
    );

    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let request = alice.request("OPTIONS", &format!("sip:{}", sipbox.address));
    alice.send(&request);
    alice.expect(&request, 200);
}

/// SIGHUP: a broken file changes nothing, and the log names the mistake; a right one
/// takes effect.
#[test]
fn sighup_reloads_a_right_file_and_refuses_a_broken_one() {
    let net = Loopback::new();
    let mut sipbox = Setup::residential(&net, "unknown_user = \"480\"").start();
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let mut answer = || {
        let request = alice.request("MESSAGE", "sip:nobody@lab.test");
        alice.send(&request);
        alice.answer_to(&request, false).status()
    };
    assert_eq!(answer(), Some(480));
    let old = std::fs::read_to_string(sipbox.file("sipbox.toml")).unwrap();
    let new = old.replace("unknown_user = \"480\"", "unknown_user = \"404\"");
    assert_ne!(old, new);
    let broken = new.replace("builtin = ", "bultin = ");
    assert_ne!(new, broken);

    std::fs::write(sipbox.file("sipbox.toml"), &broken).unwrap();
    sipbox.signal(Signal::SIGHUP);
    let refusal = sipbox.logged("configuration not reloaded, the old one stays");
    let line = 1 + broken
        .lines()
        .position(|line| line.starts_with("bultin"))
        .unwrap();
    assert!(
        refusal.contains("ERROR")
            && refusal.contains("bultin")
            && refusal.contains(&format!("sipbox.toml:{line}:")),
        "line {line}: {refusal}"
    );
    assert_eq!(
        answer(),
        Some(480),
        "nothing of the broken file is in force"
    );
    assert!(!sipbox.log().contains("configuration reloaded"));

    std::fs::write(sipbox.file("sipbox.toml"), &new).unwrap();
    sipbox.signal(Signal::SIGHUP);
    let _ = sipbox.logged("configuration reloaded");
    assert_eq!(answer(), Some(404), "the new setting is in force");
}

/// The CLI's clients: accounts and bindings, and the management commands.
#[test]
fn the_command_line_manages_a_running_program() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "auth = \"register\"").start();
    let run = |words: &[&str]| {
        let mut words = words.to_vec();
        words.extend(["-c", "sipbox.toml"]);
        let output = sipbox.cli(&words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}{error}");
        said
    };
    run(&["user", "add", "bob@lab.test", "--password", "first"]);
    assert!(run(&["user", "list"]).contains("bob@lab.test"));
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    bob.register("first");
    assert!(run(&["location", "list"]).contains("bob@lab.test"));
    assert!(run(&["location", "show", "bob@lab.test"]).contains(&bob.contact));
    run(&["location", "rm", "bob@lab.test"]);
    assert_eq!(sipbox.statistic("usrloc:registered_users"), 0);

    run(&["user", "passwd", "bob@lab.test", "--password", "second"]);
    let request = bob.request("REGISTER", "sip:lab.test");
    let (_, response) = bob.authenticated(request, "first");
    assert_eq!(
        response.status(),
        Some(401),
        "the old password is out: {response}"
    );
    bob.register("second");
    run(&["user", "rm", "bob@lab.test"]);
    let request = bob.request("REGISTER", "sip:lab.test");
    let (_, response) = bob.authenticated(request, "second");
    assert_eq!(
        response.status(),
        Some(401),
        "the account is gone: {response}"
    );

    let which = run(&["ctl", "which"]);
    for command in [
        "ul_dump",
        "ul_show_contact",
        "ul_add",
        "ul_rm",
        "ul_rm_contact",
        "get_statistics",
        "which",
        "version",
        "uptime",
        "reload",
    ] {
        assert!(
            which.contains(&format!("\"{command}\"")),
            "{command} in {which}"
        );
    }
    assert!(run(&["ctl", "get_statistics", "tm:"]).contains("tm:inuse_transactions"));
}

/// A contact that an operator adds is called, without any REGISTER.
#[test]
fn a_contact_added_by_the_operator_is_called() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "").start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    let _ = sipbox.rpc(
        "ul_add",
        &json!({"table_name": "location", "aor": "bob@lab.test", "contact": bob.contact,
                "expires": 60, "q": "1.0", "flags": 0, "cflags": 0, "methods": 0}),
    );
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let request: Message = alice.request("MESSAGE", "sip:bob@lab.test");
    alice.send(&request);
    let arrived = bob.expect_request("MESSAGE");
    bob.respond(&arrived, 200, "OK");
    alice.expect(&request, 200);
}

/// Ids that leave the program say which node made them: the number stands in front
/// of a nonce and of a branch.
#[test]
fn branches_and_nonces_carry_the_node() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, "auth = \"register\"")
        .node(0x0201)
        .start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    let _ = sipbox.rpc(
        "ul_add",
        &json!({"table_name": "location", "aor": "bob@lab.test", "contact": bob.contact,
                "expires": 60, "q": "1.0", "flags": 0, "cflags": 0, "methods": 0}),
    );
    let mut alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let request = alice.request("REGISTER", "sip:lab.test");
    alice.send(&request);
    let challenge = alice.expect(&request, 401);
    let challenge = challenge.get("WWW-Authenticate").to_owned();
    let (_, nonce) = challenge.split_once("nonce=\"").unwrap();
    // 0x0201 and four bits of what follows, six bits a letter.
    assert!(
        nonce.starts_with("Ag") && ('E'..='H').contains(&nonce.chars().nth(2).unwrap()),
        "{challenge}"
    );
    let request = alice.request("MESSAGE", "sip:bob@lab.test");
    alice.send(&request);
    let arrived = bob.expect_request("MESSAGE");
    // The same, five bits a letter.
    assert!(
        arrived.get("Via").contains(";branch=z9hG4bKaia"),
        "{arrived}"
    );
    bob.respond(&arrived, 200, "OK");
    alice.expect(&request, 200);
}
