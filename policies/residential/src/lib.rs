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

use sipbox_guest::{
    Policy, ReplyVerdict, Request, Response, RouteOutcome, RouteSignature, Verdict,
};

pub use settings::{
    Auth, DigestAlgorithm, DomainSettings, Forking, Mode, RelayFor, Settings, UnknownUser,
    UntrustedRoute, UriCheck,
};

use destination::Destination;
use identity::Refusal;
use settings::{Checked, Domain};
use sipbox_nat_rules::NatRules;

/// The policy.
#[derive(Debug)]
pub struct Residential {
    settings: Checked,
}

impl Policy for Residential {
    type Settings = Settings;

    const VARIABLES: &'static [&'static str] = NatRules::VARIABLES;

    fn configure(settings: Settings) -> Result<Self, String> {
        Ok(Self {
            settings: settings.check()?,
        })
    }

    fn on_request(&self, request: &Request) -> Verdict {
        if let Some(nat) = &self.settings.nat {
            nat.on_request(request);
        }
        let method = request.method();
        if request.in_dialog() && method != "REGISTER" {
            return self.in_dialog(request);
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
        if method == "INVITE"
            && let Some(domain) = caller
            && let Some(refusal) = identity::counted(request, domain)
        {
            return refusal;
        }
        match destination {
            Destination::Ourselves => Verdict::reply(484).into(),
            Destination::Foreign => {
                let path = caller.map_or(&self.settings.path, |domain| &domain.path);
                destination::foreign(request, path)
            }
            Destination::User(domain, user) => {
                // Whoever is counted is followed, whomever he calls.
                let counts = caller.filter(|caller| caller.calls > 0);
                let path = &counts.unwrap_or(domain).path;
                destination::user(request, domain, &user, path)
            }
        }
    }

    fn on_reply(&self, response: &Response) -> ReplyVerdict {
        if let Some(nat) = &self.settings.nat {
            nat.on_reply(response);
        }
        ReplyVerdict::Forward
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

    /// Requests inside a dialog follow the route set that the dialog was made with. A To
    /// tag alone is no dialog: whoever writes one could have us send anything anywhere.
    fn in_dialog(&self, request: &Request) -> Verdict {
        let forged = request.route_signature() == RouteSignature::Invalid;
        let followed = forged && self.settings.forged_route == UntrustedRoute::Follow;
        let refusal = Verdict::astray(request).or_else(|| self.unproven(request));
        refusal
            .filter(|_| !(followed && is_loose(request)))
            .unwrap_or_else(|| Verdict::relay().into())
    }

    /// Our route proves that a dialog was here, not that it lives, nor where its requests
    /// go: by that of an old one, what can begin something new could go to anybody. If the
    /// host does not know the dialog, the sender is asked as at the first.
    fn unproven(&self, request: &Request) -> Option<Verdict> {
        let begins = matches!(
            request.method(),
            "INVITE" | "MESSAGE" | "REFER" | "SUBSCRIBE" | "PUBLISH" | "OPTIONS"
        );
        if !begins || request.has_known_dialog() {
            return None;
        }
        match self.settings.domains.by_host(request.from().host()) {
            Some(domain) => identity::confirm(request, domain, true)
                .err()
                .map(Verdict::from),
            None if request.route_signature() == RouteSignature::Expired => {
                Some(Verdict::reply(403).reason("Expired Route denied").into())
            }
            None => None,
        }
    }
}

fn is_loose(request: &Request) -> bool {
    matches!(
        request.route_outcome(),
        RouteOutcome::Loose | RouteOutcome::Strict
    )
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

sipbox_guest::export!(Residential, hooks = [request, reply]);
