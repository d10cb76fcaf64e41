//! Where the parts of an ordinary URI or address stand, in one pass over its
//! bytes. What is not ordinary (escapes, passwords, folds, token display names,
//! IPv6, other schemes, broken values) is left to `sipbox-sip`'s parsers: a
//! property test holds that both say the same wherever this one speaks.
//!
//! The view asks for four addresses of each message; through the full grammar
//! that was more than half of what the sandbox cost above bare wasmtime.

use std::ops::Range;

/// Parts of a sip or sips URI, as offsets from its first byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UriParts {
    pub(crate) scheme: usize,
    pub(crate) user: Option<Range<usize>>,
    pub(crate) host: Range<usize>,
    pub(crate) port: Option<Range<usize>>,
    /// Without the first semicolon; empty where there is none.
    pub(crate) params: Range<usize>,
}

/// Parts of an address, as offsets from the value's first byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AddressParts {
    pub(crate) display: Option<Range<usize>>,
    pub(crate) uri: Range<usize>,
    /// Offsets from the URI's first byte.
    pub(crate) parts: UriParts,
    pub(crate) tag: Option<Range<usize>>,
}

const USER: u8 = 1;
const HOST: u8 = 2;
const PARAM: u8 = 4;
const QUOTED: u8 = 8;
const TOKEN: u8 = 16;

static CLASSES: [u8; 256] = classes();

#[allow(
    clippy::indexing_slicing,
    reason = "runs at compile time, where a bad index is an error"
)]
const fn classes() -> [u8; 256] {
    let mut classes = [0u8; 256];
    let mut b = 0usize;
    while b < 256 {
        let byte = b as u8;
        if byte.is_ascii_alphanumeric() {
            classes[b] |= USER | HOST | PARAM;
        }
        if matches!(byte, b'-' | b'_' | b'.') {
            classes[b] |= USER | HOST | PARAM;
        }
        if matches!(byte, b'+' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')') {
            classes[b] |= USER | PARAM;
        }
        if matches!(byte, b'=' | b';' | b'/' | b':' | b'&' | b'$') {
            classes[b] |= PARAM;
        }
        if byte >= b' ' && byte < 0x7f && byte != b'"' && byte != b'\\' {
            classes[b] |= QUOTED;
        }
        // `token` of RFC 3261 section 25.1.
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~'
            )
        {
            classes[b] |= TOKEN;
        }
        b += 1;
    }
    classes
}

#[inline]
fn is(byte: u8, class: u8) -> bool {
    CLASSES
        .get(usize::from(byte))
        .is_some_and(|classes| classes & class != 0)
}

/// How many bytes from `from` on are of a class.
#[inline]
fn run(bytes: &[u8], from: usize, class: u8) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    rest.iter()
        .position(|b| !is(*b, class))
        .unwrap_or(rest.len())
}

/// The parts of an ordinary sip or sips URI that fills `bytes`.
pub(crate) fn uri(bytes: &[u8]) -> Option<UriParts> {
    let scheme = match bytes {
        [b's', b'i', b'p', b':', ..] => 3,
        [b's', b'i', b'p', b's', b':', ..] => 4,
        _ => return None,
    };
    let (user, host, mut at) = user_and_host(bytes, scheme + 1)?;
    let mut port = None;
    if bytes.get(at) == Some(&b':') {
        let digits = bytes
            .iter()
            .skip(at + 1)
            .take_while(|b| b.is_ascii_digit())
            .count();
        let range = at + 1..at + 1 + digits;
        let number = bytes
            .get(range.clone())?
            .iter()
            .try_fold(0u32, |n, digit| {
                n.checked_mul(10)?.checked_add(u32::from(digit - b'0'))
            })?;
        if digits == 0 || !(1..=65535).contains(&number) {
            return None;
        }
        at = range.end;
        port = Some(range);
    }
    let params = match bytes.get(at..)? {
        [] => at..at,
        [b';', rest @ ..] => {
            let mut before = b';';
            for &byte in rest {
                // A parameter has a name.
                if !is(byte, PARAM) || (before == b';' && matches!(byte, b';' | b'=')) {
                    return None;
                }
                before = byte;
            }
            if before == b';' {
                return None;
            }
            at + 1..bytes.len()
        }
        _ => return None,
    };
    Some(UriParts {
        scheme,
        user,
        host,
        port,
        params,
    })
}

/// Whether `bytes` are an ordinary `user@host`.
pub(crate) fn is_user_at_host(bytes: &[u8]) -> bool {
    user_and_host(bytes, 0).is_some_and(|(user, _, end)| user.is_some() && end == bytes.len())
}

type UserAndHost = (Option<Range<usize>>, Range<usize>, usize);

