//! URIs: sip and sips (RFC 3261 19.1), tel (RFC 3966), and any other scheme kept
//! as it is. Escaping and the comparison of 19.1.4 live here.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use nom::Parser;
use nom::branch::alt;
use nom::bytes::complete::{tag, take_till1, take_while1};
use nom::combinator::{all_consuming, map_opt, opt, rest};
use nom::sequence::{delimited, preceded, separated_pair};

use crate::error::ValueError;
use crate::lex::{self, Parsed};
use crate::params::Params;
use crate::transport::Transport;

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
        all_consuming(uri)
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
            (Some(a), Some(b)) => same_escaped(a, b, false),
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

const MALFORMED: ValueError = ValueError::Malformed("URI");

/// Whether two URIs are equivalent: sip and sips by RFC 3261 19.1.4, tel by
/// RFC 3966 4, other schemes byte for byte. Not transitive, as 19.1.4 notes.
#[must_use]
pub fn equivalent(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    match (a.scheme, b.scheme) {
        (Scheme::Sip, Scheme::Sip) | (Scheme::Sips, Scheme::Sips) => sip_equivalent(a, b),
        (Scheme::Tel, Scheme::Tel) => tel_equivalent(a, b),
        (Scheme::Other(x), Scheme::Other(y)) => {
            x.eq_ignore_ascii_case(y) && a.raw.get(x.len()..) == b.raw.get(y.len()..)
        }
        _ => false,
    }
}

fn sip_equivalent(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    a.user_eq(b)
        && match (a.password, b.password) {
            (None, None) => true,
            (Some(x), Some(y)) => same_escaped(x, y, false),
            _ => false,
        }
        && a.host.same(&b.host)
        && a.port == b.port
        && params_match(a, b)
        && params_match(b, a)
        && headers_match(a, b)
        && headers_match(b, a)
}

/// Every parameter of `a` has its match in `b`. One that `b` lacks matters only
/// if it is user, ttl, method or maddr, or transport (which 19.1.4's examples show
/// to count as well).
fn params_match(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    a.params.iter().all(|param| {
        match b
            .params
            .iter()
            .find(|other| same_escaped(param.name, other.name, true))
        {
            Some(other) => same_escaped(
                param.value.unwrap_or_default(),
                other.value.unwrap_or_default(),
                true,
            ),
            None => ![&b"user"[..], b"ttl", b"method", b"maddr", b"transport"]
                .iter()
                .any(|name| param.name.eq_ignore_ascii_case(name)),
        }
    })
}

fn headers_match(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    a.header_pairs().all(|(name, value)| {
        b.header_pairs().any(|(other, other_value)| {
            same_escaped(name, other, true) && same_escaped(value, other_value, false)
        })
    })
}

fn tel_equivalent(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    let digits = |uri: &Uri<'_>| -> Vec<u8> {
        let number = uri.user.unwrap_or_default().iter();
        number
            .filter(|b| !matches!(b, b'-' | b'.' | b'(' | b')'))
            .map(u8::to_ascii_lowercase)
            .collect()
    };
    let covered = |x: &Uri<'_>, y: &Uri<'_>| {
        x.params.iter().all(|param| {
            y.params.find(param.name).is_some_and(|other| {
                let (v, w) = (
                    param.value.unwrap_or_default(),
                    other.value.unwrap_or_default(),
                );
                same_escaped(v, w, true)
            })
        })
    };
    digits(a) == digits(b) && covered(a, b) && covered(b, a)
}

/// Compares two escaped strings. An escaped character is the same as the plain
/// one unless it is reserved (19.1.4), where escaping changes the meaning.
fn same_escaped(a: &[u8], b: &[u8], fold_case: bool) -> bool {
    let fold = move |(byte, escaped): (u8, bool)| {
        (
            if fold_case {
                byte.to_ascii_lowercase()
            } else {
                byte
            },
            escaped,
        )
    };
    Escaped { rest: a }
        .map(fold)
        .eq(Escaped { rest: b }.map(fold))
}

/// Yields each character and whether it is an escaped reserved one.
struct Escaped<'a> {
    rest: &'a [u8],
}

impl Iterator for Escaped<'_> {
    type Item = (u8, bool);

    fn next(&mut self) -> Option<(u8, bool)> {
        let (first, rest) = self.rest.split_first()?;
        if let (b'%', Some((byte, rest))) = (*first, escape_at(self.rest)) {
            self.rest = rest;
            return Some((byte, is_reserved(byte)));
        }
        self.rest = rest;
        Some((*first, false))
    }
}

const fn is_reserved(b: u8) -> bool {
    matches!(
        b,
        b';' | b'/' | b'?' | b':' | b'@' | b'&' | b'=' | b'+' | b'$' | b','
    )
}

/// The byte of an escape at the start of `bytes`, and what follows it.
fn escape_at(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let [b'%', high, low, rest @ ..] = bytes else {
        return None;
    };
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    Some((digit(*high)? << 4 | digit(*low)?, rest))
}

