//! Percent-escapes: resolving, writing, and comparing across them.

use std::borrow::Cow;

use crate::lex;

/// Compares two escaped strings. An escaped character is the same as the plain
/// one unless it is reserved (19.1.4), where escaping changes the meaning.
pub(super) fn same_escaped(a: &[u8], b: &[u8], fold_case: bool) -> bool {
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
pub(super) fn escape_at(bytes: &[u8]) -> Option<(u8, &[u8])> {
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

pub(super) const fn is_user_byte(b: u8) -> bool {
    lex::is_unreserved(b) || matches!(b, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/')
}
