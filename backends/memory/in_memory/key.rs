//! Keys of the map: which conversation, which memory of it, and its hash, computed once.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::size::chunk;
use crate::memory::MemoryType;

/// The longest conversation id that is kept inside the key itself. A UUID is 36 bytes.
const INLINE: usize = 37;

/// What to look for: a key without owning it.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) hash: u64,
    pub(super) memory_type: MemoryType,
    pub(super) id: &'a str,
}

impl Wanted<'_> {
    pub(super) fn is(&self, key: &Key) -> bool {
        key.id() == self.id.as_bytes() && key.memory_type() == self.memory_type
    }
}

/// A key, and what has to be found without reading the entry. What a hit reads stands together, at the end,
/// where the entry's own such fields follow it in the map's node.
#[repr(C)]
pub(super) struct Key {
    hash: u64,
    /// Where in the expiry list the entry stands.
    slot: AtomicU32,
    /// Whether it was read since eviction last passed by.
    referenced: AtomicBool,
    id: Id,
}

enum Id {
    Short { memory_type: MemoryType, len: u8, bytes: [u8; INLINE] },
    Long { memory_type: MemoryType, text: Box<[u8]> },
}

impl Key {
    pub(super) fn new(wanted: Wanted<'_>) -> Self {
        let Wanted { hash, memory_type, id } = wanted;
        let text = id.as_bytes();
        let mut bytes = [0; INLINE];
        let id = match bytes.get_mut(..text.len()) {
            Some(room) => {
                room.copy_from_slice(text);
                Id::Short { memory_type, len: text.len() as u8, bytes }
            }
            None => Id::Long { memory_type, text: text.into() },
        };
        Self { hash, id, slot: AtomicU32::new(0), referenced: AtomicBool::new(false) }
    }

    /// What a key for that id takes on the heap.
    pub(super) const fn heap_bytes(id_len: usize) -> usize {
        if id_len <= INLINE { 0 } else { chunk(id_len) }
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn id(&self) -> &[u8] {
        match &self.id {
            Id::Short { len, bytes, .. } => &bytes[..usize::from(*len)],
            Id::Long { text, .. } => text,
        }
    }

    pub(super) const fn memory_type(&self) -> MemoryType {
        match &self.id {
            Id::Short { memory_type, .. } | Id::Long { memory_type, .. } => *memory_type,
        }
    }

    pub(super) fn conversation_id(&self) -> Arc<str> {
        std::str::from_utf8(self.id()).expect("a key is made of a str").into()
    }

    pub(super) fn slot(&self) -> u32 {
        self.slot.load(Ordering::Relaxed)
    }

    pub(super) fn set_slot(&self, slot: u32) {
        self.slot.store(slot, Ordering::Relaxed);
    }

    /// Marks it as read. Writes only when it is not marked, so that readers of a popular entry share its
    /// cache line instead of passing it around.
    pub(super) fn touch(&self) {
        if !self.referenced.load(Ordering::Relaxed) {
            self.referenced.store(true, Ordering::Relaxed);
        }
    }

    /// Takes the mark away and says whether it was there.
    pub(super) fn untouch(&mut self) -> bool {
        std::mem::take(self.referenced.get_mut())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.id() == other.id() && self.memory_type() == other.memory_type()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Gives the map the hash that a [`Key`] carries: growing a table then reads no id.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Carried;

impl BuildHasher for Carried {
    type Hasher = CarriedHash;

    fn build_hasher(&self) -> CarriedHash {
        CarriedHash(0)
    }
}

/// The hash of one key.
pub(super) struct CarriedHash(u64);

impl Hasher for CarriedHash {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a key hashes as one u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept_whole_whether_inline_or_not() {
        for len in [1, 36, 37, 38, 512] {
            let id = "é".repeat(len).chars().take(len).collect::<String>();
            let wanted = Wanted { hash: 7, memory_type: MemoryType::WorkingMemory, id: &id };
            let key = Key::new(wanted);
            assert!(wanted.is(&key));
            assert!(!Wanted { memory_type: MemoryType::ShortTermMemory, ..wanted }.is(&key));
            assert_eq!(&*key.conversation_id(), id);
        }
    }

    #[test]
    fn a_key_is_seven_words() {
        assert_eq!(size_of::<Key>(), 56);
    }
}
