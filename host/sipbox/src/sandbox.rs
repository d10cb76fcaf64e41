//! From a configuration to what serves it: components, chains of policies, the snapshot
//! that workers read.

use std::sync::Arc;

use sipbox_core::settings::Settings;
use sipbox_core::shared::{Shared, SharedLimits};
use sipbox_wasm::{
    Chain, ComponentStore, CpuBudget, Engine, EngineSettings, Limits, LoadError, Policy,
    PolicySpec, WasmStats,
};

use crate::parts::{ComponentSource, Live, instances_of_each};
use crate::snapshot::{Snapshot, Tenant};
use crate::start::random;

/// The residential policy, compiled by the build script.
static RESIDENTIAL: &[u8] = include_bytes!(env!("SIPBOX_RESIDENTIAL"));

/// What turns policies into chains.
pub(crate) struct Sandbox {
    components: ComponentStore,
    /// Counters by tenant and policy.
    pub(crate) stats: WasmStats,
}

impl Sandbox {
    /// A sandbox for checks alone, which make one instance at a time.
    pub(crate) fn for_checks() -> anyhow::Result<Self> {
        Self::new(EngineSettings::default())
    }

    /// A sandbox for so many policies on so many workers; `cache` keeps compiled
    /// components. Each worker has room for an instance of each policy and, while a reload
    /// comes into force, of those before it. If there are more policies than that, those
    /// that are in use keep theirs.
    pub(crate) fn for_node(
        cache: Option<&std::path::Path>,
        policies: usize,
        workers: usize,
    ) -> anyhow::Result<Self> {
        let wanted = policies.saturating_mul(instances_of_each(workers));
        let default = EngineSettings::default().instances;
        Self::new(EngineSettings {
            cache: cache.map(Into::into),
            instances: EngineSettings::for_workers(wanted.saturating_mul(2)).max(default),
        })
    }

    fn new(settings: EngineSettings) -> anyhow::Result<Self> {
        let engine = Engine::new(&settings)?;
        Ok(Self {
            components: ComponentStore::new(&engine),
            stats: WasmStats::default(),
        })
    }

    /// The instances that each worker may keep, and the one of confined tenants.
    pub(crate) fn share(&self, workers: usize) -> usize {
        self.components.engine().share(instances_of_each(workers))
    }

    fn load(&self, source: &ComponentSource) -> Result<Arc<Policy>, LoadError> {
        match source {
            ComponentSource::Residential => self.components.load(RESIDENTIAL),
            ComponentSource::File(path) => self.components.load_file(path),
        }
    }

    /// The chains of a configuration, tenant by tenant.
    ///
    /// # Errors
    /// Every policy that is refused: tenant, position in its chain, reason.
    pub(crate) fn chains(&self, live: &Live) -> Result<Vec<Chain>, Vec<Refused>> {
        let mut chains = Vec::with_capacity(live.tenants.len());
        let mut refused = Vec::new();
        for (position, (tenant, parts)) in
            live.settings.tenants.iter().zip(&live.tenants).enumerate()
        {
            let name: Arc<str> = tenant.name.as_str().into();
            let mut specs = Vec::with_capacity(parts.policies.len());
            let mut positions = Vec::with_capacity(parts.policies.len());
            for (at, policy) in parts.policies.iter().enumerate() {
                match self.load(&policy.component) {
                    Ok(component) => {
                        positions.push(at);
                        specs.push(PolicySpec {
                            name: Arc::clone(&policy.name),
                            component,
                            settings: policy.settings.as_str().into(),
                            grants: parts.grants.clone(),
                            limits: Limits {
                                memory: policy.memory.unwrap_or(parts.limits.memory),
                                ..parts.limits
                            },
                        });
                    }
                    Err(error) => refused.push(Refused {
                        tenant: position,
                        policy: at,
                        error,
                    }),
                }
            }
            let budget = Arc::new(CpuBudget::new(parts.cpu_budget));
            match Chain::new(&name, specs, Some(budget), &self.stats) {
                Ok(chain) => chains.push(chain),
                Err(errors) => refused.extend(errors.into_iter().map(|(at, error)| Refused {
                    tenant: position,
                    policy: positions.get(at).copied().unwrap_or(at),
                    error,
                })),
            }
        }
        if refused.is_empty() {
            Ok(chains)
        } else {
            Err(refused)
        }
    }
}

/// A policy that cannot be used.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The tenant's position.
    pub(crate) tenant: usize,
    /// The position in its chain.
    pub(crate) policy: usize,
    /// Why.
    pub(crate) error: LoadError,
}

/// A snapshot of a configuration whose policies are loaded.
pub(crate) fn snapshot(
    live: &Live,
    chains: Vec<Chain>,
    before: Option<&Snapshot>,
) -> anyhow::Result<Snapshot> {
    let mut settings = Settings::new(live.settings.clone())?;
    if let Some(before) = before {
        settings.succeed(&before.settings);
    }
    let settings = Arc::new(settings);
    let version = before.map_or(1, |before| before.version.saturating_add(1));
    let tenants = live.settings.tenants.iter().zip(&live.tenants).zip(chains);
    let tenants = tenants.map(|((tenant, parts), chain)| {
        let before = before.and_then(|before| before.tenant(tenant.id));
        let domains = tenant.domains.iter();
        anyhow::Ok(Tenant {
            id: tenant.id,
            name: tenant.name.as_str().into(),
            domains: domains.map(|domain| domain.to_ascii_lowercase()).collect(),
            chain,
            shared: shared(before, &parts.shared)?,
        })
    });
    let tenants: Vec<Tenant> = tenants.collect::<Result<_, _>>()?;
    Ok(Snapshot::new(settings, tenants, live.drain, version))
}

/// What a tenant has kept so far. Its limits stay what they are until the snapshot is in
/// force.
fn shared(before: Option<&Arc<Tenant>>, limits: &SharedLimits) -> anyhow::Result<Shared> {
    match before {
        Some(before) => Ok(before.shared.clone()),
        None => Ok(Shared::in_memory(limits, &random()?)),
    }
}

/// Makes the instances that workers will need, where no message waits for them.
///
/// # Errors
/// The first tenant's whose policies cannot have all of theirs.
pub(crate) fn stock(chains: &[Chain], workers: usize) -> Result<(), Vec<Refused>> {
    for (tenant, chain) in chains.iter().enumerate() {
        chain.stock(workers).map_err(|errors| {
            let refused = errors.into_iter().map(|(policy, error)| Refused {
                tenant,
                policy,
                error,
            });
            refused.collect::<Vec<_>>()
        })?;
    }
    Ok(())
}
