//! The same policy in every language of the SDKs: what a call of it costs through Sipbox's layers, how
//! large the component is, and what its instance takes. The table of the book is what this prints.
//! Thread CPU time, medians over batches that alternate, so that all see the same machine.
//!
//! Bar: C costs no more than half as much again as Rust. TypeScript runs in an interpreter and has
//! none.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench ends where it fails"
)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sipbox_bench::calls::{CALLS, INVITE, component, cpu, hook_call, median};
use sipbox_core::policy::{Armed, CallState, HookCall, HookInput, PolicyHost};
use sipbox_sip::OwnedMessage;
use sipbox_wasm::{
    Capability, Chain, ChainHost, ComponentStore, Engine, EngineSettings, Limits, PolicySpec,
    Pools, WasmStats,
};

const LANGUAGES: [(&str, &str); 3] = [("Rust", "rust"), ("C", "c"), ("TypeScript", "ts")];
const BATCHES: usize = 100;
const BAR: f64 = 1.5;

const SETTINGS: &str = r#"{"country_code":"49","blocked_callers":["+4990*","+4919*"],
    "remove_headers":["P-Preferred-Identity"],"set_headers":[{"name":"X-Trunk","value":"north"}],
    "count_header":"X-Provisional"}"#;

const RINGING: &str = "SIP/2.0 180 Ringing\r\n\
    Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK-77\r\n\
    Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-1a2b3c4d5e6f;rport\r\n\
    From: \"Alice\" <sip:alice@example.org>;tag=9fxced76sl\r\n\
    To: <sip:030123456@example.org>;tag=314159\r\n\
    Call-ID: 3848276298220188511@192.0.2.10\r\n\
    CSeq: 2 INVITE\r\n\
    Contact: <sip:bob@192.0.2.20:5060;transport=udp>\r\n\
    Content-Length: 0\r\n\r\n";

/// A policy with what serves it.
struct Subject {
    title: &'static str,
    chain: Chain,
    pools: Pools,
    size: u64,
    compiled: Duration,
    request: Box<HookCall>,
    reply: Box<HookCall>,
    of_request: Vec<Duration>,
    of_reply: Vec<Duration>,
}

impl Subject {
    fn new(title: &'static str, suffix: &str) -> Self {
        let name = format!("policy-screen-{suffix}");
        let bytes = std::fs::read(component(&name)).unwrap();
        let store = ComponentStore::new(&Engine::new(&EngineSettings::default()).unwrap());
        let begun = Instant::now();
        let policy = store.load(&bytes).unwrap();
        let compiled = begun.elapsed();
        let spec = PolicySpec {
            name: Arc::from(&*name),
            component: policy,
            settings: Arc::from(SETTINGS),
            grants: Capability::ALL.to_vec(),
            limits: Limits {
                cpu: Duration::from_secs(1),
                ..Limits::default()
            },
        };
        let stats = WasmStats::default();
        let chain = Chain::new(&Arc::from("acme"), vec![spec], None, &stats).unwrap();
        let message = |text: &str| OwnedMessage::parse(Bytes::from(text.to_owned())).unwrap();
        let invite = INVITE.replace("sip:bob@example.org", "sip:030123456@example.org");
        let mut reply = hook_call(message(&invite));
        reply.response = Some(message(RINGING));
        Self {
            title,
            chain,
            pools: Pools::new(),
            size: bytes.len() as u64,
            compiled,
            request: hook_call(message(&invite)),
            reply,
            of_request: Vec::new(),
            of_reply: Vec::new(),
        }
    }

    fn batch(&mut self, input: &HookInput) -> Duration {
        let call = match input {
            HookInput::Reply => &mut self.reply,
            _ => &mut self.request,
        };
        let (pools, chain) = (&mut self.pools, &self.chain);
        cpu(|| {
            for _ in 0..CALLS {
                let output = ChainHost::new(pools, chain).call(0, input.clone(), call);
                assert!(output.is_ok(), "{output:?}");
                assert!(!call.edits.is_empty());
                call.state = CallState::default();
                call.armed = Armed::default();
                call.edits.clear();
            }
        })
    }
}

fn main() -> ExitCode {
    let mut subjects = LANGUAGES.map(|(title, suffix)| Subject::new(title, suffix));
    for batch in 0..BATCHES + 5 {
        for subject in &mut subjects {
            let of_request = subject.batch(&HookInput::Request);
            let of_reply = subject.batch(&HookInput::Reply);
            // The first batches warm caches and branch predictors.
            if batch >= 5 {
                subject.of_request.push(of_request);
                subject.of_reply.push(of_reply);
            }
        }
    }
    println!(
        "| language | on-request, ns | on-reply, ns | component, kB | memory, KiB | compiled in, ms |"
    );
    println!("|---|---|---|---|---|---|");
    let mut costs = Vec::new();
    for subject in subjects {
        let (request, reply) = (median(subject.of_request), median(subject.of_reply));
        println!(
            "| {} | {} | {} | {} | {} | {} |",
            subject.title,
            request.as_nanos(),
            reply.as_nanos(),
            subject.size.div_ceil(1000),
            subject.pools.memory() / 1024,
            subject.compiled.as_millis()
        );
        costs.push(request + reply);
    }
    let [rust, c, ..] = costs[..] else {
        return ExitCode::FAILURE;
    };
    let ratio = c.as_secs_f64() / rust.as_secs_f64();
    let good = ratio <= BAR;
    println!(
        "C costs {ratio:.2} of Rust; {BAR}: {}",
        if good { "kept" } else { "missed" }
    );
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
