//! Heads and frames of the coded stream as bytes (the crate's documentation has the tables), and the bounds of what they announce.

use crate::decode::DecodeError;
use crate::method::Packed;
use crate::records::{PAGE_DATA_BYTES_MAX, PAGES_MAX, RECORD_HEADER_BYTES, u32_at};

/// Bytes of the coded stream's head.
pub(crate) const HEAD_BYTES: usize = 16;
/// Bytes of a frame's header.
pub(crate) const HEADER_BYTES: usize = 24;
/// The most bytes of the stream in one verbatim frame.
pub(crate) const VERBATIM_BYTES_MAX: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"XENSTRM\0";
const VERSION: u32 = 1;
/// Bytes of a PAGE_DATA record.
const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + PAGE_DATA_BYTES_MAX;
/// Bytes of what stands for it: each page with contents has its kind, too.
const PAYLOAD_BYTES_MAX: usize = PAGE_DATA_BYTES_MAX + PAGES_MAX;

/// The head of a coded stream.
pub(crate) fn head(cache_pages: u32) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..].copy_from_slice(&cache_pages.to_le_bytes());
    bytes
}

/// Pages of the cache that a head asks for.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<u32, DecodeError> {
    if !bytes.starts_with(MAGIC) {
        return Err(DecodeError::Magic);
    }
    match u32_at(bytes, 8) {
        VERSION => Ok(u32_at(bytes, 12)),
        version => Err(DecodeError::Version { version }),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Contents {
    Verbatim = 1,
    Pages = 2,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) contents: Contents,
    pub(crate) packed: Packed,
    /// Bytes of the stream that it stands for.
    pub(crate) plain_len: usize,
    /// Bytes of what is in it before it was packed.
    pub(crate) payload_len: usize,
    /// Bytes of what is in it.
    pub(crate) coded_len: usize,
    /// Sum of the stream's bytes.
    pub(crate) sum: u32,
}

impl Frame {
    /// Reads a header and checks its sum and its bounds. The lengths are not more than what a frame can need.
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, DecodeError> {
        let (fields, sum) = bytes.split_at(HEADER_BYTES - 4);
        if crc32fast::hash(fields) != u32_at(sum, 0) {
            return Err(DecodeError::HeaderSum);
        }
        let contents = match bytes[0] {
            1 => Contents::Verbatim,
            2 => Contents::Pages,
            kind => return Err(DecodeError::Kind { kind }),
        };
        let packed = Packed::of(bytes[1]).ok_or(DecodeError::Method { method: bytes[1] })?;
        let [plain_len, payload_len, coded_len] = [4, 8, 12].map(|at| u32_at(bytes, at) as usize);
        let frame = Self { contents, packed, plain_len, payload_len, coded_len, sum: u32_at(bytes, 16) };
        if frame.agrees() { Ok(frame) } else { Err(DecodeError::Length) }
    }

    fn agrees(&self) -> bool {
        let whole = self.packed != Packed::Stored || self.coded_len == self.payload_len;
        let bounded = match self.contents {
            Contents::Verbatim => {
                self.packed == Packed::Stored
                    && self.plain_len == self.payload_len
                    && self.plain_len <= VERBATIM_BYTES_MAX
            }
            Contents::Pages => self.plain_len <= RECORD_BYTES_MAX && self.payload_len <= PAYLOAD_BYTES_MAX,
        };
        whole && bounded && (1..=self.payload_len).contains(&self.coded_len)
    }

    /// Writes the header.
    pub(crate) fn emit(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.contents as u8;
        bytes[1] = self.packed as u8;
        for (at, len) in [(4, self.plain_len), (8, self.payload_len), (12, self.coded_len)] {
            bytes[at..at + 4].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        }
        bytes[16..20].copy_from_slice(&self.sum.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..20]);
        bytes[20..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Frame = Frame {
        contents: Contents::Pages,
        packed: Packed::Zstd,
        plain_len: 8000,
        payload_len: 7000,
        coded_len: 300,
        sum: 0xdead_beef,
    };

    #[test]
    fn a_header_is_read_as_it_was_written() {
        assert_eq!(Frame::parse(&FRAME.emit()), Ok(FRAME));
        for place in 0..HEADER_BYTES {
            let mut bytes = FRAME.emit();
            bytes[place] ^= 1;
            assert_eq!(Frame::parse(&bytes), Err(DecodeError::HeaderSum), "{place}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let verbatim = |len| Frame {
            contents: Contents::Verbatim,
            packed: Packed::Stored,
            plain_len: len,
            payload_len: len,
            coded_len: len,
            sum: 0,
        };
        assert!(Frame::parse(&verbatim(VERBATIM_BYTES_MAX).emit()).is_ok());
        for wrong in [
            verbatim(0),
            verbatim(VERBATIM_BYTES_MAX + 1),
            Frame { plain_len: 1, ..verbatim(2) },
            Frame { packed: Packed::Lz4, ..verbatim(2) },
            Frame { coded_len: 7001, ..FRAME },
            Frame { coded_len: 0, ..FRAME },
            Frame { packed: Packed::Stored, ..FRAME },
            Frame { plain_len: RECORD_BYTES_MAX + 1, ..FRAME },
            Frame { payload_len: PAYLOAD_BYTES_MAX + 1, ..FRAME },
        ] {
            assert_eq!(Frame::parse(&wrong.emit()), Err(DecodeError::Length), "{wrong:?}");
        }
    }

    #[test]
    fn a_head_is_ours_or_refused() {
        assert_eq!(parse_head(&head(77)), Ok(77));
        let mut newer = head(0);
        newer[8] = 2;
        assert_eq!(parse_head(&newer), Err(DecodeError::Version { version: 2 }));
        assert_eq!(parse_head(&[0xff; HEAD_BYTES]), Err(DecodeError::Magic));
    }
}