/// The user, the host, and where the host ends.
fn user_and_host(bytes: &[u8], from: usize) -> Option<UserAndHost> {
    let end = from + run(bytes, from, USER);
    let (user, host) = if bytes.get(end) == Some(&b'@') {
        (Some(from..end), end + 1)
    } else {
        (None, from)
    };
    if user.as_ref().is_some_and(Range::is_empty) {
        return None;
    }
    let end = host + run(bytes, host, HOST);
    // A second '@', an escape or a password is met by what follows: none of
    // them can stand in a port or in parameters as they are read here.
    let name = bytes.get(host..end)?;
    let mut before = b'.';
    let mut number = true;
    for &byte in name {
        if byte == b'.' && before == b'.' {
            return None;
        }
        number &= byte == b'.' || byte.is_ascii_digit();
        before = byte;
    }
    if name.is_empty()
        || (number
            && std::str::from_utf8(name)
                .ok()?
                .parse::<std::net::Ipv4Addr>()
                .is_err())
    {
        return None;
    }
    Some((user, host..end, end))
}

/// The parts of an ordinary `"display" <uri>;params` that fills `bytes`, or
/// stands in front of a comma where `list` allows one.
pub(crate) fn address(bytes: &[u8], list: bool) -> Option<AddressParts> {
    let mut at = 0;
    let mut display = None;
    if bytes.first() == Some(&b'"') {
        let inside = run(bytes, 1, QUOTED);
        let end = inside + 2;
        if bytes.get(inside + 1) != Some(&b'"') {
            return None;
        }
        display = Some(0..end);
        at = end + bytes.iter().skip(end).take_while(|b| **b == b' ').count();
    }
    if bytes.get(at) != Some(&b'<') {
        return None;
    }
    let start = at + 1;
    let length = bytes.iter().skip(start).position(|b| *b == b'>')?;
    let range = start..start + length;
    let parts = uri(bytes.get(range.clone())?)?;
    let tag = params(bytes, range.end + 1, list)?;
    Some(AddressParts {
        display,
        uri: range,
        parts,
        tag,
    })
}

/// Checks the header parameters from `at` on, and finds the first `tag`.
fn params(bytes: &[u8], mut at: usize, list: bool) -> Option<Option<Range<usize>>> {
    let mut tag: Option<Range<usize>> = None;
    let mut seen = false;
    loop {
        match bytes.get(at) {
            None => break,
            Some(b',') if list => break,
            Some(b';') => {}
            Some(_) => return None,
        }
        let name = at + 1..at + 1 + run(bytes, at + 1, TOKEN);
        let named = bytes.get(name.clone())?;
        if named.is_empty() {
            return None;
        }
        at = name.end;
        let mut value = at..at;
        if bytes.get(at) == Some(&b'=') {
            let from = at + 1;
            let end = if bytes.get(from) == Some(&b'"') {
                let inside = run(bytes, from + 1, QUOTED);
                if bytes.get(from + 1 + inside) != Some(&b'"') {
                    return None;
                }
                from + inside + 2
            } else {
                let end = from + run(bytes, from, TOKEN);
                if end == from {
                    return None;
                }
                end
            };
            value = from..end;
            at = end;
        }
        if !seen && named.eq_ignore_ascii_case(b"tag") {
            seen = true;
            tag = (!value.is_empty()).then_some(value);
        }
    }
    Some(tag)
}

#[cfg(test)]
mod tests {
    use sipbox_sip::{NameAddr, Scheme, Uri};

    use super::*;

    fn part(whole: &[u8], range: Range<usize>) -> &[u8] {
        &whole[range]
    }

    fn same_uri(bytes: &[u8], parts: &UriParts) {
        let shown = String::from_utf8_lossy(bytes);
        let uri = Uri::parse(bytes).unwrap_or_else(|e| panic!("{shown}: {e}"));
        let scheme = if parts.scheme == 3 {
            Scheme::Sip
        } else {
            Scheme::Sips
        };
        assert_eq!(uri.scheme, scheme, "{shown}");
        assert_eq!(
            uri.user,
            parts.user.clone().map(|r| part(bytes, r)),
            "{shown}"
        );
        assert_eq!(uri.password, None, "{shown}");
        assert_eq!(uri.host_raw, part(bytes, parts.host.clone()), "{shown}");
        let port = parts.port.clone().map(|r| part(bytes, r));
        let port = port.map(|p| std::str::from_utf8(p).unwrap().parse().unwrap());
        assert_eq!(uri.port, port, "{shown}");
        let params = uri.params.raw();
        let params = params.strip_prefix(b";").unwrap_or(params);
        assert_eq!(params, part(bytes, parts.params.clone()), "{shown}");
        assert!(uri.headers.is_empty(), "{shown}");
    }

    fn same_address(bytes: &[u8], parts: &AddressParts) {
        let shown = String::from_utf8_lossy(bytes);
        let address = NameAddr::parse(bytes).unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert_eq!(
            address.display,
            parts.display.clone().map(|r| part(bytes, r)),
            "{shown}"
        );
        assert_eq!(address.uri.raw, part(bytes, parts.uri.clone()), "{shown}");
        assert_eq!(
            address.tag(),
            parts.tag.clone().map(|r| part(bytes, r)),
            "{shown}"
        );
        same_uri(address.uri.raw, &parts.parts);
    }

