//! Digest authentication on the server's side (RFC 3261 section 22, RFC 7616,
//! RFC 8760): nonces, their counts, the check of an answer, and the brake on
//! guessing.
//!
//! Not here: the arithmetic (`sipbox_sip::digest`), where HA1s are stored, and who
//! must authenticate (a policy decides). State is small and bounded: nonces are
//! signed, so only those in use are remembered.

mod credentials;
mod nonce;
mod throttle;
mod window;

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sipbox_sip::auth::Credentials;
use sipbox_sip::digest::{self, Algorithm, Answer};
use sipbox_sip::uri::equivalent;
use sipbox_sip::{HeaderId, Message, Uri};
use smallvec::SmallVec;

pub use credentials::{Ha1Set, NamedCredentials, named_credentials};

use crate::flow::TenantId;
use crate::location::Origin;
use crate::policy::{AuthOutcome, Realm};
use crate::time::WallTime;
use nonce::{NonceFault, Nonces};
use throttle::Throttle;
use window::{Use, Windows};

/// What the operator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthSettings {
    /// How long a nonce is good.
    pub nonce_lifetime: Duration,
    /// Nonces in use that are remembered. Beyond it the oldest falls out, and
    /// whoever holds it gets `stale=true`.
    pub nonce_table: usize,
    /// Wrong answers from one source for one account within [`Self::failure_window`]
    /// that go unpunished.
    pub failures: u32,
    /// How long failures are counted, and then how long nothing is checked.
    pub failure_window: Duration,
    /// Pairs of source and account whose failures are remembered.
    pub failure_table: usize,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            nonce_lifetime: Duration::from_secs(300),
            nonce_table: 65_536,
            failures: 5,
            failure_window: Duration::from_secs(60),
            failure_table: 16_384,
        }
    }
}

/// Checks answers and makes challenges, for all tenants.
#[derive(Debug)]
pub struct Authenticator {
    nonces: Nonces,
    windows: Windows,
    throttle: Throttle,
    /// Stands in for the HA1 of a user that there is not.
    dummy: Ha1Set,
}

/// What is to be checked.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// The tenant.
    pub tenant: TenantId,
    /// The realm, as the policy names it.
    pub realm: &'a Realm,
    /// The request with its credentials.
    pub message: Message<'a>,
    /// The Request-URI that the digest `uri` must match: the received one.
    pub request_uri: &'a [u8],
    /// The address that the request came from.
    pub source: IpAddr,
    /// Now.
    pub wall: WallTime,
}

impl Authenticator {
    /// An authenticator without memory, under a secret key.
    #[must_use]
    pub fn new(key: &[u8; 32], origin: Origin, settings: AuthSettings) -> Self {
        let nonces = Nonces::new(key, origin, settings.nonce_lifetime);
        let dummy = Ha1Set::of_password("", "", &nonces.secret());
        Self {
            windows: Windows::new(settings.nonce_table, settings.nonce_lifetime),
            throttle: Throttle::new(key, &settings),
            dummy,
            nonces,
        }
    }

