//! The state of a store: the hook call that moved in, what is left of its
//! limits, and the buffers that survive calls.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sipbox_core::flow::{Flow, ListenerId, TenantId};
use sipbox_core::policy::{
    AuthOutcome, BindingView, CallError, Capabilities, Direction, Facts, Hook, HookCall,
    HookFailure, LogLevel, Realm, RouteOutcome, RouteParams, RouteSignature, SaveLimits,
    SaveOutcome,
};
use sipbox_core::time::WallTime;
use sipbox_sip::{Message, Method, OwnedMessage, ParseError, Transport};
use wasmtime::{ResourceLimiter, StoreContextMut, UpdateDeadline};

use crate::limits::{Limits, thread_cpu};
use crate::pattern::Patterns;
use crate::view::LastView;
use crate::wasi::WasiState;

/// Ends a hook call from inside a host function: carries the reason through
/// wasmtime's error.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Stop(pub(crate) HookFailure);

/// The state of one instance's store.
pub(crate) struct CallCx {
    /// The call, or a placeholder between calls.
    pub(crate) call: Box<HookCall>,
    /// The hook that runs; `None` in `configure` and between calls.
    pub(crate) hook: Option<Hook>,
    /// The policy's name, for log lines, and for the variables that are its own.
    pub(crate) policy: Arc<str>,
    /// Names of the variables that it shares with the chain.
    pub(crate) shared: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) left: Left,
    pub(crate) view: LastView,
    pub(crate) wasi: WasiState,
    /// A Record-Route was asked for in this call.
    pub(crate) recorded: bool,
    /// Regular expressions that the policy uses, compiled.
    pub(crate) patterns: Patterns,
    /// Keys what a guest draws as randomness.
    pub(crate) random_key: [u8; 32],
    pub(crate) meter: Meter,
    /// Whether the thread lets others go first at each tick.
    pub(crate) makes_way: bool,
    memory: MemoryLimiter,
}

/// What is left of the limits of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    pub(crate) host_calls: u32,
    pub(crate) edits: u32,
    pub(crate) edit_bytes: u32,
    pub(crate) log_bytes: u32,
}

impl Left {
    fn of(limits: &Limits) -> Self {
        Self {
            host_calls: limits.host_calls,
            edits: limits.edits,
            edit_bytes: limits.edit_bytes,
            log_bytes: limits.log_bytes,
        }
    }
}

/// CPU time of a call that runs longer than two ticks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    /// The thread's clock at the first expired deadline.
    since: Option<Duration>,
    used: Duration,
}

impl Meter {
    /// CPU time that the call is known to have used, if it was long.
    pub(crate) fn used(&self) -> Option<Duration> {
        self.since
            .map(|since| thread_cpu().saturating_sub(since) + FIRST_DEADLINE)
    }
}

/// Ticks before the first look at the clock. Less would let a call that starts
/// right before a tick be looked at too early.
pub(crate) const FIRST_TICKS: u64 = 2;
pub(crate) const FIRST_DEADLINE: Duration = Duration::from_millis(FIRST_TICKS);

impl CallCx {
    /// The state of a store between calls.
    pub(crate) fn new(
        policy: Arc<str>,
        limits: Limits,
        random_key: [u8; 32],
    ) -> Result<Self, ParseError> {
        Ok(Self {
            call: placeholder()?,
            hook: None,
            policy,
            shared: Vec::new(),
            limits,
            left: Left::of(&limits),
            view: LastView::default(),
            wasi: WasiState::default(),
            recorded: false,
            patterns: Patterns::default(),
            random_key,
            meter: Meter::default(),
            makes_way: false,
            memory: MemoryLimiter {
                limit: limits.memory,
                bytes: 0,
            },
        })
    }

    /// Prepares for a call; the message has moved in already.
    pub(crate) fn begin(&mut self, hook: Option<Hook>) {
        self.hook = hook;
        self.left = Left::of(&self.limits);
        self.recorded = false;
        self.wasi.begin();
        self.meter = Meter::default();
    }

    /// Bytes of linear memory that the instance has.
    pub(crate) fn memory(&self) -> usize {
        self.memory.bytes
    }

    /// Counts a host call.
    pub(crate) fn enter(&mut self) -> wasmtime::Result<()> {
        match self.left.host_calls.checked_sub(1) {
            Some(left) => {
                self.left.host_calls = left;
                Ok(())
            }
            None => Err(stop(HookFailure::HostCalls)),
        }
    }

    /// Counts something staged, and its bytes.
    pub(crate) fn stage(&mut self, bytes: usize) -> wasmtime::Result<()> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        match (
            self.left.edits.checked_sub(1),
            self.left.edit_bytes.checked_sub(bytes),
        ) {
            (Some(edits), Some(bytes)) => {
                self.left.edits = edits;
                self.left.edit_bytes = bytes;
                Ok(())
            }
            _ => Err(stop(HookFailure::Edits)),
        }
    }

    /// The message of this call.
    pub(crate) fn message(&self) -> Message<'_> {
        self.owned().as_ref()
    }

    /// The message of this call, with what is known of it.
    pub(crate) fn owned(&self) -> &OwnedMessage {
        message_of(&self.call, self.hook)
    }

    /// Refuses a call outside of these hooks.
    pub(crate) fn only_in(&self, what: &str, hooks: &[Hook]) -> Result<(), CallError> {
        match self.hook {
            Some(hook) if hooks.contains(&hook) => Ok(()),
            Some(hook) => Err(CallError::OutOfPlace(format!(
                "{what} in {}",
                hook_name(hook)
            ))),
            None => Err(CallError::OutOfPlace(format!("{what} in configure"))),
        }
    }

    /// The method of the transaction's request.
    pub(crate) fn request_method(&self) -> Method {
        self.call.request.as_ref().method()
    }

    pub(crate) fn limiter(&mut self) -> &mut dyn ResourceLimiter {
        &mut self.memory
    }
}

