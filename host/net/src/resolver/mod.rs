//! Names to next hops (RFC 3263), off the worker: SRV and address records by
//! hickory, answers cached whole, equal questions asked once.
//!
//! What is asked is [`plan`]'s, the order of what comes back [`order`]'s; both
//! are plain functions. NAPTR is not looked up: without a transport in the URI
//! the SRV records of each transport are tried, as RFC 3263 section 4.1 has it
//! for domains without NAPTR.

mod client;
mod order;
mod plan;
mod settings;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use moka::Expiry;
use moka::sync::Cache;
use sipbox_core::outbox::{Candidates, ResolveError};
use sipbox_sip::Transport;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::client::{client, error_of};
use self::order::{Target, in_order};
use self::plan::{Plan, Service};
pub use self::settings::{ResolverConfig, StaticNames};
use crate::queue::{Inbound, WorkerQueue};

/// The most SRV targets, and addresses of one target, that are looked at: more
/// would only be tried by a call that has long been given up.
const MAX_TARGETS: usize = 16;
const MAX_ADDRESSES: usize = 8;

/// What is to be found (RFC 3263 section 4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// The host of the URI, in small letters.
    host: String,
    port: Option<u16>,
    transport: Option<Transport>,
    secure: bool,
}

impl Query {
    /// A question for `host`. A port rules SRV out; `secure` is for `sips`.
    /// `None` if the host is no text.
    #[must_use]
    pub fn new(
        host: &[u8],
        port: Option<u16>,
        transport: Option<Transport>,
        secure: bool,
    ) -> Option<Self> {
        let host = std::str::from_utf8(host).ok()?;
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        (!host.is_empty()).then_some(Self {
            host,
            port,
            transport,
            secure,
        })
    }
}

/// A whole answer, before chance has ordered it.
#[derive(Clone, Debug)]
struct Answer {
    result: Result<Vec<Target>, ResolveError>,
    ttl: Duration,
}

/// Lets the cache keep each answer as long as its records say.
struct AnswerTtl;

impl Expiry<Query, Arc<Answer>> for AnswerTtl {
    fn expire_after_create(
        &self,
        _query: &Query,
        answer: &Arc<Answer>,
        _created_at: Instant,
    ) -> Option<Duration> {
        Some(answer.ttl)
    }
}

/// Who waits for an answer: a worker, and what the question is called there.
struct Waiter<R> {
    worker: usize,
    token: R,
}

/// Which address families are of use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Families {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

type Pending<R> = HashMap<Query, Vec<Waiter<R>>, RandomState>;

/// The resolver.
pub(crate) struct Resolver<E, S, R> {
    /// `None` if the system's settings cannot be read.
    dns: Option<TokioResolver>,
    names: RwLock<Arc<StaticNames>>,
    cache: Cache<Query, Arc<Answer>>,
    pending: Mutex<Pending<R>>,
    max_pending: usize,
    max_ttl: Duration,
    negative_ttl: Duration,
    total_timeout: Duration,
    queues: Vec<WorkerQueue<E, S, R>>,
    runtime: Handle,
    chance: Chance,
}

