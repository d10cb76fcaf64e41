//! The settings as the operator writes them, and what is worked out of them beforehand.

use std::cmp::Reverse;
use std::net::IpAddr;

use serde::Deserialize;
use sipbox_guest::auth::{Algorithm, Realm};
use sipbox_guest::settings::{NextHop, is_host};
use sipbox_guest::{Request, Source};

use crate::source::{Network, SourceSettings};

/// What becomes of a request that nothing is written about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Otherwise {
    /// It is refused.
    #[default]
    Refuse,
    /// The next policy decides.
    Next,
}

/// A digest algorithm by its name in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DigestAlgorithm {
    /// MD5
    Md5,
    /// SHA-256
    #[serde(alias = "sha-256")]
    Sha256,
}

/// The settings; see the README.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    trunks: Vec<TrunkSettings>,
    #[serde(default)]
    gateways: Vec<GatewaySettings>,
    #[serde(default)]
    routes: Vec<RouteSettings>,
    realm: Option<String>,
    #[serde(default = "proxy")]
    challenge: u16,
    #[serde(default = "md5")]
    algorithms: Vec<DigestAlgorithm>,
    #[serde(default)]
    unknown_source: Otherwise,
    #[serde(default)]
    no_route: Otherwise,
    #[serde(default = "busy")]
    status: u16,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    ring_timeout: u32,
    #[serde(default = "four_seconds")]
    fr_timeout: u32,
    #[serde(default = "six_hours")]
    timeout: u32,
    #[serde(default)]
    ping: u32,
    #[serde(default)]
    validate: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrunkSettings {
    name: String,
    #[serde(default)]
    sources: Vec<SourceSettings>,
    account: Option<String>,
    max_calls: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewaySettings {
    name: String,
    uri: String,
    max_calls: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteSettings {
    #[serde(default)]
    prefix: String,
    domain: Option<String>,
    #[serde(default)]
    trunks: Vec<String>,
    gateways: Vec<String>,
    #[serde(default)]
    strip: usize,
    #[serde(default)]
    add: String,
}

fn proxy() -> u16 {
    407
}

fn md5() -> Vec<DigestAlgorithm> {
    vec![DigestAlgorithm::Md5]
}

fn busy() -> u16 {
    486
}

fn six_hours() -> u32 {
    21_600
}

/// Who calls come from.
#[derive(Debug)]
pub(crate) struct Trunk {
    pub(crate) name: String,
    pub(crate) sources: Vec<Network>,
    pub(crate) account: Option<String>,
    pub(crate) max_calls: Option<u32>,
}

/// Where calls go.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) name: String,
    pub(crate) hop: NextHop,
    pub(crate) max_calls: Option<u32>,
}

/// Which calls go where.
#[derive(Debug)]
pub(crate) struct Route {
    prefix: String,
    domain: Option<String>,
    /// Positions of those that it is for; empty: all.
    trunks: Vec<usize>,
    /// Positions, the first that is tried first.
    pub(crate) gateways: Vec<usize>,
    strip: usize,
    add: String,
}

impl Route {
    fn has(&self, trunk: usize, user: &str, host: &str) -> bool {
        let same = |domain: &String| domain.eq_ignore_ascii_case(host);
        user.starts_with(&self.prefix)
            && self.domain.as_ref().is_none_or(same)
            && (self.trunks.is_empty() || self.trunks.contains(&trunk))
    }

    /// The user that the gateway gets to see.
    pub(crate) fn dialled(&self, user: &str) -> String {
        let from = user
            .char_indices()
            .nth(self.strip)
            .map_or(user.len(), |(at, _)| at);
        let rest = user.get(from..).unwrap_or_default();
        [&self.add, rest].concat()
    }
}

fn four_seconds() -> u32 {
    4
}

fn milliseconds(name: &str, seconds: u32) -> Result<u32, String> {
    let milliseconds = seconds.checked_mul(1000);
    milliseconds.ok_or_else(|| format!("`{name}` {seconds} is too long"))
}

/// The settings, ready for use.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) trunks: Vec<Trunk>,
    pub(crate) gateways: Vec<Gateway>,
    /// The most exact first.
    pub(crate) routes: Vec<Route>,
    /// Who asks for credentials; `None`: nobody does.
    pub(crate) realm: Option<Realm>,
    pub(crate) unknown_source: Otherwise,
    pub(crate) no_route: Otherwise,
    pub(crate) status: u16,
    pub(crate) reason: String,
    /// Milliseconds.
    pub(crate) ring_timeout: u32,
    /// Milliseconds.
    pub(crate) fr_timeout: u32,
    /// Seconds, as the host's options have them.
    pub(crate) timeout: String,
    pub(crate) ping: Option<String>,
    pub(crate) validate: bool,
}

