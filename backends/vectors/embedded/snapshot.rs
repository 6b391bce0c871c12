//! All rows of a collection at one moment: a list of immutable segments, so that readers never wait for writers.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use tokio_util::sync::CancellationToken;

use super::row::Row;
use super::segment::Segment;
use crate::vectors::Filter;
use crate::{Error, ErrorKind, Result};

/// Bytes of dense vectors in a full segment: little enough to copy the last one for every insert.
const SEGMENT_BYTES: usize = 256 * 1024;
const MAX_SEGMENT_ROWS: usize = 1_024;

/// Position of a row in a snapshot: segment and row. Positions have the order of the ids.
pub(super) type RowPosition = (usize, usize);

/// All rows of a collection at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    segments: Vec<Arc<Segment>>,
    len: usize,
    bytes: u64,
    row_bytes: u64,
}

impl Snapshot {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of all rows and vectors, unused capacity included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the rows without their dense vectors.
    pub(super) fn row_bytes(&self) -> u64 {
        self.row_bytes
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().map(|segment| &**segment)
    }

    pub(super) fn segment(&self, position: usize) -> &Segment {
        &self.segments[position]
    }

    pub(super) fn row(&self, (segment, row): RowPosition) -> &Row {
        self.segments[segment].row(row)
    }

    /// Calls `visit` for every row that matches, in the order of ids, until it returns false.
    ///
    /// # Errors
    /// `Closed` once `stop` is cancelled.
    pub(super) fn scan(
        &self,
        filter: &Filter,
        stop: &CancellationToken,
        mut visit: impl FnMut(RowPosition) -> bool,
    ) -> Result<()> {
        let check_every = check_interval(Some(filter));
        for (s, segment) in self.segments.iter().enumerate() {
            for row in 0..segment.len() {
                if row % check_every == 0 {
                    check_running(stop)?;
                }
                if filter.matches(&segment.row(row).fields) && !visit((s, row)) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Calls `scan` with the segments of each of so many parts, concurrently.
    ///
    /// # Errors
    /// The first error of `scan`.
    pub(super) fn scan_partitions<T: Send>(
        &self,
        partitions: usize,
        scan: impl Fn(Range<usize>) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let segments = self.segments.len();
        let boundary = |n: usize| segments * n / partitions.max(1);
        let part = |n: usize| boundary(n)..boundary(n + 1);
        let scan = &scan;
        thread::scope(|scope| {
            let helper = |n: usize| {
                let builder = thread::Builder::new().name("vectors.partition".into());
                (n, builder.spawn_scoped(scope, move || scan(part(n))).ok())
            };
            let helpers: Vec<_> = (1..partitions).map(helper).collect();
            let mut parts = vec![scan(part(0))?];
            for (n, helper) in helpers {
                // Without another thread, this one does its work.
                parts.push(match helper {
                    Some(helper) => helper.join().unwrap_or_else(|panic| resume_unwind(panic))?,
                    None => scan(part(n))?,
                });
            }
            Ok(parts)
        })
    }

    /// This snapshot with more rows.
    pub(super) fn with(&self, dim: usize, rows: Vec<(Row, Vec<f32>)>) -> Self {
        let mut builder = SnapshotBuilder::new(dim, rows.len());
        for segment in &self.segments {
            builder.push_segment(segment);
        }
        for (row, dense) in rows {
            builder.push(row, &dense);
        }
        builder.finish()
    }

    /// This snapshot without the rows that match, whose numbers are returned. Segments without such rows are shared.
    pub(super) fn without(&self, dim: usize, filter: &Filter) -> (Self, Vec<u64>) {
        let mut builder = SnapshotBuilder::new(dim, self.len);
        let mut deleted = Vec::new();
        for segment in &self.segments {
            let before = deleted.len();
            let mut kept = Vec::new();
            for n in 0..segment.len() {
                let row = segment.row(n);
                if filter.matches(&row.fields) { deleted.push(row.number) } else { kept.push(n) }
            }
            if deleted.len() == before {
                builder.push_segment(segment);
            } else {
                kept.into_iter().for_each(|row| builder.push_from(segment, row));
            }
        }
        (builder.finish(), deleted)
    }
}

/// Rows between two checks for cancellation.
pub(super) fn check_interval(filter: Option<&Filter>) -> usize {
    if filter.is_some_and(|filter| filter.cost() > 64) { 1 } else { 16 }
}

/// The error of a search whose collection or store was closed.
pub(super) fn check_running(stop: &CancellationToken) -> Result<()> {
    if stop.is_cancelled() {
        let message = "search aborted: the store was closed or the collection dropped";
        return Err(Error::new(ErrorKind::Closed, "vectors.embedded", message));
    }
    Ok(())
}

/// Collects segments and rows into a snapshot.
pub(super) struct SnapshotBuilder {
    dim: usize,
    segment_rows: usize,
    /// Upper bound of the rows still to come.
    expected: usize,
    segments: Vec<Arc<Segment>>,
    open: Segment,
}

impl SnapshotBuilder {
    pub(super) fn new(dim: usize, expected: usize) -> Self {
        let segment_rows = (SEGMENT_BYTES / (dim * 4)).clamp(1, MAX_SEGMENT_ROWS);
        Self { dim, segment_rows, expected, segments: Vec::new(), open: Segment::default() }
    }

    /// Shares a whole segment.
    fn push_segment(&mut self, segment: &Arc<Segment>) {
        self.close_segment();
        self.segments.push(Arc::clone(segment));
    }

    /// Adds a row to the last segment, which is copied if it is shared and not full.
    pub(super) fn push(&mut self, row: Row, dense: &[f32]) {
        self.open_segment();
        self.open.push(Arc::new(row), dense);
    }

    fn push_from(&mut self, segment: &Segment, row: usize) {
        self.open_segment();
        self.open.push_from(segment, row, self.dim);
    }

    fn open_segment(&mut self) {
        if self.open.is_full(self.segment_rows) {
            self.close_segment();
        }
        if self.open.len() == 0 {
            let last = self.segments.pop_if(|last| !last.is_full(self.segment_rows));
            let rows = last.as_ref().map_or(0, |last| last.len());
            let capacity = (rows + self.expected.max(1)).min(self.segment_rows);
            self.open = Segment::with_capacity(capacity, self.dim);
            if let Some(last) = last {
                (0..rows).for_each(|row| self.open.push_from(&last, row, self.dim));
            }
        }
        self.expected = self.expected.saturating_sub(1);
    }

    fn close_segment(&mut self) {
        if self.open.len() == 0 {
            return;
        }
        let mut segment = std::mem::take(&mut self.open);
        segment.close(segment.is_full(self.segment_rows));
        self.segments.push(Arc::new(segment));
    }

    pub(super) fn finish(mut self) -> Snapshot {
        self.close_segment();
        self.segments.shrink_to_fit();
        let pointers = (self.segments.capacity() * size_of::<Arc<Segment>>()) as u64;
        Snapshot {
            len: self.segments.iter().map(|segment| segment.len()).sum(),
            bytes: pointers + self.segments.iter().map(|segment| segment.bytes()).sum::<u64>(),
            row_bytes: self.segments.iter().map(|segment| segment.row_bytes()).sum(),
            segments: self.segments,
        }
    }
}
