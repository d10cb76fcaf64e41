//! `kv` and `counters`, as far as a policy can tell. Time is that of the calls.

use std::collections::BTreeMap;

use sipbox_guest::Error;
use sipbox_guest::counters::Outcome;
use sipbox_guest::kv::{Entry, Swap};

use crate::live::Live;
use crate::run::Effect;
use crate::world::World;

/// What a tenant keeps in a test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) values: BTreeMap<String, Value>,
    /// When how much was added, by name, key and window.
    pub(crate) counters: BTreeMap<(String, String, u32), Vec<(u32, u32)>>,
    /// The next number of each sequence.
    pub(crate) sequences: BTreeMap<String, u32>,
    pub(crate) kv_failure: Option<Error>,
    pub(crate) counter_failure: Option<Error>,
    pub(crate) busy: Vec<String>,
    version: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Value {
    bytes: Vec<u8>,
    version: u32,
    /// The second that it ends in; 0: it does not.
    ends: u32,
}

impl Shared {
    fn entry(&self, key: &str, now: u32) -> Option<Entry> {
        let value = self.values.get(key)?;
        (value.ends == 0 || value.ends > now).then(|| Entry {
            value: value.bytes.clone(),
            version: value.version,
            ttl: value.ends.saturating_sub(now),
        })
    }

    /// Makes a write that a verdict committed; without a value a removal.
    pub(crate) fn write(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        (ttl, now): (u32, u32),
        version: u32,
    ) {
        self.version = self.version.max(version);
        match value {
            Some(bytes) => {
                let value = Value {
                    bytes: bytes.to_vec(),
                    version,
                    ends: if ttl == 0 { 0 } else { now.saturating_add(ttl) },
                };
                self.values.insert(key.into(), value);
            }
            None => {
                self.values.remove(key);
            }
        }
    }

    fn sum(&self, name: &str, key: &str, window: u32, now: u32) -> u32 {
        let added = self.counters.get(&(name.into(), key.into(), window));
        let within = |(at, _): &&(u32, u32)| at.saturating_add(window) > now;
        let added = added.into_iter().flatten().filter(within);
        added.fold(0, |sum, (_, by)| sum.saturating_add(*by))
    }

    fn add(&mut self, name: &str, key: &str, by: u32, window: u32, now: u32) {
        let counter = self.counters.entry((name.into(), key.into(), window));
        counter.or_default().push((now, by));
    }
}

impl World {
    /// A value stands under a key of the tenant's kv, and does not expire.
    #[must_use]
    pub fn stored(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let version = self.shared.version + 1;
        self.shared
            .write(key, Some(value.as_ref()), (0, 0), version);
        self
    }

    /// What stands under a key at a second since 1970.
    #[must_use]
    pub fn value(&self, key: &str, second: u32) -> Option<Vec<u8>> {
        self.shared.entry(key, second).map(|entry| entry.value)
    }

    /// Every call of `kv` fails with this error: `Error::Limit("kv_entries".into())`.
    #[must_use]
    pub fn kv_fails(mut self, error: Error) -> Self {
        self.shared.kv_failure = Some(error);
        self
    }

    /// Another call has compared this key, and its verdict is not carried out yet.
    #[must_use]
    pub fn kv_busy(mut self, key: &str) -> Self {
        self.shared.busy.push(key.into());
        self
    }

    /// So much was added to a counter at a second since 1970.
    #[must_use]
    pub fn counted(mut self, name: &str, key: &str, window: u32, by: u32, second: u32) -> Self {
        self.shared.add(name, key, by, window, second);
        self
    }

    /// The sum of a counter at a second since 1970.
    #[must_use]
    pub fn count(&self, name: &str, key: &str, window: u32, second: u32) -> u32 {
        self.shared.sum(name, key, window, second)
    }

    /// So many numbers of a sequence were given out.
    #[must_use]
    pub fn numbered(mut self, name: &str, numbers: u32) -> Self {
        self.shared.sequences.insert(name.into(), numbers);
        self
    }

    /// How many numbers of a sequence were given out.
    #[must_use]
    pub fn numbers(&self, name: &str) -> u32 {
        self.shared.sequences.get(name).copied().unwrap_or(0)
    }

