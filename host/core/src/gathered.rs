//! What is to be hashed, put together first: a keyed hasher takes a hundred instructions for
//! each write, however short, and a message is hashed over a dozen parts.

use std::hash::Hasher;

use smallvec::SmallVec;

/// Parts, each with its length in front, so that no two lists of parts look alike.
#[derive(Default)]
pub(crate) struct Gathered(SmallVec<[u8; 256]>);

impl Gathered {
    /// One part.
    pub(crate) fn part(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&bytes.len().to_ne_bytes());
        self.0.extend_from_slice(bytes);
    }

    /// One part without regard to its case.
    pub(crate) fn lower(&mut self, bytes: &[u8]) {
        self.part(bytes);
        let begin = self.0.len() - bytes.len();
        if let Some(written) = self.0.get_mut(begin..) {
            written.make_ascii_lowercase();
        }
    }

    /// Hashes them all, and forgets them.
    pub(crate) fn write(&mut self, hasher: &mut impl Hasher) {
        hasher.write(&self.0);
        self.0.clear();
    }
}
