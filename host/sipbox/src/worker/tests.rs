//! A worker by hand, beside a node whose own threads have nothing to do.

use std::net::UdpSocket;

use bytes::Bytes;
use rand_core::SeedableRng as _;
use sipbox_core::chain::Outcome;
use sipbox_core::decision::{ArmedSet, Ruling};
use sipbox_core::flow::{Flow, ListenerId, TenantId};
use sipbox_core::ids::AskId;
use sipbox_core::location::{Aor, NewContact};
use sipbox_core::policy::{
    CallState, Destination, Effect, Facts, RelayPlan, Reply, Target, UriTarget, Verdict,
};
use sipbox_core::settings::{ListenerSpec, Settings, SettingsSpec, TenantSpec};
use sipbox_sip::{OwnedMessage, Transport};
use smallvec::smallvec;

use super::*;
use crate::capabilities::RequestCapabilities;
use crate::configuration::Source;
use crate::decide::{self, Question, Ruled};
use crate::start::Running;
use crate::targets::Lookup;

/// A node for one tenant without policies, a worker that is none of its own, and a phone.
struct Bench {
    running: Running,
    worker: Worker,
    phone: UdpSocket,
    /// Settings whose second tenant the node does not have.
    settings: Arc<Settings>,
    runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

const HOME: TenantId = TenantId(0);

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sipbox.toml");
        let text = "[[listener]]\nname = \"udp\"\ntransport = \"udp\"\naddress = \"127.0.0.1:0\"\n\
             [store]\npath = \"sipbox.sqlite\"\n[control]\nsocket = \"control.sock\"\n\
             [limits]\ndrain = \"100ms\"\n\
             [[tenant]]\nname = \"home\"\ndomains = [\"home.test\"]\n";
        std::fs::write(&file, text).unwrap();
        let Ok(configuration) = Source::File(file).read().unwrap().finish() else {
            panic!("the configuration is wrong")
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let parts = configuration.parts();
        let running = runtime
            .block_on(Running::start(parts, configuration))
            .unwrap();
        let node = Arc::clone(&running.node);
        let address = node.network.local_addr(ListenerId(0)).unwrap();
        let tenant = |id, name: &str| TenantSpec {
            id: TenantId(id),
            name: name.into(),
            domains: vec![format!("{name}.test")],
            stateless: vec![],
            transactions: None,
            quota: Default::default(),
        };
        let settings = SettingsSpec {
            listeners: vec![ListenerSpec {
                name: "udp".into(),
                transport: Transport::Udp,
                address,
                advertised: None,
                tenant: None,
                stateless: vec![],
            }],
            tenants: vec![tenant(0, "home"), tenant(7, "gone")],
            ..SettingsSpec::default()
        };
        let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
        phone
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        Self {
            worker: Worker::new(node, 0, 1, Rng::seed_from_u64(1)),
            running,
            phone,
            settings: Arc::new(Settings::new(settings).unwrap()),
            runtime,
            _folder: folder,
        }
    }

    fn flow(&self) -> Flow {
        Flow {
            listener: ListenerId(0),
            transport: Transport::Udp,
            peer: self.phone.local_addr().unwrap(),
            connection: None,
            local: None,
        }
    }

