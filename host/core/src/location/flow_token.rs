//! Flow tokens: a [`Flow`] as text that leaves the process and comes back
//! (RFC 5626 section 5.2), under a keyed tag so that nobody can make one up.
//!
//! A token names node, boot, tenant and, for a connection, its generation: one from
//! before a restart, of another tenant, or of a connection whose slot has another use
//! now, is recognised instead of reaching a stranger.

use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sipbox_sip::Transport;
use siphasher::sip128::{Hasher128, SipHasher24};

use super::text64::{from_text, to_text};
use crate::flow::{ConnectionId, Flow, ListenerId, TenantId};

const VERSION: u8 = 2;
/// 80 bits, as RFC 5626 section 5.2 proposes.
const TAG: usize = 10;

/// What a token says of its flow, in the low bits of the octet that names the transport.
const V6: u8 = 1;
const CONNECTION: u8 = 1 << 1;
const LOCAL: u8 = 1 << 2;
const LOCAL_V6: u8 = 1 << 3;
const SHAPE_BITS: u8 = 4;

/// Which process an id comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The node.
    pub node: u16,
    /// Differs from one start of the process to the next.
    pub boot: u32,
}

/// Why a flow token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not a token of ours, or changed on its way.
    #[error("malformed or forged flow token")]
    Forged,
    /// Made by another node.
    #[error("flow token of node {0}")]
    OtherNode(u16),
    /// Made before the process was restarted.
    #[error("flow token from before a restart")]
    OtherBoot,
    /// Made for another tenant, whose flows are none of this one's business.
    #[error("flow token of another tenant")]
    OtherTenant,
}

/// Makes and reads flow tokens.
#[derive(Clone)]
pub struct FlowTokens {
    keyed: SipHasher24,
    origin: Origin,
}

impl FlowTokens {
    /// Tokens of one process, under a secret key.
    #[must_use]
    pub fn new(key: &[u8; 16], origin: Origin) -> Self {
        Self {
            keyed: SipHasher24::new_with_key(key),
            origin,
        }
    }

    /// The token of a tenant's flow: letters, digits, `-` and `_`, fit for the user part of a URI.
    #[must_use]
    pub fn encode(&self, tenant: TenantId, flow: &Flow) -> String {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(VERSION);
        bytes.extend(self.origin.node.to_be_bytes());
        bytes.extend(self.origin.boot.to_be_bytes());
        bytes.extend(tenant.0.to_be_bytes());
        bytes.extend(flow.listener.0.to_be_bytes());
        let shape = [
            (flow.peer.is_ipv6(), V6),
            (flow.connection.is_some(), CONNECTION),
            (flow.local.is_some(), LOCAL),
            (flow.local.is_some_and(|ip| ip.is_ipv6()), LOCAL_V6),
        ];
        let shape = shape.iter().filter(|(said, _)| *said);
        let shape = shape.fold(0, |bits, (_, bit)| bits | bit);
        bytes.push((transport_code(flow.transport) << SHAPE_BITS) | shape);
        bytes.extend(flow.peer.port().to_be_bytes());
        push_ip(flow.peer.ip(), &mut bytes);
        if let SocketAddr::V6(peer) = flow.peer {
            // A link-local peer is nobody without its zone.
            bytes.extend(peer.scope_id().to_be_bytes());
        }
        if let Some(connection) = flow.connection {
            bytes.extend(connection.slot.to_be_bytes());
            bytes.extend(connection.generation.to_be_bytes());
        }
        if let Some(local) = flow.local {
            push_ip(local, &mut bytes);
        }
        let tag = self.tag(&bytes);
        bytes.extend(tag);
        to_text(&bytes)
    }

    /// The flow of a token, for the tenant that it was made for.
    ///
    /// # Errors
    /// Why it names no flow of this process and tenant.
    pub fn decode(&self, tenant: TenantId, token: &str) -> Result<Flow, TokenError> {
        let bytes = from_text(token).ok_or(TokenError::Forged)?;
        let (body, tag) = bytes.split_last_chunk::<TAG>().ok_or(TokenError::Forged)?;
        if !bool::from(subtle::ConstantTimeEq::ct_eq(
            tag.as_slice(),
            self.tag(body).as_slice(),
        )) {
            return Err(TokenError::Forged);
        }
        self.read(tenant, body).ok_or(TokenError::Forged)?
    }

    fn tag(&self, bytes: &[u8]) -> [u8; TAG] {
        let mut hasher = self.keyed;
        hasher.write(bytes);
        let mut tag = [0; TAG];
        for (to, from) in tag.iter_mut().zip(hasher.finish128().as_bytes()) {
            *to = from;
        }
        tag
    }

