//! Trunking: who sends calls is known by address, by digest or by both; each trunk has so many
//! calls at a time; and calls go by prefix and domain to a list of gateways, of which the next
//! one is tried where one fails.

mod settings;
mod source;

use sipbox_guest::auth::Outcome as Proof;
use sipbox_guest::dialogs::{self, CreateFlags, Validity};
use sipbox_guest::leases::{self, Outcome};
use sipbox_guest::verdict::uri;
use sipbox_guest::{Error, Failure, Hooks, Policy, Request, Verdict, error, export, warn};

pub use settings::{DigestAlgorithm, Otherwise, Settings};
pub use source::SourceSettings;

use settings::{Checked, Route};

/// The scope of the leases of trunks.
const TRUNKS: &str = "trunk";
/// The scope of the leases of gateways.
const GATEWAYS: &str = "gateway";
/// The name of the trunk that the call comes from, for other policies.
const TRUNK: &str = "trunking.trunk";
/// The name of the gateway that has the call, for other policies.
const GATEWAY: &str = "trunking.gateway";
/// What the failure hook has to know.
const STATE: &str = "trunking.state";

/// The policy.
pub struct Trunking {
    settings: Checked,
}

/// Whom a request comes from.
enum Sender {
    /// The trunk at this position.
    Trunk(usize),
    /// Nobody that we know.
    Unknown,
    /// It has to prove it, or could not.
    Refused(Verdict),
}

/// What the failure hook has to know.
struct State {
    /// That of the gateway that has the call.
    lease: Option<u32>,
    route: usize,
    /// How many gateways of the route are behind us.
    passed: usize,
}

impl State {
    /// `lease;route;passed`, where `-` is no lease.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        let lease = parts.next()?.parse().ok();
        let mut number = || parts.next()?.parse().ok();
        Some(Self {
            lease,
            route: number()?,
            passed: number()?,
        })
    }

    fn write(&self) -> String {
        let lease = self.lease.map_or("-".to_owned(), |lease| lease.to_string());
        format!("{lease};{};{}", self.route, self.passed)
    }
}

impl Policy for Trunking {
    type Settings = Settings;

    const VARIABLES: &'static [&'static str] = &[TRUNK, GATEWAY];

    fn configure(settings: Settings) -> Result<Self, String> {
        Ok(Self {
            settings: settings.check()?,
        })
    }

    fn on_request(&self, request: &Request) -> Verdict {
        let verdict = if request.in_dialog() {
            self.in_dialog(request)
        } else {
            self.initial(request)
        };
        verdict.unwrap_or_else(|reason| broken(&reason))
    }

    fn on_failure(&self, request: &Request, failure: &Failure) -> Verdict {
        let status = failure
            .failed
            .last()
            .map_or(failure.status, |target| target.status);
        // What the called side says (404, 486, 6xx and the rest) it would say behind each
        // gateway; one that says nothing, cannot be reached or failed is passed over.
        let out_of_order = status == 408 || (500..600).contains(&status);
        if failure.cancelled || !out_of_order {
            return Verdict::Next;
        }
        self.go_on(request, status)
            .unwrap_or_else(|reason| broken(&reason))
    }
}

fn broken(reason: &Error) -> Verdict {
    error!("calls cannot be routed: {reason:?}");
    Verdict::reply(500).into()
}

impl Trunking {
    fn in_dialog(&self, request: &Request) -> Result<Verdict, Error> {
        if let Some(refused) = Verdict::astray(request) {
            return Ok(refused);
        }
        // Subscriptions are no calls, so nobody keeps them.
        let call = !matches!(request.method(), "SUBSCRIBE" | "NOTIFY");
        if !(self.settings.validate && call) {
            return Ok(Verdict::Next);
        }
        let refused = if dialogs::current().is_none() {
            Verdict::reply(481)
        } else {
            match dialogs::validate()? {
                Validity::Valid => return Ok(Verdict::Next),
                // RFC 3261 section 12.2.2
                Validity::Cseq => Verdict::reply(500).reason("Out Of Order"),
                _ => Verdict::reply(403).reason("Not Of This Dialog"),
            }
        };
        Ok(match request.method() {
            "ACK" => Verdict::Drop,
            _ => refused.into(),
        })
    }

    fn initial(&self, request: &Request) -> Result<Verdict, Error> {
        let method = request.method();
        match method {
            "ACK" => return Ok(Verdict::Drop),
            // Its INVITE left no transaction, so there is nothing to cancel.
            "CANCEL" => return Ok(Verdict::reply(481).into()),
            "REGISTER" => return Ok(Verdict::Next),
            _ => {}
        }
        let at = match self.sender(request)? {
            Sender::Trunk(at) => at,
            Sender::Refused(verdict) => return Ok(verdict),
            Sender::Unknown if self.settings.unknown_source == Otherwise::Next => {
                return Ok(Verdict::Next);
            }
            Sender::Unknown => {
                warn!("{} is no trunk", request.source().address);
                return Ok(Verdict::reply(403).reason("Unknown Source").into());
            }
        };
        let Some(trunk) = self.settings.trunks.get(at) else {
            return Ok(Verdict::Next);
        };
        request.set_var(TRUNK, &trunk.name)?;
        if method == "OPTIONS" && request.request_uri().user().is_none() {
            // How a trunk finds out that we are there.
            return Ok(Verdict::reply(200).into());
        }
        let found = self.settings.route(at, request);
        let route = found.and_then(|at| Some((at, self.settings.routes.get(at)?)));
        let Some((number, route)) = route else {
            return Ok(match self.settings.no_route {
                Otherwise::Next => Verdict::Next,
                Otherwise::Refuse => Verdict::reply(404).reason("No Route").into(),
            });
        };
        if method == "INVITE" {
            // A limit counts until the call ends; and only a dialog that the host knows tells
            // later requests of a call from those of somebody who had one.
            self.follow()?;
            if let Some(limit) = trunk.max_calls
                && let Outcome::Full(_) = leases::acquire(TRUNKS, &trunk.name, limit)?
            {
                warn!("trunk {} has as many calls as it may have", trunk.name);
                let reply = Verdict::reply(self.settings.status);
                return Ok(match self.settings.reason.as_str() {
                    "" => reply.into(),
                    reason => reply.reason(reason).into(),
                });
            }
        }
        let state = State {
            lease: None,
            route: number,
            passed: 0,
        };
        let sent = self.send(request, route, state)?;
        Ok(sent.unwrap_or_else(|| {
            warn!("all gateways have as many calls as they may have");
            Verdict::reply(503).reason("All Gateways Full").into()
        }))
    }

