//! What could not be sent, and what was sent and came back.

use std::net::SocketAddr;

use sipbox_sip::Message;

use super::{Env, Stack};
use crate::ids::SendToken;
use crate::outbox::Outbox;

impl Stack {
    /// A message with this token could not be sent, or its connection could not be
    /// made: its branch has failed (RFC 3261 16.9), unless UDP is left to try
    /// (18.1.1).
    pub fn transport_error(&self, env: &mut Env<'_>, token: SendToken, out: &mut Outbox) {
        self.step(usize::from(token.place.shard), env, out, |shard, cx| {
            shard.transport_error(token, cx);
        });
    }

    /// A datagram to `peer` came back as undeliverable (18.4); `quoted` is as much of
    /// it as came with the report. If that names a request of ours which went there
    /// and has had no response, its branch has failed as in
    /// [`Stack::transport_error`]. The keyed tag of the branch keeps strangers from
    /// making such reports up.
    pub fn undeliverable(
        &self,
        env: &mut Env<'_>,
        quoted: Message<'_>,
        peer: SocketAddr,
        out: &mut Outbox,
    ) {
        if !quoted.is_request() {
            return;
        }
        let via = quoted.via_top().ok();
        let branch = via.and_then(|via| self.ids.read_branch(via.branch()?));
        let Some(place) = branch
            .filter(|branch| branch.current)
            .and_then(|branch| branch.place)
        else {
            return;
        };
        self.step(usize::from(place.shard), env, out, |shard, cx| {
            shard.undeliverable(place, peer, cx);
        });
    }
}
