//! The facade: listeners, workers and sending, tied together.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sipbox_core::flow::{Flow, ListenerId, NextHop};
use sipbox_core::ids::{ResolveToken, SendToken};
use sipbox_core::outbox::{Candidates, ResolveError};
use sipbox_sip::Transport;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::config::NetConfig;
use crate::error::{SendError, StartError};
use crate::queue::{WorkerQueue, queue};
use crate::resolver::{Families, Query, Resolver, StaticNames};
use crate::tcp::{self, Ended, StreamCounters, Streams};
use crate::udp;
use crate::worker::{Worker, WorkerCounters};

/// A bound listener.
struct Listener {
    transport: Transport,
    local: SocketAddr,
    udp: Option<udp::Socket>,
}

/// All listeners, by id.
pub(crate) struct Listeners {
    table: Vec<Listener>,
}

/// Listeners of streams, on their way to the runtime.
type StreamListeners = Vec<(ListenerId, std::net::TcpListener)>;

impl Listeners {
    fn bind(config: &NetConfig) -> Result<(Self, StreamListeners), StartError> {
        let mut table = Vec::with_capacity(config.listeners.len());
        let mut streams = Vec::new();
        for (number, listener) in config.listeners.iter().enumerate() {
            let id = u16::try_from(number)
                .map(ListenerId)
                .map_err(|_overflow| StartError::TooManyListeners(config.listeners.len()))?;
            let transport = listener.transport;
            let failed = |source| StartError::Listen {
                transport,
                address: listener.address,
                source,
            };
            table.push(match transport {
                Transport::Udp => {
                    let socket = udp::bind(listener.address, config).map_err(failed)?;
                    let local = socket.local_addr().map_err(failed)?;
                    Listener {
                        transport,
                        local,
                        udp: Some(socket),
                    }
                }
                Transport::Tcp => {
                    let socket = tcp::bind(listener.address).map_err(failed)?;
                    let local = socket.local_addr().map_err(failed)?;
                    streams.push((id, socket));
                    Listener {
                        transport,
                        local,
                        udp: None,
                    }
                }
                other => return Err(StartError::UnsupportedTransport(other)),
            });
        }
        Ok((Self { table }, streams))
    }

    fn get(&self, id: ListenerId) -> Option<&Listener> {
        self.table.get(usize::from(id.0))
    }

    fn families(&self) -> Families {
        Families {
            v4: self.table.iter().any(|listener| listener.local.is_ipv4()),
            v6: self.table.iter().any(|listener| listener.local.is_ipv6()),
        }
    }

    pub(crate) fn udp_socket(&self, id: ListenerId) -> Option<&udp::Socket> {
        self.get(id)?.udp.as_ref()
    }

    pub(crate) fn udp(&self) -> impl Iterator<Item = (ListenerId, &udp::Socket)> {
        (0..)
            .map(ListenerId)
            .zip(&self.table)
            .filter_map(|(id, l)| Some((id, l.udp.as_ref()?)))
    }
}

struct Inner<E, S, R> {
    listeners: Arc<Listeners>,
    queues: Vec<WorkerQueue<E, S, R>>,
    counters: Vec<Arc<WorkerCounters>>,
    streams: Arc<Streams<E, S, R>>,
    resolver: Arc<Resolver<E, S, R>>,
    losses: udp::Losses,
    ended: Mutex<Ended>,
}

/// The network: cheap to clone, usable from any thread.
///
/// `E` is whatever the caller pushes to its own workers; `S` and `R` name sends
/// and look-ups and come back as they were given.
pub struct Network<E, S = SendToken, R = ResolveToken> {
    inner: Arc<Inner<E, S, R>>,
}

/// A network and its workers, by index.
pub type Started<E, S = SendToken, R = ResolveToken> = (Network<E, S, R>, Vec<Worker<E, S, R>>);

