//! The interface `kv`.

use sipbox_core::policy::{CallError, Effect};
use sipbox_core::shared::{Answer, Change, Entry, SharedNow, Staged, Swap};

use crate::bindings::wit::kv as wit;
use crate::bindings::wit::types::Error;
use crate::cx::CallCx;
use crate::dialogs::check_key;

/// An answer that is there. Stores are synchronous, so there is nobody who could wait for
/// one that comes later: whoever links a backend that is elsewhere makes them asynchronous.
pub(crate) fn at_once<T>(answer: Answer<Result<T, CallError>>) -> Result<T, CallError> {
    let late = || CallError::Unavailable("the answer comes too late".to_owned());
    answer.now().unwrap_or_else(|| Err(late()))
}

/// Seconds that the time to live can be: a bit more than three years.
const LONGEST: u32 = 100_000_000;

impl wit::Host for CallCx {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<wit::Entry>, Error>> {
        self.enter()?;
        let found = self.kv_checked("get", &key).and_then(|()| self.kv(&key));
        let found = found.map(|entry| entry.map(wit::Entry::from));
        Ok(found.map_err(Error::from))
    }

    fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl: u32,
    ) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        let bytes = key.len() + value.len();
        let staged = self
            .kv_checked("set", &key)
            .and_then(|()| change(value, ttl))
            .and_then(|change| self.kv_stage(&key, change));
        self.kv_effect(staged, bytes).map(|set| set.map(|_| ()))
    }

    fn remove(&mut self, key: String) -> wasmtime::Result<Result<bool, Error>> {
        self.enter()?;
        let found = self.kv_checked("remove", &key).and_then(|()| self.kv(&key));
        let there = match found {
            Ok(found) => found.is_some(),
            Err(error) => return Ok(Err(Error::from(error))),
        };
        if !there && self.kv_staged(&key).is_none() {
            return Ok(Ok(false));
        }
        let staged = self.kv_stage(&key, Change::Remove);
        let removed = self.kv_effect(staged, key.len())?;
        Ok(removed.map(|_| there))
    }

    fn compare_and_set(
        &mut self,
        key: String,
        expected: Option<u32>,
        value: Vec<u8>,
        ttl: u32,
    ) -> wasmtime::Result<Result<wit::Swap, Error>> {
        self.enter()?;
        let bytes = key.len() + value.len();
        let swap = self
            .kv_checked("compare-and-set", &key)
            .and_then(|()| change(value, ttl))
            .and_then(|change| self.kv_swap(&key, expected, change));
        Ok(match swap {
            Ok(Swap::Staged(staged)) => self.kv_effect(Ok(staged), bytes)?.map(wit::Swap::Stored),
            Ok(Swap::Differs(found)) => Ok(wit::Swap::Differs(found.map(wit::Entry::from))),
            Ok(Swap::Busy) => Ok(wit::Swap::Busy),
            Err(error) => Err(Error::from(error)),
        })
    }
}

impl CallCx {
    fn kv_checked(&self, what: &str, key: &str) -> Result<(), CallError> {
        if self.hook.is_none() {
            return Err(CallError::OutOfPlace(format!("{what} in configure")));
        }
        if key.is_empty() {
            return Err(CallError::Malformed("an empty key".to_owned()));
        }
        check_key(key)
    }

    /// What this call has staged for the key.
    fn kv_staged(&self, key: &str) -> Option<&Staged> {
        self.call
            .effects
            .iter()
            .rev()
            .find_map(|effect| match effect {
                Effect::Kv(staged) if *staged.write().key == *key => Some(staged),
                _ => None,
            })
    }

    /// What stands under the key, for this call.
    fn kv(&self, key: &str) -> Result<Option<Entry>, CallError> {
        match self.kv_staged(key) {
            Some(staged) => Ok(staged.entry()),
            None => {
                let shared = self.call.capabilities.shared()?;
                at_once(shared.kv.get(key, shared.now))
            }
        }
    }

    fn kv_stage(&self, key: &str, change: Change) -> Result<Staged, CallError> {
        let hold = self.kv_staged(key).and_then(Staged::hold);
        let shared = self.call.capabilities.shared()?;
        at_once(shared.kv.stage(key, change, hold, shared.now))
    }

    /// What the call has staged is nobody else's: a comparison with it needs no claim but
    /// the one that there is.
    fn kv_swap(&self, key: &str, expected: Option<u32>, change: Change) -> Result<Swap, CallError> {
        let Some(staged) = self.kv_staged(key) else {
            let SharedNow { kv, now, .. } = self.call.capabilities.shared()?;
            return at_once(kv.compare_and_set(key, expected, change, now));
        };
        let found = staged.entry();
        if found.as_ref().map(|entry| entry.version) != expected {
            return Ok(Swap::Differs(found));
        }
        self.kv_stage(key, change).map(Swap::Staged)
    }

    /// Keeps a write for the verdict; its version.
    fn kv_effect(
        &mut self,
        staged: Result<Staged, CallError>,
        bytes: usize,
    ) -> wasmtime::Result<Result<u32, Error>> {
        let staged = match staged {
            Ok(staged) => staged,
            Err(error) => return Ok(Err(Error::from(error))),
        };
        self.stage(bytes)?;
        let version = staged.write().version;
        self.call.effects.push(Effect::Kv(staged));
        Ok(Ok(version))
    }
}

fn change(value: Vec<u8>, ttl: u32) -> Result<Change, CallError> {
    if ttl > LONGEST {
        return Err(CallError::Malformed(format!("ttl {ttl}")));
    }
    let value = value.into();
    Ok(Change::Set { value, ttl })
}

impl From<Entry> for wit::Entry {
    fn from(entry: Entry) -> Self {
        Self {
            value: entry.value.into(),
            version: entry.version,
            ttl: entry.ttl,
        }
    }
}
