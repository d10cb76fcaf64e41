//! What a call of each shipped policy costs through Sipbox's layers, and what a chain of three
//! does: an INVITE from outside to the verdict, edits applied, leases taken and given back.
//! The table of the book is what this prints. Thread CPU time over batches that alternate, so
//! that all see the same machine: the median, and what nine tenths of the batches exceed. They
//! part on a machine that is busy with other things: there calls take long by the wall clock, so
//! the thread's CPU clock is read twice for each, which is two system calls.
//!
//! Bar: a chain of three costs at most 5 us. It was set on a machine where the call of an export
//! that does nothing takes 99 ns, and is carried over to this one by what that call takes here.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench ends where it fails"
)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sipbox_bench::calls::{CALLS, INVITE, component, cpu, hook_call, median, undisturbed};
use sipbox_bench::floor::Floor;
use sipbox_core::chain::ChainRun;
use sipbox_core::policy::{CallState, HookCall, Verdict};
use sipbox_sip::OwnedMessage;
use sipbox_wasm::{
    Capability, Chain, ChainHost, ComponentStore, Engine, EngineSettings, Limits, PolicySpec,
    Pools, WasmStats,
};

/// What is shipped allocates with it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const BATCHES: usize = 200;
const BAR: Duration = Duration::from_micros(5);
/// The floor of the machine that the bar was set on.
const FLOOR: Duration = Duration::from_nanos(99);

/// What a line of the table is about: its policies, and their settings.
type Line = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const RESIDENTIAL: (&str, &str) = (
    "policy-residential",
    r#"{"domains":{"example.org":{"auth":"all"}}}"#,
);
const NAT: (&str, &str) = ("policy-nat", "{}");
const LIMITS: (&str, &str) = (
    "policy-limits",
    r#"{"user":{"calls":2},"source":{"calls":30},"tenant":500}"#,
);
const BALANCER: (&str, &str) = (
    "policy-load-balancer",
    r#"{"targets":[{"uri":"sip:192.0.2.1","max_calls":500},
        {"uri":"sip:192.0.2.2","max_calls":500},{"uri":"sip:192.0.2.3","max_calls":500}]}"#,
);
const LEAST: (&str, &str) = (
    "policy-load-balancer",
    r#"{"algorithm":"least-calls","targets":[{"uri":"sip:192.0.2.1","max_calls":500},
        {"uri":"sip:192.0.2.2","max_calls":500},{"uri":"sip:192.0.2.3","max_calls":500}]}"#,
);
const TRUNKING: (&str, &str) = (
    "policy-trunking",
    r#"{"trunks":[{"name":"pbx","max_calls":30,"sources":[{"address":"192.0.2.0/24"}]}],
        "gateways":[{"name":"a","uri":"sip:198.51.100.1","max_calls":100}],
        "routes":[{"gateways":["a"]}]}"#,
);

const LINES: &[Line] = &[
    ("residential", "with credentials", &[RESIDENTIAL]),
    ("nat", "nothing to mend", &[NAT]),
    ("limits", "three limits, and a dialog", &[LIMITS]),
    (
        "load-balancer",
        "in turns, three targets with `max_calls`",
        &[BALANCER],
    ),
    ("load-balancer", "least calls, three targets", &[LEAST]),
    (
        "trunking",
        "by address, limits of trunk and gateway",
        &[TRUNKING],
    ),
    (
        "nat, limits, residential",
        "the chain of a provider",
        &[NAT, LIMITS, RESIDENTIAL],
    ),
    (
        "nat, limits, load-balancer",
        "the chain in front of servers",
        &[NAT, LIMITS, BALANCER],
    ),
];

/// A chain with what serves it.
struct Subject {
    line: &'static Line,
    chain: Chain,
    pools: Pools,
    /// Two calls that take turns, since a real one brings a message that nobody has seen.
    calls: [Box<HookCall>; 2],
    took: Vec<Duration>,
}