/// The hooks that are about a request: where it can be edited, and its Record-Route.
pub(crate) const OF_REQUESTS: [Hook; 4] = [Hook::Route, Hook::Request, Hook::Branch, Hook::Failure];
/// Every hook.
pub(crate) const ANYWHERE: [Hook; 5] = [
    Hook::Route,
    Hook::Request,
    Hook::Branch,
    Hook::Reply,
    Hook::Failure,
];

/// What a hook is about.
pub(crate) fn message_of(call: &HookCall, hook: Option<Hook>) -> &OwnedMessage {
    match (&call.response, hook) {
        (Some(response), Some(Hook::Reply)) => response,
        _ => &call.request,
    }
}

pub(crate) fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Route => "on-route",
        Hook::Request => "on-request",
        Hook::Branch => "on-branch",
        Hook::Reply => "on-reply",
        Hook::Failure => "on-failure",
        Hook::Dialog => "on-dialog",
    }
}

pub(crate) fn stop(failure: HookFailure) -> wasmtime::Error {
    wasmtime::Error::new(Stop(failure))
}

/// What the epoch deadline asks: has the hook used up its CPU time? A deadline
/// alone would count wall time, and kill innocent guests on a loaded machine.
#[allow(clippy::needless_pass_by_value, reason = "the signature is wasmtime's")]
pub(crate) fn on_deadline(
    mut store: StoreContextMut<'_, CallCx>,
) -> wasmtime::Result<UpdateDeadline> {
    let cx = store.data_mut();
    if cx.makes_way {
        std::thread::yield_now();
    }
    let now = thread_cpu();
    match cx.meter.since {
        None => {
            cx.meter.since = Some(now);
            Ok(UpdateDeadline::Continue(1))
        }
        Some(since) => {
            cx.meter.used = now.saturating_sub(since) + FIRST_DEADLINE;
            if cx.meter.used >= cx.limits.cpu {
                return Err(stop(HookFailure::Cpu));
            }
            Ok(UpdateDeadline::Continue(1))
        }
    }
}

/// Ends a call that wants more memory than its tenant allows. `memory.grow`
/// that merely fails would leave the guest in its allocator's panic, with a
/// reason that names no limit.
struct MemoryLimiter {
    limit: usize,
    /// Of all memories together.
    bytes: usize,
}

/// Elements of one table: function pointers; guests have a few hundred.
const TABLE_ELEMENTS: usize = 20_000;

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.limit {
            Err(stop(HookFailure::Memory))
        } else {
            self.bytes += desired.saturating_sub(current);
            Ok(true)
        }
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS {
            Err(stop(HookFailure::Memory))
        } else {
            Ok(true)
        }
    }
}

/// A call with nothing in it: what a store holds between calls, and what the
/// first call of a new instance sees.
pub(crate) fn placeholder() -> Result<Box<HookCall>, ParseError> {
    const REQUEST: &[u8] = b"OPTIONS sip:warm-up.invalid SIP/2.0\r\n\
        Via: SIP/2.0/UDP warm-up.invalid;branch=z9hG4bKwarm\r\n\
        Max-Forwards: 70\r\n\
        From: <sip:warm-up@warm-up.invalid>;tag=warm\r\n\
        To: <sip:warm-up.invalid>\r\n\
        Call-ID: warm-up@warm-up.invalid\r\n\
        CSeq: 1 OPTIONS\r\n\
        Contact: <sip:warm-up@warm-up.invalid>\r\n\
        Content-Length: 0\r\n\r\n";
    Ok(HookCall::new(
        OwnedMessage::parse(Bytes::from_static(REQUEST))?,
        Arc::new(Facts {
            tenant: TenantId(0),
            tenant_name: Arc::from(""),
            listener_name: Arc::from(""),
            flow: Flow {
                listener: ListenerId(0),
                transport: Transport::Udp,
                peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5060),
                connection: None,
                local: None,
            },
            now: WallTime(0),
            in_dialog: false,
            direction: Direction::Unknown,
            route_outcome: RouteOutcome::None,
            route_params: RouteParams::new(),
            route_signature: RouteSignature::None,
            leaves: None,
            dialog: None,
        }),
        Arc::new(NoCapabilities),
    ))
}

/// The capabilities of a call that is none: everything is unavailable.
struct NoCapabilities;

impl Capabilities for NoCapabilities {
    fn check(&self, _: &HookCall, _: &Realm) -> Result<AuthOutcome, CallError> {
        Err(unavailable())
    }

    fn lookup(&self, _: &HookCall, _: &str) -> Result<Vec<BindingView>, CallError> {
        Err(unavailable())
    }

    fn save(&self, _: &HookCall, _: &str, _: &SaveLimits) -> Result<SaveOutcome, CallError> {
        Err(unavailable())
    }

    fn remove(&self, _: &HookCall, _: &str) -> Result<u32, CallError> {
        Err(unavailable())
    }

    fn log(&self, _: &HookCall, policy: &str, _: LogLevel, text: &str) {
        tracing::debug!(policy, text, "policy log outside of a call");
    }
}

fn unavailable() -> CallError {
    CallError::Unavailable("no call".to_owned())
}
