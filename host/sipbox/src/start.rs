//! From parts to a running node, and from a running node to the end.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use rand_core::SeedableRng as _;
use sipbox_core::auth::Authenticator;
use sipbox_core::flow::{ListenerId, TenantId};
use sipbox_core::location::{FlowTokens, LocationService, LocationSink, Origin};
use sipbox_core::stack::{Rng, Stack, StackOptions};
use sipbox_net::Network;
use sipbox_store::{CredentialCache, Durability, LocationWriter, Store, WriterSettings};
use sipbox_telemetry::Stats;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::configuration::Configuration;
use crate::node::{MAX_WORKERS, Node, WorkerEvent};
use crate::parts::{Fixed, Live, Parts};
use crate::sandbox::{Refused, Sandbox, snapshot, stock};
use crate::secret::Secret;
use crate::worker::{Confined, Worker};

/// Shards of calls and of bindings. More than workers, so that two of them seldom
/// want the same one; a multiple of any likely number of workers.
const SHARDS: usize = 96;
/// Accounts that are remembered.
const ACCOUNTS: u64 = 100_000;
/// Requests whose accounts are looked up at a time.
const LOOK_UPS: usize = 1024;
/// How long the peers have to confirm that what was in flight is over.
const CONFIRMATION: Duration = Duration::from_millis(500);
/// Bindings that one look at the location service may take away.
const EXPIRE_BATCH: usize = 1000;

/// A node with its threads.
pub(crate) struct Running {
    /// What they share.
    pub(crate) node: Arc<Node>,
    /// Loads components, for reloads.
    pub(crate) sandbox: Sandbox,
    /// The worker of confined tenants last.
    threads: Mutex<Vec<JoinHandle<std::io::Result<()>>>>,
    writer: LocationWriter,
    store: Store,
    /// What it was started with: some of it holds until the end.
    pub(crate) started: Configuration,
    /// The id of the next tenant that a reload brings.
    next_tenant: AtomicU32,
}

impl Running {
    /// Starts everything: database, bindings, sockets, policies, workers.
    pub(crate) async fn start(parts: Parts, configuration: Configuration) -> anyhow::Result<Self> {
        let Parts { fixed, mut live } = parts;
        let runtime = tokio::runtime::Handle::current();
        let store = Store::open(&fixed.database).await?;
        let secret = Secret::open(&fixed.key)?;
        let net = sipbox_net::NetConfig {
            workers: fixed.net.workers.clamp(1, MAX_WORKERS),
            ..fixed.net.clone()
        };
        let sandbox = Sandbox::for_node(fixed.cache.as_deref(), live.policies(), net.workers)?;
        let refused = |refused: Vec<Refused>| {
            let text = configuration.refused(&refused);
            anyhow!("policies were refused\n{}", text.trim_end())
        };
        let chains = sandbox.chains(&live).map_err(refused)?;
        let next_tenant = next_id(&live);
        let (network, inputs) = Network::start(&net, &runtime)?;
        for (listener, id) in live.settings.listeners.iter_mut().zip(0..) {
            if let Some(address) = network.local_addr(ListenerId(id)) {
                listener.address = address;
            }
        }
        stock(&chains, net.workers).map_err(refused)?;
        let snapshot = snapshot(&live, chains, None)?;
        let origin = Origin {
            node: fixed.node,
            boot: u32::from_ne_bytes(random()?),
        };
        let writer = LocationWriter::start(&store, WriterSettings::new(fixed.durability));
        let stack = Stack::new(StackOptions {
            shards: SHARDS,
            node: origin.node,
            boot: origin.boot,
            key: random()?,
            route_key: secret.route_key(),
        });
        let (confined, tasks) = mpsc::channel();
        let node = Arc::new(Node {
            stack,
            location: LocationService::new(SHARDS, &random()?),
            tokens: FlowTokens::new(&random()?, origin),
            authenticator: Authenticator::new(&random()?, origin, fixed.auth),
            sink: Arc::new(writer.clone()) as Arc<dyn LocationSink>,
            commit: fixed.durability == Durability::Commit,
            credentials: CredentialCache::new(store.subscribers(), ACCOUNTS),
            look_ups: Arc::new(Semaphore::new(LOOK_UPS)),
            stats: Arc::new(Stats::new(net.workers)),
            snapshot: ArcSwap::from_pointee(snapshot),
            instances: sandbox.share(net.workers),
            clock: Clock::start(),
            runtime,
            confined,
            ticking: 0.into(),
            pinging: true.into(),
            storing_dialogs: tokio::sync::Mutex::default(),
            lease_drift: 0.into(),
            network,
        });
        let (_, wall) = node.clock.now();
        let rows = store.load_locations(wall).await?;
        node.load_bindings(&node.snapshot.load(), rows, wall);
        node.load_dialogs(store.load_dialogs().await?);
        let threads = spawn_workers(&node, inputs, tasks)?;
        tokio::spawn(keep_house(Arc::downgrade(&node), store.clone()));
        Ok(Self {
            node,
            sandbox,
            threads: threads.into(),
            writer,
            store,
            started: configuration,
            next_tenant: next_tenant.into(),
        })
    }

    /// An id that no tenant has had since the start.
    pub(crate) fn new_tenant(&self) -> TenantId {
        TenantId(self.next_tenant.fetch_add(1, Ordering::Relaxed))
    }

