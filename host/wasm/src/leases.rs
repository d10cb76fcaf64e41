//! The interface `leases`.

use sipbox_core::lease::{Acquired, Lease};
use sipbox_core::policy::{CallError, Effect, Hook};

use crate::bindings::wit::leases as wit;
use crate::bindings::wit::types::Error;
use crate::cx::CallCx;
use crate::dialogs::{check_key, check_name};

/// Leases that a call can have.
const MOST: usize = 64;

impl wit::Host for CallCx {
    fn acquire(
        &mut self,
        scope: String,
        key: String,
        limit: u32,
    ) -> wasmtime::Result<Result<wit::Outcome, Error>> {
        self.enter()?;
        self.stage(scope.len() + key.len())?;
        Ok(self.lease(&scope, &key, limit).map_err(Error::from))
    }

    fn acquire_all(
        &mut self,
        places: Vec<wit::Place>,
    ) -> wasmtime::Result<Result<wit::AllOutcome, Error>> {
        self.enter()?;
        let held = self.call.state.leases.len();
        for (at, place) in (0..).zip(&places) {
            self.stage(place.scope.len() + place.key.len())?;
            let outcome = match self.lease(&place.scope, &place.key, place.limit) {
                Ok(wit::Outcome::Granted(_)) => continue,
                Ok(wit::Outcome::Full(_)) => Ok(wit::AllOutcome::Full(at)),
                Err(error) => Err(Error::from(error)),
            };
            self.call.keep_leases(held);
            return Ok(outcome);
        }
        Ok(Ok(wit::AllOutcome::Granted))
    }

    fn release(&mut self, lease: u32) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        self.stage(0)?;
        if let Err(error) = self.only_in(
            "release",
            &[Hook::Request, Hook::Branch, Hook::Reply, Hook::Failure],
        ) {
            return Ok(Err(Error::from(error)));
        }
        let held = &self.call.state.leases;
        let Some(at) = held.iter().position(|held| number(held) == lease) else {
            let error = CallError::Malformed(format!("no lease {lease} of this call"));
            return Ok(Err(Error::from(error)));
        };
        let released = self.call.state_mut().leases.remove(at);
        self.call.effects.push(Effect::Release(released));
        Ok(Ok(()))
    }

    fn held(&mut self, scope: String, key: String) -> wasmtime::Result<Result<u32, Error>> {
        self.enter()?;
        let call = &self.call;
        Ok(call
            .capabilities
            .leases_held(call, &scope, &key)
            .map_err(Error::from))
    }
}

impl CallCx {
    fn lease(&mut self, scope: &str, key: &str, limit: u32) -> Result<wit::Outcome, CallError> {
        self.only_in("acquire", &[Hook::Request, Hook::Failure])?;
        check_name("scope", scope)?;
        check_key(key)?;
        let of_key = |held: &&Lease| &*held.key().scope == scope && &*held.key().key == key;
        if let Some(held) = self.call.state.leases.iter().find(of_key) {
            return Ok(wit::Outcome::Granted(number(held)));
        }
        if self.call.state.leases.len() >= MOST {
            return Err(CallError::Limit(format!("{MOST} leases of a call")));
        }
        let call = &self.call;
        Ok(match call.capabilities.acquire(call, scope, key, limit)? {
            Acquired::Granted(lease) => {
                let number = number(&lease);
                self.call.take_lease(lease);
                wit::Outcome::Granted(number)
            }
            Acquired::Full(held) => wit::Outcome::Full(held),
        })
    }
}

/// What a policy knows a lease by: unique among those of a call.
fn number(lease: &Lease) -> u32 {
    u32::try_from(lease.id() & u64::from(u32::MAX)).unwrap_or(0)
}
