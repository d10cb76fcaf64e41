//! The worker of confined tenants. Where several tenants share a node, the
//! policies of those who used too much CPU time of late are asked here, one call after
//! the other: whatever they do, the workers of the others go on.
//!
//! It has no sockets and no shards, and is the only worker that may wait for a
//! policy without somebody else's message waiting behind it. Among each other confined
//! tenants take turns ([`Fair`]). Its thread makes way for all others, so it must not hold
//! what they wait for: it runs policies and no more, and hands their answers to a
//! worker that carries them out.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use sipbox_core::flow::TenantId;
use sipbox_core::outbox::Ask;
use sipbox_core::policy::HookFailure;
use sipbox_net::Full;
use sipbox_wasm::{Place, Pools, thread_cpu};

use super::dialogs::Telling;
use super::fair::Fair;
use super::questions::Answer;
use super::{SWEEP, Worker};
use crate::decide::Pending;
use crate::node::WorkerEvent;
use crate::snapshot::Tenant;

/// How long to wait for room in the queue of a worker.
const ROOM: Duration = Duration::from_millis(1);

/// What the worker of confined tenants is told.
#[derive(Debug)]
pub(crate) enum Confined {
    /// Ask `on-request`.
    Run(Box<Pending>, Place),
    /// Give the fallback to a request of a dialog, in its turn.
    Refuse(Box<Pending>, Place),
    /// Ask another hook.
    Ask(TenantId, Box<Ask>, Place),
    /// Tell what became of a dialog.
    Telling(TenantId, Box<Telling>, Place),
    /// The snapshot changed: let the instances of the old one go.
    Reloaded,
    /// Leave.
    Stop,
}

/// Something to ask.
enum Task {
    Run(Box<Pending>),
    Refuse(Box<Pending>),
    Ask(Box<Ask>),
    Telling(Box<Telling>),
}

/// Who waits here.
type Waiting = Fair<(Task, Place)>;

/// When the policies of a tenant are asked.
#[derive(Debug)]
pub(super) enum Turn {
    /// Here and now.
    Now,
    /// When the worker of confined tenants comes to it.
    Later(TenantId, Place),
    /// Not at all: too many calls wait already.
    Never(HookFailure),
}

/// Puts this thread into the scheduler's idle class: whoever else has something to do
/// goes first, and at once. Of a nice value neither is true within a time slice.
fn make_way() -> Result<(), thread_priority::Error> {
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id,
    };
    set_thread_priority_and_policy(
        thread_native_id(),
        ThreadPriority::Min,
        ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle),
    )
}

impl Worker {
    /// Asks the policies of confined tenants until told to stop.
    pub(crate) fn run_confined(mut self, tasks: &Receiver<Confined>) {
        if let Err(error) = make_way() {
            tracing::warn!(
                ?error,
                "the worker of confined tenants has the priority of others"
            );
        }
        self.pools = Pools::making_way().keeping(self.node.instances);
        let mut waiting = Waiting::default();
        while self.take_in(tasks, &mut waiting).is_continue() {
            let Some((tenant, (task, place))) = waiting.next() else {
                continue;
            };
            let begun = thread_cpu();
            self.guarded(|worker| match task {
                Task::Run(pending) => {
                    worker.answering(pending.question.id(), |worker| worker.run_chain(*pending));
                }
                Task::Refuse(pending) => {
                    let refusal = Some(HookFailure::Confined);
                    worker.answering(pending.question.id(), |worker| {
                        worker.decide(*pending, refusal);
                    });
                }
                Task::Ask(ask) => worker.answering(ask.id(), |worker| worker.ask(*ask)),
                Task::Telling(telling) => worker.tell_in_turn(*telling),
            });
            waiting.charge(tenant, thread_cpu().saturating_sub(begun));
            if let Some(answer) = self.answer.take()
                && self
                    .hand_over(answer, place, tasks, &mut waiting)
                    .is_break()
            {
                return;
            }
        }
    }

