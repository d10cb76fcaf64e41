//! Names that leave the process and come back: branches of our own requests and To
//! tags of our own responses. Each stands under a keyed tag, so that nobody can
//! make one up, and says which node and which boot it belongs to. The key of our
//! Record-Route's parameters is here too; it is another one, since dialogs outlive us.
//!
//! Names that stay inside ([`AskId`] and its like) are here as well: they carry
//! the shard, and a generation that makes late answers harmless.

use std::hash::Hasher;

use siphasher::sip::{SipHasher13, SipHasher24};

use crate::location::PingId;

/// The magic cookie of RFC 3261 8.1.1.7.
pub const COOKIE: &str = "z9hG4bK";
/// Length of the branches that we make.
pub const BRANCH_LEN: usize = COOKIE.len() + PAYLOAD * 8 / 5;

const PAYLOAD: usize = 20;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Stands for the shard in the branch of a statelessly forwarded request.
const STATELESS: u8 = u8::MAX;
/// Stands for the shard in the branch of a ping.
const PING: u8 = u8::MAX - 1;
/// The most shards that a branch can tell apart.
pub const MAX_SHARDS: usize = PING as usize;
const GENERATION_MASK: u32 = 0x00ff_ffff;

/// A place in a shard's table, and which use of it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The shard.
    pub shard: u8,
    /// The slot of its table (24 bits).
    pub slot: u32,
    /// Which use of the slot (24 bits).
    pub generation: u32,
}

/// What a request for a decision is called; it comes back with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AskId {
    pub(crate) place: Place,
    pub(crate) serial: u32,
}

/// What a send is called, for the report that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SendToken {
    pub(crate) place: Place,
    pub(crate) attempt: u8,
}

/// Marks the sends of stateless forwards; no client changes its place so often.
const FORWARDED: u8 = u8::MAX;

impl SendToken {
    pub(crate) const fn stateless(place: Place) -> Self {
        Self {
            place,
            attempt: FORWARDED,
        }
    }

    pub(crate) const fn is_stateless(self) -> bool {
        self.attempt == FORWARDED
    }

    /// As a number, for a network that knows nothing of transactions.
    #[must_use]
    pub fn to_bits(self) -> u128 {
        u128::from(self.place.shard)
            | u128::from(self.place.slot) << 8
            | u128::from(self.place.generation) << 40
            | u128::from(self.attempt) << 72
    }

    /// The token that [`SendToken::to_bits`] made a number of.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        // Each part is cut to the width that it was written with.
        let part = |shift: u32| u32::try_from(bits >> shift & 0xffff_ffff).unwrap_or_default();
        let byte = |shift: u32| u8::try_from(bits >> shift & 0xff).unwrap_or_default();
        let place = Place {
            shard: byte(0),
            slot: part(8),
            generation: part(40),
        };
        Self {
            place,
            attempt: byte(72),
        }
    }
}

/// What the branch of a request is made of that is forwarded statelessly: the same
/// for an INVITE, for its CANCEL and for the ACK of its failure (RFC 3261 16.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatelessId {
    /// Of the Via that the request came with.
    pub(crate) incoming: u64,
    pub(crate) loop_hash: u32,
}

/// What a name look-up is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResolveToken {
    pub(crate) place: Place,
    /// The look-up is for a stateless forward, which the caller remembers.
    pub(crate) serial: u32,
}

/// A branch that carries our tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnBranch {
    /// The client transaction; `None` for a request that was forwarded statelessly.
    pub place: Option<Place>,
    /// RFC 5393 4.2.1: what the routing decision depended on.
    pub loop_hash: u32,
    /// Made by this node since it started.
    pub current: bool,
}

impl OwnBranch {
    /// The ping that it is the branch of.
    pub(crate) fn ping(&self) -> Option<PingId> {
        let place = self.place.filter(|place| place.shard == PING)?;
        Some(PingId {
            shard: place.slot,
            serial: u64::from(place.generation) << 32 | u64::from(self.loop_hash),
        })
    }
}

/// A branch as it stands in our Via.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BranchText([u8; BRANCH_LEN]);

impl BranchText {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or(COOKIE)
    }
}

/// Makes and reads the names.
#[derive(Clone, Debug)]
pub struct Ids {
    key: [u8; 16],
    route_key: [u8; 16],
    node: u16,
    boot: u32,
}

impl Ids {
    /// `boot` should differ each time the node starts; 24 bits of it are used.
    #[must_use]
    pub const fn new(key: [u8; 16], node: u16, boot: u32) -> Self {
        Self {
            key,
            route_key: key,
            node,
            boot: boot & GENERATION_MASK,
        }
    }

    /// With a key of its own for what outlives a restart, and may be read by another node:
    /// the parameters of our Record-Route.
    #[must_use]
    pub const fn with_route_key(self, route_key: [u8; 16]) -> Self {
        Self { route_key, ..self }
    }

