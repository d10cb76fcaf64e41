//! What a policy call costs: the same component in bare wasmtime (same engine
//! settings, constant host answers) and through Sipbox's layers. Thread CPU
//! time, medians over batches that alternate, so that both see the same machine.
//!
//! Bars: guest and boundary together at most 2 us on the residential policy's
//! INVITE path; Sipbox's layers at most 30% above bare wasmtime. The first was set on
//! a machine where the call of an export that does nothing takes 99 ns, and is carried
//! over to this one by what that call takes here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench ends where it fails"
)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sipbox_bench::bare::Bare;
use sipbox_bench::calls::{CALLS, INVITE, component, cpu, hook_call, median};
use sipbox_bench::floor::Floor;
use sipbox_core::policy::{Armed, CallState, HookInput, HookOutput, PolicyHost, Verdict};
use sipbox_sip::OwnedMessage;
use sipbox_wasm::{
    Capability, Chain, ChainHost, ComponentStore, Engine, EngineSettings, Limits, PolicySpec,
    Pools, WasmStats,
};

const BATCHES: usize = 200;
const BAR: Duration = Duration::from_nanos(2000);
/// The floor of the machine that the bar was set on.
const FLOOR: Duration = Duration::from_nanos(99);
const BAR_ABOVE_BARE: f64 = 1.30;

fn main() -> ExitCode {
    // `cargo xtask bench boundary` measures; a number of batches and the name of a
    // component serve profilers.
    let only = std::env::args()
        .skip(1)
        .find(|arg| arg.contains("policy") || arg.contains("guest"));
    let batches = std::env::args()
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(BATCHES);
    let mut good = true;
    for (component, settings) in [
        (
            "policy-residential",
            r#"{"domains":{"example.org":{"auth":"all"}}}"#,
        ),
        ("guest-routes", r#"{"table":{"bob":"sip:bob@192.0.2.20"}}"#),
    ] {
        if only.as_ref().is_some_and(|only| only != component) {
            continue;
        }
        good &= measure(component, settings, batches);
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn measure(name: &str, settings: &str, batches: usize) -> bool {
    let bytes = std::fs::read(component(name)).unwrap();
    let message = OwnedMessage::parse(Bytes::from_static(INVITE.as_bytes())).unwrap();

    let store = ComponentStore::new(&Engine::new(&EngineSettings::default()).unwrap());
    let spec = PolicySpec {
        name: Arc::from(name),
        component: store.load(&bytes).unwrap(),
        settings: Arc::from(settings),
        grants: Capability::ALL.to_vec(),
        limits: Limits::default(),
    };
    let stats = WasmStats::default();
    let chain = Chain::new(&Arc::from("acme"), vec![spec], None, &stats).unwrap();
    let mut pools = Pools::new();
    let mut call = hook_call(message);
    let mut ours = || {
        let output = ChainHost::new(&mut pools, &chain).call(0, HookInput::Request, &mut call);
        let Ok(HookOutput::Verdict(Verdict::Relay(plan))) = output else {
            panic!("{name}: {output:?}");
        };
        call.state = CallState::default();
        call.armed = Armed::default();
        call.effects.clear();
        call.edits.clear();
        plan
    };

    let view = sipbox_wasm::view_of(&hook_call(
        OwnedMessage::parse(Bytes::from_static(INVITE.as_bytes())).unwrap(),
    ));
    let mut bare = Bare::new(&bytes, settings, view);
    let mut floor = Floor::new();
    let (mut of_floor, mut of_bare, mut of_ours) = (Vec::new(), Vec::new(), Vec::new());
    for batch in 0..batches + 10 {
        let a = cpu(|| {
            for _ in 0..CALLS {
                std::hint::black_box(bare.call());
            }
        });
        let b = cpu(|| {
            for _ in 0..CALLS {
                std::hint::black_box(ours());
            }
        });
        let least = cpu(|| {
            for _ in 0..CALLS {
                std::hint::black_box(&mut floor).call();
            }
        });
        // The first batches warm caches and branch predictors.
        if batch >= 10 {
            of_floor.push(least);
            of_bare.push(a);
            of_ours.push(b);
        }
    }
    let (floor, bare, ours) = (median(of_floor), median(of_bare), median(of_ours));
    let above = ours.as_secs_f64() / bare.as_secs_f64();
    let bar = BAR.mul_f64(floor.as_secs_f64() / FLOOR.as_secs_f64());
    println!(
        "{name}: bare wasmtime {bare:?}, through sipbox {ours:?}, {:.0}% above; \
         a call that does nothing {floor:?}",
        (above - 1.0) * 100.0
    );
    let good = ours <= bar && above <= BAR_ABOVE_BARE;
    let verdict = |good| if good { "kept" } else { "missed" };
    println!(
        "  {BAR:?}: {}; {bar:?}, which it is on this machine: {}; {:.0}% above bare: {}",
        verdict(ours <= BAR),
        verdict(ours <= bar),
        (BAR_ABOVE_BARE - 1.0) * 100.0,
        verdict(above <= BAR_ABOVE_BARE),
    );
    good
}
