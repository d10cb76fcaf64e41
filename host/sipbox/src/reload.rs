//! From one configuration to the next, while messages come in: checked as a whole,
//! put in force as a whole, or refused with everything that is wrong with it.

use std::sync::Arc;

use anyhow::bail;
use sipbox_core::flow::TenantId;
use sipbox_core::location::LocationRow;
use sipbox_core::time::WallTime;
use sipbox_wasm::Chain;

use crate::configuration::{Draft, Moves};
use crate::node::{Node, WorkerEvent};
use crate::parts::Live;
use crate::sandbox::{Refused, snapshot, stock};
use crate::snapshot::Snapshot;
use crate::start::Running;
use crate::worker::Confined;

impl Running {
    /// Puts a configuration in force, whole or not at all.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) async fn reload(&self, mut draft: Draft) -> anyhow::Result<u64> {
        let node = &self.node;
        let before = node.snapshot.load_full();
        draft.refuse_restarts(&self.started);
        let loaded = draft.live().map(|mut live| {
            if let Err(moves) = node.keep_listeners(&mut live) {
                draft.refuse_moves(&moves);
            }
            self.keep_ids(&before, &mut live);
            let workers = node.network.queues().len();
            // Compiling takes its time, and this thread serves others as well.
            let chains: Result<_, Vec<Refused>> = tokio::task::block_in_place(|| {
                let chains = self.sandbox.chains(&live)?;
                if draft.is_right() {
                    stock(&chains, workers)?;
                }
                Ok(chains)
            });
            (live, chains.map_err(|refused| draft.refuse(&refused)))
        });
        let configuration = draft.finish()?;
        let Some((live, Ok(mut chains))) = loaded else {
            bail!("the configuration could not be loaded");
        };
        keep_conduct(&before, &live, &mut chains);
        let after = Arc::new(snapshot(&live, chains, Some(&before))?);
        let (_, wall) = node.clock.now();
        let rows = self.rows_of_new_owners(&before, &after, wall).await?;
        configuration.report_warnings();
        if !rows.is_empty() {
            node.load_bindings(&after, rows, wall);
        }
        node.snapshot.store(Arc::clone(&after));
        node.watch_dialogs(&after);
        for (tenant, parts) in live.settings.tenants.iter().zip(&live.tenants) {
            if let Some(tenant) = after.tenant(tenant.id) {
                tenant.shared.limit(&parts.shared);
            }
        }
        node.forget_bindings(&before, &after, wall);
        node.tell_all(|| WorkerEvent::Reloaded).await;
        node.tell_confined(Confined::Reloaded);
        Ok(after.version)
    }

    /// A tenant keeps its id over reloads as long as it keeps its name: ids are in
    /// the keys of bindings. A new tenant gets an id that nobody ever had.
    fn keep_ids(&self, before: &Snapshot, live: &mut Live) {
        let known = |name: &str| {
            before
                .tenants()
                .find(|tenant| *tenant.name == *name)
                .map(|tenant| tenant.id)
        };
        let mut renamed = Vec::new();
        for tenant in &mut live.settings.tenants {
            let id = known(&tenant.name).unwrap_or_else(|| self.new_tenant());
            renamed.push((tenant.id, id));
            tenant.id = id;
        }
        for listener in &mut live.settings.listeners {
            listener.tenant = listener.tenant.map(|old| {
                renamed
                    .iter()
                    .find(|(from, _)| *from == old)
                    .map_or(old, |(_, to)| *to)
            });
        }
    }

    /// What the database has of domains that another tenant has from now on, or that
    /// none had: what a start would find for them.
    async fn rows_of_new_owners(
        &self,
        before: &Snapshot,
        after: &Snapshot,
        wall: WallTime,
    ) -> anyhow::Result<Vec<LocationRow>> {
        let changed = |domain: &str| before.tenant_of(domain) != after.tenant_of(domain);
        let mut domains = after.tenants().flat_map(|tenant| &tenant.domains);
        if !domains.any(|domain| changed(domain)) {
            return Ok(Vec::new());
        }
        let mut rows = self.store().load_locations(wall).await?;
        rows.retain(|row| changed(&row.domain.to_ascii_lowercase()));
        Ok(rows)
    }
}

/// Tenants that stay keep their CPU accounts, and remain confined: else whoever can have a
/// configuration reloaded could go on.
fn keep_conduct(before: &Snapshot, live: &Live, chains: &mut [Chain]) {
    for (tenant, chain) in live.settings.tenants.iter().zip(chains) {
        if let Some(before) = before.tenant(tenant.id) {
            chain.succeed(&before.chain);
        }
    }
}

impl Node {
    /// Takes over rows of the database, for the tenants of a snapshot.
    pub(crate) fn load_bindings(&self, to: &Snapshot, rows: Vec<LocationRow>, wall: WallTime) {
        let loaded = self.location.load(
            rows,
            wall,
            |domain| to.tenant_of(domain),
            |socket| to.home_of(socket),
        );
        tracing::info!(
            bindings = loaded.bindings,
            ended = loaded.ended,
            foreign = loaded.foreign,
            "location table loaded"
        );
    }

    /// Takes bindings out of memory whose tenant is gone, or has lost their domain.
    /// They stay in the database, for whoever has the domain later.
    fn forget_bindings(&self, before: &Snapshot, after: &Snapshot, wall: WallTime) {
        let lost = |tenant: TenantId, domain: &str| {
            before.tenant_of(domain) == Some(tenant) && after.tenant_of(domain) != Some(tenant)
        };
        let nothing_lost = before.tenants().all(|tenant| {
            let mut domains = tenant.domains.iter();
            after.tenant(tenant.id).is_some() && !domains.any(|domain| lost(tenant.id, domain))
        });
        if nothing_lost {
            return;
        }
        self.location.dump(None, |tenant, aor, _| {
            if after.tenant(tenant).is_none() || lost(tenant, aor.domain()) {
                // Nobody is told of the change: nothing is to be deleted.
                let _ = self.location.remove(tenant, aor, wall);
            }
        });
    }

    /// Gives the listeners of a new configuration the addresses that they are bound
    /// to, and refuses others: sockets change with a start.
    fn keep_listeners(&self, live: &mut Live) -> Result<(), Moves> {
        let snapshot = self.snapshot.load();
        let bound = snapshot.settings.listeners();
        if bound.len() != live.settings.listeners.len() {
            return Err(Moves::Number { bound: bound.len() });
        }
        let mut moved = Vec::new();
        for (position, (listener, bound)) in
            live.settings.listeners.iter_mut().zip(bound).enumerate()
        {
            let same_port =
                listener.address.port() == 0 || listener.address.port() == bound.address.port();
            if listener.transport != bound.transport
                || listener.address.ip() != bound.address.ip()
                || !same_port
            {
                let there = format!("{} {}", bound.transport.param(), bound.address);
                moved.push((position, there));
            }
            listener.address = bound.address;
        }
        if moved.is_empty() {
            Ok(())
        } else {
            Err(Moves::Addresses(moved))
        }
    }
}
