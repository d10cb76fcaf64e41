//! Names: what is asked of a name server, and what becomes of its answers.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use sipbox_core::outbox::{NextHopCandidate, ResolveError};
use sipbox_net::{NetConfig, Query, ResolverConfig, StaticNames};
use sipbox_sip::Transport;
use sipbox_sip::Transport::{Tcp, Udp};

use crate::support::{PATIENCE, Rig, Seen, config};

/// What the server does with a question.
#[derive(Clone)]
enum Reply {
    Records(u32, Vec<RData>),
    Refuse(ResponseCode),
    Silence,
}

type Zone = HashMap<(&'static str, RecordType), Reply>;

/// A name server for one zone; names it does not know do not exist.
struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, RecordType)>>>,
    /// While it is set, questions wait.
    held: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (held, stop) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let mut server = Self {
            address: socket.local_addr().unwrap(),
            asked: Arc::clone(&asked),
            held: Arc::clone(&held),
            stop: Arc::clone(&stop),
            thread: None,
        };
        server.thread = Some(thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let query = question.queries[0].clone();
                let name = query.name().to_ascii().to_ascii_lowercase();
                asked
                    .lock()
                    .unwrap()
                    .push((name.clone(), query.query_type()));
                while held.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
                let mut answer = Message::response(question.metadata.id, OpCode::Query);
                answer.add_query(query.clone());
                let key = zone
                    .keys()
                    .find(|(n, t)| *n == name && *t == query.query_type());
                match key.and_then(|key| zone.get(key)) {
                    Some(Reply::Records(ttl, records)) => {
                        answer.add_answers(records.iter().map(|data| {
                            Record::from_rdata(query.name().clone(), *ttl, data.clone())
                        }));
                    }
                    Some(Reply::Refuse(code)) => answer.metadata.response_code = *code,
                    Some(Reply::Silence) => continue,
                    // The name exists if it has records of another type.
                    None if zone.keys().any(|(n, _)| *n == name) => {}
                    None => answer.metadata.response_code = ResponseCode::NXDomain,
                }
                socket.send_to(&answer.to_vec().unwrap(), peer).unwrap();
            }
        }));
        server
    }

    fn asked(&self) -> Vec<(String, RecordType)> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort();
        asked
    }

    fn rig(&self) -> Rig {
        self.rig_with(|_| {})
    }

    fn rig_with(&self, change: impl FnOnce(&mut ResolverConfig)) -> Rig {
        let mut resolver = ResolverConfig {
            name_servers: Some(vec![self.address]),
            hosts: None,
            timeout: PATIENCE,
            total_timeout: PATIENCE,
            ..ResolverConfig::default()
        };
        change(&mut resolver);
        // IPv4 only: one question for each name's addresses.
        Rig::new(&NetConfig {
            resolver,
            ..config(&[(Udp, "127.0.0.1:0")])
        })
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

fn a(ttl: u32, addresses: &[&str]) -> Reply {
    let addresses = addresses
        .iter()
        .map(|a| RData::A(a.parse::<std::net::Ipv4Addr>().unwrap().into()));
    Reply::Records(ttl, addresses.collect())
}

fn srv(targets: &[(u16, u16, &str)]) -> Reply {
    let records = targets.iter().map(|(priority, port, target)| {
        RData::SRV(SRV::new(
            *priority,
            0,
            *port,
            Name::from_str(target).unwrap(),
        ))
    });
    Reply::Records(300, records.collect())
}

fn query(host: &str, port: Option<u16>, transport: Option<Transport>) -> Query {
    Query::new(host.as_bytes(), port, transport, false).unwrap()
}

fn hop(transport: Transport, address: &str) -> NextHopCandidate {
    NextHopCandidate {
        transport,
        address: address.parse().unwrap(),
    }
}

/// Asks, and waits for the answer to come to the worker.
fn ask(rig: &mut Rig, query: Query) -> Result<Vec<NextHopCandidate>, ResolveError> {
    assert_eq!(rig.network.resolve(0, query, 7), None);
    match rig.next() {
        Seen::Resolved(7, result) => result.map(|candidates| candidates.to_vec()),
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn srv_records_lead_to_targets_by_priority_and_udp_before_tcp() {
    let server = NameServer::start(Zone::from([
        (
            ("_sip._udp.example.org.", RecordType::SRV),
            srv(&[(20, 5071, "b.example.org."), (10, 5070, "a.example.org.")]),
        ),
        (
            ("_sip._tcp.example.org.", RecordType::SRV),
            srv(&[(1, 5080, "a.example.org.")]),
        ),
        (("a.example.org.", RecordType::A), a(300, &["192.0.2.1"])),
        (("b.example.org.", RecordType::A), a(300, &["192.0.2.2"])),
    ]));
    let mut rig = server.rig();
    let expected = [
        hop(Udp, "192.0.2.1:5070"),
        hop(Udp, "192.0.2.2:5071"),
        hop(Tcp, "192.0.2.1:5080"),
    ];
    assert_eq!(
        ask(&mut rig, query("example.org", None, None)).unwrap(),
        expected
    );
    assert_eq!(
        ask(&mut rig, query("example.org", None, Some(Tcp))).unwrap(),
        expected[2..]
    );
}

#[test]
fn without_srv_or_with_a_port_the_hosts_addresses_are_taken() {
    let server = NameServer::start(Zone::from([(
        ("example.org.", RecordType::A),
        a(300, &["192.0.2.1", "192.0.2.2"]),
    )]));
    let mut rig = server.rig();
    let ask = &mut |port, transport| ask(&mut rig, query("example.org", port, transport)).unwrap();
    assert_eq!(
        ask(None, None),
        [hop(Udp, "192.0.2.1:5060"), hop(Udp, "192.0.2.2:5060")]
    );
    assert_eq!(ask(None, Some(Tcp))[0], hop(Tcp, "192.0.2.1:5060"));
    assert_eq!(ask(Some(5099), None)[0], hop(Udp, "192.0.2.1:5099"));
    let srv = server
        .asked()
        .iter()
        .filter(|(_, t)| *t == RecordType::SRV)
        .count();
    assert_eq!(srv, 3, "a port rules SRV out");
}

#[test]
fn failures_say_what_they_are_and_are_remembered_for_a_while() {
    let server = NameServer::start(Zone::from([
        (
            ("broken.example.", RecordType::A),
            Reply::Refuse(ResponseCode::ServFail),
        ),
        (("silent.example.", RecordType::A), Reply::Silence),
        (
            ("_sip._udp.closed.example.", RecordType::SRV),
            srv(&[(0, 0, ".")]),
        ),
        (("closed.example.", RecordType::A), a(300, &["192.0.2.1"])),
        (
            ("_sip._udp.half.example.", RecordType::SRV),
            Reply::Refuse(ResponseCode::ServFail),
        ),
        (("half.example.", RecordType::A), a(300, &["192.0.2.1"])),
    ]));
    let mut rig = server.rig_with(|resolver| {
        resolver.timeout = Duration::from_millis(100);
        resolver.attempts = 1;
    });
    for (host, port, expected) in [
        ("nowhere.example", None, ResolveError::NoSuchName),
        ("nowhere.example", Some(5060), ResolveError::NoSuchName),
        ("broken.example", Some(5060), ResolveError::Failed),
        ("silent.example", Some(5060), ResolveError::TimedOut),
        // SRV says "not here" (RFC 2782), whatever addresses there are.
        ("closed.example", None, ResolveError::NoSuchName),
        // SRV could not be had: the addresses may be the wrong place.
        ("half.example", None, ResolveError::Failed),
    ] {
        let query = query(host, port, None);
        assert_eq!(
            ask(&mut rig, query.clone()),
            Err(expected),
            "{host} {port:?}"
        );
        let before = server.asked().len();
        assert_eq!(
            rig.network.resolve(0, query, 7),
            Some(Err(expected)),
            "{host} {port:?}"
        );
        assert_eq!(server.asked().len(), before);
    }
}

#[test]
fn a_failure_is_forgotten_when_its_time_is_over() {
    let server = NameServer::start(Zone::new());
    let negative_ttl = Duration::from_millis(50);
    let mut rig = server.rig_with(|resolver| resolver.negative_ttl = negative_ttl);
    let query = query("nowhere.example", Some(5060), None);
    let start = Instant::now();
    assert_eq!(ask(&mut rig, query.clone()), Err(ResolveError::NoSuchName));
    while rig.network.resolve(0, query.clone(), 8).is_some() {
        assert!(start.elapsed() < PATIENCE, "remembered for ever");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(start.elapsed() >= negative_ttl);
    assert!(matches!(
        rig.next(),
        Seen::Resolved(8, Err(ResolveError::NoSuchName))
    ));
}

#[test]
fn a_time_to_live_is_kept_and_an_answer_comes_from_the_cache_meanwhile() {
    let server = NameServer::start(Zone::from([
        (("long.example.", RecordType::A), a(300, &["192.0.2.1"])),
        (("short.example.", RecordType::A), a(1, &["192.0.2.2"])),
    ]));
    let mut rig = server.rig();
    let start = Instant::now();
    let long = query("Long.Example.", Some(5060), None);
    let short = query("short.example", Some(5060), None);
    ask(&mut rig, long.clone()).unwrap();
    ask(&mut rig, short.clone()).unwrap();
    let before = server.asked().len();
    let cached = rig
        .network
        .resolve(0, query("LONG.example", Some(5060), None), 1);
    assert_eq!(
        cached.unwrap().unwrap().to_vec(),
        [hop(Udp, "192.0.2.1:5060")]
    );
    while rig.network.resolve(0, short.clone(), 2).is_some() {
        assert!(start.elapsed() < PATIENCE, "remembered for ever");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(start.elapsed() >= Duration::from_millis(900));
    assert!(matches!(rig.next(), Seen::Resolved(2, Ok(_))));
    assert_eq!(server.asked().len(), before + 1);
    assert!(rig.network.resolve(0, long, 3).is_some());
}

#[test]
fn equal_questions_are_asked_once_and_all_askers_are_answered() {
    let server = NameServer::start(Zone::from([(
        ("example.org.", RecordType::A),
        a(300, &["192.0.2.1"]),
    )]));
    let mut rig = server.rig();
    server.held.store(true, Ordering::Relaxed);
    for token in 0..20 {
        assert_eq!(
            rig.network
                .resolve(0, query("example.org", Some(5060), None), token),
            None
        );
    }
    server.held.store(false, Ordering::Relaxed);
    for token in 0..20 {
        let Seen::Resolved(to, Ok(candidates)) = rig.next() else {
            panic!("no answer")
        };
        assert_eq!(to, token);
        assert_eq!(candidates.to_vec(), [hop(Udp, "192.0.2.1:5060")]);
    }
    assert_eq!(server.asked(), [("example.org.".to_owned(), RecordType::A)]);
}

#[test]
fn too_many_open_questions_fail_at_once() {
    let server = NameServer::start(Zone::new());
    let mut rig = server.rig_with(|resolver| resolver.pending = 2);
    server.held.store(true, Ordering::Relaxed);
    for host in ["a.example", "b.example"] {
        assert_eq!(rig.network.resolve(0, query(host, Some(1), None), 1), None);
    }
    let third = query("c.example", Some(1), None);
    assert_eq!(
        rig.network.resolve(0, third.clone(), 1),
        Some(Err(ResolveError::Failed))
    );
    server.held.store(false, Ordering::Relaxed);
    for _ in 0..2 {
        assert!(matches!(
            rig.next(),
            Seen::Resolved(1, Err(ResolveError::NoSuchName))
        ));
    }
    assert_eq!(ask(&mut rig, third), Err(ResolveError::NoSuchName));
}

#[test]
fn addresses_and_configured_names_never_reach_a_name_server() {
    let server = NameServer::start(Zone::new());
    let mut names = StaticNames::default();
    names.add_route(
        "Routed.Example",
        &[hop(Tcp, "192.0.2.5:5070"), hop(Udp, "192.0.2.6:5060")],
    );
    names.add_host("pbx", &[IpAddr::from([192, 0, 2, 7])]);
    let rig = server.rig_with(|resolver| resolver.names = names);
    let known = |query: Query| rig.network.resolve(0, query, 1).unwrap().unwrap().to_vec();
    assert_eq!(
        known(query("routed.example", Some(9), None)),
        [hop(Tcp, "192.0.2.5:5070"), hop(Udp, "192.0.2.6:5060")]
    );
    assert_eq!(
        known(query("PBX", None, Some(Tcp))),
        [hop(Tcp, "192.0.2.7:5060")]
    );
    assert_eq!(
        known(query("192.0.2.8", Some(5070), None)),
        [hop(Udp, "192.0.2.8:5070")]
    );
    assert_eq!(
        known(query("[2001:db8::1]", None, None)),
        [hop(Udp, "[2001:db8::1]:5060")]
    );
    // The configuration may change.
    let mut names = StaticNames::default();
    names.add_host("pbx", &[IpAddr::from([192, 0, 2, 9])]);
    rig.network.set_names(names);
    assert_eq!(
        known(query("pbx", None, None)),
        [hop(Udp, "192.0.2.9:5060")]
    );
    assert_eq!(server.asked(), []);
    assert_eq!(Query::new(b"caf\xe9.example", None, None, false), None);
    assert_eq!(Query::new(b"", None, None, false), None);
}

/// A hosts file goes before the name server, and only for what it has.
#[test]
fn a_hosts_file_answers_before_anybody_is_asked() {
    let server = NameServer::start(Zone::from([
        (("a.example.", RecordType::A), a(300, &["192.0.2.1"])),
        (("b.example.", RecordType::A), a(300, &["192.0.2.2"])),
    ]));
    let path = std::env::temp_dir().join(format!("sipbox-hosts-{}", std::process::id()));
    std::fs::write(&path, "192.0.2.7 a.example other # not b.example\n").unwrap();
    let mut rig = server.rig_with(|resolver| resolver.hosts = Some(path.clone()));
    let at = |host| query(host, Some(5060), None);
    for (host, expected) in [
        ("A.example", "192.0.2.7:5060"),
        ("other", "192.0.2.7:5060"),
        ("b.example", "192.0.2.2:5060"),
    ] {
        assert_eq!(
            ask(&mut rig, at(host)).unwrap(),
            [hop(Udp, expected)],
            "{host}"
        );
    }
    assert_eq!(server.asked(), [("b.example.".to_owned(), RecordType::A)]);
    std::fs::remove_file(&path).unwrap();
    // Without the file, or with one that is gone, the server is asked.
    for hosts in [None, Some(path)] {
        let mut rig = server.rig_with(|resolver| resolver.hosts = hosts);
        let found = ask(&mut rig, at("a.example")).unwrap();
        assert_eq!(found, [hop(Udp, "192.0.2.1:5060")]);
    }
}

#[test]
fn a_silent_server_is_asked_as_often_as_it_says_and_the_next_one_answers() {
    let silent = NameServer::start(Zone::from([(
        ("a.example.", RecordType::A),
        Reply::Silence,
    )]));
    for attempts in [1, 3] {
        let before = silent.asked().len();
        let mut rig = silent.rig_with(|resolver| {
            resolver.timeout = Duration::from_millis(100);
            resolver.attempts = attempts;
        });
        let query = query("a.example", Some(5060), None);
        assert_eq!(ask(&mut rig, query), Err(ResolveError::TimedOut));
        assert_eq!(silent.asked().len() - before, attempts);
    }
    let server = NameServer::start(Zone::from([(
        ("a.example.", RecordType::A),
        a(300, &["192.0.2.1"]),
    )]));
    let mut rig = silent.rig_with(|resolver| {
        resolver.timeout = Duration::from_millis(100);
        resolver.name_servers = Some(vec![silent.address, server.address]);
    });
    let found = ask(&mut rig, query("a.example", Some(5060), None)).unwrap();
    assert_eq!(found, [hop(Udp, "192.0.2.1:5060")]);
}

#[test]
fn no_answer_is_kept_longer_than_the_settings_allow() {
    let server = NameServer::start(Zone::from([(
        ("a.example.", RecordType::A),
        a(300, &["192.0.2.1"]),
    )]));
    let at = || query("a.example", Some(5060), None);
    let mut rig = server.rig_with(|resolver| resolver.max_ttl = Duration::from_secs(1));
    let start = Instant::now();
    ask(&mut rig, at()).unwrap();
    while rig.network.resolve(0, at(), 2).is_some() {
        assert!(start.elapsed() < PATIENCE, "remembered for ever");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(matches!(rig.next(), Seen::Resolved(2, Ok(_))));
    assert_eq!(server.asked().len(), 2);
    // Nothing is remembered where there is no room.
    let mut rig = server.rig_with(|resolver| resolver.cache = 0);
    ask(&mut rig, at()).unwrap();
    ask(&mut rig, at()).unwrap();
    assert_eq!(server.asked().len(), 4);
}
