//! Who sends: the From header field held against credentials.

use sipbox_guest::auth::{self, Realm};
use sipbox_guest::leases::{self, Outcome};
use sipbox_guest::{Request, Verdict, canonical_user, error};

use crate::settings::{Alias, Auth, Domain, RelayFor};

/// The scope of the leases that count a user's calls: that of `policies/limits`.
const CALLS: &str = "user";

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Credentials are wanted; the challenge is on the reply.
    Challenge(u16),
    /// The credentials are right, but somebody else's.
    ForbiddenId,
    /// From strangers to strangers.
    RelayForbidden,
    /// A CANCEL that nobody vouches for.
    Unmatched,
    /// The host could not answer.
    Broken,
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Challenge(status) => Self::reply(status).into(),
            Refusal::ForbiddenId => Self::reply(403).reason("Forbidden auth ID").into(),
            Refusal::Unmatched => Self::reply(481).into(),
            Refusal::RelayForbidden => Self::reply(403).reason("Relay Forbidden").into(),
            Refusal::Broken => Self::reply(500).into(),
        }
    }
}

/// Whether a request that says it comes from a user of the domain does.
pub(crate) fn confirm(request: &Request, domain: &Domain, foreign: bool) -> Result<(), Refusal> {
    let asked = match domain.auth {
        Auth::Off => false,
        // Its users are known by their registrations inside; out of the domain
        // only credentials open the way.
        Auth::Register => foreign && domain.relay == RelayFor::OwnUsers,
        Auth::All => true,
    };
    if !asked {
        return Ok(());
    }
    if request.method() == "CANCEL" {
        // It cannot be challenged (RFC 3261 section 22.1). To users of ours it may go
        // on; elsewhere it would open the way for everybody.
        return if foreign {
            Err(Refusal::Unmatched)
        } else {
            Ok(())
        };
    }
    let user = authenticate(&domain.proxy)?;
    if request
        .from()
        .user()
        .is_some_and(|from| is_user(domain, from, &user))
    {
        Ok(())
    } else {
        Err(Refusal::ForbiddenId)
    }
}

/// Takes the call's place among those of its caller, which it has until it ends. What
/// they have too many of is answered 486.
pub(crate) fn counted(request: &Request, domain: &Domain) -> Option<Verdict> {
    if domain.calls == 0 {
        return None;
    }
    let user = request.from().user().unwrap_or_default();
    // All names of a user count together.
    let aor = match domain.alias(user) {
        Some(Alias::Registered(aor)) => aor.clone(),
        _ => domain.aor(user),
    };
    match leases::acquire(CALLS, &aor, domain.calls) {
        Ok(Outcome::Granted(_)) => None,
        Ok(Outcome::Full(_)) => Some(Verdict::reply(486).reason("Too Many Calls").into()),
        Err(reason) => {
            error!("calls cannot be counted: {reason}");
            Some(Verdict::reply(500).into())
        }
    }
}

/// The user that the credentials prove, or the challenge.
pub(crate) fn authenticate(realm: &Realm) -> Result<String, Refusal> {
    match realm.check() {
        Ok(auth::Outcome::Authenticated(user)) => return Ok(user),
        // All get the same answer, so that nobody learns which users exist; a
        // stale nonce and a source that is slowed down are told apart by the host.
        Ok(
            auth::Outcome::None
            | auth::Outcome::Stale
            | auth::Outcome::Refused
            | auth::Outcome::Throttled,
        ) => {}
        Err(reason) => {
            error!("credentials cannot be checked: {reason}");
            return Err(Refusal::Broken);
        }
    }
    match realm.challenge() {
        Ok(()) => Err(Refusal::Challenge(realm.status())),
        Err(reason) => {
            error!("no challenge can be made: {reason}");
            Err(Refusal::Broken)
        }
    }
}

/// Whether a user part of the message belongs to the user that authenticated:
/// it is the same, or an alias of the same.
fn is_user(domain: &Domain, named: &str, user: &str) -> bool {
    canonical_user(named) == canonical_user(user)
        || matches!(domain.alias(named), Some(Alias::Registered(aor)) if *aor == domain.aor(user))
}
