//! How a request finds its server transaction (RFC 3261 17.2.3): by branch and
//! sent-by of the top Via, or for elements of RFC 2543 by the fields listed there.
//! The key is a keyed hash of 128 bits, so that nobody can aim at a transaction
//! or at a shard.

use std::hash::Hasher;

use crate::gathered::Gathered;
use crate::ids::StatelessId;
use crate::intake::LoopHash;
use sipbox_sip::{Message, Method, Via};
use siphasher::sip128::{Hasher128, SipHasher13};

/// The requests that share a branch: an INVITE with its ACKs, its CANCEL, and
/// whatever else uses the branch again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TransactionKey {
    /// Without the method: what an INVITE and its CANCEL have in common.
    pub(crate) base: u128,
    /// A number for the method; ACK counts as INVITE.
    pub(crate) method: u64,
}

impl TransactionKey {
    pub(crate) fn of(key: &[u8; 16], message: Message<'_>, via: &Via<'_>) -> Self {
        let mut named = Gathered::new(SipHasher13::new_with_key(key));
        if via.has_cookie() {
            named.part(b"3261");
            named.part(via.branch().unwrap_or_default());
        } else {
            named.part(b"2543");
            rfc2543(&mut named, message, via);
        }
        named.lower(via.host_raw);
        named.part(&via.port_or_default().to_be_bytes());
        Self {
            base: named.hasher().finish128().as_u128(),
            method: method(key, message),
        }
    }

    /// The name of a stateless forward.
    pub(crate) fn stateless(&self, hash: LoopHash) -> StatelessId {
        StatelessId {
            incoming: u64::try_from(self.base & u128::from(u64::MAX)).unwrap_or(0),
            loop_hash: hash.stateless,
        }
    }

    pub(crate) const fn with_method(self, method: Method) -> Self {
        Self {
            base: self.base,
            method: method as u64,
        }
    }

    /// The shard that serves every request of this branch.
    pub(crate) fn shard(&self, shards: usize) -> usize {
        let spread = u64::try_from(self.base >> 64).unwrap_or(0);
        usize::try_from(spread % shards.max(1) as u64).unwrap_or(0)
    }
}

/// 17.2.3, second half. The To tag is left out: an INVITE has none where its ACK
/// does; the machine compares it with the tag that we sent.
fn rfc2543(named: &mut Gathered<SipHasher13>, message: Message<'_>, via: &Via<'_>) {
    named.part(message.request_uri());
    let from = message.from().ok().and_then(|from| from.tag());
    named.part(from.unwrap_or_default());
    named.part(message.call_id().unwrap_or_default());
    let number = message.cseq().map(|cseq| cseq.number).unwrap_or_default();
    named.part(&number.to_be_bytes());
    named.part(via.branch().unwrap_or_default());
}

fn method(key: &[u8; 16], message: Message<'_>) -> u64 {
    match message.method() {
        Method::Ack => Method::Invite as u64,
        Method::Other => {
            let mut hasher = siphasher::sip::SipHasher13::new_with_key(key);
            hasher.write(message.method_token());
            // Apart from the small numbers of the known methods.
            hasher.finish() | 1 << 63
        }
        known => known as u64,
    }
}

#[cfg(test)]
mod tests {
    use sipbox_sip::Index;

    use super::*;

    fn key(text: &str) -> TransactionKey {
        let bytes = text.replace('\n', "\r\n");
        let mut index = Index::new();
        let message = Message::parse(bytes.as_bytes(), &mut index).unwrap();
        TransactionKey::of(&[1; 16], message, &message.via_top().unwrap())
    }

    fn request(method: &str, via: &str, uri: &str, to: &str, cseq: u32) -> TransactionKey {
        key(&format!(
            "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP {via}\nFrom: <sip:a@x>;tag=1\n\
             To: {to}\nCall-ID: c\nCSeq: {cseq} {method}\n\n"
        ))
    }

    #[test]
    fn ack_matches_its_invite_and_cancel_shares_the_branch_only() {
        let via = "h:5060;branch=z9hG4bKa";
        let invite = request("INVITE", via, "sip:b@x", "<sip:b@x>", 1);
        assert_eq!(invite, request("ACK", via, "sip:b@x", "<sip:b@x>;tag=2", 1));
        let cancel = request("CANCEL", via, "sip:b@x", "<sip:b@x>", 1);
        assert_ne!(invite, cancel);
        assert_eq!(invite, cancel.with_method(Method::Invite));
        assert_ne!(request("FOO", via, "sip:b@x", "<sip:b@x>", 1), invite);
        assert_ne!(
            request("FOO", via, "sip:b@x", "<sip:b@x>", 1),
            request("BAR", via, "sip:b@x", "<sip:b@x>", 1)
        );
    }

    #[test]
    fn the_same_branch_from_another_sender_is_another_transaction() {
        let one = request(
            "INVITE",
            "h:5060;branch=z9hG4bKa",
            "sip:b@x",
            "<sip:b@x>",
            1,
        );
        let same = request("INVITE", "H;branch=z9hG4bKa", "sip:c@x", "<sip:b@x>", 1);
        let other = request(
            "INVITE",
            "h:5061;branch=z9hG4bKa",
            "sip:b@x",
            "<sip:b@x>",
            1,
        );
        assert_eq!(
            one, same,
            "the host's case and the default port do not matter"
        );
        assert_ne!(one, other);
    }

    #[test]
    fn without_the_cookie_the_fields_of_rfc_2543_count() {
        let one = request("INVITE", "h;branch=1", "sip:b@x", "<sip:b@x>", 1);
        assert_eq!(
            one,
            request("ACK", "h;branch=1", "sip:b@x", "<sip:b@x>;tag=2", 1)
        );
        assert_ne!(
            one,
            request("INVITE", "h;branch=1", "sip:b@x", "<sip:b@x>", 2)
        );
        assert_ne!(
            one,
            request("INVITE", "h;branch=1", "sip:c@x", "<sip:b@x>", 1)
        );
        assert_ne!(
            one,
            request("INVITE", "h2;branch=1", "sip:b@x", "<sip:b@x>", 1)
        );
    }
}
