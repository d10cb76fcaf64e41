//! The wait of a worker thread: datagrams of every UDP listener, its queue, and
//! a time-out, behind one call.
//!
//! Each worker has an epoll instance of its own that holds every UDP socket,
//! level-triggered and `EPOLLEXCLUSIVE`, and the eventfd of its queue. Why so:
//! - *Every socket at every worker*, because carriers send from few addresses:
//!   sockets of their own (`SO_REUSEPORT`) would hash all of a carrier's load
//!   onto one worker.
//! - *Exclusive*, because one datagram should wake one worker. The kernel skips
//!   workers that are not waiting, so a busy worker never holds work back from
//!   an idle one.
//! - *Level-triggered*, because a worker stops after a batch, to look at its
//!   queue and its clock, and must be told again of what it left.
//!
//! What this costs beside a thread that blocks in `recv_from`: `benches/wait.rs`.
//!
//! A datagram is received into the worker's own buffer and lent to the handler;
//! whoever keeps it copies it ([`Received::into_bytes`]). The alternative, slices
//! of shared pooled buffers, would cost about half when every message is let go
//! at once (40 ns instead of 75 for 1 kB), but twice as much when some are kept
//! (130 ns instead of 67 with 500 of them), and one ringing call would pin a
//! whole buffer for minutes.

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use sipbox_core::flow::{Flow, ListenerId};
use sipbox_core::ids::{ResolveToken, SendToken};
use sipbox_core::outbox::{Candidates, ResolveError};
use sipbox_sip::Transport;
use sipbox_sip::stream::FrameErrorKind;

use crate::error::SendError;
use crate::network::Listeners;
use crate::queue::{Inbound, QueueReceiver, Taken, WorkerQueue};
use crate::stun::{self, Stun};
use crate::udp::{self, Report};

/// How many datagrams of one socket, and how many things of the queue, are
/// handled before the worker looks at the others and its caller at the clock.
const BATCH: usize = 32;
/// How many times in a row a worker takes one datagram and waits, after one came alone. To
/// see that none is left takes a system call, and where calls are few none ever is; if some
/// are, the wait ends at once.
const ALONE: u8 = 7;
/// Names the queue's eventfd among the sockets.
const QUEUE: u64 = u64::MAX;

/// A received message, lent or owned.
#[derive(Debug)]
pub enum Received<'a> {
    /// A datagram in the worker's buffer.
    Datagram(&'a [u8]),
    /// A message cut from a stream.
    Frame(Bytes),
}

impl Received<'_> {
    /// The bytes to keep: a copy of a datagram, the frame itself.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Datagram(bytes) => Bytes::copy_from_slice(bytes),
            Self::Frame(bytes) => bytes,
        }
    }
}

impl Deref for Received<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Datagram(bytes) => bytes,
            Self::Frame(bytes) => bytes,
        }
    }
}

/// What a worker is woken for.
#[derive(Debug)]
pub enum Input<'a, E, S = SendToken, R = ResolveToken> {
    /// A message came in. It is not empty and no keep-alive.
    Message {
        /// Its bytes.
        message: Received<'a>,
        /// Where it came from.
        flow: Flow,
    },
    /// A stream sends something whose end cannot be found. Nothing more will
    /// come; the connection is closed soon, once an answer had its chance.
    Unframed {
        /// The start line and header fields, as far as they came.
        head: Bytes,
        /// What is wrong.
        kind: FrameErrorKind,
        /// Where it came from.
        flow: Flow,
    },
    /// A stream connection ended; its flow is dead.
    ConnectionClosed {
        /// The flow.
        flow: Flow,
    },
    /// A message that `send` had accepted was not sent after all.
    SendFailed {
        /// What `send` was given.
        token: S,
        /// Why.
        error: SendError,
    },
    /// A datagram came back as undeliverable (RFC 3261 section 18.4). Routers
    /// quote the beginning of what they return, and anyone who has seen the datagram
    /// can make such a report up: it is to be believed for what the quoted part names.
    Undeliverable {
        /// The beginning of the datagram.
        quoted: &'a [u8],
        /// Where it was sent.
        peer: SocketAddr,
    },
    /// A name that was to be looked up, was.
    Resolved {
        /// What `resolve` was given.
        token: R,
        /// Where the name leads.
        result: Result<Candidates, ResolveError>,
    },
    /// An event that somebody pushed.
    Event(E),
}

