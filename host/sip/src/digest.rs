//! The arithmetic of Digest authentication (RFC 7616, RFC 8760): hashes of given
//! strings. Nonces, their lifetime and their counts are not kept here.

use md5::Md5;
use sha2::{Sha256, Sha512_256};
use subtle::ConstantTimeEq as _;

/// A digest algorithm that RFC 8760 registers for SIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// MD5, for older phones.
    Md5,
    /// SHA-256.
    Sha256,
    /// SHA-512/256.
    Sha512_256,
}

impl Algorithm {
    /// Recognises an `algorithm` parameter; the session variants are not offered.
    #[must_use]
    pub fn from_token(token: &[u8]) -> Option<Self> {
        [Self::Md5, Self::Sha256, Self::Sha512_256]
            .into_iter()
            .find(|algorithm| algorithm.token().as_bytes().eq_ignore_ascii_case(token))
    }

    /// The token of the `algorithm` parameter.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha512_256 => "SHA-512-256",
        }
    }

    /// The hash of the parts in a row, as lower-case hexadecimal digits.
    #[must_use]
    pub fn hash(self, parts: &[&[u8]]) -> Hex {
        match self {
            Self::Md5 => hash_with::<Md5>(parts),
            Self::Sha256 => hash_with::<Sha256>(parts),
            Self::Sha512_256 => hash_with::<Sha512_256>(parts),
        }
    }
}

/// A hash as lower-case hexadecimal digits, kept in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex {
    digits: [u8; 64],
    len: u8,
}

impl Hex {
    fn new(hash: &[u8]) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(hash) {
            for (digit, nibble) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
                *digit = HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            }
        }
        Self {
            digits,
            len: u8::try_from(hash.len() * 2).unwrap_or(64).min(64),
        }
    }

    /// The digits.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.digits.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Compares with what a peer sent, in constant time for equal lengths and
    /// without regard to the case of the digits.
    #[must_use]
    pub fn matches(&self, given: &[u8]) -> bool {
        let mut lower = [0; 64];
        let Some(target) = lower.get_mut(..given.len()) else {
            return false;
        };
        for (to, from) in target.iter_mut().zip(given) {
            *to = from.to_ascii_lowercase();
        }
        self.as_bytes().ct_eq(target).into()
    }
}

impl AsRef<[u8]> for Hex {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// What a client answers a challenge with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// The request's method token.
    pub method: &'a [u8],
    /// The `uri` parameter as sent.
    pub uri: &'a [u8],
    /// The `nonce` parameter.
    pub nonce: &'a [u8],
    /// The `nc` parameter's digits.
    pub nc: &'a [u8],
    /// The `cnonce` parameter.
    pub cnonce: &'a [u8],
    /// The `qop` parameter; `None` is the form of RFC 2069.
    pub qop: Option<&'a [u8]>,
    /// The request's body, which `auth-int` covers.
    pub body: &'a [u8],
}

/// H(A1): the hash of `user:realm:password`, which is all that is ever stored.
#[must_use]
pub fn ha1(algorithm: Algorithm, user: &[u8], realm: &[u8], password: &[u8]) -> Hex {
    algorithm.hash(&[user, b":", realm, b":", password])
}

/// The `response` that a client with this H(A1) must send (RFC 7616 3.4.1).
#[must_use]
pub fn response(algorithm: Algorithm, ha1: &[u8], answer: &Answer<'_>) -> Hex {
    let integrity = answer
        .qop
        .is_some_and(|qop| qop.eq_ignore_ascii_case(b"auth-int"));
    let ha2 = if integrity {
        let body = algorithm.hash(&[answer.body]);
        algorithm.hash(&[answer.method, b":", answer.uri, b":", body.as_bytes()])
    } else {
        algorithm.hash(&[answer.method, b":", answer.uri])
    };
    let ha2 = ha2.as_bytes();
    match answer.qop {
        Some(qop) => algorithm.hash(&[
            ha1,
            b":",
            answer.nonce,
            b":",
            answer.nc,
            b":",
            answer.cnonce,
            b":",
            qop,
            b":",
            ha2,
        ]),
        None => algorithm.hash(&[ha1, b":", answer.nonce, b":", ha2]),
    }
}

/// Compares secrets in constant time for equal lengths.
#[must_use]
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

fn hash_with<H: sha2::Digest>(parts: &[&[u8]]) -> Hex {
    let mut hash = H::new();
    for part in parts {
        hash.update(part);
    }
    Hex::new(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7616 3.9.1, the MD5 and the SHA-256 answer.
    #[test]
    fn answers_of_rfc_7616() {
        let answer = Answer {
            method: b"GET",
            uri: b"/dir/index.html",
            nonce: b"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            nc: b"00000001",
            cnonce: b"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            qop: Some(b"auth"),
            body: b"",
        };
        let cases = [
            (Algorithm::Md5, &b"8ca523f5e9506fed4657c9700eebdbec"[..]),
            (
                Algorithm::Sha256,
                b"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
        ];
        for (algorithm, expected) in cases {
            let ha1 = ha1(
                algorithm,
                b"Mufasa",
                b"http-auth@example.org",
                b"Circle of Life",
            );
            let hex = response(algorithm, ha1.as_bytes(), &answer);
            assert_eq!(hex.as_bytes(), expected, "{algorithm:?}");
            assert!(hex.matches(&expected.to_ascii_uppercase()));
            assert!(!hex.matches(&expected[1..]));
            assert!(!hex.matches(&[b'a'; 65]));
        }
    }

    /// RFC 2617 3.5's figures without qop, as RFC 2069 computes them.
    #[test]
    fn without_qop_the_old_form_holds() {
        let ha1 = ha1(
            Algorithm::Md5,
            b"Mufasa",
            b"testrealm@host.com",
            b"Circle Of Life",
        );
        assert_eq!(ha1.as_bytes(), b"939e7578ed9e3c518a452acee763bce9");
        let answer = Answer {
            method: b"GET",
            uri: b"/dir/index.html",
            nonce: b"dcd98b7102dd2f0e8b11d0f600bfb0c093",
            ..Answer::default()
        };
        let hex = response(Algorithm::Md5, ha1.as_bytes(), &answer);
        assert_eq!(hex.as_bytes(), b"670fd8c2df070c60b045671b8b24ff02");
    }

    #[test]
    fn the_body_counts_only_with_auth_int() {
        let ha1 = ha1(Algorithm::Sha512_256, b"u", b"r", b"p");
        let with = |qop, body| {
            response(
                Algorithm::Sha512_256,
                ha1.as_bytes(),
                &Answer {
                    qop,
                    body,
                    ..Answer::default()
                },
            )
        };
        assert_eq!(with(Some(b"auth"), b"a"), with(Some(b"auth"), b"b"));
        assert_ne!(with(Some(b"auth-int"), b"a"), with(Some(b"auth-int"), b"b"));
    }
}
