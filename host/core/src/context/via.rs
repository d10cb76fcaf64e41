//! RFC 3261 16.7 step 3: a response goes upstream without our Via.

use bytes::Bytes;
use sipbox_sip::{HeaderId, Message, Span};

use crate::cx::Mutation;
use crate::outbox::Dropped;
use crate::transaction::{Scratch, keep};
use crate::user::Io;

/// The response without our Via, which is the topmost.
pub(super) fn without_via(response: Message<'_>, io: &mut Io<'_, '_, '_>) -> Option<Bytes> {
    let scratch = &mut io.tx.scratch;
    if io.cx.mutant(Mutation::KeepVia) {
        return Some(keep(response.bytes()));
    }
    match strip_via(response, scratch) {
        Some(()) => Some(keep(&scratch.message)),
        None => {
            io.cx.out.dropped(Dropped::NoUpstream);
            None
        }
    }
}

/// Writes the response without its topmost Via into `scratch.message`; `None` when no
/// Via is left, so that there is nobody to send it to.
pub(crate) fn strip_via(response: Message<'_>, scratch: &mut Scratch) -> Option<()> {
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
    scratch.edits.remove(ours).ok()?;
    scratch.message.clear();
    scratch.edits.write(response, &mut scratch.message).ok()
}
