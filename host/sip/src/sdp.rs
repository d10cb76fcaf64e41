//! Session descriptions (RFC 8866) as lines over a body: enough to read and to
//! replace addresses, ports and attributes in place. Offer and answer are not
//! judged here.

use std::net::IpAddr;

use crate::lex;
use crate::span::Span;

/// One line: its type letter, its value, and where both stand in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The type letter, such as `m`.
    pub kind: u8,
    /// What follows the equals sign.
    pub value: &'a [u8],
    /// Where the value stands in the body.
    pub span: Span,
    /// Where the whole line stands in the body, its line end included.
    pub line: Span,
}

/// A session description over a body. Lines that are none are skipped.
#[derive(Clone, Copy, Debug)]
pub struct Sdp<'a> {
    body: &'a [u8],
}

/// One media section, or the session's own lines before the first.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    body: &'a [u8],
    /// Where the section stands in the body.
    pub span: Span,
}

/// The value of an `m=` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media<'a> {
    /// Such as `audio`.
    pub media: &'a [u8],
    /// The port; 0 for a stream that is refused.
    pub port: u16,
    /// Where the port stands in the body.
    pub port_span: Span,
    /// Such as `RTP/AVP`.
    pub proto: &'a [u8],
    /// The formats as written.
    pub formats: &'a [u8],
}

/// The value of a `c=` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection<'a> {
    /// The address as written.
    pub address: &'a [u8],
    /// Where the address stands in the body.
    pub span: Span,
}

/// The value of an `a=` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// What stands before the colon.
    pub name: &'a [u8],
    /// What stands behind it.
    pub value: Option<&'a [u8]>,
    /// The line.
    pub line: Line<'a>,
}

impl<'a> Sdp<'a> {
    /// A view of a body; nothing is read yet.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { body }
    }

    /// Every line.
    pub fn lines(&self) -> impl Iterator<Item = Line<'a>> + use<'a> {
        lines(self.body, Span::new(0, self.body.len()))
    }

    /// The session's own lines.
    #[must_use]
    pub fn session(&self) -> Section<'a> {
        let end = self
            .starts()
            .next()
            .unwrap_or(Span::new(self.body.len(), 0).start);
        Section {
            body: self.body,
            span: Span { start: 0, end },
        }
    }

    /// The media sections, each from its `m=` line on.
    pub fn media(&self) -> impl Iterator<Item = Section<'a>> + use<'a> {
        let body = self.body;
        let end = Span::new(body.len(), 0).start;
        let ends = self.starts().skip(1).chain(std::iter::once(end));
        self.starts().zip(ends).map(move |(start, end)| Section {
            body,
            span: Span { start, end },
        })
    }

    fn starts(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.lines()
            .filter(|line| line.kind == b'm')
            .map(|line| line.line.start)
    }
}

impl<'a> Section<'a> {
    /// The section's lines.
    pub fn lines(&self) -> impl Iterator<Item = Line<'a>> + use<'a> {
        lines(self.body, self.span)
    }

    /// The `m=` line, if it is well-formed.
    #[must_use]
    pub fn media(&self) -> Option<Media<'a>> {
        let line = self.lines().find(|line| line.kind == b'm')?;
        let mut words = line.value.splitn(4, |b| *b == b' ');
        let (media, port) = (words.next()?, words.next()?);
        let (proto, formats) = (words.next()?, words.next().unwrap_or_default());
        // A slash and the number of ports may follow.
        let port_text = port.split(|b| *b == b'/').next()?;
        let port_span = crate::span::span_within(self.body, port_text)?;
        let port = lex::decimal(port_text).and_then(|n| u16::try_from(n).ok())?;
        Some(Media {
            media,
            port,
            port_span,
            proto,
            formats,
        })
    }

    /// The `c=` lines.
    pub fn connections(&self) -> impl Iterator<Item = Connection<'a>> + use<'a> {
        let body = self.body;
        self.lines()
            .filter(|line| line.kind == b'c')
            .filter_map(move |line| {
                // IN IP4 address, perhaps with /ttl
                let address = line.value.splitn(3, |b| *b == b' ').nth(2)?;
                let address = address.split(|b| *b == b'/').next()?;
                Some(Connection {
                    address,
                    span: crate::span::span_within(body, address)?,
                })
            })
    }

    /// The `a=` lines.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        self.lines().filter(|line| line.kind == b'a').map(|line| {
            let mut parts = line.value.splitn(2, |b| *b == b':');
            Attribute {
                name: parts.next().unwrap_or_default(),
                value: parts.next(),
                line,
            }
        })
    }

    /// The first attribute of that name.
    #[must_use]
    pub fn attribute(&self, name: &[u8]) -> Option<Attribute<'a>> {
        self.attributes().find(|attribute| attribute.name == name)
    }
}

impl Connection<'_> {
    /// The address, if it is a literal one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        std::str::from_utf8(self.address).ok()?.parse().ok()
    }
}

fn lines<'a>(body: &'a [u8], within: Span) -> impl Iterator<Item = Line<'a>> + use<'a> {
    let mut at = within.start as usize;
    let end = within.end as usize;
    std::iter::from_fn(move || {
        loop {
            let rest = body.get(at..end).filter(|rest| !rest.is_empty())?;
            let len = memchr::memchr(b'\n', rest).map_or(rest.len(), |lf| lf + 1);
            let start = at;
            at += len;
            let text = rest.get(..len)?;
            let text = text.strip_suffix(b"\n").unwrap_or(text);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if let [kind, b'=', value @ ..] = text {
                let span = Span::new(start + 2, start + text.len());
                return Some(Line {
                    kind: *kind,
                    value,
                    span,
                    line: Span::new(start, start + len),
                });
            }
        }
    })
}
