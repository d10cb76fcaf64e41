//! Addresses in header values: `name-addr` and `addr-spec` with the parameters
//! behind them (From, To, Contact, Route, Record-Route, Path, Refer-To, ...).

use std::borrow::Cow;

use nom::Parser;
use nom::bytes::complete::{tag, take_till, take_till1, take_while};
use nom::combinator::{all_consuming, recognize};
use nom::sequence::{delimited, terminated};

use crate::error::ValueError;
use crate::lex::{self, Parsed};
use crate::ordinary;
use crate::params::Params;
use crate::uri::Uri;

/// One address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The display name as written, quotes included.
    pub display: Option<&'a [u8]>,
    /// The URI.
    pub uri: Uri<'a>,
    /// Whether the URI stands in angle brackets.
    pub bracketed: bool,
    /// The header parameters.
    pub params: Params<'a>,
    /// Every message asks for it twice or more.
    tag: Option<&'a [u8]>,
}

impl<'a> NameAddr<'a> {
    /// Reads one address that fills `value`.
    ///
    /// Without angle brackets everything behind the first semicolon belongs to
    /// the header, and the URI may have neither a comma nor a question mark
    /// (RFC 3261 20.10).
    ///
    /// # Errors
    /// When the value breaks its grammar.
    pub fn parse(value: &'a [u8]) -> Result<Self, ValueError> {
        let value = lex::trim(value);
        match ordinary::address(value) {
            Some(address) => Ok(address),
            None => Self::by_grammar(value),
        }
    }

    pub(crate) fn by_grammar(value: &'a [u8]) -> Result<Self, ValueError> {
        let malformed = |_| ValueError::Malformed("address");
        let (_, raw) = all_consuming(address).parse(value).map_err(malformed)?;
        let params = Params::new(raw.params);
        Ok(Self {
            display: raw.display,
            uri: Uri::parse(raw.uri)?,
            bracketed: raw.bracketed,
            params,
            tag: params.get(b"tag"),
        })
    }

    /// An address in angle brackets, read elsewhere; `tag` is its first parameter of
    /// that name.
    pub(crate) fn bracketed(
        display: Option<&'a [u8]>,
        uri: Uri<'a>,
        params: Params<'a>,
        tag: Option<&'a [u8]>,
    ) -> Self {
        Self {
            display,
            uri,
            bracketed: true,
            params,
            tag,
        }
    }

    /// The URI's bytes.
    #[must_use]
    pub fn uri_raw(&self) -> &'a [u8] {
        self.uri.raw
    }

    /// The display name without quotes and backslashes.
    #[must_use]
    pub fn display_name(&self) -> Option<Cow<'a, [u8]>> {
        self.display.map(lex::unquote)
    }

    /// The `tag` parameter.
    #[must_use]
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.tag.filter(|tag| !tag.is_empty())
    }

    /// The `q` parameter in thousandths; `None` when it is missing or malformed.
    #[must_use]
    pub fn q(&self) -> Option<u16> {
        q_value(self.params.get(b"q")?)
    }

    /// The `expires` parameter in seconds. A malformed one counts as 3600
    /// (RFC 3261 10.2.1.1), one beyond 32 bits as the largest.
    #[must_use]
    pub fn expires(&self) -> Option<u32> {
        self.params
            .get(b"expires")
            .map(|value| lex::delta_seconds(value).unwrap_or(3600))
    }

    /// The `+sip.instance` parameter without quotes (RFC 5626 4.1).
    #[must_use]
    pub fn instance(&self) -> Option<Cow<'a, [u8]>> {
        self.params.get(b"+sip.instance").map(lex::unquote)
    }

    /// The `reg-id` parameter (RFC 5626 4.2); 0 and malformed ones count as none.
    #[must_use]
    pub fn reg_id(&self) -> Option<u32> {
        let value = lex::decimal(self.params.get(b"reg-id")?)?;
        u32::try_from(value)
            .ok()
            .filter(|id| (1..=i32::MAX as u32).contains(id))
    }
}

