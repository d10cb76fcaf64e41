//! The worker of confined tenants. Where several tenants share a node, the
//! policies of one whose calls ran long of late are asked here, one call after
//! the other: whatever they do, the workers of the others go on.
//!
//! It has no sockets and no shards, and is the only worker that may wait for a
//! policy without somebody else's message waiting behind it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};

use sipbox_core::outbox::Ask;
use sipbox_core::policy::HookFailure;
use sipbox_wasm::Place;

use super::{SWEEP, Worker};
use crate::decide::Pending;
use crate::snapshot::Tenant;

/// What the worker of confined tenants is told.
#[derive(Debug)]
pub(crate) enum Confined {
    /// Ask `on-request`.
    Run(Box<Pending>, Place),
    /// Ask another hook.
    Ask(Box<Ask>, Place),
    /// The snapshot changed: let the instances of the old one go.
    Reloaded,
    /// Leave.
    Stop,
}

/// When the policies of a tenant are asked.
#[derive(Debug)]
pub(super) enum Turn {
    /// Here and now.
    Now,
    /// When the worker of confined tenants comes to it.
    Later(Place),
    /// Not at all: too many calls wait already.
    Never(HookFailure),
}

impl Worker {
    /// Asks the policies of confined tenants until told to stop.
    pub(crate) fn run_confined(mut self, tasks: &Receiver<Confined>) {
        loop {
            match tasks.recv_timeout(SWEEP) {
                Ok(Confined::Run(pending, _place)) => {
                    self.guarded(|worker| worker.run_chain(*pending));
                }
                Ok(Confined::Ask(ask, _place)) => self.guarded(|worker| worker.ask(*ask)),
                Ok(Confined::Reloaded) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Confined::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            let (_, wall) = self.node.clock.now();
            self.sweep(wall);
        }
    }

    /// When this tenant's policies are asked. A tenant that behaves costs one look
    /// at a number. One that is alone on its node has nobody to hold up.
    pub(super) fn turn(&self, tenant: &Tenant) -> Turn {
        let conduct = tenant.chain.conduct();
        if !conduct.confined() || self.is_confined() || !self.node.snapshot.load().is_shared() {
            return Turn::Now;
        }
        conduct
            .place()
            .map_or(Turn::Never(HookFailure::Confined), Turn::Later)
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
