//! The report of a bulk insert, which can be resumed.

use std::ops::Range;

use crate::error::{Error, Outcome, Result};

/// Result of a bulk insert. Positions count the entities of the stream from 0. Positions that are in none of the ranges
/// were not read, or read and not sent because another batch had failed.
#[derive(Debug, Default)]
#[non_exhaustive]
#[must_use]
pub struct BulkInsertReport {
    /// Ranges that were written, in ascending order; adjacent ones are merged.
    pub written: Vec<WrittenRange>,
    /// Ranges that were certainly not written, with the error.
    pub failed: Vec<FailedRange>,
    /// Ranges that may have been written: the error's [`Outcome`] is `Unknown`.
    pub unknown: Vec<FailedRange>,
    /// Whether everything that was written was flushed at the end.
    pub flushed: bool,
    /// Why the flush at the end failed.
    pub flush_error: Option<Error>,
}

/// Positions that were written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrittenRange {
    /// Positions in the stream.
    pub positions: Range<u64>,
    /// The ids, in order; empty without [`keep_ids`](super::BulkInsertOptions::keep_ids).
    pub ids: Vec<String>,
}

/// Positions that were not written, or may not have been.
#[derive(Debug)]
#[non_exhaustive]
pub struct FailedRange {
    /// Positions in the stream.
    pub positions: Range<u64>,
    /// Why.
    pub error: Error,
}

impl BulkInsertReport {
    /// Number of entities that were written.
    #[must_use]
    pub fn written_count(&self) -> u64 {
        self.written.iter().map(|range| range.positions.end - range.positions.start).sum()
    }

    /// The ids of what was written, in the order of the stream.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.written.iter().flat_map(|range| range.ids.iter().map(String::as_str))
    }

    /// Whether the whole stream was written, and flushed if that was asked for.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.unknown.is_empty() && self.flush_error.is_none()
    }

    /// The report if it is complete, else its first error.
    ///
    /// # Errors
    /// The error of the first failed range, of the first unknown range or of the flush.
    pub fn into_result(self) -> Result<Self> {
        if self.is_complete() {
            return Ok(self);
        }
        let ranges = self.failed.into_iter().chain(self.unknown).map(|range| range.error);
        match ranges.chain(self.flush_error).next() {
            Some(error) => Err(error),
            None => Ok(Self::default()),
        }
    }

    pub(super) fn add(&mut self, positions: Range<u64>, outcome: Result<Vec<String>>, keep_ids: bool) {
        match outcome {
            Ok(mut ids) => {
                if !keep_ids {
                    ids = Vec::new();
                }
                match self.written.last_mut() {
                    Some(last) if last.positions.end == positions.start => {
                        last.positions.end = positions.end;
                        last.ids.append(&mut ids);
                    }
                    _ => self.written.push(WrittenRange { positions, ids }),
                }
            }
            Err(error) if error.outcome() == Outcome::Unknown => {
                self.unknown.push(FailedRange { positions, error });
            }
            Err(error) => self.failed.push(FailedRange { positions, error }),
        }
    }

    /// Sorts the ranges, which concurrent batches add in any order, and merges adjacent written ones.
    pub(super) fn normalise(&mut self) {
        self.failed.sort_by_key(|range| range.positions.start);
        self.unknown.sort_by_key(|range| range.positions.start);
        self.written.sort_by_key(|range| range.positions.start);
        for range in std::mem::take(&mut self.written) {
            self.add(range.positions, Ok(range.ids), true);
        }
    }

    /// The positions that a resumed insert skips, in ascending order.
    pub(super) fn settled(&self) -> Vec<Range<u64>> {
        let written = self.written.iter().map(|range| range.positions.clone());
        let unknown = self.unknown.iter().map(|range| range.positions.clone());
        let mut settled: Vec<_> = written.chain(unknown).collect();
        settled.sort_by_key(|range| range.start);
        settled
    }
}
