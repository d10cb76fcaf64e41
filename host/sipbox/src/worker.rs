//! One worker: takes messages and events, feeds the core, sends, fires timers. The
//! loop that everything passes through. What the core asks is answered in
//! [`questions`]; what is asked apart from the others, in [`confined`].

mod confined;
mod dialogs;
mod fair;
mod pings;
mod questions;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use sipbox_core::dialog::DialogId;
use sipbox_core::flow::TenantId;
use sipbox_core::ids::{AskId, ResolveToken, SendToken};
use sipbox_core::outbox::{Ask, Candidates, Event, Outbox, Resolve, ResolveError};
use sipbox_core::stack::{Env, Rng};
use sipbox_core::time::{Time, WallTime};
use sipbox_net::{Input, Query, Worker as Inputs};
use sipbox_sip::{Index, Message};
use sipbox_wasm::Pools;

use crate::node::{Node, WorkerEvent};
use crate::snapshot::Snapshot;

pub(crate) use confined::Confined;
use pings::Pinger;
pub(crate) use questions::Answer;

/// How often timers are looked at while any is armed.
const TICK: Duration = Duration::from_millis(10);
/// How often idle policy instances are looked at.
const SWEEP: Duration = Duration::from_secs(60);

/// One of the equal workers, or the one of confined tenants.
pub(crate) struct Worker {
    node: Arc<Node>,
    /// From 0; the worker of confined tenants comes behind the others.
    number: usize,
    workers: usize,
    rng: Rng,
    /// Lent to the message that is looked at; boxed, since it is large and moves.
    index: Option<Box<Index>>,
    out: Outbox,
    /// How many messages of `out` have left.
    sent: usize,
    /// What is still to be done. Whatever panics has been taken out before, so that
    /// the rest is still here.
    asks: VecDeque<Ask>,
    failed: Vec<SendToken>,
    names: Vec<Resolve>,
    /// Dialogs of which policies are to be told something.
    news: VecDeque<DialogId>,
    pools: Pools,
    /// What a confined tenant's policies answered here, to be handed over.
    answer: Option<Answer>,
    ticked: Time,
    pinger: Pinger,
    swept: WallTime,
    stop: bool,
}

impl Worker {
    /// Worker `number` of `workers`; the worker of confined tenants, if that many
    /// come before it.
    pub(crate) fn new(node: Arc<Node>, number: usize, workers: usize, rng: Rng) -> Self {
        Self {
            pools: Pools::new().keeping(node.instances),
            node,
            number,
            workers: workers.max(1),
            rng,
            index: None,
            out: Outbox::default(),
            sent: 0,
            asks: VecDeque::new(),
            failed: Vec::new(),
            names: Vec::new(),
            news: VecDeque::new(),
            answer: None,
            ticked: Time::default(),
            pinger: Pinger::default(),
            swept: WallTime::default(),
            stop: false,
        }
    }

    /// Works until told to stop.
    ///
    /// # Errors
    /// When the system refuses to wait, which no peer can bring about.
    pub(crate) fn run(mut self, mut inputs: Inputs<WorkerEvent>) -> io::Result<()> {
        self.warm();
        while !self.stop {
            let timeout = self.tick();
            inputs.wait(timeout, &mut |input| {
                self.guarded(|worker| worker.input(input));
            })?;
        }
        Ok(())
    }

