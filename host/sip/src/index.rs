//! One pass over a message's bytes: where the start line's parts, the header
//! fields and the body are. No value is read but Content-Length, which says where
//! the message ends; no byte is copied, and nothing is allocated for a message
//! with up to 32 header fields.
//!
//! Line ends are CRLF; a lone LF is taken for one too, since old elements send it
//! and every peer that we know reads it so. The stream framer finds the end of the
//! head with the same function, so the two cannot disagree about where a message
//! ends.

use smallvec::SmallVec;

use crate::error::ParseError;
use crate::header::HeaderId;
use crate::lex;
use crate::method::Method;
use crate::span::Span;

/// Where one header field stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderField {
    /// The name, if it is a well-known one.
    pub id: HeaderId,
    /// The name as written.
    pub name: Span,
    /// The value without white space around it; it may contain folds.
    pub value: Span,
    /// The whole field: name, colon, value, folds and the line end.
    pub line: Span,
}

/// What the Content-Length fields of a message say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentLength {
    /// There is none.
    #[default]
    Absent,
    /// One number (the same one, when the field is repeated).
    Value(u32),
    /// No number, or one beyond 32 bits.
    Invalid,
    /// Several different numbers.
    Conflicting,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StartLine {
    pub(crate) request: bool,
    pub(crate) method: Option<Method>,
    /// Method of a request, version of a response.
    pub(crate) first: Span,
    /// Request-URI, or status code.
    pub(crate) second: Span,
    /// Version of a request, reason phrase of a response.
    pub(crate) third: Span,
    /// Exactly one space between the parts and none behind the last one.
    pub(crate) exact: bool,
    pub(crate) status: Option<u16>,
}

/// The reusable result of the pass. It speaks of the bytes that were last given
/// to [`Index::parse`]; a [`crate::Message`] ties the two together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    pub(crate) start: StartLine,
    pub(crate) headers: SmallVec<[HeaderField; 32]>,
    /// For each id one more than the position of its first field, 0 for none;
    /// 255 says: look from position 254 on.
    first: [u8; HeaderId::COUNT],
    pub(crate) begin: u32,
    pub(crate) head_end: u32,
    pub(crate) end: u32,
    pub(crate) content_length: ContentLength,
    /// The first line that is no header field.
    pub(crate) malformed: Option<Span>,
    /// Whether an empty line ends the header fields.
    pub(crate) terminated: bool,
    /// Whether a CR without LF stands in start line or header fields.
    pub(crate) stray_cr: bool,
}

impl Default for Index {
    fn default() -> Self {
        Self::new()
    }
}

impl Index {
    /// An empty index.
    #[must_use]
    pub fn new() -> Self {
        Self {
            start: StartLine::default(),
            headers: SmallVec::new(),
            first: [0; HeaderId::COUNT],
            begin: 0,
            head_end: 0,
            end: 0,
            content_length: ContentLength::Absent,
            malformed: None,
            terminated: false,
            stray_cr: false,
        }
    }

    /// Indexes one message. Anything that has a start line and header lines that
    /// can be told apart is `Ok`, however wrong its parts are
    /// ([`crate::validate::check`] judges them): it can be answered.
    ///
    /// Empty lines before the start line are skipped (RFC 3261 7.5). Bytes behind
    /// the body that Content-Length announces are not part of the message
    /// (RFC 3261 18.3).
    ///
    /// # Errors
    /// When there is no message to answer.
    pub fn parse(&mut self, bytes: &[u8]) -> Result<(), ParseError> {
        self.clear();
        if u32::try_from(bytes.len()).is_err() {
            return Err(ParseError::TooLong);
        }
        let begin = bytes
            .iter()
            .take_while(|b| matches!(b, b'\r' | b'\n'))
            .count();
        if begin == bytes.len() {
            return Err(ParseError::Empty);
        }
        let (line_end, next) = self.line_at(bytes, begin);
        self.begin = Span::at(begin, begin).start;
        self.start = start_line(bytes, Span::at(begin, line_end)).ok_or(ParseError::StartLine)?;
        self.header_fields(bytes, next);
        if self.headers.is_empty() {
            return Err(ParseError::NoHeaders);
        }
        let total = Span::at(bytes.len(), bytes.len()).end;
        self.end = match self.content_length {
            ContentLength::Value(n) => self.head_end.saturating_add(n).min(total),
            _ => total,
        };
        Ok(())
    }

    /// The header fields, in their order.
    #[must_use]
    pub fn headers(&self) -> &[HeaderField] {
        &self.headers
    }

