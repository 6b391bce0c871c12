//! The layout of an entry on its chain of pages: a fixed-size record, then the id, the metadata as JSON and the text.

use crate::memory::MemoryType;

/// Size of an encoded record in bytes.
pub(super) const RECORD: usize = 48;

/// The fixed-size part of an entry. It is on the first page of the entry's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) hash: u64,
    /// When it expires, in nanoseconds of the store's clock.
    pub(super) expires: u64,
    /// Neighbors in the order of expiry, as the first pages of their chains.
    pub(super) previous: u32,
    pub(super) next: u32,
    pub(super) id_bytes: u16,
    pub(super) memory_type: MemoryType,
    pub(super) metadata_bytes: u64,
    pub(super) text_bytes: u64,
}

impl Record {
    /// Where the metadata begins in the chain.
    pub(super) fn metadata_offset(&self) -> usize {
        RECORD + self.id_bytes as usize
    }

    /// Where the text begins in the chain.
    pub(super) fn text_offset(&self) -> usize {
        self.metadata_offset() + self.metadata_bytes as usize
    }

    /// Size of the whole chain in bytes.
    pub(super) fn chain_bytes(&self) -> usize {
        self.text_offset() + self.text_bytes as usize
    }

    pub(super) fn encode(&self, payload: &mut [u8]) {
        payload[0..8].copy_from_slice(&self.hash.to_le_bytes());
        payload[8..16].copy_from_slice(&self.expires.to_le_bytes());
        payload[16..24].copy_from_slice(&self.metadata_bytes.to_le_bytes());
        payload[24..32].copy_from_slice(&self.text_bytes.to_le_bytes());
        payload[32..36].copy_from_slice(&self.previous.to_le_bytes());
        payload[36..40].copy_from_slice(&self.next.to_le_bytes());
        payload[40..42].copy_from_slice(&self.id_bytes.to_le_bytes());
        payload[42] = self.memory_type as u8;
    }

    pub(super) fn decode(payload: &[u8]) -> Self {
        let long = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("eight bytes"));
        let word = |at: usize| u32::from_le_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        Self {
            hash: long(0),
            expires: long(8),
            metadata_bytes: long(16),
            text_bytes: long(24),
            previous: word(32),
            next: word(36),
            id_bytes: u16::from_le_bytes([payload[40], payload[41]]),
            memory_type: match payload[42] {
                0 => MemoryType::ShortTermMemory,
                1 => MemoryType::LongTermMemory,
                _ => MemoryType::WorkingMemory,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_decodes_to_what_was_encoded() {
        for memory_type in
            [MemoryType::ShortTermMemory, MemoryType::LongTermMemory, MemoryType::WorkingMemory]
        {
            let record = Record {
                hash: 1 << 60,
                expires: 2 << 50,
                previous: 3,
                next: u32::MAX,
                id_bytes: 512,
                memory_type,
                metadata_bytes: 5 << 40,
                text_bytes: 6 << 40,
            };
            let mut bytes = [0; RECORD];
            record.encode(&mut bytes);
            assert_eq!(Record::decode(&bytes), record);
        }
    }
}
