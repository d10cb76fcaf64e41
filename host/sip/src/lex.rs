//! Character classes of RFC 3261 25.1 and the small nom parsers that header
//! values share. Inside a header value any CR or LF belongs to a fold (the index
//! made sure of it), so white space here means SP, HTAB, CR and LF.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::IpAddr;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while1};
use nom::combinator::{opt, recognize, verify};
use nom::multi::many0_count;
use nom::sequence::preceded;
use nom::{IResult, Parser};

/// What the crate's nom parsers return: the error says nothing, since the
/// caller names what it was reading.
pub(crate) type Parsed<'a, T> = IResult<&'a [u8], T, ()>;

/// `token` of RFC 3261 25.1.
#[inline]
#[must_use]
pub const fn is_token_byte(b: u8) -> bool {
    #[allow(clippy::indexing_slicing, reason = "every byte is inside the table")]
    TOKEN[b as usize]
}

// A table, since the index looks at every byte of every header name.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        #[allow(clippy::indexing_slicing, reason = "runs at compile time")]
        {
            table[b] = (b as u8).is_ascii_alphanumeric()
                || matches!(
                    b as u8,
                    b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~'
                );
        }
        b += 1;
    }
    table
};

/// Whether the bytes form a `token`.
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_token_byte)
}

/// Whether the bytes may stand as a header value in one line: no CR, LF or NUL.
/// Both the parser's callers and the editors rely on it against injection.
#[must_use]
pub fn is_field_value(bytes: &[u8]) -> bool {
    memchr::memchr3(b'\r', b'\n', 0, bytes).is_none()
}

pub(crate) const fn is_lws_byte(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

/// `unreserved` of RFC 3261 25.1.
pub(crate) const fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')'
        )
}

/// Drops white space, folds included, from both ends.
#[must_use]
pub fn trim(bytes: &[u8]) -> &[u8] {
    trim_end(trim_start(bytes))
}

#[inline]
pub(crate) fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes {
        if !is_lws_byte(*first) {
            break;
        }
        bytes = rest;
    }
    bytes
}

#[inline]
pub(crate) fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., last] = bytes {
        if !is_lws_byte(*last) {
            break;
        }
        bytes = rest;
    }
    bytes
}

/// Where the quote stands that ends a quoted string, given what follows the first one.
pub(crate) fn closing_quote(inside: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', inside.get(at..)?)?;
        if inside.get(at) == Some(&b'"') {
            return Some(at);
        }
        // A backslash takes the byte behind it along.
        at += 2;
    }
}

/// Removes the quotes and backslashes of a quoted string; other bytes stay as
/// they are. Copies only when there is a backslash.
#[must_use]
pub fn unquote(bytes: &[u8]) -> Cow<'_, [u8]> {
    let [b'"', inner @ .., b'"'] = bytes else {
        return Cow::Borrowed(bytes);
    };
    if memchr::memchr(b'\\', inner).is_none() {
        return Cow::Borrowed(inner);
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.iter();
    while let Some(&b) = rest.next() {
        out.push(if b == b'\\' {
            rest.next().copied().unwrap_or(b)
        } else {
            b
        });
    }
    Cow::Owned(out)
}

/// Joins the lines of a folded value: each fold becomes one space
/// (RFC 3261 7.3.1). Copies only when there is a fold.
#[must_use]
pub fn unfold(bytes: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\r', b'\n', bytes).is_none() {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        let (before, after) = rest.split_at_checked(at).unwrap_or((rest, b""));
        out.extend_from_slice(before);
        while out.last().is_some_and(|b| is_lws_byte(*b)) {
            out.pop();
        }
        out.push(b' ');
        rest = after;
        while let [b, tail @ ..] = rest {
            if !is_lws_byte(*b) {
                break;
            }
            rest = tail;
        }
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// An unsigned decimal number; `None` for anything else, saturating beyond 64 bits.
pub(crate) fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0u64, |n, b| {
        b.is_ascii_digit()
            .then(|| n.saturating_mul(10).saturating_add(u64::from(b - b'0')))
    })
}

/// The digits of a number, kept in place.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: [u8; 20],
    len: usize,
}

impl Decimal {
    /// Writes a number out.
    #[must_use]
    pub fn new(number: usize) -> Self {
        let mut digits = [b'0'; 20];
        let mut rest = number;
        let mut len = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            len += 1;
            if rest == 0 {
                break;
            }
        }
        Self { digits, len }
    }

    /// The digits.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.digits
            .get(self.digits.len() - self.len..)
            .unwrap_or_default()
    }
}

/// Appends an address as `Display` writes it, the common kind without the
/// machinery of formatting.
pub fn write_ip(ip: IpAddr, out: &mut Vec<u8>) {
    let IpAddr::V4(v4) = ip else {
        // Writing into a Vec cannot fail.
        let _ = write!(out, "{ip}");
        return;
    };
    let mut text = [0u8; 15];
    let mut len = 0;
    let mut put = |byte: u8| {
        if let Some(place) = text.get_mut(len) {
            *place = byte;
            len += 1;
        }
    };
    for (at, octet) in v4.octets().into_iter().enumerate() {
        if at > 0 {
            put(b'.');
        }
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
    }
    out.extend_from_slice(text.get(..len).unwrap_or_default());
}

/// Appends a number.
pub fn write_decimal(number: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(Decimal::new(number).as_bytes());
}

/// A decimal number of seconds, saturating at 32 bits (RFC 3261 20.19 caps
/// intervals at 2^32-1).
pub(crate) fn delta_seconds(bytes: &[u8]) -> Option<u32> {
    decimal(bytes).map(|n| u32::try_from(n).unwrap_or(u32::MAX))
}

