//! Parameters behind semicolons, of URIs and of header values alike: read lazily
//! from the bytes, never collected.

use crate::lex;

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// Its name as written.
    pub name: &'a [u8],
    /// What follows the equals sign, quotes included; `None` without one.
    pub value: Option<&'a [u8]>,
}

/// The parameters of a URI or header value, as the bytes that hold them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params<'a> {
    raw: &'a [u8],
}

impl<'a> Params<'a> {
    /// Parameters from bytes that start at their first semicolon (or are empty),
    /// white space around them aside.
    #[must_use]
    pub fn new(raw: &'a [u8]) -> Self {
        Self {
            raw: lex::trim(raw),
        }
    }

    /// Parameters from bytes that have no white space at their ends.
    pub(crate) const fn exact(raw: &'a [u8]) -> Self {
        Self { raw }
    }

    /// The bytes, from the first semicolon on.
    #[must_use]
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// The parameters in their order.
    #[must_use]
    pub fn iter(self) -> ParamsIter<'a> {
        ParamsIter { rest: self.raw }
    }

    /// The first parameter of that name (case-insensitive).
    #[must_use]
    pub fn find(self, name: &[u8]) -> Option<Param<'a>> {
        if memchr::memchr3(b'"', b' ', b'\t', self.raw).is_some() {
            return self
                .iter()
                .find(|param| param.name.eq_ignore_ascii_case(name));
        }
        self.find_plain(name)
    }

    /// The same among parameters without quotes and white space, as most are: only their
    /// beginnings are looked at.
    fn find_plain(self, name: &[u8]) -> Option<Param<'a>> {
        let mut rest = self.raw;
        while !rest.is_empty() {
            let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
            let param = rest.get(..end)?;
            rest = rest.get(end + 1..).unwrap_or_default();
            let Some((found, tail)) = param.split_at_checked(name.len()) else {
                continue;
            };
            let value = match tail {
                [] => None,
                [b'=', value @ ..] => Some(value),
                _ => continue,
            };
            let is_name = !found.is_empty() && !found.contains(&b'=');
            if is_name && found.eq_ignore_ascii_case(name) {
                return Some(Param { name: found, value });
            }
        }
        None
    }

    /// The value of the first parameter of that name; empty for one without value.
    #[must_use]
    pub fn get(self, name: &[u8]) -> Option<&'a [u8]> {
        self.find(name).map(|param| param.value.unwrap_or_default())
    }

    /// Whether there is a parameter of that name.
    #[must_use]
    pub fn has(self, name: &[u8]) -> bool {
        self.find(name).is_some()
    }

    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }
}

impl<'a> IntoIterator for Params<'a> {
    type Item = Param<'a>;
    type IntoIter = ParamsIter<'a>;

    fn into_iter(self) -> ParamsIter<'a> {
        self.iter()
    }
}

/// Walks the parameters.
#[derive(Clone, Debug)]
pub struct ParamsIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for ParamsIter<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        loop {
            self.rest = lex::trim_start(self.rest);
            self.rest = self.rest.strip_prefix(b";").unwrap_or(self.rest);
            if self.rest.is_empty() {
                return None;
            }
            let (end, equals) = ends(self.rest);
            let (param, rest) = self.rest.split_at_checked(end)?;
            self.rest = rest;
            let (name, value) = match equals {
                Some(at) => (param.get(..at)?, param.get(at + 1..)),
                None => (param, None),
            };
            let name = lex::trim(name);
            if !name.is_empty() {
                return Some(Param {
                    name,
                    value: value.map(lex::trim),
                });
            }
        }
    }
}

/// Where the first parameter ends, and where its name does if a value follows.
#[inline]
fn ends(bytes: &[u8]) -> (usize, Option<usize>) {
    let mut equals = None;
    for (at, &b) in bytes.iter().enumerate() {
        match b {
            b';' => return (at, equals),
            b'=' if equals.is_none() => equals = Some(at),
            b'"' => {
                let end = unquoted(bytes, b';').unwrap_or(bytes.len());
                return (
                    end,
                    equals.or_else(|| memchr::memchr(b'=', bytes.get(..end)?)),
                );
            }
            _ => {}
        }
    }
    (bytes.len(), equals)
}

/// Position of the first `mark` outside of quoted strings.
pub(crate) fn unquoted(bytes: &[u8], mark: u8) -> Option<usize> {
    let first = memchr::memchr2(mark, b'"', bytes)?;
    if bytes.get(first) == Some(&mark) {
        return Some(first);
    }
    // A backslash means something behind the first quote only.
    let mut at = first;
    let mut in_quotes = false;
    while let Some(&b) = bytes.get(at) {
        match b {
            b'"' => in_quotes = !in_quotes,
            b'\\' if in_quotes => at += 1,
            _ if b == mark && !in_quotes => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_in_order_with_quotes_respected() {
        let params = Params::new(b" ; lr;a = \"x;\\\";y\" ;b=;\r\n c=d");
        let all: Vec<_> = params.iter().map(|p| (p.name, p.value)).collect();
        assert_eq!(
            all,
            [
                (&b"lr"[..], None),
                (b"a", Some(&b"\"x;\\\";y\""[..])),
                (b"b", Some(b"")),
                (b"c", Some(b"d")),
            ]
        );
        assert_eq!(params.get(b"LR"), Some(&b""[..]));
        assert_eq!(params.get(b"none"), None);
        assert!(Params::default().is_empty());
        assert!(Params::new(b";;;").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn a_parameter_is_found_as_the_walk_finds_it(raw in "[;ab=\"\\\\ \t]{0,20}", name in "[aB=]{0,3}") {
            let params = Params::new(raw.as_bytes());
            let name = name.as_bytes();
            let walked = params.iter().find(|p| p.name.eq_ignore_ascii_case(name));
            assert_eq!(params.find(name), walked);
        }
    }
}
