//! When two URIs are the same: RFC 3261 19.1.4 and RFC 3966 4.

use super::escape::same_escaped;
use super::{Scheme, Uri};

/// Whether two URIs are equivalent: sip and sips by RFC 3261 19.1.4, tel by
/// RFC 3966 4, other schemes byte for byte. Not transitive, as 19.1.4 notes.
#[must_use]
pub fn equivalent(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    match (a.scheme, b.scheme) {
        (Scheme::Sip, Scheme::Sip) | (Scheme::Sips, Scheme::Sips) => sip_equivalent(a, b),
        (Scheme::Tel, Scheme::Tel) => tel_equivalent(a, b),
        (Scheme::Other(x), Scheme::Other(y)) => {
            x.eq_ignore_ascii_case(y) && a.raw.get(x.len()..) == b.raw.get(y.len()..)
        }
        _ => false,
    }
}

fn sip_equivalent(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    a.user_eq(b)
        && match (a.password, b.password) {
            (None, None) => true,
            (Some(x), Some(y)) => same_escaped(x, y, false),
            _ => false,
        }
        && a.host.same(&b.host)
        && a.port == b.port
        && params_match(a, b)
        && params_match(b, a)
        && headers_match(a, b)
        && headers_match(b, a)
}

/// Every parameter of `a` has its match in `b`. One that `b` lacks matters only
/// if it is user, ttl, method or maddr, or transport (which 19.1.4's examples show
/// to count as well).
fn params_match(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    a.params.iter().all(|param| {
        match b
            .params
            .iter()
            .find(|other| same_escaped(param.name, other.name, true))
        {
            Some(other) => same_escaped(
                param.value.unwrap_or_default(),
                other.value.unwrap_or_default(),
                true,
            ),
            None => ![&b"user"[..], b"ttl", b"method", b"maddr", b"transport"]
                .iter()
                .any(|name| param.name.eq_ignore_ascii_case(name)),
        }
    })
}

fn headers_match(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    a.header_pairs().all(|(name, value)| {
        b.header_pairs().any(|(other, other_value)| {
            same_escaped(name, other, true) && same_escaped(value, other_value, false)
        })
    })
}

fn tel_equivalent(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    let digits = |uri: &Uri<'_>| -> Vec<u8> {
        let number = uri.user.unwrap_or_default().iter();
        number
            .filter(|b| !matches!(b, b'-' | b'.' | b'(' | b')'))
            .map(u8::to_ascii_lowercase)
            .collect()
    };
    let covered = |x: &Uri<'_>, y: &Uri<'_>| {
        x.params.iter().all(|param| {
            y.params.find(param.name).is_some_and(|other| {
                let (v, w) = (
                    param.value.unwrap_or_default(),
                    other.value.unwrap_or_default(),
                );
                same_escaped(v, w, true)
            })
        })
    };
    digits(a) == digits(b) && covered(a, b) && covered(b, a)
}