    fn read(&self, tenant: TenantId, body: &[u8]) -> Option<Result<Flow, TokenError>> {
        let mut rest = body;
        let [version] = take::<1>(&mut rest)?;
        let node = u16::from_be_bytes(take(&mut rest)?);
        let boot = u32::from_be_bytes(take(&mut rest)?);
        let owner = TenantId(u32::from_be_bytes(take(&mut rest)?));
        if version != VERSION {
            return None;
        }
        if node != self.origin.node {
            return Some(Err(TokenError::OtherNode(node)));
        }
        if boot != self.origin.boot {
            return Some(Err(TokenError::OtherBoot));
        }
        if owner != tenant {
            return Some(Err(TokenError::OtherTenant));
        }
        let listener = ListenerId(u16::from_be_bytes(take(&mut rest)?));
        let [shape] = take::<1>(&mut rest)?;
        let transport = transport_of(shape >> SHAPE_BITS)?;
        let port = u16::from_be_bytes(take(&mut rest)?);
        let peer = match take_ip(shape & V6 != 0, &mut rest)? {
            IpAddr::V4(ip) => SocketAddr::from((ip, port)),
            IpAddr::V6(ip) => {
                let zone = u32::from_be_bytes(take(&mut rest)?);
                SocketAddr::V6(std::net::SocketAddrV6::new(ip, port, 0, zone))
            }
        };
        let connection = if shape & CONNECTION == 0 {
            None
        } else {
            let slot = u32::from_be_bytes(take(&mut rest)?);
            let generation = u32::from_be_bytes(take(&mut rest)?);
            Some(ConnectionId { slot, generation })
        };
        let local = if shape & LOCAL == 0 {
            None
        } else {
            Some(take_ip(shape & LOCAL_V6 != 0, &mut rest)?)
        };
        rest.is_empty().then_some(Ok(Flow {
            listener,
            transport,
            peer,
            connection,
            local,
        }))
    }
}

impl std::fmt::Debug for FlowTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.debug_struct("FlowTokens")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*taken)
}

fn push_ip(ip: IpAddr, bytes: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => bytes.extend(ip.octets()),
        IpAddr::V6(ip) => bytes.extend(ip.octets()),
    }
}

fn take_ip(v6: bool, rest: &mut &[u8]) -> Option<IpAddr> {
    Some(if v6 {
        Ipv6Addr::from(take::<16>(rest)?).into()
    } else {
        Ipv4Addr::from(take::<4>(rest)?).into()
    })
}

const fn transport_code(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 0,
        Transport::Tcp => 1,
        Transport::Tls => 2,
        Transport::Ws => 3,
        Transport::Wss => 4,
        Transport::Sctp => 5,
        Transport::TlsSctp => 6,
    }
}

fn transport_of(code: u8) -> Option<Transport> {
    Transport::ALL
        .iter()
        .copied()
        .find(|t| transport_code(*t) == code)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::text64::ALPHABET;
    use super::*;

    const OURS: TenantId = TenantId(5);
    const HERE: Origin = Origin { node: 3, boot: 77 };

    fn tokens() -> FlowTokens {
        FlowTokens::new(&[7; 16], HERE)
    }

    fn flow() -> impl Strategy<Value = Flow> {
        let v4 = (any::<u32>(), any::<u16>())
            .prop_map(|(ip, port)| SocketAddr::from((Ipv4Addr::from(ip), port)));
        let v6 = (any::<u128>(), any::<u16>(), any::<u32>()).prop_map(|(ip, port, zone)| {
            SocketAddr::V6(std::net::SocketAddrV6::new(
                Ipv6Addr::from(ip),
                port,
                0,
                zone,
            ))
        });
        let connection = prop::option::of(
            (any::<u32>(), any::<u32>())
                .prop_map(|(slot, generation)| ConnectionId { slot, generation }),
        );
        let transport = prop::sample::select(Transport::ALL);
        let local = prop::option::of(any::<IpAddr>());
        let peer = prop_oneof![v4, v6];
        (any::<u16>(), transport, peer, connection, local).prop_map(
            |(listener, transport, peer, connection, local)| Flow {
                listener: ListenerId(listener),
                transport,
                peer,
                connection,
                local,
            },
        )
    }

    proptest! {
        #[test]
        fn a_flow_comes_back_from_its_token(flow in flow(), tenant in any::<u32>().prop_map(TenantId)) {
            let token = tokens().encode(tenant, &flow);
            prop_assert!(token.bytes().all(|b| ALPHABET.contains(&b)), "{}", token);
            prop_assert_eq!(tokens().decode(tenant, &token), Ok(flow));
        }

        #[test]
        fn another_tenant_has_no_use_for_a_token(flow in flow(), other in any::<u32>()) {
            prop_assume!(other != OURS.0);
            let token = tokens().encode(OURS, &flow);
            prop_assert_eq!(tokens().decode(TenantId(other), &token), Err(TokenError::OtherTenant));
        }

        #[test]
        fn a_changed_token_is_refused(flow in flow(), at in any::<prop::sample::Index>(), by in 1u8..64) {
            let mut token = tokens().encode(OURS, &flow).into_bytes();
            let i = at.index(token.len());
            let old = ALPHABET.iter().position(|b| *b == token[i]).unwrap();
            token[i] = ALPHABET[(old + usize::from(by)) % 64];
            prop_assert_eq!(tokens().decode(OURS, std::str::from_utf8(&token).unwrap()), Err(TokenError::Forged));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,80}") {
            prop_assert_eq!(tokens().decode(OURS, &text), Err(TokenError::Forged));
        }
    }

    #[test]
    fn tokens_of_other_processes_are_told_apart() {
        let flow = Flow {
            listener: ListenerId(0),
            transport: Transport::Tcp,
            peer: ([192, 0, 2, 1], 5060).into(),
            connection: Some(ConnectionId {
                slot: 4,
                generation: 9,
            }),
            local: None,
        };
        let made_by = |key: u8, node, boot| {
            let token = FlowTokens::new(&[key; 16], Origin { node, boot }).encode(OURS, &flow);
            tokens().decode(OURS, &token)
        };
        assert_eq!(made_by(7, 3, 77), Ok(flow));
        assert_eq!(made_by(7, 4, 77), Err(TokenError::OtherNode(4)));
        assert_eq!(made_by(7, 3, 76), Err(TokenError::OtherBoot));
        assert_eq!(made_by(8, 3, 77), Err(TokenError::Forged));
    }
}
