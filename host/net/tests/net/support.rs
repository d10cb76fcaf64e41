//! Drives a worker on the test's own thread.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sipbox_core::flow::{Flow, ListenerId, NextHop};
use sipbox_core::outbox::{Candidates, ResolveError};
use sipbox_net::{Input, ListenerConfig, NetConfig, Network, SendError, Worker};
use sipbox_sip::Transport;
use sipbox_sip::stream::FrameErrorKind;
use tokio::runtime::Runtime;

/// Long enough for any machine; no passing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough to see that nothing comes.
pub(crate) const QUIET: Duration = Duration::from_millis(50);

/// An input that outlives its wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Message(Vec<u8>, Flow),
    Closed(Flow),
    Unframed(Vec<u8>, FrameErrorKind, Flow),
    SendFailed(Token, SendError),
    Undeliverable(Vec<u8>, SocketAddr),
    Resolved(u8, Result<Candidates, ResolveError>),
    Event(u32),
}

/// What names a send here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) u64);

pub(crate) type TestNetwork = Network<u32, Token, u8>;

pub(crate) fn seen(input: Input<'_, u32, Token, u8>) -> Seen {
    match input {
        Input::Message { message, flow } => Seen::Message(message.into_bytes().to_vec(), flow),
        Input::ConnectionClosed { flow } => Seen::Closed(flow),
        Input::SendFailed { token, error } => Seen::SendFailed(token, error),
        Input::Unframed { head, kind, flow } => Seen::Unframed(head.to_vec(), kind, flow),
        Input::Undeliverable { quoted, peer } => Seen::Undeliverable(quoted.to_vec(), peer),
        Input::Resolved { token, result } => Seen::Resolved(token, result),
        Input::Event(event) => Seen::Event(event),
    }
}

/// A network with one worker that the test drives itself.
pub(crate) struct Rig {
    pub(crate) network: TestNetwork,
    worker: Worker<u32, Token, u8>,
    pending: VecDeque<Seen>,
    /// Dropped last: its tasks serve the network.
    pub(crate) runtime: Runtime,
}

pub(crate) const FIRST: ListenerId = ListenerId(0);

pub(crate) fn config(listeners: &[(Transport, &str)]) -> NetConfig {
    NetConfig {
        listeners: listeners
            .iter()
            .map(|(transport, address)| ListenerConfig {
                transport: *transport,
                address: address.parse().unwrap(),
            })
            .collect(),
        ..NetConfig::default()
    }
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

impl Rig {
    pub(crate) fn new(config: &NetConfig) -> Self {
        let runtime = runtime();
        let (network, mut workers) = Network::start(config, runtime.handle()).unwrap();
        assert_eq!(workers.len(), 1);
        let worker = workers.pop().unwrap();
        Self {
            network,
            worker,
            pending: VecDeque::new(),
            runtime,
        }
    }

    pub(crate) fn local(&self, listener: u16) -> SocketAddr {
        self.network.local_addr(ListenerId(listener)).unwrap()
    }

    fn turn(&mut self, timeout: Duration) {
        let pending = &mut self.pending;
        self.worker
            .wait(Some(timeout), &mut |input| pending.push_back(seen(input)))
            .unwrap();
    }

    /// The next input.
    pub(crate) fn next(&mut self) -> Seen {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(input) = self.pending.pop_front() {
                return input;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing came");
            self.turn(left);
        }
    }

    /// The next input, which must be a message.
    pub(crate) fn message(&mut self) -> (Vec<u8>, Flow) {
        match self.next() {
            Seen::Message(bytes, flow) => (bytes, flow),
            other => panic!("expected a message, got {other:?}"),
        }
    }

    /// Asserts that nothing comes for a while.
    pub(crate) fn quiet(&mut self) {
        let deadline = Instant::now() + QUIET;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.turn(left);
        }
        assert_eq!(self.pending, []);
    }
}

pub(crate) fn down(flow: Flow) -> NextHop {
    NextHop::Flow {
        flow,
        reconnect: None,
    }
}
