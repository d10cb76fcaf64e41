//! `sipbox run` without a file: somebody who has only the binary reads what it
//! says, and registers and calls with that and nothing else.
//!
//! The demo is on 127.0.0.1:5060; all other tests have addresses of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use sipbox_tests::agent::Dialog;
use sipbox_tests::process::{folder, wait_until};
use sipbox_tests::sipbox::{cli, spawn};
use sipbox_tests::{Agent, Loopback, Process};

/// The default below `XDG_STATE_HOME`, so that the commands as they are printed find it.
const STATE: &str = "state/sipbox";

/// What a start says.
struct Said {
    address: SocketAddr,
    domain: String,
    /// User and password.
    accounts: Vec<(String, String)>,
    next: Vec<String>,
    milliseconds: u64,
}

fn start(folder: &Path) -> (Process, Said) {
    // What an earlier start said is not this one's.
    let _ = std::fs::remove_file(folder.join("log"));
    let mut process = spawn(folder, &["run", "--state", STATE]);
    wait_until("the demo's start", Duration::from_secs(40), || {
        let ended = process.ended();
        assert!(ended.is_none(), "{ended:?}\n{}", process.output());
        process
            .output()
            .lines()
            .any(|line| line.contains(": ready "))
    });
    let said = read(&process.output());
    (process, said)
}

/// Reads the output as a user does: by its words.
fn read(output: &str) -> Said {
    let after = |word: &str| {
        let (_, rest) = output
            .split_once(word)
            .unwrap_or_else(|| panic!("no `{word}` in\n{output}"));
        rest
    };
    let address = after("Sipbox is running on ");
    let address = address.split(',').next().unwrap().parse().unwrap();
    let mut domains = Vec::new();
    let mut accounts = Vec::new();
    for line in output.lines() {
        let Some((account, password)) = line.split_once(" password ") else {
            continue;
        };
        let (user, domain) = account
            .trim()
            .strip_prefix("sip:")
            .and_then(|account| account.split_once('@'))
            .unwrap_or_else(|| panic!("no account in `{line}`"));
        domains.push(domain.to_owned());
        accounts.push((user.to_owned(), password.trim().to_owned()));
    }
    domains.dedup();
    let [domain] = domains.try_into().expect("both accounts have one domain");
    let next = after("Next:\n").split("\n\n").next().unwrap().lines();
    let milliseconds = after("ready milliseconds=").split(' ').next().unwrap();
    Said {
        address,
        domain,
        accounts,
        next: next.map(|line| line.trim().to_owned()).collect(),
        milliseconds: milliseconds.parse().unwrap(),
    }
}

/// The status that REGISTER with that password gets in the end.
fn register(net: &Loopback, said: &Said, user: &str, password: &str) -> Option<u16> {
    let mut agent = Agent::udp(user, &said.domain, net.sip(), said.address);
    let request = agent.request("REGISTER", &format!("sip:{}", said.domain));
    agent.authenticated(request, password).1.status()
}

#[test]
fn the_demo_says_all_that_a_user_needs() {
    let net = Loopback::new();
    let folder = folder();
    let (mut process, said) = start(folder.path());
    println!("the first start was ready after {} ms", said.milliseconds);
    assert_eq!(said.address, "127.0.0.1:5060".parse().unwrap());
    assert_eq!(said.domain, "127.0.0.1");
    let names: Vec<&str> = said.accounts.iter().map(|(user, _)| &**user).collect();
    assert_eq!(names, ["alice", "bob"]);
    let passwords: Vec<&str> = said.accounts.iter().map(|(_, word)| &**word).collect();
    assert!(
        passwords.iter().all(|word| word.len() == 16) && passwords[0] != passwords[1],
        "{passwords:?}"
    );

    // Only the password that is printed will do, and only for its account.
    for wrong in ["alice", passwords[1]] {
        assert_eq!(register(&net, &said, "alice", wrong), Some(401), "{wrong}");
    }
    let mut alice = Agent::udp("alice", &said.domain, net.sip(), said.address);
    alice.register(passwords[0]);
    let mut bob = Agent::udp("bob", &said.domain, net.sip(), said.address);
    bob.register(passwords[1]);

    // "Call one from the other."
    let invite = alice.request("INVITE", &format!("sip:bob@{}", said.domain));
    let password = passwords[0].to_owned();
    let caller = thread::spawn(move || {
        let (invite, response) = alice.authenticated(invite, &password);
        (alice, invite, response)
    });
    let arrived = bob.expect_request("INVITE");
    bob.respond(&arrived, 200, "OK");
    let (mut alice, invite, response) = caller.join().unwrap();
    assert_eq!(response.status(), Some(200), "{response}");
    let mut dialog = Dialog::of_caller(&invite, &response);
    let ack = dialog.request(&alice, "ACK");
    alice.send(&ack);
    bob.expect_request("ACK");
    let bye = dialog.request(&alice, "BYE");
    alice.send(&bye);
    let arrived = bob.expect_request("BYE");
    bob.respond(&arrived, 200, "OK");
    alice.expect(&bye, 200);

    // The commands that it names work as they are printed.
    let commands: Vec<&str> = said
        .next
        .iter()
        .filter_map(|line| line.strip_prefix("sipbox "))
        .collect();
    assert_eq!(commands.len(), 3, "{:?}", said.next);
    for command in commands {
        let mut words: Vec<&str> = command.split(' ').collect();
        if words.starts_with(&["user", "add"]) {
            // It would ask for the password.
            words.extend(["--password", "carol-secret"]);
        }
        let output = cli(folder.path(), &words);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sipbox {command}: {error}");
        if command == "location list" {
            let listed = String::from_utf8_lossy(&output.stdout);
            for user in ["alice@127.0.0.1", "bob@127.0.0.1"] {
                assert!(listed.contains(user), "{listed}");
            }
        }
    }
    assert_eq!(
        register(&net, &said, "carol", "carol-secret"),
        Some(200),
        "the new account"
    );

    // Its state is where it was told, and the next start keeps all but the passwords.
    for name in ["sipbox.sqlite", "control.sock"] {
        let path = folder.path().join(STATE).join(name);
        assert!(path.exists(), "no {}", path.display());
    }
    stop(&mut process);
    let (mut process, again) = start(folder.path());
    println!("the second start was ready after {} ms", again.milliseconds);
    for ((user, old), (_, new)) in said.accounts.iter().zip(&again.accounts) {
        assert_eq!(register(&net, &again, user, old), Some(401), "{user}");
        assert_eq!(register(&net, &again, user, new), Some(200), "{user}");
    }
    assert_eq!(
        register(&net, &again, "carol", "carol-secret"),
        Some(200),
        "the account that was added"
    );
    stop(&mut process);
}

/// As Ctrl-C does.
fn stop(process: &mut Process) {
    process.signal(Signal::SIGINT);
    let status = process.wait(Duration::from_secs(40));
    assert!(
        status.is_some_and(|status| status.success()),
        "{status:?}\n{}",
        process.output()
    );
}
