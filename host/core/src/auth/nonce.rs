//! Nonces: node, boot, time and index under an HMAC that also covers tenant and
//! realm. Whether one is ours needs no memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::flow::TenantId;
use crate::location::Origin;
use crate::location::text64::{from_text, to_text};
use crate::time::WallTime;

const TAG: usize = 16;
const BODY: usize = 2 + 4 + 8 + 8;

/// A nonce that is ours, of this process, and not too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonce {
    /// Counts the nonces of this process.
    pub(super) index: u64,
    /// When it was made.
    pub(super) made: WallTime,
}

/// Why a nonce is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NonceFault {
    /// Not ours, or of another tenant or realm.
    Forged,
    /// Of another node or from before a restart: its counts are not known here.
    OtherProcess,
    /// Beyond its lifetime.
    Old,
}

pub(super) struct Nonces {
    keyed: Hmac<Sha256>,
    origin: Origin,
    lifetime: Duration,
    next: AtomicU64,
}

impl Nonces {
    pub(super) fn new(key: &[u8; 32], origin: Origin, lifetime: Duration) -> Self {
        // HMAC fills a key up to its block with zeros (RFC 2104 section 2).
        let mut block = [0; 64];
        for (to, from) in block.iter_mut().zip(key) {
            *to = *from;
        }
        let keyed = Hmac::new(&block.into());
        Self {
            keyed,
            origin,
            lifetime,
            next: AtomicU64::new(1),
        }
    }

    /// A text that nobody outside can know.
    pub(super) fn secret(&self) -> String {
        let mut mac = self.keyed.clone();
        mac.update(b"a user that there is not");
        to_text(&mac.finalize().into_bytes())
    }

    pub(super) fn make(&self, realm: (TenantId, &str), wall: WallTime) -> String {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let mut bytes = Vec::with_capacity(BODY + TAG);
        bytes.extend(self.origin.node.to_be_bytes());
        bytes.extend(self.origin.boot.to_be_bytes());
        bytes.extend(wall.0.to_be_bytes());
        bytes.extend(index.to_be_bytes());
        let tag = self.tag(&bytes, realm);
        bytes.extend(tag);
        to_text(&bytes)
    }

    pub(super) fn read(
        &self,
        text: &[u8],
        realm: (TenantId, &str),
        wall: WallTime,
    ) -> Result<Nonce, NonceFault> {
        let text = std::str::from_utf8(text).map_err(|_| NonceFault::Forged)?;
        // No need to hash what cannot be one.
        if text.len() > 2 * (BODY + TAG) {
            return Err(NonceFault::Forged);
        }
        let bytes = from_text(text).ok_or(NonceFault::Forged)?;
        let (body, tag) = bytes.split_last_chunk::<TAG>().ok_or(NonceFault::Forged)?;
        let body: [u8; BODY] = body.try_into().map_err(|_| NonceFault::Forged)?;
        if !bool::from(tag.ct_eq(&self.tag(&body, realm))) {
            return Err(NonceFault::Forged);
        }
        let [n0, n1, b0, b1, b2, b3, rest @ ..] = body;
        let [t0, t1, t2, t3, t4, t5, t6, t7, index @ ..] = rest;
        let origin = Origin {
            node: u16::from_be_bytes([n0, n1]),
            boot: u32::from_be_bytes([b0, b1, b2, b3]),
        };
        if origin != self.origin {
            return Err(NonceFault::OtherProcess);
        }
        let made = WallTime(u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]));
        let age = Duration::from_millis(wall.0.saturating_sub(made.0));
        if age >= self.lifetime {
            return Err(NonceFault::Old);
        }
        Ok(Nonce {
            index: u64::from_be_bytes(index),
            made,
        })
    }

    fn tag(&self, body: &[u8], (tenant, realm): (TenantId, &str)) -> [u8; TAG] {
        let mut mac = self.keyed.clone();
        mac.update(body);
        mac.update(&tenant.0.to_be_bytes());
        mac.update(realm.as_bytes());
        let whole: [u8; 32] = mac.finalize().into_bytes().into();
        let mut tag = [0; TAG];
        for (to, from) in tag.iter_mut().zip(whole) {
            *to = from;
        }
        tag
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.debug_struct("Nonces")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Origin = Origin { node: 1, boot: 2 };
    const REALM: (TenantId, &str) = (TenantId(0), "example.com");
    const NOW: WallTime = WallTime(1_000_000);

    fn nonces(key: u8, origin: Origin) -> Nonces {
        Nonces::new(&[key; 32], origin, Duration::from_secs(300))
    }

    #[test]
    fn a_nonce_is_good_until_its_lifetime_ends() {
        let nonces = nonces(1, HERE);
        let text = nonces.make(REALM, NOW);
        let read = |ms| nonces.read(text.as_bytes(), REALM, WallTime(NOW.0 + ms));
        assert_eq!(
            read(0),
            Ok(Nonce {
                index: 1,
                made: NOW
            })
        );
        assert_eq!(
            read(299_999),
            Ok(Nonce {
                index: 1,
                made: NOW
            })
        );
        assert_eq!(read(300_000), Err(NonceFault::Old));
    }

    #[test]
    fn a_nonce_is_good_for_its_realm_and_tenant_only() {
        let nonces = nonces(1, HERE);
        let text = nonces.make(REALM, NOW);
        let read = |realm| nonces.read(text.as_bytes(), realm, NOW);
        assert_eq!(read((TenantId(1), "example.com")), Err(NonceFault::Forged));
        assert_eq!(read((TenantId(0), "example.org")), Err(NonceFault::Forged));
    }

    #[test]
    fn nonces_of_other_processes_are_not_taken() {
        let here = nonces(1, HERE);
        let read = |made: Nonces| here.read(made.make(REALM, NOW).as_bytes(), REALM, NOW);
        assert_eq!(read(nonces(2, HERE)), Err(NonceFault::Forged));
        let other_boot = Origin { boot: 3, ..HERE };
        assert_eq!(read(nonces(1, other_boot)), Err(NonceFault::OtherProcess));
        let other_node = Origin { node: 3, ..HERE };
        assert_eq!(read(nonces(1, other_node)), Err(NonceFault::OtherProcess));
    }

    #[test]
    fn no_character_of_a_nonce_can_change() {
        let nonces = nonces(1, HERE);
        let text = nonces.make(REALM, NOW);
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(
                nonces.read(&changed, REALM, NOW),
                Err(NonceFault::Forged),
                "at {at}"
            );
        }
        for broken in [&b""[..], b"abc", b"\xff", &[b'A'; 500]] {
            assert_eq!(nonces.read(broken, REALM, NOW), Err(NonceFault::Forged));
        }
    }

    #[test]
    fn every_nonce_has_the_same_length() {
        let nonces = nonces(1, HERE);
        let lengths: Vec<_> = [0, 1, u64::MAX]
            .map(|at| nonces.make(REALM, WallTime(at)).len())
            .into();
        assert_eq!(lengths, [51, 51, 51]);
    }
}
