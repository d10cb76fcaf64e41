//! RFC 4475, the SIP torture tests, sent to the running program: each message
//! must fare as the table beside the corpus says.
//!
//! A valid request must come out as it went in, byte for byte, but for what a
//! proxy adds; a broken one must be answered, and nothing of it may go on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod bytes;

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{cut, difference, fields, is_via, name, top_via};
use sipbox_tests::message::find;
use sipbox_tests::{Link, Loopback, Message, Setup, Sipbox, guest};

struct Case {
    file: String,
    section: String,
    outcome: Outcome,
    request: bool,
    registrar: Option<u16>,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Forward,
    Status(u16),
    Drop,
}

fn corpus() -> Vec<Case> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "corpus"].iter().collect();
    let text = std::fs::read_to_string(folder.join("rfc4475.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    let mut cases = Vec::new();
    for entry in table["message"].as_array().unwrap() {
        let text = |key: &str| entry[key].as_str().unwrap().to_owned();
        let status = |value: &toml::Value| u16::try_from(value.as_integer().unwrap()).unwrap();
        let outcome = match entry["outcome"].as_str() {
            Some("forward") => Outcome::Forward,
            Some("drop") => Outcome::Drop,
            Some(other) => panic!("outcome {other}"),
            None => Outcome::Status(status(&entry["outcome"])),
        };
        cases.push(Case {
            bytes: std::fs::read(folder.join("rfc4475").join(text("file"))).unwrap(),
            file: text("file"),
            section: text("section"),
            outcome,
            request: text("kind") == "request",
            registrar: entry.get("registrar").map(status),
        });
    }
    let files = std::fs::read_dir(folder.join("rfc4475")).unwrap().count();
    assert_eq!(
        cases.len(),
        files,
        "each file of the corpus is in the table"
    );
    cases
}

/// What comes within a moment, as raw bytes.
fn raw(link: &mut Link, limit: Duration) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 65536];
    let end = std::time::Instant::now() + limit;
    let mut all = Vec::new();
    loop {
        let length = link.read_some(&mut buffer, end)?;
        all.extend_from_slice(&buffer[..length]);
        if matches!(link, Link::Udp { .. }) || find(&all, b"\r\n\r\n").is_some() {
            return Some(all);
        }
    }
}

/// A proxy and a catcher, which is the next hop of everything.
struct Bench {
    net: Loopback,
    sipbox: Sipbox,
    catcher: Link,
    seen: HashSet<Vec<u8>>,
}

impl Bench {
    /// The policy sends every initial request to the catcher as it is.
    fn proxy() -> Self {
        let net = Loopback::new();
        let catcher = net.sip();
        let sipbox = Setup::new(&net)
            .tenants(&format!(
                "[[tenant]]\nname = \"all\"\ndomains = [\"lab.test\"]\n\
                 [[tenant.policy]]\ncomponent = \"{}\"\n\
                 settings = {{ next_hop = \"sip:{catcher}\" }}\n",
                guest::route_to().display()
            ))
            .with("[limits]\nudp_max = 0\ndrain = \"1s\"\n[timers]\nt1 = \"100ms\"\n")
            .default_tenant("all")
            // In-dialog requests follow their route set, which leads nowhere else.
            .outbound_proxy(catcher)
            .start();
        let catcher = Link::udp(catcher, sipbox.address);
        Self {
            net,
            sipbox,
            catcher,
            seen: HashSet::new(),
        }
    }

    /// A link from an address where the answer will come back.
    fn client(&self, case: &Case) -> Link {
        let (stream, port) = top_via(&case.bytes);
        let ip = self.net.ip();
        if stream {
            Link::tcp(ip, self.sipbox.address)
        } else {
            Link::udp(SocketAddr::new(ip, port), self.sipbox.address)
        }
    }

    /// Many of the messages share branch and sent-by: one that looks like a
    /// retransmission of another needs a program that has not seen the other.
    fn is_new(&mut self, case: &Case) -> bool {
        let (_, fields, _) = fields(&case.bytes);
        let via = fields
            .into_iter()
            .find(|field| is_via(field))
            .unwrap_or_default();
        self.seen.insert(via) && self.seen.len() < 25
    }
}

