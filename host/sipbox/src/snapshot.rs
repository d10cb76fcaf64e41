//! A configuration in force: immutable, swapped as a whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sipbox_core::flow::{ListenerId, TenantId};
use sipbox_core::settings::Settings;
use sipbox_wasm::Chain;

/// Everything that a reload replaces. A transaction keeps what it began with:
/// its `Settings` in the core, its tenant's [`Tenant`] in its call state.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// For the core.
    pub(crate) settings: Arc<Settings>,
    tenants: HashMap<TenantId, Arc<Tenant>, foldhash::fast::FixedState>,
    /// The text of each listener's socket, as bindings remember it.
    sockets: Vec<Arc<str>>,
    /// How long a stop waits for the transactions in flight.
    pub(crate) drain: Duration,
    /// Counts reloads, from 1.
    pub(crate) version: u64,
}

/// A tenant in force.
#[derive(Debug)]
pub(crate) struct Tenant {
    /// Its id.
    pub(crate) id: TenantId,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its domains, in lower case; they are also the realms whose accounts it has.
    pub(crate) domains: Vec<String>,
    /// Its policies.
    pub(crate) chain: Chain,
}

impl Tenant {
    /// Whether accounts of this realm are the tenant's. A realm stands for a
    /// domain, whatever its case.
    pub(crate) fn has_realm(&self, realm: &str) -> bool {
        self.domains
            .iter()
            .any(|domain| domain.eq_ignore_ascii_case(realm))
    }
}

impl Snapshot {
    /// A snapshot of these parts.
    pub(crate) fn new(
        settings: Arc<Settings>,
        tenants: impl IntoIterator<Item = Tenant>,
        drain: Duration,
        version: u64,
    ) -> Self {
        // The keys are positions of the operator's tenants: a fixed seed will do.
        let sockets = settings
            .listeners()
            .iter()
            .map(|listener| format!("{}:{}", listener.transport.param(), listener.address).into());
        let sockets = sockets.collect();
        let tenants = tenants
            .into_iter()
            .map(|tenant| (tenant.id, Arc::new(tenant)))
            .collect();
        Self {
            settings,
            tenants,
            sockets,
            drain,
            version,
        }
    }

    /// One tenant.
    pub(crate) fn tenant(&self, id: TenantId) -> Option<&Arc<Tenant>> {
        self.tenants.get(&id)
    }

    /// All tenants, in no order.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }

    /// Whether there are several tenants.
    pub(crate) fn is_shared(&self) -> bool {
        self.tenants.len() > 1
    }

    /// The text of a listener's socket, such as `udp:192.0.2.1:5060`.
    pub(crate) fn socket(&self, listener: ListenerId) -> Arc<str> {
        self.sockets
            .get(usize::from(listener.0))
            .cloned()
            .unwrap_or_default()
    }

    /// The listener whose socket has this text.
    pub(crate) fn listener_of(&self, socket: &str) -> Option<ListenerId> {
        let position = self.sockets.iter().position(|known| **known == *socket)?;
        u16::try_from(position).ok().map(ListenerId)
    }

    /// Whose domain this is.
    pub(crate) fn tenant_of(&self, domain: &str) -> Option<TenantId> {
        self.settings.domain(domain.as_bytes())
    }
}
