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
/// Bytes of the fields of a page.
const FIELDS: usize = 32;
/// Size of a map. Small maps let each shard return memory in small steps.
const MAP: usize = 64 * 1024;
/// Pages per map. The fields of all its pages come first, close together: following a chain does not touch the pages.
const MAP_PAGES: usize = MAP / (PAGE + FIELDS);
const FIRST_PAGE: usize = MAP - MAP_PAGES * PAGE;
/// The bytes that a page accounts for: its share of a map.
pub(super) const PAGE_BYTES: usize = MAP.div_ceil(MAP_PAGES);
/// Unused maps kept for reuse, which saves system calls and page faults.
const MAX_SPARE_MAPS: usize = 8;
/// No page.
pub(super) const NONE: u32 = u32::MAX;

/// A field of a page that refers to another page.
#[derive(Clone, Copy)]
pub(super) enum Link {
    /// The previous page of the chain.
    Previous = 0,
    /// The next page of the chain.
    Next = 4,
    /// The first page of the entry that expires before this one.
    Earlier = 8,
    /// The first page of the entry that expires after this one.
    Later = 12,
}

/// A number that belongs to an entry, on the first page of its chain.
#[derive(Clone, Copy)]
pub(super) enum Number {
    /// The hash of its key.
    Hash = 16,
    /// When it expires, in nanoseconds of the store's clock.
    Expires = 24,
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
    free: Vec<u32>,
    spare: Arc<SpareMaps>,
}

impl Pages {
    pub(super) fn new(spare: Arc<SpareMaps>) -> Self {
        Self { maps: Vec::new(), free: Vec::new(), spare }
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
            last = self.link(Link::Next, last);
        }
        if new >= old {
            return self.extend(last, new - old);
        }
        let rest = self.link(Link::Next, last);
        self.set_link(Link::Next, last, NONE);
        self.release(rest);
    }

    /// Frees a chain.
    pub(super) fn release(&mut self, first: u32) {
        let mut page = first;
        while page != NONE {
            self.free.push(page);
            page = self.link(Link::Next, page);
        }
    }

    /// Frees all pages and maps.
    pub(super) fn clear(&mut self) {
        self.maps.drain(..).for_each(|map| self.spare.put(map));
        (self.maps, self.free) = (Vec::new(), Vec::new());
    }

    fn extend(&mut self, mut last: u32, pages: usize) {
        for _ in 0..pages {
            last = self.allocate_after(last);
        }
    }

    fn allocate_after(&mut self, previous: u32) -> u32 {
        let page = self.free.pop().expect("the caller reserved it");
        self.set_link(Link::Previous, page, previous);
        self.set_link(Link::Next, page, NONE);
        if previous != NONE {
            self.set_link(Link::Next, previous, page);
        }
        page
    }

    /// Bytes of a chain, in pieces.
    pub(super) fn read(&self, first: u32, offset: usize, bytes: usize) -> impl Iterator<Item = &[u8]> {
        let (mut page, mut offset, mut left) = (first, offset, bytes);
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            while offset >= PAGE {
                (page, offset) = (self.link(Link::Next, page), offset - PAGE);
            }
            let piece = &self.page(page)[offset..];
            let piece = &piece[..piece.len().min(left)];
            (offset, left) = (offset + piece.len(), left - piece.len());
            Some(piece)
        })
    }

    /// Copies bytes out of a chain.
    pub(super) fn copy(&self, first: u32, offset: usize, bytes: usize) -> Vec<u8> {
        let mut copy = Vec::with_capacity(bytes);
        self.read(first, offset, bytes).for_each(|piece| copy.extend_from_slice(piece));
        copy
    }

    /// Whether a chain has these bytes at `offset`.
    pub(super) fn has_bytes(&self, first: u32, offset: usize, mut bytes: &[u8]) -> bool {
        self.read(first, offset, bytes.len()).all(|piece| {
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
                (page, offset) = (self.link(Link::Next, page), offset - PAGE);
            }
            let (start, rest) = bytes.split_at(bytes.len().min(PAGE - offset));
            self.page_mut(page)[offset..offset + start.len()].copy_from_slice(start);
            (offset, bytes) = (offset + start.len(), rest);
        }
    }

    /// How to empty the last maps, if enough pages are free. The caller makes each [move](Self::move_page) and then
    /// [truncates](Self::truncate).
    pub(super) fn compaction(&mut self) -> Option<Compaction> {
        if self.free.len() < 2 * MAP_PAGES {
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
        let (page, fields) = (*self.page(from), *self.fields(from));
        *self.page_mut(to) = page;
        *self.fields_mut(to) = fields;
        let (previous, next) = (self.link(Link::Previous, to), self.link(Link::Next, to));
        if previous != NONE {
            self.set_link(Link::Next, previous, to);
        }
        if next != NONE {
            self.set_link(Link::Previous, next, to);
        }
        previous == NONE
    }

    /// Removes the maps that compaction emptied.
    pub(super) fn truncate(&mut self, keep_maps: usize) {
        self.maps.drain(keep_maps..).for_each(|map| self.spare.put(map));
        self.free.shrink_to(4 * MAP_PAGES);
    }

    pub(super) fn link(&self, link: Link, page: u32) -> u32 {
        let at = link as usize;
        u32::from_le_bytes(self.fields(page)[at..at + 4].try_into().expect("four bytes"))
    }

    pub(super) fn set_link(&mut self, link: Link, page: u32, to: u32) {
        let at = link as usize;
        self.fields_mut(page)[at..at + 4].copy_from_slice(&to.to_le_bytes());
    }

    pub(super) fn number(&self, number: Number, page: u32) -> u64 {
        let at = number as usize;
        u64::from_le_bytes(self.fields(page)[at..at + 8].try_into().expect("eight bytes"))
    }

    pub(super) fn set_number(&mut self, number: Number, page: u32, to: u64) {
        let at = number as usize;
        self.fields_mut(page)[at..at + 8].copy_from_slice(&to.to_le_bytes());
    }

    fn fields(&self, page: u32) -> &[u8; FIELDS] {
        let (map, start) = (page as usize / MAP_PAGES, page as usize % MAP_PAGES * FIELDS);
        self.maps[map][start..start + FIELDS].try_into().expect("the fields of one page")
    }

    fn fields_mut(&mut self, page: u32) -> &mut [u8; FIELDS] {
        let (map, start) = (page as usize / MAP_PAGES, page as usize % MAP_PAGES * FIELDS);
        (&mut self.maps[map][start..start + FIELDS]).try_into().expect("the fields of one page")
    }

    fn page(&self, page: u32) -> &[u8; PAGE] {
        let (map, start) = (page as usize / MAP_PAGES, FIRST_PAGE + page as usize % MAP_PAGES * PAGE);
        self.maps[map][start..start + PAGE].try_into().expect("one page")
    }

    fn page_mut(&mut self, page: u32) -> &mut [u8; PAGE] {
        let (map, start) = (page as usize / MAP_PAGES, FIRST_PAGE + page as usize % MAP_PAGES * PAGE);
        (&mut self.maps[map][start..start + PAGE]).try_into().expect("one page")
    }
}
