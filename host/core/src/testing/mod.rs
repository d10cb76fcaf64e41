//! Tests of the whole stack, message by message: a rig that plays driver and
//! network by hand. (The simulator in [`crate::sim`] plays them by itself.)

mod answers;
mod calls;
mod dialogs;
mod failures;
mod forks;
mod hangups;
mod homes;
mod hooks;
mod names;
mod nat;
mod news;
mod record_route;
mod room;
mod routes;
mod rows;
mod rules;
mod settled;
mod silence;
mod stateless;
mod stopping;
mod undeliverable;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand_core::SeedableRng;
use sipbox_sip::{Index, Message, OwnedMessage, Transport};

use crate::cx::Mutation;
use crate::decision::{ArmedSet, Decision, Relay, ResolvedTarget, Ruling};
use crate::dialog::{DID_PARAM, DialogTie, NewDialog, Notice, Wanted};
use crate::flow::{ConnectionId, Flow, ListenerId, NextHop, TenantId};
use crate::ids::SendToken;
use crate::lease::Acquired;
use crate::outbox::{Ask, Event, Outbox, Resolve};
use crate::policy::{Armed, CallState, Facts};
use crate::settings::{ListenerSpec, Settings, SettingsSpec, TenantSpec};
use crate::stack::{Env, Rng, Stack, StackOptions, Unsettled};
use crate::time::{Time, WallTime};

pub(crate) const UDP: ListenerId = ListenerId(0);
pub(crate) const TCP: ListenerId = ListenerId(1);
pub(crate) const ALICE: &str = "192.0.2.1:5060";
pub(crate) const BOB: &str = "192.0.2.2:5060";
pub(crate) const CAROL: &str = "192.0.2.3:5060";

/// One message that left.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) hop: NextHop,
    pub(crate) text: String,
    pub(crate) token: Option<SendToken>,
}

impl Sent {
    pub(crate) fn to(&self) -> String {
        match self.hop {
            NextHop::Flow { flow, .. } => format!("{}/{}", flow.transport, flow.peer),
            NextHop::Address {
                transport, address, ..
            } => format!("{transport}/{address}"),
        }
    }

    pub(crate) fn first_line(&self) -> &str {
        self.text.lines().next().unwrap_or("")
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        header(&self.text, name)
    }

    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        all(&self.text, name)
    }
}

pub(crate) fn header(text: &str, name: &str) -> Option<String> {
    all(text, name).into_iter().next()
}

pub(crate) fn all(text: &str, name: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.to_owned())
        .collect()
}

type Judge = Box<dyn FnMut(Message<'_>, &Facts) -> Ruling>;

pub(crate) struct Rig {
    pub(crate) stack: Stack,
    pub(crate) settings: Arc<Settings>,
    pub(crate) now: Time,
    rng: Rng,
    pub(crate) out: Outbox,
    /// Answers `Ask::Request` and `Ask::Stateless`; `None`: they wait in `asks`.
    pub(crate) judge: Option<Judge>,
    pub(crate) armed: Armed,
    /// What the policies left behind.
    pub(crate) state: CallState,
    /// Each call that begins has a dialog, and a lease of one key.
    pub(crate) dialogs: Option<Wanted>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) asks: Vec<Ask>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) resolves: Vec<Resolve>,
    pub(crate) events: Vec<Event>,
}

pub(crate) fn spec() -> SettingsSpec {
    let listener = |name: &str, transport| ListenerSpec {
        name: name.into(),
        transport,
        address: "192.0.2.100:5060".parse().unwrap(),
        advertised: None,
        tenant: None,
        stateless: vec![],
    };
    SettingsSpec {
        listeners: vec![
            listener("udp", Transport::Udp),
            listener("tcp", Transport::Tcp),
        ],
        tenants: vec![TenantSpec {
            id: TenantId(0),
            name: "home".into(),
            domains: vec!["home.example".into()],
            stateless: vec![],
            transactions: None,
            quota: Default::default(),
        }],
        ..SettingsSpec::default()
    }
}

pub(crate) fn udp(peer: &str) -> Flow {
    Flow {
        listener: UDP,
        transport: Transport::Udp,
        peer: peer.parse().unwrap(),
        connection: None,
        local: None,
    }
}

pub(crate) fn tcp(peer: &str, slot: u32) -> Flow {
    Flow {
        listener: TCP,
        transport: Transport::Tcp,
        peer: peer.parse().unwrap(),
        connection: Some(ConnectionId {
            slot,
            generation: 1,
        }),
        local: None,
    }
}

/// A relay to addresses: one group of them all.
pub(crate) fn parallel(addresses: &[&str]) -> Ruling {
    Ruling::Relay(Relay {
        groups: vec![targets(addresses)],
        ..Relay::default()
    })
}

/// A relay to addresses, one after the other.
pub(crate) fn serial(addresses: &[&str]) -> Ruling {
    let groups = addresses
        .iter()
        .map(|address| targets(&[address]))
        .collect();
    Ruling::Relay(Relay {
        groups,
        ..Relay::default()
    })
}

