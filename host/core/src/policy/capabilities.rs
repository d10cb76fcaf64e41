//! What a policy may do beyond the message of its call, if its tenant grants it.

use smallvec::SmallVec;

use super::{BindingFlags, HookCall, Reached};
use crate::dialog::{Side, State, Validity, Wanted};
use crate::lease::{Acquired, Lease};
use crate::shared::{SharedNow, Staged};

/// A write that a hook staged. It is committed with the verdict, or discarded
/// with the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `location.save`: carry out this REGISTER for the address of record.
    SaveLocation {
        /// `user@domain`.
        aor: String,
        /// The limits that the policy set.
        limits: SaveLimits,
    },
    /// `location.remove`
    RemoveLocation {
        /// `user@domain`.
        aor: String,
    },
    /// `auth.challenge`: the reply carries the realm's challenges.
    Challenge(Realm),
    /// `dialogs`: what the dialog of this call is to become.
    Dialog(DialogOp),
    /// `leases.release`
    Release(Lease),
    /// `kv.set`, `kv.remove`, `kv.compare-and-set`: of several of a key the last one counts.
    Kv(Staged),
}

/// What is to be written of the staged writes of a call: the last one of each key.
pub fn last_writes<'a>(
    effects: impl DoubleEndedIterator<Item = &'a Effect>,
) -> SmallVec<[&'a Staged; 2]> {
    let mut last: SmallVec<[&Staged; 2]> = SmallVec::new();
    for effect in effects.rev() {
        if let Effect::Kv(staged) = effect
            && !last
                .iter()
                .any(|later| later.write().key == staged.write().key)
        {
            last.push(staged);
        }
    }
    last.reverse();
    last
}

/// One change of a dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialogOp {
    /// `create-dialog`
    Create(Wanted),
    /// `store-dlg-value`
    SetVar {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
    },
    /// `set-dlg-flag`, `reset-dlg-flag`
    SetFlag {
        /// The flag.
        name: String,
        /// Whether it is to be set.
        on: bool,
    },
    /// `set-dlg-profile`
    Join {
        /// The profile.
        profile: String,
        /// The value; empty: none.
        value: String,
        /// Other values of the profile are left.
        clear: bool,
    },
    /// `unset-dlg-profile`
    Leave {
        /// The profile.
        profile: String,
        /// The value; empty: all.
        value: String,
    },
    /// `set-dlg-timeout`: seconds from now on.
    Timeout(u32),
    /// `end-dialog`, with header fields for both BYEs.
    End(Vec<(String, String)>),
}

/// A dialog as a policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialogView {
    /// Its name, as `did` has it; empty before the verdict that begins it.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// Who sent the request of this call.
    pub from: Option<Side>,
    /// Seconds since it began, or since it was answered.
    pub lasted: u32,
    /// Seconds until its time is over.
    pub left: u32,
    /// Variables.
    pub vars: Vec<(String, String)>,
    /// The names of the flags that are set.
    pub flags: Vec<String>,
    /// Profiles and values.
    pub profiles: Vec<(String, String)>,
}

impl DialogView {
    /// The dialog after a change that was staged.
    pub fn staged(&mut self, op: &DialogOp) {
        match op {
            DialogOp::Create(_) | DialogOp::End(_) => {}
            DialogOp::Timeout(seconds) => self.left = *seconds,
            DialogOp::SetVar { name, value } => {
                match self.vars.iter_mut().find(|(known, _)| known == name) {
                    Some((_, old)) => old.clone_from(value),
                    None => self.vars.push((name.clone(), value.clone())),
                }
            }
            DialogOp::SetFlag { name, on } => {
                self.flags.retain(|flag| flag != name);
                if *on {
                    self.flags.push(name.clone());
                }
            }
            DialogOp::Join {
                profile,
                value,
                clear,
            } => {
                self.profiles
                    .retain(|(name, of)| name != profile || !(*clear || of == value));
                self.profiles.push((profile.clone(), value.clone()));
            }
            DialogOp::Leave { profile, value } => {
                self.profiles
                    .retain(|(name, of)| name != profile || !(value.is_empty() || of == value));
            }
        }
    }

    /// Whether it is in a profile; with any value if `value` is empty.
    #[must_use]
    pub fn is_in(&self, profile: &str, value: &str) -> bool {
        let is =
            |(name, of): &(String, String)| name == profile && (value.is_empty() || of == value);
        self.profiles.iter().any(is)
    }
}

/// The limits of `location.save`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SaveLimits {
    /// Seconds; shorter gets 423.
    pub min_expires: u32,
    /// Seconds; longer is cut.
    pub max_expires: u32,
    /// Seconds, where the request names none.
    pub default_expires: u32,
    /// Bindings of one address of record; 0: no limit.
    pub max_contacts: u32,
    /// Where requests to the bindings go.
    pub reached: Reached,
    /// Marks of the bindings.
    pub flags: BindingFlags,
}

/// A realm as a policy names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm {
    /// The realm.
    pub name: String,
    /// Proxy-Authenticate and 407 instead of WWW-Authenticate and 401.
    pub proxy: bool,
    /// Accepted algorithms, best first.
    pub algorithms: SmallVec<[sipbox_sip::digest::Algorithm; 2]>,
    /// Whether the digest `uri` must match the Request-URI.
    pub strict_uri: bool,
}

/// What `auth.check` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthOutcome {
    /// No credentials of this realm.
    None,
    /// The user that the credentials prove.
    Authenticated(String),
    /// The nonce is too old.
    Stale,
    /// Wrong.
    Refused,
    /// Too many failures lately.
    Throttled,
}