/// One element of a Contact header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "lives on the stack while it is read, and is hardly ever the star"
)]
pub enum Contact<'a> {
    /// `*`: all bindings (RFC 3261 10.2.2).
    Star,
    /// An address.
    Addr(NameAddr<'a>),
}

impl<'a> Contact<'a> {
    /// Reads one element.
    ///
    /// # Errors
    /// When it is neither a star nor an address.
    pub fn parse(value: &'a [u8]) -> Result<Self, ValueError> {
        match lex::trim(value) {
            b"*" => Ok(Self::Star),
            value => NameAddr::parse(value).map(Self::Addr),
        }
    }

    /// The address, unless it is the star.
    #[must_use]
    pub fn addr(&self) -> Option<&NameAddr<'a>> {
        match self {
            Self::Star => None,
            Self::Addr(addr) => Some(addr),
        }
    }
}

/// `qvalue` in thousandths: `0`, `0.5`, `1.000`. Digits beyond the third are cut.
#[must_use]
pub fn q_value(value: &[u8]) -> Option<u16> {
    let (whole, fraction) = match memchr::memchr(b'.', value) {
        Some(at) => (value.get(..at)?, value.get(at + 1..)?),
        None => (value, &b""[..]),
    };
    let whole = match whole {
        b"0" | b"" if !value.is_empty() => 0,
        b"1" => 1000,
        _ => return None,
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction
        .iter()
        .copied()
        .chain(std::iter::repeat(b'0'))
        .take(3);
    let thousandths = digits.fold(0u16, |n, b| n * 10 + u16::from(b - b'0'));
    Some(whole + thousandths).filter(|q| *q <= 1000)
}

struct Raw<'a> {
    display: Option<&'a [u8]>,
    uri: &'a [u8],
    bracketed: bool,
    params: &'a [u8],
}

fn address(input: &[u8]) -> Parsed<'_, Raw<'_>> {
    let (input, (display, uri, bracketed)) = match name_addr(input) {
        Ok((rest, (display, uri))) => (rest, (display, uri, true)),
        Err(_) => {
            let (rest, uri) = addr_spec(input)?;
            (rest, (None, uri, false))
        }
    };
    let (input, params) = terminated(lex::header_params, lex::lws0).parse(input)?;
    Ok((
        input,
        Raw {
            display,
            uri,
            bracketed,
            params,
        },
    ))
}

type Named<'a> = (Option<&'a [u8]>, &'a [u8]);

fn name_addr(input: &[u8]) -> Parsed<'_, Named<'_>> {
    let (input, display) = match lex::quoted_string(input) {
        Ok((rest, quoted)) => (rest, Some(quoted)),
        Err(_) => {
            let (rest, words) = recognize(take_while(is_display_byte)).parse(input)?;
            let words = lex::trim(words);
            (rest, (!words.is_empty()).then_some(words))
        }
    };
    let inside = take_till1(|b| b == b'>' || b == b'<');
    let (input, _) = lex::lws0(input)?;
    let (input, uri) = delimited(tag(&b"<"[..]), inside, tag(&b">"[..])).parse(input)?;
    Ok((input, (display, uri)))
}

// Tokens and white space; bytes above 127 although unquoted UTF-8 is no token,
// since phones send names so and nothing is ambiguous about it.
fn is_display_byte(b: u8) -> bool {
    lex::is_token_byte(b) || lex::is_lws_byte(b) || b >= 0x80
}

fn addr_spec(input: &[u8]) -> Parsed<'_, &[u8]> {
    let (rest, uri) =
        take_till(|b| lex::is_lws_byte(b) || matches!(b, b';' | b'<' | b'>')).parse(input)?;
    if uri.is_empty() || uri.iter().any(|b| matches!(b, b',' | b'?')) {
        return Err(nom::Err::Error(()));
    }
    Ok((rest, uri))
}
