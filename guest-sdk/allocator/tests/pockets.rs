//! Blocks never overlap, keep what is written to them, and are used again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use proptest::prelude::*;
use sipbox_guest_allocator::Pockets;

/// An allocator that has so many bytes and counts. Clones are the same one.
#[derive(Clone)]
struct Bounded {
    left: Rc<Cell<usize>>,
    asked: Rc<Cell<usize>>,
}

impl Bounded {
    fn of(bytes: usize) -> Self {
        Self {
            left: Rc::new(Cell::new(bytes)),
            asked: Rc::default(),
        }
    }
}

// SAFETY: the blocks are those of the system's allocator.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.asked.set(self.asked.get() + 1);
        match self.left.get().checked_sub(layout.size()) {
            None => std::ptr::null_mut(),
            Some(left) => {
                self.left.set(left);
                // SAFETY: the caller's.
                unsafe { System.alloc(layout) }
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.left.set(self.left.get() + layout.size());
        // SAFETY: the caller's.
        unsafe { System.dealloc(block, layout) }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Alloc { size: usize, align: u32 },
    Free(usize),
    Resize(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Sizes around those of the lists, and far beyond them.
    let size = || prop_oneof![1usize..80, 1000usize..1100, 4000usize..5000, 1usize..20_000];
    let step = prop_oneof![
        3 => (size(), 0u32..6).prop_map(|(size, align)| Step::Alloc { size, align }),
        2 => any::<usize>().prop_map(Step::Free),
        1 => (any::<usize>(), size()).prop_map(|(which, size)| Step::Resize(which, size)),
    ];
    prop::collection::vec(step, 1..200)
}

/// A block, and the byte that it is filled with.
struct Held {
    block: *mut u8,
    layout: Layout,
    fill: u8,
}

impl Held {
    fn check(&self, bytes: usize) {
        // SAFETY: the block is ours, and was filled from end to end.
        let content = unsafe { std::slice::from_raw_parts(self.block, bytes) };
        assert!(content.iter().all(|byte| *byte == self.fill));
    }

    fn fill(&self) {
        // SAFETY: the block is ours.
        unsafe { self.block.write_bytes(self.fill, self.layout.size()) };
    }
}

proptest! {
    #[test]
    fn blocks_keep_what_is_written_to_them(steps in steps()) {
        let pockets = Pockets::new(System);
        let mut held: Vec<Held> = Vec::new();
        let mut fill = 0u8;
        for step in steps {
            fill = fill.wrapping_add(1);
            match step {
                Step::Alloc { size, align } => {
                    let layout = Layout::from_size_align(size, 1 << align).unwrap();
                    // SAFETY: the size is not 0.
                    let block = unsafe { pockets.alloc(layout) };
                    prop_assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
                    let new = Held { block, layout, fill };
                    new.fill();
                    held.push(new);
                }
                Step::Free(which) if !held.is_empty() => {
                    let old = held.swap_remove(which % held.len());
                    old.check(old.layout.size());
                    // SAFETY: allocated above by this layout, and given up here.
                    unsafe { pockets.dealloc(old.block, old.layout) };
                }
                Step::Resize(which, size) if !held.is_empty() => {
                    let which = which % held.len();
                    let old = &mut held[which];
                    let before = old.layout.size();
                    // SAFETY: allocated above by this layout; the size is not 0.
                    old.block = unsafe { pockets.realloc(old.block, old.layout, size) };
                    prop_assert!(!old.block.is_null());
                    old.layout = Layout::from_size_align(size, old.layout.align()).unwrap();
                    prop_assert!(old.block.addr().is_multiple_of(old.layout.align()));
                    old.check(before.min(size));
                    old.fill = fill;
                    old.fill();
                }
                Step::Free(_) | Step::Resize(..) => {}
            }
        }
        for block in held {
            block.check(block.layout.size());
            // SAFETY: allocated above by this layout.
            unsafe { pockets.dealloc(block.block, block.layout) };
        }
    }
}

#[test]
fn a_freed_block_serves_the_next_one_of_its_size() {
    let behind = Bounded::of(1 << 20);
    let pockets = Pockets::new(behind.clone());
    let sizes = [1, 16, 17, 700, 4096, 4097];
    let mut blocks = HashMap::new();
    for round in 0..100 {
        for size in sizes {
            let layout = Layout::from_size_align(size, 4).unwrap();
            // SAFETY: the size is not 0, and the block is given up at once.
            let block = unsafe {
                let block = pockets.alloc(layout);
                pockets.dealloc(block, layout);
                block
            };
            let first = *blocks
                .entry(size.next_power_of_two().max(16))
                .or_insert(block);
            assert!(size > 4096 || block == first, "{size} in round {round}");
        }
    }
    // 1 and 16 are of one list; the largest goes to the allocator behind each time.
    assert_eq!(behind.asked.get(), 4 + 100);
}

#[test]
fn what_is_kept_is_given_back_before_memory_runs_out() {
    let behind = Bounded::of(1 << 20);
    let pockets = Pockets::new(behind.clone());
    let small = Layout::from_size_align(64, 8).unwrap();
    // SAFETY: the size is not 0, and all blocks are given up.
    let kept: Vec<*mut u8> = (0..10_000)
        .map(|_| unsafe { pockets.alloc(small) })
        .collect();
    for block in kept {
        // SAFETY: allocated above by this layout.
        unsafe { pockets.dealloc(block, small) };
    }
    assert!(behind.left.get() < 500_000);
    let large = Layout::from_size_align(900_000, 8).unwrap();
    // SAFETY: the size is not 0.
    let block = unsafe { pockets.alloc(large) };
    assert!(!block.is_null());
    // SAFETY: allocated above by this layout, and not used by its old address afterwards.
    let block = unsafe { pockets.realloc(block, large, 1_000_000) };
    assert!(block.is_null(), "two of them do not fit");
}
