//! The file of one collection: a snapshot of its rows, then a log of what was inserted and deleted since.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::snapshot::Snapshot;
use super::codec::{CollectionRecord, insert_record};
use super::folder::{Folder, io_error};
use super::record::Record;
use crate::vectors::CollectionConfig;
use crate::{Error, ErrorKind, Outcome, Result};

/// A file with fewer deleted rows is not written anew.
const MIN_DEAD_ROWS: u64 = 1_000;
/// The configuration is written again when a file has twice this length, and whenever it doubles, so that damage in one
/// place never costs the whole collection.
const MIN_COPY_BYTES: u64 = 32 * 1024;

/// The file is opened for each write, so that collections hold no file descriptors.
#[derive(Debug)]
pub(in super::super) struct Log {
    folder: Arc<Folder>,
    path: PathBuf,
    collection: CollectionRecord,
    written: Written,
    /// Length at which the configuration is written once more.
    next_copy: u64,
    /// Why writes are refused: an earlier one failed and may be in the file or not.
    failed: Option<&'static str>,
}

/// What is in a file.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) file_id: u64,
    pub(super) len: u64,
    /// Rows in all inserts, deleted and lost ones included.
    pub(super) rows: u64,
}

impl Log {
    pub(super) fn new(
        folder: Arc<Folder>,
        path: PathBuf,
        collection: CollectionRecord,
        written: Written,
    ) -> Self {
        let next_copy = written.len.max(MIN_COPY_BYTES) * 2;
        Self { folder, path, collection, written, next_copy, failed: None }
    }

    /// A new file for an empty collection.
    ///
    /// # Errors
    /// `Capacity` when the disk is full, `Unavailable` when the folder cannot be written. There is no file then.
    pub(in super::super) fn create(folder: &Arc<Folder>, collection: &CollectionRecord) -> Result<Self> {
        let path = folder.next_path();
        let written = write_snapshot(&path, collection, &Snapshot::default())?;
        folder.sync_entries().map_err(|error| {
            let _ = fs::remove_file(&path);
            io_error("write", &path, error)
        })?;
        Ok(Self::new(Arc::clone(folder), path, collection.clone(), written))
    }

    /// Adds a record. It survives the end of the process, and with `vectors.sync` that of the system.
    ///
    /// # Errors
    /// `Capacity` when the disk is full, `Unavailable` when the file cannot be written. The record is not there then,
    /// unless the error's outcome is `Unknown`; after that all writes are refused.
    pub(in super::super) fn append(&mut self, record: Record) -> Result<()> {
        if let Some(reason) = self.failed {
            let message =
                format!("{} refuses writes until the store is opened again: {reason}", self.path.display());
            return Err(Error::new(ErrorKind::Unavailable, "vectors.embedded", message)
                .with_retryable(false)
                .not_sent());
        }
        let mut file = self.open()?;
        self.write(&mut file, record)?;
        if self.written.len >= self.next_copy {
            self.next_copy = self.written.len * 2;
            // A copy more or less does not matter.
            let _ = self.collection.encode().and_then(|copy| self.write(&mut file, copy));
        }
        if self.folder.sync { file.sync_data().map_err(|error| self.fail_sync(error)) } else { Ok(()) }
    }

    fn open(&self) -> Result<File> {
        open(&mut OpenOptions::new(), &self.path).map_err(|error| io_error("open", &self.path, error))
    }

    fn write(&mut self, file: &mut File, mut record: Record) -> Result<()> {
        let header = record.seal(self.written.file_id, self.written.rows)?;
        if let Err(error) = file.write_all(&record.bytes) {
            // A part of it may be there.
            if file.set_len(self.written.len).is_err() {
                self.failed = Some("an unfinished write could not be undone");
            }
            return Err(io_error("write to", &self.path, error));
        }
        self.written.len += header.record_bytes();
        self.written.rows += header.inserted();
        Ok(())
    }

    /// Makes everything that was written survive the end of the system.
    ///
    /// # Errors
    /// `Unavailable`; what was lost is unknown, and all further writes are refused.
    pub(in super::super) fn sync(&mut self) -> Result<()> {
        self.open()?.sync_data().map_err(|error| self.fail_sync(error))
    }

    fn fail_sync(&mut self, error: io::Error) -> Error {
        self.failed = Some("writing to the disk failed");
        io_error("sync", &self.path, error).with_retryable(false).with_outcome(Outcome::Unknown)
    }

    /// Whether most rows of the file are deleted ones.
    pub(in super::super) fn is_wasteful(&self, snapshot: &Snapshot) -> bool {
        let live = snapshot.len() as u64;
        self.written.rows.saturating_sub(live) > live.max(MIN_DEAD_ROWS)
    }

    /// Replaces the file by one with only the present rows; a crash leaves either the old or the new one.
    ///
    /// # Errors
    /// As [`create`](Self::create). The old file stays in use.
    pub(in super::super) fn compact(
        &mut self,
        collection: &CollectionRecord,
        snapshot: &Snapshot,
    ) -> Result<()> {
        let written = write_snapshot(&self.path, collection, snapshot)?;
        *self = Self::new(Arc::clone(&self.folder), self.path.clone(), collection.clone(), written);
        // Until then, a crash of the system may bring the old file back.
        self.folder.sync_entries().map_err(|error| self.fail_sync(error))
    }

    /// Deletes the file.
    ///
    /// # Errors
    /// `Unavailable`; the file is still there, unless the error's outcome is `Unknown`.
    pub(in super::super) fn remove(&mut self) -> Result<()> {
        let failed = |error| io_error("delete", &self.path, error);
        fs::remove_file(&self.path).map_err(failed)?;
        self.folder.sync_entries().map_err(|error| failed(error).with_outcome(Outcome::Unknown))
    }
}

/// Writes a whole file next to its place, then moves it there.
fn write_snapshot(path: &Path, collection: &CollectionRecord, snapshot: &Snapshot) -> Result<Written> {
    let mut temporary = OsString::from(path);
    temporary.push(".tmp");
    let written = write_records(temporary.as_ref(), path, collection, snapshot).and_then(|written| {
        fs::rename(&temporary, path).map_err(|error| io_error("write", path, error))?;
        Ok(written)
    });
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

fn write_records(
    temporary: &Path,
    path: &Path,
    collection: &CollectionRecord,
    snapshot: &Snapshot,
) -> Result<Written> {
    let failed = |error| io_error("write", path, error);
    let mut file = open(OpenOptions::new().create(true).truncate(false), temporary).map_err(failed)?;
    file.set_len(0).map_err(failed)?;
    let mut written = Written { file_id: fastrand::u64(1..), len: 0, rows: 0 };
    let mut write = |mut record: Record| -> Result<()> {
        let header = record.seal(written.file_id, written.rows)?;
        file.write_all(&record.bytes).map_err(failed)?;
        written.len += header.record_bytes();
        written.rows += header.inserted();
        Ok(())
    };
    write(collection.encode()?)?;
    let config: &CollectionConfig = &collection.config;
    for segment in snapshot.segments() {
        let rows = (0..segment.len()).map(|row| (segment.row(row), segment.dense(row, config.dense_dim)));
        write(insert_record(config, rows)?)?;
    }
    // Once more: without it nothing of the file could be read.
    write(collection.encode()?)?;
    file.sync_all().map_err(failed)?;
    Ok(written)
}

/// Opens a file for reading it and appending to it.
pub(super) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.read(true).append(true).open(path)
}
