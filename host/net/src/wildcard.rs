//! Listeners on every address of the machine. The kernel would choose where a datagram
//! leaves from, and a peer that wrote to another of our addresses, or the NAT before it,
//! would not know whose it is. So they leave from the address that their receiver wrote
//! to last, as far as it is remembered.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use std::hash::BuildHasher as _;

/// Peers that are remembered; who is forgotten leaves the choice to the kernel.
const SLOTS: usize = 4096;

/// Which of our addresses peers write to. One slot for each hash, and who comes last has
/// it: a table that floods of forged sources cannot make grow.
pub(crate) struct Homes {
    hasher: RandomState,
    slots: Box<[Mutex<Option<Home>>]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Home {
    peer: SocketAddr,
    ours: IpAddr,
}

impl Default for Homes {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            slots: (0..SLOTS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Homes {
    /// Notes where a peer's datagram arrived.
    pub(crate) fn note(&self, peer: SocketAddr, ours: IpAddr) {
        // The port that a response goes to may be another (RFC 3261 section 18.2.2).
        for peer in [any_port(peer), peer] {
            let home = Home { peer, ours };
            self.with(peer, |slot| {
                if *slot != Some(home) {
                    *slot = Some(home);
                }
            });
        }
    }

    /// Where datagrams to a peer leave from.
    pub(crate) fn of(&self, peer: SocketAddr) -> Option<IpAddr> {
        let find = |peer| {
            self.with(peer, |slot| slot.filter(|home| home.peer == peer))
                .flatten()
        };
        find(peer)
            .or_else(|| find(any_port(peer)))
            .map(|home| home.ours)
    }

    fn with<T>(&self, peer: SocketAddr, work: impl FnOnce(&mut Option<Home>) -> T) -> Option<T> {
        let hash = usize::try_from(self.hasher.hash_one(peer) % SLOTS as u64).ok()?;
        let mut slot = self
            .slots
            .get(hash)?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some(work(&mut slot))
    }
}

fn any_port(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_remembered_by_port_and_by_address() {
        let homes = Homes::default();
        let ours = |last: u8| IpAddr::from([192, 0, 2, last]);
        let peer = |port: u16| SocketAddr::from(([198, 51, 100, 7], port));
        assert_eq!(homes.of(peer(1)), None);
        homes.note(peer(1), ours(1));
        homes.note(peer(2), ours(2));
        assert_eq!(homes.of(peer(1)), Some(ours(1)));
        assert_eq!(homes.of(peer(2)), Some(ours(2)));
        assert_eq!(homes.of(peer(3)), Some(ours(2)), "the last of its address");
        assert_eq!(homes.of(SocketAddr::from(([198, 51, 100, 8], 1))), None);
    }

    #[test]
    fn a_flood_takes_slots_and_no_memory() {
        let homes = Homes::default();
        let ours = IpAddr::from([192, 0, 2, 1]);
        for peer in 0..100_000u32 {
            homes.note((peer.to_be_bytes(), 5060).into(), ours);
        }
        assert_eq!(homes.slots.len(), SLOTS);
        let last = SocketAddr::from((99_999u32.to_be_bytes(), 5060));
        assert_eq!(homes.of(last), Some(ours));
    }
}
