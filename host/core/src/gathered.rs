//! What is to be hashed, put together first: a keyed hasher takes a hundred instructions for
//! each write, however short, and a message is hashed over a dozen parts.

use std::hash::Hasher;

/// Room for the parts of an ordinary message.
const ROOM: usize = 256;

/// Parts on their way into a hasher, each with its length in front, so that no two lists of
/// parts look alike.
pub(crate) struct Gathered<H> {
    hasher: H,
    bytes: [u8; ROOM],
    len: usize,
}

impl<H: Hasher> Gathered<H> {
    pub(crate) fn new(hasher: H) -> Self {
        Self {
            hasher,
            bytes: [0; ROOM],
            len: 0,
        }
    }

    /// One part.
    pub(crate) fn part(&mut self, part: &[u8]) {
        self.with(part, |_| ());
    }

    /// One part without regard to its case.
    pub(crate) fn lower(&mut self, part: &[u8]) {
        self.with(part, <[u8]>::make_ascii_lowercase);
    }

    fn with(&mut self, part: &[u8], change: impl FnOnce(&mut [u8])) {
        let length = part.len().to_ne_bytes();
        if self.len + length.len() + part.len() > ROOM {
            self.flush();
        }
        let free = self.bytes.get_mut(self.len..).unwrap_or_default();
        if let Some((front, rest)) = free.split_first_chunk_mut()
            && let Some(place) = rest.get_mut(..part.len())
        {
            *front = length;
            place.copy_from_slice(part);
            change(place);
            self.len += length.len() + part.len();
            return;
        }
        let mut long = part.to_vec();
        change(&mut long);
        self.hasher.write(&length);
        self.hasher.write(&long);
    }

    fn flush(&mut self) {
        let gathered = self.bytes.get(..self.len).unwrap_or_default();
        self.hasher.write(gathered);
        self.len = 0;
    }

    /// The hasher, with all parts in it so far.
    pub(crate) fn hasher(&mut self) -> &H {
        self.flush();
        &self.hasher
    }
}

#[cfg(test)]
mod tests {
    use siphasher::sip::SipHasher24;

    use super::*;

    /// Signatures that were written before parts were gathered are still good.
    #[test]
    fn parts_hash_as_they_do_one_by_one() {
        for sizes in [
            &[0, 3, 40][..],
            &[100, 100, 100],
            &[300, 1],
            &[247, 248, 249],
        ] {
            let mut one_by_one = SipHasher24::new_with_key(&[7; 16]);
            let mut gathered = Gathered::new(one_by_one);
            for size in sizes {
                let part = vec![b'A'; *size];
                one_by_one.write_usize(part.len());
                one_by_one.write(&part);
                gathered.part(&part);
                one_by_one.write_usize(part.len());
                one_by_one.write(&part.to_ascii_lowercase());
                gathered.lower(&part);
            }
            assert_eq!(gathered.hasher().finish(), one_by_one.finish(), "{sizes:?}");
        }
    }
}
