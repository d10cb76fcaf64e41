//! What the operator decides about the RFC 3261 machinery, checked and worked out
//! once: listeners with the texts of their Via and Record-Route, tenants with
//! their domains, static routes, timers. One immutable snapshot; a transaction
//! keeps the one that it began with.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use sipbox_sip::{Host, Method, Transport, Uri};
use smallvec::SmallVec;

use crate::flow::{ListenerId, TenantId};

/// The timers of RFC 3261 section 17 and 16.6 that can be set; the others follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Estimate of the round trip; the first retransmission interval.
    pub t1: Duration,
    /// The longest interval of non-INVITE requests and of INVITE responses.
    pub t2: Duration,
    /// How long the network may keep a message.
    pub t4: Duration,
    /// Timer B: an INVITE without any response.
    pub b: Duration,
    /// Timer F: another request without a final response.
    pub f: Duration,
    /// Timer C: an INVITE that got a provisional response and nothing since.
    pub c: Duration,
    /// How long a policy chain may take before its request is answered 500.
    pub decide: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        let t1 = Duration::from_millis(500);
        Self {
            t1,
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            b: t1 * 64,
            f: t1 * 64,
            c: Duration::from_secs(185),
            decide: Duration::from_secs(30),
        }
    }
}

impl Timers {
    /// 64 T1: timers H, J, L and M, and the wait behind a CANCEL (9.1).
    #[must_use]
    pub fn t1_64(&self) -> Duration {
        self.t1 * 64
    }

    /// Timer D: how long responses to an INVITE are absorbed; at least 32 s over
    /// UDP (17.1.1.2), scaled down with T1 in tests.
    #[must_use]
    pub fn d(&self) -> Duration {
        self.t1 * 64
    }
}

/// A host with an optional port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// `None`: any port.
    pub port: Option<u16>,
}

/// Where a static route or the outbound proxy points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticHop {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// `None`: as RFC 3263 finds it.
    pub port: Option<u16>,
    /// `None`: as RFC 3263 finds it.
    pub transport: Option<Transport>,
}

/// One `[[route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// The domain of the next hop, whatever its case.
    pub domain: String,
    /// Where requests to it go.
    pub next_hop: StaticHop,
}

/// A listener, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Its name.
    pub name: String,
    /// Its transport.
    pub transport: Transport,
    /// The address that it is bound to, with the actual port.
    pub address: SocketAddr,
    /// Host and port for Via and Record-Route, where `address` will not do.
    pub advertised: Option<HostPort>,
    /// Who serves requests that no domain claims.
    pub tenant: Option<TenantId>,
    /// Methods that are handled without a transaction (RFC 3261 16.11).
    pub stateless: Vec<Method>,
}

/// A tenant, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSpec {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Its domains; no two tenants share one.
    pub domains: Vec<String>,
    /// Methods that are handled without a transaction (RFC 3261 16.11).
    pub stateless: Vec<Method>,
}

/// Everything that [`Settings::new`] checks.
#[derive(Clone, Debug)]
pub struct SettingsSpec {
    /// Timers.
    pub timers: Timers,
    /// Listeners; a [`ListenerId`] is a position here.
    pub listeners: Vec<ListenerSpec>,
    /// Tenants.
    pub tenants: Vec<TenantSpec>,
    /// Hosts that mean us in a Route, besides the listeners' own addresses.
    pub aliases: Vec<HostPort>,
    /// Static routes.
    pub routes: Vec<StaticRoute>,
    /// Where requests go whose next hop no static route names.
    pub outbound_proxy: Option<StaticHop>,
    /// Larger requests go over TCP if their next hop names no transport
    /// (RFC 3261 18.1.1); 0: never.
    pub mtu: usize,
    /// Max-Breadth of requests that name none (RFC 5393 5.3.3).
    pub max_breadth: u8,
    /// Option tags that Proxy-Require may name.
    pub supported: Vec<String>,
    /// Server header of our own responses; empty: none.
    pub server: String,
    /// 100 at once for every INVITE, instead of with the verdict to relay or the
    /// first wait. A stateless reply after a 100 breaks RFC 3261 8.2.7, so off is better.
    pub trying_at_once: bool,
}

impl Default for SettingsSpec {
    fn default() -> Self {
        Self {
            timers: Timers::default(),
            listeners: Vec::new(),
            tenants: Vec::new(),
            aliases: Vec::new(),
            routes: Vec::new(),
            outbound_proxy: None,
            mtu: 1300,
            max_breadth: 60,
            supported: Vec::new(),
            server: "Sipbox".into(),
            trying_at_once: false,
        }
    }
}

/// A listener with its texts.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// Its transport.
    pub transport: Transport,
    /// The address that it is bound to.
    pub address: SocketAddr,
    /// Who serves requests that no domain claims.
    pub tenant: Option<TenantId>,
    /// Methods that are handled without a transaction.
    pub stateless: Vec<Method>,
    /// `host:port` as in our Via.
    pub sent_by: String,
    /// `SIP/2.0/UDP host:port;branch=`
    pub via: String,
    /// `<sip:host:port;transport=tcp;lr`: parameters and the bracket are to follow.
    pub record_route: String,
    host: String,
    port: u16,
}