    #[test]
    fn ordinary_values_take_the_quick_way() {
        for text in [
            "sip:bob@example.org",
            "sips:bob@example.org:5061;transport=tls;lr",
            "sip:192.0.2.1:5060",
            "sip:+4930123@10.0.0.1;user=phone",
            "sip:example.org.",
        ] {
            same_uri(
                text.as_bytes(),
                &uri(text.as_bytes()).unwrap_or_else(|| panic!("{text}")),
            );
        }
        for text in [
            "<sip:bob@example.org>",
            "\"Alice A.\" <sip:alice@example.org>;tag=9fxced76sl",
            "<sip:a@b>;expires=60;+sip.instance=\"<urn:uuid:0C67446E>\";tag=x;TAG=y",
        ] {
            let parts = address(text.as_bytes(), false).unwrap_or_else(|| panic!("{text}"));
            same_address(text.as_bytes(), &parts);
        }
        assert!(address(b"<sip:a@b>;q=1,<sip:c@d>", true).is_some());
        assert!(is_user_at_host(b"bob@example.org") && !is_user_at_host(b"bob@example.org;x"));
    }

    /// Texts put together from pieces at random: ordinary ones and broken ones.
    struct Texts(u64);

    impl Texts {
        fn pick<'a>(&mut self, pieces: &[&'a str]) -> &'a str {
            // Xorshift: the same texts in every run.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            // The first is the ordinary one; half of the time it is taken.
            let at = (self.0 >> 33) as usize % (2 * pieces.len());
            pieces
                .get(at)
                .or(pieces.first())
                .copied()
                .unwrap_or_default()
        }

        fn uri(&mut self) -> String {
            let scheme = self.pick(&["sip:", "sip:", "sip:", "sips:", "SIP:", "tel:", ""]);
            let user = self.pick(&[
                "",
                "bob@",
                "b.o-b@",
                "+49(30)1@",
                "a%41@",
                "a:b@",
                "@",
                "a@b@",
                "a;b@",
                "a?b@",
                "a=1@",
                "\u{e4}@",
            ]);
            let host = self.pick(&[
                "example.org",
                "a",
                "a.",
                ".",
                "a..b",
                ".a",
                "-",
                "_x.y",
                "192.0.2.1",
                "1.2.3",
                "256.1.1.1",
                "1.2.3.4.",
                "[::1]",
                "",
                "01.2.3.4",
                "ex%61mple.org",
            ]);
            let port = self.pick(&["", "", ":5060", ":0", ":65536", ":", ":00005060", ":5a"]);
            let tail = self.pick(&[
                "",
                "",
                ";lr",
                ";transport=tcp;lr",
                ";",
                ";;lr",
                ";=x",
                ";a==b",
                ";x=%41",
                "?a=b",
                ";m=a@b",
                " ",
                ";a=<b>",
                ";a=\"b\"",
            ]);
            format!("{scheme}{user}{host}{port}{tail}")
        }

        fn address(&mut self) -> String {
            let display = self.pick(&[
                "",
                "",
                "\"Alice A.\" ",
                "\"\"",
                "\"a\"  ",
                "Bob ",
                "\"a\\\"b\" ",
                "\"open ",
                "\"<a>\"",
                "\"t\"\t",
            ]);
            let uri = self.uri();
            let (open, close) = if self.pick(&["y", "y", "y", "n"]) == "y" {
                ("<", ">")
            } else {
                ("", "")
            };
            let mut text = format!("{display}{open}{uri}{close}");
            for _ in 0..2 {
                text.push_str(self.pick(&[
                    "",
                    "",
                    ";tag=1x",
                    ";TAG=y",
                    ";tag",
                    ";tag=",
                    ";a=\"b;c\"",
                    ";a=\"b\\\"c\"",
                    ";=x",
                    ";",
                    " ;tag=z",
                    ";tag = z",
                    ";a=[::1]",
                    ";a=b,c",
                    ",<sip:x@y>",
                    "x",
                    ";tag=\"q\"",
                ]));
            }
            text
        }
    }

    #[test]
    fn both_ways_say_the_same() {
        let mut texts = Texts(0x9e37_79b9_7f4a_7c15);
        let mut quick = 0;
        for _ in 0..50_000 {
            let text = texts.uri();
            if let Some(parts) = uri(text.as_bytes()) {
                same_uri(text.as_bytes(), &parts);
                quick += 1;
            }
            let text = texts.address();
            if let Some(parts) = address(text.as_bytes(), false) {
                same_address(text.as_bytes(), &parts);
                quick += 1;
            }
        }
        assert!(quick > 1000, "only {quick} were ordinary");
    }

    #[test]
    fn no_bytes_do_harm() {
        let mut texts = Texts(7);
        for _ in 0..10_000 {
            let mut bytes = texts.address().into_bytes();
            // A byte changed, and every beginning of it.
            let at = texts.0 as usize % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = (texts.0 >> 40) as u8;
            }
            for end in 0..=bytes.len() {
                let part = &bytes[..end];
                let _ = (uri(part), address(part, true), is_user_at_host(part));
            }
            if let Some(parts) = address(&bytes, false) {
                same_address(&bytes, &parts);
            }
        }
    }
}
