//! Fixed-size pages in anonymous maps, linked into chains.
//!
//! A heap allocator that holds texts of mixed sizes for hours fragments: the process grows to a multiple of what is
//! stored. Pages of one size do not fragment, and whole maps return to the system.

use std::io;
use std::sync::Arc;

use memmap2::MmapMut;
use parking_lot::Mutex;

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
/// No page.
pub(super) const NONE: u32 = u32::MAX;

/// The neighbors of a page in its chain, or [`NONE`].
#[derive(Clone, Copy)]
struct Links {
    previous: u32,
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

/// Which pages to move, from and to, and how many maps then remain.
pub(super) struct Compaction {
    pub(super) moves: Vec<(u32, u32)>,
    pub(super) keep_maps: usize,
}

/// The pages of one shard.
pub(super) struct Pages {
    maps: Vec<MmapMut>,
    /// Of all pages. Close together, and not on the pages: following a chain does not touch them.
    links: Vec<Links>,
    free: Vec<u32>,
    spare: Arc<SpareMaps>,
}

impl Pages {
    pub(super) fn new(spare: Arc<SpareMaps>) -> Self {
        Self { maps: Vec::new(), links: Vec::new(), free: Vec::new(), spare }
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
            self.free.extend((first..first + MAP_PAGES as u32).rev());
        }
        Ok(())
    }

    /// Allocates a chain of at least one page, which was [reserved](Self::reserve).
    pub(super) fn allocate(&mut self, pages: usize) -> u32 {
        let first = self.allocate_after(NONE);
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

    /// Frees a chain.
    pub(super) fn release(&mut self, first: u32) {
        let mut page = first;
        while page != NONE {
            self.free.push(page);
            page = self.next(page);
        }
    }

    /// Frees all pages and maps.
    pub(super) fn clear(&mut self) {
        self.maps.drain(..).for_each(|map| self.spare.put(map));
        (self.maps, self.links, self.free) = (Vec::new(), Vec::new(), Vec::new());
    }

    fn extend(&mut self, mut last: u32, pages: usize) {
        for _ in 0..pages {
            last = self.allocate_after(last);
        }
    }

    fn allocate_after(&mut self, previous: u32) -> u32 {
        let page = self.free.pop().expect("the caller reserved it");
        self.links[page as usize] = Links { previous, next: NONE };
        if previous != NONE {
            self.links[previous as usize].next = page;
        }
        page
    }

    fn next(&self, page: u32) -> u32 {
        self.links[page as usize].next
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

    /// A field of a page.
    pub(super) fn field<const N: usize>(&self, page: u32, offset: usize) -> [u8; N] {
        self.page(page)[offset..offset + N].try_into().expect("N bytes")
    }

    /// Overwrites a field of a page.
    pub(super) fn set_field<const N: usize>(&mut self, page: u32, offset: usize, to: [u8; N]) {
        self.page_mut(page)[offset..offset + N].copy_from_slice(&to);
    }

    /// How to empty the last maps, if enough pages are free. The caller makes each [move](Self::move_page) and then
    /// [truncates](Self::truncate).
    pub(super) fn compaction(&mut self) -> Option<Compaction> {
        if self.free.len() < (self.used() / FREE_SHARE).max(2 * MAP_PAGES) {
            return None;
        }
        // One map more than necessary, so that the next allocation does not map it again.
        let keep_maps = self.used().div_ceil(MAP_PAGES) + 1;
        let keep = (keep_maps * MAP_PAGES) as u32;
        let mut occupied = vec![true; (self.maps.len() - keep_maps) * MAP_PAGES];
        self.free.retain(|&page| {
            let stays = page < keep;
            if !stays {
                occupied[(page - keep) as usize] = false;
            }
            stays
        });
        let from = (keep..).zip(&occupied).filter(|(_, occupied)| **occupied).map(|(page, _)| page);
        let moves =
            from.map(|from| (from, self.free.pop().expect("more pages are free than move"))).collect();
        Some(Compaction { moves, keep_maps })
    }

    /// Copies a page and relinks its neighbors. Returns whether it is the first of its chain.
    pub(super) fn move_page(&mut self, from: u32, to: u32) -> bool {
        *self.page_mut(to) = *self.page(from);
        let Links { previous, next } = self.links[from as usize];
        self.links[to as usize] = Links { previous, next };
        if previous != NONE {
            self.links[previous as usize].next = to;
        }
        if next != NONE {
            self.links[next as usize].previous = to;
        }
        previous == NONE
    }

    /// Removes the maps that compaction emptied.
    pub(super) fn truncate(&mut self, keep_maps: usize) {
        self.maps.drain(keep_maps..).for_each(|map| self.spare.put(map));
        self.links.truncate(keep_maps * MAP_PAGES);
        self.links.shrink_to(2 * self.links.len());
        self.free.shrink_to(2 * self.free.len());
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
