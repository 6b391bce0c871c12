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

/// Unused maps kept for reuse, which saves system calls and page faults.
const MAX_SPARE_MAPS: usize = 8;

/// Unused maps, shared by all tables.
#[derive(Clone, Default)]
pub(super) struct SpareMaps(Arc<Mutex<Vec<MmapMut>>>);

impl SpareMaps {
    fn take(&self, bytes: usize) -> io::Result<MmapMut> {
        let mut spare = self.0.lock();
        match spare.iter().position(|map| map.len() == bytes) {
            Some(at) => Ok(spare.swap_remove(at)),
            None => MmapMut::map_anon(bytes),
        }
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

/// A growable array outside the heap, in maps of `PER_MAP` elements: it grows and returns memory in such steps. Growing
/// does not move its elements, which have any value at first.
pub(super) struct Table<T, const PER_MAP: usize> {
    maps: Vec<MmapMut>,
    spare: SpareMaps,
    element: PhantomData<T>,
}

impl<T: Pod, const PER_MAP: usize> Table<T, PER_MAP> {
    pub(super) fn new(spare: SpareMaps) -> Self {
        Self { maps: Vec::new(), spare, element: PhantomData }
    }

    /// Makes room for `len` elements.
    ///
    /// # Errors
    /// The system's, when it has no memory left.
    pub(super) fn reserve(&mut self, len: usize) -> io::Result<()> {
        while self.maps.len() * PER_MAP < len {
            self.maps.push(self.spare.take(PER_MAP * size_of::<T>())?);
        }
        Ok(())
    }

    /// Returns memory that `len` elements do not need.
    pub(super) fn shrink_to(&mut self, len: usize) {
        let maps = len.div_ceil(PER_MAP).min(self.maps.len());
        self.maps.drain(maps..).for_each(|map| self.spare.put(map));
    }
}

impl<T, const PER_MAP: usize> Drop for Table<T, PER_MAP> {
    fn drop(&mut self) {
        self.maps.drain(..).for_each(|map| self.spare.put(map));
    }
}

impl<T: Pod, const PER_MAP: usize> Index<u32> for Table<T, PER_MAP> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        let (map, at) = (at as usize / PER_MAP, at as usize % PER_MAP * size_of::<T>());
        bytemuck::from_bytes(&self.maps[map][at..at + size_of::<T>()])
    }
}

impl<T: Pod, const PER_MAP: usize> IndexMut<u32> for Table<T, PER_MAP> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        let (map, at) = (at as usize / PER_MAP, at as usize % PER_MAP * size_of::<T>());
        bytemuck::from_bytes_mut(&mut self.maps[map][at..at + size_of::<T>()])
    }
}
