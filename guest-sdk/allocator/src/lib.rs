//! The allocator of guests. A hook call asks for a dozen small blocks and gives all of them
//! back before it returns: here that is a look at a list for each, where a general allocator
//! searches for a place and joins neighbours again, which is a quarter of what a guest does.
//!
//! [`Pockets`] keeps freed blocks in lists by their size and has what is large, and what is
//! not in its lists, from the allocator behind it. Which one that is, and that it is the
//! component's, is said in `sipbox-guest`.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ptr;

/// The smallest block that is kept in a list, in bytes.
const SMALLEST: usize = 16;
/// Each list has blocks twice as large as those of the one before.
const LISTS: usize = 9;
/// The largest block that is kept in a list: larger than the view of an ordinary message.
const LARGEST: usize = SMALLEST << (LISTS - 1);
/// The alignment of the blocks in lists; what needs more goes to the allocator behind.
const ALIGN: usize = 8;

/// Bytes that the lists keep at most, all together. What is freed beyond goes back to the
/// allocator behind, which may join it to larger blocks.
const KEPT: usize = 64 << 10;

/// Free lists in front of the allocator `A`, for a single thread.
#[derive(Debug)]
pub struct Pockets<A> {
    behind: A,
    /// Bytes in the lists.
    kept: Cell<usize>,
    /// The first free block of each list; its first word is the address of the next one.
    free: [Cell<*mut u8>; LISTS],
}

// SAFETY: a component without threads has nobody to share with.
#[cfg(all(target_family = "wasm", not(target_feature = "atomics")))]
unsafe impl<A: Sync> Sync for Pockets<A> {}

impl<A> Pockets<A> {
    /// Lists with nothing in them.
    #[must_use]
    pub const fn new(behind: A) -> Self {
        Self {
            behind,
            kept: Cell::new(0),
            free: [const { Cell::new(ptr::null_mut()) }; LISTS],
        }
    }

    /// The list for blocks of this layout; `None`: they are not kept.
    #[inline]
    fn list(&self, layout: Layout) -> Option<(&Cell<*mut u8>, Layout)> {
        let size = layout.size().max(SMALLEST).next_power_of_two();
        let list = size.trailing_zeros() - SMALLEST.trailing_zeros();
        let list = self.free.get(list as usize)?;
        if layout.align() > ALIGN {
            return None;
        }
        let block = Layout::from_size_align(size, ALIGN).ok()?;
        Some((list, block))
    }
}

// SAFETY: a block of a list has at least the size and the alignment that are asked for, as
// `list` rounds up; it leaves its list before it is handed out, so nobody else has it; and
// which list it came from follows from its layout, which `dealloc` is told again. All other
// blocks are those of `behind`.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Pockets<A> {
    // Not inline: a guest has hundreds of places that allocate, and would be a third larger.
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((list, block)) = self.list(layout) else {
            // SAFETY: the caller's.
            return unsafe { self.behind.alloc(layout) };
        };
        let first = list.get();
        if first.is_null() {
            // SAFETY: `block` has the size of its list, which is not 0.
            return unsafe { self.behind.alloc(block) };
        }
        // SAFETY: the block is on the list, so nobody has it, and its first word is the
        // address of the next one. It is aligned for it: `ALIGN` is at least a word's.
        list.set(unsafe { first.cast::<*mut u8>().read() });
        self.kept.set(self.kept.get() - block.size());
        first
    }

    #[inline(never)]
    unsafe fn dealloc(&self, freed: *mut u8, layout: Layout) {
        let Some((list, block)) = self.list(layout) else {
            // SAFETY: the caller's; a block without a list came from `behind`.
            return unsafe { self.behind.dealloc(freed, layout) };
        };
        let kept = self.kept.get() + block.size();
        if kept > KEPT {
            // SAFETY: the caller's; all blocks of a list came from `behind` by its layout.
            return unsafe { self.behind.dealloc(freed, block) };
        }
        self.kept.set(kept);
        // SAFETY: the caller gives the block up. It has room for a word and is aligned for it.
        unsafe { freed.cast::<*mut u8>().write(list.get()) };
        list.set(freed);
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller vouches for a size that is not 0 and does not overflow with this
        // alignment.
        let larger = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (self.list(layout), self.list(larger)) {
            (Some((a, _)), Some((b, _))) if ptr::eq(a, b) => old,
            (None, None) => {
                // SAFETY: the caller's; the block came from `behind`.
                unsafe { self.behind.realloc(old, layout, size) }
            }
            _ => {
                // SAFETY: the size is not 0, see above.
                let moved = unsafe { self.alloc(larger) };
                if !moved.is_null() {
                    // SAFETY: both blocks have room for the smaller one of the sizes, and they
                    // are not the same one. The caller gives the old one up.
                    unsafe {
                        ptr::copy_nonoverlapping(old, moved, layout.size().min(size));
                        self.dealloc(old, layout);
                    }
                }
                moved
            }
        }
    }
}

const _: () = assert!(ALIGN >= align_of::<*mut u8>() && SMALLEST >= size_of::<*mut u8>());
const _: () = assert!(LARGEST == 4096);
