//! `wasi:cli`: no arguments, no environment, no terminal; `exit` ends the call.

use sipbox_core::policy::HookFailure;
use wasmtime::component::{Linker, Resource, ResourceType};

use super::VERSION;
use super::io::{InputStream, OutputStream, STDERR, STDOUT};
use crate::cx::{CallCx, stop};

struct TerminalInput;
struct TerminalOutput;

type Pairs = Vec<(String, String)>;

pub(super) fn link(linker: &mut Linker<CallCx>) -> wasmtime::Result<()> {
    let mut environment = linker.instance(&format!("wasi:cli/environment{VERSION}"))?;
    environment.func_wrap("get-environment", |mut store, (): ()| {
        let cx: &mut CallCx = store.data_mut();
        cx.enter()?;
        Ok((Pairs::new(),))
    })?;
    environment.func_wrap("get-arguments", |mut store, (): ()| {
        let cx: &mut CallCx = store.data_mut();
        cx.enter()?;
        Ok((Vec::<String>::new(),))
    })?;
    environment.func_wrap("initial-cwd", |mut store, (): ()| {
        let cx: &mut CallCx = store.data_mut();
        cx.enter()?;
        Ok((None::<String>,))
    })?;

    linker
        .instance(&format!("wasi:cli/exit{VERSION}"))?
        .func_wrap("exit", |_, (status,): (Result<(), ()>,)| {
            let how = if status.is_ok() { "success" } else { "failure" };
            Err::<(), _>(stop(HookFailure::Trap(format!("exit with {how}"))))
        })?;

    linker
        .instance(&format!("wasi:cli/stdin{VERSION}"))?
        .func_wrap("get-stdin", |mut store, (): ()| {
            let cx: &mut CallCx = store.data_mut();
            cx.enter()?;
            Ok((Resource::<InputStream>::new_own(0),))
        })?;
    for (interface, function, stream) in [
        ("stdout", "get-stdout", STDOUT),
        ("stderr", "get-stderr", STDERR),
    ] {
        linker
            .instance(&format!("wasi:cli/{interface}{VERSION}"))?
            .func_wrap(function, move |mut store, (): ()| {
                let cx: &mut CallCx = store.data_mut();
                cx.enter()?;
                Ok((Resource::<OutputStream>::new_own(stream),))
            })?;
    }

    linker
        .instance(&format!("wasi:cli/terminal-input{VERSION}"))?
        .resource(
            "terminal-input",
            ResourceType::host::<TerminalInput>(),
            |_, _| Ok(()),
        )?;
    linker
        .instance(&format!("wasi:cli/terminal-output{VERSION}"))?
        .resource(
            "terminal-output",
            ResourceType::host::<TerminalOutput>(),
            |_, _| Ok(()),
        )?;
    linker
        .instance(&format!("wasi:cli/terminal-stdin{VERSION}"))?
        .func_wrap("get-terminal-stdin", |mut store, (): ()| {
            let cx: &mut CallCx = store.data_mut();
            cx.enter()?;
            Ok((None::<Resource<TerminalInput>>,))
        })?;
    for (interface, function) in [
        ("terminal-stdout", "get-terminal-stdout"),
        ("terminal-stderr", "get-terminal-stderr"),
    ] {
        linker
            .instance(&format!("wasi:cli/{interface}{VERSION}"))?
            .func_wrap(function, |mut store, (): ()| {
                let cx: &mut CallCx = store.data_mut();
                cx.enter()?;
                Ok((None::<Resource<TerminalOutput>>,))
            })?;
    }
    Ok(())
}
