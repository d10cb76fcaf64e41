//! What a policy may do beyond the message of its call, if its tenant grants it.

use smallvec::SmallVec;

use super::{BindingFlags, HookCall, Reached};

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
/// Reads answer at once from memory. Writes are staged by the sandbox as
/// [`Effect`]s; `save` here only says what would happen.
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
