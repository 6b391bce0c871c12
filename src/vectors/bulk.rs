//! Bulk inserts: a stream in batches.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

use futures_util::stream::{self, FuturesUnordered, Stream, StreamExt};

use super::{BulkInsertReport, Entity};
use crate::error::Result;

/// A stream of entities to insert.
pub type EntityStream<'a> = Pin<Box<dyn Stream<Item = Entity> + Send + 'a>>;

/// A stream over entities that are in memory, or made one by one by an iterator.
pub fn entity_stream<'a, I>(entities: I) -> EntityStream<'a>
where
    I: IntoIterator<Item = Entity>,
    I::IntoIter: Send + 'a,
{
    Box::pin(stream::iter(entities))
}

/// Called after each batch with the number of entities written so far. It may borrow from its surroundings.
pub type ProgressCallback<'a> = dyn Fn(u64) + Send + Sync + 'a;

/// Options of a bulk insert.
///
/// A panic of the callback for progress or of the stream of entities reaches the caller, and the report is lost: entities
/// of earlier batches are inserted, those of batches in progress perhaps.
#[non_exhaustive]
pub struct BulkInsertOptions<'a> {
    /// Maximum number of entities per batch. Default: the store's, usually 1 000.
    pub batch_size: Option<usize>,
    /// Whether to flush once at the end. Default: true.
    pub flush: bool,
    /// Whether the report has the ids. Without them its size is independent of the number of entities. Default: true.
    pub keep_ids: bool,
    /// Called after each batch.
    pub progress: Option<&'a ProgressCallback<'a>>,
    /// The report to resume.
    pub resume: Option<BulkInsertReport>,
}

impl<'a> BulkInsertOptions<'a> {
    /// Sets the maximum number of entities per batch, at least 1.
    #[must_use]
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = Some(batch_size);
        self
    }

    /// Sets whether to flush once at the end.
    #[must_use]
    pub fn with_flush(mut self, flush: bool) -> Self {
        self.flush = flush;
        self
    }

    /// Sets whether the report has the ids.
    #[must_use]
    pub fn with_ids(mut self, keep_ids: bool) -> Self {
        self.keep_ids = keep_ids;
        self
    }

    /// Sets the callback for progress. A panic of it reaches the caller of the bulk insert, and the report is lost.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// use arshai::vectors::BulkInsertOptions;
    ///
    /// let written = AtomicU64::new(0);
    /// let progress = |count| written.store(count, Ordering::Relaxed);
    /// let options = BulkInsertOptions::default().with_progress(&progress);
    /// # options.progress.unwrap()(5);
    /// # assert_eq!(written.into_inner(), 5);
    /// ```
    #[must_use]
    pub fn with_progress(mut self, progress: &'a ProgressCallback<'a>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Resumes an earlier bulk insert. The stream starts at its beginning again; entities at written and unknown
    /// positions are skipped, failed and unread ones are inserted. The new report includes the earlier one.
    ///
    /// Nothing is inserted twice. To insert the unknown ranges again as well, for example after a query has shown that
    /// they are missing, clear [`BulkInsertReport::unknown`] first.
    #[must_use]
    pub fn resuming(mut self, report: BulkInsertReport) -> Self {
        self.resume = Some(report);
        self
    }
}

impl Default for BulkInsertOptions<'_> {
    fn default() -> Self {
        Self { batch_size: None, flush: true, keep_ids: true, progress: None, resume: None }
    }
}

impl fmt::Debug for BulkInsertOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkInsertOptions")
            .field("batch_size", &self.batch_size)
            .field("flush", &self.flush)
            .field("keep_ids", &self.keep_ids)
            .finish_non_exhaustive()
    }
}

/// Limits of the batches of a bulk insert.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct BatchLimits {
    /// Maximum number of entities per batch, unless the options set one. Default: 1 000.
    pub max_rows: usize,
    /// Maximum size of a batch by [`Entity::approximate_bytes`]; a larger entity is a batch of its own. Default: 4 MiB.
    pub max_bytes: usize,
    /// Maximum number of batches in progress. Default: 1.
    pub concurrency: usize,
}

impl BatchLimits {
    /// At most `max_rows` entities per batch and `concurrency` batches in progress.
    #[must_use]
    pub fn new(max_rows: usize, concurrency: usize) -> Self {
        Self { max_rows, concurrency, ..Self::default() }
    }
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { max_rows: 1_000, max_bytes: 4 << 20, concurrency: 1 }
    }
}

