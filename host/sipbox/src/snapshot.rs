//! A configuration in force: immutable, swapped as a whole.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sipbox_core::flow::{Flow, Home, ListenerId, TenantId};
use sipbox_core::settings::Settings;
use sipbox_core::shared::Shared;
use sipbox_sip::Transport;
use sipbox_wasm::Chain;

/// Everything that a reload replaces. A transaction keeps what it began with:
/// its `Settings` in the core, its tenant's [`Tenant`] in its call state.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// For the core.
    pub(crate) settings: Arc<Settings>,
    tenants: HashMap<TenantId, Arc<Tenant>, foldhash::fast::FixedState>,
    /// The text of each listener's socket, as bindings remember it.
    sockets: Vec<Arc<str>>,
    /// How long a stop waits for the transactions in flight.
    pub(crate) drain: Duration,
    /// Counts reloads, from 1.
    pub(crate) version: u64,
}

/// A tenant in force.
#[derive(Debug)]
pub(crate) struct Tenant {
    /// Its id.
    pub(crate) id: TenantId,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its domains, in lower case; they are also the realms whose accounts it has.
    pub(crate) domains: Vec<String>,
    /// Its policies.
    pub(crate) chain: Chain,
    /// What they keep in `kv` and `counters`, over reloads.
    pub(crate) shared: Shared,
}

impl Tenant {
    /// Whether accounts of this realm are the tenant's. A realm stands for a
    /// domain, whatever its case.
    pub(crate) fn has_realm(&self, realm: &str) -> bool {
        self.domains
            .iter()
            .any(|domain| domain.eq_ignore_ascii_case(realm))
    }
}

fn text(transport: Transport, address: SocketAddr) -> String {
    format!("{}:{address}", transport.param())
}

impl Snapshot {
    /// A snapshot of these parts.
    pub(crate) fn new(
        settings: Arc<Settings>,
        tenants: impl IntoIterator<Item = Tenant>,
        drain: Duration,
        version: u64,
    ) -> Self {
        // The keys are positions of the operator's tenants: a fixed seed will do.
        let sockets = settings
            .listeners()
            .iter()
            .map(|listener| text(listener.transport, listener.address).into());
        let sockets = sockets.collect();
        let tenants = tenants
            .into_iter()
            .map(|tenant| (tenant.id, Arc::new(tenant)))
            .collect();
        Self {
            settings,
            tenants,
            sockets,
            drain,
            version,
        }
    }

    /// One tenant.
    pub(crate) fn tenant(&self, id: TenantId) -> Option<&Arc<Tenant>> {
        self.tenants.get(&id)
    }

    /// All tenants, in no order.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }

    /// Whether there are several tenants.
    pub(crate) fn is_shared(&self) -> bool {
        self.tenants.len() > 1
    }

    /// The text of the socket that a flow came by, such as `udp:192.0.2.1:5060`. Of a
    /// listener on every address the one that was written to: so OpenSIPS, which has a
    /// socket for each, finds its own, and a flow comes back after a restart.
    pub(crate) fn socket(&self, flow: Flow) -> Arc<str> {
        let listener = self.settings.listener(flow.listener);
        if let (Some(local), Some(listener)) = (flow.local, listener) {
            let local = SocketAddr::new(local, listener.address.port());
            return text(listener.transport, local).into();
        }
        self.sockets
            .get(usize::from(flow.listener.0))
            .cloned()
            .unwrap_or_default()
    }

    /// What [`Snapshot::socket`] made the text of: the listener, and which of its
    /// addresses is meant where it is on every one.
    pub(crate) fn home_of(&self, socket: &str) -> Option<Home> {
        let id = |position| u16::try_from(position).ok().map(ListenerId);
        if let Some(position) = self.sockets.iter().position(|known| **known == *socket) {
            return Some((id(position)?, None));
        }
        let (transport, address) = socket.split_once(':')?;
        let address: SocketAddr = address.parse().ok()?;
        let position = self.settings.listeners().iter().position(|listener| {
            let everywhere = listener.address.ip();
            listener.transport.param() == transport
                && listener.address.port() == address.port()
                && everywhere.is_unspecified()
                && everywhere.is_ipv4() == address.is_ipv4()
        })?;
        Some((id(position)?, Some(address.ip())))
    }

    /// Whose domain this is.
    pub(crate) fn tenant_of(&self, domain: &str) -> Option<TenantId> {
        self.settings.domain(domain.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use sipbox_core::settings::{ListenerSpec, SettingsSpec};
    use sipbox_sip::HostPort;

    use super::*;

    fn snapshot(listeners: &[(Transport, &str)]) -> Snapshot {
        let advertised = HostPort {
            host: "edge.example.com".into(),
            port: None,
        };
        let listener = |&(transport, address): &(Transport, &str)| ListenerSpec {
            name: address.into(),
            transport,
            address: address.parse().unwrap(),
            advertised: Some(advertised.clone()),
            tenant: None,
            stateless: vec![],
        };
        let spec = SettingsSpec {
            listeners: listeners.iter().map(listener).collect(),
            ..SettingsSpec::default()
        };
        let settings = Settings::new(spec).unwrap();
        Snapshot::new(Arc::new(settings), [], Duration::ZERO, 1)
    }

    #[test]
    fn the_text_of_a_socket_leads_back_to_it() {
        let snapshot = snapshot(&[
            (Transport::Udp, "192.0.2.1:5060"),
            (Transport::Udp, "0.0.0.0:5060"),
            (Transport::Udp, "[::]:5060"),
            (Transport::Tcp, "0.0.0.0:5060"),
        ]);
        for (listener, transport, local, text) in [
            (0, Transport::Udp, None, "udp:192.0.2.1:5060"),
            (1, Transport::Udp, None, "udp:0.0.0.0:5060"),
            (1, Transport::Udp, Some("192.0.2.2"), "udp:192.0.2.2:5060"),
            (
                2,
                Transport::Udp,
                Some("2001:db8::2"),
                "udp:[2001:db8::2]:5060",
            ),
            (3, Transport::Tcp, None, "tcp:0.0.0.0:5060"),
        ] {
            let listener = ListenerId(listener);
            let local = local.map(|ip| ip.parse().unwrap());
            let flow = Flow {
                listener,
                transport,
                peer: ([198, 51, 100, 7], 5060).into(),
                connection: None,
                local,
            };
            assert_eq!(&*snapshot.socket(flow), text);
            assert_eq!(snapshot.home_of(text), Some((listener, local)));
        }
        for text in ["udp:192.0.2.2:5070", "ws:192.0.2.2:5060", "udp:edge", ""] {
            assert_eq!(snapshot.home_of(text), None, "{text}");
        }
    }
}