    /// Checks the credentials for the realm, if the request has any.
    ///
    /// `ha1` finds what is stored for a user name; a user that there is not costs
    /// the same time and gives the same outcome as a wrong password. A check uses
    /// the nonce count up: ask once for each request, and keep the outcome.
    pub fn check<'h>(
        &self,
        check: &Check<'_>,
        ha1: impl FnOnce(&str) -> Option<&'h Ha1Set>,
    ) -> AuthOutcome {
        let Some((credentials, algorithm)) = choose(check) else {
            return AuthOutcome::None;
        };
        let Ok(user) = std::str::from_utf8(&credentials.username) else {
            return AuthOutcome::Refused;
        };
        let account = throttle::Account {
            tenant: check.tenant,
            source: check.source,
            realm: &check.realm.name,
            user,
        };
        if self.throttle.is_closed(&account, check.wall) {
            return AuthOutcome::Throttled;
        }
        let realm = (check.tenant, check.realm.name.as_str());
        let nonce = match self.nonces.read(&credentials.nonce, realm, check.wall) {
            Ok(nonce) => nonce,
            // Of whichever kind: a fresh nonce lets an honest client go on at once.
            Err(NonceFault::Forged | NonceFault::OtherProcess | NonceFault::Old) => {
                return AuthOutcome::Stale;
            }
        };
        let Some(count) = Count::read(&credentials) else {
            return AuthOutcome::Refused;
        };
        if check.realm.strict_uri && !same_uri(&credentials.uri, check.request_uri) {
            return AuthOutcome::Refused;
        }
        if !self.proves(&credentials, algorithm, check, ha1(user)) {
            self.throttle.failed(&account, check.wall);
            return AuthOutcome::Refused;
        }
        let used = match count {
            Count::Number(number) => self.windows.use_count(&nonce, number, check.wall),
            Count::Legacy => self.windows.use_once(&nonce, check.wall),
        };
        match used {
            Use::Fresh => AuthOutcome::Authenticated(user.to_owned()),
            Use::Replayed => AuthOutcome::Refused,
            Use::Forgotten => AuthOutcome::Stale,
        }
    }

    /// The values of WWW-Authenticate or Proxy-Authenticate: one for each
    /// algorithm of the realm, best first (RFC 8760 section 2.4).
    #[must_use]
    pub fn challenge_values(
        &self,
        tenant: TenantId,
        realm: &Realm,
        wall: WallTime,
        stale: bool,
    ) -> SmallVec<[String; 2]> {
        let nonce = self.nonces.make((tenant, &realm.name), wall);
        let mut name = String::with_capacity(realm.name.len());
        for c in realm.name.chars() {
            if matches!(c, '"' | '\\') {
                name.push('\\');
            }
            name.push(c);
        }
        let stale = if stale { ", stale=true" } else { "" };
        let value = |algorithm: &Algorithm| {
            let algorithm = algorithm.token();
            format!(
                "Digest realm=\"{name}\", nonce=\"{nonce}\"{stale}, algorithm={algorithm}, qop=\"auth\""
            )
        };
        realm.algorithms.iter().map(value).collect()
    }

    fn proves(
        &self,
        credentials: &Credentials<'_>,
        algorithm: Algorithm,
        check: &Check<'_>,
        known: Option<&Ha1Set>,
    ) -> bool {
        let real = known.and_then(|set| set.get(algorithm));
        let ha1 = real
            .or_else(|| self.dummy.get(algorithm))
            .unwrap_or_default();
        let answer = Answer {
            method: check.message.method_token(),
            uri: &credentials.uri,
            nonce: &credentials.nonce,
            nc: credentials.nc.as_deref().unwrap_or_default(),
            cnonce: credentials.cnonce.as_deref().unwrap_or_default(),
            qop: credentials.qop.as_deref(),
            body: b"",
        };
        let expected = digest::response(algorithm, ha1.as_bytes(), &answer);
        // Both sides are worked out before either counts.
        expected.matches(&credentials.response) & real.is_some()
    }
}

/// What an answer says about the use of its nonce.
enum Count {
    /// `nc`, with qop (RFC 7616 section 3.4).
    Number(u32),
    /// Without qop (RFC 2069): nothing protects from a replay but using the nonce once.
    Legacy,
}

impl Count {
    /// `None` when the answer is not one to our challenge.
    fn read(credentials: &Credentials<'_>) -> Option<Self> {
        match credentials.qop.as_deref() {
            None => Some(Self::Legacy),
            Some(qop) if qop.eq_ignore_ascii_case(b"auth") => {
                credentials
                    .cnonce
                    .as_deref()
                    .filter(|cnonce| !cnonce.is_empty())?;
                credentials
                    .nonce_count()
                    .filter(|n| *n > 0)
                    .map(Self::Number)
            }
            Some(_) => None,
        }
    }
}

/// The credentials for the realm whose algorithm it accepts; of several, the one
/// that the realm likes best.
fn choose<'a>(check: &Check<'a>) -> Option<(Credentials<'a>, Algorithm)> {
    let realm = check.realm;
    let header = if realm.proxy {
        HeaderId::ProxyAuthorization
    } else {
        HeaderId::Authorization
    };
    let usable = check.message.credentials(header).filter_map(|credentials| {
        let algorithm = match &credentials.algorithm {
            Some(token) => Algorithm::from_token(token)?,
            None => Algorithm::Md5,
        };
        let rank = realm
            .algorithms
            .iter()
            .position(|known| *known == algorithm)?;
        (*credentials.realm == *realm.name.as_bytes()).then_some((rank, credentials, algorithm))
    });
    usable
        .min_by_key(|(rank, ..)| *rank)
        .map(|(_, credentials, algorithm)| (credentials, algorithm))
}

/// RFC 3261 section 22.4, item 5: the `uri` must stand for the Request-URI.
fn same_uri(given: &[u8], request_uri: &[u8]) -> bool {
    if given == request_uri {
        return true;
    }
    match (Uri::parse(given), Uri::parse(request_uri)) {
        (Ok(given), Ok(request_uri)) => equivalent(&given, &request_uri),
        _ => false,
    }
}

/// A panic elsewhere leaves these tables usable: a half-made entry is a lost count.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
