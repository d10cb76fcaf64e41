//! `wasi:clocks`: both clocks stand at the time of the call.

use wasmtime::component::{ComponentType, Linker, Lower, Resource};

use super::VERSION;
use super::io::{LATER, Pollable, READY};
use crate::cx::CallCx;

/// The record `datetime`.
#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

/// A millisecond, which is what `call.now` tells.
const RESOLUTION: u32 = 1_000_000;

impl CallCx {
    fn wall(&self) -> Datetime {
        let now = self.call.facts.now;
        let milliseconds = u32::try_from(now.0 % 1000).unwrap_or(0);
        Datetime {
            seconds: now.seconds(),
            nanoseconds: milliseconds * RESOLUTION,
        }
    }

    fn monotonic(&self) -> u64 {
        self.call.facts.now.0.saturating_mul(u64::from(RESOLUTION))
    }
}

pub(super) fn link(linker: &mut Linker<CallCx>) -> wasmtime::Result<()> {
    let mut wall = linker.instance(&format!("wasi:clocks/wall-clock{VERSION}"))?;
    wall.func_wrap("now", |mut store, (): ()| {
        let cx: &mut CallCx = store.data_mut();
        cx.enter()?;
        Ok((cx.wall(),))
    })?;
    wall.func_wrap("resolution", |mut store, (): ()| {
        let cx: &mut CallCx = store.data_mut();
        cx.enter()?;
        Ok((Datetime {
            seconds: 0,
            nanoseconds: RESOLUTION,
        },))
    })?;

    let mut monotonic = linker.instance(&format!("wasi:clocks/monotonic-clock{VERSION}"))?;
    monotonic.func_wrap("now", |mut store, (): ()| {
        let cx: &mut CallCx = store.data_mut();
        cx.enter()?;
        Ok((cx.monotonic(),))
    })?;
    monotonic.func_wrap("resolution", |mut store, (): ()| {
        let cx: &mut CallCx = store.data_mut();
        cx.enter()?;
        Ok((u64::from(RESOLUTION),))
    })?;
    monotonic.func_wrap("subscribe-instant", |mut store, (when,): (u64,)| {
        let cx: &mut CallCx = store.data_mut();
        cx.enter()?;
        let kind = if when <= cx.monotonic() { READY } else { LATER };
        Ok((Resource::<Pollable>::new_own(kind),))
    })?;
    monotonic.func_wrap("subscribe-duration", |mut store, (duration,): (u64,)| {
        let cx: &mut CallCx = store.data_mut();
        cx.enter()?;
        let kind = if duration == 0 { READY } else { LATER };
        Ok((Resource::<Pollable>::new_own(kind),))
    })
}
