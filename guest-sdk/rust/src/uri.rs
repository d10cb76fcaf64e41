//! Parts of URIs and name-addrs, as spans of the view.
//!
//! The host has parsed them; nothing is parsed here but parameter lists.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A Request-URI and its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// The whole URI.
    pub text: &'a str,
    /// The scheme as written: `sip`, `sips`, `tel`, ...
    pub scheme: &'a str,
    /// The user part, escapes as written; of a `tel` URI the number.
    pub user: Option<&'a str>,
    /// The host, an IPv6 address with its brackets; empty in a `tel` URI.
    pub host: &'a str,
    /// The port.
    pub port: Option<u16>,
    /// The parameters without the first `;`.
    pub params: &'a str,
}

impl<'a> Uri<'a> {
    /// A parameter; `Some("")`: it has no value.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&'a str> {
        param(self.params, name)
    }

    /// `user@host` in the canonical spelling, if there is a user.
    #[must_use]
    pub fn aor(&self) -> Option<String> {
        Some(aor(self.user?, self.host))
    }
}

/// From, To, or the first Contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party<'a> {
    /// The whole URI.
    pub uri: &'a str,
    /// The user part, escapes as written.
    pub user: Option<&'a str>,
    /// The host.
    pub host: &'a str,
    /// The port.
    pub port: Option<u16>,
    /// The tag.
    pub tag: Option<&'a str>,
    /// The display name, quotes as written.
    pub display_name: Option<&'a str>,
}

impl Party<'_> {
    /// `user@host` in the canonical spelling, if there is a user.
    #[must_use]
    pub fn aor(&self) -> Option<String> {
        Some(aor(self.user?, self.host))
    }
}

/// `user@host` as the location service knows it: host in lower case, escapes
/// undone where the character may stand for itself (RFC 3261 section 19.1.4).
#[must_use]
pub fn aor(user: &str, host: &str) -> String {
    let user = canonical_user(user);
    let mut text = String::with_capacity(user.len() + 1 + host.len());
    text.push_str(&user);
    text.push('@');
    text.extend(host.chars().map(|letter| letter.to_ascii_lowercase()));
    text
}

/// The user part with escapes undone where the character may stand for itself,
/// the others in upper case: equal users are equal texts.
#[must_use]
pub fn canonical_user(user: &str) -> Cow<'_, str> {
    if !user.contains('%') {
        return Cow::Borrowed(user);
    }
    let mut text = String::with_capacity(user.len());
    let mut rest = user;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let escaped = after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (escaped, after.get(2..)) {
            (Some(byte), Some(remainder)) => {
                if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte) {
                    text.push(char::from(byte));
                } else {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "%{byte:02X}");
                }
                rest = remainder;
            }
            _ => {
                text.push('%');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The value of a parameter in `a=1;b;c=2`; `Some("")`: it has no value.
pub(crate) fn param<'a>(params: &'a str, name: &str) -> Option<&'a str> {
    params.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
