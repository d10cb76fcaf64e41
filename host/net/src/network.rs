//! The facade: listeners, workers and sending, tied together.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use sipbox_core::flow::{Flow, ListenerId, NextHop};
use sipbox_sip::Transport;
use tokio::runtime::Handle;

use crate::config::NetConfig;
use crate::error::{SendError, StartError};
use crate::queue::{WorkerQueue, queue};
use crate::udp;
use crate::worker::{Token, Worker, WorkerCounters};

/// A bound listener.
struct Listener {
    transport: Transport,
    local: SocketAddr,
    udp: Option<UdpSocket>,
}

/// All listeners, by id.
pub(crate) struct Listeners {
    table: Vec<Listener>,
}

impl Listeners {
    fn bind(config: &NetConfig) -> Result<Self, StartError> {
        if config.listeners.len() > usize::from(u16::MAX) {
            return Err(StartError::TooManyListeners(config.listeners.len()));
        }
        let mut table = Vec::with_capacity(config.listeners.len());
        for listener in &config.listeners {
            let transport = listener.transport;
            let failed = |source| StartError::Listen {
                transport,
                address: listener.address,
                source,
            };
            match transport {
                Transport::Udp => {
                    let socket = udp::bind(listener.address, config).map_err(failed)?;
                    let local = socket.local_addr().map_err(failed)?;
                    table.push(Listener {
                        transport,
                        local,
                        udp: Some(socket),
                    });
                }
                other => return Err(StartError::UnsupportedTransport(other)),
            }
        }
        Ok(Self { table })
    }

    fn get(&self, id: ListenerId) -> Option<&Listener> {
        self.table.get(usize::from(id.0))
    }

    pub(crate) fn udp_socket(&self, id: ListenerId) -> Option<&UdpSocket> {
        self.get(id)?.udp.as_ref()
    }

    pub(crate) fn udp(&self) -> impl Iterator<Item = (ListenerId, &UdpSocket)> {
        (0..)
            .map(ListenerId)
            .zip(&self.table)
            .filter_map(|(id, l)| Some((id, l.udp.as_ref()?)))
    }
}

struct Inner<E> {
    listeners: Arc<Listeners>,
    queues: Vec<WorkerQueue<E>>,
    counters: Vec<Arc<WorkerCounters>>,
}

/// The network: cheap to clone, usable from any thread.
pub struct Network<E> {
    inner: Arc<Inner<E>>,
}

impl<E> Clone for Network<E> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<E: Send + 'static> Network<E> {
    /// Binds every listener and makes the workers. Streams will run on `runtime`.
    ///
    /// # Errors
    /// When a listener cannot be bound or a worker cannot be made; nothing is
    /// left listening then.
    pub fn start(
        config: &NetConfig,
        _runtime: &Handle,
    ) -> Result<(Self, Vec<Worker<E>>), StartError> {
        let listeners = Arc::new(Listeners::bind(config)?);
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
        let inner = Inner {
            listeners,
            queues,
            counters,
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
    /// # Errors
    /// What fails at once.
    pub fn send(
        &self,
        next_hop: &NextHop,
        bytes: &[u8],
        _token: Option<Token>,
    ) -> Result<(), SendError> {
        let (listener, transport, peer) = match *next_hop {
            NextHop::Flow {
                flow:
                    Flow {
                        listener,
                        transport,
                        peer,
                        ..
                    },
                ..
            } => (listener, transport, peer),
            NextHop::Address {
                listener,
                transport,
                address,
            } => (listener, transport, address),
        };
        match transport {
            Transport::Udp => {
                let socket = self
                    .inner
                    .listeners
                    .udp_socket(listener)
                    .ok_or(SendError::NoListener(listener, transport))?;
                udp::send(socket, peer, bytes)
            }
            other => Err(SendError::UnsupportedTransport(other)),
        }
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
    pub fn queues(&self) -> &[WorkerQueue<E>] {
        &self.inner.queues
    }

    /// What each worker has counted.
    #[must_use]
    pub fn counters(&self) -> &[Arc<WorkerCounters>] {
        &self.inner.counters
    }
}

impl<E> std::fmt::Debug for Network<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("workers", &self.inner.queues.len())
            .finish_non_exhaustive()
    }
}
