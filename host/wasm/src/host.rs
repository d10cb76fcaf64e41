//! Calls of a chain's policies on one worker: `sipbox-core`'s `PolicyHost`.

use std::sync::Arc;

use sipbox_core::policy::{HookCall, HookFailure, HookInput, HookOutput, PolicyHost};

use crate::chain::{Chain, PolicyVersion};
use crate::limits::Reading;
use crate::pool::{Pools, hook_of};

/// A chain, to be called on the worker whose pools these are: its policies one after the
/// other, for one message.
pub struct ChainHost<'a> {
    pools: &'a mut Pools,
    chain: &'a Chain,
    refusal: Option<HookFailure>,
    /// When the policy before ended. The next one begins then: each reading serves twice.
    ended: Option<Reading>,
}

impl<'a> ChainHost<'a> {
    /// Calls of `chain` with the instances of `pools`.
    #[must_use]
    pub fn new(pools: &'a mut Pools, chain: &'a Chain) -> Self {
        Self {
            pools,
            chain,
            refusal: None,
            ended: None,
        }
    }

    /// With a failure, nobody is called: each call ends with it, and is counted so.
    #[must_use]
    pub fn refusing(self, refusal: Option<HookFailure>) -> Self {
        Self { refusal, ..self }
    }

    /// The chain.
    #[must_use]
    pub fn chain(&self) -> &'a Chain {
        self.chain
    }

    /// What the randomness of the last call came from.
    pub(crate) fn last_seed(&self) -> Option<[u8; 32]> {
        self.pools.last_seed
    }

    fn within_budget(
        &mut self,
        version: &Arc<PolicyVersion>,
        input: &HookInput,
        call: &mut Box<HookCall>,
    ) -> Result<HookOutput, HookFailure> {
        let reserved = version.spec.limits.cpu;
        let budget = self.chain.budget.as_deref();
        let exact = self.chain.conduct().is_watched();
        let begun = match self.ended {
            Some(ended) if ended.is_exact() || !exact => ended,
            _ => Reading::now(exact),
        };
        if budget.is_some_and(|budget| !budget.reserve(reserved, begun.wall())) {
            return Err(HookFailure::Budget);
        }
        let (result, cost) = self.pools.call(version, input, call);
        let ended = Reading::now(begun.is_exact());
        self.ended = Some(ended);
        let used = begun.until(&ended, &cost);
        if let Some(budget) = budget {
            budget.settle(reserved, used.seen);
        }
        self.chain.ran(version, used, &result);
        result
    }
}

impl PolicyHost for ChainHost<'_> {
    fn call(
        &mut self,
        policy: usize,
        input: HookInput,
        call: &mut Box<HookCall>,
    ) -> Result<HookOutput, HookFailure> {
        let Some(version) = self.chain.policies.get(policy) else {
            return Err(HookFailure::Instantiate(format!(
                "no policy at position {policy}"
            )));
        };
        let result = match &self.refusal {
            Some(failure) => Err(failure.clone()),
            // Nobody has to be woken up to say nothing.
            None if !version.spec.component.exports(hook_of(&input)) => Ok(HookOutput::Absent),
            None => self.within_budget(version, &input, call),
        };
        if let Err(failure) = &result {
            version.stats.count_failure(failure);
        }
        result
    }

    fn discarded(&mut self, policy: usize, failure: &HookFailure) {
        if let Some(version) = self.chain.policies.get(policy) {
            version.stats.count_failure(failure);
        }
    }
}
