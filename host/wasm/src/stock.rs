//! Slots for instances that wait for a worker to take them. What is not here: the
//! instances themselves, which wait with their policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of slots.
#[derive(Clone, Debug)]
pub(crate) struct Stock {
    free: Arc<AtomicUsize>,
}

/// A slot that is taken, until this is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    free: Arc<AtomicUsize>,
}

impl Stock {
    /// So many slots, all free.
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            free: Arc::new(slots.into()),
        }
    }

    /// Takes a slot, if one is free.
    pub(crate) fn slot(&self) -> Option<Slot> {
        self.free
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
                free.checked_sub(1)
            })
            .ok()
            .map(|_| Slot {
                free: Arc::clone(&self.free),
            })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.free.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_it_is_dropped() {
        let stock = Stock::new(2);
        let first = stock.slot().unwrap();
        let _second = stock.slot().unwrap();
        assert!(stock.slot().is_none());
        drop(first);
        assert!(stock.slot().is_some());
    }
}