/// A tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: Arc<str>,
    /// Methods that are handled without a transaction.
    pub stateless: Vec<Method>,
    /// Its name as the value of a URI parameter.
    pub param: String,
}

/// Why settings were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// No listener at all, or more than an id can name.
    #[error("{0} listeners")]
    Listeners(usize),
    /// A wildcard address cannot stand in a Via.
    #[error("listener `{0}` is bound to every address and needs an advertised one")]
    Advertised(String),
    /// The host cannot stand in a URI.
    #[error("malformed host `{0}`")]
    Host(String),
    /// A domain belongs to one tenant.
    #[error("domain `{0}` belongs to two tenants")]
    Domain(String),
    /// A timer of zero.
    #[error("timer {0} is zero")]
    Timer(&'static str),
}

/// The snapshot.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Timers.
    pub timers: Timers,
    /// See [`SettingsSpec::mtu`].
    pub mtu: usize,
    /// See [`SettingsSpec::max_breadth`].
    pub max_breadth: u8,
    /// See [`SettingsSpec::supported`].
    pub supported: Vec<String>,
    /// See [`SettingsSpec::server`].
    pub server: String,
    /// See [`SettingsSpec::trying_at_once`].
    pub trying_at_once: bool,
    /// See [`SettingsSpec::outbound_proxy`].
    pub outbound_proxy: Option<StaticHop>,
    listeners: Vec<Listener>,
    tenants: Vec<Tenant>,
    domains: HashMap<Vec<u8>, TenantId, FixedState>,
    routes: HashMap<Vec<u8>, StaticHop, FixedState>,
    aliases: Vec<HostPort>,
}

impl Settings {
    /// Checks and works out.
    ///
    /// # Errors
    /// The first thing that cannot work.
    pub fn new(spec: SettingsSpec) -> Result<Self, SettingsError> {
        for (name, value) in [
            ("t1", spec.timers.t1),
            ("t2", spec.timers.t2),
            ("t4", spec.timers.t4),
            ("b", spec.timers.b),
            ("c", spec.timers.c),
            ("f", spec.timers.f),
            ("decide", spec.timers.decide),
        ] {
            if value.is_zero() {
                return Err(SettingsError::Timer(name));
            }
        }
        if spec.listeners.is_empty() || spec.listeners.len() > usize::from(u16::MAX) {
            return Err(SettingsError::Listeners(spec.listeners.len()));
        }
        let listeners = spec
            .listeners
            .into_iter()
            .map(Listener::new)
            .collect::<Result<Vec<_>, _>>()?;
        // The keys are the operator's, so a fixed seed cannot be attacked.
        let mut domains = HashMap::with_hasher(FixedState::default());
        let mut tenants = Vec::with_capacity(spec.tenants.len());
        for tenant in spec.tenants {
            for domain in &tenant.domains {
                check_host(domain)?;
                let known = domains.insert(domain.to_ascii_lowercase().into_bytes(), tenant.id);
                if known.is_some_and(|other| other != tenant.id) {
                    return Err(SettingsError::Domain(domain.clone()));
                }
            }
            tenants.push(Tenant {
                id: tenant.id,
                param: param_value(&tenant.name),
                name: tenant.name.into(),
                stateless: tenant.stateless,
            });
        }
        tenants.sort_by_key(|tenant| tenant.id);
        let mut routes = HashMap::with_hasher(FixedState::default());
        for route in spec.routes {
            check_host(&route.domain)?;
            check_host(&route.next_hop.host)?;
            routes.insert(
                route.domain.to_ascii_lowercase().into_bytes(),
                route.next_hop,
            );
        }
        for alias in &spec.aliases {
            check_host(&alias.host)?;
        }
        if let Some(proxy) = &spec.outbound_proxy {
            check_host(&proxy.host)?;
        }
        Ok(Self {
            timers: spec.timers,
            mtu: spec.mtu,
            max_breadth: spec.max_breadth.max(1),
            supported: spec.supported,
            server: spec.server,
            trying_at_once: spec.trying_at_once,
            outbound_proxy: spec.outbound_proxy,
            listeners,
            tenants,
            domains,
            routes,
            aliases: spec.aliases,
        })
    }

