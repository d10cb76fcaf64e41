//! The hasher for maps whose keys strangers choose: SipHash under a key that is
//! handed in, so that nobody outside can aim at one bucket or one shard.

use std::hash::{BuildHasher, Hash, Hasher};

use siphasher::sip::SipHasher13;

/// Builds hashers that share one secret key.
#[derive(Clone, Debug)]
pub(crate) struct KeyedState(SipHasher13);

impl KeyedState {
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(key))
    }

    pub(crate) fn hash(&self, value: impl Hash) -> u64 {
        let mut hasher = self.0;
        value.hash(&mut hasher);
        hasher.finish()
    }

    /// Which of `count` shards a key falls into.
    pub(crate) fn shard(&self, value: impl Hash, count: usize) -> usize {
        shard_of(self.hash(value), count)
    }
}

/// Which of `count` shards a hash falls into, by its upper bits: the maps inside the shards
/// use the lower ones.
pub(crate) fn shard_of(hash: u64, count: usize) -> usize {
    let high = usize::try_from(hash >> 32).unwrap_or(0);
    high.checked_rem(count).unwrap_or(0)
}

impl BuildHasher for KeyedState {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        self.0
    }
}
