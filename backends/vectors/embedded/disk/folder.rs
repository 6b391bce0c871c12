//! The folder of a durable store: one file per collection, and a lock against other processes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, ErrorKind, Outcome, Result};

const LOCK: &str = "lock";
const EXTENSION: &str = "vectors";

/// An open folder; no other process can open it until it is dropped.
#[derive(Debug)]
pub(in super::super) struct Folder {
    path: PathBuf,
    /// Whether a write is acknowledged only once it is on the disk.
    pub(super) sync: bool,
    next_file: AtomicU64,
    lock: File,
}

impl Folder {
    /// Opens a folder, creating it if necessary, and removes unfinished files. Returns the files of its collections in
    /// the order in which they were created.
    ///
    /// # Errors
    /// `Unavailable` when another store has it open, and when it cannot be read or written.
    pub(in super::super) fn open(path: &Path, sync: bool) -> Result<(Arc<Self>, Vec<PathBuf>)> {
        let failed = |error| io_error("open", path, error);
        fs::create_dir_all(path).map_err(failed)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK));
        let lock = lock.map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                let message = format!("{} is in use by another store (vectors.path)", path.display());
                Error::new(ErrorKind::Unavailable, "vectors.embedded", message).not_sent()
            }
            TryLockError::Error(error) => io_error("lock", path, error),
        })?;
        let mut files = Vec::new();
        let mut last = 0;
        for entry in fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            let Some(number) = number(&file) else { continue };
            last = last.max(number);
            match file.extension().and_then(|extension| extension.to_str()) {
                Some(EXTENSION) => files.push((number, file)),
                Some("tmp") => fs::remove_file(&file).map_err(failed)?,
                _ => {}
            }
        }
        files.sort();
        let next_file = AtomicU64::new(last + 1);
        let folder = Self { path: path.to_owned(), sync, next_file, lock };
        Ok((Arc::new(folder), files.into_iter().map(|(_, file)| file).collect()))
    }

    /// The path of another collection's file.
    pub(super) fn next_path(&self) -> PathBuf {
        self.path.join(format!("{:06}.{EXTENSION}", self.next_file.fetch_add(1, Ordering::Relaxed)))
    }

    /// Makes creations, renames and removals in the folder durable.
    pub(super) fn sync_entries(&self) -> io::Result<()> {
        if cfg!(unix) { File::open(&self.path)?.sync_all() } else { Ok(()) }
    }
}

/// A process that is being started still has the file, so that closing it alone may not unlock it yet.
impl Drop for Folder {
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

/// The number before the first dot of a file's name.
fn number(file: &Path) -> Option<u64> {
    file.file_name()?.to_str()?.split('.').next()?.parse().ok()
}

/// The error of a failed file operation that changed nothing.
pub(super) fn io_error(operation: &str, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let kind = match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => ErrorKind::Capacity,
        _ => ErrorKind::Unavailable,
    };
    let message = format!("cannot {operation} {} (vectors.path): {error}", path.display());
    let error = Error::new(kind, "vectors.embedded", message).with_source(error);
    error.with_retryable(kind == ErrorKind::Capacity).with_outcome(Outcome::Rejected)
}
