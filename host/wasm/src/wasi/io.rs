//! `wasi:io`: streams that end (stdin) or are log lines (stdout, stderr), and
//! pollables that are ready or never will be.

use sipbox_core::policy::HookFailure;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType};

use super::VERSION;
use crate::cx::{CallCx, stop};

pub(super) struct InputStream;
pub(super) struct OutputStream;
pub(super) struct Pollable;
struct IoError;

/// The handles' numbers: what an output stream is.
pub(super) const STDOUT: u32 = 1;
pub(super) const STDERR: u32 = 2;
/// What a pollable is: ready at once, or a time that has not come.
pub(super) const READY: u32 = 0;
pub(super) const LATER: u32 = 1;

/// The variant `stream-error`.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[allow(dead_code, reason = "the contract has it; our streams do not fail")]
    Failed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

/// What one write may bring; the limit of log bytes comes sooner.
const WRITE: u64 = 64 << 10;

pub(super) fn link(linker: &mut Linker<CallCx>) -> wasmtime::Result<()> {
    errors(linker)?;
    polls(linker)?;
    let mut streams = linker.instance(&format!("wasi:io/streams{VERSION}"))?;
    streams.resource(
        "input-stream",
        ResourceType::host::<InputStream>(),
        |_, _| Ok(()),
    )?;
    streams.resource(
        "output-stream",
        ResourceType::host::<OutputStream>(),
        |_, _| Ok(()),
    )?;
    for name in ["read", "blocking-read"] {
        streams.func_wrap(
            &format!("[method]input-stream.{name}"),
            |mut store, (_, _): (Resource<InputStream>, u64)| {
                let cx: &mut CallCx = store.data_mut();
                cx.enter()?;
                Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
            },
        )?;
    }
    for name in ["skip", "blocking-skip"] {
        streams.func_wrap(
            &format!("[method]input-stream.{name}"),
            |mut store, (_, _): (Resource<InputStream>, u64)| {
                let cx: &mut CallCx = store.data_mut();
                cx.enter()?;
                Ok((Err::<u64, _>(StreamError::Closed),))
            },
        )?;
    }
    streams.func_wrap(
        "[method]input-stream.subscribe",
        |mut store, (_,): (Resource<InputStream>,)| {
            let cx: &mut CallCx = store.data_mut();
            cx.enter()?;
            Ok((Resource::<Pollable>::new_own(READY),))
        },
    )?;
    streams.func_wrap(
        "[method]output-stream.subscribe",
        |mut store, (_,): (Resource<OutputStream>,)| {
            let cx: &mut CallCx = store.data_mut();
            cx.enter()?;
            Ok((Resource::<Pollable>::new_own(READY),))
        },
    )?;
    streams.func_wrap(
        "[method]output-stream.check-write",
        |mut store, (_,): (Resource<OutputStream>,)| {
            let cx: &mut CallCx = store.data_mut();
            cx.enter()?;
            Ok((Ok::<u64, StreamError>(WRITE),))
        },
    )?;
    for name in ["write", "blocking-write-and-flush"] {
        streams.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut store, (stream, bytes): (Resource<OutputStream>, Vec<u8>)| {
                let cx: &mut CallCx = store.data_mut();
                cx.enter()?;
                cx.print(stream.rep(), &bytes)?;
                Ok((Ok::<(), StreamError>(()),))
            },
        )?;
    }
    for name in ["flush", "blocking-flush"] {
        streams.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut store, (_,): (Resource<OutputStream>,)| {
                let cx: &mut CallCx = store.data_mut();
                cx.enter()?;
                Ok((Ok::<(), StreamError>(()),))
            },
        )?;
    }
    Ok(())
}

fn errors(linker: &mut Linker<CallCx>) -> wasmtime::Result<()> {
    let mut errors = linker.instance(&format!("wasi:io/error{VERSION}"))?;
    errors.resource("error", ResourceType::host::<IoError>(), |_, _| Ok(()))?;
    errors.func_wrap(
        "[method]error.to-debug-string",
        |mut store, (_,): (Resource<IoError>,)| {
            let cx: &mut CallCx = store.data_mut();
            cx.enter()?;
            Ok(("closed".to_owned(),))
        },
    )
}

fn polls(linker: &mut Linker<CallCx>) -> wasmtime::Result<()> {
    let mut polls = linker.instance(&format!("wasi:io/poll{VERSION}"))?;
    polls.resource("pollable", ResourceType::host::<Pollable>(), |_, _| Ok(()))?;
    polls.func_wrap(
        "[method]pollable.ready",
        |mut store, (pollable,): (Resource<Pollable>,)| {
            let cx: &mut CallCx = store.data_mut();
            cx.enter()?;
            Ok((pollable.rep() == READY,))
        },
    )?;
    polls.func_wrap(
        "[method]pollable.block",
        |mut store, (pollable,): (Resource<Pollable>,)| {
            let cx: &mut CallCx = store.data_mut();
            cx.enter()?;
            if pollable.rep() == READY {
                Ok(())
            } else {
                Err(stop(HookFailure::WasiWait))
            }
        },
    )?;
    polls.func_wrap(
        "poll",
        |mut store, (pollables,): (Vec<Resource<Pollable>>,)| {
            let cx: &mut CallCx = store.data_mut();
            cx.enter()?;
            let ready: Vec<u32> = (0u32..)
                .zip(&pollables)
                .filter(|(_, pollable)| pollable.rep() == READY)
                .map(|(at, _)| at)
                .collect();
            if ready.is_empty() {
                Err(stop(HookFailure::WasiWait))
            } else {
                Ok((ready,))
            }
        },
    )
}

impl CallCx {
    /// Standard output: each full line is a line of the log.
    fn print(&mut self, stream: u32, bytes: &[u8]) -> wasmtime::Result<()> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let (line, tail) = rest.split_at_checked(end).unwrap_or((rest, b""));
            let mut whole = std::mem::take(self.stream(stream));
            whole.extend_from_slice(line);
            self.log_bytes(stream, &whole)?;
            whole.clear();
            *self.stream(stream) = whole;
            rest = tail.get(1..).unwrap_or_default();
        }
        let kept = self.stream(stream).len() + rest.len();
        if kept > self.left.log_bytes as usize {
            return Err(stop(HookFailure::Log));
        }
        self.stream(stream).extend_from_slice(rest);
        Ok(())
    }
}
