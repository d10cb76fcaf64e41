//! `wasi:filesystem`: there is no directory, so no descriptor ever exists. The
//! methods are linked because runtimes import them; each ends the call.

use sipbox_core::policy::HookFailure;
use wasmtime::component::{Linker, Resource, ResourceType};

use super::VERSION;
use super::served::SERVED;
use crate::cx::{CallCx, stop};

struct Descriptor;

pub(super) fn link(linker: &mut Linker<CallCx>) -> wasmtime::Result<()> {
    linker
        .instance(&format!("wasi:filesystem/preopens{VERSION}"))?
        .func_wrap("get-directories", |mut store, (): ()| {
            let cx: &mut CallCx = store.data_mut();
            cx.enter()?;
            Ok((Vec::<(Resource<Descriptor>, String)>::new(),))
        })?;
    let mut types = linker.instance(&format!("wasi:filesystem/types{VERSION}"))?;
    types.resource("descriptor", ResourceType::host::<Descriptor>(), |_, _| {
        Ok(())
    })?;
    let functions = SERVED
        .iter()
        .filter(|(name, _)| *name == "wasi:filesystem/types");
    for function in functions.flat_map(|(_, functions)| *functions) {
        types.func_new(function, move |_, _, _, _| {
            Err(stop(HookFailure::Trap(format!(
                "{function} without a descriptor"
            ))))
        })?;
    }
    Ok(())
}
