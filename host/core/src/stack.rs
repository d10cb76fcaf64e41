//! The whole element: shards behind their locks, and the calls by which a driver
//! feeds it. Each call takes one shard's lock for one step of state; none holds two, and
//! nothing but state is touched under a lock.
//!
//! Inputs are messages ([`Stack::receive`]), verdicts, resolved names, failed sends
//! and the passing of time ([`Stack::tick`]). Outputs are in the [`Outbox`]: after
//! each call the driver sends, asks and resolves what stands there, in that order.
//! Time never goes backwards.

mod answers;
mod arrivals;
mod dialogs;
mod pings;
mod types;
mod unsent;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::cx::Cx;
use crate::dialog::DialogService;
use crate::ids::Ids;
use crate::outbox::Outbox;
use crate::shard::Shard;
use crate::time::Time;

pub use pings::Pong;
pub use types::{BranchVerdict, Counts, Env, ReplyVerdict, Rng, StackOptions, Unsettled};

/// The element.
pub struct Stack {
    shards: Box<[Mutex<Shard>]>,
    ids: Ids,
    dialogs: DialogService,
    draining: AtomicBool,
    /// How many sessions the shards have: while there are none no ACK is looked up.
    sessions: AtomicUsize,
    #[cfg(test)]
    pub(crate) mutation: Option<crate::cx::Mutation>,
}

impl Stack {
    /// An element without any state.
    #[must_use]
    pub fn new(options: StackOptions) -> Self {
        let shards = options.shards.clamp(1, crate::ids::MAX_SHARDS);
        let numbers = 0..u8::try_from(shards).unwrap_or(u8::MAX);
        Self {
            shards: numbers
                .map(|number| Mutex::new(Shard::new(number)))
                .collect(),
            ids: Ids::new(options.key, options.node, options.boot)
                .with_route_key(options.route_key),
            dialogs: DialogService::new(shards, &options.key, options.boot),
            draining: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            #[cfg(test)]
            mutation: None,
        }
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Fires what is due in one shard, one timer for each time that the lock is
    /// taken.
    pub fn tick(&self, env: &mut Env<'_>, shard: usize, out: &mut Outbox) {
        while self.step(shard, env, out, Shard::fire) == Some(true) {}
    }

    /// When [`Stack::tick`] has something to do for the shard, at the earliest.
    #[must_use]
    pub fn next_deadline(&self, shard: usize) -> Option<Time> {
        self.peek(shard, |shard| shard.tx.wheel.next_deadline())
            .flatten()
    }

    /// Whether any timer of the shard is armed.
    #[must_use]
    pub fn armed(&self, shard: usize) -> bool {
        self.peek(shard, |shard| shard.tx.wheel.armed() > 0)
            .unwrap_or(false)
    }

    /// Numbers of the moment.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for shard in 0..self.shards.len() {
            self.peek(shard, |shard| {
                counts.servers += shard.tx.servers.len();
                counts.unfinished += shard
                    .tx
                    .servers
                    .iter()
                    .filter(|(_, server)| !server.answered())
                    .count();
                counts.open += shard.tx.open();
                counts.clients += shard.tx.clients.len();
                counts.timers += shard.tx.wheel.armed();
                counts.waiting += shard.tx.waiting.len();
                counts.sessions += shard.tx.sessions.len();
            });
        }
        counts
    }

    /// From now on initial requests get 503; what is in flight goes on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Ends what is in flight: requests that are being decided or ring get 503, and
    /// their branches a CANCEL. Timers go on until the peers have confirmed.
    pub fn shutdown(&self, env: &mut Env<'_>, out: &mut Outbox) {
        self.drain();
        for shard in 0..self.shards.len() {
            self.step(shard, env, out, Shard::shutdown);
        }
    }

    /// Ends what steps were working on that panicked: to be called when a panic was caught.
    /// The callers of these transactions get 500, all others live on.
    pub fn mend(&self, env: &mut Env<'_>, out: &mut Outbox) {
        for (shard, mutex) in self.shards.iter().enumerate() {
            if mutex.is_poisoned() {
                self.step(shard, env, out, |_, _| ());
            }
        }
        self.begin_sessions(env, out);
    }

    /// One step of state under one lock. A shard whose last step panicked is
    /// mended first.
    fn step<R>(
        &self,
        shard: usize,
        env: &mut Env<'_>,
        out: &mut Outbox,
        step: impl FnOnce(&mut Shard, &mut Cx<'_, '_>) -> R,
    ) -> Option<R> {
        let mutex = self.shards.get(shard)?;
        let mut cx = self.cx(env, out);
        let mut guard = match mutex.lock() {
            Ok(guard) => guard,
            Err(poisoned) => {
                mutex.clear_poison();
                let mut guard = poisoned.into_inner();
                guard.recover(&mut cx);
                guard
            }
        };
        let result = step(&mut guard, &mut cx);
        drop(guard);
        if !out.dialog_events.is_empty() {
            self.settle_dialogs(env, out);
        }
        Some(result)
    }

    fn peek<R>(&self, shard: usize, read: impl FnOnce(&Shard) -> R) -> Option<R> {
        let guard = self
            .shards
            .get(shard)?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some(read(&guard))
    }

    fn cx<'a, 'e>(&'a self, env: &'a mut Env<'e>, out: &'a mut Outbox) -> Cx<'a, 'e> {
        Cx {
            env,
            ids: &self.ids,
            out,
            sessions: &self.sessions,
            #[cfg(test)]
            mutation: self.mutation,
        }
    }
}