fn check_request(bench: &mut Bench, case: &Case) -> Result<(), String> {
    let mut client = bench.client(case);
    client.send(&case.bytes);
    match case.outcome {
        Outcome::Forward => {
            let Some(forwarded) = raw(&mut bench.catcher, Duration::from_secs(3)) else {
                let mut answers = String::new();
                while let Some(answer) = raw(&mut client, Duration::from_millis(100)) {
                    answers.push_str(&String::from_utf8_lossy(&answer));
                }
                return Err(format!("not forwarded; answered: {answers}"));
            };
            if let Some(difference) = difference(&case.bytes, &forwarded, bench.sipbox.address.ip())
            {
                return Err(format!(
                    "{difference}\n{}",
                    String::from_utf8_lossy(&forwarded)
                ));
            }
            // End the transaction; the refusal must find its way back.
            let request = Message::parse(&forwarded);
            let response = Message::response(&request, 486, "Busy Here", "caught");
            bench.catcher.answer(&response.bytes());
            let end = std::time::Instant::now() + Duration::from_secs(3);
            loop {
                let left = end.saturating_duration_since(std::time::Instant::now());
                let Some(bytes) = raw(&mut client, left) else {
                    return Err("the answer did not come back".to_owned());
                };
                // On a stream it may come together with the 100.
                if find(&bytes, b"SIP/2.0 486").is_some() {
                    break;
                }
            }
            // The proxy's ACK for the refusal of an INVITE.
            while raw(&mut bench.catcher, Duration::from_millis(50)).is_some() {}
        }
        Outcome::Status(status) => {
            let Some(answer) = raw(&mut client, Duration::from_secs(3)) else {
                return Err(format!("silence instead of {status}"));
            };
            if !answer.starts_with(format!("SIP/2.0 {status} ").as_bytes()) {
                return Err(format!(
                    "not {status}: {}",
                    String::from_utf8_lossy(&answer)
                ));
            }
            if let Some(leaked) = raw(&mut bench.catcher, Duration::from_millis(50)) {
                return Err(format!("went on: {}", String::from_utf8_lossy(&leaked)));
            }
        }
        Outcome::Drop => {
            let answer = raw(&mut client, Duration::from_millis(300));
            let leaked = raw(&mut bench.catcher, Duration::from_millis(50));
            if let Some(bytes) = answer.or(leaked) {
                return Err(format!("not dropped: {}", String::from_utf8_lossy(&bytes)));
            }
        }
    }
    Ok(())
}

#[test]
fn each_torture_request_fares_as_rfc_4475_says() {
    let cases: Vec<Case> = corpus().into_iter().filter(|case| case.request).collect();
    let mut bench = Bench::proxy();
    let mut failures = Vec::new();
    for case in &cases {
        if !bench.is_new(case) {
            bench = Bench::proxy();
            assert!(bench.is_new(case));
        }
        if let Err(reason) = check_request(&mut bench, case) {
            failures.push(format!(
                "{} (section {}): {reason}",
                case.file, case.section
            ));
            // Whatever it left behind is not the next one's.
            bench = Bench::proxy();
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} fared otherwise:\n\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n\n")
    );
}

/// A request of the method that the response answers, as the client would have sent
/// it: with the Via below the topmost, which would be ours, or with `via`.
fn request_for(case: &Case, via: &str) -> String {
    let (_, fields, _) = fields(&case.bytes);
    let field = |wanted: &str| {
        let field = fields.iter().find(|field| name(field) == wanted).unwrap();
        String::from_utf8(field.clone()).unwrap()
    };
    let below = fields.iter().filter(|field| is_via(field)).nth(1);
    let via = below.map_or_else(
        || format!("Via: {via}\r\n"),
        |field| String::from_utf8(field.clone()).unwrap(),
    );
    let method = field("cseq");
    let method = method.split_whitespace().last().unwrap().to_owned();
    let to = field("to");
    let to = to.trim_end().split(";tag=").next().unwrap();
    format!(
        "{method} sip:somebody@elsewhere.test SIP/2.0\r\n{via}Max-Forwards: 70\r\n\
         {}{to}\r\n{}CSeq: 35 {method}\r\nContent-Length: 0\r\n\r\n",
        field("from"),
        field("call-id"),
    )
}

/// The file as the answer to `request`, which we forwarded: the topmost Via is the
/// request's, and where the file has no other, those below are too. All other bytes
/// are the file's. Gives the answer, and what is to go on.
fn answer_to(case: &Case, request: &Message) -> (Vec<u8>, Vec<u8>) {
    let (start, fields, body) = fields(&case.bytes);
    let mut vias = request.values("Via").into_iter();
    let ours = format!("Via: {}\r\n", vias.next().unwrap());
    let mut rest = Vec::new();
    let mut others = fields.iter().filter(|field| is_via(field)).skip(1);
    if let Some(other) = others.next() {
        rest.extend_from_slice(other);
        others.for_each(|other| rest.extend_from_slice(other));
    } else {
        vias.for_each(|via| rest.extend_from_slice(format!("Via: {via}\r\n").as_bytes()));
    }
    for field in fields.iter().filter(|field| !is_via(field)) {
        rest.extend_from_slice(field);
    }
    rest.extend_from_slice(b"\r\n");
    rest.extend_from_slice(&body);
    let sent = [&start, ours.as_bytes(), &rest].concat();
    (sent, cut(&[start, rest].concat()))
}

