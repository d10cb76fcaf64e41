//! RFC 3261 16.7 step 3: a response goes upstream without our Via.

use sipbox_sip::{HeaderId, Message, Span};

use crate::cx::Mutation;
use crate::outbox::Dropped;
use crate::transaction::{Scratch, Wording, keep};
use crate::user::Io;

/// The response without our Via, which is the topmost; as a message if it is `read` later.
pub(super) fn without_via(
    response: Message<'_>,
    read: bool,
    io: &mut Io<'_, '_, '_>,
) -> Option<Wording> {
    let scratch = &mut io.tx.scratch;
    if io.cx.mutant(Mutation::KeepVia) {
        return Some(keep(response.bytes()).into());
    }
    let written = match read {
        true => cut_via(response, scratch).and_then(|()| {
            let Scratch { edits, message, .. } = scratch;
            edits
                .edited(response, None, message)
                .ok()
                .map(Wording::from)
        }),
        false => strip_via(response, scratch).map(|()| keep(&scratch.message).into()),
    };
    if written.is_none() {
        io.cx.out.dropped(Dropped::NoUpstream);
    }
    written
}

/// Writes the response without its topmost Via into `scratch.message`; `None` when no
/// Via is left, so that there is nobody to send it to.
pub(crate) fn strip_via(response: Message<'_>, scratch: &mut Scratch) -> Option<()> {
    cut_via(response, scratch)?;
    scratch.message.clear();
    scratch.edits.write(response, &mut scratch.message).ok()
}

fn cut_via(response: Message<'_>, scratch: &mut Scratch) -> Option<()> {
    let mut vias = response.values(HeaderId::Via);
    let (top, below) = (vias.next()?, vias.next()?);
    let ours = if below.field == top.field {
        // Up to the next one of the line: comma and white space go along.
        Span {
            start: top.span.start,
            end: below.span.start,
        }
    } else {
        response.headers().get(top.field)?.line
    };
    scratch.edits.clear();
    scratch.edits.remove(ours).ok()
}
