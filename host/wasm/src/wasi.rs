//! The WASI functions that toolchains import.

use wasmtime::component::Linker;

use crate::cx::CallCx;

/// What the WASI functions of a store remember.
#[derive(Default)]
pub(crate) struct WasiState {}

impl WasiState {
    pub(crate) fn begin(&mut self) {}
}

/// Whether a function is served.
pub(crate) fn serves(_interface: &str, _item: &str) -> bool {
    false
}

/// Links them.
pub(crate) fn link(_linker: &mut Linker<CallCx>) -> wasmtime::Result<()> {
    Ok(())
}
