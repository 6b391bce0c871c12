//! What things take on the heap, as the allocator rounds it.
//!
//! The figures are those of glibc's malloc on a 64-bit machine, which wastes as much as any allocator in
//! common use, so a budget kept by them is kept under the others as well.

use serde_json::{Map, Value};

/// From this size on the allocator asks the system for whole pages.
const MMAP_THRESHOLD: usize = 128 * 1024;

/// What an allocation of `size` bytes takes: eight bytes of header, rounded up to sixteen, at least 32.
pub(super) const fn chunk(size: usize) -> usize {
    match size {
        0 => 0,
        1..=24 => 32,
        size if size < MMAP_THRESHOLD => (size + 8).next_multiple_of(16),
        size => (size + 16).next_multiple_of(4096),
    }
}

/// What an `Arc<str>` of that many bytes takes: two reference counts and the text.
pub(super) const fn shared_text(len: usize) -> usize {
    chunk(2 * size_of::<usize>() + len)
}

/// What boxed metadata takes, from above: how full a map's nodes are cannot be seen from outside.
pub(super) fn metadata(map: &Map<String, Value>) -> usize {
    chunk(size_of::<Map<String, Value>>()) + object(map)
}

fn object(map: &Map<String, Value>) -> usize {
    /// A first node of the map.
    const NODE: usize = 704;
    /// An entry's share of further nodes at their emptiest.
    const SLOT: usize = 176;
    if map.is_empty() {
        return 0;
    }
    let entries = map.iter().map(|(name, value)| SLOT + chunk(name.capacity()) + heap(value));
    NODE + entries.sum::<usize>()
}

fn heap(value: &Value) -> usize {
    match value {
        Value::String(text) => chunk(text.capacity()),
        Value::Array(items) => {
            chunk(items.capacity() * size_of::<Value>()) + items.iter().map(heap).sum::<usize>()
        }
        Value::Object(map) => object(map),
        _ => 0,
    }
}

/// What a hash table of pointers with room for `capacity` entries takes: a power of two of buckets, at most
/// seven eighths of them in use, each with a pointer and a control byte.
pub(super) const fn table(capacity: usize) -> usize {
    let buckets = match capacity {
        0 => return 0,
        1..=3 => 4,
        4..=7 => 8,
        8..=14 => 16,
        more => (more * 8).div_ceil(7).next_power_of_two(),
    };
    chunk(buckets * (size_of::<usize>() + 1) + 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_rounded_as_malloc_rounds_them() {
        assert_eq!([chunk(0), chunk(1), chunk(24), chunk(25), chunk(40), chunk(41)], [0, 32, 32, 48, 48, 64]);
        assert_eq!(chunk(1 << 20), (1 << 20) + 4096);
    }

    #[test]
    fn a_table_doubles_when_seven_eighths_are_in_use() {
        assert_eq!(table(29), table(56));
        assert!(table(57) >= 2 * table(56) - 64);
    }
}