    /// The database.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Stops: no new requests, the transactions in flight end within the limit,
    /// what is to be stored is stored.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        let Self {
            node,
            writer,
            store,
            ..
        } = self;
        let mut threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let confined = threads.pop();
        node.stack.drain();
        let limit = Instant::now() + node.snapshot.load().drain;
        tracing::info!(transactions = node.stack.counts().servers, "draining");
        if !node.comes_to_rest(limit).await {
            tracing::warn!(
                transactions = node.in_flight(),
                "ending what is still in flight"
            );
            node.tell(0, WorkerEvent::Shutdown).await;
            node.comes_to_rest(Instant::now() + CONFIRMATION).await;
        }
        node.tell_all(|| WorkerEvent::Stop).await;
        node.tell_confined(Confined::Stop);
        let joined = tokio::task::spawn_blocking(move || {
            threads
                .into_iter()
                .map(JoinHandle::join)
                .collect::<Vec<_>>()
        });
        for result in joined.await? {
            result.map_err(|_panic| anyhow!("a worker panicked"))??;
        }
        // It makes way for whoever else has something to do, for as long as they have.
        let limit = limit.max(Instant::now() + CONFIRMATION);
        if let Some(confined) = confined
            && !ends(&confined, limit).await
        {
            tracing::warn!("the policies of a confined tenant were left behind in a call");
        }
        if !node.network.close_streams(Duration::from_secs(5)).await {
            tracing::warn!("connections were cut off");
        }
        writer.close().await;
        node.store_dialogs(store, Duration::ZERO).await;
        store.close().await;
        Ok(())
    }
}

impl Node {
    /// What somebody still waits for.
    fn in_flight(&self) -> usize {
        self.stack.counts().open
    }

    /// Waits until nothing is in flight; `false`: something is when time is up.
    async fn comes_to_rest(&self, limit: Instant) -> bool {
        while self.in_flight() > 0 {
            if Instant::now() >= limit {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }
}

/// Waits until a thread has ended; `false`: it runs when time is up.
async fn ends<T>(thread: &JoinHandle<T>, limit: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= limit {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

/// The first id that no tenant has.
fn next_id(live: &Live) -> u32 {
    let ids = live.settings.tenants.iter().map(|tenant| tenant.id.0);
    ids.max().map_or(0, |id| id + 1)
}

fn spawn_workers(
    node: &Arc<Node>,
    inputs: Vec<sipbox_net::Worker<WorkerEvent>>,
    confined: mpsc::Receiver<Confined>,
) -> anyhow::Result<Vec<JoinHandle<std::io::Result<()>>>> {
    let count = inputs.len();
    let worker = |number| {
        let rng = Rng::from_seed(random()?);
        anyhow::Ok(Worker::new(Arc::clone(node), number, count, rng))
    };
    let thread = |name: String| std::thread::Builder::new().name(name);
    let refused = "a worker cannot be started";
    let mut threads = Vec::with_capacity(count + 1);
    for (number, inputs) in inputs.into_iter().enumerate() {
        let worker = worker(number)?;
        let spawned = thread(format!("worker-{number}")).spawn(move || worker.run(inputs));
        threads.push(spawned.context(refused)?);
    }
    let worker = worker(count)?;
    let spawned = thread("confined".to_owned()).spawn(move || {
        worker.run_confined(&confined);
        Ok(())
    });
    threads.push(spawned.context(refused)?);
    Ok(threads)
}

/// Seconds between two audits of the leases, about.
const AUDIT: u32 = 60;

/// How long a call has been answered before its dialog is written: a crash loses the dialogs
/// of calls that are at most a second older, and most short calls are never written.
const SETTLED: Duration = Duration::from_secs(1);

/// What nobody waits for: bindings that ended, the system's clock.
async fn keep_house(node: std::sync::Weak<Node>, store: Store) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut since_audit = 0;
    loop {
        second.tick().await;
        let Some(node) = node.upgrade() else { return };
        node.clock.resync();
        let (now, wall) = node.clock.now();
        if node
            .stack
            .dialogs()
            .next_deadline()
            .is_some_and(|at| at <= now)
        {
            let workers = node.network.queues().len().max(1);
            let worker = usize::try_from(wall.seconds()).unwrap_or(0) % workers;
            node.tell(worker, WorkerEvent::DialogsDue).await;
        }
        node.store_dialogs(&store, SETTLED).await;
        since_audit += 1;
        if since_audit >= AUDIT {
            since_audit = 0;
            node.audit_leases();
        }
        for tenant in node.snapshot.load().tenants() {
            tenant.shared.upkeep(now);
        }
        loop {
            let changes = node.location.expire(wall, EXPIRE_BATCH);
            let count = changes.len();
            if count > 0 {
                let done = Box::new(|result: Result<(), _>| {
                    if let Err(error) = result {
                        // The rows stay; the next start leaves them out.
                        tracing::warn!(%error, "ended bindings were not removed from the table");
                    }
                });
                if let Err(error) = node.sink.submit(changes.into(), done) {
                    tracing::warn!(%error, "ended bindings were not removed from the table");
                }
            }
            if count < EXPIRE_BATCH {
                break;
            }
        }
    }
}

pub(crate) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random numbers: {error}"))?;
    Ok(bytes)
}

/// The number of workers for `0`: one for each processor.
pub(crate) fn default_workers() -> usize {
    std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(MAX_WORKERS)
}

impl Fixed {
    /// The folder of the control socket, made for its owner only.
    pub(crate) fn make_folders(&self) -> anyhow::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        let folders = [
            self.database.parent(),
            self.control.parent(),
            self.cache.as_deref(),
        ];
        for folder in folders
            .into_iter()
            .flatten()
            .filter(|f| !f.as_os_str().is_empty())
        {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .with_context(|| format!("folder {}", folder.display()))?;
        }
        Ok(())
    }
}