/// The next response but 100.
fn response(client: &mut Link, limit: Duration) -> Option<Vec<u8>> {
    loop {
        let bytes = raw(client, limit)?;
        if !bytes.starts_with(b"SIP/2.0 100 Trying") {
            return Some(bytes);
        }
    }
}

fn check_response(case: &Case) -> Result<(), String> {
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut bench = Bench::proxy();
    let mut client = Link::udp(bench.net.sip(), bench.sipbox.address);
    // Unasked, it leads to nothing.
    client.send(&case.bytes);
    if let Some(bytes) = raw(&mut client, Duration::from_millis(200)) {
        return Err(format!("unasked, answered with {:?}", show(&bytes)));
    }
    let via = format!("SIP/2.0/UDP {};branch=z9hG4bKasked", client.local());
    client.send(request_for(case, &via).as_bytes());
    let request = bench.catcher.receive(Duration::from_secs(3));
    let request = request.ok_or("the request did not arrive")?;
    let (sent, wanted) = answer_to(case, &request);
    bench.catcher.answer(&sent);
    // A 100 is for one hop only (RFC 3261 section 16.7).
    if case.outcome == Outcome::Forward && !wanted.starts_with(b"SIP/2.0 100") {
        return match response(&mut client, Duration::from_secs(3)) {
            Some(bytes) if bytes == wanted => Ok(()),
            Some(bytes) => Err(format!("{:?} became {:?}", show(&wanted), show(&bytes))),
            None => Err("not forwarded".to_owned()),
        };
    }
    if let Some(bytes) = response(&mut client, Duration::from_millis(500)) {
        return Err(format!("went on: {:?}", show(&bytes)));
    }
    // Not for want of a transaction: a right answer to the same request passes.
    let right = Message::response(&request, 486, "Busy Here", "caught");
    bench.catcher.answer(&right.bytes());
    match response(&mut client, Duration::from_secs(3)) {
        Some(bytes) if bytes.starts_with(b"SIP/2.0 486 ") => Ok(()),
        other => Err(format!(
            "a right answer behind it became {:?}",
            other.map(|bytes| show(&bytes))
        )),
    }
}

/// Responses: as the file has them, which is nothing that we asked for, and as answers
/// to a request that we forwarded, with our Via on top.
#[test]
fn each_torture_response_fares_as_rfc_4475_says() {
    let cases: Vec<Case> = corpus().into_iter().filter(|case| !case.request).collect();
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let reason = check_response(case).err()?;
            Some(format!(
                "{} (section {}): {reason}",
                case.file, case.section
            ))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// A registrar for the domains of the torture messages.
#[test]
fn each_torture_registration_fares_as_the_table_says() {
    let cases: Vec<Case> = corpus()
        .into_iter()
        .filter(|case| case.registrar.is_some())
        .collect();
    let mut domains = BTreeSet::new();
    for case in &cases {
        let (start, ..) = fields(&case.bytes);
        let text = String::from_utf8_lossy(&start).into_owned();
        let host = text
            .split(' ')
            .nth(1)
            .and_then(|uri| uri.split_once(':'))
            .map(|(_, host)| host);
        let host = host.unwrap_or_default();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        domains.insert(
            host.split([';', '?', ':'])
                .next()
                .unwrap_or_default()
                .to_owned(),
        );
    }
    let mut failures = Vec::new();
    for case in &cases {
        let wanted = case.registrar.unwrap();
        let net = Loopback::new();
        let auth = if wanted == 401 { "register" } else { "off" };
        let names: Vec<String> = domains
            .iter()
            .map(|domain| format!("\"{domain}\""))
            .collect();
        let served: Vec<String> = domains
            .iter()
            .map(|domain| format!("\"{domain}\" = {{}}"))
            .collect();
        let sipbox = Setup::new(&net)
            .tenants(&format!(
                "[[tenant]]\nname = \"home\"\ndomains = [{}]\ngrants = [\"auth\", \"location\", \"nat\", \"dialogs\", \"leases\"]\n\
                 [[tenant.policy]]\nbuiltin = \"residential\"\n\
                 settings = {{ auth = \"{auth}\", domains = {{ {} }} }}\n",
                names.join(", "),
                served.join(", ")
            ))
            .default_tenant("home")
            .start();
        let (stream, port) = top_via(&case.bytes);
        let ip = net.ip();
        let mut client = if stream {
            Link::tcp(ip, sipbox.address)
        } else {
            Link::udp(SocketAddr::new(ip, port), sipbox.address)
        };
        client.send(&case.bytes);
        let answer = raw(&mut client, Duration::from_secs(3)).unwrap_or_default();
        if !answer.starts_with(format!("SIP/2.0 {wanted} ").as_bytes()) {
            failures.push(format!(
                "{} (section {}): not {wanted}: {:?}",
                case.file,
                case.section,
                String::from_utf8_lossy(&answer)
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
