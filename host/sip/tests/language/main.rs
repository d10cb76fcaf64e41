//! What the language must do, seen from outside: tables, RFC 4475, properties.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod build;
mod corpus;
mod edits;
mod framing;
mod index;
#[path = "../../fuzz/invariants.rs"]
mod invariants;
mod nat;
mod properties;
mod rfc4475;
mod sdp;
mod uri;
mod validation;
mod values;

use sipbox_sip::{EditList, Index, Message};

/// A request with CRLF line ends from lines.
pub(crate) fn lines(text: &str) -> Vec<u8> {
    text.trim_start()
        .lines()
        .flat_map(|l| [l.trim_start(), "\r\n"])
        .collect::<String>()
        .into()
}

/// The message with the edits written out.
pub(crate) fn written(message: Message<'_>, edits: &EditList) -> String {
    let mut out = Vec::new();
    edits.write(message, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Indexes bytes, leaking the index so that the message can be passed around.
pub(crate) fn parse(bytes: &[u8]) -> Message<'_> {
    let index = Box::leak(Box::new(Index::new()));
    Message::parse(bytes, index).unwrap()
}
