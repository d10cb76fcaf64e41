//! Where an initial request goes: the target set (RFC 3261 section 16.5).

use std::borrow::Cow;

use sipbox_guest::dialogs::{self, CreateFlags};
use sipbox_guest::location::lookup;
use sipbox_guest::verdict::{Relay, registered, uri};
use sipbox_guest::{Preloaded, Request, RouteOutcome, Target, Verdict, error};

use crate::settings::{Alias, Domain, Domains, Forking, Mode, Path, UnknownUser};

/// What the Request-URI means.
pub(crate) enum Destination<'a> {
    /// A domain of ours without a user.
    Ourselves,
    /// A user of a domain of ours.
    User(&'a Domain, Cow<'a, str>),
    /// Somewhere else.
    Foreign,
}

impl<'a> Destination<'a> {
    pub(crate) fn of(
        request: &'a Request,
        domains: &'a Domains,
        caller: Option<&'a Domain>,
    ) -> Self {
        let target = request.request_uri();
        if target.scheme().eq_ignore_ascii_case("tel") {
            // A number has no domain (RFC 3966): it is one of the caller's.
            return match (caller, target.user()) {
                (Some(domain), Some(number)) => Self::User(domain, digits(number)),
                _ => Self::Foreign,
            };
        }
        match (domains.by_host(target.host()), target.user()) {
            (None, _) => Self::Foreign,
            (Some(_), None | Some("")) => Self::Ourselves,
            (Some(domain), Some(user)) => Self::User(domain, Cow::Borrowed(user)),
        }
    }
}

/// A telephone number without visual separators (RFC 3966 section 5.1.1).
fn digits(number: &str) -> Cow<'_, str> {
    let separator = |letter: char| "-.()".contains(letter);
    if number.contains(separator) {
        Cow::Owned(
            number
                .chars()
                .filter(|letter| !separator(*letter))
                .collect(),
        )
    } else {
        Cow::Borrowed(number)
    }
}

/// Relays to the Request-URI, or along the route that the sender chose.
pub(crate) fn foreign(request: &Request, path: &Path) -> Verdict {
    let relay = match request.route_outcome() {
        RouteOutcome::Preloaded => Verdict::relay().preloaded(Preloaded::Follow),
        _ => Verdict::relay(),
    };
    on_path(relay, request, path)
}

/// Sends a request to a user of ours, or says why it cannot.
pub(crate) fn user(request: &Request, domain: &Domain, name: &str, path: &Path) -> Verdict {
    let aor = match domain.alias(name) {
        Some(Alias::Registered(aor)) => aor.clone(),
        Some(Alias::Uri(elsewhere)) => {
            let target = uri(elsewhere.clone());
            return match domain.mode {
                Mode::Proxy => on_path(Verdict::relay().to(target), request, path),
                Mode::Redirect => Verdict::redirect([target]),
            };
        }
        None => domain.aor(name),
    };
    // The host finds the bindings of a registered target by itself, after the
    // verdict; we look only where the decision depends on them.
    let blind = domain.mode == Mode::Proxy
        && domain.forking == Forking::Parallel
        && domain.unknown_user == UnknownUser::Unavailable;
    if blind {
        return on_path(Verdict::relay().to(registered(aor)), request, path);
    }
    let bindings = match lookup(&aor) {
        Ok(bindings) => bindings,
        Err(reason) => {
            error!("bindings cannot be read: {reason}");
            return Verdict::reply(500).into();
        }
    };
    if bindings.is_empty() {
        return match domain.unknown_user {
            UnknownUser::NotFound => Verdict::reply(404).into(),
            UnknownUser::Unavailable => Verdict::reply(480).into(),
        };
    }
    if domain.mode == Mode::Redirect {
        return Verdict::redirect(bindings.into_iter().map(Target::from));
    }
    let relay = match domain.forking {
        Forking::Parallel => Verdict::relay().to(registered(aor)),
        Forking::Serial => Verdict::relay()
            .by_preference(bindings.into_iter().map(Target::from))
            .ring_timeout(domain.ring_timeout),
    };
    on_path(relay, request, path)
}

/// Asks for Record-Route where a dialog may follow (RFC 3261 section 12.1,
/// RFC 6665 section 4.1, RFC 3515 section 2.4.4), and for the host to follow calls.
fn on_path(relay: Relay, request: &Request, path: &Path) -> Verdict {
    let method = request.method();
    if !path.record_route || !matches!(method, "INVITE" | "SUBSCRIBE" | "REFER") {
        return relay.into();
    }
    if path.dialogs && method == "INVITE" && !request.has_created_dialog() {
        let timeout = path.timeout.as_deref().map(|seconds| ("timeout", seconds));
        if let Err(reason) = dialogs::create_with(CreateFlags::BYE_ON_TIMEOUT, timeout.as_slice()) {
            error!("the call cannot be followed: {reason}");
            return Verdict::reply(500).into();
        }
    }
    relay.record_route().into()
}
