//! The grammar of URIs (RFC 3261 25.1, RFC 3966 3). It is stricter where readers
//! could disagree about the host, and wider where phones are.

use nom::Parser;
use nom::branch::alt;
use nom::bytes::complete::{tag, take_till1, take_while1};
use nom::combinator::{map_opt, opt, rest};
use nom::sequence::{delimited, preceded};

use super::escape::{escape_at, is_user_byte};
use super::{Host, Scheme, Uri};
use crate::lex::{self, Parsed};
use crate::params::Params;

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

pub(super) fn uri(input: &[u8]) -> Parsed<'_, Uri<'_>> {
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
    match preceded(lex::separator(b":"), lex::port).parse(after) {
        Ok((rest, port)) => Ok((rest, (found, Some(port)))),
        Err(_) => Ok((after, (found, None))),
    }
}
