//! A slab whose slots count their uses, so that a late name never reaches a later
//! tenant of the slot. Slot and generation have 24 bits each, as branches carry them.

const MASK: u32 = 0x00ff_ffff;
const NONE: u32 = u32::MAX;

/// A slot and its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Key {
    /// The key of no table's entry: generations of 24 bits do not reach it.
    pub(crate) const NOBODY: Self = Self {
        slot: NONE,
        generation: u32::MAX,
    };
}

struct Slot<T> {
    generation: u32,
    next_free: u32,
    value: Option<T>,
}

pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    len: usize,
}

impl<T> Table<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    /// `None` when the table is full, which 16 million entries make it.
    pub(crate) fn insert(&mut self, value: T) -> Option<Key> {
        if let Some(slot) = self.slots.get_mut(self.free as usize) {
            let key = Key {
                slot: self.free,
                generation: slot.generation,
            };
            self.free = slot.next_free;
            slot.value = Some(value);
            self.len += 1;
            return Some(key);
        }
        let slot = u32::try_from(self.slots.len())
            .ok()
            .filter(|slot| *slot <= MASK)?;
        self.slots.push(Slot {
            generation: 1,
            next_free: NONE,
            value: Some(value),
        });
        self.len += 1;
        Some(Key {
            slot,
            generation: 1,
        })
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.slot as usize)?;
        slot.value
            .as_ref()
            .filter(|_| slot.generation == key.generation)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        slot.value
            .as_mut()
            .filter(|_| slot.generation == key.generation)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = (slot.generation + 1) & MASK;
        slot.next_free = self.free;
        self.free = key.slot;
        self.len -= 1;
        Some(value)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().zip(0u32..).filter_map(|(slot, at)| {
            let key = Key {
                slot: at,
                generation: slot.generation,
            };
            slot.value.as_ref().map(|value| (key, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_names_nothing() {
        let mut table = Table::new();
        let first = table.insert('a').unwrap();
        assert_eq!(table.remove(first), Some('a'));
        assert_eq!(table.remove(first), None);
        let second = table.insert('b').unwrap();
        assert_eq!(second.slot, first.slot);
        assert_eq!(table.get(first), None);
        assert_eq!(table.get(second), Some(&'b'));
        assert_eq!(table.len(), 1);
        assert_eq!(
            table.iter().map(|(key, _)| key).collect::<Vec<_>>(),
            [second]
        );
    }
}
