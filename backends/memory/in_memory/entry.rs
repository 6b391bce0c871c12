//! The header of an entry, at the start of its first page, and lists of entries linked through it.

use super::pages::{NONE, Pages};
use crate::memory::MemoryType;

/// Bytes of the header: one cache line.
pub(super) const HEADER: usize = 64;

/// Numbers in the header, by their offset.
#[derive(Clone, Copy)]
pub(super) enum Number {
    /// When it was used last: the stamp of that use.
    Stamp = 0,
    /// When it expires, in nanoseconds of the store's clock.
    Expires = 8,
    MetadataBytes = 16,
    TextBytes = 24,
    /// The [`Key::kind`].
    Kind = 32,
}

/// Links in the header to the first pages of other entries, by their offset.
#[derive(Clone, Copy)]
enum Link {
    Older = 40,
    Newer = 44,
    ExpiresBefore = 48,
    ExpiresAfter = 52,
}

/// Offset of the hash of the key.
const HASH: usize = 56;

pub(super) fn number(pages: &Pages, first: u32, number: Number) -> u64 {
    u64::from_le_bytes(pages.field(first, number as usize))
}

pub(super) fn set_number(pages: &mut Pages, first: u32, number: Number, to: u64) {
    pages.set_field(first, number as usize, to.to_le_bytes());
}

fn link(pages: &Pages, first: u32, link: Link) -> u32 {
    u32::from_le_bytes(pages.field(first, link as usize))
}

fn set_link(pages: &mut Pages, first: u32, link: Link, to: u32) {
    pages.set_field(first, link as usize, to.to_le_bytes());
}

/// A borrowed key.
pub(super) struct Key<'a> {
    pub(super) hash: u32,
    pub(super) memory_type: MemoryType,
    pub(super) id: &'a str,
}

impl Key<'_> {
    /// The type and the length of the id in one number.
    fn kind(&self) -> u64 {
        (self.id.len() as u64) << 8 | self.memory_type as u64
    }

    pub(super) fn is_of(&self, pages: &Pages, first: u32) -> bool {
        number(pages, first, Number::Kind) == self.kind()
            && pages.has_bytes(first, HEADER, self.id.as_bytes())
    }

    /// Writes the header of a new entry, except for its order in the lists, and the id.
    pub(super) fn write(&self, pages: &mut Pages, first: u32, (metadata_bytes, text_bytes): (usize, usize)) {
        set_number(pages, first, Number::Kind, self.kind());
        set_number(pages, first, Number::MetadataBytes, metadata_bytes as u64);
        set_number(pages, first, Number::TextBytes, text_bytes as u64);
        pages.set_field(first, HASH, self.hash.to_le_bytes());
        pages.write(first, HEADER, self.id.as_bytes());
    }
}

/// An entry and the sizes of its parts, which follow the header. Valid while the shard stays locked and unchanged.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) first: u32,
    pub(super) memory_type: MemoryType,
    pub(super) id_bytes: usize,
    pub(super) metadata_bytes: usize,
    pub(super) text_bytes: usize,
}

impl Entry {
    pub(super) fn read(pages: &Pages, first: u32) -> Self {
        let kind = number(pages, first, Number::Kind);
        let [metadata_bytes, text_bytes] =
            [Number::MetadataBytes, Number::TextBytes].map(|field| number(pages, first, field) as usize);
        Self {
            first,
            memory_type: memory_type(kind as u8),
            id_bytes: (kind >> 8) as usize,
            metadata_bytes,
            text_bytes,
        }
    }

    pub(super) fn metadata_offset(self) -> usize {
        HEADER + self.id_bytes
    }

    pub(super) fn text_offset(self) -> usize {
        self.metadata_offset() + self.metadata_bytes
    }

    /// Number of pages that it has.
    pub(super) fn pages(self) -> usize {
        Pages::needed(self.text_offset() + self.text_bytes)
    }
}

pub(super) fn hash(pages: &Pages, first: u32) -> u32 {
    u32::from_le_bytes(pages.field(first, HASH))
}

/// The type with this number.
fn memory_type(number: u8) -> MemoryType {
    let types = [MemoryType::ShortTermMemory, MemoryType::LongTermMemory, MemoryType::WorkingMemory];
    types.into_iter().find(|known| *known as u8 == number).expect("a kind is written from a type")
}

/// Entries in the order of one of their numbers.
pub(super) struct List {
    order: Number,
    previous: Link,
    next: Link,
    first: u32,
    last: u32,
    /// The number of the first entry, kept here because every operation asks for it; `u64::MAX` if there is none.
    front: u64,
}

impl List {
    /// In the order of use.
    pub(super) fn by_use() -> Self {
        Self::new(Number::Stamp, Link::Older, Link::Newer)
    }

    /// In the order of expiry.
    pub(super) fn by_expiry() -> Self {
        Self::new(Number::Expires, Link::ExpiresBefore, Link::ExpiresAfter)
    }

    fn new(order: Number, previous: Link, next: Link) -> Self {
        Self { order, previous, next, first: NONE, last: NONE, front: u64::MAX }
    }

    /// The first page of the first entry, or [`NONE`].
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// The number of the first entry; `u64::MAX` if there is none.
    pub(super) fn front(&self) -> u64 {
        self.front
    }

    /// Adds an entry at the end.
    pub(super) fn append(&mut self, pages: &mut Pages, entry: u32, number: u64) {
        set_number(pages, entry, self.order, number);
        self.join(pages, self.last, entry);
        self.join(pages, entry, NONE);
    }

    pub(super) fn remove(&mut self, pages: &mut Pages, entry: u32) {
        let [previous, next] = [self.previous, self.next].map(|side| link(pages, entry, side));
        self.join(pages, previous, next);
    }

    /// Moves an entry to the end.
    pub(super) fn move_to_end(&mut self, pages: &mut Pages, entry: u32, number: u64) {
        if self.last != entry {
            self.remove(pages, entry);
            return self.append(pages, entry, number);
        }
        set_number(pages, entry, self.order, number);
        if self.first == entry {
            self.front = number;
        }
    }

    /// Updates its neighbors after an entry's first page was copied to `entry`.
    pub(super) fn relink(&mut self, pages: &mut Pages, entry: u32) {
        let [previous, next] = [self.previous, self.next].map(|side| link(pages, entry, side));
        self.join(pages, previous, entry);
        self.join(pages, entry, next);
    }

    /// Makes two entries neighbors; [`NONE`] is an end of the list.
    fn join(&mut self, pages: &mut Pages, previous: u32, next: u32) {
        match next {
            NONE => self.last = previous,
            _ => set_link(pages, next, self.previous, previous),
        }
        match previous {
            NONE => {
                self.first = next;
                self.front = if next == NONE { u64::MAX } else { number(pages, next, self.order) };
            }
            _ => set_link(pages, previous, self.next, next),
        }
    }
}