    /// The listeners, by id.
    #[must_use]
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// One listener.
    #[must_use]
    pub fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.listeners.get(usize::from(id.0))
    }

    /// The tenants, by id.
    #[must_use]
    pub fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }

    /// One tenant.
    #[must_use]
    pub fn tenant(&self, id: TenantId) -> Option<&Tenant> {
        let at = self
            .tenants
            .binary_search_by_key(&id, |tenant| tenant.id)
            .ok()?;
        self.tenants.get(at)
    }

    /// The tenant with this name.
    #[must_use]
    pub fn tenant_by_name(&self, name: &[u8]) -> Option<&Tenant> {
        self.tenants
            .iter()
            .find(|tenant| tenant.name.as_bytes() == name)
    }

    /// The tenant that a parameter of our Record-Route names.
    #[must_use]
    pub fn tenant_by_param(&self, value: &[u8]) -> Option<TenantId> {
        let tenant = self
            .tenants
            .iter()
            .find(|tenant| tenant.param.as_bytes() == value)?;
        Some(tenant.id)
    }

    /// Whose domain this is, whatever its case.
    #[must_use]
    pub fn domain(&self, host: &[u8]) -> Option<TenantId> {
        self.domains.get(lower(host).as_slice()).copied()
    }

    /// The static route of a domain.
    #[must_use]
    pub fn route(&self, host: &[u8]) -> Option<&StaticHop> {
        self.routes.get(lower(host).as_slice())
    }

    /// Whether a URI's host and port mean this element: a listener's own or
    /// advertised address, or an alias (RFC 3261 16.4). Domains of tenants do not,
    /// unless they are listed as aliases.
    #[must_use]
    pub fn is_us(&self, uri: &Uri<'_>) -> bool {
        uri.is_sip() && self.is_our_host(&uri.host, uri.port_or_default())
    }

    /// Whether host and port mean this element.
    #[must_use]
    pub fn is_our_host(&self, host: &Host<'_>, port: u16) -> bool {
        let ip = host.ip();
        self.listeners.iter().any(|listener| {
            port == listener.port && same_host(&listener.host, host)
                || port == listener.address.port() && ip == Some(listener.address.ip())
        }) || self
            .aliases
            .iter()
            .any(|alias| alias.port.is_none_or(|own| own == port) && same_host(&alias.host, host))
    }

    /// Whether the sent-by of a response's top Via is one that we write
    /// (RFC 3261 18.1.2).
    #[must_use]
    pub fn is_our_sent_by(&self, host: &Host<'_>, port: u16) -> bool {
        self.listeners
            .iter()
            .any(|listener| port == listener.port && same_host(&listener.host, host))
    }

    /// The listener that a request to `address` leaves from: the one that received
    /// it if that fits, else the first that does.
    #[must_use]
    pub fn outbound(
        &self,
        received: ListenerId,
        transport: Transport,
        address: IpAddr,
    ) -> Option<ListenerId> {
        let fits = |listener: &Listener| {
            listener.transport == transport && listener.address.is_ipv4() == address.is_ipv4()
        };
        if self.listener(received).is_some_and(fits) {
            return Some(received);
        }
        let at = self.listeners.iter().position(fits)?;
        u16::try_from(at).ok().map(ListenerId)
    }

    /// Whether requests of this method are handled without a transaction.
    #[must_use]
    pub fn is_stateless(&self, listener: ListenerId, tenant: TenantId, method: Method) -> bool {
        self.listener(listener)
            .is_some_and(|listener| listener.stateless.contains(&method))
            || self
                .tenant(tenant)
                .is_some_and(|tenant| tenant.stateless.contains(&method))
    }
}

impl Listener {
    fn new(spec: ListenerSpec) -> Result<Self, SettingsError> {
        let (host, port) = match spec.advertised {
            Some(HostPort { host, port }) => {
                check_host(&host)?;
                (host, port.unwrap_or_else(|| spec.address.port()))
            }
            None if spec.address.ip().is_unspecified() => {
                return Err(SettingsError::Advertised(spec.name));
            }
            None => (spec.address.ip().to_string(), spec.address.port()),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let sent_by = match bare.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
            _ => format!("{bare}:{port}"),
        };
        let mut record_route = format!("<sip:{sent_by}");
        if spec.transport != Transport::Udp {
            // Writing to a string cannot fail.
            let _ = write!(record_route, ";transport={}", spec.transport.param());
        }
        record_route.push_str(";lr");
        Ok(Self {
            via: format!("SIP/2.0/{} {sent_by};branch=", spec.transport.token()),
            host: bare.to_owned(),
            port,
            sent_by,
            record_route,
            name: spec.name.into(),
            transport: spec.transport,
            address: spec.address,
            tenant: spec.tenant,
            stateless: spec.stateless,
        })
    }
}

/// Escapes what may not stand in a URI parameter (RFC 3261 19.1.1).
pub(crate) fn param_value(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            value.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(value, "%{byte:02X}");
        }
    }
    value
}

fn lower(host: &[u8]) -> SmallVec<[u8; 64]> {
    host.iter().map(u8::to_ascii_lowercase).collect()
}

fn same_host(ours: &str, host: &Host<'_>) -> bool {
    match host {
        Host::Name(name) => ours.as_bytes().eq_ignore_ascii_case(name),
        Host::V4(ip) => ours.parse() == Ok(IpAddr::V4(*ip)),
        Host::V6(ip) => ours.parse() == Ok(IpAddr::V6(*ip)),
    }
}

fn check_host(host: &str) -> Result<(), SettingsError> {
    let bracketed = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_owned(),
    };
    let uri = format!("sip:{bracketed}");
    match Uri::parse(uri.as_bytes()) {
        Ok(parsed)
            if parsed.port.is_none() && parsed.user.is_none() && parsed.params.is_empty() =>
        {
            Ok(())
        }
        _ => Err(SettingsError::Host(host.to_owned())),
    }
}
