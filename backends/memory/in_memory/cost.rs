//! What things cost in memory.
//!
//! The process must grow by no more than the budget and a tenth, so everything an entry takes is charged: its
//! texts as the allocator rounds them, its map node, its share of the hash table and of the expiry queue.

/// Bytes an allocation of `size` takes: a header of eight bytes, rounded up to sixteen, at least thirty-two;
/// from 128 KiB on whole pages. That is glibc's malloc on 64-bit machines; other allocators come close.
pub(super) const fn allocation(size: usize) -> u64 {
    const LARGE: usize = 128 * 1024;
    let bytes = match size {
        0 => 0,
        1..=24 => 32,
        25..LARGE => (size + 8).next_multiple_of(16),
        _ => (size + 16).next_multiple_of(4096),
    };
    bytes as u64
}

/// Bytes of a shared text: its two reference counts and itself.
pub(super) const fn shared_text(len: usize) -> u64 {
    allocation(16 + len)
}

/// Bytes of a hash table that has room for `capacity` entries: one pointer and one control byte a bucket, at
/// most seven of eight buckets in use.
pub(super) fn hash_table(capacity: usize) -> u64 {
    match capacity {
        0 => 0,
        _ => allocation((capacity * 8 / 7).next_power_of_two().max(4) * 9 + 16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_charged_as_the_allocator_rounds_them() {
        assert_eq!([0, 1, 24, 25, 100, 1024].map(allocation), [0, 32, 32, 48, 112, 1040]);
        assert_eq!(allocation(1 << 20), (1 << 20) + 4096);
    }

    #[test]
    fn a_table_is_charged_by_its_buckets() {
        assert_eq!(hash_table(0), 0);
        assert_eq!(hash_table(3), allocation(4 * 9 + 16));
        assert_eq!(hash_table(14), allocation(16 * 9 + 16));
        assert_eq!(hash_table(28), allocation(32 * 9 + 16));
    }
}
