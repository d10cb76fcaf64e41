//! Counters of what policies did: calls by worker, failures by reason. They
//! outlive reloads, because they are kept by the names of tenant and policy.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sipbox_core::policy::HookFailure;

/// Every reason for a call without a verdict, by its name.
pub const REASONS: [&str; 14] = [
    "trap",
    "cpu",
    "wall",
    "memory",
    "host-calls",
    "edits",
    "output",
    "log",
    "wasi-wait",
    "budget",
    "confined",
    "parked",
    "bad-verdict",
    "instantiate",
];

/// The counters of one policy of one tenant.
#[derive(Debug, Default)]
pub struct PolicyStats {
    failures: [AtomicU64; REASONS.len()],
    instances: AtomicU64,
    // One counter for each worker: a shared one would bounce between cores
    // with every message. The lock is for joining and reading only.
    calls: Mutex<Vec<Arc<AtomicU64>>>,
}

impl PolicyStats {
    /// Hook calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls
            .iter()
            .map(|worker| worker.load(Ordering::Relaxed))
            .sum()
    }

    /// Failures so far, for each of [`REASONS`].
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        REASONS
            .iter()
            .zip(&self.failures)
            .map(|(name, n)| (*name, n.load(Ordering::Relaxed)))
    }

    /// Failures of one reason.
    #[must_use]
    pub fn failed(&self, reason: &str) -> u64 {
        self.failures()
            .find(|(name, _)| *name == reason)
            .map_or(0, |(_, n)| n)
    }

    /// Instances made so far.
    #[must_use]
    pub fn instances(&self) -> u64 {
        self.instances.load(Ordering::Relaxed)
    }

    pub(crate) fn count_failure(&self, failure: &HookFailure) {
        let name = failure.name();
        if let Some((_, n)) = REASONS
            .iter()
            .zip(&self.failures)
            .find(|(known, _)| **known == name)
        {
            n.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_instance(&self) {
        self.instances.fetch_add(1, Ordering::Relaxed);
    }

    /// A counter of calls for one worker.
    pub(crate) fn join(&self) -> Arc<AtomicU64> {
        let counter = Arc::new(AtomicU64::new(0));
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        // Workers come and go with reloads: what the gone ones counted is kept
        // in one number.
        if calls.len() >= 64 {
            let mut gone = 0;
            calls.retain(|worker| {
                let alive = Arc::strong_count(worker) > 1;
                if !alive {
                    gone += worker.load(Ordering::Relaxed);
                }
                alive
            });
            calls.push(Arc::new(AtomicU64::new(gone)));
        }
        calls.push(Arc::clone(&counter));
        counter
    }
}

type Names = (Arc<str>, Arc<str>);

/// The counters of all policies, by tenant and policy.
#[derive(Debug, Default)]
pub struct WasmStats {
    policies: Mutex<HashMap<Names, Arc<PolicyStats>, foldhash::fast::RandomState>>,
}

impl WasmStats {
    /// The counters of a policy; made on first use.
    #[must_use]
    pub fn policy(&self, tenant: &Arc<str>, policy: &Arc<str>) -> Arc<PolicyStats> {
        let mut policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(tenant), Arc::clone(policy));
        Arc::clone(policies.entry(key).or_default())
    }

    /// Every policy's counters, sorted by tenant and policy.
    #[must_use]
    pub fn all(&self) -> Vec<(Arc<str>, Arc<str>, Arc<PolicyStats>)> {
        let policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = policies
            .iter()
            .map(|((tenant, policy), stats)| {
                (Arc::clone(tenant), Arc::clone(policy), Arc::clone(stats))
            })
            .collect();
        all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_counter() {
        let stats = PolicyStats::default();
        let failures = [
            HookFailure::Trap(String::new()),
            HookFailure::Cpu,
            HookFailure::Wall,
            HookFailure::Memory,
            HookFailure::HostCalls,
            HookFailure::Edits,
            HookFailure::Output,
            HookFailure::Log,
            HookFailure::WasiWait,
            HookFailure::Budget,
            HookFailure::Confined,
            HookFailure::Parked,
            HookFailure::BadVerdict(String::new()),
            HookFailure::Instantiate(String::new()),
        ];
        for failure in &failures {
            stats.count_failure(failure);
            assert_eq!(stats.failed(failure.name()), 1, "{failure}");
        }
        assert_eq!(stats.failures().map(|(_, n)| n).sum::<u64>(), 14);
    }

    #[test]
    fn calls_of_workers_that_went_are_kept() {
        let stats = PolicyStats::default();
        for _ in 0..300 {
            stats.join().fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(stats.calls(), 300);
    }
}