/// What a worker has counted. Only the worker writes, anyone reads.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Datagrams received, of any kind.
    pub datagrams: AtomicU64,
    /// Datagrams that were keep-alives: CRLF or STUN.
    pub keep_alives: AtomicU64,
    /// Datagrams that came back as undeliverable.
    pub undeliverable: AtomicU64,
    /// Failures to receive.
    pub receive_errors: AtomicU64,
}

impl WorkerCounters {
    /// One writer: a plain add, without the bus lock of `fetch_add`.
    fn add(counter: &AtomicU64) {
        counter.store(
            counter.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
    }
}

/// One worker's inputs. It belongs to one thread.
pub struct Worker<E, S = SendToken, R = ResolveToken> {
    index: usize,
    epoll: Epoll,
    queue: WorkerQueue<E, S, R>,
    receiver: QueueReceiver<E, S, R>,
    listeners: Arc<Listeners>,
    counters: Arc<WorkerCounters>,
    buffer: Box<[u8]>,
    control: Vec<u8>,
    /// How many more times only one datagram is taken.
    alone: u8,
}

impl<E, S, R> Worker<E, S, R> {
    pub(crate) fn new(
        index: usize,
        queue: WorkerQueue<E, S, R>,
        receiver: QueueReceiver<E, S, R>,
        listeners: Arc<Listeners>,
        counters: Arc<WorkerCounters>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(
            receiver.wake_fd(),
            EpollEvent::new(EpollFlags::EPOLLIN, QUEUE),
        )?;
        for (id, socket) in listeners.udp() {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
            epoll.add(socket, EpollEvent::new(flags, u64::from(id.0)))?;
        }
        let buffer = vec![0; udp::MAX_DATAGRAM].into_boxed_slice();
        Ok(Self {
            index,
            epoll,
            queue,
            receiver,
            listeners,
            counters,
            buffer,
            control: udp::control(),
            alone: 0,
        })
    }

    /// The worker's number, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The sending side of this worker's queue.
    #[must_use]
    pub fn queue(&self) -> WorkerQueue<E, S, R> {
        self.queue.clone()
    }

    /// Waits until there is something to do or `timeout` has passed (`None`: for
    /// ever), and hands what there is to `handler`, at most a batch of each
    /// kind; what is left comes with the next call. Timers are the caller's: it
    /// passes the time to its next tick and looks at its clock after each call.
    ///
    /// # Errors
    /// When the wait itself fails, which no peer can bring about.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
        handler: &mut impl FnMut(Input<'_, E, S, R>),
    ) -> io::Result<()> {
        let busy = self.drain_queue(handler) > 0;
        let mut timeout = if busy {
            EpollTimeout::ZERO
        } else {
            epoll_timeout(timeout)
        };
        if timeout != EpollTimeout::ZERO
            && let Some(taken) = self.receiver.before_sleep()
        {
            handler(taken.into_input());
            timeout = EpollTimeout::ZERO;
        }
        let mut ready = [EpollEvent::empty(); 16];
        let count = match self.epoll.wait(&mut ready, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => {
                self.receiver.awake();
                return Err(error.into());
            }
        };
        self.receiver.awake();
        for event in ready.iter().take(count) {
            if event.data() == QUEUE {
                self.receiver.clear_wake();
                self.drain_queue(handler);
            } else if let Ok(id) = u16::try_from(event.data()) {
                let listener = ListenerId(id);
                if event.events().contains(EpollFlags::EPOLLERR) {
                    self.reports(listener, handler);
                }
                self.receive(listener, handler);
            }
        }
        Ok(())
    }

