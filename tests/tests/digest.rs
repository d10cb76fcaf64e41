//! Digest authentication: several algorithms, and who tries passwords.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::time::{Duration, Instant};

use sipbox_tests::digest::Challenge;
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::{Agent, Loopback, Message, Setup, Sipbox};

fn register(agent: &Agent) -> Message {
    agent.request("REGISTER", &format!("sip:{DOMAIN}"))
}

/// The challenges that a REGISTER without credentials meets.
fn challenges(agent: &mut Agent) -> (Message, Vec<Challenge>) {
    let request = register(agent);
    agent.send(&request);
    let response = agent.expect(&request, 401);
    let values = response
        .headers
        .iter()
        .filter(|(name, _)| name == "WWW-Authenticate")
        .map(|(_, value)| Challenge::parse(value))
        .collect();
    (request, values)
}

/// Answers a challenge; the status that comes of it.
fn answer(agent: &mut Agent, request: &Message, challenge: &Challenge, password: &str) -> u16 {
    let user = agent.user.clone();
    let value = challenge.answer(&user, password, "REGISTER", request.request_uri(), 1);
    let mut again = agent.again(request);
    again.set("Authorization", value);
    agent.send(&again);
    agent.answer_to(&again, false).status().unwrap()
}

/// RFC 8760 section 2.2: a challenge for each algorithm, best first; the client takes
/// any of them, but no other.
#[test]
fn a_domain_has_its_algorithms_in_order() {
    let net = Loopback::new();
    for (setting, algorithms) in [
        (r#"["sha256", "md5"]"#, ["SHA-256", "MD5"]),
        (r#"["md5", "sha256"]"#, ["MD5", "SHA-256"]),
    ] {
        let settings = format!("auth = \"register\", algorithms = {setting}");
        let sipbox = Setup::residential(&net, &settings)
            .user("bob@lab.test", "secret")
            .start();
        let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
        for chosen in 0..2 {
            let (request, offered) = challenges(&mut bob);
            let names: Vec<&str> = offered.iter().map(|c| &*c.algorithm).collect();
            assert_eq!(names, algorithms);
            assert_eq!(answer(&mut bob, &request, &offered[chosen], "wrong"), 401);
            assert_eq!(answer(&mut bob, &request, &offered[chosen], "secret"), 200);
        }
        let (request, offered) = challenges(&mut bob);
        // Right in every way, but computed with what the challenge did not name.
        for algorithm in ["SHA-512-256", "MD5-sess"] {
            let other = Challenge {
                algorithm: algorithm.to_owned(),
                ..offered[0].clone()
            };
            assert_eq!(
                answer(&mut bob, &request, &other, "secret"),
                401,
                "{algorithm}"
            );
        }
        assert_eq!(sipbox.statistic("usrloc:registered_users"), 1);
    }
}

/// A domain that offers one algorithm accepts no other.
#[test]
fn an_algorithm_that_is_not_offered_opens_nothing() {
    let net = Loopback::new();
    let sipbox = Setup::residential(&net, r#"auth = "register", algorithms = ["sha256"]"#)
        .user("bob@lab.test", "secret")
        .start();
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    let (request, offered) = challenges(&mut bob);
    assert_eq!(offered.len(), 1);
    let downgraded = Challenge {
        algorithm: "MD5".to_owned(),
        ..offered[0].clone()
    };
    assert_eq!(answer(&mut bob, &request, &downgraded, "secret"), 401);
    assert_eq!(answer(&mut bob, &request, &offered[0], "secret"), 200);
}

fn log_in(agent: &mut Agent, password: &str) -> u16 {
    let (request, offered) = challenges(agent);
    answer(agent, &request, offered.first().unwrap(), password)
}

fn guarded(net: &Loopback, window: &str) -> Sipbox {
    Setup::residential(net, "auth = \"register\"")
        .user("bob@lab.test", "secret")
        .user("carol@lab.test", "secret")
        .with(&format!("[auth]\nfailure_window = \"{window}\"\n"))
        .start()
}

/// Five wrong answers: then nothing of that source for that account is checked for as
/// long. Nobody else is harmed.
#[test]
fn who_guesses_passwords_has_to_wait() {
    let net = Loopback::new();
    let sipbox = guarded(&net, "4s");
    let mut guesser = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    let begun = Instant::now();
    for guess in 0..5 {
        assert_eq!(log_in(&mut guesser, "wrong"), 401, "guess {guess}");
    }
    assert_eq!(log_in(&mut guesser, "secret"), 401, "right, but too late");
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    assert_eq!(log_in(&mut bob, "secret"), 200, "from another address");
    // Another account of the guesser's address.
    guesser.user = "carol".to_owned();
    assert_eq!(log_in(&mut guesser, "secret"), 200);
    guesser.user = "bob".to_owned();
    assert_eq!(log_in(&mut guesser, "secret"), 401);
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "the test was too slow"
    );
    std::thread::sleep(Duration::from_millis(4300));
    assert_eq!(log_in(&mut guesser, "secret"), 200, "the time is over");
}

/// Four are forgiven, as anybody mistypes.
#[test]
fn a_few_wrong_passwords_are_forgiven() {
    let net = Loopback::new();
    let sipbox = guarded(&net, "1m");
    let mut bob = Agent::udp("bob", DOMAIN, net.sip(), sipbox.address);
    for _ in 0..4 {
        assert_eq!(log_in(&mut bob, "wrong"), 401);
    }
    assert_eq!(log_in(&mut bob, "secret"), 200);
}