    /// A hasher under the key of Record-Route parameters.
    pub(crate) fn route_hasher(&self) -> SipHasher24 {
        SipHasher24::new_with_key(&self.route_key)
    }

    pub(crate) const fn key(&self) -> &[u8; 16] {
        &self.key
    }

    /// A hasher under our key; `domain` keeps the uses of the key apart.
    #[must_use]
    pub fn hasher(&self, domain: u8) -> SipHasher13 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u8(domain);
        hasher
    }

    /// The branch of a client transaction.
    #[must_use]
    pub fn branch(&self, place: Place, loop_hash: u32) -> BranchText {
        self.encode(place.shard, place.slot, place.generation, loop_hash)
    }

    /// The branch of a request that is forwarded statelessly: the same for each
    /// retransmission (RFC 3261 16.11), since it depends on what came alone.
    #[must_use]
    pub fn stateless_branch(&self, id: StatelessId) -> BranchText {
        let high = u32::try_from(id.incoming >> 32).unwrap_or(0);
        let low = u32::try_from(id.incoming & u64::from(u32::MAX)).unwrap_or(0);
        self.encode(STATELESS, high, low, id.loop_hash)
    }

    /// The branch of a ping, which is all that is known of it when its answer comes.
    #[must_use]
    pub fn ping_branch(&self, id: PingId) -> BranchText {
        let low = u32::try_from(id.serial & u64::from(u32::MAX)).unwrap_or(0);
        let high = u32::try_from(id.serial >> 32).unwrap_or(0);
        self.encode(PING, id.shard, high, low)
    }

    /// Reads a branch; `None` if it is not one of this key.
    #[must_use]
    pub fn read_branch(&self, branch: &[u8]) -> Option<OwnBranch> {
        let (cookie, text) = branch.split_at_checked(COOKIE.len())?;
        if text.len() != BRANCH_LEN - COOKIE.len()
            || !cookie.eq_ignore_ascii_case(COOKIE.as_bytes())
        {
            return None;
        }
        let payload = decode(text)?;
        let (body, tag) = payload.split_first_chunk::<16>()?;
        if self.tag(body).to_be_bytes() != tag {
            return None;
        }
        let [
            n0,
            n1,
            b0,
            b1,
            b2,
            shard,
            s0,
            s1,
            s2,
            g0,
            g1,
            g2,
            loop_hash @ ..,
        ] = *body;
        let current = u16::from_be_bytes([n0, n1]) == self.node
            && u32::from_be_bytes([0, b0, b1, b2]) == self.boot;
        let place = (shard != STATELESS).then_some(Place {
            shard,
            slot: u32::from_be_bytes([0, s0, s1, s2]),
            generation: u32::from_be_bytes([0, g0, g1, g2]),
        });
        Some(OwnBranch {
            place,
            loop_hash: u32::from_be_bytes(loop_hash),
            current,
        })
    }

    /// The tag of our To: the same for each response to one request, also for
    /// responses that are sent statelessly (RFC 3261 8.2.6.2, 8.2.7).
    #[must_use]
    pub fn to_tag(&self, transaction: u128) -> TagText {
        let mut hasher = self.hasher(b'g');
        hasher.write_u128(transaction);
        hasher.write_u16(self.node);
        hasher.write_u32(self.boot);
        TagText::of(hasher.finish())
    }

    fn encode(&self, shard: u8, slot: u32, generation: u32, loop_hash: u32) -> BranchText {
        let [n0, n1] = self.node.to_be_bytes();
        let [_, b0, b1, b2] = self.boot.to_be_bytes();
        let [_, s0, s1, s2] = slot.to_be_bytes();
        let [_, g0, g1, g2] = generation.to_be_bytes();
        let [l0, l1, l2, l3] = loop_hash.to_be_bytes();
        let body = [
            n0, n1, b0, b1, b2, shard, s0, s1, s2, g0, g1, g2, l0, l1, l2, l3,
        ];
        let mut payload = [0; PAYLOAD];
        for (to, from) in payload
            .iter_mut()
            .zip(body.iter().chain(&self.tag(&body).to_be_bytes()))
        {
            *to = *from;
        }
        let mut text = [0; BRANCH_LEN];
        let (cookie, rest) = text.split_at_mut(COOKIE.len());
        cookie.copy_from_slice(COOKIE.as_bytes());
        for (chunk, out) in payload.chunks(5).zip(rest.chunks_mut(8)) {
            let bits = chunk
                .iter()
                .fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            for (at, out) in out.iter_mut().enumerate() {
                *out = letter(bits >> (35 - 5 * at));
            }
        }
        BranchText(text)
    }

    fn tag(&self, body: &[u8; 16]) -> u32 {
        let mut hasher = self.hasher(b'b');
        hasher.write(body);
        u32::try_from(hasher.finish() & u64::from(u32::MAX)).unwrap_or(0)
    }
}

