//! The settings as the operator writes them, and the domains made of them.
//!
//! Everything that can be worked out or refused beforehand is: a hook call only
//! looks things up.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Deserialize;
use sipbox_guest::auth::{Algorithm, Realm};
use sipbox_guest::location::SaveLimits;
use sipbox_guest::{aor, canonical_user};
use sipbox_nat_rules::NatRules;

/// Whose credentials are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// Nobody's: the From header field is believed.
    Off,
    /// Those of REGISTER, and of requests that leave for foreign destinations.
    Register,
    /// Those of every request that a user of the domain sends.
    All,
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

/// How several bindings of a user are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forking {
    /// All at once.
    Parallel,
    /// By q; those of equal q at once.
    Serial,
}

/// What a request for a user of the domain gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It is forwarded.
    Proxy,
    /// 302 with the user's contacts.
    Redirect,
}

/// Who may reach foreign destinations through us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelayFor {
    /// Users of the domain.
    OwnUsers,
    /// Everybody.
    Open,
}

/// How the `uri` of credentials is held against the Request-URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UriCheck {
    /// They are equal.
    Strict,
    /// They may differ, for senders behind something that rewrites.
    Loose,
}

/// What a user without bindings is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum UnknownUser {
    /// 404 Not Found
    #[serde(rename = "404")]
    NotFound,
    /// 480 Temporarily Unavailable
    #[serde(rename = "480")]
    Unavailable,
}

/// What becomes of a request whose Route is not what we wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UntrustedRoute {
    /// 403
    #[default]
    Deny,
    /// It is relayed along that route; an initial request under the rules for foreign
    /// destinations.
    Follow,
}

/// Defines a record of settings that also has every option of a domain, so that
/// a mistyped key is refused at both levels.
macro_rules! with_domain_options {
    ($(#[$meta:meta])* $name:ident { $($extra:tt)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($extra)*
            auth: Option<Auth>,
            algorithms: Option<Vec<DigestAlgorithm>>,
            uri_check: Option<UriCheck>,
            forking: Option<Forking>,
            mode: Option<Mode>,
            min_expires: Option<u32>,
            max_expires: Option<u32>,
            default_expires: Option<u32>,
            max_contacts: Option<u32>,
            relay: Option<RelayFor>,
            record_route: Option<bool>,
            unknown_user: Option<UnknownUser>,
            ring_timeout: Option<u32>,
            dialogs: Option<bool>,
            dialog_timeout: Option<u32>,
            calls: Option<u32>,
        }

        impl $name {
            fn options(&self, default: &Options) -> Options {
                Options {
                    auth: self.auth.unwrap_or(default.auth),
                    algorithms: self
                        .algorithms
                        .clone()
                        .unwrap_or_else(|| default.algorithms.clone()),
                    uri_check: self.uri_check.unwrap_or(default.uri_check),
                    forking: self.forking.unwrap_or(default.forking),
                    mode: self.mode.unwrap_or(default.mode),
                    min_expires: self.min_expires.unwrap_or(default.min_expires),
                    max_expires: self.max_expires.unwrap_or(default.max_expires),
                    default_expires: self.default_expires.unwrap_or(default.default_expires),
                    max_contacts: self.max_contacts.unwrap_or(default.max_contacts),
                    relay: self.relay.unwrap_or(default.relay),
                    record_route: self.record_route.unwrap_or(default.record_route),
                    unknown_user: self.unknown_user.unwrap_or(default.unknown_user),
                    ring_timeout: self.ring_timeout.unwrap_or(default.ring_timeout),
                    dialogs: self.dialogs.unwrap_or(default.dialogs),
                    dialog_timeout: self.dialog_timeout.unwrap_or(default.dialog_timeout),
                    calls: self.calls.unwrap_or(default.calls),
                }
            }
        }
    };
}

with_domain_options! {
    /// The settings: options that hold for all domains, and the domains.
    Settings {
        /// Domain name to what is particular to it.
        domains: BTreeMap<String, DomainSettings>,
        /// Initial requests whose Route names others.
        #[serde(default)]
        preloaded_route: UntrustedRoute,
        /// Requests of dialogs whose Route says what we did not write.
        #[serde(default)]
        forged_route: UntrustedRoute,
        /// What is done about address translation; by default nothing.
        nat: Option<sipbox_nat_rules::Settings>,
    }
}

with_domain_options! {
    /// One domain; an option that is not given is the one of [`Settings`].
    DomainSettings {
        /// Other host names and addresses that mean this domain.
        #[serde(default)]
        names: Vec<String>,
        /// User part to what it stands for: a user of the domain, `user@domain`, or a URI.
        #[serde(default)]
        aliases: BTreeMap<String, String>,
    }
}