    /// What Content-Length says.
    #[must_use]
    pub fn content_length(&self) -> ContentLength {
        self.content_length
    }

    /// Offset of the first byte of the body.
    #[must_use]
    pub fn head_end(&self) -> usize {
        self.head_end as usize
    }

    /// Offset behind the last byte of the message.
    #[must_use]
    pub fn end(&self) -> usize {
        self.end as usize
    }

    /// Position of the first field with this id.
    #[must_use]
    pub fn position(&self, id: HeaderId) -> Option<usize> {
        match self.first.get(id as usize).copied().unwrap_or(0) {
            0 => None,
            u8::MAX => {
                let from = usize::from(u8::MAX) - 1;
                let rest = self.headers.get(from..)?;
                rest.iter()
                    .position(|field| field.id == id)
                    .map(|at| at + from)
            }
            n => Some(usize::from(n) - 1),
        }
    }

    /// Forgets the message, keeps the memory.
    pub fn clear(&mut self) {
        self.start = StartLine::default();
        self.headers.clear();
        self.first = [0; HeaderId::COUNT];
        self.begin = 0;
        self.head_end = 0;
        self.end = 0;
        self.content_length = ContentLength::Absent;
        self.malformed = None;
        self.terminated = false;
        self.stray_cr = false;
    }

    fn header_fields(&mut self, bytes: &[u8], from: usize) {
        let mut at = from;
        while at < bytes.len() {
            if let Some(next) = empty_line(bytes, at) {
                self.terminated = true;
                at = next;
                break;
            }
            let start = at;
            let (mut value_end, mut next) = self.line_at(bytes, at);
            while let Some(b' ' | b'\t') = bytes.get(next) {
                (value_end, next) = self.line_at(bytes, next);
            }
            self.field(bytes, start, value_end, next);
            at = next;
        }
        self.head_end = Span::at(at, at).start;
    }

    /// End of the text of the line at `at`, and start of the next line.
    fn line_at(&mut self, bytes: &[u8], at: usize) -> (usize, usize) {
        let mut from = at;
        loop {
            let rest = bytes.get(from..).unwrap_or_default();
            let Some(found) = memchr::memchr2(b'\r', b'\n', rest) else {
                return (bytes.len(), bytes.len());
            };
            match rest.get(found..) {
                Some([b'\r', b'\n', ..]) => return (from + found, from + found + 2),
                Some([b'\n', ..]) => return (from + found, from + found + 1),
                _ => self.stray_cr = true,
            }
            from += found + 1;
        }
    }

    fn field(&mut self, bytes: &[u8], start: usize, text_end: usize, next: usize) {
        let line = Span::at(start, next);
        let text = bytes.get(start..text_end).unwrap_or_default();
        let colon = colon(text);
        let (name, rest) = text.split_at_checked(colon).unwrap_or_default();
        let name = trim_blanks(name);
        let id = HeaderId::from_name(name);
        let is_name = id != HeaderId::Other || lex::is_token(name);
        let (true, [_, value @ ..]) = (is_name, rest) else {
            self.malformed.get_or_insert(line);
            return;
        };
        let value = lex::trim_start(value);
        let value_start = text_end - value.len();
        let value = lex::trim_end(value);
        if id == HeaderId::ContentLength {
            self.content_length = self.content_length.and(value);
        }
        let value = Span::at(value_start, value_start + value.len());
        let name = Span::at(start, start + name.len());
        self.push(HeaderField {
            id,
            name,
            value,
            line,
        });
    }

    /// Notes the next field.
    pub(crate) fn push(&mut self, field: HeaderField) {
        if let Some(first) = self.first.get_mut(field.id as usize)
            && *first == 0
        {
            *first = u8::try_from(self.headers.len() + 1).unwrap_or(u8::MAX);
        }
        self.headers.push(field);
    }
}

impl HeaderField {
    /// The same field, so much farther back.
    pub(crate) fn moved(self, by: i64) -> Self {
        Self {
            name: self.name.shifted(by),
            value: self.value.shifted(by),
            line: self.line.shifted(by),
            ..self
        }
    }

    /// The same field when so many bytes of its value are gone.
    pub(crate) fn shortened(mut self, by: i64) -> Self {
        for span in [&mut self.value, &mut self.line] {
            span.end = span.shifted(-by).end;
        }
        self
    }
}