impl<E, S, R> Resolver<E, S, R>
where
    E: Send + 'static,
    S: Send + 'static,
    R: Send + 'static,
{
    pub(crate) fn new(
        config: ResolverConfig,
        families: Families,
        queues: Vec<WorkerQueue<E, S, R>>,
        runtime: &Handle,
    ) -> Self {
        let _runtime = runtime.enter();
        let dns = match client(&config, families) {
            Ok(dns) => Some(dns),
            Err(error) => {
                tracing::warn!(%error, "no name server is known: names will not resolve");
                None
            }
        };
        Self {
            dns,
            names: RwLock::new(Arc::new(config.names)),
            cache: Cache::builder()
                .max_capacity(config.cache)
                .expire_after(AnswerTtl)
                .build(),
            pending: Mutex::new(HashMap::default()),
            max_pending: config.pending,
            max_ttl: config.max_ttl,
            negative_ttl: config.negative_ttl,
            total_timeout: config.total_timeout,
            queues,
            runtime: runtime.clone(),
            chance: Chance::default(),
        }
    }

    pub(crate) fn set_names(&self, names: StaticNames) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }

    /// Answers at once if it can; otherwise the answer comes to the worker.
    pub(crate) fn resolve(
        self: &Arc<Self>,
        worker: usize,
        query: Query,
        token: R,
    ) -> Option<Result<Candidates, ResolveError>> {
        if let Some(address) = literal(&query.host) {
            return Some(Ok(plan::direct(&query, [address])));
        }
        let names = Arc::clone(&self.names.read().unwrap_or_else(PoisonError::into_inner));
        if let Some(candidates) = names.find(&query) {
            return Some(Ok(candidates));
        }
        if let Some(answer) = self.cache.get(&query) {
            return Some(self.candidates(&answer));
        }
        if self.dns.is_none() {
            return Some(Err(ResolveError::Failed));
        }
        let waiter = Waiter { worker, token };
        {
            let mut pending = self.pending();
            if let Some(waiters) = pending.get_mut(&query) {
                waiters.push(waiter);
                return None;
            }
            if pending.len() >= self.max_pending {
                return Some(Err(ResolveError::Failed));
            }
            pending.insert(query.clone(), vec![waiter]);
        }
        self.runtime.spawn(Arc::clone(self).answer(query));
        None
    }

    async fn answer(self: Arc<Self>, query: Query) {
        // A task of its own: whatever happens to it, the waiters hear of it.
        let looking = {
            let (resolver, query) = (Arc::clone(&self), query.clone());
            self.runtime
                .spawn(async move { resolver.look_up(&query).await })
        };
        let answer = match timeout(self.total_timeout, looking).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_panicked)) => self.failure(ResolveError::Failed),
            Err(_elapsed) => self.failure(ResolveError::TimedOut),
        };
        let answer = Arc::new(answer);
        tracing::debug!(host = %query.host, result = ?answer.result, "name looked up");
        // In this order: whoever asks after the waiters were taken finds the
        // answer in the cache.
        self.cache.insert(query.clone(), Arc::clone(&answer));
        let waiters = self.pending().remove(&query).unwrap_or_default();
        for Waiter { worker, token } in waiters {
            let result = self.candidates(&answer);
            if let Some(queue) = self.queues.get(worker) {
                // A worker that is gone needs no answer.
                let _ = queue.deliver(Inbound::Resolved { token, result }).await;
            }
        }
    }

    fn failure(&self, error: ResolveError) -> Answer {
        Answer {
            result: Err(error),
            ttl: self.negative_ttl,
        }
    }

    async fn look_up(&self, query: &Query) -> Answer {
        let mut ttl = self.max_ttl;
        let result = match plan::plan(query) {
            Plan::Direct { transport, port } => {
                let direct = Service {
                    transport,
                    port,
                    priority: 0,
                    weight: 0,
                };
                self.addresses(&plan::absolute(&query.host), direct, &mut ttl)
                    .await
                    .map(|t| vec![t])
            }
            Plan::Services { names, fallback } => match self.services(names, &mut ttl).await {
                Ok(Some(targets)) => Ok(targets),
                Ok(None) => {
                    let (transport, port) = fallback;
                    let direct = Service {
                        transport,
                        port,
                        priority: 0,
                        weight: 0,
                    };
                    self.addresses(&plan::absolute(&query.host), direct, &mut ttl)
                        .await
                        .map(|t| vec![t])
                }
                Err(error) => Err(error),
            },
        };
        let ttl = if result.is_ok() {
            ttl
        } else {
            self.negative_ttl
        };
        Answer { result, ttl }
    }

    /// The targets of SRV records, of each name in turn; `None` if there are no
    /// records.
    async fn services(
        &self,
        names: Vec<(Transport, String)>,
        ttl: &mut Duration,
    ) -> Result<Option<Vec<Target>>, ResolveError> {
        let Some(dns) = &self.dns else {
            return Err(ResolveError::Failed);
        };
        let mut tasks = JoinSet::new();
        for (rank, (transport, name)) in (0u32..).zip(names) {
            let dns = dns.clone();
            tasks.spawn(async move { (rank, transport, dns.lookup(name, RecordType::SRV).await) });
        }
        let mut found = Vec::new();
        let mut failure = None;
        let mut refused = false;
        while let Some(done) = tasks.join_next().await {
            let Ok((rank, transport, looked_up)) = done else {
                continue;
            };
            let looked_up = match looked_up {
                Ok(looked_up) => looked_up,
                Err(error) => {
                    if error_of(&error) != ResolveError::NoSuchName {
                        failure = Some(error_of(&error));
                    }
                    continue;
                }
            };
            shorten(ttl, looked_up.valid_until());
            for record in looked_up.answers() {
                let RData::SRV(srv) = &record.data else {
                    continue;
                };
                if srv.target.is_root() {
                    // RFC 2782: decidedly not available.
                    refused = true;
                } else if found.len() < MAX_TARGETS {
                    let service = Service {
                        transport,
                        port: srv.port,
                        // The names in turn, and their priorities within them.
                        priority: rank << 16 | u32::from(srv.priority),
                        weight: srv.weight,
                    };
                    found.push((service, srv.target.to_ascii()));
                }
            }
        }
        if found.is_empty() {
            // A name server that failed must not look like a domain without SRV,
            // or its calls would go to the wrong place.
            return match failure {
                Some(error) => Err(error),
                None if refused => Err(ResolveError::NoSuchName),
                None => Ok(None),
            };
        }
        let mut targets = Vec::new();
        let mut error = ResolveError::NoSuchName;
        for (service, name) in found {
            match self.addresses(&name, service, ttl).await {
                Ok(target) => targets.push(target),
                Err(failed) => error = failed,
            }
        }
        if targets.is_empty() {
            Err(error)
        } else {
            Ok(Some(targets))
        }
    }

    async fn addresses(
        &self,
        name: &str,
        service: Service,
        ttl: &mut Duration,
    ) -> Result<Target, ResolveError> {
        let Some(dns) = &self.dns else {
            return Err(ResolveError::Failed);
        };
        let looked_up = dns
            .lookup_ip(name)
            .await
            .map_err(|error| error_of(&error))?;
        shorten(ttl, looked_up.valid_until());
        let addresses: Vec<_> = looked_up.iter().take(MAX_ADDRESSES).collect();
        if addresses.is_empty() {
            return Err(ResolveError::NoSuchName);
        }
        Ok(Target { service, addresses })
    }

    fn candidates(&self, answer: &Answer) -> Result<Candidates, ResolveError> {
        let targets = answer.result.as_ref().map_err(|error| *error)?;
        Ok(in_order(targets, |bound| self.chance.below(bound)))
    }

    fn pending(&self) -> MutexGuard<'_, Pending<R>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Numbers that nobody outside foresees; enough to spread load.
#[derive(Default)]
struct Chance {
    state: RandomState,
    turn: AtomicU64,
}

impl Chance {
    fn below(&self, bound: u64) -> u64 {
        let random = self
            .state
            .hash_one(self.turn.fetch_add(1, Ordering::Relaxed));
        // Scaled, not reduced: the high bits are as good as the low ones.
        let scaled = (u128::from(random) * u128::from(bound)) >> 64;
        u64::try_from(scaled).unwrap_or(0)
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    bare.parse().ok()
}

fn shorten(ttl: &mut Duration, valid_until: Instant) {
    *ttl = (*ttl).min(valid_until.saturating_duration_since(Instant::now()));
}