/// The options of a domain, complete.
#[derive(Clone, Debug)]
struct Options {
    auth: Auth,
    algorithms: Vec<DigestAlgorithm>,
    uri_check: UriCheck,
    forking: Forking,
    mode: Mode,
    min_expires: u32,
    max_expires: u32,
    default_expires: u32,
    max_contacts: u32,
    relay: RelayFor,
    record_route: bool,
    unknown_user: UnknownUser,
    ring_timeout: u32,
    dialogs: bool,
    dialog_timeout: u32,
    calls: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            auth: Auth::All,
            algorithms: vec![DigestAlgorithm::Md5],
            uri_check: UriCheck::Strict,
            forking: Forking::Parallel,
            mode: Mode::Proxy,
            min_expires: 60,
            max_expires: 7200,
            default_expires: 3600,
            max_contacts: 10,
            relay: RelayFor::OwnUsers,
            record_route: true,
            unknown_user: UnknownUser::Unavailable,
            ring_timeout: 30,
            dialogs: true,
            dialog_timeout: 0,
            calls: 0,
        }
    }
}

/// What an alias stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Alias {
    /// An address of record of ours.
    Registered(String),
    /// A URI somewhere else.
    Uri(String),
}

/// A domain that we serve.
#[derive(Debug)]
pub(crate) struct Domain {
    /// Its name in lower case.
    pub(crate) name: String,
    pub(crate) auth: Auth,
    /// Who asks a REGISTER for credentials.
    pub(crate) registrar: Realm,
    /// Who asks other requests.
    pub(crate) proxy: Realm,
    pub(crate) forking: Forking,
    pub(crate) mode: Mode,
    pub(crate) limits: SaveLimits,
    pub(crate) relay: RelayFor,
    pub(crate) path: Path,
    pub(crate) unknown_user: UnknownUser,
    /// Milliseconds that one group may ring in serial forking.
    pub(crate) ring_timeout: u32,
    /// Calls that a user may make at a time; 0: any number.
    pub(crate) calls: u32,
    aliases: BTreeMap<String, Alias>,
}

impl Domain {
    /// What the user part stands for, if it is an alias.
    pub(crate) fn alias(&self, user: &str) -> Option<&Alias> {
        self.aliases.get(&*canonical_user(user))
    }

    /// The address of record of a user.
    pub(crate) fn aor(&self, user: &str) -> String {
        aor(user, &self.name)
    }
}

/// The domains of the tenant.
#[derive(Debug)]
pub(crate) struct Domains {
    domains: Vec<Domain>,
    /// Every host name that means a domain, in lower case and sorted, with its position.
    hosts: Vec<(String, usize)>,
}

impl Domains {
    /// The domain that a host name means.
    pub(crate) fn by_host(&self, host: &str) -> Option<&Domain> {
        let found = self
            .hosts
            .binary_search_by(|(name, _)| compare(name, host))
            .ok()?;
        self.domains.get(self.hosts.get(found)?.1)
    }
}

/// Orders a name in lower case against one in any case.
fn compare(lower: &str, any: &str) -> Ordering {
    if lower == any {
        return Ordering::Equal;
    }
    lower
        .bytes()
        .cmp(any.bytes().map(|byte| byte.to_ascii_lowercase()))
}

/// The settings, checked and ready for use.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) domains: Domains,
    pub(crate) preloaded_route: UntrustedRoute,
    pub(crate) forged_route: UntrustedRoute,
    /// Whether strangers may reach strangers through us.
    pub(crate) relay: RelayFor,
    /// What holds for calls between strangers.
    pub(crate) path: Path,
    pub(crate) nat: Option<NatRules>,
}

/// How far a dialog is ours.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path {
    /// We stay on the path of its requests.
    pub(crate) record_route: bool,
    /// The host follows a call from its INVITE to its BYE.
    pub(crate) dialogs: bool,
    /// Seconds that a call may last; `None`: as long as the host has it.
    pub(crate) timeout: Option<String>,
}

impl Options {
    fn path(&self) -> Path {
        Path {
            record_route: self.record_route,
            dialogs: self.dialogs && self.record_route,
            timeout: (self.dialog_timeout > 0).then(|| self.dialog_timeout.to_string()),
        }
    }
}

