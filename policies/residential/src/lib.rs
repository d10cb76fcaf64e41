//! Residential policy: registrar, proxy and redirect server for the domains of a tenant.
//!
//! The order of the rules is here; each step lives in a module of its own. What
//! RFC 3261 demands whatever a policy says (Via, Max-Forwards, CANCEL, ACK to a
//! failure, retransmissions, removal of our credentials) is the host's. A CANCEL comes
//! here only if its INVITE left no transaction: then it goes the way of the INVITE.

mod destination;
mod identity;
mod registrar;
mod settings;

use sipbox_guest::{Policy, Request, RouteOutcome, RouteSignature, Verdict};

pub use settings::{
    Auth, DigestAlgorithm, DomainSettings, Forking, Mode, RelayFor, Settings, UnknownUser,
    UntrustedRoute, UriCheck,
};

use destination::Destination;
use identity::Refusal;
use settings::{Checked, Domain};

/// The policy.
#[derive(Debug)]
pub struct Residential {
    settings: Checked,
}

impl Policy for Residential {
    type Settings = Settings;

    fn configure(settings: Settings) -> Result<Self, String> {
        Ok(Self {
            settings: settings.check()?,
        })
    }

    fn on_request(&self, request: &Request) -> Verdict {
        let method = request.method();
        if request.in_dialog() && method != "REGISTER" {
            return in_dialog(request, self.settings.forged_route);
        }
        if method == "ACK" {
            // An ACK that belongs to a failure of ours was absorbed before. This
            // one has no dialog either, and an ACK is never answered.
            return Verdict::Drop;
        }
        let preloaded = request.route_outcome() == RouteOutcome::Preloaded;
        if preloaded && self.settings.preloaded_route == UntrustedRoute::Deny {
            return Verdict::reply(403).reason("Preload Route denied").into();
        }
        if method == "REGISTER" && !preloaded {
            return registrar::register(&self.settings.domains, request);
        }

        let caller = self.settings.domains.by_host(request.from().host());
        let destination = if preloaded {
            Destination::Foreign
        } else {
            Destination::of(request, &self.settings.domains, caller)
        };
        if method == "OPTIONS" && matches!(destination, Destination::Ourselves) {
            return registrar::unsupported(request).unwrap_or_else(options);
        }
        if let Err(refusal) = self.may_send(request, caller, &destination) {
            return refusal.into();
        }
        match destination {
            Destination::Ourselves => Verdict::reply(484).into(),
            Destination::Foreign => {
                let record =
                    caller.map_or(self.settings.record_route, |domain| domain.record_route);
                destination::foreign(request, record)
            }
            Destination::User(domain, user) => destination::user(request, domain, &user),
        }
    }
}

impl Residential {
    /// Whether this request may go where it wants to; else why not.
    fn may_send(
        &self,
        request: &Request,
        caller: Option<&Domain>,
        destination: &Destination<'_>,
    ) -> Result<(), Refusal> {
        let foreign = matches!(destination, Destination::Foreign);
        match caller {
            Some(domain) => identity::confirm(request, domain, foreign),
            None if foreign && self.settings.relay == RelayFor::OwnUsers => {
                Err(Refusal::RelayForbidden)
            }
            None => Ok(()),
        }
    }
}

/// Requests inside a dialog follow the route set that the dialog was made with.
/// A To tag alone is no dialog: whoever writes one could have us send anything anywhere.
fn in_dialog(request: &Request, forged: UntrustedRoute) -> Verdict {
    let ours = matches!(
        request.route_outcome(),
        RouteOutcome::Loose | RouteOutcome::Strict
    );
    let forged =
        forged == UntrustedRoute::Deny && request.route_signature() == RouteSignature::Invalid;
    match (ours, forged) {
        (true, false) => Verdict::relay().into(),
        _ if request.method() == "ACK" => Verdict::Drop,
        (true, true) => Verdict::reply(403).reason("Forged Route denied").into(),
        (false, _) => Verdict::reply(404).reason("Not Here").into(),
    }
}

/// The answer to an OPTIONS that is meant for us (RFC 3261 section 11.2).
fn options() -> Verdict {
    Verdict::reply(200)
        .header(
            "Allow",
            "INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, MESSAGE, SUBSCRIBE, NOTIFY, REFER, PRACK, UPDATE, INFO, PUBLISH",
        )
        .header("Accept", "*/*")
        .header("Accept-Encoding", "identity")
        .header("Accept-Language", "en")
        .header("Supported", registrar::SUPPORTED)
        .into()
}

sipbox_guest::export!(Residential, hooks = [request]);
