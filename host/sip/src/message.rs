//! A message: bytes and their index together, with typed values on demand.
//! Nothing is stored but spans; each typed getter (in `typed`) parses when asked.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::error::ParseError;
use crate::header::HeaderId;
use crate::index::{HeaderField, Index};
use crate::lex;
use crate::method::Method;
use crate::parts::Parts;
use crate::span::Span;

mod typed;

pub use typed::CSeq;

/// A request or response over borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) index: &'a Index,
}

/// One element of a comma-separated header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// Position of its field in [`Message::headers`].
    pub field: usize,
    /// Where it stands, white space trimmed.
    pub span: Span,
    bytes: &'a [u8],
}

impl<'a> Value<'a> {
    /// The element's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Message<'a> {
    /// Ties bytes to the index that was made from them.
    #[must_use]
    pub fn new(bytes: &'a [u8], index: &'a Index) -> Self {
        Self { bytes, index }
    }

    /// Indexes `bytes` into `index` and ties the two together.
    ///
    /// # Errors
    /// As [`Index::parse`].
    pub fn parse(bytes: &'a [u8], index: &'a mut Index) -> Result<Self, ParseError> {
        index.parse(bytes)?;
        Ok(Self { bytes, index })
    }

    /// The message's bytes: from the start line to the end of the body that
    /// Content-Length announces.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
            .get(self.index.begin as usize..self.index.end())
            .unwrap_or_default()
    }

    /// The buffer that spans speak of; it may begin with empty lines and end
    /// behind the message.
    #[must_use]
    pub fn buffer(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes behind the message.
    #[must_use]
    pub fn trailing(&self) -> &'a [u8] {
        self.bytes.get(self.index.end()..).unwrap_or_default()
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &'a Index {
        self.index
    }

    /// The bytes of a span.
    #[must_use]
    pub fn get(&self, span: Span) -> &'a [u8] {
        span.of(self.bytes)
    }

    /// Whether it is a request.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.index.start.request
    }

    /// The method of a request; `Other` for a response.
    #[must_use]
    pub fn method(&self) -> Method {
        self.index.start.method.unwrap_or(Method::Other)
    }

    /// The method's token; empty for a response.
    #[must_use]
    pub fn method_token(&self) -> &'a [u8] {
        if self.is_request() {
            self.get(self.index.start.first)
        } else {
            b""
        }
    }

    /// Where the Request-URI stands; empty for a response.
    #[must_use]
    pub fn request_uri_span(&self) -> Span {
        if self.is_request() {
            self.index.start.second
        } else {
            Span::default()
        }
    }

    /// The Request-URI; empty for a response.
    #[must_use]
    pub fn request_uri(&self) -> &'a [u8] {
        self.get(self.request_uri_span())
    }

    /// The version as written, such as `SIP/2.0`; empty where a request has none.
    #[must_use]
    pub fn version(&self) -> &'a [u8] {
        let start = &self.index.start;
        self.get(if start.request {
            start.third
        } else {
            start.first
        })
    }

    /// The status code of a response, if it has three digits and a class.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.index.start.status
    }

    /// The reason phrase of a response; empty for a request.
    #[must_use]
    pub fn reason(&self) -> &'a [u8] {
        if self.is_request() {
            b""
        } else {
            self.get(self.index.start.third)
        }
    }

    /// The header fields, in their order.
    #[must_use]
    pub fn headers(&self) -> &'a [HeaderField] {
        &self.index.headers
    }

    /// The first field with this id.
    #[must_use]
    pub fn field(&self, id: HeaderId) -> Option<&'a HeaderField> {
        self.index.headers.get(self.index.position(id)?)
    }

    /// The value of the first field with this id, folds included.
    #[must_use]
    pub fn header(&self, id: HeaderId) -> Option<&'a [u8]> {
        self.field(id).map(|field| field.value.of(self.bytes))
    }

    /// Every field with this id.
    pub fn all(&self, id: HeaderId) -> impl Iterator<Item = &'a HeaderField> + use<'a> {
        self.numbered(id).map(|(_, field)| field)
    }

    /// Every field of this name, whatever its case, compact or long.
    pub fn by_name<'n>(
        &self,
        name: &'n [u8],
    ) -> impl Iterator<Item = &'a HeaderField> + use<'a, 'n> {
        let bytes = self.bytes;
        let id = HeaderId::from_name(name);
        self.all(id).filter(move |field| {
            id != HeaderId::Other || field.name.of(bytes).eq_ignore_ascii_case(name)
        })
    }

    /// The elements of a comma-separated header over all of its fields. Commas in
    /// quotes and angle brackets do not separate. A field without any value has
    /// no element; an empty place between commas is an empty element.
    #[must_use]
    pub fn values(&self, id: HeaderId) -> Values<'a> {
        let first = self.index.position(id).unwrap_or(self.index.headers.len());
        Values {
            bytes: self.bytes,
            fields: self.index.headers.get(first..).unwrap_or_default(),
            next: first,
            id,
            rest: None,
        }
    }

    /// The elements of one field.
    #[must_use]
    pub fn field_values(&self, position: usize) -> Values<'a> {
        let fields = self.index.headers.get(position..=position);
        let fields = fields.unwrap_or_default();
        Values {
            bytes: self.bytes,
            fields,
            next: position,
            id: fields.first().map_or(HeaderId::Other, |field| field.id),
            rest: None,
        }
    }

    /// Whether an option tag or token stands in a comma-separated header
    /// (Require, Supported, Allow, ...), compared without case.
    #[must_use]
    pub fn has_token(&self, id: HeaderId, token: &[u8]) -> bool {
        self.values(id)
            .any(|value| value.bytes.eq_ignore_ascii_case(token))
    }

    /// The body, as long as Content-Length says.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.get(self.body_span())
    }

    /// Where the body stands.
    #[must_use]
    pub fn body_span(&self) -> Span {
        Span {
            start: self.index.head_end,
            end: self.index.end,
        }
    }

    /// Offset of the first byte of the body.
    #[must_use]
    pub fn head_end(&self) -> usize {
        self.index.head_end()
    }

    fn numbered(&self, id: HeaderId) -> impl Iterator<Item = (usize, &'a HeaderField)> + use<'a> {
        let first = self.index.position(id).unwrap_or(self.index.headers.len());
        self.index
            .headers
            .iter()
            .enumerate()
            .skip(first)
            .filter(move |(_, field)| field.id == id)
    }
}

