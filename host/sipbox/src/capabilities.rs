//! What a policy's capabilities do on a real node: one value for each request,
//! shared by the policies of its chain.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sipbox_core::auth::{Check, Ha1Set, NamedCredentials};
use sipbox_core::dialog::{DialogId, Side, Validity, View};
use sipbox_core::lease::Acquired;
use sipbox_core::location::{Aor, Binding, Bindings, Plan, Planned, Refused};
use sipbox_core::policy::{
    AuthOutcome, BindingView, CallError, Capabilities, DialogView, HookCall, LogLevel, Realm,
    SaveLimits, SaveOutcome,
};
use sipbox_core::shared::SharedNow;
use sipbox_core::time::WallTime;

use crate::node::Node;
use crate::snapshot::Tenant;

/// Bytes of a Call-ID that stand in the log line of a policy: the sender chose its length.
const CALL_ID: usize = 64;

/// An account that the request names, as the database knows it; `None`: it does not.
pub(crate) type Fetched = (NamedCredentials, Result<Option<Arc<Ha1Set>>, Unavailable>);

/// The database did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable;

/// What REGISTER came to, for the reply.
#[derive(Clone, Debug)]
pub(crate) enum Registration {
    /// To be committed.
    Save {
        /// As the policy named it.
        aor: String,
        /// What will be done.
        plan: Box<Plan>,
    },
    /// Only asked.
    Query(Bindings),
    /// Refused; says with which Min-Expires.
    Refused(Refused),
}

/// The capabilities of one request.
pub(crate) struct RequestCapabilities {
    node: Arc<Node>,
    tenant: Arc<Tenant>,
    credentials: Vec<Fetched>,
    memory: Mutex<Memory>,
}

/// What was answered before. A check uses a nonce count up, so its outcome is
/// kept for the later policies of the chain.
#[derive(Debug, Default)]
struct Memory {
    outcomes: Vec<(Realm, AuthOutcome)>,
    registration: Option<Registration>,
}

impl RequestCapabilities {
    /// Capabilities for a request of `tenant`, whose named accounts were fetched.
    pub(crate) fn new(node: Arc<Node>, tenant: Arc<Tenant>, credentials: Vec<Fetched>) -> Self {
        Self {
            node,
            tenant,
            credentials,
            memory: Mutex::default(),
        }
    }

    /// What a REGISTER of this request came to.
    pub(crate) fn take_registration(&self) -> Option<Registration> {
        self.memory().registration.take()
    }

    /// Whether the last check of the realm found an old nonce.
    pub(crate) fn is_stale(&self, realm: &Realm) -> bool {
        let memory = self.memory();
        memory.outcomes.iter().any(|(known, outcome)| {
            known.name == realm.name && known.proxy == realm.proxy && *outcome == AuthOutcome::Stale
        })
    }

    /// Only one hook of a request runs at a time, so this never waits.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn aor(text: &str) -> Result<Aor, CallError> {
        Aor::parse(text).map_err(|error| CallError::Malformed(format!("`{text}`: {error}")))
    }

    /// An address of record of one of the tenant's own domains.
    fn own_aor(&self, text: &str) -> Result<Aor, CallError> {
        let aor = Self::aor(text)?;
        if self.tenant.has_realm(aor.domain()) {
            return Ok(aor);
        }
        Err(CallError::Malformed(format!(
            "`{text}`: the domain is not the tenant's"
        )))
    }

    fn view(&self, binding: &Binding, call: &HookCall) -> BindingView {
        BindingView {
            contact: binding.contact.to_string(),
            q: binding.q,
            expires: binding.remaining(call.facts.now),
            path: binding.path.iter().map(ToString::to_string).collect(),
            received: binding.received.to_string(),
            flow: binding
                .flow
                .map(|flow| self.node.tokens.encode(self.tenant.id, &flow))
                .unwrap_or_default(),
            instance: binding.instance.as_deref().unwrap_or_default().to_owned(),
            user_agent: binding.user_agent.to_string(),
            flags: binding.flags,
        }
    }
}

impl Capabilities for RequestCapabilities {
    fn check(&self, call: &HookCall, realm: &Realm) -> Result<AuthOutcome, CallError> {
        let mut memory = self.memory();
        if let Some((_, outcome)) = memory.outcomes.iter().find(|(known, _)| known == realm) {
            return Ok(outcome.clone());
        }
        let unavailable = self
            .credentials
            .iter()
            .any(|(named, known)| known.is_err() && named.realm.eq_ignore_ascii_case(&realm.name));
        if unavailable {
            return Err(CallError::Unavailable(
                "the accounts cannot be read".to_owned(),
            ));
        }
        let message = call.request.as_ref();
        let check = Check {
            tenant: self.tenant.id,
            realm,
            message,
            request_uri: message.request_uri(),
            source: call.facts.flow.peer.ip(),
            wall: call.facts.now,
        };
        let outcome = self.node.authenticator.check(&check, |user| {
            self.credentials
                .iter()
                .find(|(named, _)| {
                    named.user == user && named.realm.eq_ignore_ascii_case(&realm.name)
                })
                .and_then(|(_, known)| known.as_ref().ok()?.as_deref())
        });
        memory.outcomes.push((realm.clone(), outcome.clone()));
        Ok(outcome)
    }

