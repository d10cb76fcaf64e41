//! What a node is made of, worked out from a configuration: plain values that
//! the other crates take.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sipbox_core::auth::AuthSettings;
use sipbox_core::settings::SettingsSpec;
use sipbox_core::shared::SharedLimits;
use sipbox_net::NetConfig;
use sipbox_store::Durability;
use sipbox_wasm::{Capability, Limits};

/// Everything that a node is started with.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Fixed until the next start.
    pub(crate) fixed: Fixed,
    /// Replaced by a reload.
    pub(crate) live: Live,
}

/// What only a start can change.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    /// Tells this node from others in the ids that leave it.
    pub(crate) node: u16,
    /// Sockets.
    pub(crate) net: NetConfig,
    /// The database file.
    pub(crate) database: PathBuf,
    /// The file of the secret that outlives restarts.
    pub(crate) key: PathBuf,
    /// When a 200 to REGISTER is sent.
    pub(crate) durability: Durability,
    /// Where compiled components are kept.
    pub(crate) cache: Option<PathBuf>,
    /// The control socket.
    pub(crate) control: PathBuf,
    /// Nonces and failures.
    pub(crate) auth: AuthSettings,
}

/// What a reload replaces.
#[derive(Debug)]
pub(crate) struct Live {
    /// For the core; listeners carry the addresses that they are bound to.
    pub(crate) settings: SettingsSpec,
    /// One for each tenant of `settings`, in the same order.
    pub(crate) tenants: Vec<TenantParts>,
    /// How long a stop waits for the transactions in flight.
    pub(crate) drain: Duration,
}

/// The instances that each policy has: one on every worker, and one on that of
/// confined tenants.
pub(crate) const fn instances_of_each(workers: usize) -> usize {
    workers.saturating_add(1)
}

impl Live {
    /// The policies of all tenants.
    pub(crate) fn policies(&self) -> usize {
        let each = self.tenants.iter().map(|tenant| tenant.policies.len());
        each.sum()
    }
}

/// The policies of a tenant.
#[derive(Debug)]
pub(crate) struct TenantParts {
    /// What its policies may import.
    pub(crate) grants: Vec<Capability>,
    /// The limits of each of their calls.
    pub(crate) limits: Limits,
    /// CPU time of all their calls for each second.
    pub(crate) cpu_budget: Duration,
    /// What they may keep in `kv` and `counters`.
    pub(crate) shared: SharedLimits,
    /// The chain.
    pub(crate) policies: Vec<PolicyParts>,
}

/// One policy of a chain.
#[derive(Debug)]
pub(crate) struct PolicyParts {
    /// Its name, for logs.
    pub(crate) name: Arc<str>,
    /// Where the component comes from.
    pub(crate) component: ComponentSource,
    /// Its settings, as JSON.
    pub(crate) settings: String,
    /// Bytes of linear memory, in the place of the tenant's limit.
    pub(crate) memory: Option<usize>,
}

/// Where a component comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ComponentSource {
    /// The residential policy that is compiled in.
    Residential,
    /// A file.
    File(PathBuf),
}