/// A binding as a policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingView {
    /// The Contact URI.
    pub contact: String,
    /// Preference in thousandths.
    pub q: u16,
    /// Seconds left.
    pub expires: u32,
    /// Path values, first hop first.
    pub path: Vec<String>,
    /// The source it registered from, as a URI.
    pub received: String,
    /// The flow token.
    pub flow: String,
    /// `+sip.instance`, or empty.
    pub instance: String,
    /// User-Agent.
    pub user_agent: String,
    /// Its marks.
    pub flags: BindingFlags,
}

/// What `location.save` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveOutcome {
    /// Staged; so many bindings will stand.
    Saved(u32),
    /// A query; so many stand.
    Queried(u32),
    /// To be answered with this status.
    Refused(u16),
}

/// Why a host call was refused: `error` in the WIT.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The call makes no sense in this hook.
    #[error("out of place: {0}")]
    OutOfPlace(String),
    /// The value would make an ill-formed message.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The field belongs to the host.
    #[error("protected: {0}")]
    Protected(String),
    /// An option that this version does not know.
    #[error("unknown option `{0}`")]
    UnknownOption(String),
    /// A limit of the tenant.
    #[error("limit: {0}")]
    Limit(String),
    /// The backend failed.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// The granted capabilities that reach outside the message: implemented by the
/// host, by the test kit, and by a wrapper that records.
///
/// Reads answer at once from memory; where a backend may be elsewhere, an
/// [`Answer`](crate::shared::Answer) may come later. Writes are staged by the sandbox as [`Effect`]s; `save` here only says what
/// would happen.
pub trait Capabilities: Send + Sync {
    /// `auth.check`
    ///
    /// # Errors
    /// [`CallError::Unavailable`] when the credentials could not be fetched.
    fn check(&self, call: &HookCall, realm: &Realm) -> Result<AuthOutcome, CallError>;

    /// `location.lookup`
    ///
    /// # Errors
    /// [`CallError::Malformed`] when `aor` is none.
    fn lookup(&self, call: &HookCall, aor: &str) -> Result<Vec<BindingView>, CallError>;

    /// `location.save`, without the writing.
    ///
    /// # Errors
    /// [`CallError::OutOfPlace`] when the request is no REGISTER.
    fn save(
        &self,
        call: &HookCall,
        aor: &str,
        limits: &SaveLimits,
    ) -> Result<SaveOutcome, CallError>;

    /// `location.remove`, without the writing: how many bindings stand.
    ///
    /// # Errors
    /// [`CallError::Malformed`] when `aor` is none.
    fn remove(&self, call: &HookCall, aor: &str) -> Result<u32, CallError>;

    /// The dialog of this call, as it is now: the one that its request belongs to or that
    /// its transaction began.
    fn dialog(&self, call: &HookCall) -> Option<DialogView> {
        let _ = call;
        None
    }

    /// `dialogs.test-and-set-dlg-flag`, at once: whether the flag was set before.
    ///
    /// # Errors
    /// [`CallError::Unavailable`] when there is no such dialog any more.
    fn test_and_set(&self, call: &HookCall, flag: &str, on: bool) -> Result<bool, CallError> {
        let _ = (call, flag, on);
        Err(CallError::Unavailable("dialogs".to_owned()))
    }

    /// `dialogs.get-profile-size`
    ///
    /// # Errors
    /// [`CallError::Unavailable`] where there are no dialogs.
    fn profile_size(&self, call: &HookCall, profile: &str, value: &str) -> Result<u32, CallError> {
        let _ = (call, profile, value);
        Err(CallError::Unavailable("dialogs".to_owned()))
    }

    /// `dialogs.validate-dialog`
    ///
    /// # Errors
    /// [`CallError::OutOfPlace`] when the request belongs to no dialog.
    fn validate_dialog(&self, call: &HookCall) -> Result<Validity, CallError> {
        let _ = call;
        Err(CallError::Unavailable("dialogs".to_owned()))
    }

    /// `leases.acquire`: takes the place at once; it is given back with the lease.
    ///
    /// # Errors
    /// [`CallError::Unavailable`] where there are no leases.
    fn acquire(
        &self,
        call: &HookCall,
        scope: &str,
        key: &str,
        limit: u32,
    ) -> Result<Acquired, CallError> {
        let _ = (call, scope, key, limit);
        Err(CallError::Unavailable("leases".to_owned()))
    }

    /// `leases.held`
    ///
    /// # Errors
    /// [`CallError::Unavailable`] where there are no leases.
    fn leases_held(&self, call: &HookCall, scope: &str, key: &str) -> Result<u32, CallError> {
        let _ = (call, scope, key);
        Err(CallError::Unavailable("leases".to_owned()))
    }

    /// What `kv` and `counters` stand on: what the calls of the tenant share, at this time.
    ///
    /// # Errors
    /// [`CallError::Unavailable`] where there is nothing.
    fn shared(&self) -> Result<SharedNow<'_>, CallError> {
        Err(CallError::Unavailable("kv and counters".to_owned()))
    }

    /// `log.log`, with tenant and policy attached.
    fn log(&self, call: &HookCall, policy: &str, level: LogLevel, text: &str);
}

/// The level of a policy's log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Finest.
    Trace,
    /// For developers.
    Debug,
    /// Ordinary.
    Info,
    /// To be looked at.
    Warn,
    /// Broken.
    Error,
}
