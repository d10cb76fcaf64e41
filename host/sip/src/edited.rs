//! A changed message as one that is known already. Taking whole header fields out moves
//! what stands behind them and changes nothing else, so that nobody has to look for it
//! again: the usual change of a request in a dialog, whose Route has led it here.

use bytes::Bytes;

use crate::edit::EditList;
use crate::error::EditError;
use crate::header::HeaderId;
use crate::index::Index;
use crate::message::{Message, OwnedMessage};
use crate::parts::{AddressParts, Parts};
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
    /// The changed message; `parts` are those of the message as it is, `memory` is used for
    /// writing.
    ///
    /// # Errors
    /// When a change lies outside of the message, or makes it none.
    pub fn edited(
        &self,
        message: Message<'_>,
        parts: &Parts,
        memory: &mut Vec<u8>,
    ) -> Result<OwnedMessage, EditError> {
        memory.clear();
        self.write(message, memory)?;
        let bytes = Bytes::copy_from_slice(memory);
        match self.moved(message, parts) {
            Some((index, parts)) => Ok(OwnedMessage::new(bytes, index, Some(parts))),
            None => OwnedMessage::parse(bytes).map_err(|_| EditError::OutOfBounds),
        }
    }

    /// Index and parts without the fields that are taken out. `None` if something else is
    /// changed, or the message is not as ordinary as most.
    fn moved(&self, message: Message<'_>, parts: &Parts) -> Option<(Index, Parts)> {
        let old = message.index();
        if old.begin != 0 || old.malformed.is_some() || old.stray_cr || !old.terminated {
            return None;
        }
        let mut gone = self.removals()?.peekable();
        let mut taken = 0;
        let mut index = Index::new();
        index.start = old.start;
        index.content_length = old.content_length;
        index.terminated = true;
        for field in old.headers() {
            if gone.next_if(|span| *span == field.line).is_some() {
                if READ.contains(&field.id) {
                    return None;
                }
                taken += u32::try_from(field.line.len()).ok()?;
                continue;
            }
            index.push(field.back(taken));
        }
        if gone.next().is_some() || index.headers().is_empty() {
            return None;
        }
        index.head_end = old.head_end.checked_sub(taken)?;
        index.end = old.end.checked_sub(taken)?;
        Some((index, Moves(self).parts(parts)))
    }
}

/// Fields that are taken out, by which what stands behind them moves to the front.
struct Moves<'a>(&'a EditList);

impl Moves<'_> {
    /// How far a part of the message moves.
    fn by(&self, part: Span) -> u32 {
        let before = self.0.removals().into_iter().flatten();
        let before = before.take_while(|gone| gone.end <= part.start);
        let by: usize = before.map(Span::len).sum();
        u32::try_from(by).unwrap_or(0)
    }

    fn parts(&self, old: &Parts) -> Parts {
        let cseq = self.by(old.cseq_number);
        Parts {
            // In front of all fields.
            uri: old.uri,
            from: self.address(&old.from),
            to: self.address(&old.to),
            contact: self.address(&old.contact),
            cseq_number: old.cseq_number.back(cseq),
            cseq_method: old.cseq_method.back(cseq),
        }
    }

    fn address(&self, old: &AddressParts) -> AddressParts {
        // They all stand in one field.
        let by = self.by(old.uri);
        AddressParts {
            uri: old.uri.back(by),
            user: old.user.back(by),
            host: old.host.back(by),
            port: old.port.back(by),
            tag: old.tag.back(by),
            display: old.display.back(by),
        }
    }
}