    /// Whom the request comes from: its source decides, and where that is no trunk's, or one
    /// that has an account as well, credentials.
    fn sender(&self, request: &Request) -> Result<Sender, Error> {
        let settings = &self.settings;
        let by_source = settings.by_source(&request.source());
        let account = match by_source.and_then(|at| Some((at, settings.trunks.get(at)?))) {
            Some((at, trunk)) => match &trunk.account {
                None => return Ok(Sender::Trunk(at)),
                Some(account) => Some((at, account.as_str())),
            },
            None if settings.any_by_account() => None,
            None => return Ok(Sender::Unknown),
        };
        let Some(realm) = &settings.realm else {
            return Ok(Sender::Unknown);
        };
        let Proof::Authenticated(user) = realm.check()? else {
            // All get the same answer, so that nobody learns which accounts exist.
            if account.is_none()
                && settings.unknown_source == Otherwise::Next
                && !brings_credentials(request, realm.status())
            {
                // It may be for the policies behind to ask.
                return Ok(Sender::Unknown);
            }
            realm.challenge()?;
            return Ok(Sender::Refused(Verdict::reply(realm.status()).into()));
        };
        let known = match account {
            Some((at, account)) => (account == user).then_some(at),
            None => settings.by_account(&user),
        };
        Ok(match known {
            Some(at) => Sender::Trunk(at),
            None if account.is_none() && settings.unknown_source == Otherwise::Next => {
                Sender::Unknown
            }
            None => Sender::Refused(Verdict::reply(403).reason("Not Of This Trunk").into()),
        })
    }

    /// Has the host keep a dialog, to whose end the leases last.
    fn follow(&self) -> Result<(), Error> {
        let mut flags = CreateFlags::BYE_ON_TIMEOUT;
        let mut options = vec![("timeout", self.settings.timeout.as_str())];
        if let Some(ping) = &self.settings.ping {
            flags |= CreateFlags::OPTIONS_PING_CALLER | CreateFlags::OPTIONS_PING_CALLEE;
            options.push(("options-ping-interval", ping));
        }
        dialogs::create_with(flags, &options)?;
        Ok(())
    }

    fn go_on(&self, request: &Request, status: u16) -> Result<Verdict, Error> {
        let Some(mut state) = request.var(STATE).and_then(|text| State::read(&text)) else {
            return Ok(Verdict::Next);
        };
        let Some(route) = self.settings.routes.get(state.route) else {
            return Ok(Verdict::Next);
        };
        warn!(
            "gateway {} failed with {status}",
            request.var(GATEWAY).unwrap_or_default()
        );
        if let Some(lease) = state.lease.take() {
            leases::release(lease)?;
        }
        let sent = self.send(request, route, state)?;
        Ok(sent.unwrap_or_else(|| Verdict::reply(503).reason("No Gateway Left").into()))
    }

    /// Relays to the next gateway of the route that has room.
    fn send(
        &self,
        request: &Request,
        route: &Route,
        mut state: State,
    ) -> Result<Option<Verdict>, Error> {
        let invite = request.method() == "INVITE";
        while let Some(at) = route.gateways.get(state.passed) {
            state.passed += 1;
            let Some(gateway) = self.settings.gateways.get(*at) else {
                continue;
            };
            if let Some(limit) = gateway.max_calls.filter(|_| invite) {
                match leases::acquire(GATEWAYS, &gateway.name, limit)? {
                    Outcome::Granted(lease) => state.lease = Some(lease),
                    Outcome::Full(_) => continue,
                }
            }
            request.set_var(GATEWAY, &gateway.name)?;
            request.set_var(STATE, &state.write())?;
            request.arm(Hooks::FAILURE)?;
            let user = request.request_uri().user();
            let user = user.map(|user| route.dialled(user));
            let user = user.as_deref().filter(|user| !user.is_empty());
            let mut relay = Verdict::relay()
                .to(uri(gateway.hop.with_user(user)))
                .fr_timeout(self.settings.fr_timeout)
                .ring_timeout(self.settings.ring_timeout);
            if matches!(request.method(), "INVITE" | "SUBSCRIBE" | "REFER") {
                relay = relay.record_route();
            }
            return Ok(Some(relay.into()));
        }
        Ok(None)
    }
}

/// Whether a request tries to prove anything.
fn brings_credentials(request: &Request, status: u16) -> bool {
    let name = if status == 407 {
        "Proxy-Authorization"
    } else {
        "Authorization"
    };
    request.header(name).is_some()
}

export!(Trunking, hooks = [request, failure]);