    /// One step of the core with the settings of the bench.
    fn step(&mut self, call: impl FnOnce(&Node, &mut Env<'_>, &mut Outbox)) {
        let node = Arc::clone(&self.worker.node);
        let (now, wall) = node.clock.now();
        let mut env = Env {
            now,
            wall,
            settings: &self.settings,
            rng: &mut self.worker.rng,
        };
        call(&node, &mut env, &mut self.worker.out);
    }

    fn receive(&mut self, method: &str, domain: &str) {
        self.receive_with(method, domain, "");
    }

    /// Receives a request with further header lines.
    fn receive_with(&mut self, method: &str, domain: &str, headers: &str) {
        let phone = self.flow().peer;
        let text = format!(
            "{method} sip:{domain} SIP/2.0\r\nVia: SIP/2.0/UDP {phone};branch=z9hG4bK{method}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:a@{domain}>;tag=1\r\nTo: <sip:a@{domain}>\r\n\
             Call-ID: {method}\r\nCSeq: 1 {method}\r\n{headers}Content-Length: 0\r\n\r\n"
        );
        let bytes = Bytes::from(text);
        let mut index = Index::new();
        index.parse(&bytes).unwrap();
        let flow = self.flow();
        self.step(|node, env, out| {
            let message = Message::new(&bytes, &index);
            node.stack.receive(env, message, &bytes, flow, out);
        });
    }

    /// The question that the core has just asked.
    fn asked(&mut self) -> (AskId, OwnedMessage, Arc<Facts>) {
        match self.worker.out.asks.pop() {
            Some(Ask::Request {
                id, request, facts, ..
            }) => (id, request, facts),
            ask => panic!("{ask:?}"),
        }
    }

    /// What the phone hears: the first line of each message.
    fn hears(&mut self) -> String {
        self.worker.flush();
        let mut text = [0; 2000];
        let length = self.phone.recv(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        text.lines().next().unwrap().to_owned()
    }

    fn end(self) {
        self.runtime.block_on(self.running.stop()).unwrap();
    }
}

#[test]
fn a_request_whose_tenant_is_gone_is_answered_at_once() {
    let mut bench = Bench::new();
    for method in ["INVITE", "MESSAGE"] {
        bench.receive(method, "gone.test");
        assert_eq!(bench.hears(), "SIP/2.0 404 Not Found", "{method}");
    }
    bench.end();
}

/// Credentials of `user`, as a line.
fn credentials(user: usize) -> String {
    format!(
        "Authorization: Digest username=\"u{user}\", realm=\"home.test\", nonce=\"n\", \
         uri=\"sip:home.test\", response=\"00000000000000000000000000000000\"\r\n"
    )
}

#[test]
fn a_request_has_few_accounts_looked_up() {
    let mut bench = Bench::new();
    let node = Arc::clone(&bench.worker.node);
    let lines: String = (0..100).map(|line| credentials(line / 2)).collect();
    bench.receive_with("REGISTER", "home.test", &lines);
    let (_, request, _) = bench.asked();
    let tenant = node.snapshot.load().tenant(HOME).cloned().unwrap();
    let (known, missing) = decide::accounts(&node, &tenant, &request);
    assert!(known.is_empty());
    let users: Vec<&str> = missing.iter().map(|named| &*named.user).collect();
    assert_eq!(users, ["u0", "u1", "u2", "u3"]);
    bench.end();
}

#[test]
fn look_ups_beyond_the_limit_are_not_begun() {
    let mut bench = Bench::new();
    let node = Arc::clone(&bench.worker.node);
    let all = node.look_ups.available_permits().try_into().unwrap();
    let taken = node.look_ups.try_acquire_many(all).unwrap();
    bench.receive_with("REGISTER", "home.test", &credentials(1));
    assert_eq!(bench.hears(), "SIP/2.0 404 Not Found", "nobody's");
    assert!(node.credentials.cached("u1", "home.test").is_none());
    drop(taken);
    bench.end();
}

/// Invariant 7: what a policy staged is written if its verdict counts, and not if
/// something else was first.
#[test]
fn nothing_is_written_for_a_verdict_that_comes_too_late() {
    for late in [true, false] {
        let mut bench = Bench::new();
        let node = Arc::clone(&bench.worker.node);
        let (_, wall) = node.clock.now();
        let aor = Aor::parse("a@home.test").unwrap();
        let contact = NewContact {
            uri: "sip:a@192.0.2.1".into(),
            q: 1000,
            expires: Some(600),
            path: vec![],
            methods: None,
        };
        node.location.add(HOME, &aor, contact, wall).unwrap();
        bench.receive("REGISTER", "home.test");
        let (id, request, facts) = bench.asked();
        if late {
            bench.step(|node, env, out| node.stack.shutdown(env, out));
            assert_eq!(bench.hears(), "SIP/2.0 503 Service Unavailable");
        }
        let tenant = node.snapshot.load().tenant(HOME).cloned().unwrap();
        let capabilities =
            RequestCapabilities::new(Arc::clone(&node), Arc::clone(&tenant), Vec::new());
        let outcome = Outcome {
            verdict: Verdict::Reply(Reply::of(200)),
            request,
            state: CallState::default(),
            armed: ArmedSet::default(),
            effects: smallvec![Effect::RemoveLocation {
                aor: "a@home.test".into(),
            }],
            by: None,
            failed: None,
        };
        let question = Question::Request(id);
        bench
            .worker
            .rule(question, &tenant, facts, &capabilities, outcome);
        let stands = node.location.lookup(HOME, &aor, wall).len();
        assert_eq!(stands, usize::from(late));
        if !late {
            assert_eq!(bench.hears(), "SIP/2.0 200 OK");
        }
        bench.end();
    }
}

/// Invariant 15: a panic outside of the core ends its question at once, and no other.
#[test]
fn a_panic_while_a_question_is_answered_ends_that_question_only() {
    let mut bench = Bench::new();
    bench.receive("INVITE", "home.test");
    let (id, ..) = bench.asked();
    // Somebody else's answer has not left yet.
    bench.receive("MESSAGE", "gone.test");
    let (other, request, facts) = bench.asked();
    let question = Question::Request(other);
    bench
        .worker
        .carry_out(Ruled::without_tenant(question, request, facts));
    bench
        .worker
        .answering(Some(id), |_| panic!("deliberate fault"));
    assert_eq!(bench.hears(), "SIP/2.0 404 Not Found");
    assert_eq!(bench.hears(), "SIP/2.0 500 Server Internal Error");
    bench.end();
}

/// Invariant 15: a panic outside of any question loses the message that it met. Answers
/// that have not left yet are sent, and questions that wait are asked.
#[test]
fn a_panic_in_a_message_loses_that_message_only() {
    let mut bench = Bench::new();
    bench.receive("MESSAGE", "gone.test");
    let (other, request, facts) = bench.asked();
    let question = Question::Request(other);
    bench
        .worker
        .carry_out(Ruled::without_tenant(question, request, facts));
    bench.receive("INVITE", "home.test");
    bench.worker.guarded(|_| panic!("deliberate fault"));
    assert!(
        !bench.worker.has_work(),
        "all is done without a further message"
    );
    for method in ["MESSAGE", "INVITE"] {
        let answer = bench.hears();
        assert_eq!(answer, "SIP/2.0 404 Not Found", "{method}");
    }
    assert_eq!(bench.worker.node.stats.panics.get(), 1);
    bench.end();
}

/// Invariant 15: what waits behind a panic in the middle of a round is taken up again.
#[test]
fn a_panic_between_two_questions_loses_neither() {
    let mut bench = Bench::new();
    for method in ["INVITE", "MESSAGE", "OPTIONS"] {
        bench.receive(method, "home.test");
    }
    let first = bench.worker.out.asks.remove(0);
    bench.worker.guarded(|worker| {
        worker.send();
        worker.ask(first);
        panic!("deliberate fault");
    });
    for method in ["INVITE", "MESSAGE", "OPTIONS"] {
        let answer = bench.hears();
        assert_eq!(answer, "SIP/2.0 404 Not Found", "{method}");
    }
    bench.end();
}

/// What a policy learns of another tenant's bindings, by whatever way, leads it nowhere.
#[test]
fn a_flow_token_of_another_tenant_is_no_target() {
    let bench = Bench::new();
    let node = Arc::clone(&bench.running.node);
    let snapshot = node.snapshot.load();
    let lookup = Lookup {
        node: &node,
        tenant: snapshot.tenant(HOME).unwrap(),
        wall: node.clock.now().1,
    };
    let ruling = |owner: TenantId| {
        let target = UriTarget {
            uri: "sip:bob@home.test".into(),
            flow: node.tokens.encode(owner, &bench.flow()),
            ..UriTarget::default()
        };
        let target = Target {
            destination: Destination::Uri(target),
            q: 1000,
            id: 0,
            options: Vec::new(),
        };
        lookup.ruling(Verdict::Relay(RelayPlan {
            groups: vec![vec![target]],
            ..RelayPlan::default()
        }))
    };
    let Ruling::Relay(relay) = ruling(HOME) else {
        panic!("refused its own");
    };
    assert_eq!(relay.groups[0][0].flow, Some(bench.flow()));
    let Ruling::Reply(reply) = ruling(TenantId(7)) else {
        panic!("took another's");
    };
    assert_eq!(reply.status, 480);
    drop(snapshot);
    bench.end();
}