    fn drain_queue(&mut self, handler: &mut impl FnMut(Input<'_, E, S, R>)) -> usize {
        for handled in 0..BATCH {
            match self.receiver.take() {
                Some(taken) => handler(taken.into_input()),
                None => return handled,
            }
        }
        BATCH
    }

    /// Takes a batch off the error queue of one listener.
    fn reports(&mut self, listener: ListenerId, handler: &mut impl FnMut(Input<'_, E, S, R>)) {
        let Some(socket) = self.listeners.udp_socket(listener) else {
            return;
        };
        for _ in 0..BATCH {
            let (peer, length) = match udp::take_report(socket, &mut self.buffer) {
                None => return,
                Some(Report::Passing) => continue,
                Some(Report::Undeliverable { peer, length }) => (peer, length),
            };
            WorkerCounters::add(&self.counters.undeliverable);
            let quoted = self.buffer.get(..length).unwrap_or_default();
            handler(Input::Undeliverable { quoted, peer });
        }
    }

    /// Receives a batch of datagrams of one listener.
    fn receive(&mut self, listener: ListenerId, handler: &mut impl FnMut(Input<'_, E, S, R>)) {
        let Some(socket) = self.listeners.udp_socket(listener) else {
            return;
        };
        for tried in 0..BATCH {
            if tried == 1 && self.alone > 0 {
                self.alone -= 1;
                return;
            }
            let (length, peer, local) = match socket.receive(&mut self.buffer, &mut self.control) {
                Ok(received) => received,
                Err(error) => match error.kind() {
                    // Another worker was faster, or this was the last.
                    io::ErrorKind::WouldBlock => {
                        self.alone = if tried == 1 { ALONE } else { 0 };
                        return;
                    }
                    io::ErrorKind::Interrupted => continue,
                    _ => {
                        // Reading took the error off the socket: go on.
                        WorkerCounters::add(&self.counters.receive_errors);
                        tracing::debug!(%error, listener = listener.0, "udp receive failed");
                        continue;
                    }
                },
            };
            WorkerCounters::add(&self.counters.datagrams);
            let Some(datagram) = self.buffer.get(..length) else {
                continue;
            };
            if keep_alive(datagram, peer, |answer| {
                // A keep-alive that cannot be answered is not worth more.
                let _ = udp::send(socket, peer, local, answer);
            }) {
                WorkerCounters::add(&self.counters.keep_alives);
                continue;
            }
            let flow = Flow {
                listener,
                transport: Transport::Udp,
                peer,
                connection: None,
                local,
            };
            handler(Input::Message {
                message: Received::Datagram(datagram),
                flow,
            });
        }
    }
}

impl<E, S, R> std::fmt::Debug for Worker<E, S, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl<E, S, R> Taken<E, S, R> {
    fn into_input(self) -> Input<'static, E, S, R> {
        match self {
            Self::Event(event) => Input::Event(event),
            Self::Inbound(Inbound::Frame { bytes, flow }) => Input::Message {
                message: Received::Frame(bytes),
                flow,
            },
            Self::Inbound(Inbound::Unframed { head, kind, flow }) => {
                Input::Unframed { head, kind, flow }
            }
            Self::Inbound(Inbound::Resolved { token, result }) => Input::Resolved { token, result },
            Self::Inbound(Inbound::Closed { flow }) => Input::ConnectionClosed { flow },
            Self::Inbound(Inbound::SendFailed { token, error }) => {
                Input::SendFailed { token, error }
            }
        }
    }
}

/// Whether a datagram only keeps a NAT binding open. Over UDP, CRLF (and the
/// zeros that some phones send) get no answer: RFC 5626 section 3.5.1's pong is for
/// streams, and over UDP STUN is what it asks for.
fn keep_alive(datagram: &[u8], peer: SocketAddr, send: impl FnOnce(&[u8])) -> bool {
    match datagram.first() {
        // A message starts with a letter, or with CRLF and then a letter.
        Some(first) if *first > b'\r' => false,
        _ if datagram
            .iter()
            .all(|byte| matches!(byte, b'\r' | b'\n' | 0)) =>
        {
            true
        }
        _ => match stun::classify(datagram, peer) {
            Stun::No => false,
            Stun::Ignored => true,
            Stun::Answer(answer) => {
                send(answer.as_bytes());
                true
            }
        },
    }
}

/// Rounded up, so that a worker does not wake a little before its tick.
fn epoll_timeout(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else {
        return EpollTimeout::NONE;
    };
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    i32::try_from(millis)
        .ok()
        .and_then(|ms| EpollTimeout::try_from(ms).ok())
        .unwrap_or(EpollTimeout::MAX)
}
