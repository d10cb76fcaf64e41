//! The few functions of WASI 0.2 that language runtimes import, answered from
//! the call: its time, randomness that replays, an empty environment, standard
//! streams that are log lines. Nothing here waits or reaches the machine, and a
//! guest that sleeps is ended: asleep in the host it would be out of the reach
//! of epochs.

mod clocks;
mod filesystem;
mod io;
mod process;
mod random;
mod served;

use sipbox_core::policy::LogLevel;
use wasmtime::component::Linker;

pub(crate) use served::serves;

use crate::cx::CallCx;

/// The version that is linked; wasmtime matches it with any 0.2.
const VERSION: &str = "@0.2.6";

/// What the WASI functions of a store remember.
#[derive(Default)]
pub(crate) struct WasiState {
    /// Seed and position of this call's randomness, once asked for.
    random: Option<random::Random>,
    /// A seed from a recording, in the place of the call's own.
    pub(crate) replayed_seed: Option<[u8; 32]>,
    /// Unfinished lines of stdout and stderr.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl WasiState {
    pub(crate) fn begin(&mut self) {
        self.random = None;
        self.stdout.clear();
        self.stderr.clear();
    }

    /// The seed that the call drew from, if it asked for randomness.
    pub(crate) fn seed(&self) -> Option<[u8; 32]> {
        self.random.as_ref().map(random::Random::seed)
    }
}

impl CallCx {
    /// Logs what the guest wrote without a line end: a panic's text, often.
    pub(crate) fn flush_stdio(&mut self) {
        for stream in [io::STDOUT, io::STDERR] {
            let rest = std::mem::take(self.stream(stream));
            if !rest.is_empty() {
                // Beyond the limit of log bytes the rest is lost, as it would be earlier.
                let _ = self.log_bytes(stream, &rest);
            }
        }
    }

    fn stream(&mut self, stream: u32) -> &mut Vec<u8> {
        if stream == io::STDERR {
            &mut self.wasi.stderr
        } else {
            &mut self.wasi.stdout
        }
    }

    fn log_bytes(&mut self, stream: u32, line: &[u8]) -> wasmtime::Result<()> {
        let level = if stream == io::STDERR {
            LogLevel::Warn
        } else {
            LogLevel::Info
        };
        self.log_line(level, &String::from_utf8_lossy(line))
    }
}

/// Links all of them.
pub(crate) fn link(linker: &mut Linker<CallCx>) -> wasmtime::Result<()> {
    process::link(linker)?;
    io::link(linker)?;
    clocks::link(linker)?;
    random::link(linker)?;
    filesystem::link(linker)
}
