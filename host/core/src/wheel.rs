//! The timer wheel of a shard: four levels of 64 slots over a slab, 10 ms for a
//! tick. Arming and cancelling cost the same however many timers there are.
//!
//! It knows no clock: whoever turns it says what time it is.

use std::time::Duration;

use crate::time::Time;

/// The resolution of every SIP timer here.
pub const TICK: Duration = Duration::from_millis(TICK_US / 1000);

const TICK_US: u64 = 10_000;
const LEVELS: usize = 4;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// The list of timers that are due and not handed out yet.
const DUE: u32 = (LEVELS * SLOTS) as u32;
const NONE: u32 = u32::MAX;
/// Ticks that a deadline can lie ahead (46 hours); a later one waits in the last slot
/// of the top level and is sorted in again when that comes round. One slot less than
/// the levels cover, so that the last slot is never the current one.
const SPAN: u64 = (SLOTS as u64 - 1) << (SLOT_BITS * (LEVELS as u32 - 1));

/// Names one armed timer; stale once it fired or was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerHandle {
    node: u32,
    generation: u32,
}

#[derive(Clone, Copy)]
struct Node<T> {
    value: T,
    deadline: u64,
    list: u32,
    prev: u32,
    next: u32,
    generation: u32,
}

/// The wheel. `T` is small and `Copy`: the name of what has to happen.
pub struct Wheel<T> {
    nodes: Vec<Node<T>>,
    free: u32,
    heads: [u32; LEVELS * SLOTS + 1],
    occupied: [u64; LEVELS],
    now: u64,
    armed: usize,
}

