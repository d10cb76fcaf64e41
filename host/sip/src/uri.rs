//! URIs: sip and sips (RFC 3261 19.1), tel (RFC 3966), and any other scheme kept
//! as it is. The grammar, the comparison of 19.1.4 and escaping have their files
//! below this one.

use std::net::{Ipv4Addr, Ipv6Addr};

use nom::Parser;
use nom::combinator::all_consuming;

use crate::error::ValueError;
use crate::ordinary;
use crate::params::Params;
use crate::transport::Transport;

mod equivalence;
mod escape;
mod grammar;

pub use equivalence::equivalent;
pub use escape::{escape_header, escape_param, escape_user, unescape};
pub(crate) use grammar::{host, host_port};

/// A URI's scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme<'a> {
    /// `sip`
    Sip,
    /// `sips`
    Sips,
    /// `tel`
    Tel,
    /// Any other, as written.
    Other(&'a [u8]),
}

/// A host: a name or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A domain name as written; empty in URIs whose scheme has no host.
    Name(&'a [u8]),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, written in brackets.
    V6(Ipv6Addr),
}

impl Host<'_> {
    /// The literal address, if it is one.
    #[must_use]
    pub fn ip(&self) -> Option<std::net::IpAddr> {
        match *self {
            Host::Name(_) => None,
            Host::V4(ip) => Some(ip.into()),
            Host::V6(ip) => Some(ip.into()),
        }
    }

    /// Whether two hosts are the same: names without regard to case.
    #[must_use]
    pub fn same(&self, other: &Host<'_>) -> bool {
        match (self, other) {
            (Host::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
            (Host::V4(a), Host::V4(b)) => a == b,
            (Host::V6(a), Host::V6(b)) => a == b,
            _ => false,
        }
    }
}

/// A parsed URI over borrowed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// The scheme.
    pub scheme: Scheme<'a>,
    /// The user part, escapes kept; of a tel URI the number.
    pub user: Option<&'a [u8]>,
    /// The password, escapes kept.
    pub password: Option<&'a [u8]>,
    /// The host; an empty name for tel and unknown schemes.
    pub host: Host<'a>,
    /// The host's bytes as written, brackets included.
    pub host_raw: &'a [u8],
    /// The port, when one is written.
    pub port: Option<u16>,
    /// The URI parameters.
    pub params: Params<'a>,
    /// The headers behind the question mark, without it.
    pub headers: &'a [u8],
    /// The whole URI.
    pub raw: &'a [u8],
}

impl<'a> Uri<'a> {
    /// Reads a URI that fills `raw`.
    ///
    /// # Errors
    /// When it breaks the grammar of its scheme.
    pub fn parse(raw: &'a [u8]) -> Result<Self, ValueError> {
        match ordinary::uri(raw) {
            Some(uri) => Ok(uri),
            None => Self::by_grammar(raw),
        }
    }

    pub(crate) fn by_grammar(raw: &'a [u8]) -> Result<Self, ValueError> {
        all_consuming(grammar::uri)
            .parse(raw)
            .map(|(_, uri)| Self { raw, ..uri })
            .map_err(|_| MALFORMED)
    }

    /// Whether the scheme is sip or sips.
    #[must_use]
    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// The `transport` parameter, if it is there and names one that we know.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        self.params
            .get(b"transport")
            .and_then(Transport::from_token)
    }

    /// Whether the `lr` parameter is there (with or without a value).
    #[must_use]
    pub fn lr(&self) -> bool {
        self.params.has(b"lr")
    }

    /// The `maddr` parameter as a host.
    #[must_use]
    pub fn maddr(&self) -> Option<Host<'a>> {
        let value = self.params.get(b"maddr")?;
        all_consuming(host)
            .parse(value)
            .ok()
            .map(|(_, (host, _))| host)
    }

    /// The port, or the one that a missing one stands for.
    #[must_use]
    pub fn port_or_default(&self) -> u16 {
        self.port
            .unwrap_or_else(|| match (self.transport(), self.scheme) {
                (Some(Transport::Ws), _) => 80,
                (Some(Transport::Wss), _) => 443,
                (_, Scheme::Sips) => 5061,
                (Some(transport), _) => transport.default_port(),
                (None, _) => 5060,
            })
    }

    /// Whether the user parts are the same, escapes resolved (19.1.4).
    #[must_use]
    pub fn user_eq(&self, other: &Uri<'_>) -> bool {
        match (self.user, other.user) {
            (None, None) => true,
            (Some(a), Some(b)) => escape::same_escaped(a, b, false),
            _ => false,
        }
    }

    /// The headers as pairs of name and value, escapes kept.
    pub fn header_pairs(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.headers
            .split(|b| *b == b'&')
            .filter(|pair| !pair.is_empty())
            .map(
                |pair| match memchr::memchr(b'=', pair).and_then(|at| pair.split_at_checked(at)) {
                    Some((name, value)) => (name, value.get(1..).unwrap_or_default()),
                    None => (pair, &b""[..]),
                },
            )
    }
}

/// Whether `bytes` are an address of record in its ordinary form: `user@host`,
/// without escapes, password or port. What is not may still be one.
#[must_use]
pub fn is_user_at_host(bytes: &[u8]) -> bool {
    ordinary::is_user_at_host(bytes)
}

const MALFORMED: ValueError = ValueError::Malformed("URI");
