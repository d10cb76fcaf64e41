//! Ordinary URIs, addresses and Via elements, read in one pass over their bytes.
//! What is not ordinary (escapes, passwords, folds, unknown schemes, broken
//! values) is left to the grammars, which are the reference: a property test
//! holds that both say the same wherever this reader speaks.
//!
//! Every message has a handful of each, and reading them through the grammars
//! was a third of what a message cost.

use std::net::Ipv4Addr;

use crate::lex;
use crate::name_addr::NameAddr;
use crate::params::Params;
use crate::uri::{self, Host, Scheme, Uri};
use crate::via::{Known, Via};

/// What a byte may be part of; see [`classes`].
const USER: u16 = 1;
const HOST: u16 = 2;
const URI_PARAM: u16 = 4;
const QUOTED: u16 = 8;
const TOKEN: u16 = 16;
const VALUE: u16 = 32;
const WORDS: u16 = 64;
/// Digits and the dots between them.
const NUMBER: u16 = 256;

static CLASSES: [u16; 256] = classes();

#[allow(
    clippy::indexing_slicing,
    reason = "runs at compile time, where a bad index is an error"
)]
const fn classes() -> [u16; 256] {
    let mut classes = [0u16; 256];
    let mut b = 0usize;
    while b < 256 {
        let byte = b as u8;
        if byte.is_ascii_digit() {
            classes[b] |= NUMBER;
        }
        if byte == b'.' {
            classes[b] |= NUMBER;
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            classes[b] |= USER | HOST | URI_PARAM;
        }
        if matches!(byte, b'+' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')') {
            classes[b] |= USER | URI_PARAM;
        }
        if matches!(byte, b'=' | b';' | b'/' | b':' | b'&' | b'$') {
            classes[b] |= URI_PARAM;
        }
        if byte >= b' ' && byte != 0x7f && byte != b'"' && byte != b'\\' {
            classes[b] |= QUOTED;
        }
        if lex::is_token_byte(byte) {
            classes[b] |= TOKEN | WORDS;
        }
        if byte == b' ' {
            classes[b] |= WORDS;
        }
        if lex::is_value_byte(byte) {
            classes[b] |= VALUE;
        }
        b += 1;
    }
    classes
}

#[inline]
fn classes_of(byte: u8) -> u16 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(0)
}

/// A sip or sips URI that fills `raw`.
pub(crate) fn uri(raw: &[u8]) -> Option<Uri<'_>> {
    let mut reader = Reader { rest: raw };
    let uri = reader.uri()?;
    reader.rest.is_empty().then_some(Uri { raw, ..uri })
}

/// `user@host` that fills `bytes`.
pub(crate) fn is_user_at_host(bytes: &[u8]) -> bool {
    let mut reader = Reader { rest: bytes };
    let user = reader.run(USER);
    !user.is_empty() && reader.eat(b'@') && reader.host().is_some() && reader.rest.is_empty()
}

/// `name-addr` with its parameters that fill `value`, which begins and ends
/// without white space.
pub(crate) fn address(value: &[u8]) -> Option<NameAddr<'_>> {
    let mut reader = Reader { rest: value };
    let display = reader.display()?;
    if !reader.eat(b'<') {
        return None;
    }
    let inside = reader.rest;
    let uri = reader.uri()?;
    let raw = inside.get(..inside.len() - reader.rest.len())?;
    if !reader.eat(b'>') {
        return None;
    }
    let mut tag = None;
    let params = reader.params(|name, value| {
        if name.len() == 3 && tag.is_none() && name.eq_ignore_ascii_case(b"tag") {
            tag = Some(value.unwrap_or_default());
        }
    })?;
    reader
        .rest
        .is_empty()
        .then(|| NameAddr::bracketed(display, Uri { raw, ..uri }, params, tag))
}

