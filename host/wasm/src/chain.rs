//! A tenant's chain of policies: immutable, shared by the transactions that
//! began with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sipbox_core::policy::{Hook, HookFailure, HookOutput};

use crate::component::{Capability, LoadError, Policy};
use crate::conduct::Conduct;
use crate::limits::{CpuBudget, Limits, Used};
use crate::pool::{Description, Instance};
use crate::stats::{PolicyStats, WasmStats};
use crate::stock::Slot;

/// One policy of a chain, as configuration describes it.
#[derive(Clone, Debug)]
pub struct PolicySpec {
    /// The policy's name in the configuration.
    pub name: Arc<str>,
    /// The component.
    pub component: Arc<Policy>,
    /// The settings, as JSON.
    pub settings: Arc<str>,
    /// What its tenant grants it.
    pub grants: Vec<Capability>,
    /// The limits of each of its hook calls.
    pub limits: Limits,
}

/// A policy with its settings: what an instance is made of.
pub(crate) struct PolicyVersion {
    /// Distinguishes instances: no two versions share any, nor do two tenants.
    pub(crate) id: u64,
    pub(crate) spec: PolicySpec,
    pub(crate) stats: Arc<PolicyStats>,
    /// Warm instances that no worker has taken yet.
    pub(crate) stock: Mutex<Vec<(Instance, Slot)>>,
}

impl PolicyVersion {
    /// A warm instance that was made ahead.
    pub(crate) fn take(&self) -> Option<Instance> {
        self.stock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .map(|(instance, _slot)| instance)
    }

    /// Makes instances ahead, as far as the engine has slots for them.
    fn stock(&self, number: usize) -> Result<(), LoadError> {
        for slot in (0..number).map_while(|_| self.spec.component.engine.stock.slot()) {
            let instance = Instance::warm(self)?;
            self.stock
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((instance, slot));
        }
        Ok(())
    }
}

/// The policies of a tenant in their order, with its CPU budget and its conduct.
pub struct Chain {
    pub(crate) policies: Vec<Arc<PolicyVersion>>,
    pub(crate) budget: Option<Arc<CpuBudget>>,
    conduct: Arc<Conduct>,
    tenant: Arc<str>,
    descriptions: Vec<Description>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain")
            .field("tenant", &self.tenant)
            .field("policies", &self.names().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

static NEXT_VERSION: AtomicU64 = AtomicU64::new(1);

impl Chain {
    /// Checks the grants and the settings of every policy, each on an instance
    /// of its own that is thrown away.
    ///
    /// # Errors
    /// For each policy that is refused: its position, and each reason.
    pub fn new(
        tenant: &Arc<str>,
        specs: Vec<PolicySpec>,
        budget: Option<Arc<CpuBudget>>,
        stats: &WasmStats,
    ) -> Result<Self, Vec<(usize, LoadError)>> {
        let mut errors = Vec::new();
        let mut policies = Vec::with_capacity(specs.len());
        let mut descriptions = Vec::with_capacity(specs.len());
        for (position, spec) in specs.into_iter().enumerate() {
            if let Err(missing) = spec.component.check_grants(&spec.grants) {
                errors.extend(missing.into_iter().map(|error| (position, error)));
                // Its settings are tried all the same, so that everything is said at
                // once: outside of a call an instance has nothing to lay hands on.
            }
            let stats = stats.policy(tenant, &spec.name);
            let id = NEXT_VERSION.fetch_add(1, Ordering::Relaxed);
            let version = PolicyVersion {
                id,
                spec,
                stats,
                stock: Mutex::default(),
            };
            match Instance::new(&version) {
                Ok(instance) => descriptions.push(instance.description),
                Err(error) => errors.push((position, error)),
            }
            policies.push(Arc::new(version));
        }
        if errors.is_empty() {
            Ok(Self {
                policies,
                budget,
                conduct: Arc::default(),
                tenant: Arc::clone(tenant),
                descriptions,
            })
        } else {
            Err(errors)
        }
    }

    /// Makes an instance of every policy for each of `workers`, each called once with a
    /// message that is none, so that neither `configure` nor page faults nor lazy set-up
    /// meet a real one. Takes its time: call it where no message waits, before the chain
    /// comes into force. When half of the engine's instances wait already, the rest
    /// is made on first use.
    ///
    /// # Errors
    /// For each policy that could not be made: its position and why.
    pub fn stock(&self, workers: usize) -> Result<(), Vec<(usize, LoadError)>> {
        let errors: Vec<_> = (0..)
            .zip(&self.policies)
            .filter_map(|(at, version)| Some((at, version.stock(workers).err()?)))
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    /// Takes the place of another chain of the same tenant: how its policies behaved and
    /// what they used is not forgotten.
    pub fn succeed(&mut self, before: &Self) {
        self.conduct = Arc::clone(&before.conduct);
        if let (Some(new), Some(old)) = (&self.budget, &before.budget) {
            self.budget = Some(Arc::new(new.succeeding(old)));
        }
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// How its policies behave.
    #[must_use]
    pub fn conduct(&self) -> &Arc<Conduct> {
        &self.conduct
    }

    /// Judges a call of one of its policies.
    pub(crate) fn ran(
        &self,
        policy: &PolicyVersion,
        used: Used,
        result: &Result<HookOutput, HookFailure>,
    ) {
        let ended_by_limit = matches!(result, Err(HookFailure::Cpu));
        if self.conduct.ran(used, ended_by_limit) {
            tracing::warn!(
                tenant = &*self.tenant,
                policy = &*policy.spec.name,
                last = ?used.seen,
                "calls run long: beside other tenants this one's wait for each other"
            );
        }
    }

    /// Number of policies.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there is no policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The policies' names in their order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.policies.iter().map(|policy| &policy.spec.name)
    }

    /// Whether a policy of the chain exports a hook.
    #[must_use]
    pub fn exports(&self, policy: usize, hook: Hook) -> bool {
        self.policies
            .get(policy)
            .is_some_and(|policy| policy.spec.component.exports(hook))
    }

    /// What each policy says that it is.
    #[must_use]
    pub fn descriptions(&self) -> &[Description] {
        &self.descriptions
    }
}
