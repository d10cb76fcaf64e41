//! When two URIs are the same: RFC 3261 19.1.4 and RFC 3966 4.

use super::escape::same_escaped;
use super::{Scheme, Uri};
use crate::params::{Param, Params};

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
        matches(param, b.params).unwrap_or_else(|| {
            ![&b"user"[..], b"ttl", b"method", b"maddr", b"transport"]
                .iter()
                .any(|name| param.name.eq_ignore_ascii_case(name))
        })
    })
}

/// Whether one of the parameters of this name has this value, if there is any of
/// this name. A name should not come twice (19.1.1), but does.
fn matches(param: Param<'_>, others: Params<'_>) -> Option<bool> {
    let value = param.value.unwrap_or_default();
    let mut found = None;
    for other in others {
        if same_escaped(param.name, other.name, true) {
            let same = same_escaped(value, other.value.unwrap_or_default(), true);
            found = Some(same || found == Some(true));
        }
    }
    found
}

fn headers_match(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    a.header_pairs().all(|(name, value)| {
        b.header_pairs().any(|(other, other_value)| {
            same_escaped(name, other, true) && same_escaped(value, other_value, false)
        })
    })
}

fn tel_equivalent(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    let is_digit = |b: &u8| !matches!(b, b'-' | b'.' | b'(' | b')');
    let digits = |number: &[u8]| number.iter().copied().filter(is_digit).collect::<Digits>();
    let (x, y) = (
        digits(a.user.unwrap_or_default()),
        digits(b.user.unwrap_or_default()),
    );
    let covered = |x: &Uri<'_>, y: &Uri<'_>| {
        x.params
            .iter()
            .all(|param| matches(param, y.params) == Some(true))
    };
    x.eq_ignore_ascii_case(&y) && covered(a, b) && covered(b, a)
}

type Digits = smallvec::SmallVec<[u8; 32]>;