/// Inserts a stream in batches through `insert`, and calls `flush` once at the end if the options ask for it: for
/// implementations of [`Collection::bulk_insert_optimized`](super::Collection::bulk_insert_optimized).
///
/// It holds at most `concurrency + 1` batches. After the first batch that fails it reads no further and waits for the
/// batches in progress. Whether a batch failed or is unknown follows [`Error::outcome`](crate::Error::outcome).
pub async fn insert_in_batches<I, F>(
    entities: EntityStream<'_>,
    options: BulkInsertOptions<'_>,
    limits: BatchLimits,
    insert: impl Fn(Vec<Entity>) -> I + Send + Sync,
    flush: impl FnOnce() -> F + Send,
) -> BulkInsertReport
where
    I: Future<Output = Result<Vec<String>>> + Send,
    F: Future<Output = Result<()>> + Send,
{
    let mut report = options.resume.unwrap_or_default();
    (report.flushed, report.flush_error) = (false, None);
    report.failed.clear();
    let max_rows = options.batch_size.unwrap_or(limits.max_rows);
    let mut batches = Batches::new(entities, report.settled(), max_rows, limits.max_bytes);
    let mut written = report.written_count();
    let mut running = FuturesUnordered::new();
    let (mut ended, mut stopped) = (false, false);
    loop {
        let may_read = !ended && !stopped && running.len() < limits.concurrency.max(1);
        tokio::select! {
            batch = batches.next(), if may_read => match batch {
                Some((positions, batch)) => {
                    let insertion = insert(batch);
                    running.push(async move { (positions, insertion.await) });
                }
                None => ended = true,
            },
            Some((positions, outcome)) = running.next(), if !running.is_empty() => {
                if outcome.is_ok() {
                    written += positions.end - positions.start;
                }
                stopped |= outcome.is_err();
                report.add(positions, outcome, options.keep_ids);
                if let (false, Some(progress)) = (stopped, options.progress) {
                    progress(written);
                }
            }
            else => break,
        }
    }
    report.normalise();
    if options.flush {
        match flush().await {
            Ok(()) => report.flushed = true,
            Err(error) => report.flush_error = Some(error),
        }
    }
    report
}

/// Batches of adjacent entities, without those at settled positions.
struct Batches<'a> {
    entities: stream::Fuse<EntityStream<'a>>,
    settled: std::iter::Peekable<std::vec::IntoIter<Range<u64>>>,
    max_rows: usize,
    max_bytes: usize,
    /// Position of the next entity of the stream.
    position: u64,
    batch: Vec<Entity>,
    bytes: usize,
}

impl<'a> Batches<'a> {
    fn new(entities: EntityStream<'a>, settled: Vec<Range<u64>>, max_rows: usize, max_bytes: usize) -> Self {
        Self {
            entities: entities.fuse(),
            settled: settled.into_iter().peekable(),
            max_rows: max_rows.max(1),
            max_bytes,
            position: 0,
            batch: Vec::new(),
            bytes: 0,
        }
    }

    /// The next batch and its positions. Dropping the future loses nothing: the batch continues with the next call.
    async fn next(&mut self) -> Option<(Range<u64>, Vec<Entity>)> {
        loop {
            // A stream that is always ready, and inserts that are, must not keep the thread from other tasks.
            tokio::task::consume_budget().await;
            let Some(entity) = self.entities.next().await else { break };
            let position = self.position;
            self.position += 1;
            if self.is_settled(position) {
                if !self.batch.is_empty() {
                    return Some(self.take(position));
                }
                continue;
            }
            let bytes = entity.approximate_bytes(self.max_bytes);
            let is_too_much = !self.batch.is_empty() && self.bytes + bytes > self.max_bytes;
            let full = is_too_much.then(|| self.take(position));
            self.bytes += bytes;
            self.batch.push(entity);
            if full.is_some() {
                return full;
            }
            if self.batch.len() >= self.max_rows || self.bytes >= self.max_bytes {
                return Some(self.take(position + 1));
            }
        }
        (!self.batch.is_empty()).then(|| self.take(self.position))
    }

    fn take(&mut self, end: u64) -> (Range<u64>, Vec<Entity>) {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        (end - batch.len() as u64..end, batch)
    }

    fn is_settled(&mut self, position: u64) -> bool {
        while self.settled.next_if(|range| range.end <= position).is_some() {}
        self.settled.peek().is_some_and(|range| range.start <= position)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::error::{Error, ErrorKind};

    fn entities(n: usize) -> EntityStream<'static> {
        entity_stream((0..n).map(|i| Entity::new(i.to_string(), Vec::new())))
    }

    fn texts(batch: &[Entity]) -> Vec<String> {
        batch.iter().map(|entity| entity.fields["content"].as_str().expect("a string").to_owned()).collect()
    }

