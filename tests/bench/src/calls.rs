//! What benches of the sandbox share: a message, the call of a hook with fixed facts and answers,
//! and how a call is measured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sipbox_core::flow::{Flow, ListenerId, TenantId};
use sipbox_core::lease::{Acquired, LeaseTable};
use sipbox_core::policy::{
    AuthOutcome, BindingView, CallError, Capabilities, Direction, Facts, HookCall, LogLevel, Realm,
    RouteOutcome, RouteParams, RouteSignature, SaveLimits, SaveOutcome,
};
use sipbox_core::shared::{Shared, SharedLimits, SharedNow};
use sipbox_core::time::{Time, WallTime};
use sipbox_sip::{OwnedMessage, Transport};

/// Calls of one batch.
pub const CALLS: u32 = 500;

/// A 1.2 kB INVITE with the header fields that a phone sends.
pub const INVITE: &str = "INVITE sip:bob@example.org SIP/2.0\r\n\
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

/// The component of that name.
///
/// # Panics
/// Outside of `cargo xtask bench`.
#[must_use]
pub fn component(name: &str) -> PathBuf {
    let folder = std::env::var_os("SIPBOX_POLICIES")
        .unwrap_or_else(|| panic!("run by `cargo xtask bench`, which sets SIPBOX_POLICIES"));
    PathBuf::from(folder).join(format!("{name}.wasm"))
}

/// CPU time of one of [`CALLS`].
///
/// # Panics
/// When the thread has no clock.
pub fn cpu(work: impl FnOnce()) -> Duration {
    let clock = || {
        let id = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
        Duration::from(nix::time::clock_gettime(id).unwrap())
    };
    let begun = clock();
    work();
    (clock() - begun) / CALLS
}

/// The one in the middle.
#[must_use]
pub fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// One that nine tenths exceed: what it takes when nothing else runs.
#[must_use]
pub fn undisturbed(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all.get(all.len() / 10).copied().unwrap_or_default()
}

/// A call of a hook with fixed facts.
///
/// # Panics
/// Never.
#[must_use]
pub fn hook_call(request: OwnedMessage) -> Box<HookCall> {
    HookCall::new(
        request,
        Arc::new(Facts {
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
            dialog: None,
        }),
        Arc::new(Constant::new()),
    )
}

/// The same constant answers as the bare host gives; leases are the host's own.
pub struct Constant {
    leases: LeaseTable,
    shared: Shared,
}

impl Constant {
    /// Nothing is taken yet.
    #[expect(clippy::new_without_default, reason = "made in one place")]
    #[must_use]
    pub fn new() -> Self {
        Self {
            leases: LeaseTable::new(16, &[7; 16]),
            shared: Shared::in_memory(&SharedLimits::default(), &[7; 16]),
        }
    }
}

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
    fn acquire(
        &self,
        call: &HookCall,
        scope: &str,
        key: &str,
        limit: u32,
    ) -> Result<Acquired, CallError> {
        Ok(self.leases.acquire(call.facts.tenant, scope, key, limit))
    }
    fn leases_held(&self, call: &HookCall, scope: &str, key: &str) -> Result<u32, CallError> {
        Ok(self.leases.held(call.facts.tenant, scope, key))
    }
    fn shared(&self) -> Result<SharedNow<'_>, CallError> {
        Ok(self.shared.at(Time::default()))
    }
    fn log(&self, _: &HookCall, _: &str, _: LogLevel, _: &str) {}
}
