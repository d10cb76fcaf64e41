//! Contacts that name an address nobody reaches, mended by the source.

use std::net::SocketAddr;

use super::{source_uri, write_host_port};
use crate::error::ValueError;
use crate::lex;
use crate::message::element_end;
use crate::name_addr::{Contact, NameAddr};
use crate::span::span_within;
use crate::transport::Transport;
use crate::uri::{Scheme, Uri, escape_param, host_port};

/// The parameter that keeps what stood in a Contact before it was mended.
const ORG: &[u8] = b"org";

/// The value of a Contact field with `host:port` of every SIP URI replaced by the source's,
/// as fix_nated_contact does it; `None` if it says so already. `*` and other schemes stay.
/// `params` are URI parameters to add, each behind a semicolon; with `preserve` the old
/// `host:port` is kept for [`restore_uri`].
///
/// The transport is the one that the message came by, and a `maddr` goes: both would lead
/// elsewhere than to the source.
///
/// # Errors
/// When an element is no Contact, or the parameters would make none of it.
pub fn fix_contacts(
    value: &[u8],
    source: SocketAddr,
    transport: Transport,
    params: &[u8],
    preserve: bool,
) -> Result<Option<Vec<u8>>, ValueError> {
    each_address(value, |address, out| {
        let uri = &address.uri;
        if !uri.is_sip() {
            return false;
        }
        fixed_uri(uri, source, transport, params, preserve, out);
        true
    })
}

fn fixed_uri(
    uri: &Uri<'_>,
    source: SocketAddr,
    transport: Transport,
    params: &[u8],
    preserve: bool,
    out: &mut Vec<u8>,
) {
    let (before, old, _) = split(uri);
    out.extend_from_slice(before);
    write_host_port(source, out);
    let wanted = wanted_transport(uri, transport);
    let mut written = false;
    let mut org = old.to_vec();
    for param in uri.params {
        let is = |name: &[u8]| param.name.eq_ignore_ascii_case(name);
        if is(b"maddr") {
            continue;
        }
        if is(b"transport") {
            if !written && let Some(transport) = wanted {
                push_param(b"transport", Some(transport.as_bytes()), out);
            }
            written = true;
            continue;
        }
        if is(ORG) && preserve {
            // Another proxy's: it is kept inside of ours.
            org.extend_from_slice(b";org=");
            org.extend_from_slice(param.value.unwrap_or_default());
            continue;
        }
        push_param(param.name, param.value, out);
    }
    if !written && let Some(transport) = wanted {
        push_param(b"transport", Some(transport.as_bytes()), out);
    }
    if preserve {
        let mut text = Vec::new();
        encode64(&org, &mut text);
        push_param(ORG, Some(&text), out);
    }
    if !params.is_empty() {
        if !params.starts_with(b";") {
            out.push(b';');
        }
        out.extend_from_slice(params);
    }
    if !uri.headers.is_empty() {
        out.push(b'?');
        out.extend_from_slice(uri.headers);
    }
}

/// The transport that the URI has to name: UDP only if it is named already (or another
/// one), and that of `sips` follows from the scheme unless it is a WebSocket.
fn wanted_transport(uri: &Uri<'_>, transport: Transport) -> Option<&'static str> {
    let named = uri.params.has(b"transport");
    let secure = uri.scheme == Scheme::Sips;
    match transport {
        Transport::Udp => named.then_some("udp"),
        // The parameter of a secure WebSocket is the same (RFC 7118 section 5.2).
        Transport::Ws | Transport::Wss => Some("ws"),
        Transport::Tls | Transport::Tcp if secure => named.then_some("tcp"),
        other => Some(other.param()),
    }
}

/// A URI in three: up to its host, `host:port`, and what is behind that.
fn split<'a>(uri: &Uri<'a>) -> (&'a [u8], &'a [u8], &'a [u8]) {
    let raw = uri.raw;
    let whole = (&b""[..], &b""[..], raw);
    let Some(host) = span_within(raw, uri.host_raw) else {
        return whole;
    };
    let rest = raw.get(host.end as usize..).unwrap_or_default();
    let port = rest
        .iter()
        .position(|b| matches!(b, b';' | b'?'))
        .unwrap_or(rest.len());
    let end = (host.end as usize).saturating_add(port);
    match (
        raw.get(..host.start as usize),
        raw.get(host.start as usize..end),
        raw.get(end..),
    ) {
        (Some(before), Some(host_port), Some(rest)) => (before, host_port, rest),
        _ => whole,
    }
}

/// Undoes what [`fix_contacts`] did with `preserve`: the URI as the user agent wrote it.
/// `None` when it was not mended so.
#[must_use]
pub fn restore_uri(uri: &[u8]) -> Option<Vec<u8>> {
    let parsed = Uri::parse(uri).ok().filter(Uri::is_sip)?;
    let org = decode64(parsed.params.get(ORG)?)?;
    let end = org.iter().position(|b| *b == b';').unwrap_or(org.len());
    let (old, inner) = org.split_at_checked(end)?;
    if !host_port(old).is_ok_and(|(rest, _)| rest.is_empty()) {
        return None;
    }
    let (before, _, _) = split(&parsed);
    let mut out = before.to_vec();
    out.extend_from_slice(old);
    for param in parsed.params {
        if !param.name.eq_ignore_ascii_case(ORG) {
            push_param(param.name, param.value, &mut out);
        }
    }
    out.extend_from_slice(inner);
    if !parsed.headers.is_empty() {
        out.push(b'?');
        out.extend_from_slice(parsed.headers);
    }
    Uri::parse(&out).ok()?;
    Some(out)
}

