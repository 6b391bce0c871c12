//! The records of a collection's file: a checksummed header, then a checksummed payload.

use crate::{Error, ErrorKind, Result};

pub(super) const HEADER_BYTES: usize = 40;
/// What a record begins with, so that those after a damaged one are found.
pub(super) const MAGIC: [u8; 4] = *b"\x89aRV";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// The collection's configuration.
    Collection = 1,
    Insert = 2,
    Delete = 3,
}

/// In the file: magic, kind, file id, rows before, rows, length, checksum of the payload, checksum of the header; all
/// little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: RecordKind,
    /// Random, the same in all records of a file: a record within the text of an entity is not taken for one.
    pub(super) file_id: u64,
    /// Rows in the inserts before this record, so that lost ones can be counted.
    pub(super) rows_before: u64,
    /// Rows inserted or deleted.
    pub(super) rows: u32,
    /// Length of the payload.
    pub(super) len: u32,
    payload_crc: u32,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.file_id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.rows_before.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.rows.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.len.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` for bytes that are not an intact header.
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let mut rest = Bytes(bytes);
        let magic = rest.take::<4>()?;
        let kind = match u32::from_le_bytes(rest.take()?) {
            1 => RecordKind::Collection,
            2 => RecordKind::Insert,
            3 => RecordKind::Delete,
            _ => return None,
        };
        let header = Self {
            kind,
            file_id: rest.u64()?,
            rows_before: rest.u64()?,
            rows: rest.u32()?,
            len: rest.u32()?,
            payload_crc: rest.u32()?,
        };
        (magic == MAGIC && rest.u32()? == crc32fast::hash(&bytes[..36])).then_some(header)
    }

    pub(super) fn is_intact(&self, payload: &[u8]) -> bool {
        crc32fast::hash(payload) == self.payload_crc
    }

    /// Bytes of the whole record.
    pub(super) fn record_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.len)
    }

    /// Rows that it adds to the file.
    pub(super) fn inserted(&self) -> u64 {
        if self.kind == RecordKind::Insert { self.rows.into() } else { 0 }
    }
}

/// A record to write.
#[derive(Debug)]
pub(in super::super) struct Record {
    kind: RecordKind,
    rows: usize,
    /// Room for the header, then the payload.
    pub(super) bytes: Vec<u8>,
}

impl Record {
    pub(super) fn new(kind: RecordKind, rows: usize) -> Self {
        Self { kind, rows, bytes: vec![0; HEADER_BYTES] }
    }

    /// Writes the header.
    ///
    /// # Errors
    /// `TooLarge` beyond 4 GiB.
    pub(super) fn seal(&mut self, file_id: u64, rows_before: u64) -> Result<Header> {
        let payload = &self.bytes[HEADER_BYTES..];
        let (Ok(len), Ok(rows)) = (u32::try_from(payload.len()), u32::try_from(self.rows)) else {
            let message = "a single write to disk is limited to 4 GiB; insert fewer entities per call";
            return Err(Error::new(ErrorKind::TooLarge, "vectors.embedded", message).not_sent());
        };
        let payload_crc = crc32fast::hash(payload);
        let header = Header { kind: self.kind, file_id, rows_before, rows, len, payload_crc };
        self.bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        Ok(header)
    }
}

/// Bytes that are read from their beginning.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn f32(&mut self) -> Option<f32> {
        self.take().map(f32::from_le_bytes)
    }
}
