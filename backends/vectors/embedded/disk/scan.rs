//! Finds the records of a file that can be read, whatever the file holds.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;

use super::codec::{CollectionRecord, decode_delete};
use super::record::{HEADER_BYTES, Header, MAGIC, RecordKind};

/// What the headers, the configuration and the deletions of a file say; its inserts are not read yet.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The last intact configuration.
    pub(super) collection: Option<CollectionRecord>,
    pub(super) file_id: u64,
    /// Offsets and headers of inserts.
    pub(super) inserts: Vec<(u64, Header)>,
    /// Numbers of deleted rows, in any order.
    pub(super) deleted: Vec<Range<u64>>,
    /// Rows in all inserts, lost ones included.
    pub(super) rows: u64,
    /// Inserted rows that are in no readable record, as far as this or a later header says how many.
    pub(super) lost_rows: u64,
    /// Deletions that could not be read, in records whose header could.
    pub(super) lost_deletions: u64,
    /// Bytes between records that are no record, and of records that could not be read.
    pub(super) damaged_bytes: u64,
    /// Where the file ends, without an unfinished write.
    pub(super) end: u64,
}

impl Scan {
    /// Reads a file to its end.
    pub(super) fn new(reader: &mut Reader) -> io::Result<Self> {
        let mut scan = Self::default();
        while let Some(header) = scan.next_header(reader)? {
            let offset = scan.end;
            scan.end += header.record_bytes();
            // More rows before it than were counted: the records between are lost.
            scan.lost_rows += header.rows_before.saturating_sub(scan.rows);
            scan.rows = scan.rows.max(header.rows_before) + header.inserted();
            scan.add(reader, offset, header)?;
        }
        Ok(scan)
    }

    fn add(&mut self, reader: &mut Reader, offset: u64, header: Header) -> io::Result<()> {
        if header.kind == RecordKind::Insert {
            self.inserts.push((offset, header));
            return Ok(());
        }
        let payload = reader.payload(offset, &header)?;
        match (payload, header.kind) {
            (Some(payload), RecordKind::Delete) => self.deleted.extend(decode_delete(&payload)),
            (Some(payload), _) => {
                self.collection = CollectionRecord::decode(&payload).or(self.collection.take())
            }
            (None, kind) => {
                self.damaged_bytes += header.record_bytes();
                self.lost_deletions += if kind == RecordKind::Delete { header.rows.into() } else { 0 };
            }
        }
        Ok(())
    }

    /// The header of the next complete record, and its offset in `end`; `None` where there is none up to the end of the
    /// file.
    fn next_header(&mut self, reader: &mut Reader) -> io::Result<Option<Header>> {
        let mut at = self.end;
        let mut unfinished = None;
        while let Some((offset, header)) = reader.find_header(at)? {
            if self.file_id == 0 || self.file_id == header.file_id {
                if offset + header.record_bytes() <= reader.len {
                    self.file_id = header.file_id;
                    self.skip_to(offset);
                    return Ok(Some(header));
                }
                unfinished = Some(offset);
            }
            at = offset + 1;
        }
        // Only what is shorter than its header says, or than any header, is an unfinished write. The rest may have been
        // acknowledged and damaged since.
        let is_part_of_header = reader.len - self.end < HEADER_BYTES as u64;
        self.skip_to(unfinished.unwrap_or(if is_part_of_header { self.end } else { reader.len }));
        Ok(None)
    }

    /// Counts the bytes up to there as damaged.
    fn skip_to(&mut self, offset: u64) {
        self.damaged_bytes += offset - self.end;
        self.end = offset;
    }
}

/// A file that is read at any offset.
#[derive(Debug)]
pub(super) struct Reader {
    file: BufReader<File>,
    /// Length of the file.
    pub(super) len: u64,
    position: u64,
}

impl Reader {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file: BufReader::with_capacity(256 * 1024, file), len, position: 0 })
    }

    pub(super) fn into_file(self) -> File {
        self.file.into_inner()
    }

    fn seek(&mut self, offset: u64) -> io::Result<()> {
        // Files are shorter than 2^63 bytes.
        self.file.seek_relative(offset as i64 - self.position as i64)?;
        self.position = offset;
        Ok(())
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.seek(offset)?;
        self.file.read_exact(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// The payload of a record; `None` if it is damaged.
    pub(super) fn payload(&mut self, offset: u64, header: &Header) -> io::Result<Option<Vec<u8>>> {
        let mut payload = vec![0; header.len as usize];
        self.read(offset + HEADER_BYTES as u64, &mut payload)?;
        Ok(header.is_intact(&payload).then_some(payload))
    }

    /// The first intact header at `from` or after it.
    fn find_header(&mut self, from: u64) -> io::Result<Option<(u64, Header)>> {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = from;
        while at + HEADER_BYTES as u64 <= self.len {
            self.read(at, &mut bytes)?;
            if let Some(header) = Header::parse(&bytes) {
                return Ok(Some((at, header)));
            }
            at = self.find_magic(at + 1)?;
        }
        Ok(None)
    }

    /// Where the next record may begin: at its magic bytes, or at the end of the file.
    fn find_magic(&mut self, from: u64) -> io::Result<u64> {
        let mut chunk = [0; 4 * 1024];
        let mut at = from;
        while at + MAGIC.len() as u64 <= self.len {
            let size = chunk.len().min((self.len - at) as usize);
            self.read(at, &mut chunk[..size])?;
            if let Some(found) = chunk[..size].windows(MAGIC.len()).position(|bytes| bytes == MAGIC) {
                return Ok(at + found as u64);
            }
            // The magic bytes may lie across the chunk's end.
            at += (size - MAGIC.len() + 1) as u64;
        }
        Ok(self.len)
    }
}
