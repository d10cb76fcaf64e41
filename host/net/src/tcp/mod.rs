//! Stream connections on the runtime: listening, connecting, reuse, sending.
//!
//! Each connection is one task that reads and writes ([`connection`]) and one
//! entry of the [`table`]. A worker thread never touches a socket of a stream:
//! it hands bytes to the connection's bounded queue. A connection's messages
//! all go to one worker, so they come in order.

mod connection;
mod table;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use sipbox_core::flow::{ConnectionId, Flow, ListenerId};
use sipbox_sip::Transport;
use sipbox_sip::stream::FrameLimits;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use self::connection::Connection;
use self::table::{Key, Outgoing, Outlet, Refused, Table};
use crate::error::SendError;
use crate::queue::{Inbound, WorkerQueue};

/// How long a listener that has run out of descriptors or memory rests.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits and times of stream connections.
#[derive(Clone, Debug)]
pub struct StreamLimits {
    /// How many connections there may be, of either direction.
    pub connections: usize,
    /// How many connections one source (an IPv4 address, an IPv6 /64) may open.
    pub connections_per_source: u32,
    /// How long a message's head and body may be.
    pub frame: FrameLimits,
    /// How long a message may take from its first byte to its last.
    pub message_timeout: Duration,
    /// How long a connection may be silent in both directions.
    pub idle_timeout: Duration,
    /// How long connecting may take (RFC 3261 section 18.1.1 falls back to UDP
    /// after it).
    pub connect_timeout: Duration,
    /// How long a peer may take no byte of what is being written.
    pub write_timeout: Duration,
    /// How long a connection that is being closed may take to end in order.
    pub linger: Duration,
    /// How many messages wait for one connection.
    pub send_queue: usize,
    /// How many bytes wait for one connection.
    pub send_queue_bytes: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            connections_per_source: 1024,
            frame: FrameLimits::default(),
            message_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(15 * 60),
            connect_timeout: Duration::from_secs(2),
            write_timeout: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            send_queue: 1024,
            send_queue_bytes: 1 << 20,
        }
    }
}