    fn lookup(&self, call: &HookCall, aor: &str) -> Result<Vec<BindingView>, CallError> {
        let aor = Self::aor(aor)?;
        let bindings = self
            .node
            .location
            .lookup(self.tenant.id, &aor, call.facts.now);
        Ok(bindings
            .iter()
            .map(|binding| self.view(binding, call))
            .collect())
    }

    fn save(
        &self,
        call: &HookCall,
        aor: &str,
        limits: &SaveLimits,
    ) -> Result<SaveOutcome, CallError> {
        let parsed = self.own_aor(aor)?;
        let snapshot = self.node.snapshot.load();
        let socket = snapshot.socket(call.facts.flow);
        let planned = self.node.location.plan(
            self.tenant.id,
            &parsed,
            &call.request.as_ref(),
            (call.facts.flow, &socket),
            call.facts.now,
            limits,
        );
        let (outcome, registration) = match planned {
            Ok(Planned::Save(plan)) => (
                SaveOutcome::Saved(plan.standing()),
                Registration::Save {
                    aor: aor.to_owned(),
                    plan,
                },
            ),
            Ok(Planned::Query(bindings)) => (
                SaveOutcome::Queried(u32::try_from(bindings.len()).unwrap_or(u32::MAX)),
                Registration::Query(bindings),
            ),
            Err(refused) => (
                SaveOutcome::Refused(refused.status),
                Registration::Refused(refused),
            ),
        };
        self.memory().registration = Some(registration);
        Ok(outcome)
    }

    fn remove(&self, call: &HookCall, aor: &str) -> Result<u32, CallError> {
        let aor = self.own_aor(aor)?;
        let bindings = self
            .node
            .location
            .lookup(self.tenant.id, &aor, call.facts.now);
        Ok(u32::try_from(bindings.len()).unwrap_or(u32::MAX))
    }

    fn dialog(&self, call: &HookCall) -> Option<DialogView> {
        let id = dialog_of(call)?;
        let (now, _) = self.node.clock.now();
        let view = self.node.stack.dialogs().view(id, now)?;
        let from = call.facts.dialog.map_or(Side::Caller, |known| known.from);
        Some(seen(&view, Some(from), call.facts.now))
    }

    fn test_and_set(&self, call: &HookCall, flag: &str, on: bool) -> Result<bool, CallError> {
        let dialogs = self.node.stack.dialogs();
        dialog_of(call)
            .and_then(|id| dialogs.set_flag(id, flag, on))
            .ok_or_else(|| CallError::Unavailable("the dialog is gone".to_owned()))
    }

    fn profile_size(&self, _: &HookCall, profile: &str, value: &str) -> Result<u32, CallError> {
        let profiles = self.node.stack.dialogs().profiles();
        Ok(profiles.held(self.tenant.id, profile, value))
    }

    fn validate_dialog(&self, call: &HookCall) -> Result<Validity, CallError> {
        let known = call.facts.dialog.ok_or_else(|| {
            CallError::OutOfPlace("validate-dialog of a request without a dialog".to_owned())
        })?;
        let dialogs = self.node.stack.dialogs();
        Ok(dialogs.validate(known, call.request.as_ref()))
    }

    fn acquire(
        &self,
        _: &HookCall,
        scope: &str,
        key: &str,
        limit: u32,
    ) -> Result<Acquired, CallError> {
        let leases = self.node.stack.leases();
        Ok(leases.acquire(self.tenant.id, scope, key, limit))
    }

    fn leases_held(&self, _: &HookCall, scope: &str, key: &str) -> Result<u32, CallError> {
        Ok(self.node.stack.leases().held(self.tenant.id, scope, key))
    }

    fn shared(&self) -> Result<SharedNow<'_>, CallError> {
        // By the clock that never goes back. A call that waited for its turn counts when it
        // runs.
        Ok(self.tenant.shared.at(self.node.clock.now().0))
    }

    fn log(&self, call: &HookCall, policy: &str, level: LogLevel, text: &str) {
        let tenant = &*self.tenant.name;
        let call_id = call.request.as_ref().call_id().unwrap_or_default();
        let call_id = String::from_utf8_lossy(call_id.get(..CALL_ID).unwrap_or(call_id));
        // The macro wants its level as a constant.
        macro_rules! line {
            ($level:ident) => {
                tracing::event!(
                    target: "policy",
                    tracing::Level::$level,
                    tenant,
                    policy,
                    %call_id,
                    "{text}"
                )
            };
        }
        match level {
            LogLevel::Trace => line!(TRACE),
            LogLevel::Debug => line!(DEBUG),
            LogLevel::Info => line!(INFO),
            LogLevel::Warn => line!(WARN),
            LogLevel::Error => line!(ERROR),
        }
    }
}

/// The dialog that a call is about.
pub(crate) fn dialog_of(call: &HookCall) -> Option<DialogId> {
    let begun = call.state.dialog.as_ref().map(|tie| tie.id);
    begun.or_else(|| call.facts.dialog.map(|known| known.id))
}

/// A dialog as policies see it.
pub(crate) fn seen(view: &View, from: Option<Side>, now: WallTime) -> DialogView {
    let seconds = |seconds: u64| u32::try_from(seconds).unwrap_or(u32::MAX);
    DialogView {
        id: view.id.to_string(),
        state: view.state,
        from,
        lasted: seconds(now.seconds().saturating_sub(view.start.seconds())),
        left: seconds(view.left),
        vars: view.vars.clone(),
        flags: view.flags.clone(),
        profiles: view.profiles.clone(),
    }
}
