//! The Via header field (RFC 3261 20.42, RFC 3581): one hop of a response's way.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use nom::Parser;
use nom::combinator::all_consuming;
use nom::sequence::terminated;

use crate::error::ValueError;
use crate::lex::{self, Parsed};
use crate::params::Params;
use crate::transport::Transport;
use crate::uri::{self, Host};

/// What a branch of RFC 3261 begins with (8.1.1.7).
pub const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

/// One Via element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// The protocol's name, `SIP` but for oddities.
    pub protocol: &'a [u8],
    /// The protocol's version.
    pub version: &'a [u8],
    /// The transport's token.
    pub transport: &'a [u8],
    /// Host of `sent-by`.
    pub host: Host<'a>,
    /// Host of `sent-by` as written, brackets included.
    pub host_raw: &'a [u8],
    /// Port of `sent-by`, when one is written.
    pub port: Option<u16>,
    /// The parameters.
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// Reads one element that fills `value`.
    ///
    /// # Errors
    /// When it breaks the grammar of `via-parm`.
    pub fn parse(value: &'a [u8]) -> Result<Self, ValueError> {
        let value = lex::trim(value);
        let (_, (via, params)) = all_consuming((sent, terminated(lex::header_params, lex::lws0)))
            .parse(value)
            .map_err(|_| ValueError::Malformed("Via"))?;
        Ok(Self {
            params: Params::new(params),
            ..via
        })
    }

    /// Reads what is needed to answer a request whose Via is otherwise broken:
    /// transport, sent-by, and whatever parameters can be told apart.
    ///
    /// # Errors
    /// When not even sent-by is readable.
    pub fn parse_lenient(value: &'a [u8]) -> Result<Self, ValueError> {
        let (rest, via) = sent(lex::trim(value)).map_err(|_| ValueError::Malformed("Via"))?;
        let rest = lex::trim(rest);
        let params = if rest.starts_with(b";") { rest } else { b"" };
        Ok(Self {
            params: Params::new(params),
            ..via
        })
    }

    /// The transport, if it is one that we know.
    #[must_use]
    pub fn known_transport(&self) -> Option<Transport> {
        Transport::from_token(self.transport)
    }

    /// The `branch` parameter.
    #[must_use]
    pub fn branch(&self) -> Option<&'a [u8]> {
        self.params
            .get(b"branch")
            .filter(|branch| !branch.is_empty())
    }

    /// Whether the branch identifies a transaction by itself (RFC 3261 17.2.3).
    #[must_use]
    pub fn has_cookie(&self) -> bool {
        self.branch()
            .and_then(|branch| branch.get(..MAGIC_COOKIE.len()))
            .is_some_and(|prefix| {
                // Matched without case, as RFC 3261 7.3.1 asks for tokens.
                prefix.eq_ignore_ascii_case(MAGIC_COOKIE)
            })
    }

    /// The `received` parameter as an address, with or without brackets.
    #[must_use]
    pub fn received(&self) -> Option<IpAddr> {
        let text = self.params.get(b"received")?;
        let text = text
            .strip_prefix(b"[")
            .and_then(|t| t.strip_suffix(b"]"))
            .unwrap_or(text);
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    /// The `rport` parameter: `Some(None)` when it asks to be filled in.
    #[must_use]
    pub fn rport(&self) -> Option<Option<u16>> {
        let value = self.params.find(b"rport")?.value;
        Some(
            value
                .and_then(lex::decimal)
                .and_then(|n| u16::try_from(n).ok())
                .filter(|n| *n != 0),
        )
    }

    /// The `maddr` parameter's bytes.
    #[must_use]
    pub fn maddr(&self) -> Option<&'a [u8]> {
        self.params.get(b"maddr")
    }

    /// The `ttl` parameter.
    #[must_use]
    pub fn ttl(&self) -> Option<u8> {
        lex::decimal(self.params.get(b"ttl")?).and_then(|n| u8::try_from(n).ok())
    }

    /// Port of sent-by, or the one that a missing one stands for (18.2.2).
    #[must_use]
    pub fn port_or_default(&self) -> u16 {
        self.port
            .or_else(|| self.known_transport().map(Transport::default_port))
            .unwrap_or(Transport::Udp.default_port())
    }
}

/// Writes the element `value` of a request that came from `source`, as the
/// receiver must amend it: `received` when sent-by is another address (RFC 3261
/// 18.2.1) or when `rport` asks for it (RFC 3581 4), `rport` filled in. Values that
/// the sender put there are replaced, since only the receiver knows them. Returns
/// whether the element differs from before.
pub fn write_received(value: &[u8], via: &Via<'_>, source: SocketAddr, out: &mut Vec<u8>) -> bool {
    let ip = source.ip().to_canonical();
    let wants_port = via.params.has(b"rport");
    let wants_ip = wants_port || via.host.ip().map(|host| host.to_canonical()) != Some(ip);
    if !wants_ip && !via.params.has(b"received") {
        out.extend_from_slice(value);
        return false;
    }
    let params = via.params.raw();
    let head = match crate::span::span_within(value, params) {
        Some(span) if !params.is_empty() => span.start as usize,
        _ => value.len(),
    };
    out.extend_from_slice(lex::trim(value.get(..head).unwrap_or(value)));
    for param in via.params {
        if param.name.eq_ignore_ascii_case(b"received") {
            continue;
        }
        out.push(b';');
        out.extend_from_slice(param.name);
        // Writing into a Vec cannot fail.
        if param.name.eq_ignore_ascii_case(b"rport") {
            let _ = write!(out, "={}", source.port());
        } else if let Some(value) = param.value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    if wants_ip {
        let _ = write!(out, ";received={ip}");
    }
    true
}

fn sent(input: &[u8]) -> Parsed<'_, Via<'_>> {
    let slash = || lex::separator(b"/");
    let (input, (protocol, _, version, _, transport)) =
        (lex::token, slash(), lex::token, slash(), lex::token).parse(input)?;
    let (rest, _) = lex::lws0(input)?;
    if rest.len() == input.len() {
        return Err(nom::Err::Error(()));
    }
    let (rest, ((host, host_raw), port)) = uri::host_port(rest)?;
    let params = Params::default();
    Ok((
        rest,
        Via {
            protocol,
            version,
            transport,
            host,
            host_raw,
            port,
            params,
        },
    ))
}