    /// A piece of work, and all that follows from it. A panic ends what it met: the
    /// message, the timer, the one that was to be sent or the one name; the rest goes on.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        self.caught(work);
        while !self.caught(Self::flush) && self.has_work() {}
    }

    /// A panic ends the question that it met; what else this worker has to do goes on.
    fn answering(&mut self, question: Option<AskId>, work: impl FnOnce(&mut Self)) {
        if self.caught(work) {
            return;
        }
        self.answer = None;
        if let Some(id) = question {
            let node = Arc::clone(&self.node);
            let snapshot = node.snapshot.load();
            self.step(&snapshot, |env, out| node.stack.undecided(env, id, out));
        }
    }

    /// `false`: it panicked, and whoever had a transaction in that step was told.
    fn caught(&mut self, work: impl FnOnce(&mut Self)) -> bool {
        let caught = catch_unwind(AssertUnwindSafe(|| work(self)));
        if caught.is_ok() {
            return true;
        }
        self.panicked();
        let node = Arc::clone(&self.node);
        let snapshot = node.snapshot.load();
        let mended = catch_unwind(AssertUnwindSafe(|| {
            self.step(&snapshot, |env, out| node.stack.mend(env, out));
        }));
        if mended.is_err() {
            // The next step of that shard tries again.
            self.panicked();
        }
        false
    }

    fn panicked(&self) {
        self.node.stats.panics.add(self.number, 1);
        tracing::error!(worker = self.number, "a step was given up after a panic");
    }

    fn input(&mut self, input: Input<'_, WorkerEvent>) {
        match input {
            Input::Message {
                message: received,
                flow,
            } => {
                let mut index = self.index.take().unwrap_or_default();
                if index.parse(&received).is_err() {
                    self.index = Some(index);
                    self.node.stack.unparsable(&mut self.out);
                    return;
                }
                let bytes = received.into_bytes();
                let node = Arc::clone(&self.node);
                let snapshot = node.snapshot.load();
                let message = Message::new(&bytes, &index);
                self.step(&snapshot, |env, out| {
                    node.stack.receive(env, message, &bytes, flow, out);
                });
                self.index = Some(index);
            }
            Input::Unframed { head, kind, flow } => {
                let mut index = self.index.take().unwrap_or_default();
                if index.parse(&head).is_ok() {
                    let node = Arc::clone(&self.node);
                    let snapshot = node.snapshot.load();
                    self.step(&snapshot, |env, out| {
                        node.stack
                            .unframed(env, Message::new(&head, &index), kind, flow, out);
                    });
                }
                self.index = Some(index);
            }
            Input::ConnectionClosed { flow } => {
                tracing::debug!(peer = %flow.peer, "connection closed");
            }
            Input::SendFailed { token, error } => {
                tracing::debug!(%error, "send failed");
                self.transport_error(token);
            }
            Input::Undeliverable { quoted, peer } => {
                tracing::debug!(%peer, "a datagram came back");
                let mut index = self.index.take().unwrap_or_default();
                if index.parse(quoted).is_ok() {
                    let node = Arc::clone(&self.node);
                    let snapshot = node.snapshot.load();
                    let quoted = Message::new(quoted, &index);
                    self.step(&snapshot, |env, out| {
                        node.stack.undeliverable(env, quoted, peer, out);
                    });
                }
                self.index = Some(index);
            }
            Input::Resolved { token, result } => self.resolved(token, result),
            Input::Event(event) => self.event(event),
        }
    }

    fn event(&mut self, event: WorkerEvent) {
        let node = Arc::clone(&self.node);
        let snapshot = node.snapshot.load();
        match event {
            WorkerEvent::Credentials(pending) => {
                self.answering(pending.question.id(), |worker| worker.run_chain(*pending));
            }
            WorkerEvent::Stored(ruled) => self.carry_out(*ruled),
            WorkerEvent::Answered(answer, place) => {
                self.answering(answer.question(), |worker| worker.conclude(*answer));
                // Whoever comes when the place is free may not overtake.
                self.flush();
                drop(place);
            }
            WorkerEvent::DialogsDue => self.dialogs_due(),
            WorkerEvent::EndDialog(id, extra, ended) => {
                // Whoever asked may have left.
                let _ = ended.send(self.end_dialog(id, &extra));
            }
            WorkerEvent::Reloaded => self.warm(),
            WorkerEvent::Shutdown => {
                self.step(&snapshot, |env, out| node.stack.shutdown(env, out));
            }
            WorkerEvent::Tick => {}
            WorkerEvent::Stop => self.stop = true,
        }
    }

    /// One call of the core.
    fn step(&mut self, snapshot: &Snapshot, call: impl FnOnce(&mut Env<'_>, &mut Outbox)) {
        let (now, wall) = self.node.clock.now();
        let mut env = Env {
            now,
            wall,
            settings: &snapshot.settings,
            rng: &mut self.rng,
        };
        call(&mut env, &mut self.out);
    }

    /// Asks for a name; an answer that is known comes at once.
    fn resolve(&mut self, resolve: &Resolve) {
        let Resolve {
            token,
            host,
            port,
            transport,
            secure,
        } = resolve;
        let known = match Query::new(host, *port, *transport, *secure) {
            Some(query) => self.node.network.resolve(self.home(), query, *token),
            None => Some(Err(ResolveError::NoSuchName)),
        };
        if let Some(result) = known {
            self.resolved(*token, result);
        }
    }

    fn resolved(&mut self, token: ResolveToken, result: Result<Candidates, ResolveError>) {
        let node = Arc::clone(&self.node);
        let snapshot = node.snapshot.load();
        self.step(&snapshot, |env, out| {
            node.stack.resolved(env, token, result, out);
        });
    }

    fn transport_error(&mut self, token: SendToken) {
        let node = Arc::clone(&self.node);
        let snapshot = node.snapshot.load();
        self.step(&snapshot, |env, out| {
            node.stack.transport_error(env, token, out);
        });
    }

    /// Sends, resolves and asks until nothing is left to do. It can be taken up again
    /// after a panic.
    fn flush(&mut self) {
        while self.has_work() {
            self.send();
            while let Some(token) = self.failed.pop() {
                self.transport_error(token);
            }
            while let Some(resolve) = self.names.pop() {
                self.resolve(&resolve);
            }
            while let Some(ask) = self.asks.pop_front() {
                self.answering(ask.id(), |worker| worker.ask(ask));
            }
            while let Some(dialog) = self.news.front().copied() {
                self.tell_news(dialog);
            }
        }
        self.node.ticking_begins(self.number);
    }

    fn has_work(&self) -> bool {
        !self.out.is_empty()
            || !self.failed.is_empty()
            || !self.names.is_empty()
            || !self.asks.is_empty()
            || !self.news.is_empty()
    }

    /// Sends what is in the outbox, and takes out what else is there to be done.
    fn send(&mut self) {
        while let Some(transmit) = self.out.transmits.get(self.sent) {
            self.sent += 1;
            let bytes = self.out.bytes(transmit);
            let sent = self
                .node
                .network
                .send(&transmit.next_hop, bytes, transmit.token);
            if let Err(error) = sent {
                tracing::debug!(%error, next_hop = ?transmit.next_hop, "send failed");
                self.failed.extend(transmit.token);
            }
        }
        while let Some(event) = self.out.events.pop() {
            self.node.stats.count(self.number, &event);
            if let Event::Full { tenant, its_own } = event {
                self.say_full(tenant, its_own);
            }
        }
        self.take_pongs();
        self.names.append(&mut self.out.resolves);
        self.asks.extend(self.out.asks.drain(..));
        self.news.extend(self.out.news.drain(..));
        self.out.clear();
        self.sent = 0;
    }

    /// Requests are refused: one line in a while for each tenant, and for all.
    fn say_full(&self, tenant: TenantId, its_own: bool) {
        let snapshot = self.node.snapshot.load();
        let settings = &snapshot.settings;
        let (now, _) = self.node.clock.now();
        match settings.tenant(tenant) {
            Some(tenant) if its_own && tenant.account.is_worth_a_line(now) => {
                tracing::warn!(
                    tenant = &*tenant.name,
                    transactions = tenant.account.live(),
                    refused = tenant.account.refused(),
                    "requests are refused: the tenant has as many transactions as it may have"
                );
            }
            _ if !its_own && settings.account.is_worth_a_line(now) => {
                tracing::warn!(
                    transactions = settings.account.live(),
                    refused = settings.account.refused(),
                    "requests are refused: there are as many transactions as there may be"
                );
            }
            _ => {}
        }
    }

    /// What is due; how long it may then sleep.
    fn tick(&mut self) -> Option<Duration> {
        let (now, wall) = self.node.clock.now();
        self.sweep(wall);
        let pings = self.ping(now, wall);
        let timers = self.fire(now);
        match (pings, timers) {
            (Some(pings), Some(timers)) => Some(pings.min(timers)),
            (pings, timers) => pings.or(timers),
        }
    }

    /// Fires the timers of this worker's shards; how long until it looks again.
    fn fire(&mut self, now: Time) -> Option<Duration> {
        let node = Arc::clone(&self.node);
        if !node.ticking(self.number) {
            return None;
        }
        let due = self.ticked + TICK;
        if now < due {
            return Some(due - now);
        }
        self.ticked = now;
        let snapshot = node.snapshot.load();
        let mut armed = false;
        for shard in self.shards() {
            let Some(deadline) = node.stack.next_deadline(shard) else {
                continue;
            };
            armed = true;
            if deadline <= now {
                self.tick_shard(&snapshot, shard);
            }
        }
        if !armed {
            node.ticking_ends(self.number);
            if !self.shards().any(|shard| node.stack.armed(shard)) {
                return None;
            }
            node.ticking_goes_on(self.number);
        }
        Some(TICK)
    }

    /// The shards whose timers this worker fires.
    fn shards(&self) -> impl Iterator<Item = usize> + use<> {
        (self.number..self.node.stack.shards()).step_by(self.workers)
    }

    fn tick_shard(&mut self, snapshot: &Snapshot, shard: usize) {
        let node = Arc::clone(&self.node);
        self.guarded(|worker| {
            worker.step(snapshot, |env, out| node.stack.tick(env, shard, out));
        });
    }

    /// Throws idle policy instances away, once in a while.
    fn sweep(&mut self, wall: WallTime) {
        if wall.0.saturating_sub(self.swept.0) > u64::try_from(SWEEP.as_millis()).unwrap_or(0) {
            self.swept = wall;
            self.pools.sweep(wall);
        }
    }

    fn warm(&mut self) {
        let (_, wall) = self.node.clock.now();
        let snapshot = self.node.snapshot.load_full();
        for tenant in snapshot.tenants() {
            if let Err(errors) = self.pools.warm(&tenant.chain, wall) {
                for (position, error) in errors {
                    tracing::error!(tenant = &*tenant.name, position, %error, "policy not ready");
                }
            }
        }
        self.pools.sweep(wall);
    }
}
