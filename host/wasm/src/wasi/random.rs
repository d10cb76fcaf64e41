//! `wasi:random`: a stream of bytes that follows from the call, so that a
//! recorded call replays. The seed is keyed with a secret of the process:
//! whoever knows the message cannot foretell the bytes.

use sha2::{Digest, Sha256};
use sipbox_core::policy::HookFailure;
use wasmtime::component::Linker;

use super::VERSION;
use crate::cx::{CallCx, stop};

pub(super) struct Random {
    seed: [u8; 32],
    block: u64,
    left: Vec<u8>,
}

impl Random {
    fn new(seed: [u8; 32]) -> Self {
        Self {
            seed,
            block: 0,
            left: Vec::new(),
        }
    }

    pub(super) fn seed(&self) -> [u8; 32] {
        self.seed
    }

    fn fill(&mut self, mut wanted: usize, out: &mut Vec<u8>) {
        while wanted > 0 {
            if self.left.is_empty() {
                let mut hash = Sha256::new();
                hash.update(self.seed);
                hash.update(self.block.to_le_bytes());
                self.block += 1;
                self.left.extend_from_slice(&hash.finalize());
            }
            let taken = wanted.min(self.left.len());
            out.extend(self.left.drain(..taken));
            wanted -= taken;
        }
    }
}

/// Bytes of one request for randomness.
const LIMIT: u64 = 64 << 10;

impl CallCx {
    fn random_bytes(&mut self, wanted: u64) -> wasmtime::Result<Vec<u8>> {
        if wanted > LIMIT {
            return Err(stop(HookFailure::Trap(format!(
                "{wanted} random bytes at once"
            ))));
        }
        let wanted = usize::try_from(wanted)?;
        let seed = self.wasi.replayed_seed.unwrap_or_else(|| self.call_seed());
        let mut bytes = Vec::with_capacity(wanted);
        self.wasi
            .random
            .get_or_insert_with(|| Random::new(seed))
            .fill(wanted, &mut bytes);
        Ok(bytes)
    }

    fn random_u64(&mut self) -> wasmtime::Result<u64> {
        let bytes = self.random_bytes(8)?;
        Ok(bytes.iter().fold(0, |n, byte| (n << 8) | u64::from(*byte)))
    }

    fn call_seed(&self) -> [u8; 32] {
        if let Some(random) = &self.wasi.random {
            return random.seed;
        }
        let mut hash = Sha256::new();
        hash.update(self.random_key);
        hash.update(self.call.facts.now.0.to_le_bytes());
        hash.update(self.message().buffer());
        hash.finalize().into()
    }
}

pub(super) fn link(linker: &mut Linker<CallCx>) -> wasmtime::Result<()> {
    for (interface, bytes, number) in [
        ("random", "get-random-bytes", "get-random-u64"),
        (
            "insecure",
            "get-insecure-random-bytes",
            "get-insecure-random-u64",
        ),
    ] {
        let mut random = linker.instance(&format!("wasi:random/{interface}{VERSION}"))?;
        random.func_wrap(bytes, |mut store, (wanted,): (u64,)| {
            let cx: &mut CallCx = store.data_mut();
            cx.enter()?;
            Ok((cx.random_bytes(wanted)?,))
        })?;
        random.func_wrap(number, |mut store, (): ()| {
            let cx: &mut CallCx = store.data_mut();
            cx.enter()?;
            Ok((cx.random_u64()?,))
        })?;
    }
    linker
        .instance(&format!("wasi:random/insecure-seed{VERSION}"))?
        .func_wrap("insecure-seed", |mut store, (): ()| {
            let cx: &mut CallCx = store.data_mut();
            cx.enter()?;
            Ok(((cx.random_u64()?, cx.random_u64()?),))
        })
}