pub(crate) fn lws0(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while(is_lws_byte).parse(input)
}

pub(crate) fn token(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while1(is_token_byte).parse(input)
}

/// A separator with white space around it, such as SEMI, EQUAL, SLASH.
pub(crate) fn separator<'a>(mark: &'static [u8]) -> impl FnMut(&'a [u8]) -> Parsed<'a, &'a [u8]> {
    move |input| {
        (lws0, tag(mark), lws0)
            .parse(input)
            .map(|(rest, (_, found, _))| (rest, found))
    }
}

/// A quoted string with its quotes. Any byte may follow a backslash but CR and
/// LF; bytes above 127 are taken as they are.
pub(crate) fn quoted_string(input: &[u8]) -> Parsed<'_, &[u8]> {
    let mut rest = input.strip_prefix(b"\"").ok_or(nom::Err::Error(()))?;
    loop {
        rest = match rest {
            [b'"', after @ ..] => {
                let taken = input.len().saturating_sub(after.len());
                return match input.split_at_checked(taken) {
                    Some((quoted, after)) => Ok((after, quoted)),
                    None => Err(nom::Err::Error(())),
                };
            }
            [b'\\', b'\r' | b'\n', ..] | [] => return Err(nom::Err::Error(())),
            [b'\\', _, after @ ..] | [_, after @ ..] => after,
        };
    }
}

/// `gen-value`: a token, a host, or a quoted string. The host's brackets and
/// colons are allowed anywhere, as in `received=2001:db8::1`, which old elements
/// write without brackets (RFC 5118 4.5); bytes above 127 pass.
fn gen_value(input: &[u8]) -> Parsed<'_, &[u8]> {
    alt((quoted_string, take_while1(is_value_byte))).parse(input)
}

pub(crate) const fn is_value_byte(b: u8) -> bool {
    // Wider than the grammar, which would refuse what phones write in their own
    // parameters; nothing here can end a parameter, an element or a line.
    b > b' ' && b != 0x7f && !matches!(b, b';' | b',' | b'"' | b'<' | b'>' | b'\\')
}

fn generic_param(input: &[u8]) -> Parsed<'_, &[u8]> {
    recognize((token, opt(preceded(separator(b"="), gen_value)))).parse(input)
}

/// `*( SEMI generic-param )`, as a slice that starts at the first semicolon.
pub(crate) fn header_params(input: &[u8]) -> Parsed<'_, &[u8]> {
    recognize(many0_count(preceded(separator(b";"), generic_param))).parse(input)
}

/// Digits of a port: 1 to 65535.
pub(crate) fn port(input: &[u8]) -> Parsed<'_, u16> {
    verify(
        take_while1(|b: u8| b.is_ascii_digit()).map(|digits| {
            decimal(digits)
                .and_then(|n| u16::try_from(n).ok())
                .unwrap_or(0)
        }),
        |port| *port != 0,
    )
    .parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_string_ends_at_its_own_quote() {
        assert_eq!(
            quoted_string(b"\"a\\\"b\" c"),
            Ok((&b" c"[..], &b"\"a\\\"b\""[..]))
        );
        assert_eq!(quoted_string(b"\"\\\0\""), Ok((&b""[..], &b"\"\\\0\""[..])));
        for broken in [
            &b"\"abc"[..],
            b"\"abc\\",
            b"\"abc\\\"",
            b"abc",
            b"",
            b"\"a\\\nb\"",
        ] {
            assert!(quoted_string(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn unquoting_drops_quotes_and_backslashes_only() {
        assert_eq!(
            unquote(b"\"a\\\\\\\"\""),
            Cow::Borrowed(b"a\\\"".as_slice())
        );
        assert_eq!(unquote(b"plain"), Cow::Borrowed(b"plain".as_slice()));
        assert_eq!(unquote(b"\""), Cow::Borrowed(b"\"".as_slice()));
    }

    #[test]
    fn a_fold_becomes_one_space() {
        assert_eq!(
            unfold(b"a \r\n\t b\n c"),
            Cow::Borrowed(b"a b c".as_slice())
        );
        assert_eq!(unfold(b"a b"), Cow::Borrowed(b"a b".as_slice()));
    }

    #[test]
    fn parameters_need_a_name_behind_each_semicolon() {
        assert_eq!(
            header_params(b" ; a = b;c;d=\"x;y\""),
            Ok((&b""[..], &b" ; a = b;c;d=\"x;y\""[..]))
        );
        assert_eq!(
            header_params(b";a;;b").map(|(rest, _)| rest),
            Ok(&b";;b"[..])
        );
        assert_eq!(header_params(b"").map(|(rest, _)| rest), Ok(&b""[..]));
    }

    #[test]
    fn addresses_are_written_as_display_writes_them() {
        for ip in ["0.0.0.0", "10.20.103.9", "255.255.255.255", "2001:db8::1"] {
            let mut out = Vec::new();
            write_ip(ip.parse().unwrap(), &mut out);
            assert_eq!(out, ip.as_bytes());
        }
    }

    #[test]
    fn numbers_saturate_and_ports_have_a_range() {
        assert_eq!(decimal(b"36893488147419103232"), Some(u64::MAX));
        assert_eq!(decimal(b"-1"), None);
        assert_eq!(decimal(b""), None);
        assert_eq!(delta_seconds(b"4294967296"), Some(u32::MAX));
        assert_eq!(port(b"5060;").map(|(_, p)| p), Ok(5060));
        assert!(port(b"0").is_err());
        assert!(port(b"65536").is_err());
    }
}