impl<T: Copy> Default for Wheel<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> Wheel<T> {
    /// An empty wheel at time zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            nodes: Vec::new(),
            free: NONE,
            heads: [NONE; LEVELS * SLOTS + 1],
            occupied: [0; LEVELS],
            now: 0,
            armed: 0,
        }
    }

    /// Arms a timer. It fires in the first tick that does not lie before `deadline`.
    pub fn arm(&mut self, deadline: Time, value: T) -> TimerHandle {
        let deadline = deadline.0.div_ceil(TICK_US);
        let index = if self.free == NONE {
            let index = u32::try_from(self.nodes.len()).unwrap_or(NONE);
            self.nodes.push(Node {
                value,
                deadline,
                list: NONE,
                prev: NONE,
                next: NONE,
                generation: 0,
            });
            index
        } else {
            self.free
        };
        let mut generation = 0;
        if let Some(node) = self.nodes.get_mut(index as usize) {
            if index == self.free {
                self.free = node.next;
            }
            node.value = value;
            node.deadline = deadline;
            generation = node.generation;
        }
        self.armed += 1;
        self.sort_in(index, deadline);
        TimerHandle {
            node: index,
            generation,
        }
    }

    /// Takes a timer out; `false` if it has fired or was cancelled before.
    pub fn cancel(&mut self, handle: TimerHandle) -> bool {
        let live = self
            .nodes
            .get(handle.node as usize)
            .is_some_and(|node| node.generation == handle.generation && node.list != NONE);
        if live {
            self.unlink(handle.node);
            self.release(handle.node);
        }
        live
    }

    /// The next timer that is due at `now`. Call it until it returns `None`;
    /// timers may be armed and cancelled between the calls.
    pub fn pop(&mut self, now: Time) -> Option<T> {
        let target = now.0 / TICK_US;
        loop {
            let due = self.heads.get(DUE as usize).copied().unwrap_or(NONE);
            if let Some(node) = self.nodes.get(due as usize) {
                let value = node.value;
                self.unlink(due);
                self.release(due);
                return Some(value);
            }
            match self.next_slot() {
                Some((start, list)) if start <= target => {
                    self.now = self.now.max(start);
                    self.spill(list);
                }
                _ => {
                    self.now = self.now.max(target);
                    return None;
                }
            }
        }
    }

    /// When the wheel wants to be turned: the earliest deadline, or an earlier
    /// point at which a far one has to be sorted in again.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        if self
            .heads
            .get(DUE as usize)
            .is_some_and(|head| *head != NONE)
        {
            return Some(Time(self.now.saturating_mul(TICK_US)));
        }
        self.next_slot()
            .map(|(start, _)| Time(start.saturating_mul(TICK_US)))
    }

    /// How many timers are armed.
    #[must_use]
    pub fn armed(&self) -> usize {
        self.armed
    }

    /// The first slot with timers, and the tick at which it begins. Slots of
    /// a lower level always begin before those of a higher one.
    fn next_slot(&self) -> Option<(u64, u32)> {
        for (level, occupied) in self.occupied.iter().enumerate() {
            if *occupied == 0 {
                continue;
            }
            let shift = SLOT_BITS * u32::try_from(level).unwrap_or(0);
            let current = (self.now >> shift) & (SLOTS as u64 - 1);
            let ahead = u64::from(occupied.rotate_right(current as u32).trailing_zeros());
            let slot = (current + ahead) & (SLOTS as u64 - 1);
            // The beginning of the slot that is `ahead` slots from the current one.
            let start = ((self.now >> shift) + ahead) << shift;
            let list = u32::try_from(level * SLOTS).unwrap_or(0) + slot as u32;
            return Some((start, list));
        }
        None
    }

    fn spill(&mut self, list: u32) {
        // A slot can get its own nodes back (a deadline beyond the span), so the
        // list is taken off first.
        let Some(head) = self.heads.get_mut(list as usize) else {
            return;
        };
        let mut index = std::mem::replace(head, NONE);
        self.mark(list, false);
        while let Some(node) = self.nodes.get(index as usize) {
            let (next, deadline) = (node.next, node.deadline);
            self.sort_in(index, deadline);
            index = next;
        }
    }

    fn sort_in(&mut self, index: u32, deadline: u64) {
        let list = if deadline <= self.now {
            DUE
        } else {
            let when = deadline.min(self.now + SPAN);
            let differing = (self.now ^ when) | (SLOTS as u64 - 1);
            let level = ((63 - differing.leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1);
            let slot = (when >> (SLOT_BITS * level)) & (SLOTS as u64 - 1);
            level * SLOTS as u32 + slot as u32
        };
        let Some(head) = self.heads.get_mut(list as usize) else {
            return;
        };
        let old = std::mem::replace(head, index);
        if let Some(node) = self.nodes.get_mut(index as usize) {
            node.list = list;
            node.prev = NONE;
            node.next = old;
        }
        if let Some(node) = self.nodes.get_mut(old as usize) {
            node.prev = index;
        }
        self.mark(list, true);
    }

    fn unlink(&mut self, index: u32) {
        let Some(node) = self.nodes.get(index as usize) else {
            return;
        };
        let (list, prev, next) = (node.list, node.prev, node.next);
        if let Some(next) = self.nodes.get_mut(next as usize) {
            next.prev = prev;
        }
        if let Some(prev) = self.nodes.get_mut(prev as usize) {
            prev.next = next;
        } else if let Some(head) = self.heads.get_mut(list as usize) {
            *head = next;
            if next == NONE {
                self.mark(list, false);
            }
        }
    }

    fn release(&mut self, index: u32) {
        let free = self.free;
        if let Some(node) = self.nodes.get_mut(index as usize) {
            node.list = NONE;
            node.generation = node.generation.wrapping_add(1);
            node.next = free;
            self.free = index;
            self.armed = self.armed.saturating_sub(1);
        }
    }

    fn mark(&mut self, list: u32, on: bool) {
        let bit = 1u64 << (list % SLOTS as u32);
        if let Some(word) = self.occupied.get_mut((list / SLOTS as u32) as usize) {
            if on {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    fn fired(wheel: &mut Wheel<u32>, now: Time) -> Vec<u32> {
        let mut all: Vec<u32> = std::iter::from_fn(|| wheel.pop(now)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn a_timer_fires_at_its_deadline_and_not_before() {
        let mut wheel = Wheel::new();
        wheel.arm(ms(500), 1);
        wheel.arm(ms(32_000), 2);
        wheel.arm(ms(505), 3);
        assert_eq!(fired(&mut wheel, ms(499)), []);
        assert_eq!(fired(&mut wheel, ms(500)), [1]);
        assert_eq!(fired(&mut wheel, ms(509)), []);
        assert_eq!(fired(&mut wheel, ms(510)), [3]);
        assert_eq!(fired(&mut wheel, ms(31_999)), []);
        assert_eq!(fired(&mut wheel, ms(32_000)), [2]);
        assert_eq!(wheel.armed(), 0);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_cancelled_timer_never_fires_and_its_handle_is_stale() {
        let mut wheel = Wheel::new();
        let first = wheel.arm(ms(100), 1);
        assert!(wheel.cancel(first));
        assert!(!wheel.cancel(first));
        let second = wheel.arm(ms(100), 2);
        assert!(
            !wheel.cancel(first),
            "a stale handle must not name the node's next use"
        );
        assert_eq!(fired(&mut wheel, ms(100)), [2]);
        assert!(!wheel.cancel(second));
    }

    #[test]
    fn a_deadline_in_the_past_is_due_at_once() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.pop(ms(5_000)), None);
        wheel.arm(ms(10), 7);
        assert!(wheel.next_deadline().is_some_and(|at| at <= ms(5_000)));
        assert_eq!(fired(&mut wheel, ms(5_000)), [7]);
    }

    #[test]
    fn deadlines_beyond_the_span_come_round() {
        let mut wheel = Wheel::new();
        let week = 7 * 24 * 3600 * 1000;
        wheel.arm(ms(week), 1);
        let mut now = ms(0);
        let mut turns = 0;
        while let Some(at) = wheel.next_deadline() {
            assert!(at <= ms(week));
            now = at.max(now);
            turns += 1;
            assert!(turns < 100);
            if wheel.pop(now).is_some() {
                break;
            }
        }
        assert_eq!(now, ms(week));
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(ops in proptest::collection::vec((0u8..4, 0u64..200_000, 0usize..64), 1..400)) {
            let mut wheel = Wheel::new();
            let mut model: BTreeMap<u32, (u64, TimerHandle)> = BTreeMap::new();
            let mut now = 0u64;
            let mut next = 0u32;
            for (op, value, pick) in ops {
                match op {
                    0 | 1 => {
                        let deadline = now + value;
                        let handle = wheel.arm(ms(deadline), next);
                        model.insert(next, (deadline.div_ceil(10), handle));
                        next += 1;
                    }
                    2 => {
                        if let Some((&key, &(_, handle))) = model.iter().nth(pick) {
                            prop_assert!(wheel.cancel(handle));
                            model.remove(&key);
                        }
                    }
                    _ => {
                        now += value / 4;
                        let due: Vec<u32> = model.iter()
                            .filter(|(_, (at, _))| *at <= now / 10).map(|(key, _)| *key).collect();
                        model.retain(|_, (at, _)| *at > now / 10);
                        prop_assert_eq!(fired(&mut wheel, ms(now)), due);
                        let first = model.values().map(|(at, _)| *at).min();
                        prop_assert_eq!(wheel.next_deadline().is_some(), first.is_some());
                        if let (Some(hint), Some(first)) = (wheel.next_deadline(), first) {
                            prop_assert!(hint.as_millis() <= first * 10);
                            prop_assert!(hint.as_millis() >= now / 10 * 10);
                        }
                    }
                }
                prop_assert_eq!(wheel.armed(), model.len());
            }
        }
    }
}
