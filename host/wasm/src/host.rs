//! Calls of a chain's policies on one worker: `sipbox-core`'s `PolicyHost`.

use std::time::{Duration, Instant};

use sipbox_core::policy::{HookCall, HookFailure, HookInput, HookOutput, PolicyHost};

use crate::chain::Chain;
use crate::pool::Pools;

/// A chain, to be called on the worker whose pools these are.
pub struct ChainHost<'a> {
    pools: &'a mut Pools,
    chain: &'a Chain,
}

impl<'a> ChainHost<'a> {
    /// Calls of `chain` with the instances of `pools`.
    #[must_use]
    pub fn new(pools: &'a mut Pools, chain: &'a Chain) -> Self {
        Self { pools, chain }
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
}

impl PolicyHost for ChainHost<'_> {
    fn call(
        &mut self,
        policy: usize,
        input: HookInput,
        call: &mut HookCall,
    ) -> Result<HookOutput, HookFailure> {
        let Some(version) = self.chain.policies.get(policy) else {
            return Err(HookFailure::Instantiate(format!(
                "no policy at position {policy}"
            )));
        };
        let result = match self.chain.budget.as_deref() {
            None => self.pools.call(version, &input, call).0,
            Some(budget) => {
                let reserved = version.spec.limits.cpu;
                if budget.reserve(reserved, call.facts.now) {
                    let begun = Instant::now();
                    let (result, cpu) = self.pools.call(version, &input, call);
                    budget.settle(reserved, used(begun, cpu));
                    result
                } else {
                    Err(HookFailure::Budget)
                }
            }
        };
        if let Err(failure) = &result {
            version.stats.count_failure(failure);
        }
        result
    }
}

/// What a call cost: measured CPU time if it was long enough to be looked at,
/// else the wall clock, which is cheap to read and at most two ticks too much.
fn used(begun: Instant, cpu: Option<Duration>) -> Duration {
    cpu.unwrap_or_else(|| begun.elapsed().min(2 * crate::engine::TICK))
}