impl Subject {
    fn new(line: &'static Line, store: &ComponentStore) -> Self {
        let specs = line.2.iter().map(|(name, settings)| PolicySpec {
            name: Arc::from(*name),
            component: store
                .load(&std::fs::read(component(name)).unwrap())
                .unwrap(),
            settings: Arc::from(*settings),
            grants: Capability::ALL.to_vec(),
            limits: Limits::default(),
        });
        let stats = WasmStats::default();
        let chain = Chain::new(&Arc::from("acme"), specs.collect(), None, &stats).unwrap();
        let message = || OwnedMessage::parse(Bytes::from_static(INVITE.as_bytes())).unwrap();
        Self {
            line,
            chain,
            pools: Pools::new(),
            calls: [hook_call(message()), hook_call(message())],
            took: Vec::new(),
        }
    }

    /// One INVITE through the chain, as the worker asks it.
    fn ask(&mut self) {
        self.calls.swap(0, 1);
        let [call, _] = &self.calls;
        let mut host = ChainHost::new(&mut self.pools, &self.chain);
        let mut run = ChainRun {
            host: &mut host,
            policies: self.chain.len(),
            facts: Arc::clone(&call.facts),
            capabilities: Arc::clone(&call.capabilities),
        };
        let outcome = run.on_request(call.request.clone(), CallState::default());
        assert_eq!(outcome.failed, None);
        // `nat` and `limits` leave the decision to others; alone, nobody is there.
        let decided = outcome.by.is_none() || matches!(outcome.verdict, Verdict::Relay(_));
        assert!(decided, "{:?}", outcome.verdict);
    }

    fn batch(&mut self) -> Duration {
        cpu(|| {
            for _ in 0..CALLS {
                self.ask();
            }
        })
    }
}

fn main() -> ExitCode {
    // A word picks lines, a number says how many batches: for profilers.
    let word = std::env::args()
        .skip(1)
        .find(|arg| LINES.iter().any(|(title, ..)| title.contains(arg.as_str())));
    let batches = std::env::args()
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(BATCHES);
    let store = ComponentStore::new(&Engine::new(&EngineSettings::default()).unwrap());
    let mut subjects: Vec<Subject> = LINES
        .iter()
        .filter(|(title, ..)| word.as_ref().is_none_or(|word| title.contains(word)))
        .map(|line| Subject::new(line, &store))
        .collect();
    let mut floor = Floor::new();
    let mut of_floor = Vec::new();
    for batch in 0..batches + 10 {
        let least = cpu(|| {
            for _ in 0..CALLS {
                std::hint::black_box(&mut floor).call();
            }
        });
        let took: Vec<Duration> = subjects.iter_mut().map(Subject::batch).collect();
        // The first batches warm caches and branch predictors.
        if batch >= 10 {
            of_floor.push(least);
            for (subject, took) in subjects.iter_mut().zip(took) {
                subject.took.push(took);
            }
        }
    }
    println!("| policies | INVITE | ns, undisturbed | ns, median |\n|---|---|---|---|");
    let mut longest = Duration::ZERO;
    for subject in subjects {
        let (title, what, policies) = subject.line;
        let (took, usual) = (undisturbed(subject.took.clone()), median(subject.took));
        println!(
            "| {title} | {what} | {} | {} |",
            took.as_nanos(),
            usual.as_nanos()
        );
        if policies.len() == 3 {
            longest = longest.max(took);
        }
    }
    let floor = undisturbed(of_floor);
    let bar = BAR.mul_f64((floor.as_secs_f64() / FLOOR.as_secs_f64()).max(1.0));
    let verdict = |good| if good { "kept" } else { "missed" };
    println!(
        "a call that does nothing {floor:?}; a chain of three at most {BAR:?}: {}; {bar:?}, which \
         it is on this machine: {}",
        verdict(longest <= BAR),
        verdict(longest <= bar)
    );
    if longest <= bar {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
