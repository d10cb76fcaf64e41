//! A changed message as one that is known already. Taking header fields out, or elements of
//! them, moves what stands behind and changes nothing else, so that nobody has to look for it
//! again: the usual change of a request in a dialog, whose Route has led it here, and of a
//! response, which goes on without our Via.

use bytes::Bytes;

use crate::edit::EditList;
use crate::error::EditError;
use crate::header::HeaderId;
use crate::index::Index;
use crate::message::{Message, OwnedMessage};
use crate::parts::{AddressParts, Parts, UriParts};
use crate::span::Span;

/// Fields that more is known of than where they stand.
const READ: [HeaderId; 5] = [
    HeaderId::From,
    HeaderId::To,
    HeaderId::Contact,
    HeaderId::CSeq,
    HeaderId::ContentLength,
];

impl EditList {
    /// The changed message; `parts` are those of the message as it is, if they are known,
    /// `memory` is used for writing.
    ///
    /// # Errors
    /// When a change lies outside of the message, or makes it none.
    pub fn edited(
        &self,
        message: Message<'_>,
        parts: Option<&Parts>,
        memory: &mut Vec<u8>,
    ) -> Result<OwnedMessage, EditError> {
        memory.clear();
        self.write(message, memory)?;
        let bytes = Bytes::copy_from_slice(memory);
        match self.without(message, parts) {
            Some((index, parts)) => Ok(OwnedMessage::new(bytes, index, parts)),
            None => OwnedMessage::parse(bytes).map_err(|_| EditError::OutOfBounds),
        }
    }

    /// Where the parts stand once these changes are written, which `edited` shows. Of the
    /// Request-URI and of the fields that are among `changed` they are read anew; a field that
    /// these changes touch and `changed` does not name has parts that mean nothing.
    #[must_use]
    pub fn parts_of(
        &self,
        message: Message<'_>,
        parts: &Parts,
        edited: Message<'_>,
        changed: &[HeaderId],
    ) -> Parts {
        let others = [HeaderId::From, HeaderId::To, HeaderId::CSeq];
        let uri = message.request_uri_span();
        let touched = self.changes().any(|(span, _)| span.start < uri.end);
        if touched || others.iter().any(|id| changed.contains(id)) {
            return Parts::of(edited);
        }
        let mut parts = Moves::of(self, message).parts(parts);
        if changed.contains(&HeaderId::Contact) {
            parts.contact = Parts::contact_of(edited);
        }
        parts
    }

    /// Index and parts without the fields, or parts of fields, that are taken out. `None` if
    /// something else is changed, or the message is not as ordinary as most.
    fn without(
        &self,
        message: Message<'_>,
        parts: Option<&Parts>,
    ) -> Option<(Index, Option<Parts>)> {
        let old = message.index();
        if old.begin != 0 || old.malformed.is_some() || old.stray_cr || !old.terminated {
            return None;
        }
        let mut gone = self.changes().peekable();
        let mut by = 0;
        let mut index = Index::new();
        index.start = old.start;
        index.content_length = old.content_length;
        index.terminated = true;
        for field in old.headers() {
            let inside = |gone: &(Span, usize)| field.line.covers(gone.0) && gone.1 == 0;
            let Some((span, _)) = gone.next_if(inside) else {
                index.push(field.moved(by));
                continue;
            };
            if READ.contains(&field.id) {
                return None;
            }
            let length = i64::try_from(span.len()).ok()?;
            if span != field.line {
                let ends = span.start == field.value.start || span.end == field.value.end;
                if !ends || !field.value.covers(span) || field.value == span {
                    return None;
                }
                index.push(field.moved(by).shortened(length));
            }
            by -= length;
        }
        if gone.next().is_some() || index.headers().is_empty() {
            return None;
        }
        let body = message.body_span().shifted(by);
        (index.head_end, index.end) = (body.start, body.end);
        let moved = |parts| Moves::of(self, message).parts(parts);
        Some((index, parts.map(moved)))
    }
}

/// Changes, by which what stands behind them moves.
struct Moves<'a> {
    list: &'a EditList,
    /// Bytes in front of the message, which are not written.
    begin: i64,
}

impl<'a> Moves<'a> {
    fn of(list: &'a EditList, message: Message<'_>) -> Self {
        Self {
            list,
            begin: message.index().begin.into(),
        }
    }

    /// How far a part of the message moves to the back.
    fn by(&self, part: Span) -> i64 {
        let length = |bytes: usize| i64::try_from(bytes).unwrap_or(0);
        let before = self.list.changes();
        let before = before.take_while(|(replaced, _)| replaced.end <= part.start);
        let by: i64 = before
            .map(|(replaced, written)| length(written) - length(replaced.len()))
            .sum();
        by - self.begin
    }

    fn parts(&self, old: &Parts) -> Parts {
        let uri = -self.begin;
        let UriParts {
            scheme,
            user,
            host,
            port,
            params,
        } = old.uri;
        let cseq = self.by(old.cseq_number);
        Parts {
            // In front of all fields.
            uri: UriParts {
                scheme: scheme.moved(uri),
                user: user.moved(uri),
                host: host.moved(uri),
                port: port.moved(uri),
                params: params.moved(uri),
            },
            from: self.address(&old.from),
            to: self.address(&old.to),
            contact: self.address(&old.contact),
            cseq_number: old.cseq_number.moved(cseq),
            cseq_method: old.cseq_method.moved(cseq),
        }
    }

    fn address(&self, old: &AddressParts) -> AddressParts {
        // They all stand in one field.
        let by = self.by(old.uri);
        AddressParts {
            uri: old.uri.moved(by),
            user: old.user.moved(by),
            host: old.host.moved(by),
            port: old.port.moved(by),
            tag: old.tag.moved(by),
            display: old.display.moved(by),
        }
    }
}
