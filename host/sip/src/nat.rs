//! Messages from behind address translation: what their addresses tell, and the texts
//! that mend them (OpenSIPS's nathelper, RFC 3581). Who is to be mended is not known here.

mod contact;
mod facts;
mod sdp;

use std::net::{IpAddr, SocketAddr};

use crate::lex;
use crate::transport::Transport;

pub use contact::{add_received, check_params, fix_contacts, restore_uri};
pub use facts::{Facts, classify};
pub use sdp::{SdpFixes, fix_body};

/// Whether an address means nothing outside of its network: RFC 1918, RFC 6598 (between a
/// carrier and its customers), RFC 4193, and link-local ones. Loopback is not among them.
#[must_use]
pub fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let shared = matches!(ip.octets(), [100, 64..=127, ..]);
            ip.is_private() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Whether an address belongs to a carrier's translation: RFC 6598, or RFC 6333 between
/// the ends of its tunnel.
#[must_use]
pub fn is_carrier_grade(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => matches!(ip.octets(), [100, 64..=127, ..] | [192, 0, 0, 0..=7]),
        IpAddr::V6(_) => false,
    }
}

/// Appends `host:port`, an IPv6 address in brackets.
fn write_host_port(source: SocketAddr, out: &mut Vec<u8>) {
    let ip = source.ip().to_canonical();
    if ip.is_ipv6() {
        out.push(b'[');
        lex::write_ip(ip, out);
        out.push(b']');
    } else {
        lex::write_ip(ip, out);
    }
    out.push(b':');
    lex::write_decimal(usize::from(source.port()), out);
}

/// The source of a message as a URI: `sip:192.0.2.1:5060;transport=tcp`, the parameter
/// left out for UDP.
fn source_uri(source: SocketAddr, transport: Transport) -> Vec<u8> {
    let mut uri = b"sip:".to_vec();
    write_host_port(source, &mut uri);
    if transport != Transport::Udp {
        uri.extend_from_slice(b";transport=");
        uri.extend_from_slice(transport.param().as_bytes());
    }
    uri
}

/// A set of flags with these names, one bit each, in this order.
macro_rules! bits {
    ($(#[$meta:meta])* $name:ident { $($(#[$of:meta])* $flag:ident = $bit:expr;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(u16);

        impl $name {
            $($(#[$of])* pub const $flag: Self = Self(1 << $bit);)*

            /// None of them.
            #[must_use]
            pub const fn empty() -> Self {
                Self(0)
            }

            /// Every one.
            #[must_use]
            pub const fn all() -> Self {
                Self(0 $(| 1 << $bit)*)
            }

            /// Whether there is none.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Whether all of `other` are among them.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// These, and `other`.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Those that are in both.
            #[must_use]
            pub const fn and(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }
    };
}
use bits;
