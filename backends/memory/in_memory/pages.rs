//! Fixed-size pages in anonymous maps, linked into chains.
//!
//! A heap allocator that holds texts of mixed sizes for hours fragments: the process grows to a multiple of what is
//! stored. Pages of one size do not fragment, and whole maps return to the system.

use std::io;
use std::sync::Arc;

use memmap2::MmapMut;
use parking_lot::Mutex;

use super::numbers::{FreeNumbers, NONE};

/// Bytes of a page.
const PAGE: usize = 512;
/// Size of a map. Small maps let each shard return memory in small steps.
const MAP: usize = 64 * 1024;
const MAP_PAGES: usize = MAP / PAGE;
/// The bytes that a page accounts for: itself, its links, and its place in the list of free pages.
pub(super) const PAGE_BYTES: usize = PAGE + size_of::<Links>() + size_of::<u32>();
/// Unused maps kept for reuse, which saves system calls and page faults.
const MAX_SPARE_MAPS: usize = 8;
/// A shard keeps this share of its pages free, and at least two maps, before it returns memory.
const FREE_SHARE: usize = 16;
/// Marks the owner of a chain among the links of its first page.
const OWNER: u32 = 1 << 31;

/// The neighbors of a page in its chain.
#[derive(Clone, Copy)]
struct Links {
    /// The previous page; of the first one, its owner with the mark [`OWNER`].
    previous: u32,
    /// The next page, or [`NONE`].
    next: u32,
}

/// Unused maps, shared by all shards.
#[derive(Default)]
pub(super) struct SpareMaps(Mutex<Vec<MmapMut>>);

impl SpareMaps {
    fn take(&self) -> io::Result<MmapMut> {
        let spare = self.0.lock().pop();
        spare.map_or_else(|| MmapMut::map_anon(MAP), Ok)
    }

    fn put(&self, map: MmapMut) {
        let mut spare = self.0.lock();
        if spare.len() < MAX_SPARE_MAPS {
            spare.push(map);
        }
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

/// The pages of one shard.
pub(super) struct Pages {
    maps: Vec<MmapMut>,
    /// Of all pages. Close together, and not on the pages: following a chain does not touch them.
    links: Vec<Links>,
    free: FreeNumbers,
    spare: Arc<SpareMaps>,
}

impl Pages {
    pub(super) fn new(spare: Arc<SpareMaps>) -> Self {
        Self { maps: Vec::new(), links: Vec::new(), free: FreeNumbers::default(), spare }
    }

    /// The unused maps that it shares.
    pub(super) fn spare(&self) -> Arc<SpareMaps> {
        Arc::clone(&self.spare)
    }

    /// Number of pages that a chain of so many bytes has.
    pub(super) fn needed(bytes: usize) -> usize {
        bytes.div_ceil(PAGE)
    }

    /// Pages in use.
    pub(super) fn used(&self) -> usize {
        self.maps.len() * MAP_PAGES - self.free.len()
    }

    /// Makes `pages` allocations possible.
    ///
    /// # Errors
    /// The system's, when it has no memory left.
    pub(super) fn reserve(&mut self, pages: usize) -> io::Result<()> {
        while self.free.len() < pages {
            let first = (self.maps.len() * MAP_PAGES) as u32;
            self.maps.push(self.spare.take()?);
            self.links.extend_from_slice(&[Links { previous: NONE, next: NONE }; MAP_PAGES]);
            self.free.extend(first..first + MAP_PAGES as u32);
        }
        Ok(())
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
        self.links[last as usize].next = NONE;
        self.release(rest);
    }

    /// Sets the number of the entry that a chain belongs to.
    pub(super) fn set_owner(&mut self, first: u32, owner: u32) {
        self.links[first as usize].previous = owner | OWNER;
    }

    /// Frees a chain.
    pub(super) fn release(&mut self, first: u32) {
        let mut page = first;
        while page != NONE {
            self.free.put(page);
            page = self.next(page);
        }
    }

    /// Frees all pages and maps.
    pub(super) fn clear(&mut self) {
        self.maps.drain(..).for_each(|map| self.spare.put(map));
        (self.maps, self.links, self.free) = Default::default();
    }

    fn extend(&mut self, mut last: u32, pages: usize) {
        for _ in 0..pages {
            last = self.allocate_after(last);
        }
    }

    fn allocate_after(&mut self, previous: u32) -> u32 {
        let page = self.free.take().expect("the caller reserved it");
        self.links[page as usize] = Links { previous, next: NONE };
        self.set_next(previous, page);
        page
    }

    fn next(&self, page: u32) -> u32 {
        self.links[page as usize].next
    }

    fn set_next(&mut self, previous: u32, page: u32) {
        if previous & OWNER == 0 {
            self.links[previous as usize].next = page;
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
            let piece = &self.page(page)[offset..PAGE.min(offset + bytes)];
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
            self.page_mut(page)[offset..offset + start.len()].copy_from_slice(start);
            (offset, bytes) = (offset + start.len(), rest);
        }
    }

    /// Returns maps to the system if enough pages are free. Pages in use move; `moved_first` is called with the owner of
    /// each first page that did, and its new number.
    pub(super) fn compact(&mut self, mut moved_first: impl FnMut(u32, u32)) {
        if self.free.len() < (self.used() / FREE_SHARE).max(2 * MAP_PAGES) {
            return;
        }
        // One map more than necessary, so that the next allocation does not map it again.
        let keep_maps = self.used().div_ceil(MAP_PAGES) + 1;
        let keep = keep_maps * MAP_PAGES;
        for (from, to) in self.free.lower_max(self.links.len(), keep) {
            *self.page_mut(to) = *self.page(from);
            let links = self.links[from as usize];
            self.links[to as usize] = links;
            self.set_next(links.previous, to);
            if links.next != NONE {
                self.links[links.next as usize].previous = to;
            }
            if links.previous & OWNER != 0 {
                moved_first(links.previous & !OWNER, to);
            }
        }
        self.maps.drain(keep_maps..).for_each(|map| self.spare.put(map));
        self.links.truncate(keep);
        self.links.shrink_to(2 * keep);
    }

    fn page(&self, page: u32) -> &[u8; PAGE] {
        let (map, start) = (page as usize / MAP_PAGES, page as usize % MAP_PAGES * PAGE);
        self.maps[map][start..start + PAGE].try_into().expect("one page")
    }

    fn page_mut(&mut self, page: u32) -> &mut [u8; PAGE] {
        let (map, start) = (page as usize / MAP_PAGES, page as usize % MAP_PAGES * PAGE);
        (&mut self.maps[map][start..start + PAGE]).try_into().expect("one page")
    }
}
