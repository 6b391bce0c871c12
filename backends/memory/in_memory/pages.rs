//! Fixed-size pages for texts, linked into chains.

use std::io;

use bytemuck::{Pod, Zeroable};

use super::maps::{LARGE_MAP, SMALL_MAP, SpareMaps, Table};
use super::numbers::{NONE, Numbers};

/// Bytes of a page.
const PAGE: usize = 512;
/// The bytes that a page accounts for: itself, its links, and its place in the list of free pages.
pub(super) const PAGE_BYTES: usize = PAGE + size_of::<Links>() + size_of::<u32>();
/// A shard keeps this share of its pages free, and at least so many, before it returns memory.
const FREE_SHARE: usize = 16;
const MIN_FREE: usize = 64;
/// Marks the owner of a chain among the links of its first page.
const OWNER: u32 = 1 << 31;

type Page = [u8; PAGE];

/// The neighbors of a page in its chain.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Links {
    /// The previous page; of the first one, its owner with the mark [`OWNER`].
    previous: u32,
    /// The next page, or [`NONE`].
    next: u32,
}

/// The pages of one shard.
pub(super) struct Pages {
    numbers: Numbers,
    all: Table<Page, LARGE_MAP>,
    /// Close together, and not on the pages: following a chain does not touch them.
    links: Table<Links, SMALL_MAP>,
}

impl Pages {
    pub(super) fn new(spare: SpareMaps) -> Self {
        Self {
            numbers: Numbers::new(spare.clone()),
            all: Table::new(spare.clone()),
            links: Table::new(spare),
        }
    }

    /// Number of pages that a chain of so many bytes has.
    pub(super) fn needed(bytes: usize) -> usize {
        bytes.div_ceil(PAGE)
    }

    /// Pages in use.
    pub(super) fn used(&self) -> usize {
        self.numbers.used()
    }

    /// Makes `pages` allocations possible.
    ///
    /// # Errors
    /// The system's, when it has no memory left.
    pub(super) fn reserve(&mut self, pages: usize) -> io::Result<()> {
        let len = self.numbers.reserve(pages)?;
        self.all.reserve(len)?;
        self.links.reserve(len)
    }

    /// Allocates a chain of at least one page, which was [reserved](Self::reserve). The caller sets its
    /// [owner](Self::set_owner).
    pub(super) fn allocate(&mut self, pages: usize) -> u32 {
        let first = self.allocate_after(OWNER);
        self.extend(first, pages - 1);
        first
    }

    /// Changes the length of a chain. Additional pages were [reserved](Self::reserve).
    pub(super) fn resize(&mut self, first: u32, old: usize, new: usize) {
        let mut last = first;
        for _ in 1..old.min(new) {
            last = self.next(last);
        }
        if new >= old {
            return self.extend(last, new - old);
        }
        let rest = self.next(last);
        self.links[last].next = NONE;
        self.release(rest);
    }

    /// Sets the number of the entry that a chain belongs to.
    pub(super) fn set_owner(&mut self, first: u32, owner: u32) {
        self.links[first].previous = owner | OWNER;
    }

    /// Frees a chain.
    pub(super) fn release(&mut self, first: u32) {
        let mut page = first;
        while page != NONE {
            self.numbers.put(page);
            page = self.next(page);
        }
    }

    fn extend(&mut self, mut last: u32, pages: usize) {
        for _ in 0..pages {
            last = self.allocate_after(last);
        }
    }

    fn allocate_after(&mut self, previous: u32) -> u32 {
        let page = self.numbers.take();
        self.links[page] = Links { previous, next: NONE };
        self.set_next(previous, page);
        page
    }

    fn next(&self, page: u32) -> u32 {
        self.links[page].next
    }

    fn set_next(&mut self, previous: u32, page: u32) {
        if previous & OWNER == 0 {
            self.links[previous].next = page;
        }
    }

    /// Calls `take` with the bytes of a chain, piece by piece, while it returns `true`. Returns whether it always did.
    pub(super) fn read(
        &self,
        first: u32,
        mut offset: usize,
        mut bytes: usize,
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let mut page = first;
        while bytes > 0 {
            while offset >= PAGE {
                (page, offset) = (self.next(page), offset - PAGE);
            }
            let piece = &self.all[page][offset..PAGE.min(offset + bytes)];
            if !take(piece) {
                return false;
            }
            (offset, bytes) = (offset + piece.len(), bytes - piece.len());
        }
        true
    }

    /// Copies bytes out of a chain.
    pub(super) fn copy(&self, first: u32, offset: usize, bytes: usize) -> Vec<u8> {
        let mut copy = Vec::with_capacity(bytes);
        self.read(first, offset, bytes, |piece| {
            copy.extend_from_slice(piece);
            true
        });
        copy
    }

    /// Whether a chain has these bytes at `offset`.
    pub(super) fn has_bytes(&self, first: u32, offset: usize, mut bytes: &[u8]) -> bool {
        self.read(first, offset, bytes.len(), |piece| {
            let (start, rest) = bytes.split_at(piece.len());
            bytes = rest;
            start == piece
        })
    }

    /// Overwrites bytes of a chain.
    pub(super) fn write(&mut self, first: u32, mut offset: usize, mut bytes: &[u8]) {
        let mut page = first;
        while !bytes.is_empty() {
            while offset >= PAGE {
                (page, offset) = (self.next(page), offset - PAGE);
            }
            let (start, rest) = bytes.split_at(bytes.len().min(PAGE - offset));
            self.all[page][offset..offset + start.len()].copy_from_slice(start);
            (offset, bytes) = (offset + start.len(), rest);
        }
    }

    /// Returns maps to the system if enough pages are free. Pages in use move; `moved_first` is called with the owner of
    /// each first page that did, and its new number.
    pub(super) fn compact(&mut self, mut moved_first: impl FnMut(u32, u32)) {
        if self.numbers.free() < (self.used() / FREE_SHARE).max(MIN_FREE) {
            return;
        }
        // More than necessary, so that the next allocation does not map it again.
        let keep = self.used() + MIN_FREE / 2;
        for (from, to) in self.numbers.lower_max(keep) {
            self.all[to] = self.all[from];
            let links = self.links[from];
            self.links[to] = links;
            self.set_next(links.previous, to);
            if links.next != NONE {
                self.links[links.next].previous = to;
            }
            if links.previous & OWNER != 0 {
                moved_first(links.previous & !OWNER, to);
            }
        }
        self.links.shrink_to(keep);
        self.all.shrink_to(keep);
    }
}
