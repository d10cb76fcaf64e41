//! Changes to a message, written out in one walk over its bytes. A change is a
//! span and the bytes that take its place; what no change covers leaves exactly as
//! it came. The list and its memory are reused from message to message.
//!
//! Several changes compose. Inserts at one place keep an order that follows from
//! what they are for: what was appended behind the field before comes first, then
//! what was prepended to the field after it, the latest on top (as Vias stack). A
//! change that covers earlier ones wholly takes their place; one that cuts into
//! them is refused.

use smallvec::SmallVec;

use crate::error::EditError;
use crate::header::{HeaderId, HeaderName};
use crate::index::HeaderField;
use crate::lex::{self, Decimal};
use crate::message::{Message, Value};
use crate::span::Span;
use crate::uri::Uri;

/// Ranks of changes that start at the same offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Append,
    Prepend,
    Replace,
}

#[derive(Clone, Copy, Debug)]
struct Edit {
    span: Span,
    /// Where the new bytes stand in the list's own memory.
    text: Span,
    rank: Rank,
    /// The field that this change removes elements from.
    elements_of: Option<usize>,
    /// Whether the new bytes are a whole header field.
    field: bool,
}

/// Changes to one message.
#[derive(Clone, Debug, Default)]
pub struct EditList {
    /// Sorted by place; spans do not overlap.
    edits: SmallVec<[Edit; 16]>,
    text: Vec<u8>,
    /// Removed list elements, by the position of their field.
    removed: SmallVec<[(usize, Span); 4]>,
}

/// The spans and bytes themselves, without regard to what they mean. The caller
/// vouches for the result being a message.
impl EditList {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the changes, keeps the memory.
    pub fn clear(&mut self) {
        self.edits.clear();
        self.text.clear();
        self.removed.clear();
    }

    /// Whether there is no change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.edits.len()
    }

    /// Puts `bytes` in the place of a span. Earlier changes inside the span are
    /// dropped.
    ///
    /// # Errors
    /// When the span cuts into an earlier change.
    pub fn replace(&mut self, span: Span, bytes: &[u8]) -> Result<(), EditError> {
        self.put(span, bytes, Rank::Replace, false)
    }

    /// Removes a span. Earlier changes inside it are dropped.
    ///
    /// # Errors
    /// When the span cuts into an earlier change.
    pub fn remove(&mut self, span: Span) -> Result<(), EditError> {
        self.replace(span, b"")
    }

    /// Inserts `bytes` at an offset, behind what was inserted there before.
    ///
    /// # Errors
    /// When the offset lies inside a replaced span.
    pub fn insert_at(&mut self, offset: u32, bytes: &[u8]) -> Result<(), EditError> {
        self.put(
            Span {
                start: offset,
                end: offset,
            },
            bytes,
            Rank::Append,
            false,
        )
    }

    /// Writes the changed message behind what `out` holds, in one walk.
    ///
    /// # Errors
    /// When a change lies outside of the message; `out` is as before then.
    pub fn write(&self, message: Message<'_>, out: &mut Vec<u8>) -> Result<(), EditError> {
        let buffer = message.buffer();
        let begin = message.index().begin as usize;
        let end = message.index().end();
        let (first, last) = (self.edits.first(), self.edits.last());
        if first.is_some_and(|edit| (edit.span.start as usize) < begin)
            || last.is_some_and(|edit| edit.span.end as usize > end)
        {
            return Err(EditError::OutOfBounds);
        }
        out.reserve((end - begin) + self.text.len());
        let mut at = begin;
        for edit in &self.edits {
            out.extend_from_slice(buffer.get(at..edit.span.start as usize).unwrap_or_default());
            out.extend_from_slice(edit.text.of(&self.text));
            at = edit.span.end as usize;
        }
        out.extend_from_slice(buffer.get(at..end).unwrap_or_default());
        Ok(())
    }

    /// What is replaced and by how many bytes, in the order of the message.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (Span, usize)> {
        self.edits.iter().map(|edit| (edit.span, edit.text.len()))
    }

    fn put(&mut self, span: Span, bytes: &[u8], rank: Rank, field: bool) -> Result<(), EditError> {
        self.put_with(span, rank, field, |text| text.extend_from_slice(bytes))
    }

    fn put_with(
        &mut self,
        span: Span,
        rank: Rank,
        field: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), EditError> {
        if span.end < span.start {
            return Err(EditError::OutOfBounds);
        }
        let rank = if span.is_empty() && rank == Rank::Replace {
            Rank::Append
        } else {
            rank
        };
        if self.edits.iter().any(|edit| cuts(span, edit.span)) {
            return Err(EditError::Overlap);
        }
        if rank == Rank::Replace {
            self.edits.retain(|edit| {
                // Inserts at the borders stay: they belong to the neighbours.
                !(span.covers(edit.span)
                    && (!edit.span.is_empty()
                        || (span.start < edit.span.start && edit.span.start < span.end)))
            });
        }
        let from = self.text.len();
        write(&mut self.text);
        let text = Span::new(from, self.text.len());
        let place = self.edits.iter().position(|edit| {
            edit.span.start > span.start
                || (edit.span.start == span.start
                    && (edit.rank > rank || (edit.rank == rank && rank == Rank::Prepend)))
        });
        let edit = Edit {
            span,
            text,
            rank,
            elements_of: None,
            field,
        };
        self.edits.insert(place.unwrap_or(self.edits.len()), edit);
        Ok(())
    }
}

