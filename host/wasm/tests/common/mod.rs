//! What the tests of the sandbox share: real guests, chains of them, messages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use sipbox_core::flow::{Flow, ListenerId, TenantId};
use sipbox_core::policy::{
    AuthOutcome, BindingView, CallError, Capabilities, Direction, Facts, HookCall, HookFailure,
    HookInput, HookOutput, LogLevel, PolicyHost, Realm, Reply, RouteOutcome, RouteParams,
    RouteSignature, SaveLimits, SaveOutcome, Verdict,
};
use sipbox_core::time::WallTime;
use sipbox_sip::{OwnedMessage, Transport};
use sipbox_wasm::{
    Capability, Chain, ChainHost, ComponentStore, Engine, EngineSettings, Limits, LoadError,
    Policy, PolicySpec, Pools, WasmStats,
};

pub(crate) const INVITE: &str = "INVITE sip:bob@example.org:5070;transport=udp SIP/2.0\r\n\
    v: SIP/2.0/UDP 10.0.0.7:5060;branch=z9hG4bKabc;rport\r\n\
    Max-Forwards: 70\r\n\
    From: \"Alice A.\" <sip:alice@example.org>;tag=a1\r\n\
    To: <sip:bob@example.org>\r\n\
    i: call-1@10.0.0.7\r\n\
    CSeq: 314 INVITE\r\n\
    Contact: <sip:alice@10.0.0.7:5062>\r\n\
    X-Probe: before\r\n\
    Subject: one\r\n two\r\n\
    X-Unknown-Field: known to nobody\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 5\r\n\r\nv=0\r\n";

/// The component of a guest of `tests/guests`.
pub(crate) fn guest(name: &str) -> PathBuf {
    built(&format!("guest-{name}"))
}

/// A component as `cargo xtask test` built it (`SIPBOX_POLICIES`), or built now.
/// Not through the builder's crate: it would have wasmtime compiled again with
/// other features.
pub(crate) fn built(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        if let Some(folder) = std::env::var_os("SIPBOX_POLICIES") {
            return PathBuf::from(folder);
        }
        let status = std::process::Command::new(env!("CARGO"))
            .args(["run", "-q", "-p", "xtask", "--", "policies"])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .env("CARGO_TARGET_DIR", target_dir())
            .status()
            .unwrap();
        assert!(status.success(), "cargo xtask policies: {status}");
        target_dir().join("policies")
    });
    let path = folder.join(format!("{name}.wasm"));
    assert!(
        path.is_file(),
        "{} is missing: cargo xtask policies",
        path.display()
    );
    path
}

/// The target folder that this test binary lies in.
pub(crate) fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .map(Path::to_owned)
        .expect("cargo marks its target folder")
}

/// One engine for all tests of a binary.
pub(crate) fn engine() -> &'static ComponentStore {
    static STORE: OnceLock<ComponentStore> = OnceLock::new();
    STORE.get_or_init(|| {
        let settings = EngineSettings {
            instances: 200,
            ..EngineSettings::default()
        };
        ComponentStore::new(&Engine::new(&settings).unwrap())
    })
}

/// A guest's component, compiled once for all tests of a binary.
pub(crate) fn load(name: &str) -> Arc<Policy> {
    component(&format!("guest-{name}"))
}

/// A guest's or a shipped policy's component, compiled once.
pub(crate) fn component(name: &str) -> Arc<Policy> {
    static LOADED: OnceLock<Mutex<HashMap<String, Arc<Policy>>>> = OnceLock::new();
    let mut loaded = LOADED.get_or_init(Mutex::default).lock().unwrap();
    let policy = loaded
        .entry(name.to_owned())
        .or_insert_with(|| engine().load_file(&built(name)).unwrap());
    Arc::clone(policy)
}

/// A tenant with a chain, its pools and its counters, as one worker has them.
pub(crate) struct Tenant {
    pub(crate) chain: Arc<Chain>,
    pub(crate) pools: Pools,
    pub(crate) stats: Arc<WasmStats>,
    pub(crate) host: Arc<TestHost>,
}

pub(crate) fn spec(guest: &str, settings: &str) -> PolicySpec {
    PolicySpec {
        name: Arc::from(guest),
        component: load(guest),
        settings: Arc::from(settings),
        grants: Capability::ALL.to_vec(),
        limits: Limits::default(),
    }
}