impl Checked {
    /// The trunk that the source is one of. The one that is written first counts.
    pub(crate) fn by_source(&self, source: &Source<'_>) -> Option<usize> {
        let address = source.address.parse::<IpAddr>().ok()?.to_canonical();
        self.trunks
            .iter()
            .position(|trunk| trunk.sources.iter().any(|one| one.has(address, source)))
    }

    /// The trunk that has this account and may call from anywhere.
    pub(crate) fn by_account(&self, user: &str) -> Option<usize> {
        self.trunks
            .iter()
            .position(|trunk| trunk.sources.is_empty() && trunk.account.as_deref() == Some(user))
    }

    /// Whether a trunk may call from anywhere, with credentials.
    pub(crate) fn any_by_account(&self) -> bool {
        self.trunks.iter().any(|trunk| trunk.sources.is_empty())
    }

    /// The route that a request of a trunk takes.
    pub(crate) fn route(&self, trunk: usize, request: &Request) -> Option<usize> {
        let to = request.request_uri();
        let (user, host) = (to.user().unwrap_or_default(), to.host());
        self.routes
            .iter()
            .position(|route| route.has(trunk, user, host))
    }
}

impl Settings {
    pub(crate) fn check(self) -> Result<Checked, String> {
        if self.trunks.is_empty() {
            return Err("`trunks` names none: nobody could call".into());
        }
        if !(400..700).contains(&self.status) {
            return Err(format!("`status` is {}: 400 to 699", self.status));
        }
        if self.timeout == 0 {
            return Err("`timeout` is 0: every call would end at once".into());
        }
        let ring_timeout = milliseconds("ring_timeout", self.ring_timeout)?;
        let fr_timeout = milliseconds("fr_timeout", self.fr_timeout)?;
        unique("trunk", self.trunks.iter().map(|trunk| &trunk.name))?;
        unique("gateway", self.gateways.iter().map(|gateway| &gateway.name))?;
        let names: Vec<&str> = self.trunks.iter().map(|t| t.name.as_str()).collect();
        let trunks = self
            .trunks
            .iter()
            .map(|trunk| {
                self.trunk(trunk)
                    .map_err(|reason| format!("trunk `{}`: {reason}", trunk.name))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let realm = self.realm()?;
        let hops: Vec<&str> = self.gateways.iter().map(|g| g.name.as_str()).collect();
        let gateways = self
            .gateways
            .iter()
            .map(|settings| {
                gateway(settings).map_err(|reason| format!("gateway `{}`: {reason}", settings.name))
            })
            .collect::<Result<_, _>>()?;
        let mut routes = Vec::with_capacity(self.routes.len());
        for (number, settings) in self.routes.iter().enumerate() {
            let route = route(settings, &names, &hops)
                .map_err(|reason| format!("route {}: {reason}", number + 1))?;
            routes.push(route);
        }
        // The sort is stable: of equal ones the first that is written counts.
        routes.sort_by_key(|route: &Route| {
            Reverse((
                route.prefix.len(),
                route.domain.is_some(),
                !route.trunks.is_empty(),
            ))
        });
        Ok(Checked {
            trunks,
            gateways,
            routes,
            realm,
            unknown_source: self.unknown_source,
            no_route: self.no_route,
            status: self.status,
            reason: self.reason,
            ring_timeout,
            fr_timeout,
            timeout: self.timeout.to_string(),
            ping: (self.ping > 0).then(|| self.ping.to_string()),
            validate: self.validate,
        })
    }

    fn realm(&self) -> Result<Option<Realm>, String> {
        let asked = self.trunks.iter().find(|trunk| trunk.account.is_some());
        let realm = match (asked, &self.realm) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err("`realm` without a trunk that has an `account`".into()),
            (Some(trunk), None) => {
                return Err(format!(
                    "trunk `{}` has an `account`, so `realm` has to say of which realm",
                    trunk.name
                ));
            }
            (Some(_), Some(realm)) => realm,
        };
        if self.algorithms.is_empty() {
            return Err("`algorithms` is empty".into());
        }
        let algorithms: Vec<Algorithm> = self
            .algorithms
            .iter()
            .map(|algorithm| match algorithm {
                DigestAlgorithm::Md5 => Algorithm::Md5,
                DigestAlgorithm::Sha256 => Algorithm::Sha256,
            })
            .collect();
        let realm = match self.challenge {
            401 => Realm::registrar(realm),
            407 => Realm::proxy(realm),
            other => return Err(format!("`challenge` is {other}: 401 or 407")),
        };
        Ok(Some(realm.algorithms(algorithms)))
    }

    fn trunk(&self, trunk: &TrunkSettings) -> Result<Trunk, String> {
        limit(trunk.max_calls)?;
        if trunk.sources.is_empty() && trunk.account.is_none() {
            return Err("has neither `sources` nor an `account`".into());
        }
        let shares = |other: &&TrunkSettings| {
            other.name != trunk.name
                && trunk.account.is_some()
                && other.account == trunk.account
                && other.sources.is_empty()
                && trunk.sources.is_empty()
        };
        if let Some(other) = self.trunks.iter().find(shares) {
            return Err(format!("has the `account` of trunk `{}`", other.name));
        }
        let sources = trunk.sources.iter().map(SourceSettings::check);
        Ok(Trunk {
            name: trunk.name.clone(),
            sources: sources.collect::<Result<_, _>>()?,
            account: trunk.account.clone(),
            max_calls: trunk.max_calls,
        })
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut known: Vec<&str> = Vec::new();
    for name in names {
        let fits = !name.is_empty() && name.len() <= 128 && !name.starts_with(':');
        if !fits || name.chars().any(char::is_control) {
            return Err(format!("{what} `{name}`: that is no name"));
        }
        if known.contains(&name.as_str()) {
            return Err(format!("{what} `{name}` is named twice"));
        }
        known.push(name);
    }
    Ok(())
}

fn limit(max_calls: Option<u32>) -> Result<(), String> {
    match max_calls {
        Some(0) => Err("`max_calls` is 0; leave it out for no limit".into()),
        _ => Ok(()),
    }
}

fn gateway(settings: &GatewaySettings) -> Result<Gateway, String> {
    limit(settings.max_calls)?;
    Ok(Gateway {
        name: settings.name.clone(),
        hop: NextHop::parse(&settings.uri)?,
        max_calls: settings.max_calls,
    })
}

fn route(settings: &RouteSettings, trunks: &[&str], gateways: &[&str]) -> Result<Route, String> {
    if settings.gateways.is_empty() {
        return Err("`gateways` names none".into());
    }
    if settings.gateways.len() > 32 {
        return Err("more than 32 `gateways`".into());
    }
    if let Some(domain) = &settings.domain
        && !is_host(domain)
    {
        return Err(format!("`domain`: `{domain}` is no host"));
    }
    let user = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/%".contains(&b))
    };
    for (key, text) in [("prefix", &settings.prefix), ("add", &settings.add)] {
        if !user(text) {
            return Err(format!("`{key}`: `{text}` begins no user"));
        }
    }
    Ok(Route {
        prefix: settings.prefix.clone(),
        domain: settings.domain.clone(),
        trunks: positions("trunk", &settings.trunks, trunks)?,
        gateways: positions("gateway", &settings.gateways, gateways)?,
        strip: settings.strip,
        add: settings.add.clone(),
    })
}

fn positions(what: &str, names: &[String], all: &[&str]) -> Result<Vec<usize>, String> {
    let position = |name: &String| {
        let found = all.iter().position(|known| known == name);
        found.ok_or_else(|| format!("there is no {what} `{name}`"))
    };
    names.iter().map(position).collect()
}