/// Whether a new change over `new` would leave a part of the change over `old`,
/// or fall inside of it.
fn cuts(new: Span, old: Span) -> bool {
    new.start < old.end && old.start < new.end && !new.covers(old)
}

/// Changes that know what a message is. Names and values are checked, so that no
/// change can make a second field or a second message out of one value.
impl EditList {
    /// Replaces the Request-URI.
    ///
    /// # Errors
    /// When the message is a response or the bytes are no URI.
    pub fn set_request_uri(&mut self, message: Message<'_>, uri: &[u8]) -> Result<(), EditError> {
        if !message.is_request() {
            return Err(EditError::NotARequest);
        }
        Uri::parse(uri).map_err(|_| EditError::RequestUri)?;
        self.replace(message.request_uri_span(), uri)
    }

    /// Adds a field on top of the first one of its kind, or of all fields if there
    /// is none. The latest one prepended comes out topmost.
    ///
    /// # Errors
    /// When the name or value is ill-formed.
    pub fn prepend_header<'n>(
        &mut self,
        message: Message<'_>,
        name: impl Into<HeaderName<'n>>,
        value: &[u8],
    ) -> Result<(), EditError> {
        let name = checked(name.into(), value)?;
        let first = find(message, name)
            .next()
            .or_else(|| message.headers().first());
        let at = first.map_or(message.index().head_end, |field| field.line.start);
        self.put_field(
            message,
            Span { start: at, end: at },
            Rank::Prepend,
            name,
            value,
        )
    }

    /// Adds a field behind the last one of its kind, or behind all fields if there
    /// is none.
    ///
    /// # Errors
    /// When the name or value is ill-formed.
    pub fn append_header<'n>(
        &mut self,
        message: Message<'_>,
        name: impl Into<HeaderName<'n>>,
        value: &[u8],
    ) -> Result<(), EditError> {
        let name = checked(name.into(), value)?;
        let last = find(message, name)
            .last()
            .or_else(|| message.headers().last());
        let at = last.map_or(message.index().head_end, |field| field.line.end);
        self.put_field(
            message,
            Span { start: at, end: at },
            Rank::Append,
            name,
            value,
        )
    }

    /// Leaves exactly one field of that name, with that value: in the place of the
    /// first one, or appended. A later call replaces what an earlier one set.
    ///
    /// # Errors
    /// When the name or value is ill-formed.
    pub fn set_header<'n>(
        &mut self,
        message: Message<'_>,
        name: impl Into<HeaderName<'n>>,
        value: &[u8],
    ) -> Result<(), EditError> {
        let name = checked(name.into(), value)?;
        let mut fields = find(message, name);
        let written = |edit: &Edit| edit.field && starts_with_name(edit.text.of(&self.text), name);
        if !self.edits.iter().any(written)
            && let (first, None) = (fields.next(), fields.next())
        {
            return match first {
                Some(field) => self.put_field(message, field.line, Rank::Replace, name, value),
                None => self.append_header(message, name, value),
            };
        }
        self.atomically(|list| {
            list.remove_header(message, name)?;
            match find(message, name).next() {
                // In the place of the first one: what is prepended stays above it.
                Some(field) => list.put_field(message, field.line, Rank::Replace, name, value),
                None => list.append_header(message, name, value),
            }
        })
    }

    /// Removes every field of that name, those that earlier changes added included.
    ///
    /// # Errors
    /// When a removal cuts into an earlier change.
    pub fn remove_header<'n>(
        &mut self,
        message: Message<'_>,
        name: impl Into<HeaderName<'n>>,
    ) -> Result<(), EditError> {
        let name = name.into();
        self.atomically(|list| {
            let text = &list.text;
            list.edits
                .retain(|edit| !(edit.field && starts_with_name(edit.text.of(text), name)));
            find(message, name).try_for_each(|field| list.remove_field(field))
        })
    }

    /// Replaces the value of a field; name, spacing and line end stay.
    ///
    /// # Errors
    /// When the value is ill-formed or the field is being changed otherwise.
    pub fn replace_value(&mut self, field: &HeaderField, value: &[u8]) -> Result<(), EditError> {
        if !lex::is_field_value(value) {
            return Err(EditError::Value);
        }
        self.replace(field.value, value)
    }

    /// Removes a whole field.
    ///
    /// # Errors
    /// When the removal cuts into an earlier change.
    pub fn remove_field(&mut self, field: &HeaderField) -> Result<(), EditError> {
        self.remove(field.line)
    }

    /// Replaces one element of a comma-separated header.
    ///
    /// # Errors
    /// When the value is ill-formed or the element is being changed otherwise.
    pub fn replace_element(&mut self, element: &Value<'_>, value: &[u8]) -> Result<(), EditError> {
        if !lex::is_field_value(value) {
            return Err(EditError::Value);
        }
        self.replace(element.span, value)
    }

    /// Removes one element of a comma-separated header with its comma, or the
    /// whole field when it has no other element left. One that is gone already
    /// stays so.
    ///
    /// # Errors
    /// When the element is not one of the message's, or is being changed otherwise.
    pub fn remove_value(
        &mut self,
        message: Message<'_>,
        element: &Value<'_>,
    ) -> Result<(), EditError> {
        let at = element.field;
        let field = message.headers().get(at).ok_or(EditError::Element)?;
        // Most fields have one element, which is their value.
        let alone = element.span == field.value && !element.span.is_empty();
        if !alone
            && !message
                .field_values(at)
                .any(|value| value.span == element.span)
        {
            return Err(EditError::Element);
        }
        let gone = |edit: &Edit| edit.text.is_empty() && edit.span.covers(element.span);
        if self.removed.contains(&(at, element.span)) || self.edits.iter().any(gone) {
            return Ok(());
        }
        if alone {
            self.remove(field.line)?;
            self.removed.push((at, element.span));
            return Ok(());
        }
        self.atomically(|list| {
            list.removed.push((at, element.span));
            list.edits.retain(|edit| edit.elements_of != Some(at));
            list.remove_elements(message, at, field)
        })
    }

    /// Replaces the body and sets Content-Length to match it. The caller sets
    /// Content-Type.
    ///
    /// # Errors
    /// When the body or Content-Length is being changed otherwise.
    pub fn set_body(&mut self, message: Message<'_>, body: &[u8]) -> Result<(), EditError> {
        if !message.index().terminated {
            return Err(EditError::Unterminated);
        }
        let length = Decimal::new(body.len());
        self.atomically(|list| {
            match message.field(HeaderId::ContentLength) {
                Some(field) => list.replace_value(field, length.as_bytes())?,
                None => list.set_header(message, HeaderId::ContentLength, length.as_bytes())?,
            }
            let span = message.body_span();
            list.edits.retain(|edit| edit.span != span);
            list.replace(span, body)
        })
    }

    /// Removes the elements of one field that are marked as removed.
    fn remove_elements(
        &mut self,
        message: Message<'_>,
        at: usize,
        field: &HeaderField,
    ) -> Result<(), EditError> {
        let gone = |removed: &[(usize, Span)], span| removed.contains(&(at, span));
        if message
            .field_values(at)
            .all(|value| gone(&self.removed, value.span))
        {
            return self.remove(field.line);
        }
        // An element in front of every survivor takes the gap behind it along,
        // any other one the gap before it; so no two removals meet.
        let mut before: Option<Span> = None;
        let mut survivor = false;
        let mut values = message.field_values(at).peekable();
        while let Some(value) = values.next() {
            if gone(&self.removed, value.span) {
                let next = values.peek().map(|next| next.span.start);
                let span = match (survivor, before, next) {
                    (false, _, Some(next)) => Span {
                        start: value.span.start,
                        end: next,
                    },
                    (true, Some(before), _) => Span {
                        start: before.end,
                        end: value.span.end,
                    },
                    _ => value.span,
                };
                self.remove(span)?;
                if let Some(edit) = self.edits.iter_mut().find(|edit| edit.span == span) {
                    edit.elements_of = Some(at);
                }
            } else {
                survivor = true;
            }
            before = Some(value.span);
        }
        Ok(())
    }

    /// Runs a change of several steps; a failing one leaves the list as it was.
    fn atomically(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<(), EditError>,
    ) -> Result<(), EditError> {
        let edits = self.edits.clone();
        let (text, removed) = (self.text.len(), self.removed.len());
        let result = change(self);
        if result.is_err() {
            self.edits = edits;
            self.text.truncate(text);
            self.removed.truncate(removed);
        }
        result
    }

    fn put_field(
        &mut self,
        message: Message<'_>,
        span: Span,
        rank: Rank,
        name: HeaderName<'_>,
        value: &[u8],
    ) -> Result<(), EditError> {
        let index = message.index();
        if span.start == index.head_end && !index.terminated {
            return Err(EditError::Unterminated);
        }
        self.put_with(span, rank, true, |text| {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value);
            text.extend_from_slice(b"\r\n");
        })
    }
}

/// The fields of that name.
fn find<'a>(
    message: Message<'a>,
    name: HeaderName<'a>,
) -> impl Iterator<Item = &'a HeaderField> + use<'a> {
    let id = name.id();
    message.all(id).filter(move |field| {
        id != HeaderId::Other
            || message
                .get(field.name)
                .eq_ignore_ascii_case(name.as_bytes())
    })
}

/// Whether a written field has that name.
fn starts_with_name(field: &[u8], name: HeaderName<'_>) -> bool {
    let written = field.split(|b| *b == b':').next().unwrap_or_default();
    match name.id() {
        HeaderId::Other => written.eq_ignore_ascii_case(name.as_bytes()),
        id => HeaderId::from_name(written) == id,
    }
}

fn checked<'n>(name: HeaderName<'n>, value: &[u8]) -> Result<HeaderName<'n>, EditError> {
    if !lex::is_token(name.as_bytes()) {
        return Err(EditError::Name);
    }
    if !lex::is_field_value(value) {
        return Err(EditError::Value);
    }
    Ok(name)
}