/// The value of a Contact field with the source of the message as `received`: a parameter
/// of each address, or of its URI, for a registrar behind us (add_rcv_param).
///
/// # Errors
/// When an element is no Contact.
pub fn add_received(
    value: &[u8],
    source: SocketAddr,
    transport: Transport,
    in_uri: bool,
) -> Result<Option<Vec<u8>>, ValueError> {
    let received = source_uri(source, transport);
    if !in_uri {
        return each_element(value, |element, out| {
            let Some(address) = Contact::parse(element)?.addr().copied() else {
                return Ok(false);
            };
            if !address.uri.is_sip() {
                return Ok(false);
            }
            out.extend_from_slice(element);
            out.extend_from_slice(b";received=\"");
            out.extend_from_slice(&received);
            out.push(b'"');
            Ok(true)
        });
    }
    each_address(value, |address, out| {
        let uri = &address.uri;
        if !uri.is_sip() {
            return false;
        }
        let tail = uri.headers.len() + usize::from(!uri.headers.is_empty());
        let head = uri.raw.len().saturating_sub(tail);
        out.extend_from_slice(uri.raw.get(..head).unwrap_or(uri.raw));
        out.extend_from_slice(b";received=");
        escape_param(&received, out);
        out.extend_from_slice(uri.raw.get(head..).unwrap_or_default());
        true
    })
}

/// Writes a field's value with the URI of each address replaced by what `write` makes of
/// it; `None` when that is what stood there.
fn each_address(
    value: &[u8],
    mut write: impl FnMut(&NameAddr<'_>, &mut Vec<u8>) -> bool,
) -> Result<Option<Vec<u8>>, ValueError> {
    each_element(value, |element, out| {
        let contact = Contact::parse(element)?;
        let Some(address) = contact.addr() else {
            return Ok(false);
        };
        let mut uri = Vec::new();
        if !write(address, &mut uri) || uri == address.uri.raw {
            return Ok(false);
        }
        let span = span_within(element, address.uri.raw).ok_or(ValueError::Malformed("address"))?;
        out.extend_from_slice(element.get(..span.start as usize).unwrap_or_default());
        // A bare URI has no parameters of its own.
        if !address.bracketed {
            out.push(b'<');
        }
        out.extend_from_slice(&uri);
        if !address.bracketed {
            out.push(b'>');
        }
        out.extend_from_slice(element.get(span.end as usize..).unwrap_or_default());
        Ok(true)
    })
}

/// Writes a field's value with each element replaced by what `write` appends; where it
/// says no, the element stays. `None` when it said no throughout.
fn each_element(
    value: &[u8],
    mut write: impl FnMut(&[u8], &mut Vec<u8>) -> Result<bool, ValueError>,
) -> Result<Option<Vec<u8>>, ValueError> {
    let mut out = Vec::with_capacity(value.len() + 64);
    let mut rest = value;
    let mut changed = false;
    loop {
        let end = element_end(rest);
        let element = rest.get(..end).unwrap_or(rest);
        let text = lex::trim(element);
        if text.is_empty() {
            out.extend_from_slice(element);
        } else {
            let lead = span_within(element, text).map_or(0, |span| span.start as usize);
            out.extend_from_slice(element.get(..lead).unwrap_or_default());
            let before = out.len();
            if write(text, &mut out)? {
                // What was written is an address again, whatever went into it.
                Contact::parse(out.get(before..).unwrap_or_default())?;
                changed = true;
            } else {
                out.truncate(before);
                out.extend_from_slice(text);
            }
            out.extend_from_slice(element.get(lead + text.len()..).unwrap_or_default());
        }
        match rest.get(end + 1..) {
            Some(after) => {
                out.push(b',');
                rest = after;
            }
            None => break,
        }
    }
    Ok(changed.then_some(out))
}

fn push_param(name: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.push(b';');
    out.extend_from_slice(name);
    if let Some(value) = value {
        out.push(b'=');
        out.extend_from_slice(value);
    }
}

/// Checks URI parameters: each behind a semicolon, names and values as the grammar has
/// them.
///
/// # Errors
/// When they would not stand in a URI.
pub fn check_params(params: &[u8]) -> Result<(), ValueError> {
    let allowed = |b: &u8| lex::is_unreserved(*b) || b"[]/:&+$%;=".contains(b);
    let inside = params.strip_prefix(b";").unwrap_or(params);
    let named = |param: &[u8]| !param.is_empty() && !param.starts_with(b"=");
    let fits = inside.iter().all(allowed) && inside.split(|b| *b == b';').all(named);
    if inside.is_empty() || fits {
        Ok(())
    } else {
        Err(ValueError::Malformed("URI parameters"))
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648 section 4, without the padding, which a URI parameter must not have.
fn encode64(bytes: &[u8], out: &mut Vec<u8>) {
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b));
        let bits = bits << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            let six = (bits >> (18 - 6 * place)) & 63;
            out.extend(usize::try_from(six).ok().and_then(|at| ALPHABET.get(at)));
        }
    }
}

fn decode64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"=").unwrap_or(text);
    let text = text.strip_suffix(b"=").unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for letter in group {
            let six = ALPHABET.iter().position(|known| known == letter)?;
            bits = bits << 6 | u32::try_from(six).ok()?;
        }
        let missing = 4 - group.len();
        if missing == 3 {
            return None;
        }
        let [_, octets @ ..] = (bits << (6 * missing)).to_be_bytes();
        bytes.extend(octets.get(..3 - missing)?);
    }
    Some(bytes)
}