/// Walks the elements of a comma-separated header.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    bytes: &'a [u8],
    /// Fields still to be looked at.
    fields: &'a [HeaderField],
    /// Position of the first of them.
    next: usize,
    id: HeaderId,
    /// What is left of the field in front of them.
    rest: Option<Span>,
}

impl Values<'_> {
    #[inline]
    fn next_field(&mut self) -> Option<Span> {
        loop {
            let (field, fields) = self.fields.split_first()?;
            self.fields = fields;
            self.next += 1;
            if field.id == self.id && !field.value.is_empty() {
                return Some(field.value);
            }
        }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let rest = match self.rest.take() {
            Some(rest) => rest,
            None => self.next_field()?,
        };
        let text = rest.of(self.bytes);
        let end = element_end(text);
        let start = rest.start as usize;
        if end < text.len() {
            self.rest = Some(Span::at(start + end + 1, rest.end as usize));
        }
        let text = text.get(..end)?;
        let element = lex::trim_start(text);
        let start = start + text.len() - element.len();
        let element = lex::trim_end(element);
        Some(Value {
            field: self.next - 1,
            span: Span::at(start, start + element.len()),
            bytes: element,
        })
    }
}

/// Length of the first element: up to a comma outside of quotes and brackets.
pub(crate) fn element_end(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        let Some(found) = memchr::memchr3(b',', b'"', b'<', rest) else {
            return text.len();
        };
        let inside = rest.get(found + 1..).unwrap_or_default();
        // What quotes and brackets hold separates nothing.
        let len = match rest.get(found) {
            Some(b'"') => lex::closing_quote(inside),
            Some(b'<') => memchr::memchr(b'>', inside),
            _ => return at + found,
        };
        let Some(len) = len else {
            return text.len();
        };
        at += found + len + 2;
    }
    text.len()
}

/// A message that owns its bytes; cloning shares them.
#[derive(Clone, Debug)]
pub struct OwnedMessage(Arc<Owned>);

/// The bytes and what is known of them: one allocation, and one count for all who share.
#[derive(Debug)]
struct Owned {
    bytes: Bytes,
    index: Index,
    parts: OnceLock<Parts>,
}

impl OwnedMessage {
    /// Indexes `bytes`.
    ///
    /// # Errors
    /// As [`Index::parse`].
    pub fn parse(bytes: Bytes) -> Result<Self, ParseError> {
        let mut index = Index::new();
        index.parse(&bytes)?;
        Ok(Self::new(bytes, index, None))
    }

    /// Keeps bytes with the index that was made from them, and with the parts of
    /// its values if they are known.
    #[must_use]
    pub fn new(bytes: Bytes, index: Index, parts: Option<Parts>) -> Self {
        let parts = parts.map_or_else(OnceLock::new, OnceLock::from);
        Self(Arc::new(Owned {
            bytes,
            index,
            parts,
        }))
    }

    /// Where the parts of its values stand; looked up when first asked for.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        self.0.parts.get_or_init(|| Parts::of(self.as_ref()))
    }

    /// The message over these bytes.
    #[must_use]
    #[allow(
        clippy::should_implement_trait,
        reason = "a view by value, which AsRef cannot return"
    )]
    pub fn as_ref(&self) -> Message<'_> {
        Message {
            bytes: &self.0.bytes,
            index: &self.0.index,
        }
    }

    /// The buffer.
    #[must_use]
    pub fn buffer(&self) -> &Bytes {
        &self.0.bytes
    }

    /// Whether both are the same one: not only equal, but shared.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte by byte: what `element_end` is to find.
    fn element_end_by_bytes(text: &[u8]) -> usize {
        let (mut at, mut quoted, mut bracketed) = (0, false, false);
        while let Some(&b) = text.get(at) {
            match b {
                b'\\' if quoted => at += 1,
                b'"' if !bracketed => quoted = !quoted,
                _ if quoted => {}
                b'<' => bracketed = true,
                b'>' => bracketed = false,
                b',' if !bracketed => return at,
                _ => {}
            }
            at += 1;
        }
        text.len()
    }

    proptest::proptest! {
        #[test]
        fn an_element_ends_at_its_comma(text in "[a,<>\"\\\\]{0,24}") {
            let bytes = text.as_bytes();
            assert_eq!(element_end(bytes), element_end_by_bytes(bytes));
        }
    }
}