impl Tenant {
    pub(crate) fn new(specs: Vec<PolicySpec>) -> Self {
        Self::try_new(specs).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    pub(crate) fn try_new(specs: Vec<PolicySpec>) -> Result<Self, Vec<(usize, LoadError)>> {
        let stats = Arc::new(WasmStats::default());
        let chain = Chain::new(&Arc::from("acme"), specs, None, &stats)?;
        Ok(Self {
            chain: Arc::new(chain),
            pools: Pools::new(),
            stats,
            host: Arc::default(),
        })
    }

    pub(crate) fn one(guest: &str, settings: &str) -> Self {
        Self::new(vec![spec(guest, settings)])
    }

    pub(crate) fn call(&self, message: &str) -> Box<HookCall> {
        call(message, &self.host)
    }

    pub(crate) fn run(
        &mut self,
        policy: usize,
        input: HookInput,
        call: &mut Box<HookCall>,
    ) -> Result<HookOutput, HookFailure> {
        ChainHost::new(&mut self.pools, &self.chain).call(policy, input, call)
    }

    /// `on-request` of the first policy.
    pub(crate) fn request(&mut self, message: &str) -> Result<Verdict, HookFailure> {
        let mut call = self.call(message);
        self.run(0, HookInput::Request, &mut call).map(verdict)
    }

    pub(crate) fn failed(&self, policy: &str, reason: &str) -> u64 {
        self.stats
            .policy(&Arc::from("acme"), &Arc::from(policy))
            .failed(reason)
    }
}

pub(crate) fn verdict(output: HookOutput) -> Verdict {
    match output {
        HookOutput::Verdict(verdict) => verdict,
        other => panic!("{other:?} is no verdict"),
    }
}

pub(crate) fn reply(verdict: Verdict) -> Reply {
    match verdict {
        Verdict::Reply(reply) => reply,
        other => panic!("{other:?} is no reply"),
    }
}

/// The value of a header field of a reply.
pub(crate) fn field<'a>(reply: &'a Reply, name: &str) -> &'a str {
    let found = reply.headers.iter().find(|(known, _)| known == name);
    &found.unwrap_or_else(|| panic!("no {name} in {reply:?}")).1
}

pub(crate) fn call(message: &str, host: &Arc<TestHost>) -> Box<HookCall> {
    let request = OwnedMessage::parse(Bytes::from(message.to_owned())).unwrap();
    HookCall::new(request, Arc::new(facts()), Arc::clone(host) as _)
}

pub(crate) fn facts() -> Facts {
    Facts {
        tenant: TenantId(3),
        tenant_name: Arc::from("acme"),
        listener_name: Arc::from("edge"),
        flow: Flow {
            listener: ListenerId(0),
            transport: Transport::Udp,
            peer: "198.51.100.9:5071".parse().unwrap(),
            connection: None,
            local: None,
        },
        now: WallTime(1_790_000_000_123),
        in_dialog: false,
        direction: Direction::Downstream,
        route_outcome: RouteOutcome::Loose,
        route_params: RouteParams::from_slice(b";lr;nat=yes"),
        route_signature: RouteSignature::None,
        leaves: None,
        dialog: None,
    }
}

/// Capabilities with fixed answers, and the log lines that came.
#[derive(Default)]
pub(crate) struct TestHost {
    pub(crate) lines: Mutex<Vec<(LogLevel, String)>>,
}

impl Capabilities for TestHost {
    fn check(&self, _: &HookCall, realm: &Realm) -> Result<AuthOutcome, CallError> {
        Ok(if realm.name == "example.org" {
            AuthOutcome::Authenticated("alice".into())
        } else {
            AuthOutcome::None
        })
    }

    fn lookup(&self, _: &HookCall, aor: &str) -> Result<Vec<BindingView>, CallError> {
        let binding = |contact: &str| BindingView {
            contact: contact.into(),
            q: 1000,
            expires: 60,
            path: Vec::new(),
            received: String::new(),
            flow: String::new(),
            instance: String::new(),
            user_agent: String::new(),
            flags: sipbox_core::policy::BindingFlags::default(),
        };
        Ok(match aor {
            "bob@example.org" => vec![binding("sip:bob@10.0.0.8"), binding("sip:bob@10.0.0.9")],
            _ => Vec::new(),
        })
    }

    fn save(&self, _: &HookCall, _: &str, _: &SaveLimits) -> Result<SaveOutcome, CallError> {
        Ok(SaveOutcome::Saved(1))
    }

    fn remove(&self, _: &HookCall, _: &str) -> Result<u32, CallError> {
        Ok(2)
    }

    fn log(&self, _: &HookCall, _: &str, level: LogLevel, text: &str) {
        self.lines.lock().unwrap().push((level, text.to_owned()));
    }
}
