//! What the bench measures of `sipbox-sip`: the work of a forwarding proxy on one
//! message, with buffers that live from message to message.

use sipbox_sip::{EditError, EditList, HeaderId, Index, Message, ParseError};

/// A 1 kB INVITE with 15 header fields and SDP.
pub const INVITE: &[u8] = include_bytes!("../../../../host/sip/tests/corpus/invite-1k.sip");

/// Indexes a message.
///
/// # Errors
/// As the index does.
pub fn index(index: &mut Index, bytes: &[u8]) -> Result<usize, ParseError> {
    index.parse(bytes)?;
    Ok(index.headers().len())
}

/// Adds Via and Record-Route, counts Max-Forwards down, writes the message out.
///
/// # Errors
/// As the edits do.
pub fn forward(
    message: Message<'_>,
    edits: &mut EditList,
    out: &mut Vec<u8>,
) -> Result<(), EditError> {
    edits.clear();
    let via = b"SIP/2.0/UDP proxy.example.org:5060;branch=z9hG4bK4b43c2ff8.1";
    edits.prepend_header(message, HeaderId::Via, via)?;
    edits.prepend_header(
        message,
        HeaderId::RecordRoute,
        b"<sip:proxy.example.org;lr>",
    )?;
    if let Some(field) = message.field(HeaderId::MaxForwards) {
        edits.replace_value(field, b"69")?;
    }
    out.clear();
    edits.write(message, out)
}