/// Resolves every `%HH`; copies only when there is one. The result may hold any
/// byte, NUL included (RFC 4475 3.1.1.4).
#[must_use]
pub fn unescape(bytes: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', bytes).is_none() {
        return Cow::Borrowed(bytes);
    }
    Cow::Owned(Escaped { rest: bytes }.map(|(byte, _)| byte).collect())
}

/// Escapes for the user part of a URI: all but unreserved and user-unreserved.
pub fn escape_user(bytes: &[u8], out: &mut Vec<u8>) {
    escape(bytes, is_user_byte, out);
}

/// Escapes for the name or value of a URI parameter.
pub fn escape_param(bytes: &[u8], out: &mut Vec<u8>) {
    let allowed =
        |b| lex::is_unreserved(b) || matches!(b, b'[' | b']' | b'/' | b':' | b'&' | b'+' | b'$');
    escape(bytes, allowed, out);
}

/// Escapes for the value of a URI header.
pub fn escape_header(bytes: &[u8], out: &mut Vec<u8>) {
    let allowed =
        |b| lex::is_unreserved(b) || matches!(b, b'[' | b']' | b'/' | b'?' | b':' | b'+' | b'$');
    escape(bytes, allowed, out);
}

fn escape(bytes: &[u8], allowed: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &b in bytes {
        if allowed(b) {
            out.push(b);
        } else {
            let digit = |n: u8| HEX.get(usize::from(n & 15)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'%', digit(b >> 4), digit(b)]);
        }
    }
}

const fn is_user_byte(b: u8) -> bool {
    lex::is_unreserved(b) || matches!(b, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/')
}

// Beyond the grammar: '#' is dialled unescaped by many phones, and bytes above
// 127 appear in user parts; both are harmless between the scheme and the '@'.
const fn is_user_byte_lenient(b: u8) -> bool {
    is_user_byte(b) || b == b'#' || b >= 0x80
}

const fn is_password_byte(b: u8) -> bool {
    lex::is_unreserved(b) || matches!(b, b'&' | b'=' | b'+' | b'$' | b',')
}

// Parameters and headers are taken more widely than the grammar does: nothing
// here can end the URI, and '@' stays out, so that no two readers can disagree
// about the host.
const fn is_tail_byte(b: u8) -> bool {
    b > b' ' && b != 0x7f && !matches!(b, b'<' | b'>' | b'"' | b'@')
}

fn escapes_are_whole(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'%', bytes).all(|at| {
        bytes
            .get(at..)
            .is_some_and(|tail| escape_at(tail).is_some())
    })
}

fn allowed(bytes: &[u8], class: impl Fn(u8) -> bool) -> bool {
    bytes.iter().all(|b| *b == b'%' || class(*b)) && escapes_are_whole(bytes)
}

fn uri(input: &[u8]) -> Parsed<'_, Uri<'_>> {
    let (rest, scheme) = scheme(input)?;
    match scheme {
        Scheme::Sip | Scheme::Sips => sip_uri(rest, scheme),
        Scheme::Tel => tel_uri(rest),
        Scheme::Other(_) => other_uri(rest, scheme),
    }
}

fn scheme(input: &[u8]) -> Parsed<'_, Scheme<'_>> {
    let is_scheme_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    let (rest, (name, _)) = (take_while1(is_scheme_byte), tag(&b":"[..])).parse(input)?;
    if !name.first().is_some_and(u8::is_ascii_alphabetic) {
        return Err(nom::Err::Error(()));
    }
    let scheme = if name.eq_ignore_ascii_case(b"sip") {
        Scheme::Sip
    } else if name.eq_ignore_ascii_case(b"sips") {
        Scheme::Sips
    } else if name.eq_ignore_ascii_case(b"tel") {
        Scheme::Tel
    } else {
        Scheme::Other(name)
    };
    Ok((rest, scheme))
}

fn sip_uri<'a>(input: &'a [u8], scheme: Scheme<'a>) -> Parsed<'a, Uri<'a>> {
    let (input, (user, password)) = match memchr::memchr(b'@', input) {
        Some(at) => {
            let (info, after) = input.split_at_checked(at).unwrap_or_default();
            let info = userinfo(info).ok_or(nom::Err::Error(()))?;
            (after.get(1..).unwrap_or_default(), info)
        }
        None => (input, (None, None)),
    };
    let (input, (host, host_raw)) = host(input)?;
    let (input, port) = opt(preceded(tag(&b":"[..]), lex::port)).parse(input)?;
    let (input, (params, headers)) = tail(input)?;
    let uri = Uri {
        scheme,
        user,
        password,
        host,
        host_raw,
        port,
        params,
        headers,
        raw: b"",
    };
    Ok((input, uri))
}

type UserInfo<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