/// `via-parm` that fills `value`, which begins and ends without white space.
pub(crate) fn via(value: &[u8]) -> Option<Via<'_>> {
    let mut reader = Reader { rest: value };
    let (transport, host, port) = reader.sent()?;
    let (protocol, version) = (value.get(..3)?, value.get(4..7)?);
    let mut known = Known::default();
    let params = reader.params(|name, value| known.note(name, value))?;
    let sent = Via::sent([protocol, version, transport], host, port);
    reader.rest.is_empty().then(|| sent.with(params, known))
}

/// What a Via element says in front of its parameters: transport, host as read and as
/// written, port.
type Sent<'a> = (&'a [u8], (Host<'a>, &'a [u8]), Option<u16>);

/// The sent-by of the first element of a Via field.
pub(crate) fn sent_by(field: &[u8]) -> Option<(Host<'_>, Option<u16>)> {
    let mut reader = Reader { rest: field };
    let (_, (host, _), port) = reader.sent()?;
    matches!(reader.rest.first(), None | Some(b';' | b',')).then_some((host, port))
}

/// What is still to be read. Each method takes something off the front, or says
/// `None` when what stands there is not ordinary.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Transport, host and port of a Via element.
    fn sent(&mut self) -> Option<Sent<'a>> {
        self.rest = self.rest.strip_prefix(b"SIP/2.0/")?;
        let transport = self.word()?;
        if !self.eat(b' ') {
            return None;
        }
        Some((transport, self.host()?, self.port()?))
    }

    #[inline]
    fn eat(&mut self, byte: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// The longest run of bytes of a class; may be empty.
    #[inline]
    fn run(&mut self, class: u16) -> &'a [u8] {
        let len = self
            .rest
            .iter()
            .position(|b| classes_of(*b) & class == 0)
            .unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at_checked(len).unwrap_or_default();
        self.rest = rest;
        run
    }

    #[inline]
    fn word(&mut self) -> Option<&'a [u8]> {
        let word = self.run(TOKEN);
        (!word.is_empty()).then_some(word)
    }

    /// The inside of a quoted string behind its first quote, and the last quote.
    #[inline]
    fn quoted(&mut self) -> Option<&'a [u8]> {
        let inside = self.run(QUOTED);
        self.eat(b'"').then_some(inside)
    }

    /// A parameter's value, quotes included.
    #[inline]
    fn value(&mut self) -> Option<&'a [u8]> {
        let whole = self.rest;
        if self.eat(b'"') {
            let inside = self.quoted()?;
            return whole.get(..inside.len() + 2);
        }
        let value = self.run(VALUE);
        (!value.is_empty()).then_some(value)
    }

    /// A display name, quotes included, and the white space behind it.
    fn display(&mut self) -> Option<Option<&'a [u8]>> {
        let whole = self.rest;
        if self.eat(b'"') {
            let inside = self.quoted()?;
            while self.eat(b' ') {}
            return Some(whole.get(..inside.len() + 2));
        }
        let words = lex::trim_end(self.run(WORDS));
        Some((!words.is_empty()).then_some(words))
    }

    /// A URI, without its bytes as a whole.
    fn uri(&mut self) -> Option<Uri<'a>> {
        let (scheme, rest) = match self.rest {
            [b's', b'i', b'p', b':', rest @ ..] => (Scheme::Sip, rest),
            [b's', b'i', b'p', b's', b':', rest @ ..] => (Scheme::Sips, rest),
            _ => return None,
        };
        self.rest = rest;
        let user = self.run(USER);
        // A second '@', an escape or a password is met by what follows: none of
        // them can stand in a host, in a port, or in parameters as read here.
        let user = if self.eat(b'@') {
            Some(user).filter(|user| !user.is_empty())?.into()
        } else {
            self.rest = rest;
            None
        };
        let (host, host_raw) = self.host()?;
        let port = self.port()?;
        let params = self.uri_params()?;
        Some(Uri {
            scheme,
            user,
            password: None,
            host,
            host_raw,
            port,
            params,
            headers: b"",
            raw: b"",
        })
    }

    #[inline]
    fn host(&mut self) -> Option<(Host<'a>, &'a [u8])> {
        if self.rest.first() == Some(&b'[') {
            let (rest, found) = uri::host(self.rest).ok()?;
            self.rest = rest;
            return Some(found);
        }
        if let Some((ip, len)) = quad(self.rest) {
            let (raw, rest) = self.rest.split_at_checked(len)?;
            if rest.first().is_none_or(|b| classes_of(*b) & HOST == 0) {
                self.rest = rest;
                return Some((Host::V4(ip), raw));
            }
        }
        let mut before = b'.';
        let mut all = NUMBER;
        let mut len = 0;
        for &byte in self.rest {
            let classes = classes_of(byte);
            if classes & HOST == 0 {
                break;
            }
            // A label is not empty.
            if byte == b'.' && before == b'.' {
                return None;
            }
            all &= classes;
            before = byte;
            len += 1;
        }
        let (name, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        if name.is_empty() {
            return None;
        }
        let host = if all & NUMBER != 0 {
            Host::V4(ipv4(name)?)
        } else {
            Host::Name(name)
        };
        Some((host, name))
    }

    /// A port and its colon, where there is one.
    #[inline]
    fn port(&mut self) -> Option<Option<u16>> {
        if !self.eat(b':') {
            return Some(None);
        }
        let (mut number, mut len) = (0u32, 0);
        while let Some(digit @ b'0'..=b'9') = self.rest.get(len) {
            // More than five digits are no port.
            number = number * 10 + u32::from(digit - b'0');
            len += 1;
            if len > 5 {
                return None;
            }
        }
        self.rest = self.rest.get(len..)?;
        match u16::try_from(number) {
            Ok(port) if port != 0 => Some(Some(port)),
            _ => None,
        }
    }

    #[inline]
    fn uri_params(&mut self) -> Option<Params<'a>> {
        if self.rest.first() != Some(&b';') {
            return Some(Params::default());
        }
        let params = self.run(URI_PARAM);
        // Each parameter has a name.
        let nameless = |at| matches!(params.get(at + 1), None | Some(b';' | b'='));
        if memchr::memchr_iter(b';', params).any(nameless) {
            return None;
        }
        Some(Params::exact(params))
    }

    /// `*( SEMI generic-param )` without white space; tells each name and value.
    #[inline]
    fn params(&mut self, mut tell: impl FnMut(&'a [u8], Option<&'a [u8]>)) -> Option<Params<'a>> {
        let whole = self.rest;
        while self.eat(b';') {
            let name = self.word()?;
            let value = if self.eat(b'=') {
                Some(self.value()?)
            } else {
                None
            };
            tell(name, value);
        }
        whole
            .get(..whole.len() - self.rest.len())
            .map(Params::exact)
    }
}

/// Four decimal numbers below 256, without leading zeros (some readers take those
/// for octal).
pub(crate) fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let (ip, len) = quad(text)?;
    (len == text.len()).then_some(ip)
}

/// The same at the front of something, and its length.
#[inline]
fn quad(text: &[u8]) -> Option<(Ipv4Addr, usize)> {
    let mut octets = [0u8; 4];
    let mut rest = text;
    for (at, octet) in octets.iter_mut().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix(b".")?;
        }
        let mut number = 0u32;
        let mut digits = 0;
        while let [digit @ b'0'..=b'9', after @ ..] = rest {
            if digits > 0 && number == 0 {
                return None;
            }
            number = number * 10 + u32::from(digit - b'0');
            digits += 1;
            if digits > 3 {
                return None;
            }
            rest = after;
        }
        if digits == 0 {
            return None;
        }
        *octet = u8::try_from(number).ok()?;
    }
    Some((Ipv4Addr::from(octets), text.len() - rest.len()))
}

#[cfg(test)]
mod tests;
