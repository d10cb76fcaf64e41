//! What all workers share: the state of calls, bindings and nonces, the network,
//! and the configuration in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use arc_swap::ArcSwap;
use sipbox_core::auth::Authenticator;
use sipbox_core::dialog::DialogId;
use sipbox_core::location::{FlowTokens, LocationService, LocationSink};
use sipbox_core::stack::Stack;
use sipbox_net::{Full, Network};
use sipbox_store::CredentialCache;
use sipbox_telemetry::Stats;
use sipbox_wasm::Place;
use tokio::sync::{Semaphore, oneshot};

use crate::clock::Clock;
use crate::decide::{Pending, Ruled};
use crate::snapshot::Snapshot;
use crate::worker::{Answer, Confined};

/// What other threads tell a worker.
#[derive(Debug)]
pub(crate) enum WorkerEvent {
    /// The credentials that a request names were fetched.
    Credentials(Box<Pending>),
    /// A registration was stored, or was not, and this is its answer.
    Stored(Box<Ruled>),
    /// A confined tenant's policies answered; carry it out.
    Answered(Box<Answer>, Place),
    /// Dialogs have something to do by themselves.
    DialogsDue,
    /// End a dialog, with these header fields in its BYEs, and say whether there was one.
    EndDialog(DialogId, Vec<(String, String)>, oneshot::Sender<bool>),
    /// The snapshot changed: warm its policies up.
    Reloaded,
    /// End what is in flight.
    Shutdown,
    /// Timers run again: look at the clock.
    Tick,
    /// Leave.
    Stop,
}

/// The node.
pub(crate) struct Node {
    /// The state of calls.
    pub(crate) stack: Stack,
    /// The location service.
    pub(crate) location: LocationService,
    /// Names flows to policies.
    pub(crate) tokens: FlowTokens,
    /// Nonces and failures.
    pub(crate) authenticator: Authenticator,
    /// Where bindings become durable; `None` keeps them in memory only.
    pub(crate) sink: Arc<dyn LocationSink>,
    /// Whether a 200 waits until its binding is durable.
    pub(crate) commit: bool,
    /// Accounts, as far as they were asked for lately.
    pub(crate) credentials: CredentialCache,
    /// How many requests may have accounts looked up at a time: a flood of unknown
    /// users cannot pile up tasks.
    pub(crate) look_ups: Arc<Semaphore>,
    /// Sockets.
    pub(crate) network: Network<WorkerEvent>,
    /// Counters.
    pub(crate) stats: Arc<Stats>,
    /// The configuration in force.
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// The policy instances that each worker may keep, and the one of confined tenants.
    pub(crate) instances: usize,
    /// Time.
    pub(crate) clock: Clock,
    /// Where database look-ups run.
    pub(crate) runtime: tokio::runtime::Handle,
    /// The worker of confined tenants. What each of them may have on its way is
    /// bounded by its [`Place`]s.
    pub(crate) confined: Sender<Confined>,
    /// A bit for each worker whose shards may have a timer armed.
    pub(crate) ticking: AtomicU64,
    /// Whether bindings are pinged; an operator may stop it.
    pub(crate) pinging: AtomicBool,
    /// Held while changes of dialogs are written.
    pub(crate) storing_dialogs: tokio::sync::Mutex<()>,
    /// What the last audit of the leases found.
    pub(crate) lease_drift: AtomicU64,
}

impl Node {
    /// Whether timers of a worker's shards may be armed.
    pub(crate) fn ticking(&self, worker: usize) -> bool {
        self.ticking.load(Ordering::Acquire) & bit(worker) != 0
    }

    /// A worker did something that may have armed timers in any shard. Workers
    /// that rested are woken.
    pub(crate) fn ticking_begins(&self, worker: usize) {
        let all = self.all_workers();
        if self.ticking.load(Ordering::Acquire) == all {
            return;
        }
        let before = self.ticking.swap(all, Ordering::AcqRel);
        for (number, queue) in self.network.queues().iter().enumerate() {
            if number != worker && before & bit(number) == 0 {
                // A worker whose queue is full is not asleep.
                let _ = queue.push(WorkerEvent::Tick);
            }
        }
    }

    /// A worker found no timer armed in its shards; it must look once more
    /// after this, since one may have been armed meanwhile.
    pub(crate) fn ticking_ends(&self, worker: usize) {
        self.ticking.fetch_and(!bit(worker), Ordering::AcqRel);
    }

    /// A worker found a timer after all.
    pub(crate) fn ticking_goes_on(&self, worker: usize) {
        self.ticking.fetch_or(bit(worker), Ordering::AcqRel);
    }

    /// Has every worker look at the clock.
    pub(crate) fn wake(&self) {
        for queue in self.network.queues() {
            // A worker whose queue is full is not asleep.
            let _ = queue.push(WorkerEvent::Tick);
        }
    }

    fn all_workers(&self) -> u64 {
        let count = u32::try_from(self.network.queues().len()).unwrap_or(64);
        u64::MAX
            .checked_shr(64u32.saturating_sub(count))
            .unwrap_or(u64::MAX)
    }

    /// Tells a worker, waiting for room in its queue.
    pub(crate) async fn tell(&self, worker: usize, event: WorkerEvent) {
        let Some(queue) = self.network.queues().get(worker) else {
            return;
        };
        let mut event = event;
        while let Err(Full(back)) = queue.push(event) {
            event = back;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Tells a worker from a thread or task that must not wait: if there is no
    /// room, a task waits for it.
    pub(crate) fn tell_later(self: &Arc<Self>, worker: usize, event: WorkerEvent) {
        let Some(queue) = self.network.queues().get(worker) else {
            return;
        };
        if let Err(Full(event)) = queue.push(event) {
            let node = Arc::clone(self);
            self.runtime
                .spawn(async move { node.tell(worker, event).await });
        }
    }

    /// Tells every worker.
    pub(crate) async fn tell_all(&self, event: impl Fn() -> WorkerEvent) {
        for worker in 0..self.network.queues().len() {
            self.tell(worker, event()).await;
        }
    }

    /// Tells the worker of confined tenants.
    pub(crate) fn tell_confined(&self, task: Confined) {
        if self.confined.send(task).is_err() {
            tracing::error!("the worker of confined tenants is gone");
        }
    }
}

/// The most workers that a node can have.
pub(crate) const MAX_WORKERS: usize = 64;

fn bit(worker: usize) -> u64 {
    1u64.checked_shl(u32::try_from(worker).unwrap_or(u32::MAX))
        .unwrap_or(0)
}