impl<E, S, R> Clone for Network<E, S, R> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<E, S, R> Network<E, S, R>
where
    E: Send + 'static,
    S: Copy + Send + Sync + 'static,
    R: Send + 'static,
{
    /// Binds every listener and makes the workers. Streams run on `runtime`.
    ///
    /// # Errors
    /// When a listener cannot be bound or a worker cannot be made; nothing is
    /// left listening then.
    pub fn start(config: &NetConfig, runtime: &Handle) -> Result<Started<E, S, R>, StartError> {
        let (listeners, stream_listeners) = Listeners::bind(config)?;
        let listeners = Arc::new(listeners);
        let mut queues = Vec::new();
        let mut counters = Vec::new();
        let mut workers = Vec::new();
        for index in 0..config.workers.max(1) {
            let (sender, receiver) =
                queue(config.event_queue, config.frame_queue).map_err(StartError::Worker)?;
            let counted = Arc::new(WorkerCounters::default());
            let worker = Worker::new(
                index,
                sender.clone(),
                receiver,
                Arc::clone(&listeners),
                Arc::clone(&counted),
            )
            .map_err(StartError::Worker)?;
            queues.push(sender);
            counters.push(counted);
            workers.push(worker);
        }
        let (streams, ended) = Streams::start(
            config.streams.clone(),
            queues.clone(),
            stream_listeners,
            runtime,
        )
        .map_err(StartError::Worker)?;
        let resolver = Resolver::new(
            config.resolver.clone(),
            listeners.families(),
            queues.clone(),
            runtime,
        );
        let inner = Inner {
            listeners,
            queues,
            counters,
            streams,
            resolver: Arc::new(resolver),
            losses: udp::Losses::default(),
            ended: Mutex::new(ended),
        };
        Ok((
            Self {
                inner: Arc::new(inner),
            },
            workers,
        ))
    }

    /// Sends a message without blocking. What fails later, once the call has
    /// returned (a connection refused, say), comes to a worker as
    /// [`Input::SendFailed`](crate::Input::SendFailed) with the token, if there
    /// is one.
    ///
    /// A datagram leaves from `local`, if that is one of our addresses.
    ///
    /// A stream message to an address goes down an open connection of the same
    /// listener, or down a new one that comes from the listener's address; the
    /// listener need not be one of streams. Down a flow it goes down that
    /// connection, or, if it is gone and `reconnect` is given, to that address
    /// (RFC 3261 section 18.2.2).
    ///
    /// # Errors
    /// What fails at once. A datagram that finds its socket's buffer full is lost, and
    /// counted: that is no failure.
    pub fn send(
        &self,
        next_hop: &NextHop,
        bytes: &[u8],
        token: Option<S>,
    ) -> Result<(), SendError> {
        match *next_hop {
            NextHop::Flow {
                flow:
                    Flow {
                        listener,
                        transport,
                        peer,
                        connection,
                        local,
                    },
                reconnect,
            } => match (connection, reconnect) {
                (None, _) => {
                    let from = (listener, local);
                    self.send_address(from, transport, peer, bytes, token)
                }
                (Some(id), None) => self.inner.streams.send_flow(id, bytes, token),
                (Some(id), Some(address)) => match self.inner.streams.send_flow(id, bytes, token) {
                    Err(SendError::FlowGone) => {
                        self.send_address((listener, None), transport, address, bytes, token)
                    }
                    sent => sent,
                },
            },
            NextHop::Address {
                listener,
                transport,
                address,
                local,
            } => self.send_address((listener, local), transport, address, bytes, token),
        }
    }

    fn send_address(
        &self,
        (id, local): (ListenerId, Option<IpAddr>),
        transport: Transport,
        peer: SocketAddr,
        bytes: &[u8],
        token: Option<S>,
    ) -> Result<(), SendError> {
        let listener = self
            .inner
            .listeners
            .get(id)
            .ok_or(SendError::NoListener(id, transport))?;
        match (transport, &listener.udp) {
            (Transport::Udp, Some(socket)) => {
                let sent = udp::send(socket, peer, local, bytes);
                self.inner.losses.bear(sent)
            }
            (Transport::Udp, None) => Err(SendError::NoListener(id, transport)),
            (Transport::Tcp, _) => {
                self.inner
                    .streams
                    .send_address(id, listener.local, peer, bytes, token)
            }
            (other, _) => Err(SendError::UnsupportedTransport(other)),
        }
    }

    /// Finds where a name leads. `Some` if that is known: an address, a name of
    /// the configuration, an answer in the cache. Otherwise `None`, and the
    /// answer comes to worker number `worker` as
    /// [`Input::Resolved`](crate::Input::Resolved) with the token.
    #[must_use]
    pub fn resolve(
        &self,
        worker: usize,
        query: Query,
        token: R,
    ) -> Option<Result<Candidates, ResolveError>> {
        self.inner.resolver.resolve(worker, query, token)
    }

    /// Replaces the names that the configuration settles.
    pub fn set_names(&self, names: StaticNames) {
        self.inner.resolver.set_names(names);
    }

    /// The address that a listener is bound to.
    #[must_use]
    pub fn local_addr(&self, listener: ListenerId) -> Option<SocketAddr> {
        self.inner.listeners.get(listener).map(|l| l.local)
    }

    /// The transport of a listener.
    #[must_use]
    pub fn transport(&self, listener: ListenerId) -> Option<Transport> {
        self.inner.listeners.get(listener).map(|l| l.transport)
    }

    /// The queues of all workers, by index.
    #[must_use]
    pub fn queues(&self) -> &[WorkerQueue<E, S, R>] {
        &self.inner.queues
    }

    /// What each worker has counted.
    #[must_use]
    pub fn counters(&self) -> &[Arc<WorkerCounters>] {
        &self.inner.counters
    }

    /// What the streams have counted.
    #[must_use]
    pub fn stream_counters(&self) -> &StreamCounters {
        self.inner.streams.counters()
    }

    /// How many datagrams were lost because a socket's send buffer was full.
    #[must_use]
    pub fn congested(&self) -> u64 {
        self.inner.losses.count()
    }

    /// How many stream connections there are, those being opened included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.streams.connections()
    }

    /// Ends all streams in order: nothing is accepted or opened any more, what
    /// waits is written, then the connections are closed. `false` if that took
    /// longer than `limit`. UDP goes on as long as its workers do.
    pub async fn close_streams(&self, limit: Duration) -> bool {
        self.inner.streams.close();
        let ended = async { self.inner.ended.lock().await.wait().await };
        timeout(limit, ended).await.is_ok()
    }
}

impl<E, S, R> std::fmt::Debug for Network<E, S, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("workers", &self.inner.queues.len())
            .finish_non_exhaustive()
    }
}
