//! What is stored of a password, and whose credentials a request names.

use std::fmt;

use sipbox_sip::auth::Credentials;
use sipbox_sip::digest::{Algorithm, ha1};
use sipbox_sip::{HeaderId, Message};

/// The HA1s of one account, as lower-case hexadecimal digits. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Ha1Set {
    /// MD5
    pub md5: Option<Box<str>>,
    /// SHA-256
    pub sha256: Option<Box<str>>,
    /// SHA-512/256
    pub sha512_256: Option<Box<str>>,
}

impl Ha1Set {
    /// The HA1s of a password, all that is ever kept of it.
    #[must_use]
    pub fn of_password(user: &str, realm: &str, password: &str) -> Self {
        let of = |algorithm| {
            let hex = ha1(
                algorithm,
                user.as_bytes(),
                realm.as_bytes(),
                password.as_bytes(),
            );
            std::str::from_utf8(hex.as_bytes()).ok().map(Box::from)
        };
        Self {
            md5: of(Algorithm::Md5),
            sha256: of(Algorithm::Sha256),
            sha512_256: of(Algorithm::Sha512_256),
        }
    }

    /// The HA1 for an algorithm.
    #[must_use]
    pub fn get(&self, algorithm: Algorithm) -> Option<&str> {
        match algorithm {
            Algorithm::Md5 => self.md5.as_deref(),
            Algorithm::Sha256 => self.sha256.as_deref(),
            Algorithm::Sha512_256 => self.sha512_256.as_deref(),
        }
    }
}

impl fmt::Debug for Ha1Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ha1Set")
            .field("md5", &self.md5.is_some())
            .field("sha256", &self.sha256.is_some())
            .field("sha512_256", &self.sha512_256.is_some())
            .finish()
    }
}

/// An account that a request names in its credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamedCredentials {
    /// The user name.
    pub user: String,
    /// The realm.
    pub realm: String,
}

/// The accounts that a request's Authorization and Proxy-Authorization fields
/// name: what is to be fetched before a policy may check them.
pub fn named_credentials<'a>(
    message: &Message<'a>,
) -> impl Iterator<Item = NamedCredentials> + use<'a> {
    let named = |credentials: Credentials<'_>| {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        Some(NamedCredentials {
            user: text(&credentials.username)?,
            realm: text(&credentials.realm)?,
        })
    };
    message
        .credentials(HeaderId::Authorization)
        .chain(message.credentials(HeaderId::ProxyAuthorization))
        .filter_map(named)
}
