//! What the operator decides about the RFC 3261 machinery, checked and worked out
//! once: listeners with the texts of their Via and Record-Route, tenants with
//! their domains, static routes, timers. One immutable snapshot; a transaction
//! keeps the one that it began with.

mod spec;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use foldhash::fast::FixedState;
use sipbox_sip::{Hop, Host, HostPort, Method, Scheme, Transport, Uri};
use smallvec::SmallVec;

use crate::account::{Account, Room, Ticket};
use crate::error::Internal;
use crate::flow::{ListenerId, TenantId};
use crate::location::PingSettings;
use crate::quota::{Quota, Rate};

pub use spec::{ListenerSpec, RecordRouteSpec, SettingsSpec, StaticRoute, TenantSpec, Timers};

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
    /// `host:port;transport=tcp`: what a URI of ours says after its scheme.
    pub hostport: String,
    host: OurHost,
    port: u16,
}

/// A host of ours: as a name in lower case, or as an address.
#[derive(Clone, Debug)]
enum OurHost {
    Name(String),
    Ip(IpAddr),
}

impl OurHost {
    fn new(text: &str) -> Self {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        bare.parse()
            .map_or_else(|_| Self::Name(bare.to_owned()), Self::Ip)
    }

    fn is(&self, host: &Host<'_>) -> bool {
        match (self, host) {
            (Self::Name(own), Host::Name(name)) => own.as_bytes().eq_ignore_ascii_case(name),
            (Self::Ip(own), _) => host.ip() == Some(*own),
            (Self::Name(_), _) => false,
        }
    }
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
    /// See [`TenantSpec::transactions`].
    pub transactions: u32,
    /// How many of those it can have whatever other tenants do: as many as each.
    pub share: u32,
    /// Its transactions.
    pub account: Arc<Account>,
    /// See [`TenantSpec::quota`].
    pub quota: Quota,
    pub(crate) rate: Arc<Rate>,
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
    pub outbound_proxy: Option<Hop>,
    /// See [`SettingsSpec::record_route`].
    pub record_route: RecordRouteSpec,
    /// See [`SettingsSpec::transactions`].
    pub transactions: u32,
    /// See [`SettingsSpec::pings`].
    pub pings: PingSettings,
    /// The transactions of all tenants.
    pub account: Arc<Account>,
    /// See [`SettingsSpec::dialogs`].
    pub dialogs: crate::dialog::Defaults,
    listeners: Vec<Listener>,
    tenants: Vec<Tenant>,
    domains: HashMap<Vec<u8>, TenantId, FixedState>,
    routes: HashMap<Vec<u8>, Hop, FixedState>,
    aliases: Vec<(OurHost, Option<u16>)>,
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
        let account = Arc::new(Account::default());
        let among = u32::try_from(spec.tenants.len()).unwrap_or(u32::MAX).max(1);
        let share = (spec.transactions / among).max(1);
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
                param: escaped(&tenant.name),
                name: tenant.name.into(),
                stateless: tenant.stateless,
                transactions: tenant.transactions.unwrap_or(share),
                share,
                account: Arc::new(Account::of(&account)),
                quota: tenant.quota,
                rate: Arc::default(),
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
            record_route: spec.record_route,
            transactions: spec.transactions,
            pings: spec.pings,
            account,
            dialogs: spec.dialogs,
            listeners,
            tenants,
            domains,
            routes,
            aliases: spec
                .aliases
                .iter()
                .map(|alias| (OurHost::new(&alias.host), alias.port))
                .collect(),
        })
    }

    /// Goes on with the accounts of the settings before these: transactions that began
    /// under those count on.
    pub fn succeed(&mut self, before: &Self) {
        self.account = Arc::clone(&before.account);
        for tenant in &mut self.tenants {
            match before.tenant(tenant.id) {
                Some(before) => {
                    tenant.account = Arc::clone(&before.account);
                    tenant.rate = Arc::clone(&before.rate);
                }
                None => tenant.account = Arc::new(Account::of(&self.account)),
            }
        }
    }

    /// Counts something of a tenant's that holds so many bytes.
    ///
    /// # Errors
    /// There is too much already: of the tenant, or in all.
    pub(crate) fn admit(
        &self,
        tenant: TenantId,
        bytes: usize,
        room: Room,
    ) -> Result<Ticket, Internal> {
        let (ticket, here, all) = self.account_of(tenant).enter(bytes);
        let Some(tenant) = self.tenant(tenant) else {
            // Nobody's: nothing of it can have begun.
            return (all <= self.transactions)
                .then_some(ticket)
                .ok_or(Internal::Full);
        };
        let times = match room {
            Room::New => 1,
            Room::Begun => 2,
        };
        if here > tenant.transactions.saturating_mul(times) {
            return Err(Internal::TenantFull);
        }
        // Whatever the others do, a tenant has its share.
        if here > tenant.share && all > self.transactions.saturating_mul(times) {
            return Err(Internal::Full);
        }
        Ok(ticket)
    }

    /// A request was not admitted.
    pub(crate) fn refuse(&self, tenant: TenantId) {
        self.account_of(tenant).refuse();
    }

    /// Counts what may not be refused, since it ends something.
    pub(crate) fn count(&self, tenant: TenantId) -> Ticket {
        self.account_of(tenant).enter(0).0
    }

    fn account_of(&self, tenant: TenantId) -> &Arc<Account> {
        let tenant = self.tenant(tenant);
        tenant.map_or(&self.account, |tenant| &tenant.account)
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
    pub fn route(&self, host: &[u8]) -> Option<&Hop> {
        self.routes.get(lower(host).as_slice())
    }

    /// Whether a URI's host and port mean this element: a listener's own or
    /// advertised address, or an alias (RFC 3261 16.4). Domains of tenants do not,
    /// unless they are listed as aliases.
    #[must_use]
    pub fn is_us(&self, uri: &Uri<'_>) -> bool {
        let ignored = match (&self.record_route.ignore_user, uri.user) {
            (Some(ignored), Some(user)) => ignored.as_bytes() == user,
            _ => false,
        };
        uri.is_sip() && !ignored && self.is_our_host(&uri.host, uri.port_or_default())
    }

    /// The listener that a URI of ours names.
    #[must_use]
    pub fn listener_of(&self, uri: &Uri<'_>) -> Option<ListenerId> {
        let secure = matches!(uri.scheme, Scheme::Sips);
        let transport = uri.transport().unwrap_or(if secure {
            Transport::Tls
        } else {
            Transport::Udp
        });
        let port = uri.port_or_default();
        let at = self.listeners.iter().position(|listener| {
            listener.transport == transport && listener.is_at(&uri.host, port)
        })?;
        u16::try_from(at).ok().map(ListenerId)
    }

    /// Whether host and port mean this element.
    #[must_use]
    pub fn is_our_host(&self, host: &Host<'_>, port: u16) -> bool {
        self.listeners
            .iter()
            .any(|listener| listener.is_at(host, port))
            || self
                .aliases
                .iter()
                .any(|(own, at)| at.is_none_or(|at| at == port) && own.is(host))
    }

    /// Whether the sent-by of a response's top Via is one that we write
    /// (RFC 3261 18.1.2).
    #[must_use]
    pub fn is_our_sent_by(&self, host: &Host<'_>, port: u16) -> bool {
        self.listeners
            .iter()
            .any(|listener| port == listener.port && listener.host.is(host))
    }

    /// The listener that a request to `address` leaves from: the one that it should
    /// (that received it, say) if that fits, else the first that does.
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
    /// Whether host and port are its own or its advertised address.
    fn is_at(&self, host: &Host<'_>, port: u16) -> bool {
        port == self.port && self.host.is(host)
            || port == self.address.port() && host.ip() == Some(self.address.ip())
    }

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
        let mut hostport = sent_by.clone();
        if spec.transport != Transport::Udp {
            // Writing to a string cannot fail.
            let _ = write!(hostport, ";transport={}", spec.transport.param());
        }
        Ok(Self {
            via: format!("SIP/2.0/{} {sent_by};branch=", spec.transport.token()),
            host: OurHost::new(bare),
            port,
            sent_by,
            hostport,
            name: spec.name.into(),
            transport: spec.transport,
            address: spec.address,
            tenant: spec.tenant,
            stateless: spec.stateless,
        })
    }
}

/// Escapes what may not stand in a URI parameter (RFC 3261 19.1.1).
pub(crate) fn push_param_text(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte);
    let mut rest = text;
    loop {
        let run = rest.iter().take_while(|byte| plain(**byte)).count();
        let (run, escaped) = rest.split_at_checked(run).unwrap_or_default();
        out.extend_from_slice(run);
        let [byte, behind @ ..] = escaped else {
            return;
        };
        let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
        out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        rest = behind;
    }
}

fn escaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    push_param_text(text.as_bytes(), &mut bytes);
    bytes.into_iter().map(char::from).collect()
}

fn lower(host: &[u8]) -> SmallVec<[u8; 64]> {
    host.iter().map(u8::to_ascii_lowercase).collect()
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
