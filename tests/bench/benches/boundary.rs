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

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sipbox_bench::bare::Bare;
use sipbox_bench::floor::Floor;
use sipbox_core::flow::{Flow, ListenerId, TenantId};
use sipbox_core::policy::{
    Armed, AuthOutcome, BindingView, CallError, CallState, Capabilities, Direction, Facts,
    HookCall, HookInput, HookOutput, LogLevel, PolicyHost, Realm, RouteOutcome, RouteParams,
    RouteSignature, SaveLimits, SaveOutcome, Verdict,
};
use sipbox_core::time::WallTime;
use sipbox_sip::{OwnedMessage, Transport};
use sipbox_wasm::{
    Capability, Chain, ChainHost, ComponentStore, Engine, EngineSettings, Limits, PolicySpec,
    Pools, WasmStats,
};

const CALLS: u32 = 500;
const BATCHES: usize = 200;
const BAR: Duration = Duration::from_nanos(2000);
/// The floor of the machine that the bar was set on.
const FLOOR: Duration = Duration::from_nanos(99);
const BAR_ABOVE_BARE: f64 = 1.30;

/// A 1.2 kB INVITE with the header fields that a phone sends.
const INVITE: &str = "INVITE sip:bob@example.org SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-1a2b3c4d5e6f;rport\r\n\
    Max-Forwards: 70\r\n\
    From: \"Alice\" <sip:alice@example.org>;tag=9fxced76sl\r\n\
    To: <sip:bob@example.org>\r\n\
    Call-ID: 3848276298220188511@192.0.2.10\r\n\
    CSeq: 2 INVITE\r\n\
    Contact: <sip:alice@192.0.2.10:5060;transport=udp>;+sip.instance=\"<urn:uuid:0C67446E-F1A1-11D9-94D3-000A95A0E128>\"\r\n\
    Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, REFER, NOTIFY, INFO, UPDATE, PRACK\r\n\
    Supported: replaces, 100rel, timer, path, outbound\r\n\
    User-Agent: Phone/4.2 (build 1234; wide band)\r\n\
    Session-Expires: 1800\r\n\
    Min-SE: 90\r\n\
    Allow-Events: presence, message-summary, refer\r\n\
    P-Preferred-Identity: \"Alice\" <sip:alice@example.org>\r\n\
    Accept: application/sdp\r\n\
    X-Line: 1\r\n\
    Proxy-Authorization: Digest username=\"alice\", realm=\"example.org\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", uri=\"sip:bob@example.org\", response=\"6629fae49393a05397450978507c4ef1\", algorithm=MD5, qop=auth, nc=00000001, cnonce=\"0a4f113b\"\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 129\r\n\r\n\
    v=0\r\no=alice 2890844526 2890844526 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\nm=audio 49172 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";

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

fn component(name: &str) -> PathBuf {
    let folder = std::env::var_os("SIPBOX_POLICIES")
        .expect("run by `cargo xtask bench`, which sets SIPBOX_POLICIES");
    PathBuf::from(folder).join(format!("{name}.wasm"))
}

fn cpu(work: impl FnOnce()) -> Duration {
    let clock = || {
        let id = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
        Duration::from(nix::time::clock_gettime(id).unwrap())
    };
    let begun = clock();
    work();
    (clock() - begun) / CALLS
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn hook_call(request: OwnedMessage) -> HookCall {
    HookCall {
        request,
        response: None,
        facts: Arc::new(Facts {
            tenant: TenantId(0),
            tenant_name: Arc::from("acme"),
            listener_name: Arc::from("edge"),
            flow: Flow {
                listener: ListenerId(0),
                transport: Transport::Udp,
                peer: "192.0.2.10:5060".parse().unwrap(),
                connection: None,
                local: None,
            },
            now: WallTime(1_790_000_000_123),
            in_dialog: false,
            direction: Direction::Unknown,
            route_outcome: RouteOutcome::None,
            route_params: RouteParams::new(),
            route_signature: RouteSignature::None,
            leaves: None,
        }),
        state: CallState::default(),
        armed: Armed::default(),
        edits: Vec::new(),
        effects: Vec::new(),
        capabilities: Arc::new(Constant),
    }
}

/// The same constant answers as the bare host gives.
struct Constant;

impl Capabilities for Constant {
    fn check(&self, _: &HookCall, _: &Realm) -> Result<AuthOutcome, CallError> {
        Ok(AuthOutcome::Authenticated("alice".to_owned()))
    }
    fn lookup(&self, _: &HookCall, _: &str) -> Result<Vec<BindingView>, CallError> {
        Ok(Vec::new())
    }
    fn save(&self, _: &HookCall, _: &str, _: &SaveLimits) -> Result<SaveOutcome, CallError> {
        Ok(SaveOutcome::Saved(1))
    }
    fn remove(&self, _: &HookCall, _: &str) -> Result<u32, CallError> {
        Ok(0)
    }
    fn log(&self, _: &HookCall, _: &str, _: LogLevel, _: &str) {}
}