impl Settings {
    /// Checks the settings and prepares the domains.
    pub(crate) fn check(self) -> Result<Checked, String> {
        if self.domains.is_empty() {
            return Err("`domains` names no domain".into());
        }
        let defaults = self.options(&Options::default());
        let mut domains = Vec::with_capacity(self.domains.len());
        let mut hosts: Vec<(String, usize)> = Vec::new();
        for (position, (name, settings)) in self.domains.iter().enumerate() {
            for host in std::iter::once(name).chain(&settings.names) {
                let host = host_name(host)?;
                match hosts.binary_search_by(|(other, _)| other.cmp(&host)) {
                    Ok(_) => return Err(format!("`{host}` is named twice")),
                    Err(place) => hosts.insert(place, (host, position)),
                }
            }
        }
        let served: Vec<&str> = hosts.iter().map(|(host, _)| host.as_str()).collect();
        for (name, settings) in &self.domains {
            let options = settings.options(&defaults);
            domains.push(domain(name, settings, options, &served)?);
        }
        Ok(Checked {
            domains: Domains { domains, hosts },
            preloaded_route: self.preloaded_route,
            forged_route: self.forged_route,
            relay: defaults.relay,
            path: defaults.path(),
            nat: self
                .nat
                .map(sipbox_nat_rules::Settings::check)
                .transpose()?,
        })
    }
}

/// A host name of the settings, in lower case.
fn host_name(text: &str) -> Result<String, String> {
    let brackets = text.starts_with('[') && text.ends_with(']');
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || b"-._".contains(&byte)
            || (brackets && b"[]:".contains(&byte))
    };
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err(format!(
            "`{text}` is no host name; write it without scheme, user and port, an IPv6 address in brackets"
        ));
    }
    Ok(text.to_ascii_lowercase())
}

fn domain(
    name: &str,
    settings: &DomainSettings,
    options: Options,
    served: &[&str],
) -> Result<Domain, String> {
    let name = host_name(name)?;
    if options.algorithms.is_empty() {
        return Err(format!(
            "domain `{name}`: `algorithms` is empty; turn authentication off by `auth`"
        ));
    }
    if !(options.min_expires <= options.default_expires
        && options.default_expires <= options.max_expires)
    {
        return Err(format!(
            "domain `{name}`: `min_expires` {}, `default_expires` {}, `max_expires` {} are not in that order",
            options.min_expires, options.default_expires, options.max_expires
        ));
    }
    if options.calls > 0 && !options.path().dialogs {
        return Err(format!(
            "domain `{name}`: `calls` needs `dialogs` and `record_route`: a call counts until its BYE"
        ));
    }
    let Some(ring_timeout) = options.ring_timeout.checked_mul(1000) else {
        return Err(format!("domain `{name}`: `ring_timeout` is too long"));
    };
    let mut aliases = BTreeMap::new();
    for (user, meaning) in &settings.aliases {
        let meaning = alias(meaning, &name, served)
            .map_err(|reason| format!("domain `{name}`: alias `{user}`: {reason}"))?;
        aliases.insert(canonical_user(user).into_owned(), meaning);
    }
    let algorithms: Vec<Algorithm> = options
        .algorithms
        .iter()
        .map(|algorithm| match algorithm {
            DigestAlgorithm::Md5 => Algorithm::Md5,
            DigestAlgorithm::Sha256 => Algorithm::Sha256,
        })
        .collect();
    let realm = |realm: Realm| {
        let realm = realm.algorithms(algorithms.clone());
        match options.uri_check {
            UriCheck::Strict => realm,
            UriCheck::Loose => realm.loose_uri(),
        }
    };
    Ok(Domain {
        auth: options.auth,
        registrar: realm(Realm::registrar(&name)),
        proxy: realm(Realm::proxy(&name)),
        forking: options.forking,
        mode: options.mode,
        limits: SaveLimits {
            min_expires: options.min_expires,
            max_expires: options.max_expires,
            default_expires: options.default_expires,
            max_contacts: options.max_contacts,
            options: Vec::new(),
        },
        relay: options.relay,
        path: options.path(),
        unknown_user: options.unknown_user,
        ring_timeout,
        calls: options.calls,
        aliases,
        name,
    })
}

/// Reads `alice`, `alice@example.com` or `sip:alice@example.com`.
fn alias(text: &str, domain: &str, served: &[&str]) -> Result<Alias, String> {
    if text.is_empty()
        || text
            .bytes()
            .any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control())
    {
        return Err("stands for nothing that can be dialled".into());
    }
    if text.starts_with("sip:") || text.starts_with("sips:") || text.starts_with("tel:") {
        return Ok(Alias::Uri(text.to_owned()));
    }
    match text.rsplit_once('@') {
        None => Ok(Alias::Registered(aor(text, domain))),
        Some(("", _)) => Err("has no user part".into()),
        Some((user, host)) => {
            let host = host_name(host)?;
            Ok(if served.contains(&host.as_str()) {
                Alias::Registered(aor(user, &host))
            } else {
                Alias::Uri(format!("sip:{user}@{host}"))
            })
        }
    }
}