/// What the streams have counted.
#[derive(Debug, Default)]
pub struct StreamCounters {
    /// Connections that peers opened.
    pub accepted: AtomicU64,
    /// Connections that peers opened and a limit refused.
    pub refused: AtomicU64,
    /// Connections that we opened.
    pub connected: AtomicU64,
    /// Connections that we could not open.
    pub connect_failures: AtomicU64,
    /// Messages received.
    pub messages: AtomicU64,
    /// Pings answered (RFC 5626 section 3.5.1).
    pub pings: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// All stream connections.
pub(crate) struct Streams<E, S, R> {
    limits: StreamLimits,
    table: RwLock<Table<S>>,
    queues: Vec<WorkerQueue<E, S, R>>,
    runtime: Handle,
    counters: StreamCounters,
    closing: watch::Sender<bool>,
    /// Every task holds one, and we do until we close: when the last is dropped,
    /// nothing runs any more.
    alive: Mutex<Option<mpsc::Sender<()>>>,
}

/// Told when the last task of the streams has ended.
pub(crate) struct Ended(mpsc::Receiver<()>);

impl Ended {
    pub(crate) async fn wait(&mut self) {
        // Nothing is ever sent: this ends when the last sender is dropped.
        let _ = self.0.recv().await;
    }
}

impl<E, S, R> Streams<E, S, R>
where
    E: Send + 'static,
    S: Copy + Send + Sync + 'static,
    R: Send + 'static,
{
    /// Starts to accept on `listeners`.
    pub(crate) fn start(
        limits: StreamLimits,
        queues: Vec<WorkerQueue<E, S, R>>,
        listeners: Vec<(ListenerId, std::net::TcpListener)>,
        runtime: &Handle,
    ) -> io::Result<(Arc<Self>, Ended)> {
        let (alive, ended) = mpsc::channel(1);
        let (closing, _) = watch::channel(false);
        let streams = Arc::new(Self {
            limits,
            table: RwLock::new(Table::new()),
            queues,
            runtime: runtime.clone(),
            counters: StreamCounters::default(),
            closing,
            alive: Mutex::new(Some(alive.clone())),
        });
        let _runtime = runtime.enter();
        for (id, listener) in listeners {
            let listener = TcpListener::from_std(listener)?;
            runtime.spawn(Arc::clone(&streams).accept(id, listener, alive.clone()));
        }
        Ok((streams, Ended(ended)))
    }

    pub(crate) fn counters(&self) -> &StreamCounters {
        &self.counters
    }

    pub(crate) fn connections(&self) -> usize {
        self.read_table().len()
    }

    /// Sends down a connection.
    pub(crate) fn send_flow(
        &self,
        id: ConnectionId,
        bytes: &[u8],
        token: Option<S>,
    ) -> Result<(), SendError> {
        let outlet = self
            .read_table()
            .by_id(id)
            .cloned()
            .ok_or(SendError::FlowGone)?;
        let message = Outgoing {
            bytes: Bytes::copy_from_slice(bytes),
            token,
        };
        outlet
            .push(message, &self.limits)
            .map_err(|refused| match refused {
                Refused::Full => SendError::Congested,
                Refused::Gone(_) => SendError::FlowGone,
            })
    }

    /// Sends to an address: down a connection that leads there, or down a new
    /// one, where the message waits until it is up.
    pub(crate) fn send_address(
        self: &Arc<Self>,
        listener: ListenerId,
        local: SocketAddr,
        peer: SocketAddr,
        bytes: &[u8],
        token: Option<S>,
    ) -> Result<(), SendError> {
        let key = Key {
            listener,
            transport: Transport::Tcp,
            peer,
        };
        let mut message = Outgoing {
            bytes: Bytes::copy_from_slice(bytes),
            token,
        };
        // The guard must be gone before the push, which may wake a task.
        let existing = self.read_table().by_key(&key).cloned();
        if let Some(outlet) = existing {
            match outlet.push(message, &self.limits) {
                Ok(()) => return Ok(()),
                Err(Refused::Full) => return Err(SendError::Congested),
                // It has ended just now, and is out of the table: a new one.
                Err(Refused::Gone(back)) => message = back,
            }
        }
        self.open(key, local, message)
    }

    /// Opens a connection for a message, unless another thread was faster.
    fn open(
        self: &Arc<Self>,
        key: Key,
        local: SocketAddr,
        message: Outgoing<S>,
    ) -> Result<(), SendError> {
        let alive = self.alive().clone().ok_or(SendError::ShuttingDown)?;
        let (mut outlet, queue) = Outlet::new(&self.limits);
        let fresh = {
            let mut table = self.write_table();
            match table.by_key(&key) {
                Some(existing) => {
                    outlet = existing.clone();
                    None
                }
                None => Some(table.insert(key, false, outlet.clone(), &self.limits)?),
            }
        };
        // Before the task runs, which may end as soon as it begins.
        let pushed = outlet.push(message, &self.limits);
        if let Some(id) = fresh {
            let connection = self.connection(key, id, &outlet, queue);
            self.runtime
                .spawn(Arc::clone(self).connect(connection, local, alive));
        }
        pushed.map_err(|refused| match refused {
            Refused::Full => SendError::Congested,
            // The other thread's, which came to nothing.
            Refused::Gone(_) => SendError::ConnectionLost(io::ErrorKind::NotConnected),
        })
    }

    fn connection(
        &self,
        key: Key,
        id: ConnectionId,
        outlet: &Outlet<S>,
        queue: mpsc::Receiver<Outgoing<S>>,
    ) -> Connection<S> {
        let Key {
            listener,
            transport,
            peer,
        } = key;
        Connection {
            flow: Flow {
                listener,
                transport,
                peer,
                connection: Some(id),
                local: None,
            },
            id,
            waiting: outlet.waiting(),
            pongs: outlet.downgrade(),
            queue,
        }
    }

    /// Ends every connection in order: what waits is written first. No new one
    /// comes about.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
        self.write_table().close();
        self.alive().take();
    }

    /// The worker that serves a connection.
    fn queue(&self, id: ConnectionId) -> Option<&WorkerQueue<E, S, R>> {
        let workers = u32::try_from(self.queues.len()).unwrap_or(u32::MAX).max(1);
        self.queues.get(usize::try_from(id.slot % workers).ok()?)
    }

    /// Tells a connection's worker something; if the worker is gone, nobody
    /// needs to know.
    async fn tell(&self, id: ConnectionId, input: Inbound<S, R>) -> bool {
        match self.queue(id) {
            Some(queue) => queue.deliver(input).await.is_ok(),
            None => false,
        }
    }

