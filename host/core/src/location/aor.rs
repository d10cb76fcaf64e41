//! Addresses of record in canonical form (RFC 3261 section 10.3, step 5).

use std::fmt;

/// Why a text is no address of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AorError {
    /// No `@` in it.
    #[error("address of record without a domain")]
    NoDomain,
    /// Nothing before the `@`.
    #[error("address of record without a user")]
    NoUser,
    /// The part behind the `@` cannot be a host.
    #[error("malformed domain in address of record")]
    Domain,
}

/// `user@domain`: the user with its escapes undone, the domain in lower case;
/// scheme, port, password and parameters are gone.
///
/// Two spellings of one address give the same text, and canonicalising a text
/// again does not change it. A control character, an octet that is not UTF-8 and
/// the percent sign keep their escapes, so that `%00` and `%2500` stay apart.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Aor {
    text: Box<str>,
    /// Length of the user part.
    user: usize,
}

impl Aor {
    /// Reads `user@domain`, in any spelling.
    ///
    /// # Errors
    /// What is missing.
    pub fn parse(text: &str) -> Result<Self, AorError> {
        let (user, domain) = text.rsplit_once('@').ok_or(AorError::NoDomain)?;
        Self::from_parts(user.as_bytes(), domain.as_bytes())
    }

    /// From the user and host of a URI, as they stand there.
    ///
    /// # Errors
    /// What is missing.
    pub fn from_parts(user: &[u8], domain: &[u8]) -> Result<Self, AorError> {
        if user.is_empty() {
            return Err(AorError::NoUser);
        }
        let domain = domain.strip_suffix(b".").unwrap_or(domain);
        let host_byte = |b: &u8| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'[' | b']' | b':')
        };
        if domain.is_empty() || !domain.iter().all(host_byte) {
            return Err(AorError::Domain);
        }
        let mut text = canonical_user(user);
        let user = text.len();
        text.push('@');
        text.extend(domain.iter().map(|b| char::from(b.to_ascii_lowercase())));
        Ok(Self {
            text: text.into_boxed_str(),
            user,
        })
    }

    /// The whole, `user@domain`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &str {
        self.text.get(..self.user).unwrap_or_default()
    }

    /// The domain, in lower case.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.text
            .get(self.user.saturating_add(1)..)
            .unwrap_or_default()
    }
}

impl fmt::Display for Aor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Aor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

fn canonical_user(user: &[u8]) -> String {
    let mut octets = Vec::with_capacity(user.len());
    let mut rest = user;
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        if b == b'%'
            && let [high, low, tail @ ..] = tail
            && let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low))
        {
            octets.push(high << 4 | low);
            rest = tail;
        } else {
            octets.push(b);
        }
    }
    let mut text = String::with_capacity(octets.len());
    for chunk in octets.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_ascii_control() || c == '%' {
                push_escaped(&mut text, u8::try_from(c).unwrap_or(b'%'));
            } else {
                text.push(c);
            }
        }
        for b in chunk.invalid() {
            push_escaped(&mut text, *b);
        }
    }
    text
}

fn hex_digit(b: u8) -> Option<u8> {
    char::from(b)
        .to_digit(16)
        .and_then(|d| u8::try_from(d).ok())
}

fn push_escaped(text: &mut String, b: u8) {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    text.push('%');
    text.extend(
        [b >> 4, b & 15]
            .iter()
            .filter_map(|d| HEX.get(usize::from(*d))),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_one_address_give_one_text() {
        for (spelling, canonical) in [
            ("alice@example.com", "alice@example.com"),
            ("alice@EXAMPLE.com.", "alice@example.com"),
            ("%61lice@example.com", "alice@example.com"),
            ("Alice@example.com", "Alice@example.com"),
            ("al%40ice@example.com", "al@ice@example.com"),
            ("null-%00-null@example.com", "null-%00-null@example.com"),
            ("null-%2500-null@example.com", "null-%2500-null@example.com"),
            ("100%@example.com", "100%25@example.com"),
            ("%c3%a9@example.com", "é@example.com"),
            ("%ff@example.com", "%FF@example.com"),
            ("a@[2001:DB8::1]", "a@[2001:db8::1]"),
        ] {
            let aor = Aor::parse(spelling).unwrap();
            assert_eq!(aor.as_str(), canonical, "{spelling}");
            assert_eq!(format!("{}@{}", aor.user(), aor.domain()), canonical);
        }
    }

    #[test]
    fn what_lacks_a_part_is_refused() {
        assert_eq!(Aor::parse("alice"), Err(AorError::NoDomain));
        assert_eq!(Aor::parse("@example.com"), Err(AorError::NoUser));
        for domain in ["", ".", "exa mple.com", "example.com;x=1", "a/b", "é"] {
            assert_eq!(
                Aor::parse(&format!("alice@{domain}")),
                Err(AorError::Domain),
                "{domain}"
            );
        }
    }

    proptest! {
        #[test]
        fn canonical_text_stays_as_it_is(user in prop::collection::vec(any::<u8>(), 1..24)) {
            let once = Aor::from_parts(&user, b"example.com").unwrap();
            prop_assert_eq!(&Aor::parse(once.as_str()).unwrap(), &once);
            prop_assert!(!once.as_str().chars().any(|c| c.is_ascii_control()));
        }

        #[test]
        fn users_that_differ_stay_apart(a in "[ -~]{1,6}", b in "[ -~]{1,6}") {
            prop_assume!(!a.contains('%') && !b.contains('%'));
            let of = |user: &str| Aor::from_parts(user.as_bytes(), b"h").unwrap();
            prop_assert_eq!(of(&a) == of(&b), a == b);
        }
    }
}
