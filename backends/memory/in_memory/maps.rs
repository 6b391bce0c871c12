//! Tables in anonymous maps.
//!
//! A heap allocator that holds texts of mixed sizes for hours fragments, and keeps what it freed: the process grows to a
//! multiple of what is stored. Maps of one size do not fragment, and return to the system.

use std::io;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use bytemuck::Pod;
use memmap2::MmapMut;
use parking_lot::Mutex;

/// Bytes of a map. Small ones let each table return memory in small steps.
const MAP: usize = 64 * 1024;
/// Unused maps kept for reuse, which saves system calls and page faults.
const MAX_SPARE_MAPS: usize = 8;

/// Unused maps, shared by all tables.
#[derive(Clone, Default)]
pub(super) struct SpareMaps(Arc<Mutex<Vec<MmapMut>>>);

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

/// A growable array outside the heap. Growing does not move its elements, which have any value at first.
pub(super) struct Table<T> {
    maps: Vec<MmapMut>,
    spare: SpareMaps,
    element: PhantomData<T>,
}

impl<T: Pod> Table<T> {
    pub(super) const PER_MAP: usize = MAP / size_of::<T>();

    pub(super) fn new(spare: SpareMaps) -> Self {
        Self { maps: Vec::new(), spare, element: PhantomData }
    }

    /// Makes room for `len` elements.
    ///
    /// # Errors
    /// The system's, when it has no memory left.
    pub(super) fn reserve(&mut self, len: usize) -> io::Result<()> {
        while self.maps.len() * Self::PER_MAP < len {
            self.maps.push(self.spare.take()?);
        }
        Ok(())
    }

    /// Returns memory that `len` elements do not need.
    pub(super) fn shrink_to(&mut self, len: usize) {
        let maps = len.div_ceil(Self::PER_MAP).min(self.maps.len());
        self.maps.drain(maps..).for_each(|map| self.spare.put(map));
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        self.maps.drain(..).for_each(|map| self.spare.put(map));
    }
}

impl<T: Pod> Index<u32> for Table<T> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        let (map, at) = (at as usize / Self::PER_MAP, at as usize % Self::PER_MAP * size_of::<T>());
        bytemuck::from_bytes(&self.maps[map][at..at + size_of::<T>()])
    }
}

impl<T: Pod> IndexMut<u32> for Table<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        let (map, at) = (at as usize / Self::PER_MAP, at as usize % Self::PER_MAP * size_of::<T>());
        bytemuck::from_bytes_mut(&mut self.maps[map][at..at + size_of::<T>()])
    }
}