    /// Inserts 100 entities in batches of 10, by the outcome that `outcome` gives for the first text of a batch.
    async fn insert(
        options: BulkInsertOptions<'_>,
        concurrency: usize,
        log: &Mutex<Vec<String>>,
        outcome: impl Fn(&str) -> Result<()> + Sync,
    ) -> BulkInsertReport {
        let (outcome, options) = (&outcome, options.with_batch_size(10));
        let limits = BatchLimits { concurrency, ..BatchLimits::default() };
        let insert = |batch: Vec<Entity>| async move {
            let texts = texts(&batch);
            outcome(&texts[0])?;
            log.lock().expect("not poisoned").extend(texts.clone());
            Ok(texts)
        };
        insert_in_batches(entities(100), options, limits, insert, || async { Ok(()) }).await
    }

    #[tokio::test]
    async fn a_whole_stream_is_one_written_range() {
        let log = Mutex::default();
        for concurrency in [1, 4] {
            let report = insert(BulkInsertOptions::default(), concurrency, &log, |_| Ok(())).await;
            assert!(report.is_complete() && report.flushed, "{report:?}");
            assert_eq!((report.written.len(), report.written_count()), (1, 100));
            assert!(report.ids().eq((0..100).map(|i| i.to_string())), "ids are in the order of the stream");
        }
        let report = insert(BulkInsertOptions::default().with_ids(false), 1, &log, |_| Ok(())).await;
        assert_eq!((report.written_count(), report.ids().count()), (100, 0));
    }

    #[tokio::test]
    async fn a_resumed_insert_writes_what_is_missing_and_nothing_twice() {
        let log = Mutex::default();
        let rejected = || Error::new(ErrorKind::InvalidInput, "test", "rejected").not_sent();
        let lost = || Error::new(ErrorKind::Transport, "test", "lost");
        let report = insert(BulkInsertOptions::default(), 3, &log, |first| match first {
            "20" => Err(rejected()),
            "30" => Err(lost()),
            _ => Ok(()),
        })
        .await;
        assert!(!report.is_complete());
        assert_eq!(report.failed[0].positions, 20..30);
        let report = insert(BulkInsertOptions::default().resuming(report), 3, &log, |_| Ok(())).await;
        assert!(report.failed.is_empty(), "{report:?}");
        let unknown: u64 =
            report.unknown.iter().map(|range| range.positions.end - range.positions.start).sum();
        assert_eq!(report.written_count() + unknown, 100, "{report:?}");
        let mut written = log.lock().expect("not poisoned").clone();
        written.sort();
        let all = written.len() as u64;
        written.dedup();
        assert_eq!((written.len() as u64, all), (report.written_count(), report.written_count()));
    }

    #[tokio::test]
    async fn a_million_streamed_entities_are_held_five_batches_at_a_time() {
        let (read, written, most) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let stream = (0..1_000_000).map(|_| {
            let held = read.fetch_add(1, Ordering::Relaxed) + 1 - written.load(Ordering::Relaxed);
            most.fetch_max(held, Ordering::Relaxed);
            Entity::default()
        });
        let written = &written;
        let insert = |batch: Vec<Entity>| async move {
            tokio::task::yield_now().await;
            written.fetch_add(batch.len() as u64, Ordering::Relaxed);
            Ok(vec![String::new(); batch.len()])
        };
        let (options, limits) = (BulkInsertOptions::default().with_ids(false), BatchLimits::new(1_000, 4));
        let report =
            insert_in_batches(entity_stream(stream), options, limits, insert, || async { Ok(()) }).await;
        assert_eq!((report.written_count(), report.written.len(), report.ids().count()), (1_000_000, 1, 0));
        assert!(
            (1_000..=5_000).contains(&most.into_inner()),
            "batches of 1 000, four in progress and one read"
        );
    }

    #[tokio::test]
    async fn a_batch_ends_before_the_entity_that_would_exceed_its_bytes() {
        let texts = [1_000, 1_000, 1_000, 9_000, 100, 1_000, 1_000].map(|len| "x".repeat(len));
        let entities = entity_stream(texts.map(|text| Entity::new(text, Vec::new())));
        let mut batches = Batches::new(entities, Vec::new(), 1_000, 2_500);
        let mut sizes = Vec::new();
        while let Some((positions, batch)) = batches.next().await {
            assert_eq!(positions.end - positions.start, batch.len() as u64);
            sizes.push(batch.len());
        }
        assert_eq!(sizes, [2, 1, 1, 3], "one that is too large is alone");
    }
}
