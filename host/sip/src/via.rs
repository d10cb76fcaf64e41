//! The Via header field (RFC 3261 20.42, RFC 3581): one hop of a response's way.

use std::net::{IpAddr, SocketAddr};

use nom::Parser;
use nom::combinator::all_consuming;
use nom::sequence::terminated;

use crate::error::ValueError;
use crate::lex::{self, Parsed};
use crate::ordinary;
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
    known: Known<'a>,
}

/// The parameters that every message asks for, found in one walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known<'a> {
    branch: Option<&'a [u8]>,
    received: Option<&'a [u8]>,
    rport: Option<Option<&'a [u8]>>,
    maddr: Option<&'a [u8]>,
}

impl<'a> Known<'a> {
    fn of(params: Params<'a>) -> Self {
        let mut known = Self::default();
        for param in params {
            known.note(param.name, param.value);
        }
        known
    }

    /// Of parameters with the same name the first counts.
    #[inline]
    pub(crate) fn note(&mut self, name: &[u8], value: Option<&'a [u8]>) {
        match name.len() {
            6 if self.branch.is_none() && name.eq_ignore_ascii_case(b"branch") => {
                self.branch = Some(value.unwrap_or_default());
            }
            5 if self.rport.is_none() && name.eq_ignore_ascii_case(b"rport") => {
                self.rport = Some(value);
            }
            8 if self.received.is_none() && name.eq_ignore_ascii_case(b"received") => {
                self.received = Some(value.unwrap_or_default());
            }
            5 if self.maddr.is_none() && name.eq_ignore_ascii_case(b"maddr") => {
                self.maddr = Some(value.unwrap_or_default());
            }
            _ => {}
        }
    }
}

impl<'a> Via<'a> {
    /// Reads one element that fills `value`.
    ///
    /// # Errors
    /// When it breaks the grammar of `via-parm`.
    pub fn parse(value: &'a [u8]) -> Result<Self, ValueError> {
        let value = lex::trim(value);
        match ordinary::via(value) {
            Some(via) => Ok(via),
            None => Self::by_grammar(value),
        }
    }

    /// The element with these parameters.
    pub(crate) fn with(self, params: Params<'a>, known: Known<'a>) -> Self {
        Self {
            params,
            known,
            ..self
        }
    }

    /// The element up to its parameters.
    pub(crate) fn sent(
        protocol: [&'a [u8]; 3],
        (host, host_raw): (Host<'a>, &'a [u8]),
        port: Option<u16>,
    ) -> Self {
        let [protocol, version, transport] = protocol;
        Self {
            protocol,
            version,
            transport,
            host,
            host_raw,
            port,
            params: Params::default(),
            known: Known::default(),
        }
    }

    pub(crate) fn by_grammar(value: &'a [u8]) -> Result<Self, ValueError> {
        let (_, (via, params)) = all_consuming((sent, terminated(lex::header_params, lex::lws0)))
            .parse(value)
            .map_err(|_| ValueError::Malformed("Via"))?;
        let params = Params::new(params);
        Ok(via.with(params, Known::of(params)))
    }

    /// Reads what is needed to answer a request whose Via is otherwise broken:
    /// transport, sent-by, and whatever parameters can be told apart.
    ///
    /// # Errors
    /// When not even sent-by is readable.
    pub fn parse_lenient(value: &'a [u8]) -> Result<Self, ValueError> {
        let value = lex::trim(value);
        if let Some(via) = ordinary::via(value) {
            return Ok(via);
        }
        let (rest, via) = sent(value).map_err(|_| ValueError::Malformed("Via"))?;
        let rest = lex::trim(rest);
        let params = if rest.starts_with(b";") { rest } else { b"" };
        let params = Params::new(params);
        Ok(via.with(params, Known::of(params)))
    }

    /// The transport, if it is one that we know.
    #[must_use]
    pub fn known_transport(&self) -> Option<Transport> {
        Transport::from_token(self.transport)
    }

    /// The `branch` parameter.
    #[must_use]
    pub fn branch(&self) -> Option<&'a [u8]> {
        self.known.branch.filter(|branch| !branch.is_empty())
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
        let text = self.known.received?;
        let text = text
            .strip_prefix(b"[")
            .and_then(|t| t.strip_suffix(b"]"))
            .unwrap_or(text);
        match ordinary::ipv4(text) {
            Some(ip) => Some(ip.into()),
            None => std::str::from_utf8(text).ok()?.parse().ok(),
        }
    }

    /// The `rport` parameter: `Some(None)` when it asks to be filled in.
    #[must_use]
    pub fn rport(&self) -> Option<Option<u16>> {
        let value = self.known.rport?;
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
        self.known.maddr
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
    let wants_port = via.known.rport.is_some();
    let wants_ip = wants_port || via.host.ip().map(|host| host.to_canonical()) != Some(ip);
    if !wants_ip && via.known.received.is_none() {
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
        if param.name.eq_ignore_ascii_case(b"rport") {
            out.push(b'=');
            lex::write_decimal(usize::from(source.port()), out);
        } else if let Some(value) = param.value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    if wants_ip {
        out.extend_from_slice(b";received=");
        lex::write_ip(ip, out);
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
    let via = Via::sent([protocol, version, transport], (host, host_raw), port);
    Ok((rest, via))
}
