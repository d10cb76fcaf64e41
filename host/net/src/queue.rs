//! The queue of a worker: what other threads hand it, and how they wake it.
//!
//! Two bounded channels, so that neither kind of sender starves the other:
//! events of the caller (refused when full), and inputs of the runtime's tasks
//! (frames, failures), whose senders wait for room: that wait is what stops a
//! connection from being read while its worker is behind.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

use bytes::Bytes;
use nix::sys::eventfd::{EfdFlags, EventFd};
use sipbox_core::flow::Flow;
use sipbox_core::ids::{ResolveToken, SendToken};
use sipbox_core::outbox::{Candidates, ResolveError};
use sipbox_sip::stream::FrameErrorKind;
use tokio::sync::Semaphore;

use crate::error::SendError;

/// The queue is full, or its worker is gone; the event comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full<E>(pub E);

/// What the runtime's tasks hand to a worker.
#[derive(Debug)]
pub(crate) enum Inbound<S, R> {
    /// A message of a stream.
    Frame { bytes: Bytes, flow: Flow },
    /// A stream that has no further messages, because the next has no end.
    Unframed {
        head: Bytes,
        kind: FrameErrorKind,
        flow: Flow,
    },
    /// A connection ended.
    Closed { flow: Flow },
    /// A message was not sent.
    SendFailed { token: S, error: SendError },
    /// A name was looked up.
    Resolved {
        token: R,
        result: Result<Candidates, ResolveError>,
    },
}

/// The worker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkerGone;

struct Shared<E, S, R> {
    events: SyncSender<E>,
    inbound: SyncSender<Inbound<S, R>>,
    /// As many permits as `inbound` has places: whoever holds one has a place.
    room: Semaphore,
    /// Set by the worker before it sleeps, taken by whoever wakes it, so that
    /// a busy worker costs no system call.
    sleeping: AtomicBool,
    wake: EventFd,
}

/// The sending side of a worker's queue: cheap to clone, usable from any thread.
pub struct WorkerQueue<E, S = SendToken, R = ResolveToken> {
    shared: Arc<Shared<E, S, R>>,
}

impl<E, S, R> Clone for WorkerQueue<E, S, R> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<E, S, R> WorkerQueue<E, S, R> {
    /// Hands the worker an event and wakes it if it sleeps. Never blocks.
    ///
    /// # Errors
    /// The event, when the queue is full or the worker is gone.
    pub fn push(&self, event: E) -> Result<(), Full<E>> {
        match self.shared.events.try_send(event) {
            Ok(()) => {
                self.wake();
                Ok(())
            }
            Err(TrySendError::Full(event) | TrySendError::Disconnected(event)) => Err(Full(event)),
        }
    }

    /// Hands the worker an input, waiting for room.
    pub(crate) async fn deliver(&self, input: Inbound<S, R>) -> Result<(), WorkerGone> {
        let permit = self
            .shared
            .room
            .acquire()
            .await
            .map_err(|_closed| WorkerGone)?;
        // Given back when the worker takes the input.
        permit.forget();
        // The permit is the place: only a worker that is gone can refuse.
        self.shared
            .inbound
            .try_send(input)
            .map_err(|_gone| WorkerGone)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // Pairs with the fence in `QueueReceiver::before_sleep`: either the
        // worker sees what was just pushed, or we see that it sleeps.
        fence(Ordering::SeqCst);
        if self.shared.sleeping.load(Ordering::Relaxed)
            && self.shared.sleeping.swap(false, Ordering::Relaxed)
        {
            // Fails only if the counter would overflow: then the worker is
            // as good as woken.
            let _ = self.shared.wake.write(1);
        }
    }
}

impl<E, S, R> std::fmt::Debug for WorkerQueue<E, S, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerQueue").finish_non_exhaustive()
    }
}

/// One thing taken from the queue.
pub(crate) enum Taken<E, S, R> {
    Event(E),
    Inbound(Inbound<S, R>),
}

/// The worker's side of its queue.
pub(crate) struct QueueReceiver<E, S, R> {
    shared: Arc<Shared<E, S, R>>,
    events: Receiver<E>,
    inbound: Receiver<Inbound<S, R>>,
    inbound_next: bool,
}

impl<E, S, R> QueueReceiver<E, S, R> {
    pub(crate) fn wake_fd(&self) -> &EventFd {
        &self.shared.wake
    }

    /// Takes the next thing, turn and turn about.
    pub(crate) fn take(&mut self) -> Option<Taken<E, S, R>> {
        self.inbound_next = !self.inbound_next;
        if self.inbound_next {
            self.take_inbound().or_else(|| self.take_event())
        } else {
            self.take_event().or_else(|| self.take_inbound())
        }
    }

    /// Announces that the worker is about to sleep. What comes back was pushed
    /// before the announcement, and the worker must not sleep.
    pub(crate) fn before_sleep(&mut self) -> Option<Taken<E, S, R>> {
        self.shared.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let taken = self.take();
        if taken.is_some() {
            self.awake();
        }
        taken
    }

    /// Withdraws the announcement.
    pub(crate) fn awake(&self) {
        self.shared.sleeping.store(false, Ordering::Relaxed);
    }

    /// Takes back the wake-up that ended a sleep.
    pub(crate) fn clear_wake(&self) {
        // Non-blocking: nothing to read means nothing to take back.
        let _ = self.shared.wake.read();
    }

    fn take_event(&self) -> Option<Taken<E, S, R>> {
        match self.events.try_recv() {
            Ok(event) => Some(Taken::Event(event)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    fn take_inbound(&self) -> Option<Taken<E, S, R>> {
        let input = self.inbound.try_recv().ok()?;
        self.shared.room.add_permits(1);
        Some(Taken::Inbound(input))
    }
}

impl<E, S, R> Drop for QueueReceiver<E, S, R> {
    fn drop(&mut self) {
        // Tasks that wait for room learn that there will be none.
        self.shared.room.close();
    }
}

/// The two sides of a worker's queue.
pub(crate) type Queue<E, S, R> = (WorkerQueue<E, S, R>, QueueReceiver<E, S, R>);

/// Makes a worker's queue.
pub(crate) fn queue<E, S, R>(events: usize, inbound: usize) -> io::Result<Queue<E, S, R>> {
    let inbound_places = inbound.clamp(1, Semaphore::MAX_PERMITS);
    let (events_tx, events_rx) = sync_channel(events.max(1));
    let (inbound_tx, inbound_rx) = sync_channel(inbound_places);
    let shared = Arc::new(Shared {
        events: events_tx,
        inbound: inbound_tx,
        room: Semaphore::new(inbound_places),
        sleeping: AtomicBool::new(false),
        wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
    });
    let receiver = QueueReceiver {
        shared: Arc::clone(&shared),
        events: events_rx,
        inbound: inbound_rx,
        inbound_next: false,
    };
    Ok((WorkerQueue { shared }, receiver))
}