    /// Every call of `counters` fails with this error.
    #[must_use]
    pub fn counters_fail(mut self, error: Error) -> Self {
        self.shared.counter_failure = Some(error);
        self
    }
}

fn check(what: &str, text: &str, longest: usize) -> Result<(), Error> {
    if text.len() <= longest && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::Malformed(format!("{what} `{text}`")))
}

impl Live {
    fn kv_checked(&self, key: &str) -> Result<(), Error> {
        if key.is_empty() {
            return Err(Error::Malformed("an empty key".into()));
        }
        check("key", key, 255)?;
        match &self.world.shared.kv_failure {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// What the call has staged; `None`: nothing of this key.
    fn staged(&self, key: &str) -> Option<Option<Entry>> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Kv {
                key: of,
                value,
                ttl,
                version,
            } if of == key => Some(value.as_ref().map(|value| Entry {
                value: value.clone(),
                version: *version,
                ttl: *ttl,
            })),
            _ => None,
        })
    }

    pub(crate) fn value_of(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.kv_checked(key)?;
        let stored = || self.world.shared.entry(key, self.call.seconds);
        Ok(self.staged(key).unwrap_or_else(stored))
    }

    pub(crate) fn stage_value(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        ttl: u32,
    ) -> Result<u32, Error> {
        self.kv_checked(key)?;
        self.world.shared.version += 1;
        let version = self.world.shared.version;
        self.effects.push(Effect::Kv {
            key: key.into(),
            value: value.map(<[u8]>::to_vec),
            ttl,
            version,
        });
        Ok(version)
    }

    pub(crate) fn remove_value(&mut self, key: &str) -> Result<bool, Error> {
        let there = self.value_of(key)?.is_some();
        if there {
            self.stage_value(key, None, 0)?;
        }
        Ok(there)
    }

    pub(crate) fn swap_value(
        &mut self,
        key: &str,
        expected: Option<u32>,
        value: &[u8],
        ttl: u32,
    ) -> Result<Swap, Error> {
        let found = self.value_of(key)?;
        if self.world.shared.busy.iter().any(|busy| busy == key) {
            return Ok(Swap::Busy);
        }
        if found.as_ref().map(|entry| entry.version) != expected {
            return Ok(Swap::Differs(found));
        }
        self.stage_value(key, Some(value), ttl).map(Swap::Stored)
    }

    fn counter_checked(&self, name: &str, key: &str, window: u32) -> Result<(), Error> {
        check("key", key, 255)?;
        if !(1..=86_400).contains(&window) {
            return Err(Error::Malformed(format!("window {window}")));
        }
        self.counter_named(name)
    }

    fn counter_named(&self, name: &str) -> Result<(), Error> {
        check("counter", name, 255)?;
        if name.is_empty() || name.starts_with(':') {
            return Err(Error::Malformed(format!("counter `{name}`")));
        }
        match &self.world.shared.counter_failure {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    pub(crate) fn add_to_counter(
        &mut self,
        name: &str,
        key: &str,
        by: u32,
        window: u32,
    ) -> Result<u32, Error> {
        self.counter_checked(name, key, window)?;
        let now = self.call.seconds;
        if by > 0 {
            self.world.shared.add(name, key, by, window, now);
        }
        Ok(self.world.shared.sum(name, key, window, now))
    }

    pub(crate) fn take_from_counter(
        &mut self,
        name: &str,
        key: &str,
        by: u32,
        window: u32,
        limit: u32,
    ) -> Result<Outcome, Error> {
        let sum = self.add_to_counter(name, key, 0, window)?;
        if sum.saturating_add(by) > limit {
            return Ok(Outcome::Over(sum));
        }
        let sum = self.add_to_counter(name, key, by, window)?;
        Ok(Outcome::Taken(sum))
    }

    pub(crate) fn next_of_sequence(&mut self, name: &str) -> Result<u32, Error> {
        self.counter_named(name)?;
        let next = self.world.shared.sequences.entry(name.into()).or_default();
        let number = *next;
        *next = number.wrapping_add(1);
        Ok(number)
    }

    pub(crate) fn reset_counter(
        &mut self,
        name: &str,
        key: &str,
        window: u32,
    ) -> Result<(), Error> {
        self.counter_checked(name, key, window)?;
        let counter = (name.into(), key.into(), window);
        self.world.shared.counters.remove(&counter);
        Ok(())
    }
}
