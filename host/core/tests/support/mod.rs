//! A stack under a script: what the steady-state test and the bench have in common.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "no user of this module needs all of it, and each may stop where it stands"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand_core::SeedableRng;
use sipbox_core::decision::{ArmedSet, Decision, Relay, ResolvedTarget, Ruling};
use sipbox_core::flow::{Flow, ListenerId, TenantId};
use sipbox_core::outbox::{Ask, Outbox};
use sipbox_core::policy::CallState;
use sipbox_core::settings::{ListenerSpec, Settings, SettingsSpec, TenantSpec};
use sipbox_core::stack::{Env, Rng, Stack, StackOptions};
use sipbox_core::time::{Time, WallTime};
use sipbox_sip::{Index, Message, Transport};

/// The messages that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With the question and the answer to it.
    Invite,
    /// 180
    Ringing,
    /// Of INVITE and BYE.
    Ok,
    /// For the 200.
    Ack,
    /// Within the dialog.
    Bye,
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Self; 5] = [Self::Invite, Self::Ringing, Self::Ok, Self::Ack, Self::Bye];
}

/// A stack and what drives it.
pub(crate) struct Bench {
    /// The stack.
    pub(crate) stack: Arc<Stack>,
    settings: Arc<Settings>,
    rng: Rng,
    now: Time,
    /// What came out of the last step.
    pub(crate) out: Outbox,
    index: Index,
    /// The last message that left for the callee, and its length.
    sent: Vec<u8>,
}

fn flow(peer: &str) -> Flow {
    Flow {
        listener: ListenerId(0),
        transport: Transport::Udp,
        peer: peer.parse().unwrap(),
        connection: None,
        local: None,
    }
}

impl Bench {
    /// A stack without any state.
    pub(crate) fn new() -> Self {
        let options = StackOptions {
            route_key: [4; 16],
            shards: 4,
            node: 1,
            boot: 2,
            key: [3; 16],
        };
        Self::over(Arc::new(Stack::new(options)))
    }

    /// The stack, for another bench.
    pub(crate) fn shared(&self) -> Arc<Stack> {
        Arc::clone(&self.stack)
    }

    /// A bench over a stack that others use too.
    pub(crate) fn over(stack: Arc<Stack>) -> Self {
        let spec = SettingsSpec {
            listeners: vec![ListenerSpec {
                name: "udp".into(),
                transport: Transport::Udp,
                address: "192.0.2.100:5060".parse().unwrap(),
                advertised: None,
                tenant: None,
                stateless: vec![],
            }],
            tenants: vec![TenantSpec {
                id: TenantId(0),
                name: "home".into(),
                domains: vec!["home.example".into()],
                stateless: vec![],
                transactions: None,
                quota: Default::default(),
            }],
            ..SettingsSpec::default()
        };
        Self {
            stack,
            settings: Arc::new(Settings::new(spec).unwrap()),
            rng: Rng::seed_from_u64(1),
            now: Time::from_millis(1),
            out: Outbox::default(),
            index: Index::new(),
            sent: Vec::with_capacity(4096),
        }
    }

    fn receive(&mut self, bytes: &Bytes, flow: Flow) {
        self.out.clear();
        let mut env = Env {
            now: self.now,
            wall: WallTime(0),
            settings: &self.settings,
            rng: &mut self.rng,
        };
        let message = Message::parse(bytes, &mut self.index).unwrap();
        self.stack
            .receive(&mut env, message, bytes, flow, &mut self.out);
    }

    /// Answers the question in the outbox.
    fn decide(&mut self, target: &ResolvedTarget) {
        let ask = self.out.asks.pop();
        let ruling = Ruling::Relay(Relay {
            groups: vec![vec![target.clone()]],
            record_route: Some(Vec::new()),
            ..Relay::default()
        });
        let decision = |request| Decision {
            ruling,
            request,
            state: CallState::default(),
            armed: ArmedSet::new(),
        };
        let mut env = Env {
            now: self.now,
            wall: WallTime(0),
            settings: &self.settings,
            rng: &mut self.rng,
        };
        match ask {
            Some(Ask::Request { id, request, .. }) => {
                let decision = decision(request);
                assert!(
                    self.stack
                        .request_verdict(&mut env, id, decision, &mut self.out)
                );
            }
            Some(Ask::Stateless {
                id, request, facts, ..
            }) => {
                let decision = decision(request);
                self.stack
                    .forward_stateless(&mut env, id, &facts, decision, &mut self.out);
            }
            other => panic!("{other:?}"),
        }
        let transmit = self.out.transmits.last().unwrap();
        self.sent.clear();
        self.sent.extend_from_slice(self.out.bytes(transmit));
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let mut env = Env {
            now: self.now,
            wall: WallTime(0),
            settings: &self.settings,
            rng: &mut self.rng,
        };
        for shard in 0..self.stack.shards() {
            self.out.clear();
            self.stack.tick(&mut env, shard, &mut self.out);
        }
    }
}

