//! Immutable segments of rows. A snapshot of a collection is a list of them, so readers never wait for writers.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::support::map_heap_bytes;
use crate::vectors::{CollectionConfig, Entity, Filter, Metric};
use crate::{Error, ErrorKind, Result};

/// Bytes of dense vectors in a full segment: little enough to copy the last one for every insert.
const SEGMENT_BYTES: usize = 256 * 1024;
const MAX_SEGMENT_ROWS: usize = 1_024;
/// Rows between two checks for cancellation.
const CHECK_EVERY: usize = 16;

/// An entity without its dense vector.
#[derive(Debug)]
pub(super) struct Row {
    /// Every field but the vectors, the id included.
    pub(super) fields: Map<String, Value>,
    /// Dimensions and weights, sorted by dimension.
    pub(super) sparse: Box<[(u32, f32)]>,
    bytes: u64,
}

impl Row {
    /// A row of a checked entity, and the dense vector as it is searched: of unit length for a cosine.
    pub(super) fn new(config: &CollectionConfig, entity: Entity, id: &str) -> (Self, Vec<f32>) {
        let Entity { mut fields, mut dense, sparse, .. } = entity;
        fields.insert(config.pk_field.clone(), id.into());
        if config.metric == Metric::Cosine {
            normalise(&mut dense);
        }
        let sparse: Box<[_]> = sparse.unwrap_or_default().into_iter().collect();
        let bytes = (16 + size_of::<Self>() + map_heap_bytes(&fields) + 16 + size_of_val(&*sparse)) as u64;
        (Self { fields, sparse, bytes }, dense)
    }
}

/// Scales a vector to unit length; zeros stay zeros.
pub(super) fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

/// Rows in the order of their ids, their dense vectors one after the other.
#[derive(Debug, Default)]
struct Segment {
    rows: Vec<Arc<Row>>,
    dense: Vec<f32>,
    row_bytes: u64,
}

impl Segment {
    fn with_capacity(rows: usize, dim: usize) -> Self {
        Self { rows: Vec::with_capacity(rows), dense: Vec::with_capacity(rows * dim), row_bytes: 0 }
    }

    fn push(&mut self, row: Arc<Row>, dense: &[f32]) {
        self.row_bytes += row.bytes;
        self.rows.push(row);
        self.dense.extend_from_slice(dense);
    }

    fn dense(&self, row: usize, dim: usize) -> &[f32] {
        &self.dense[row * dim..(row + 1) * dim]
    }

    fn bytes(&self) -> u64 {
        let heap = self.rows.capacity() * size_of::<Arc<Row>>() + self.dense.capacity() * 4;
        (size_of::<Self>() + 16 + heap) as u64 + self.row_bytes
    }
}

/// Position of a row in a snapshot. Positions have the order of the ids.
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

    pub(super) fn row(&self, (segment, row): RowPosition) -> &Row {
        &self.segments[segment].rows[row]
    }

    /// Calls `visit` for every row that matches, in the order of ids, until it returns false.
    ///
    /// # Errors
    /// `Closed` once `stop` is cancelled.
    pub(super) fn scan<'a>(
        &'a self,
        dim: usize,
        filter: Option<&Filter>,
        stop: &CancellationToken,
        mut visit: impl FnMut(RowPosition, &'a Row, &'a [f32]) -> bool,
    ) -> Result<()> {
        let check_every = if filter.is_some_and(Filter::is_expensive) { 1 } else { CHECK_EVERY };
        for (s, segment) in self.segments.iter().enumerate() {
            for (r, row) in segment.rows.iter().enumerate() {
                if r % check_every == 0 {
                    check_running(stop)?;
                }
                let is_match = filter.is_none_or(|filter| filter.matches(&row.fields));
                if is_match && !visit((s, r), row, segment.dense(r, dim)) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// This snapshot with more rows.
    pub(super) fn with(&self, dim: usize, rows: Vec<(Row, Vec<f32>)>) -> Self {
        let mut builder = Builder::new(dim, rows.len());
        for segment in &self.segments {
            builder.push_segment(segment);
        }
        for (row, dense) in rows {
            builder.push(Arc::new(row), &dense);
        }
        builder.finish()
    }

    /// This snapshot without the rows that match. Segments without such rows are shared.
    pub(super) fn without(&self, dim: usize, filter: &Filter) -> Self {
        let mut builder = Builder::new(dim, self.len);
        for segment in &self.segments {
            let kept: Vec<usize> =
                (0..segment.rows.len()).filter(|row| !filter.matches(&segment.rows[*row].fields)).collect();
            if kept.len() == segment.rows.len() {
                builder.push_segment(segment);
                continue;
            }
            for row in kept {
                builder.push(Arc::clone(&segment.rows[row]), segment.dense(row, dim));
            }
        }
        builder.finish()
    }
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
struct Builder {
    dim: usize,
    segment_rows: usize,
    /// Upper bound of the rows still to come.
    expected: usize,
    segments: Vec<Arc<Segment>>,
    open: Segment,
}

impl Builder {
    fn new(dim: usize, expected: usize) -> Self {
        let segment_rows = (SEGMENT_BYTES / (dim * 4)).clamp(1, MAX_SEGMENT_ROWS);
        Self { dim, segment_rows, expected, segments: Vec::new(), open: Segment::default() }
    }

    /// Shares a whole segment.
    fn push_segment(&mut self, segment: &Arc<Segment>) {
        self.close_segment();
        self.segments.push(Arc::clone(segment));
    }

    /// Adds a row to the last segment, which is copied if it is shared and not full.
    fn push(&mut self, row: Arc<Row>, dense: &[f32]) {
        if self.open.rows.len() == self.segment_rows {
            self.close_segment();
        }
        if self.open.rows.is_empty() {
            self.open_segment();
        }
        self.open.push(row, dense);
        self.expected = self.expected.saturating_sub(1);
    }

    fn open_segment(&mut self) {
        let last = self.segments.pop_if(|last| last.rows.len() < self.segment_rows);
        let rows = last.as_ref().map_or(0, |last| last.rows.len());
        self.open = Segment::with_capacity((rows + self.expected.max(1)).min(self.segment_rows), self.dim);
        if let Some(last) = last {
            for (row, dense) in last.rows.iter().zip(last.dense.chunks_exact(self.dim)) {
                self.open.push(Arc::clone(row), dense);
            }
        }
    }

    fn close_segment(&mut self) {
        if self.open.rows.is_empty() {
            return;
        }
        let mut segment = std::mem::take(&mut self.open);
        segment.rows.shrink_to_fit();
        segment.dense.shrink_to_fit();
        self.segments.push(Arc::new(segment));
    }

    fn finish(mut self) -> Snapshot {
        self.close_segment();
        self.segments.shrink_to_fit();
        let pointers = (self.segments.capacity() * size_of::<Arc<Segment>>()) as u64;
        Snapshot {
            len: self.segments.iter().map(|segment| segment.rows.len()).sum(),
            bytes: pointers + self.segments.iter().map(|segment| segment.bytes()).sum::<u64>(),
            row_bytes: self.segments.iter().map(|segment| segment.row_bytes).sum(),
            segments: self.segments,
        }
    }
}
