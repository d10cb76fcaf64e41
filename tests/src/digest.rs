//! Digest credentials for the small user agent (RFC 3261 section 22, RFC 7616).

use std::fmt::Write as _;

use md5::{Digest as _, Md5};
use sha2::Sha256;

/// A challenge as WWW-Authenticate or Proxy-Authenticate carries it.
#[derive(Debug, Clone)]
pub struct Challenge {
    /// The realm.
    pub realm: String,
    /// The nonce.
    pub nonce: String,
    /// `MD5` unless the challenge names another.
    pub algorithm: String,
    /// Whether `qop=auth` is offered.
    pub qop: bool,
    /// Whether only the nonce was too old.
    pub stale: bool,
}

impl Challenge {
    /// Reads the header value.
    ///
    /// # Panics
    /// When it is no digest challenge with realm and nonce.
    #[must_use]
    pub fn parse(value: &str) -> Self {
        let find = |name: &str| directive(value, name);
        assert!(value.starts_with("Digest "), "no digest challenge: {value}");
        Self {
            realm: find("realm").unwrap_or_else(|| panic!("no realm in {value}")),
            nonce: find("nonce").unwrap_or_else(|| panic!("no nonce in {value}")),
            algorithm: find("algorithm").unwrap_or_else(|| "MD5".to_owned()),
            qop: find("qop").is_some_and(|qop| qop.split(',').any(|word| word.trim() == "auth")),
            stale: find("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        }
    }

    /// The value of the Authorization or Proxy-Authorization header field.
    #[must_use]
    pub fn answer(
        &self,
        user: &str,
        password: &str,
        method: &str,
        uri: &str,
        count: u32,
    ) -> String {
        let hash = |text: String| -> String {
            if self.algorithm.eq_ignore_ascii_case("SHA-256") {
                hex(&Sha256::digest(text.as_bytes()))
            } else {
                hex(&Md5::digest(text.as_bytes()))
            }
        };
        let ha1 = hash(format!("{user}:{}:{password}", self.realm));
        let ha2 = hash(format!("{method}:{uri}"));
        let (nonce, realm) = (&self.nonce, &self.realm);
        let cnonce = format!("{:x}", std::process::id());
        let mut value = format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\""
        );
        let response = if self.qop {
            let _ = write!(value, ", qop=auth, nc={count:08x}, cnonce=\"{cnonce}\"");
            hash(format!("{ha1}:{nonce}:{count:08x}:{cnonce}:auth:{ha2}"))
        } else {
            hash(format!("{ha1}:{nonce}:{ha2}"))
        };
        let _ = write!(
            value,
            ", algorithm={}, response=\"{response}\"",
            self.algorithm
        );
        value
    }
}

fn directive(value: &str, name: &str) -> Option<String> {
    let mut rest = value.strip_prefix("Digest ")?;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let (found, next) = if let Some(quoted) = after.strip_prefix('"') {
            let (found, next) = quoted.split_once('"')?;
            (found, next.split_once(',').map_or("", |(_, next)| next))
        } else {
            after.split_once(',').unwrap_or((after, ""))
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(found.trim().to_owned());
        }
        rest = next;
    }
    None
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 2617 section 3.5, with our client nonce left out.
    #[test]
    fn reads_a_challenge_and_answers_it() {
        let challenge = Challenge::parse(
            "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", nonce=\"dcd98b\", stale=TRUE",
        );
        assert_eq!(challenge.realm, "testrealm@host.com");
        assert!(challenge.qop && challenge.stale);
        let without = Challenge {
            qop: false,
            nonce: "n".into(),
            realm: "r".into(),
            ..challenge
        };
        // MD5 of "MD5(u:r:p):n:MD5(REGISTER:sip:r)", computed with md5sum.
        let answer = without.answer("u", "p", "REGISTER", "sip:r", 1);
        assert!(
            answer.contains("response=\"5790559ba44538767b07fb5adb649909\""),
            "{answer}"
        );
    }
}
