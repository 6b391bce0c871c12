//! Compressed bodies.

use std::io::{self, Write};

use ::http::HeaderMap;
use ::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use bytes::Bytes;
use flate2::write::MultiGzDecoder;

use crate::backends::http::errors::error;
use crate::{Error, ErrorKind, Outcome, Result};

/// A piece of this size decodes to a megabyte at most, whatever a server sends.
const PIECE_BYTES: usize = 1 << 10;

/// A body that is decoded as it arrives.
#[derive(Default)]
pub(super) struct GzipDecoder {
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
}

impl GzipDecoder {
    /// A decoder if the headers say that the body is compressed; they describe the decoded body then.
    pub(super) fn for_headers(headers: &mut HeaderMap) -> Option<Self> {
        let encoding = headers.get(CONTENT_ENCODING)?.as_bytes();
        if !encoding.eq_ignore_ascii_case(b"gzip") && !encoding.eq_ignore_ascii_case(b"x-gzip") {
            return None;
        }
        headers.remove(CONTENT_ENCODING);
        headers.remove(CONTENT_LENGTH);
        Some(Self::default())
    }

    /// The pieces of a chunk, each to be decoded before the next.
    pub(super) fn pieces(chunk: &[u8]) -> impl Iterator<Item = &[u8]> {
        chunk.chunks(PIECE_BYTES)
    }

    /// Decodes a piece. What it decodes to may be empty.
    pub(super) fn decode(&mut self, piece: &[u8]) -> Result<Bytes> {
        let decoder = self.decoder.get_or_insert_with(|| MultiGzDecoder::new(Vec::new()));
        decoder.write_all(piece).and_then(|()| decoder.flush()).map_err(invalid)?;
        Ok(std::mem::take(decoder.get_mut()).into())
    }

    /// The rest after the last piece. A body without any was not compressed either.
    pub(super) fn finish(self) -> Result<Bytes> {
        let Some(decoder) = self.decoder else { return Ok(Bytes::new()) };
        decoder.finish().map(Bytes::from).map_err(invalid)
    }
}

fn invalid(cause: io::Error) -> Error {
    error(ErrorKind::Protocol, "failed to decompress the body")
        .with_source(cause)
        .with_outcome(Outcome::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_decoded_in_pieces_and_a_truncated_one_is_an_error() {
        let text = "text that repeats. ".repeat(10_000);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).expect("memory");
        let compressed = encoder.finish().expect("memory");
        let decode = |compressed: &[u8]| -> Result<Vec<u8>> {
            let mut decoder = GzipDecoder::default();
            let mut decoded = Vec::new();
            for piece in GzipDecoder::pieces(compressed) {
                decoded.extend_from_slice(&decoder.decode(piece)?);
            }
            decoded.extend_from_slice(&decoder.finish()?);
            Ok(decoded)
        };
        assert_eq!(decode(&compressed).expect("valid"), text.as_bytes());
        assert_eq!(decode(&compressed.repeat(2)).expect("two members"), text.repeat(2).as_bytes());
        let error = decode(&compressed[..compressed.len() - 9]).expect_err("truncated");
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert_eq!(decode(b"").expect("no body"), b"");
    }
}
