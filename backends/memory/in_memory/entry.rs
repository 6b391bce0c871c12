//! Entries and their keys.

use super::pages::Pages;
use crate::memory::MemoryType;

/// A borrowed key.
pub(super) struct Key<'a> {
    pub(super) hash: u32,
    pub(super) memory_type: MemoryType,
    pub(super) id: &'a str,
}

/// An entry. Its id, its metadata as JSON and its text are on a chain of pages, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// The first page of the chain.
    pub(super) first: u32,
    pub(super) hash: u32,
    pub(super) memory_type: MemoryType,
    /// Ids have at most [`MAX_CONVERSATION_ID_BYTES`](crate::memory::MAX_CONVERSATION_ID_BYTES).
    pub(super) id_bytes: u16,
    pub(super) metadata_bytes: usize,
    pub(super) text_bytes: usize,
}

impl Entry {
    pub(super) fn has_key(&self, pages: &Pages, key: &Key<'_>) -> bool {
        self.memory_type == key.memory_type
            && usize::from(self.id_bytes) == key.id.len()
            && pages.has_bytes(self.first, 0, key.id.as_bytes())
    }

    pub(super) fn metadata_offset(&self) -> usize {
        usize::from(self.id_bytes)
    }

    pub(super) fn text_offset(&self) -> usize {
        self.metadata_offset() + self.metadata_bytes
    }

    /// Bytes on its pages.
    pub(super) fn bytes(&self) -> usize {
        self.text_offset() + self.text_bytes
    }

    /// Number of its pages.
    pub(super) fn pages(&self) -> usize {
        Pages::needed(self.bytes())
    }
}
