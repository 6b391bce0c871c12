//! Tables in anonymous maps.
//!
//! A heap allocator that holds texts of mixed sizes for hours fragments, and keeps what it freed: the process grows to a
//! multiple of what is stored. Maps of two sizes do not fragment, and return to the system.

use std::io;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use bytemuck::Pod;
use memmap2::MmapMut;
use parking_lot::Mutex;

/// Bytes of the maps of a table. A table may keep nearly a map more than it needs, and shards have several tables: maps
/// are small where elements are. Larger ones are fewer, and the system limits their number.
pub(super) const SMALL_MAP: usize = 16 * 1024;
pub(super) const LARGE_MAP: usize = 64 * 1024;

/// Unused maps kept for reuse, which saves system calls and page faults.
const MAX_SPARE_MAPS: usize = 8;

/// Unused maps, shared by all tables.
#[derive(Clone, Default)]
pub(super) struct SpareMaps(Arc<Mutex<Vec<MmapMut>>>);

impl SpareMaps {
    fn take(&self, bytes: usize) -> io::Result<MmapMut> {
        let spare = {
            let mut spare = self.0.lock();
            spare.iter().position(|map| map.len() == bytes).map(|at| spare.swap_remove(at))
        };
        spare.map_or_else(|| MmapMut::map_anon(bytes), Ok)
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

/// A growable array outside the heap, in maps of so many bytes: it grows and returns memory in such steps. Growing does not
/// move its elements, which have any value at first.
pub(super) struct Table<T, const MAP_BYTES: usize> {
    maps: Vec<MmapMut>,
    spare: SpareMaps,
    element: PhantomData<T>,
}

impl<T: Pod, const MAP_BYTES: usize> Table<T, MAP_BYTES> {
    const PER_MAP: usize = MAP_BYTES / size_of::<T>();

    pub(super) fn new(spare: SpareMaps) -> Self {
        Self { maps: Vec::new(), spare, element: PhantomData }
    }

    /// Makes room for `len` elements.
    ///
    /// # Errors
    /// The system's, when it has no memory left.
    pub(super) fn reserve(&mut self, len: usize) -> io::Result<()> {
        while self.maps.len() * Self::PER_MAP < len {
            self.maps.push(self.spare.take(MAP_BYTES)?);
        }
        Ok(())
    }

    /// Returns memory that `len` elements do not need.
    pub(super) fn shrink_to(&mut self, len: usize) {
        let maps = len.div_ceil(Self::PER_MAP).min(self.maps.len());
        self.maps.drain(maps..).for_each(|map| self.spare.put(map));
    }
}

impl<T, const MAP_BYTES: usize> Drop for Table<T, MAP_BYTES> {
    fn drop(&mut self) {
        self.maps.drain(..).for_each(|map| self.spare.put(map));
    }
}

impl<T: Pod, const MAP_BYTES: usize> Index<u32> for Table<T, MAP_BYTES> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        let (map, at) = (at as usize / Self::PER_MAP, at as usize % Self::PER_MAP * size_of::<T>());
        bytemuck::from_bytes(&self.maps[map][at..at + size_of::<T>()])
    }
}

impl<T: Pod, const MAP_BYTES: usize> IndexMut<u32> for Table<T, MAP_BYTES> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        let (map, at) = (at as usize / Self::PER_MAP, at as usize % Self::PER_MAP * size_of::<T>());
        bytemuck::from_bytes_mut(&mut self.maps[map][at..at + size_of::<T>()])
    }
}
