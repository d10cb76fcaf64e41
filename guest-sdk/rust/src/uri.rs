//! Parts of URIs and name-addrs, as spans of the view.
//!
//! The host has parsed them; nothing is parsed here but parameter lists.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::ids::{self, party};
use crate::message::Message;

/// The Request-URI and its parts.
#[derive(Clone, Copy, Debug)]
pub struct Uri<'a>(pub(crate) &'a Message);

impl<'a> Uri<'a> {
    /// The whole URI.
    #[must_use]
    pub fn text(self) -> &'a str {
        self.0.text(ids::REQUEST_URI).unwrap_or_default()
    }

    /// The scheme as written: `sip`, `sips`, `tel`, ...
    #[must_use]
    pub fn scheme(self) -> &'a str {
        self.0.text(ids::URI_SCHEME).unwrap_or_default()
    }

    /// The user part, escapes as written; of a `tel` URI the number.
    #[must_use]
    pub fn user(self) -> Option<&'a str> {
        self.0.text(ids::URI_USER)
    }

    /// The host, an IPv6 address with its brackets; empty in a `tel` URI.
    #[must_use]
    pub fn host(self) -> &'a str {
        self.0.text(ids::URI_HOST).unwrap_or_default()
    }

    /// The port.
    #[must_use]
    pub fn port(self) -> Option<u16> {
        self.0.text(ids::URI_PORT)?.parse().ok()
    }

    /// The parameters without the first `;`.
    #[must_use]
    pub fn params(self) -> &'a str {
        self.0.text(ids::URI_PARAMS).unwrap_or_default()
    }

    /// A parameter; `Some("")`: it has no value.
    #[must_use]
    pub fn param(self, name: &str) -> Option<&'a str> {
        param(self.params(), name)
    }

    /// `user@host` in the canonical spelling, if there is a user.
    #[must_use]
    pub fn aor(self) -> Option<String> {
        Some(aor(self.user()?, self.host()))
    }
}

/// From, To, or the first Contact.
#[derive(Clone, Copy, Debug)]
pub struct Party<'a> {
    pub(crate) message: &'a Message,
    /// The id of its URI; user and host follow.
    pub(crate) block: u32,
    pub(crate) port: u32,
}

impl<'a> Party<'a> {
    /// The whole URI.
    #[must_use]
    pub fn uri(self) -> &'a str {
        self.message
            .text(self.block + party::URI)
            .unwrap_or_default()
    }

    /// The user part, escapes as written.
    #[must_use]
    pub fn user(self) -> Option<&'a str> {
        self.message.text(self.block + party::USER)
    }

    /// The host, an IPv6 address with its brackets.
    #[must_use]
    pub fn host(self) -> &'a str {
        self.message
            .text(self.block + party::HOST)
            .unwrap_or_default()
    }

    /// The port.
    #[must_use]
    pub fn port(self) -> Option<u16> {
        self.message.text(self.port)?.parse().ok()
    }

    /// The tag, of From and To.
    #[must_use]
    pub fn tag(self) -> Option<&'a str> {
        if self.block == ids::CONTACT {
            return None;
        }
        self.message.text(self.block + party::TAG)
    }

    /// The display name of From and To, quotes as written.
    #[must_use]
    pub fn display_name(self) -> Option<&'a str> {
        if self.block == ids::CONTACT {
            return None;
        }
        self.message.text(self.block + party::DISPLAY)
    }

    /// `user@host` in the canonical spelling, if there is a user.
    #[must_use]
    pub fn aor(self) -> Option<String> {
        Some(aor(self.user()?, self.host()))
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
    let at = text.len();
    text.push_str(host);
    if let Some(host) = text.get_mut(at..) {
        host.make_ascii_lowercase();
    }
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
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
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
