//! What to ask for a URI's host (RFC 3263 sections 4.1 and 4.2).

use std::net::{IpAddr, SocketAddr};

use sipbox_core::outbox::{Candidates, NextHopCandidate};
use sipbox_sip::Transport;

use super::Query;

/// A way to reach a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) transport: Transport,
    pub(super) port: u16,
    pub(super) priority: u32,
    pub(super) weight: u16,
}

/// The questions.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// The host's addresses.
    Direct { transport: Transport, port: u16 },
    /// SRV records, the preferred transport first; without any, the host's
    /// addresses.
    Services {
        names: Vec<(Transport, String)>,
        fallback: (Transport, u16),
    },
}

pub(super) fn plan(query: &Query) -> Plan {
    let transport = transport(query);
    if let Some(port) = query.port {
        return Plan::Direct { transport, port };
    }
    let name =
        |transport| service_label(transport).map(|label| (transport, srv_name(label, query)));
    let names: Vec<_> = match (query.transport, query.secure) {
        (Some(_), _) | (None, true) => name(transport).into_iter().collect(),
        // Section 4.1: each transport that we speak. UDP first, as a URI
        // without a transport means it.
        (None, false) => [Transport::Udp, Transport::Tcp]
            .into_iter()
            .filter_map(name)
            .collect(),
    };
    let fallback = (transport, transport.default_port());
    match names.is_empty() {
        true => Plan::Direct {
            transport: fallback.0,
            port: fallback.1,
        },
        false => Plan::Services { names, fallback },
    }
}

/// Candidates for addresses that are known.
pub(super) fn direct(query: &Query, addresses: impl IntoIterator<Item = IpAddr>) -> Candidates {
    let transport = transport(query);
    let port = query.port.unwrap_or(transport.default_port());
    addresses
        .into_iter()
        .map(|address| NextHopCandidate {
            transport,
            address: SocketAddr::new(address, port),
        })
        .collect()
}

/// A name as the name server is asked: absolute, or it would be tried under the
/// system's search domains too. Those are for names of one label.
pub(super) fn absolute(host: &str) -> String {
    if host.contains('.') {
        format!("{host}.")
    } else {
        host.to_owned()
    }
}

/// The transport of the URI; `sips` turns TCP into TLS (RFC 3261 section 26.2.2).
fn transport(query: &Query) -> Transport {
    match (query.transport, query.secure) {
        (None | Some(Transport::Tcp | Transport::Udp), true) => Transport::Tls,
        (Some(Transport::Ws), true) => Transport::Wss,
        (Some(transport), _) => transport,
        (None, false) => Transport::Udp,
    }
}

/// RFC 3263 section 4.1 and RFC 4168; WebSocket has no SRV (RFC 7118 section 5.6
/// leaves it to the URI).
fn service_label(transport: Transport) -> Option<&'static str> {
    match transport {
        Transport::Udp => Some("_sip._udp"),
        Transport::Tcp => Some("_sip._tcp"),
        Transport::Tls => Some("_sips._tcp"),
        Transport::Sctp => Some("_sip._sctp"),
        Transport::TlsSctp => Some("_sips._sctp"),
        Transport::Ws | Transport::Wss => None,
    }
}

fn srv_name(label: &str, query: &Query) -> String {
    format!("{label}.{}.", query.host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Transport::{Tcp, Tls, Udp, Ws};

    fn query(port: Option<u16>, transport: Option<Transport>, secure: bool) -> Query {
        Query::new(b"Example.ORG.", port, transport, secure).unwrap()
    }

    #[test]
    fn follows_rfc_3263_for_each_kind_of_uri() {
        let services = |names: &[(Transport, &str)], fallback| Plan::Services {
            names: names
                .iter()
                .map(|(t, name)| (*t, format!("{name}.example.org.")))
                .collect(),
            fallback,
        };
        let udp = (Udp, "_sip._udp");
        let tcp = (Tcp, "_sip._tcp");
        let tls = (Tls, "_sips._tcp");
        for (port, transport, secure, expected) in [
            (None, None, false, services(&[udp, tcp], (Udp, 5060))),
            (None, Some(Udp), false, services(&[udp], (Udp, 5060))),
            (None, Some(Tcp), false, services(&[tcp], (Tcp, 5060))),
            (None, Some(Tls), false, services(&[tls], (Tls, 5061))),
            (None, None, true, services(&[tls], (Tls, 5061))),
            (None, Some(Tcp), true, services(&[tls], (Tls, 5061))),
            (
                None,
                Some(Ws),
                false,
                Plan::Direct {
                    transport: Ws,
                    port: 80,
                },
            ),
            (
                Some(5070),
                None,
                false,
                Plan::Direct {
                    transport: Udp,
                    port: 5070,
                },
            ),
            (
                Some(5070),
                Some(Tcp),
                false,
                Plan::Direct {
                    transport: Tcp,
                    port: 5070,
                },
            ),
            (
                Some(5070),
                None,
                true,
                Plan::Direct {
                    transport: Tls,
                    port: 5070,
                },
            ),
        ] {
            assert_eq!(plan(&query(port, transport, secure)), expected);
        }
    }

    #[test]
    fn only_names_of_one_label_are_relative() {
        assert_eq!(absolute("proxy"), "proxy");
        assert_eq!(absolute("proxy.example.org"), "proxy.example.org.");
    }
}
