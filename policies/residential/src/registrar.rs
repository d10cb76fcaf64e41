//! REGISTER: RFC 3261 section 10.3, the steps that are a decision. The binding
//! rules themselves (order, Call-ID and CSeq, `*`, intervals) are the host's.

use sipbox_guest::location::{SaveOutcome, save};
use sipbox_guest::{Request, Verdict, canonical_user, error};

use crate::identity::{Refusal, authenticate};
use crate::settings::{Auth, Domains};

/// The extensions that the registrar understands (RFC 3327).
pub(crate) const SUPPORTED: &str = "path";

pub(crate) fn register(domains: &Domains, request: &Request) -> Verdict {
    let Some(domain) = domains.by_host(request.request_uri().host()) else {
        return Verdict::reply(404).into();
    };
    if let Some(refusal) = unsupported(request) {
        return refusal;
    }
    let user = if domain.auth == Auth::Off {
        None
    } else {
        match authenticate(&domain.registrar) {
            Ok(user) => Some(user),
            Err(refusal) => return refusal.into(),
        }
    };
    let to = request.to();
    if !is_sip(to.uri()) {
        // Section 10.2: an address of record is a SIP or SIPS URI.
        return Verdict::reply(400)
            .reason("Bad Request: To is no SIP URI")
            .into();
    }
    // Step 4, before step 5 tells whether the address exists.
    let Some(name) = to.user() else {
        return Verdict::reply(404).into();
    };
    if user.is_some_and(|user| canonical_user(&user) != canonical_user(name)) {
        return Refusal::ForbiddenId.into();
    }
    // Step 5: the address of record belongs to the domain of the Request-URI.
    if domains
        .by_host(to.host())
        .is_none_or(|of_to| of_to.name != domain.name)
    {
        return Verdict::reply(404).into();
    }
    match save(&domain.aor(name), &domain.limits) {
        Ok(SaveOutcome::Saved(_) | SaveOutcome::Queried(_)) => Verdict::reply(200).into(),
        Ok(SaveOutcome::Refused(status)) => Verdict::reply(status).into(),
        Err(reason) => {
            error!("bindings cannot be saved: {reason}");
            Verdict::reply(500).into()
        }
    }
}

fn is_sip(uri: &str) -> bool {
    uri.split_once(':').is_some_and(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips")
    })
}

/// The refusal of a request to ourselves that requires extensions which we do not know
/// (RFC 3261 section 8.2.2.3).
pub(crate) fn unsupported(request: &Request) -> Option<Verdict> {
    let unknown: Vec<&str> = request
        .headers("Require")
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|option| !option.is_empty() && !option.eq_ignore_ascii_case(SUPPORTED))
        .collect();
    (!unknown.is_empty()).then(|| {
        Verdict::reply(420)
            .header("Unsupported", unknown.join(", "))
            .into()
    })
}
