//! Reads a collection's file back.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::snapshot::{Snapshot, SnapshotBuilder};
use super::codec::{CollectionRecord, decode_row};
use super::folder::{Folder, io_error};
use super::log::{Log, Written, open};
use super::record::Bytes;
use super::scan::{Reader, Scan};
use crate::{Error, ErrorKind, Result};

/// Ids that are never given again after a loss, since lost entities may have had them.
const LOST_IDS: u64 = 1 << 32;

/// Damage that was found in the file of a collection when the store was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DamagedFile {
    /// The file.
    pub file: PathBuf,
    /// The collection; `None` if not even its configuration could be read. The file was renamed then, to end with
    /// `.damaged`.
    pub collection: Option<String>,
    /// Number of inserted entities that could not be read, as far as the header of their record or that of a later one
    /// says how many; some may have been deleted since.
    pub lost_entities: u64,
    /// Number of deletions that could not be read, in records whose header could: these entities are back.
    pub lost_deletions: u64,
    /// Number of bytes that could not be read. If there are any, what was in them may be unknown: beyond the numbers
    /// above, entities may be missing and deleted ones back. They stay in the file until it is written anew, and are
    /// reported each time. After a crash of the system they may be a write that was not acknowledged.
    pub damaged_bytes: u64,
    /// Number of bytes of an unfinished write, which were removed: the file ends before its last record does. It was not
    /// acknowledged, unless the file was truncated, as by a crash of the system while `vectors.sync` is off.
    pub torn_bytes: u64,
}

impl DamagedFile {
    fn is_intact(&self) -> bool {
        let Self { lost_entities, lost_deletions, damaged_bytes, torn_bytes, .. } = *self;
        lost_entities + lost_deletions + damaged_bytes + torn_bytes == 0
    }

    fn warn(&self) {
        let Self { file, collection, lost_entities, lost_deletions, damaged_bytes, torn_bytes } = self;
        let (file, collection) = (file.display(), collection.as_deref().unwrap_or("unknown"));
        tracing::warn!(
            %file, collection, lost_entities, lost_deletions, damaged_bytes, torn_bytes,
            "the file of a collection is damaged; everything that could be read was kept"
        );
    }
}

/// A collection that was read back.
#[derive(Debug)]
pub(in super::super) struct Recovered {
    pub(in super::super) collection: CollectionRecord,
    pub(in super::super) snapshot: Snapshot,
    pub(in super::super) log: Log,
}

/// Reads a file. What cannot be read is reported and left out; without a configuration, the file is set aside.
///
/// # Errors
/// `Capacity` where the rows need more than `max_bytes`, `Unsupported` for a file of a later version, `Unavailable` when
/// the file cannot be read.
pub(in super::super) fn recover(
    folder: &Arc<Folder>,
    path: PathBuf,
    max_bytes: u64,
) -> Result<(Option<Recovered>, Option<DamagedFile>)> {
    let failed = |error| io_error("read", &path, error);
    let mut reader = Reader::new(open(&mut OpenOptions::new(), &path).map_err(failed)?).map_err(failed)?;
    let mut scan = Scan::new(&mut reader).map_err(failed)?;
    let Some(mut collection) = scan.collection.take() else {
        return Ok((None, Some(set_aside(&path, &scan, reader.len)?)));
    };
    if !collection.is_supported() {
        let message = format!("{} was written by a later version of arshai", path.display());
        return Err(Error::new(ErrorKind::Unsupported, "vectors.embedded", message).not_sent());
    }
    let snapshot = read_rows(&mut reader, &path, &mut scan, &mut collection, max_bytes)?;
    let damage = DamagedFile {
        file: path.clone(),
        collection: Some(collection.config.collection_name.clone()),
        lost_entities: scan.lost_rows,
        lost_deletions: scan.lost_deletions,
        damaged_bytes: scan.damaged_bytes,
        torn_bytes: reader.len - scan.end,
    };
    if damage.torn_bytes > 0 {
        reader.into_file().set_len(scan.end).map_err(failed)?;
    }
    if !damage.is_intact() {
        collection.ids.skip(LOST_IDS);
        damage.warn();
    }
    let written = Written { file_id: scan.file_id, len: scan.end, rows: scan.rows };
    let mut log = Log::new(Arc::clone(folder), path, collection.clone(), written);
    if damage.torn_bytes > 0 {
        // Nothing else in the file says so any more.
        let noted = collection.encode().and_then(|record| log.append(record));
        noted.unwrap_or_else(|error| tracing::warn!(%error, "ids of lost entities may be given again"));
    }
    Ok((Some(Recovered { collection, snapshot, log }), Some(damage).filter(|damage| !damage.is_intact())))
}

/// Reads all inserts, without the rows that were deleted.
fn read_rows(
    reader: &mut Reader,
    path: &Path,
    scan: &mut Scan,
    collection: &mut CollectionRecord,
    max_bytes: u64,
) -> Result<Snapshot> {
    let deleted = merge(std::mem::take(&mut scan.deleted));
    let CollectionRecord { config, ids, .. } = collection;
    let mut builder = SnapshotBuilder::new(config.dense_dim, scan.rows as usize);
    let mut bytes = 0;
    for (offset, header) in std::mem::take(&mut scan.inserts) {
        let payload = reader.payload(offset, &header).map_err(|error| io_error("read", path, error))?;
        let mut rest = Bytes(payload.as_deref().unwrap_or_default());
        let mut read = 0;
        while let Some((row, dense)) = decode_row(config, ids, &mut rest) {
            read += 1;
            ids.continue_after(row.number);
            if is_deleted(&deleted, row.number) {
                continue;
            }
            bytes += row.bytes + size_of_val(&*dense) as u64;
            if bytes > max_bytes {
                return Err(too_large(path));
            }
            builder.push(row, &dense);
        }
        if payload.is_none() || read < u64::from(header.rows) {
            scan.lost_rows += u64::from(header.rows).saturating_sub(read);
            scan.damaged_bytes += header.record_bytes();
        }
    }
    Ok(builder.finish())
}

pub(in super::super) fn too_large(path: &Path) -> Error {
    let message = format!("{} does not fit into vectors.max_memory_mb", path.display());
    Error::new(ErrorKind::Capacity, "vectors.embedded", message).with_retryable(false).not_sent()
}

/// Ranges in ascending order; overlapping ones are merged.
fn merge(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let overlaps = next.start <= last.end;
        if overlaps {
            last.end = last.end.max(next.end);
        }
        overlaps
    });
    ranges
}

fn is_deleted(ranges: &[Range<u64>], number: u64) -> bool {
    let after = ranges.partition_point(|range| range.start <= number);
    after > 0 && number < ranges[after - 1].end
}

fn set_aside(path: &Path, scan: &Scan, len: u64) -> Result<DamagedFile> {
    let mut aside = OsString::from(path);
    aside.push(".damaged");
    fs::rename(path, &aside).map_err(|error| io_error("rename", path, error))?;
    let damage = DamagedFile {
        file: aside.into(),
        collection: None,
        lost_entities: scan.rows,
        lost_deletions: 0,
        damaged_bytes: len,
        torn_bytes: 0,
    };
    damage.warn();
    Ok(damage)
}
