//! The headers of HTTP authentication as SIP uses them (RFC 3261 20.7, 20.27,
//! 20.28, 20.44; RFC 7616): a scheme and its parameters. The arithmetic is in
//! `digest`; who may do what is decided elsewhere.

use std::borrow::Cow;

use nom::Parser;
use nom::bytes::complete::{tag, take_while1};
use nom::combinator::all_consuming;
use nom::multi::many0_count;
use nom::sequence::{preceded, terminated};

use crate::error::ValueError;
use crate::lex::{self, Parsed};

/// A challenge or credentials: scheme and parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthParams<'a> {
    /// The scheme, such as `Digest`.
    pub scheme: &'a [u8],
    params: &'a [u8],
}

impl<'a> AuthParams<'a> {
    /// Reads a value of the Authorization family. Parameters of schemes other
    /// than Digest are kept unread (RFC 4475 3.3.7).
    ///
    /// # Errors
    /// When there is no scheme, or the parameters of Digest break the grammar.
    pub fn parse(value: &'a [u8]) -> Result<Self, ValueError> {
        let malformed = |_| ValueError::Malformed("credentials");
        let (params, scheme) = terminated(lex::token, lex::lws0)
            .parse(lex::trim(value))
            .map_err(malformed)?;
        let parsed = Self { scheme, params };
        if parsed.is_digest() {
            all_consuming(auth_params)
                .parse(params)
                .map_err(malformed)?;
        }
        Ok(parsed)
    }

    /// Whether the scheme is Digest.
    #[must_use]
    pub fn is_digest(&self) -> bool {
        self.scheme.eq_ignore_ascii_case(b"Digest")
    }

    /// The parameters as pairs of name and raw value, quotes included.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.params;
        std::iter::from_fn(move || {
            let (after, pair) = auth_param(rest).ok()?;
            rest = lex::separator(b",")(after).map_or(&b""[..], |(after, _)| after);
            Some(pair)
        })
    }

    /// A parameter's value as written, quotes included.
    #[must_use]
    pub fn raw(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// A parameter's value without quotes and backslashes.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<Cow<'a, [u8]>> {
        self.raw(name).map(lex::unquote)
    }
}

/// The credentials of one Digest answer (RFC 7616 3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// `username`
    pub username: Cow<'a, [u8]>,
    /// `realm`
    pub realm: Cow<'a, [u8]>,
    /// `nonce`
    pub nonce: Cow<'a, [u8]>,
    /// `uri`
    pub uri: Cow<'a, [u8]>,
    /// `response`, hexadecimal digits
    pub response: Cow<'a, [u8]>,
    /// `algorithm`; absent means MD5
    pub algorithm: Option<Cow<'a, [u8]>>,
    /// `cnonce`
    pub cnonce: Option<Cow<'a, [u8]>>,
    /// `nc` as the eight digits that enter the digest
    pub nc: Option<Cow<'a, [u8]>>,
    /// `qop`
    pub qop: Option<Cow<'a, [u8]>>,
    /// `opaque`
    pub opaque: Option<Cow<'a, [u8]>>,
}

impl<'a> Credentials<'a> {
    /// Reads the value of an Authorization or Proxy-Authorization field.
    ///
    /// # Errors
    /// When the scheme is not Digest or a mandatory parameter is missing.
    pub fn parse(value: &'a [u8]) -> Result<Self, ValueError> {
        let params = AuthParams::parse(value)?;
        if !params.is_digest() {
            return Err(ValueError::Malformed("digest credentials"));
        }
        let must = |name: &[u8]| {
            params
                .get(name)
                .ok_or(ValueError::Malformed("digest credentials"))
        };
        Ok(Self {
            username: must(b"username")?,
            realm: must(b"realm")?,
            nonce: must(b"nonce")?,
            uri: must(b"uri")?,
            response: must(b"response")?,
            algorithm: params.get(b"algorithm"),
            cnonce: params.get(b"cnonce"),
            nc: params.get(b"nc"),
            qop: params.get(b"qop"),
            opaque: params.get(b"opaque"),
        })
    }

    /// `nc` as a number: eight hexadecimal digits (RFC 7616 3.4).
    #[must_use]
    pub fn nonce_count(&self) -> Option<u32> {
        let digits = self.nc.as_deref().filter(|nc| nc.len() == 8)?;
        digits
            .iter()
            .try_fold(0u32, |n, b| Some(n << 4 | char::from(*b).to_digit(16)?))
    }
}

fn auth_params(input: &[u8]) -> Parsed<'_, ()> {
    let (input, _) = auth_param(input)?;
    let (input, _) = many0_count(preceded(lex::separator(b","), auth_param)).parse(input)?;
    Ok((input, ()))
}

fn auth_param(input: &[u8]) -> Parsed<'_, (&[u8], &[u8])> {
    let (input, name) =
        terminated(lex::token, (lex::lws0, tag(&b"="[..]), lex::lws0)).parse(input)?;
    // Unquoted values are tokens; '/' and ':' and '=' are let through, since
    // phones leave the quotes off URIs and base64.
    let bare = take_while1(|b| lex::is_token_byte(b) || matches!(b, b'/' | b':' | b'=' | b'@'));
    let (input, value) = nom::branch::alt((lex::quoted_string, bare)).parse(input)?;
    Ok((input, (name, value)))
}
