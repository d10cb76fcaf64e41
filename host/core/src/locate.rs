//! Where a request goes next (RFC 3261 16.6 step 7): the next hop's URI, static
//! routes, the outbound proxy; a literal address needs no look-up.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use sipbox_sip::{HeaderId, Hop, Host, Message, NameAddr, Scheme, Transport, Uri};
use smallvec::smallvec;

use crate::decision::ResolvedTarget;
use crate::flow::{ListenerId, NextHop};
use crate::outbox::{Candidates, NextHopCandidate};
use crate::settings::Settings;

/// What is known about a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Located {
    /// Addresses.
    At {
        candidates: Candidates,
        /// The transport was not named, so a large request may choose TCP (18.1.1).
        implicit: bool,
    },
    /// A name to be resolved (RFC 3263).
    Name {
        host: Bytes,
        port: Option<u16>,
        transport: Option<Transport>,
        secure: bool,
    },
    /// Nothing that a request could be sent to.
    Nowhere,
}

/// 16.6 step 7: the target's own next hop, else the first Route, else the
/// Request-URI.
pub(crate) fn locate(
    request: Message<'_>,
    target: &ResolvedTarget,
    settings: &Settings,
) -> Located {
    let route = request
        .values(HeaderId::Route)
        .next()
        .map(|value| value.as_bytes());
    let route = target.path.first().map(Bytes::as_ref).or(route);
    let uri: &[u8] = if !target.next_hop.is_empty() {
        &target.next_hop
    } else if let Some(route) = route {
        match NameAddr::parse(route) {
            Ok(route) => route.uri_raw(),
            Err(_) => return Located::Nowhere,
        }
    } else if target.uri.is_empty() {
        request.request_uri()
    } else {
        &target.uri
    };
    match Uri::parse(uri) {
        Ok(uri) => by_uri(&uri, settings),
        Err(_) => Located::Nowhere,
    }
}

fn by_uri(uri: &Uri<'_>, settings: &Settings) -> Located {
    if !uri.is_sip() {
        // A tel URI names no host: only an outbound proxy can know (RFC 3966).
        return match &settings.outbound_proxy {
            Some(proxy) => by_static(proxy),
            None => Located::Nowhere,
        };
    }
    let secure = matches!(uri.scheme, Scheme::Sips);
    let host = uri.maddr().unwrap_or(uri.host);
    let transport = uri.transport();
    match host {
        Host::Name(name) => {
            if let Some(route) = settings.route(name) {
                return by_static(route);
            }
            if let Some(proxy) = &settings.outbound_proxy {
                return by_static(proxy);
            }
            if name.is_empty() {
                return Located::Nowhere;
            }
            Located::Name {
                host: Bytes::copy_from_slice(name),
                port: uri.port,
                transport,
                secure,
            }
        }
        Host::V4(ip) => at(ip.into(), uri.port, transport, secure),
        Host::V6(ip) => at(ip.into(), uri.port, transport, secure),
    }
}

fn by_static(hop: &Hop) -> Located {
    match hop.host.parse::<IpAddr>() {
        Ok(ip) => at(ip, hop.port, hop.transport, false),
        Err(_) => Located::Name {
            host: Bytes::copy_from_slice(hop.host.as_bytes()),
            port: hop.port,
            transport: hop.transport,
            secure: false,
        },
    }
}

/// RFC 3263 4.1 and 4.2 for a literal address.
fn at(ip: IpAddr, port: Option<u16>, transport: Option<Transport>, secure: bool) -> Located {
    let chosen = match transport {
        Some(Transport::Tcp) if secure => Transport::Tls,
        Some(Transport::Ws) if secure => Transport::Wss,
        Some(transport) => transport,
        None if secure => Transport::Tls,
        None => Transport::Udp,
    };
    let address = SocketAddr::new(ip, port.unwrap_or_else(|| chosen.default_port()));
    Located::At {
        candidates: smallvec![NextHopCandidate {
            transport: chosen,
            address
        }],
        implicit: transport.is_none() && !secure,
    }
}

/// 18.1.1: where a written request of `size` bytes goes instead of over UDP to `hop`, if
/// nobody named its transport and it is too large for a datagram.
pub(crate) fn over_tcp(
    hop: NextHop,
    size: usize,
    implicit: bool,
    arrived: ListenerId,
    settings: &Settings,
) -> Option<(ListenerId, NextHop)> {
    let NextHop::Address {
        transport: Transport::Udp,
        address,
        ..
    } = hop
    else {
        return None;
    };
    if !implicit || settings.mtu == 0 || size <= settings.mtu {
        return None;
    }
    let listener = settings.outbound(arrived, Transport::Tcp, address.ip())?;
    let hop = NextHop::Address {
        listener,
        transport: Transport::Tcp,
        address,
        local: None,
    };
    Some((listener, hop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{ListenerSpec, SettingsSpec, StaticRoute};

    fn settings(proxy: bool) -> Settings {
        let hop = |host: &str, port| Hop {
            host: host.into(),
            port,
            transport: None,
        };
        Settings::new(SettingsSpec {
            listeners: vec![ListenerSpec {
                name: "udp".into(),
                transport: Transport::Udp,
                address: "127.0.0.1:5060".parse().unwrap(),
                advertised: None,
                tenant: None,
                stateless: vec![],
            }],
            routes: vec![StaticRoute {
                domain: "Gw.Example".into(),
                next_hop: Hop {
                    host: "192.0.2.9".into(),
                    port: Some(5080),
                    transport: Some(Transport::Tcp),
                },
            }],
            outbound_proxy: proxy.then(|| hop("192.0.2.1", None)),
            ..SettingsSpec::default()
        })
        .unwrap()
    }

    fn of(uri: &str, proxy: bool) -> Located {
        by_uri(&Uri::parse(uri.as_bytes()).unwrap(), &settings(proxy))
    }

    fn hop(transport: Transport, address: &str, implicit: bool) -> Located {
        Located::At {
            candidates: smallvec![NextHopCandidate {
                transport,
                address: address.parse().unwrap()
            }],
            implicit,
        }
    }

    #[test]
    fn literal_addresses_need_no_look_up() {
        use Transport::{Tcp, Tls, Udp};
        assert_eq!(
            of("sip:a@192.0.2.3", false),
            hop(Udp, "192.0.2.3:5060", true)
        );
        assert_eq!(
            of("sip:a@192.0.2.3:99", false),
            hop(Udp, "192.0.2.3:99", true)
        );
        assert_eq!(
            of("sip:[::1];transport=TCP", false),
            hop(Tcp, "[::1]:5060", false)
        );
        assert_eq!(
            of("sips:192.0.2.3", false),
            hop(Tls, "192.0.2.3:5061", false)
        );
        assert_eq!(
            of("sip:a@x;maddr=192.0.2.4", false),
            hop(Udp, "192.0.2.4:5060", true)
        );
    }

    #[test]
    fn static_routes_come_before_the_outbound_proxy_and_dns_last() {
        use Transport::{Tcp, Udp};
        assert_eq!(
            of("sip:a@gw.example:1", true),
            hop(Tcp, "192.0.2.9:5080", false)
        );
        assert_eq!(
            of("sip:a@other.example", true),
            hop(Udp, "192.0.2.1:5060", true)
        );
        assert_eq!(of("tel:+1", true), hop(Udp, "192.0.2.1:5060", true));
        assert_eq!(of("tel:+1", false), Located::Nowhere);
        let name = Located::Name {
            host: Bytes::from_static(b"other.example"),
            port: Some(7),
            transport: None,
            secure: false,
        };
        assert_eq!(of("sip:a@other.example:7", false), name);
    }
}
