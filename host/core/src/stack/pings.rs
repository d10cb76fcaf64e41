//! Pings of bindings: light requests without a transaction, whose answers are told apart
//! by our own branch, and bytes that ask for no answer.

use std::io::Write as _;

use rand_core::Rng as _;
use sipbox_sip::build::RequestBuilder;
use sipbox_sip::{HeaderId, Transport};

use super::{Env, Stack};
use crate::ids::TagText;
use crate::location::{Datagram, Ping, PingId};
use crate::outbox::{Dropped, Outbox};

/// An answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// Which one.
    pub id: PingId,
    /// Its status.
    pub status: u16,
}

impl Stack {
    /// Sends a ping down the flow of its binding.
    pub fn ping(&self, env: &mut Env<'_>, ping: &Ping, out: &mut Outbox) {
        let Some(id) = ping.request else {
            let bytes = bytes(env, ping.flow.transport);
            out.send(ping.flow.request_hop(), &bytes, None);
            return;
        };
        let settings = &env.settings.pings;
        let Some(listener) = env.settings.listener(ping.flow.listener) else {
            return;
        };
        let branch = self.ids.ping_branch(id);
        let from = if settings.from.is_empty() {
            format!("sip:{}", listener.hostport)
        } else {
            settings.from.to_string()
        };
        let contact = &*ping.binding.contact;
        let tag = TagText::of(env.rng.next_u64());
        let via = format!("{}{}", listener.via, branch.as_str());
        let from = format!("<{from}>;tag={}", tag.as_str());
        let to = format!("<{contact}>");
        let call_id = format!(
            "{}@{}",
            TagText::of(env.rng.next_u64()).as_str(),
            listener.sent_by
        );
        let cseq = format!("1 {}", settings.method);
        let mut request = RequestBuilder::new(settings.method.as_bytes(), contact.as_bytes())
            .header(HeaderId::Via, via.as_bytes())
            .header(HeaderId::MaxForwards, b"70");
        for route in &ping.binding.path {
            request = request.header(HeaderId::Route, route.as_bytes());
        }
        let request = request
            .header(HeaderId::From, from.as_bytes())
            .header(HeaderId::To, to.as_bytes())
            .header(HeaderId::CallId, call_id.as_bytes())
            .header(HeaderId::CSeq, cseq.as_bytes());
        let start = out.arena.len();
        if request.write(&mut out.arena).is_err() {
            out.arena.truncate(start);
            out.dropped(Dropped::Unbuildable);
            return;
        }
        out.send_from(ping.flow.request_hop(), start, None);
    }
}

/// What is no request: over a stream line ends, which RFC 3261 section 7.5 has the peer
/// pass over.
fn bytes(env: &mut Env<'_>, transport: Transport) -> Vec<u8> {
    const CRLF: &[u8] = b"\r\n\r\n";
    if transport.reliable() {
        return CRLF.to_vec();
    }
    match env.settings.pings.datagram {
        Datagram::Zeros => vec![0; 4],
        Datagram::Crlf => CRLF.to_vec(),
        Datagram::Stun => {
            // RFC 8489 section 5: type, length, magic cookie, and an id of the transaction.
            let mut message = Vec::with_capacity(20);
            let _ = message.write_all(&[0x00, 0x11, 0x00, 0x00, 0x21, 0x12, 0xA4, 0x42]);
            let mut id = [0; 12];
            env.rng.fill_bytes(&mut id);
            message.extend_from_slice(&id);
            message
        }
    }
}
