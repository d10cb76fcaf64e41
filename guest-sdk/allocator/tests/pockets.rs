//! Blocks never overlap, keep what is written to them, and are used again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use proptest::prelude::*;
use sipbox_guest_allocator::Pockets;

/// The system's allocator, which knows what it gave to whom. Clones are the same one.
#[derive(Clone, Default)]
struct Watched {
    live: Rc<RefCell<HashMap<usize, Layout>>>,
    asked: Rc<Cell<usize>>,
}

impl Watched {
    fn bytes(&self) -> usize {
        self.live.borrow().values().map(Layout::size).sum()
    }
}

// SAFETY: the blocks are those of the system's allocator.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.asked.set(self.asked.get() + 1);
        // SAFETY: the caller's.
        let block = unsafe { System.alloc(layout) };
        self.live.borrow_mut().insert(block.addr(), layout);
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let given = self.live.borrow_mut().remove(&block.addr());
        assert_eq!(given, Some(layout), "given back as it was asked for");
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
        let behind = Watched::default();
        let pockets = Pockets::new(behind.clone());
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
        prop_assert!(behind.bytes() <= 64 << 10, "{} bytes are kept", behind.bytes());
    }
}

#[test]
fn a_freed_block_serves_the_next_one_of_its_size() {
    let behind = Watched::default();
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
fn so_much_is_kept_and_no_more() {
    let behind = Watched::default();
    let pockets = Pockets::new(behind.clone());
    let layout = Layout::from_size_align(60, 8).unwrap();
    for _ in 0..3 {
        // SAFETY: the size is not 0.
        let alloc = |_| unsafe { pockets.alloc(layout) };
        let blocks: Vec<*mut u8> = (0..10_000).map(alloc).collect();
        assert_eq!(behind.bytes(), 640_000);
        for block in blocks {
            // SAFETY: allocated above by this layout.
            unsafe { pockets.dealloc(block, layout) };
        }
        assert_eq!(behind.bytes(), 64 << 10);
    }
    // Those that are kept were not asked for again.
    assert_eq!(behind.asked.get(), 3 * 10_000 - 2 * 1024);
}
