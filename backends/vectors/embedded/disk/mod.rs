//! Collections on disk.
//!
//! A durable store has a folder with one file per collection. A file is a sequence of checksummed records: the
//! configuration, the rows there were when the file was written, the configuration again, and then a record for each
//! insert and delete since. When most of its rows are deleted ones it is written anew next to its place and renamed.
//! Records that cannot be read are skipped, so that damage costs what is damaged.

mod codec;
mod folder;
mod log;
mod record;
mod recovery;
mod scan;

pub(super) use codec::{CollectionRecord, delete_record, insert_record};
pub(super) use folder::Folder;
pub(super) use log::Log;
pub(super) use record::Record;
pub use recovery::DamagedFile;
pub(super) use recovery::{Recovered, recover, too_large};