impl ContentLength {
    fn and(self, value: &[u8]) -> Self {
        let new = lex::decimal(value).and_then(|n| u32::try_from(n).ok());
        match (self, new) {
            (Self::Absent, Some(n)) => Self::Value(n),
            (Self::Value(old), Some(n)) if old == n => self,
            (Self::Value(_) | Self::Conflicting, Some(_)) => Self::Conflicting,
            (Self::Invalid, _) | (_, None) => Self::Invalid,
        }
    }
}

/// Position of the first colon, or the length. Names are short: eight bytes at a
/// time find it in fewer steps than memchr needs to begin.
fn colon(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const COLONS: u64 = u64::from_le_bytes([b':'; 8]);
    let mut at = 0;
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        // The lowest byte that equals the colon has its top bit set.
        let zeros = u64::from_le_bytes(*chunk) ^ COLONS;
        let found = zeros.wrapping_sub(ONES) & !zeros & (ONES << 7);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().position(|b| *b == b':').unwrap_or(rest.len())
}

/// Drops blanks from the end: HCOLON allows them before the colon.
fn trim_blanks(mut name: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = name {
        name = rest;
    }
    name
}

/// Offset behind the empty line that ends the head of a message which starts at
/// `begin`; the search goes on from `from`, which lies in the head.
pub(crate) fn find_head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += memchr::memchr(b'\n', bytes.get(at..)?)? + 1;
        if let Some(end) = empty_line(bytes, at) {
            return Some(end);
        }
    }
}

/// Offset behind an empty line that starts at `at`.
fn empty_line(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at..)? {
        [b'\r', b'\n', ..] => Some(at + 2),
        [b'\n', ..] => Some(at + 1),
        _ => None,
    }
}

fn start_line(bytes: &[u8], line: Span) -> Option<StartLine> {
    let text = line.of(bytes);
    let base = line.start as usize;
    let first_end = memchr::memchr2(b' ', b'\t', text)?;
    let first = text.get(..first_end)?;
    let span = |from: usize, to: usize| Span::at(base + from, base + to);
    let rest_at = first_end + blanks(text.get(first_end..)?);
    let rest = text.get(rest_at..)?;
    if is_version(first) {
        let second_len = rest
            .iter()
            .take_while(|b| !matches!(b, b' ' | b'\t'))
            .count();
        let after = rest.get(second_len..)?;
        let reason_at = rest_at + second_len + usize::from(!after.is_empty());
        let code = rest.get(..second_len)?;
        let exact = rest_at == first_end + 1 && !after.is_empty();
        return Some(StartLine {
            request: false,
            method: None,
            first: span(0, first_end),
            second: span(rest_at, rest_at + second_len),
            third: span(reason_at, text.len()),
            exact,
            status: status_code(code),
        });
    }
    if first.is_empty() {
        return None;
    }
    let trailing = rest
        .iter()
        .rev()
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count();
    let tail_end = rest_at + rest.len() - trailing;
    let tail = text.get(rest_at..tail_end)?;
    if tail.is_empty() {
        return None;
    }
    let version_len = tail
        .iter()
        .rev()
        .take_while(|b| !matches!(b, b' ' | b'\t'))
        .count();
    let version_at = tail_end - version_len;
    let uri_part = text.get(rest_at..version_at)?;
    let gap = uri_part
        .iter()
        .rev()
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count();
    let uri_end = version_at - gap;
    let (second, third) = if uri_end > rest_at {
        (span(rest_at, uri_end), span(version_at, tail_end))
    } else {
        // One word behind the method: a URI without version.
        (span(rest_at, tail_end), span(tail_end, tail_end))
    };
    Some(StartLine {
        request: true,
        method: Some(Method::from_token(first)),
        first: span(0, first_end),
        second,
        third,
        exact: rest_at == first_end + 1 && gap == 1 && trailing == 0,
        status: None,
    })
}

fn blanks(text: &[u8]) -> usize {
    text.iter()
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count()
}

fn status_code(code: &[u8]) -> Option<u16> {
    let code = (code.len() == 3).then(|| lex::decimal(code)).flatten()?;
    u16::try_from(code)
        .ok()
        .filter(|code| (100..700).contains(code))
}

/// `SIP/` DIGITs `.` DIGITs, of any case (RFC 3261 7.1).
pub(crate) fn is_version(token: &[u8]) -> bool {
    let Some((name, number)) = token.split_at_checked(4) else {
        return false;
    };
    let mut parts = number.splitn(2, |b| *b == b'.');
    name.eq_ignore_ascii_case(b"SIP/")
        && parts
            .next()
            .is_some_and(|major| lex::decimal(major).is_some())
        && parts
            .next()
            .is_some_and(|minor| lex::decimal(minor).is_some())
}
