//! Entries and their keys.

use bytemuck::{Pod, Zeroable};

use super::pages::Pages;
use crate::memory::MemoryType;

/// In the order of their declaration.
const MEMORY_TYPES: [MemoryType; 3] =
    [MemoryType::ShortTermMemory, MemoryType::LongTermMemory, MemoryType::WorkingMemory];

/// A borrowed key.
pub(super) struct Key<'a> {
    pub(super) hash: u32,
    pub(super) memory_type: MemoryType,
    pub(super) id: &'a str,
}

/// The place of an entry in an order.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Link {
    pub(super) order: u64,
    pub(super) previous: u32,
    pub(super) next: u32,
}

/// An entry, in one cache line. Its id, its metadata as JSON and its text are on a chain of pages, one after the other.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Entry {
    /// Its places in the orders of [`By`](super::entries::By).
    pub(super) links: [Link; 2],
    text_bytes: u64,
    metadata_bytes: u64,
    /// The first page of the chain.
    pub(super) first: u32,
    pub(super) hash: u32,
    /// Ids have at most [`MAX_CONVERSATION_ID_BYTES`](crate::memory::MAX_CONVERSATION_ID_BYTES).
    id_bytes: u16,
    /// Its place in [`MEMORY_TYPES`].
    memory_type: u16,
    unused: u32,
}

impl Entry {
    /// An entry without pages and without a place in the orders.
    pub(super) fn new(key: &Key<'_>, metadata: &[u8], text: &str) -> Self {
        debug_assert_eq!(MEMORY_TYPES[key.memory_type as usize], key.memory_type);
        Self {
            hash: key.hash,
            memory_type: key.memory_type as u16,
            id_bytes: key.id.len() as u16,
            ..Self::zeroed()
        }
        .with_contents(metadata.len(), text.len())
    }

    /// The entry with metadata and text of other lengths.
    pub(super) fn with_contents(self, metadata_bytes: usize, text_bytes: usize) -> Self {
        Self { metadata_bytes: metadata_bytes as u64, text_bytes: text_bytes as u64, ..self }
    }

    pub(super) fn has_key(&self, pages: &Pages, key: &Key<'_>) -> bool {
        self.memory_type == key.memory_type as u16
            && self.id_bytes() == key.id.len()
            && pages.has_bytes(self.first, 0, key.id.as_bytes())
    }

    pub(super) fn memory_type(&self) -> MemoryType {
        MEMORY_TYPES[usize::from(self.memory_type)]
    }

    pub(super) fn id_bytes(&self) -> usize {
        usize::from(self.id_bytes)
    }

    pub(super) fn metadata_bytes(&self) -> usize {
        self.metadata_bytes as usize
    }

    pub(super) fn text_bytes(&self) -> usize {
        self.text_bytes as usize
    }

    pub(super) fn text_offset(&self) -> usize {
        self.id_bytes() + self.metadata_bytes()
    }

    /// Bytes on its pages.
    pub(super) fn bytes(&self) -> usize {
        self.text_offset() + self.text_bytes()
    }

    /// Number of its pages.
    pub(super) fn pages(&self) -> usize {
        Pages::needed(self.bytes())
    }
}