fn userinfo(info: &[u8]) -> Option<UserInfo<'_>> {
    let (user, password) = match memchr::memchr(b':', info) {
        Some(at) => (info.get(..at)?, Some(info.get(at + 1..)?)),
        None => (info, None),
    };
    let ok = !user.is_empty()
        && allowed(user, is_user_byte_lenient)
        && password.is_none_or(|password| allowed(password, is_password_byte));
    ok.then_some((Some(user), password))
}

/// Parameters and headers up to the end of the URI.
fn tail(input: &[u8]) -> Parsed<'_, (Params<'_>, &[u8])> {
    let (params, headers) = match memchr::memchr(b'?', input) {
        Some(at) => {
            let (params, headers) = input.split_at_checked(at).unwrap_or_default();
            (
                params,
                headers.get(1..).filter(|headers| !headers.is_empty()),
            )
        }
        None => (input, Some(&b""[..])),
    };
    let headers = headers.ok_or(nom::Err::Error(()))?;
    let named = |param: &[u8]| param.first().is_some_and(|b| *b != b'=');
    let params_ok = params.is_empty()
        || params
            .strip_prefix(b";")
            .is_some_and(|rest| rest.split(|b| *b == b';').all(named));
    let headers_ok = headers.is_empty() || headers.split(|b| *b == b'&').all(named);
    if params_ok && headers_ok && allowed(params, is_tail_byte) && allowed(headers, is_tail_byte) {
        Ok((b"", (Params::new(params), headers)))
    } else {
        Err(nom::Err::Error(()))
    }
}

/// `telephone-subscriber` of RFC 3966: digits and separators, then parameters.
fn tel_uri(input: &[u8]) -> Parsed<'_, Uri<'_>> {
    let is_number_byte = |b: u8| {
        b.is_ascii_hexdigit() || matches!(b, b'+' | b'-' | b'.' | b'(' | b')' | b'*' | b'#')
    };
    let (rest, number) = take_while1(is_number_byte).parse(input)?;
    let (rest, (params, headers)) = tail(rest)?;
    if !headers.is_empty()
        || !number
            .iter()
            .any(|b| b.is_ascii_hexdigit() || matches!(b, b'*' | b'#'))
    {
        return Err(nom::Err::Error(()));
    }
    let uri = Uri {
        scheme: Scheme::Tel,
        user: Some(number),
        password: None,
        host: Host::Name(b""),
        host_raw: b"",
        port: None,
        params,
        headers,
        raw: b"",
    };
    Ok((rest, uri))
}

fn other_uri<'a>(input: &'a [u8], scheme: Scheme<'a>) -> Parsed<'a, Uri<'a>> {
    let opaque = |b: u8| b > b' ' && b != 0x7f && !matches!(b, b'<' | b'>' | b'"');
    let (after, text) = rest.parse(input)?;
    if text.is_empty() || !text.iter().copied().all(opaque) {
        return Err(nom::Err::Error(()));
    }
    let uri = Uri {
        scheme,
        user: None,
        password: None,
        host: Host::Name(b""),
        host_raw: b"",
        port: None,
        params: Params::default(),
        headers: b"",
        raw: b"",
    };
    Ok((after, uri))
}

/// A host and its bytes: `hostname / IPv4address / IPv6reference`. Underscores
/// are let through in names, since zones have them.
pub(crate) fn host(input: &[u8]) -> Parsed<'_, (Host<'_>, &[u8])> {
    let (rest, host) = alt((ipv6_reference, name_or_ipv4)).parse(input)?;
    let taken = input.len().saturating_sub(rest.len());
    Ok((rest, (host, input.get(..taken).unwrap_or_default())))
}

fn ipv6_reference(input: &[u8]) -> Parsed<'_, Host<'_>> {
    let inside = take_till1(|b| b == b']');
    map_opt(
        delimited(tag(&b"["[..]), inside, tag(&b"]"[..])),
        |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok().map(Host::V6),
    )
    .parse(input)
}

fn name_or_ipv4(input: &[u8]) -> Parsed<'_, Host<'_>> {
    let is_name_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    map_opt(take_while1(is_name_byte), |text: &[u8]| {
        if text.iter().all(|b| b.is_ascii_digit() || *b == b'.') {
            return std::str::from_utf8(text).ok()?.parse().ok().map(Host::V4);
        }
        let labels = text.strip_suffix(b".").unwrap_or(text);
        labels
            .split(|b| *b == b'.')
            .all(|label| !label.is_empty())
            .then_some(Host::Name(text))
    })
    .parse(input)
}

/// A host, its bytes, and the port behind it.
pub(crate) type HostPort<'a> = ((Host<'a>, &'a [u8]), Option<u16>);

/// `hostport`, with white space around the colon as Via allows it.
pub(crate) fn host_port(input: &[u8]) -> Parsed<'_, HostPort<'_>> {
    let (after, found) = host(input)?;
    match separated_pair(host, lex::separator(b":"), lex::port).parse(input) {
        Ok((rest, (host, port))) => Ok((rest, (host, Some(port)))),
        Err(_) => Ok((after, (found, None))),
    }
}