/// A relay with limits of time, in milliseconds.
pub(crate) fn relay(
    groups: Vec<Vec<ResolvedTarget>>,
    ring_timeout: u32,
    total_timeout: u32,
) -> Ruling {
    Ruling::Relay(Relay {
        groups,
        ring_timeout,
        total_timeout,
        ..Relay::default()
    })
}

pub(crate) fn targets(addresses: &[&str]) -> Vec<ResolvedTarget> {
    addresses
        .iter()
        .map(|address| ResolvedTarget::uri(format!("sip:bob@{address}")))
        .collect()
}

impl Rig {
    pub(crate) fn new(judge: impl FnMut(Message<'_>, &Facts) -> Ruling + 'static) -> Self {
        Self::with(spec(), judge)
    }

    pub(crate) fn with(
        spec: SettingsSpec,
        judge: impl FnMut(Message<'_>, &Facts) -> Ruling + 'static,
    ) -> Self {
        Self {
            stack: Stack::new(StackOptions {
                shards: 4,
                node: 1,
                boot: 2,
                key: [3; 16],
                route_key: [4; 16],
            }),
            settings: Arc::new(Settings::new(spec).unwrap()),
            now: Time::from_millis(1000),
            rng: Rng::seed_from_u64(1),
            out: Outbox::default(),
            judge: Some(Box::new(judge)),
            armed: Armed::default(),
            state: CallState::default(),
            dialogs: None,
            notices: Vec::new(),
            asks: Vec::new(),
            sent: Vec::new(),
            resolves: Vec::new(),
            events: Vec::new(),
        }
    }

    /// A rig whose questions wait to be answered by hand.
    pub(crate) fn undecided() -> Self {
        Self::undecided_with(spec())
    }

    pub(crate) fn undecided_with(spec: SettingsSpec) -> Self {
        let mut rig = Self::with(spec, |_, _| Ruling::Drop);
        rig.judge = None;
        rig
    }

    pub(crate) fn mutate(mut self, mutation: Mutation) -> Self {
        self.stack.mutation = Some(mutation);
        self
    }

    pub(crate) fn call<R>(
        &mut self,
        call: impl FnOnce(&Stack, &mut Env<'_>, &mut Outbox) -> R,
    ) -> R {
        let mut env = Env {
            now: self.now,
            wall: self.wall(),
            settings: &self.settings,
            rng: &mut self.rng,
        };
        let result = call(&self.stack, &mut env, &mut self.out);
        self.drain();
        result
    }

    pub(crate) fn receive(&mut self, text: &str, flow: Flow) {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let mut index = Index::new();
        let message = Message::parse(&bytes, &mut index).expect("a message");
        self.call(|stack, env, out| stack.receive(env, message, &bytes, flow, out));
    }

    /// Moves what came out into the rig, and lets the judge answer.
    fn drain(&mut self) {
        for transmit in &self.out.transmits {
            self.sent.push(Sent {
                hop: transmit.next_hop,
                text: String::from_utf8_lossy(self.out.bytes(transmit)).into_owned(),
                token: transmit.token,
            });
        }
        self.resolves.append(&mut self.out.resolves);
        self.events.append(&mut self.out.events);
        for id in std::mem::take(&mut self.out.news) {
            while let Some(notice) = self.stack.dialogs().next_notice(id) {
                self.notices.push(notice);
                self.stack.dialogs().told(id);
            }
        }
        let asks = std::mem::take(&mut self.out.asks);
        self.out.clear();
        for ask in asks {
            match (&ask, self.judge.is_some()) {
                (
                    Ask::Request {
                        id, request, facts, ..
                    },
                    true,
                ) => {
                    let decision = self.judge(request.clone(), facts);
                    let id = *id;
                    self.call(|stack, env, out| stack.request_verdict(env, id, decision, out));
                }
                (
                    Ask::Stateless {
                        id, request, facts, ..
                    },
                    true,
                ) => {
                    let id = *id;
                    let mut decision = self.judge(request.clone(), facts);
                    let facts = Arc::clone(facts);
                    self.call(|stack, env, out| {
                        if decision.ruling.forwards()
                            && let Err(Unsettled::Refused(why)) =
                                stack.settle_stateless(env, &decision.request, &facts)
                        {
                            decision.ruling = Ruling::Reply(why.reply());
                        }
                        stack.forward_stateless(env, id, &facts, decision, out);
                    });
                }
                _ => self.asks.push(ask),
            }
        }
    }

    fn judge(&mut self, request: OwnedMessage, facts: &Facts) -> Decision {
        let mut judge = self.judge.take().unwrap();
        let ruling = judge(request.as_ref(), facts);
        self.judge = Some(judge);
        let mut decision = self.decide(request, ruling);
        if let Some(wanted) = self.dialogs {
            decision.state = self.dialog_state(&decision.request, facts, wanted, 2);
        }
        decision
    }

    /// What a policy leaves behind that wants a dialog and a lease for each call.
    pub(crate) fn dialog_state(
        &self,
        request: &OwnedMessage,
        facts: &Facts,
        wanted: Wanted,
        limit: u32,
    ) -> CallState {
        let mut state = CallState::default();
        let message = request.as_ref();
        if facts.in_dialog || message.method() != sipbox_sip::Method::Invite {
            return state;
        }
        let dialogs = self.stack.dialogs();
        let id = dialogs.reserve(facts.tenant, message.call_id().unwrap());
        let new = NewDialog {
            id,
            wanted,
            vars: vec![("who".into(), "alice".into())],
            flags: vec!["answered-here".into()],
            profiles: vec![dialogs.profiles().take_among(facts.tenant, "calls", "out")],
            watched: true,
            facts: Arc::new(facts.clone()),
        };
        let new = Some(Arc::new(new));
        state.dialog = Some(DialogTie { id, new });
        state.route_params.push((DID_PARAM.into(), id.to_string()));
        match self
            .stack
            .leases()
            .acquire(facts.tenant, "user", "alice", limit)
        {
            Acquired::Granted(lease) => state.leases.push(lease),
            Acquired::Full(held) => panic!("full with {held}"),
        }
        state
    }

    pub(crate) fn decide(&self, request: OwnedMessage, ruling: Ruling) -> Decision {
        let armed = ArmedSet::from_slice(&[self.armed]);
        Decision {
            ruling,
            request,
            state: self.state.clone(),
            armed,
        }
    }

    /// Answers the first waiting `Ask::Request`.
    pub(crate) fn answer(&mut self, ruling: Ruling) -> bool {
        let at = self
            .asks
            .iter()
            .position(|ask| matches!(ask, Ask::Request { .. }))
            .expect("a question");
        let Ask::Request { id, request, .. } = self.asks.remove(at) else {
            unreachable!()
        };
        let decision = self.decide(request, ruling);
        self.call(|stack, env, out| stack.request_verdict(env, id, decision, out))
    }

    pub(crate) fn wall(&self) -> WallTime {
        WallTime(1_700_000_000_000 + self.now.as_millis())
    }

    /// Lets time pass, firing timers where they are due.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            let next = (0..self.stack.shards())
                .filter_map(|shard| self.stack.next_deadline(shard))
                .chain(self.stack.dialogs().next_deadline())
                .min()
                .filter(|at| *at <= end);
            self.now = next.unwrap_or(end).max(self.now);
            for shard in 0..self.stack.shards() {
                self.call(|stack, env, out| stack.tick(env, shard, out));
            }
            self.call(Stack::dialogs_due);
            if next.is_none() {
                return;
            }
        }
    }

    /// Lets time pass until every timer has fired, and checks that nothing is left.
    pub(crate) fn finish(&mut self) {
        self.pass(400_000);
        assert_eq!(self.stack.counts(), crate::stack::Counts::default());
        assert_eq!(
            self.settings.account.live(),
            0,
            "counted, though none is left"
        );
    }

    /// What left since the last time.
    pub(crate) fn take(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// What left, of which there must be so many messages.
    pub(crate) fn take_n<const N: usize>(&mut self) -> [Sent; N] {
        let sent = self.take();
        let lines: Vec<_> = sent
            .iter()
            .map(|sent| format!("{} -> {}", sent.first_line(), sent.to()))
            .collect();
        sent.try_into()
            .unwrap_or_else(|_| panic!("expected {N} messages, not {lines:#?}"))
    }

    pub(crate) fn first_lines(&mut self) -> Vec<String> {
        self.take()
            .iter()
            .map(|sent| sent.first_line().to_owned())
            .collect()
    }
}

/// A request of Alice's, with `extra` header lines.
pub(crate) fn request(method: &str, branch: &str, extra: &str) -> String {
    request_to(method, "sip:bob@home.example", branch, extra)
}

pub(crate) fn request_to(method: &str, uri: &str, branch: &str, extra: &str) -> String {
    let to_tag = if extra.contains("To: ") {
        ""
    } else {
        "To: <sip:bob@home.example>\r\n"
    };
    let hops = if extra.contains("Max-Forwards") {
        ""
    } else {
        "Max-Forwards: 70\r\n"
    };
    format!(
        "{method} {uri} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {ALICE};branch=z9hG4bK{branch}\r\n\
         {hops}From: <sip:alice@home.example>;tag=a1\r\n\
         {to_tag}Call-ID: call-{branch}\r\n\
         CSeq: 1 {method}\r\n\
         {extra}Content-Length: 0\r\n\r\n"
    )
}

/// What a phone answers to a request that it got.
pub(crate) fn response(request: &str, status: u16, extra: &str) -> String {
    let mut text = format!("SIP/2.0 {status} X\r\n");
    for line in request.lines().skip(1) {
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        match name {
            "Via" | "From" | "Call-ID" | "CSeq" | "Record-Route" => {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            "To" if value.contains("tag=") || status == 100 => {
                text.push_str(&format!("To: {value}\r\n"));
            }
            "To" => text.push_str(&format!("To: {value};tag=b1\r\n")),
            _ => {}
        }
    }
    text.push_str(extra);
    text.push_str("Content-Length: 0\r\n\r\n");
    text
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