    /// Takes what came; waits for something if nobody waits already.
    fn take_in(&mut self, tasks: &Receiver<Confined>, waiting: &mut Waiting) -> ControlFlow<()> {
        if waiting.is_empty() {
            match tasks.recv_timeout(SWEEP) {
                Ok(told) => self.told(told, waiting)?,
                Err(RecvTimeoutError::Timeout) => waiting.forget(),
                Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
            }
        }
        while let Ok(told) = tasks.try_recv() {
            self.told(told, waiting)?;
        }
        let (_, wall) = self.node.clock.now();
        self.sweep(wall);
        ControlFlow::Continue(())
    }

    fn told(&mut self, told: Confined, waiting: &mut Waiting) -> ControlFlow<()> {
        match told {
            Confined::Run(pending, place) => {
                waiting.push(pending.tenant.id, (Task::Run(pending), place));
            }
            Confined::Refuse(pending, place) => {
                waiting.push(pending.tenant.id, (Task::Refuse(pending), place));
            }
            Confined::Ask(tenant, ask, place) => waiting.push(tenant, (Task::Ask(ask), place)),
            Confined::Telling(tenant, telling, place) => {
                waiting.push(tenant, (Task::Telling(telling), place));
            }
            Confined::Reloaded => {
                let (_, wall) = self.node.clock.now();
                self.pools.sweep(wall);
            }
            Confined::Stop => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// Gives an answer to a worker; its place is free once it is carried out. One worker
    /// takes all, so that they keep their order.
    fn hand_over(
        &mut self,
        answer: Answer,
        place: Place,
        tasks: &Receiver<Confined>,
        waiting: &mut Waiting,
    ) -> ControlFlow<()> {
        let node = std::sync::Arc::clone(&self.node);
        let Some(queue) = node.network.queues().get(self.home()) else {
            return ControlFlow::Break(());
        };
        let mut event = WorkerEvent::Answered(Box::new(answer), place);
        while let Err(Full(back)) = queue.push(event) {
            event = back;
            std::thread::sleep(ROOM);
            // The worker may have left before us.
            while let Ok(told) = tasks.try_recv() {
                self.told(told, waiting)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Carries an answer out; the worker of confined tenants has others do it.
    pub(super) fn answer(&mut self, answer: Answer) {
        if self.is_confined() {
            self.answer = Some(answer);
        } else {
            self.conclude(answer);
        }
    }

    /// When this tenant's policies are asked. A tenant that behaves costs two looks
    /// at numbers. One that is alone on its node has nobody to hold up.
    pub(super) fn turn(&self, tenant: &Tenant) -> Turn {
        let conduct = tenant.chain.conduct();
        if !conduct.confined() || self.is_confined() {
            return Turn::Now;
        }
        if !self.node.snapshot.load().is_shared() && !conduct.has_waiting() {
            return Turn::Now;
        }
        conduct
            .place()
            .map_or(Turn::Never(HookFailure::Confined), |place| {
                Turn::Later(tenant.id, place)
            })
    }

    /// [`Worker::turn`] of a question about a transaction that has been decided
    /// before; `on-request` gets its turn once the accounts are there.
    pub(super) fn turn_of(&self, ask: &Ask) -> Turn {
        match ask {
            Ask::Request { .. } | Ask::Stateless { .. } => Turn::Now,
            Ask::Failure { tenant, state, .. }
            | Ask::Branch { tenant, state, .. }
            | Ask::Reply { tenant, state, .. } => self
                .tenant_of(*tenant, state)
                .map_or(Turn::Now, |tenant| self.turn(&tenant)),
        }
    }

    /// Whether this is the worker of confined tenants.
    fn is_confined(&self) -> bool {
        self.number >= self.workers
    }

    /// The worker that takes the answers to what this one asks of others.
    pub(super) fn home(&self) -> usize {
        self.number.checked_rem(self.workers).unwrap_or(0)
    }
}
