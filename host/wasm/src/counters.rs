//! The interface `counters`.

use sipbox_core::policy::CallError;
use sipbox_core::shared::{CounterName, LONGEST_WINDOW, SharedNow, Taken};

use crate::bindings::wit::counters as wit;
use crate::bindings::wit::types::Error;
use crate::cx::CallCx;
use crate::dialogs::{check_key, check_name};
use crate::kv::at_once;

impl wit::Host for CallCx {
    fn add(
        &mut self,
        name: String,
        key: String,
        by: u32,
        window: u32,
    ) -> wasmtime::Result<Result<u32, Error>> {
        self.enter()?;
        let sum = self
            .counted("add", &name, &key, window)
            .and_then(|(counter, of)| at_once(of.counters.add(counter, by, of.now)));
        Ok(sum.map_err(Error::from))
    }

    fn take(
        &mut self,
        name: String,
        key: String,
        by: u32,
        window: u32,
        limit: u32,
    ) -> wasmtime::Result<Result<wit::Outcome, Error>> {
        self.enter()?;
        let taken = self
            .counted("take", &name, &key, window)
            .and_then(|(counter, of)| at_once(of.counters.take(counter, by, limit, of.now)));
        let taken = taken.map(|taken| match taken {
            Taken::Taken(sum) => wit::Outcome::Taken(sum),
            Taken::Over(sum) => wit::Outcome::Over(sum),
        });
        Ok(taken.map_err(Error::from))
    }

    fn read(
        &mut self,
        name: String,
        key: String,
        window: u32,
    ) -> wasmtime::Result<Result<u32, Error>> {
        self.add(name, key, 0, window)
    }

    fn reset(
        &mut self,
        name: String,
        key: String,
        window: u32,
    ) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        let reset = self
            .counted("reset", &name, &key, window)
            .and_then(|(counter, of)| at_once(of.counters.reset(counter, of.now)));
        Ok(reset.map_err(Error::from))
    }

    fn sequence(&mut self, name: String) -> wasmtime::Result<Result<u32, Error>> {
        self.enter()?;
        let number = self
            .named("sequence", &name)
            .and_then(|of| at_once(of.counters.sequence(&name, of.now)));
        Ok(number.map_err(Error::from))
    }
}

impl CallCx {
    /// Where the counters are, if a policy may name one so.
    fn named(&self, what: &str, name: &str) -> Result<SharedNow<'_>, CallError> {
        if self.hook.is_none() {
            return Err(CallError::OutOfPlace(format!("{what} in configure")));
        }
        check_name("counter", name)?;
        self.call.capabilities.shared()
    }

    /// A counter that a policy names, and where it is.
    fn counted<'a>(
        &'a self,
        what: &str,
        name: &'a str,
        key: &'a str,
        window: u32,
    ) -> Result<(CounterName<'a>, SharedNow<'a>), CallError> {
        let shared = self.named(what, name)?;
        check_key(key)?;
        if !(1..=LONGEST_WINDOW).contains(&window) {
            return Err(CallError::Malformed(format!("window {window}")));
        }
        Ok((CounterName { name, key, window }, shared))
    }
}