/// Thirteen letters that stand for 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagText([u8; Self::LEN]);

impl TagText {
    /// Bytes of the text.
    pub const LEN: usize = 13;

    /// Spells the bits.
    #[must_use]
    pub fn of(bits: u64) -> Self {
        let mut text = [0; Self::LEN];
        for (at, out) in text.iter_mut().enumerate() {
            *out = letter(bits >> (5 * at));
        }
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("sipbox")
    }
}

fn letter(bits: u64) -> u8 {
    ALPHABET.get((bits & 31) as usize).copied().unwrap_or(b'a')
}

/// What is no letter of the alphabet.
const NONE: u8 = u8::MAX;

/// The number that each byte stands for, whatever its case.
static VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut at = 0;
    while at < ALPHABET.len() {
        #[allow(clippy::indexing_slicing, reason = "runs at compile time")]
        {
            let letter = ALPHABET[at];
            values[letter as usize] = at as u8;
            values[letter.to_ascii_uppercase() as usize] = at as u8;
        }
        at += 1;
    }
    values
};

fn decode(text: &[u8]) -> Option<[u8; PAYLOAD]> {
    let mut payload = [0; PAYLOAD];
    for (chunk, out) in text.chunks(8).zip(payload.chunks_mut(5)) {
        let mut bits = 0u64;
        for letter in chunk {
            let value = VALUES.get(usize::from(*letter)).copied()?;
            if value == NONE {
                return None;
            }
            bits = bits << 5 | u64::from(value);
        }
        let [_, _, _, bytes @ ..] = bits.to_be_bytes();
        out.copy_from_slice(&bytes);
    }
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_token_survives_being_a_number() {
        let place = Place {
            shard: 254,
            slot: 0x00ff_ffff,
            generation: 0x00ab_cdef,
        };
        let token = SendToken {
            place,
            attempt: 255,
        };
        assert_eq!(SendToken::from_bits(token.to_bits()), token);
    }

    fn ids() -> Ids {
        Ids::new([7; 16], 3, 0x0012_3456)
    }

    const PLACE: Place = Place {
        shard: 5,
        slot: 0x00ab_cdef,
        generation: 0x0000_0102,
    };

    #[test]
    fn a_branch_comes_back_as_it_was_made() {
        let text = ids().branch(PLACE, 0xdead_beef);
        assert!(text.as_str().starts_with(COOKIE));
        assert_eq!(text.as_str().len(), 39);
        let expected = OwnBranch {
            place: Some(PLACE),
            loop_hash: 0xdead_beef,
            current: true,
        };
        assert_eq!(ids().read_branch(text.as_str().as_bytes()), Some(expected));
        // Tokens are compared without regard to case (RFC 3261 7.3.1).
        let shouted = text.as_str().to_ascii_uppercase();
        assert_eq!(ids().read_branch(shouted.as_bytes()), Some(expected));
    }

    #[test]
    fn a_branch_that_was_tampered_with_is_not_ours() {
        let text = ids().branch(PLACE, 1);
        for at in COOKIE.len()..BRANCH_LEN {
            let mut bytes = text.as_str().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'q' { b'r' } else { b'q' };
            assert_eq!(ids().read_branch(&bytes), None, "at {at}");
        }
        let other = Ids::new([8; 16], 3, 0x0012_3456);
        assert_eq!(other.read_branch(text.as_str().as_bytes()), None);
        assert_eq!(ids().read_branch(b"z9hG4bK776asdhds"), None);
        assert_eq!(ids().read_branch(b""), None);
    }

    #[test]
    fn a_branch_of_an_earlier_boot_or_another_node_is_known_as_such() {
        let text = ids().branch(PLACE, 1);
        for other in [Ids::new([7; 16], 3, 1), Ids::new([7; 16], 4, 0x0012_3456)] {
            let read = other.read_branch(text.as_str().as_bytes());
            assert_eq!(read.map(|read| read.current), Some(false));
        }
    }

    #[test]
    fn a_stateless_branch_depends_on_the_incoming_one_only() {
        let of = |incoming| {
            ids().stateless_branch(StatelessId {
                incoming,
                loop_hash: 9,
            })
        };
        let one = of(0x1122_3344_5566_7788);
        assert_eq!(one, of(0x1122_3344_5566_7788));
        assert_ne!(one, of(0x1122_3344_5566_7789));
        let read = ids().read_branch(one.as_str().as_bytes());
        assert_eq!(
            read,
            Some(OwnBranch {
                place: None,
                loop_hash: 9,
                current: true
            })
        );
    }

    #[test]
    fn a_to_tag_is_stable_for_a_transaction_and_differs_between_them() {
        assert_eq!(ids().to_tag(1), ids().to_tag(1));
        assert_ne!(ids().to_tag(1), ids().to_tag(2));
        assert_eq!(ids().to_tag(1).as_str().len(), 13);
    }
}