/// Messages of calls, made before anything is measured.
pub(crate) struct Script {
    invite: Bytes,
    bye: Bytes,
    ack: Bytes,
}

fn request(method: &str, uri: &str, number: usize, more: &str, body: &str) -> Bytes {
    Bytes::from(format!(
        "{method} {uri} SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bK{method}{number}\r\n\
         Max-Forwards: 70\r\n\
         From: \"Alice\" <sip:alice@home.example>;tag=a{number}\r\n\
         To: \"Bob\" <sip:bob@home.example>{}\r\n\
         Call-ID: {number}-7f1d9c2e4b@192.0.2.1\r\n\
         CSeq: 1 {method}\r\n\
         Contact: <sip:alice@192.0.2.1:5060>\r\n\
         Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, MESSAGE\r\n\
         Supported: replaces, timer\r\n\
         User-Agent: Steady 1.0\r\n\
         {more}Content-Length: {}\r\n\r\n{body}",
        if method == "INVITE" { "" } else { ";tag=b1" },
        body.len(),
    ))
}

/// The messages of one call.
pub(crate) fn script(number: usize) -> Script {
    let body = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
                m=audio 40000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\n";
    let sdp = "Content-Type: application/sdp\r\n";
    let route = "Route: <sip:192.0.2.100;lr;ft=abcdef>\r\n";
    Script {
        invite: request("INVITE", "sip:bob@home.example", number, sdp, body),
        ack: request("ACK", "sip:bob@192.0.2.2:5060", number, route, ""),
        bye: request("BYE", "sip:bob@192.0.2.2:5060", number, route, ""),
    }
}

/// What the callee answers, into `out`.
fn respond(request: &[u8], line: &str, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
    let text = std::str::from_utf8(request).unwrap();
    for field in text.lines().skip(1).take_while(|field| !field.is_empty()) {
        let name = field.split(':').next().unwrap();
        if matches!(
            name,
            "Via" | "From" | "Call-ID" | "CSeq" | "Record-Route" | "To"
        ) {
            out.extend_from_slice(field.as_bytes());
            if name == "To" && !field.contains("tag=") {
                out.extend_from_slice(b";tag=b1");
            }
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"Contact: <sip:bob@192.0.2.2:5060>\r\nContent-Length: 0\r\n\r\n");
}

/// One call: INVITE, 180, 200, ACK, BYE, 200.
pub(crate) fn call(
    bench: &mut Bench,
    script: &Script,
    mut measure: impl FnMut(Kind, &mut dyn FnMut()),
) {
    let target = ResolvedTarget::uri("sip:bob@192.0.2.2:5060");
    let along = ResolvedTarget::default();
    let (alice, bob) = (flow("192.0.2.1:5060"), flow("192.0.2.2:5060"));
    measure(Kind::Invite, &mut || {
        bench.receive(&script.invite, alice);
        bench.decide(&target);
    });
    let mut text = Vec::new();
    respond(&bench.sent.clone(), "SIP/2.0 180 Ringing", &mut text);
    let bytes = Bytes::from(std::mem::take(&mut text));
    measure(Kind::Ringing, &mut || bench.receive(&bytes, bob));
    assert_eq!(bench.out.transmits.len(), 1);
    respond(&bench.sent.clone(), "SIP/2.0 200 OK", &mut text);
    let bytes = Bytes::from(std::mem::take(&mut text));
    measure(Kind::Ok, &mut || bench.receive(&bytes, bob));
    assert_eq!(bench.out.transmits.len(), 1);
    measure(Kind::Ack, &mut || {
        bench.receive(&script.ack, alice);
        bench.decide(&along);
    });
    measure(Kind::Bye, &mut || {
        bench.receive(&script.bye, alice);
        bench.decide(&along);
    });
    respond(&bench.sent.clone(), "SIP/2.0 200 OK", &mut text);
    let bytes = Bytes::from(text);
    measure(Kind::Ok, &mut || bench.receive(&bytes, bob));
    assert_eq!(bench.out.transmits.len(), 1);
}