    async fn accept(
        self: Arc<Self>,
        id: ListenerId,
        listener: TcpListener,
        alive: mpsc::Sender<()>,
    ) {
        let mut closing = self.closing.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = async { let _ = closing.wait_for(|closing| *closing).await; } => return,
            };
            match accepted {
                Ok((stream, peer)) => self.accepted(id, stream, peer, &alive),
                Err(error) => {
                    tracing::warn!(%error, listener = id.0, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn accepted(
        self: &Arc<Self>,
        listener: ListenerId,
        stream: TcpStream,
        peer: SocketAddr,
        alive: &mpsc::Sender<()>,
    ) {
        let key = Key {
            listener,
            transport: Transport::Tcp,
            peer,
        };
        let (outlet, queue) = Outlet::new(&self.limits);
        let entered = self
            .write_table()
            .insert(key, true, outlet.clone(), &self.limits);
        match entered {
            Ok(id) => {
                count(&self.counters.accepted);
                let connection = self.connection(key, id, &outlet, queue);
                self.runtime
                    .spawn(Arc::clone(self).serve(connection, stream, alive.clone()));
            }
            Err(error) => {
                count(&self.counters.refused);
                tracing::debug!(%error, %peer, "connection refused");
            }
        }
    }

    async fn connect(
        self: Arc<Self>,
        connection: Connection<S>,
        local: SocketAddr,
        alive: mpsc::Sender<()>,
    ) {
        let peer = connection.flow.peer;
        let error = match timeout(self.limits.connect_timeout, open_socket(local, peer)).await {
            Ok(Ok(stream)) => {
                count(&self.counters.connected);
                return self.serve(connection, stream, alive).await;
            }
            Ok(Err(error)) => SendError::Unreachable(error.kind()),
            Err(_elapsed) => SendError::ConnectTimeout,
        };
        count(&self.counters.connect_failures);
        tracing::debug!(%error, %peer, "cannot connect");
        self.write_table().remove(connection.id);
        self.fail(connection, Vec::new(), error).await;
    }

    async fn serve(
        self: Arc<Self>,
        mut connection: Connection<S>,
        stream: TcpStream,
        _alive: mpsc::Sender<()>,
    ) {
        prepare(&stream);
        let flow = connection.flow;
        let id = connection.id;
        let (error, unwritten) = connection.run(stream, &self).await;
        self.write_table().remove(id);
        tracing::debug!(peer = %flow.peer, %error, "connection ended");
        self.fail(connection, unwritten, error).await;
        self.tell(id, Inbound::Closed { flow }).await;
    }

    /// Reports what a dead connection did not write.
    async fn fail(
        &self,
        mut connection: Connection<S>,
        unwritten: Vec<Outgoing<S>>,
        error: SendError,
    ) {
        // From here on `push` gives messages back, so none can be overlooked.
        connection.queue.close();
        let mut unwritten = unwritten.into_iter();
        loop {
            let message = match unwritten.next() {
                Some(message) => message,
                None => match connection.queue.recv().await {
                    Some(message) => message,
                    None => return,
                },
            };
            if let Some(token) = message.token {
                self.tell(connection.id, Inbound::SendFailed { token, error })
                    .await;
            }
        }
    }

    fn alive(&self) -> MutexGuard<'_, Option<mpsc::Sender<()>>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // A panic elsewhere leaves the table whole: each change is one call.
    fn read_table(&self) -> RwLockReadGuard<'_, Table<S>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_table(&self) -> RwLockWriteGuard<'_, Table<S>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Binds a TCP listener.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Old connections in TIME_WAIT must not keep a restart from listening; on
    // Linux two listeners still cannot share a port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Connects from the listener's address, so that the peer sees the one that our
/// Via names.
async fn open_socket(local: SocketAddr, peer: SocketAddr) -> io::Result<TcpStream> {
    let socket = if peer.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if !local.ip().is_unspecified() && local.is_ipv4() == peer.is_ipv4() {
        socket.bind(SocketAddr::new(local.ip(), 0))?;
    }
    socket.connect(peer).await
}

fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // Messages are written whole: waiting to fill a segment only delays them.
    let nodelay = socket.set_tcp_nodelay(true);
    // Finds peers that vanished without a word.
    let keep_alive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    if let Err(error) = nodelay.and(socket.set_tcp_keepalive(&keep_alive)) {
        tracing::debug!(%error, "cannot set socket options");
    }
}
