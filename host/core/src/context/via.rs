//! RFC 3261 16.7 step 3: a response goes upstream without our Via.

use bytes::Bytes;
use sipbox_sip::{HeaderId, Message};

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
    let top = response.field(HeaderId::Via)?;
    let line = top.line;
    let alone = !response.get(top.value).contains(&b',');
    if alone && response.all(HeaderId::Via).nth(1).is_some() {
        // The usual case: a field of its own, so the rest is copied at once.
        scratch.edits.clear();
        scratch.edits.remove(line).ok()?;
        scratch.message.clear();
        return scratch.edits.write(response, &mut scratch.message).ok();
    }
    let mut vias = response.values(HeaderId::Via);
    let top = vias.next()?;
    vias.next()?;
    scratch.edits.clear();
    scratch.edits.remove_value(response, &top).ok()?;
    scratch.message.clear();
    scratch.edits.write(response, &mut scratch.message).ok()
}
