//! What is done with the pages of a record that are not elided.

use std::fmt;

/// How they are compressed. One call takes up to 4 MiB, so that what pages have in common is found across them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Not at all. Zeros and pages that the other end has are elided all the same; there are no deltas, which would be as long as their pages,
    /// and what the caches do not have yet they do not get: for a link that is as fast as memory.
    #[default]
    Stored,
    /// LZ4's block format: little is saved, at little cost.
    Lz4,
    /// Zstandard.
    Zstd {
        /// 1 to 19; what is outside is taken for the nearest.
        level: i32,
    },
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored => write!(f, "stored"),
            Self::Lz4 => write!(f, "lz4"),
            Self::Zstd { level } => write!(f, "zstd-{level}"),
        }
    }
}

/// A method as a frame names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Packed {
    Stored = 0,
    Lz4 = 1,
    Zstd = 2,
}

impl Packed {
    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Self::Stored, Self::Lz4, Self::Zstd].into_iter().find(|packed| *packed as u8 == byte)
    }
}

/// What is saved must be at least this part, or the other end would unpack for nothing.
const SAVED_PART: usize = 32;
/// Above these, Zstandard's memory and time are out of all proportion.
const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// Compresses; keeps its memory from call to call.
#[derive(Default)]
pub(crate) struct Packer {
    zstd: Option<(i32, zstd::bulk::Compressor<'static>)>,
    packed: Vec<u8>,
}

impl Packer {
    /// What to send, and how it is packed: as it is when the method saves too little, or fails.
    pub(crate) fn pack<'a>(&'a mut self, method: Method, bytes: &'a [u8]) -> (Packed, &'a [u8]) {
        let room = lz4_flex::block::get_maximum_output_size(bytes.len());
        self.packed.resize(self.packed.len().max(room), 0);
        let (packed, len) = match method {
            Method::Stored => (Packed::Stored, None),
            Method::Lz4 => (Packed::Lz4, lz4_flex::block::compress_into(bytes, &mut self.packed).ok()),
            Method::Zstd { level } => (Packed::Zstd, self.zstd(level.clamp(*LEVELS.start(), *LEVELS.end()), bytes)),
        };
        match len {
            Some(len) if len < bytes.len() - bytes.len() / SAVED_PART => (packed, &self.packed[..len]),
            _ => (Packed::Stored, bytes),
        }
    }

    fn zstd(&mut self, level: i32, bytes: &[u8]) -> Option<usize> {
        if self.zstd.as_ref().is_none_or(|(current, _)| *current != level) {
            self.zstd = Some((level, zstd::bulk::Compressor::new(level).ok()?));
        }
        let (_, compressor) = self.zstd.as_mut()?;
        compressor.compress_to_buffer(bytes, &mut self.packed[..]).ok()
    }
}

/// Unpacks; keeps its memory from call to call.
#[derive(Default)]
pub(crate) struct Unpacker {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    bytes: Vec<u8>,
}

impl Unpacker {
    /// What was packed, if it is of that length; the caller has bounded it.
    pub(crate) fn unpack<'a>(&'a mut self, packed: Packed, from: &'a [u8], len: usize) -> Option<&'a [u8]> {
        if packed == Packed::Stored {
            return (from.len() == len).then_some(from);
        }
        self.bytes.resize(self.bytes.len().max(len), 0);
        let bytes = &mut self.bytes[..len];
        let unpacked = match packed {
            Packed::Stored => return None,
            Packed::Lz4 => lz4_flex::block::decompress_into(from, bytes).ok()?,
            Packed::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd::bulk::Decompressor::new().ok()?),
                };
                zstd.decompress_to_buffer(from, bytes).ok()?
            }
        };
        (unpacked == len).then_some(&self.bytes[..len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHODS: [Method; 4] = [Method::Stored, Method::Lz4, Method::Zstd { level: 1 }, Method::Zstd { level: 99 }];

    #[test]
    fn what_is_packed_is_unpacked() {
        let text = b"the quick brown fox ".repeat(1000);
        for method in METHODS {
            let mut packer = Packer::default();
            let (packed, bytes) = packer.pack(method, &text);
            assert_eq!(packed == Packed::Stored, method == Method::Stored);
            let mut unpacker = Unpacker::default();
            assert_eq!(unpacker.unpack(packed, bytes, text.len()), Some(&*text), "{method}");
            assert_eq!(unpacker.unpack(packed, bytes, text.len() - 1), None, "{method}");
            assert_eq!(unpacker.unpack(packed, bytes, text.len() + 1), None, "{method}");
            assert_eq!(unpacker.unpack(packed, &bytes[..bytes.len() - 1], text.len()), None, "{method}");
        }
    }

    #[test]
    fn what_cannot_be_made_shorter_stays() {
        let noise: Vec<u8> = (0_u32..5000).flat_map(|n| crc32fast::hash(&n.to_le_bytes()).to_le_bytes()).collect();
        for method in METHODS {
            assert_eq!(Packer::default().pack(method, &noise), (Packed::Stored, &*noise), "{method}");
        }
    }
}
