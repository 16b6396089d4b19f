//! From the coded stream back to libxc's. What comes in is not believed: no length beyond its bound, no byte without its sum.

use std::fmt;

use crate::cache::Cache;
use crate::frame::{Contents, Frame, HEAD_BYTES, HEADER_BYTES, parse_head};
use crate::method::Unpacker;
use crate::page::{Kind, PAGE_BYTES, Page, xor};
use crate::records::{
    PAGE_DATA, PAGES_MAX, RECORD_HEADER_BYTES, Reader, Record, StreamError, has_contents, pfn, u32_at,
};

/// A coded stream that is none, is damaged, or asks for too much.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It does not begin as a coded stream does.
    #[error("It does not begin as a coded stream does")]
    Magic,
    /// It is of another version.
    #[error("It is a coded stream of version {version}; 1 is known")]
    Version {
        /// The version.
        version: u32,
    },
    /// It wants a larger cache than it may have here.
    #[error("It wants a cache of {asked} pages where at most {max} are given")]
    Cache {
        /// What it wants.
        asked: u32,
        /// The bound.
        max: u32,
    },
    /// The sum of a frame's header is wrong.
    #[error("The header of a frame is damaged")]
    HeaderSum,
    /// A frame holds what is not known.
    #[error("A frame has the unknown kind {kind}")]
    Kind {
        /// Its kind.
        kind: u8,
    },
    /// A frame is packed in a way that is not known.
    #[error("A frame is packed by the unknown method {method}")]
    Method {
        /// Its method.
        method: u8,
    },
    /// The lengths of a frame's header are out of bounds or do not agree.
    #[error("The lengths of a frame do not agree")]
    Length,
    /// What is in a frame cannot be unpacked to what it announces.
    #[error("What is in a frame cannot be unpacked")]
    Packed,
    /// What is in a frame are not the pages of a record.
    #[error("What is in a frame are not the pages of a record")]
    Pages,
    /// A page is a difference from, or the same as, what is not in the cache.
    #[error("The difference of page {pfn:#x} is from contents that are not known here")]
    Unknown {
        /// Its number.
        pfn: u64,
    },
    /// A frame of pages comes within a record.
    #[error("A frame of pages comes within another record")]
    WithinRecord,
    /// The sum of the stream's own bytes is wrong: damaged on the way, or the caches differ.
    #[error("The sum of a frame is wrong: it was damaged on the way")]
    Sum,
    /// What the frames stand for is no stream that libxc would take.
    #[error("What was coded is no migration stream")]
    Stream(#[source] StreamError),
    /// A frame holds more than the stream's end.
    #[error("A frame goes on behind the end of the stream")]
    AfterEnd,
}

/// Decodes one stream.
///
/// Memory: the cache as it fills, at most what is allowed; three times the longest PAGE_DATA record (4 MiB).
pub struct Decoder {
    cache_pages_max: u32,
    cache: Cache,
    unpacker: Unpacker,
    awaits: Awaits,
    /// What has come of it.
    came: Vec<u8>,
    /// Follows what is given out: to its end, and no further.
    reader: Reader,
}

#[derive(Clone, Copy, Debug)]
enum Awaits {
    Head,
    Header,
    Frame(Frame),
    Nothing,
}

impl Decoder {
    /// A decoder that keeps as many pages as the stream's head says, but refuses more than these.
    #[must_use]
    pub fn new(cache_pages_max: u32) -> Self {
        Self {
            cache_pages_max,
            cache: Cache::default(),
            unpacker: Unpacker::default(),
            awaits: Awaits::Head,
            came: Vec::new(),
            reader: Reader::default(),
        }
    }

    /// How many bytes may be read from the connection: the rest of a header or of a frame, so that none is read that belongs to what
    /// follows the stream. 0 at its end, and after an error.
    #[must_use]
    pub fn wants(&self) -> usize {
        let whole = match self.awaits {
            Awaits::Head => HEAD_BYTES,
            Awaits::Header => HEADER_BYTES,
            Awaits::Frame(frame) => frame.coded_len,
            Awaits::Nothing => 0,
        };
        whole.saturating_sub(self.came.len())
    }

    /// Whether the stream has come to its end. A connection that ends before has lost something.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.reader.is_finished()
    }

    /// Decodes what `input` has and appends what is complete and sound. Says how much of it was taken: all, up to the end of the stream.
    ///
    /// # Errors
    /// [`DecodeError`]; what was appended before is sound, of the frame that is not nothing is appended. The decoder takes nothing more then.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, DecodeError> {
        let mut rest = input;
        while !rest.is_empty() && self.wants() > 0 {
            let (taken, left) = rest.split_at(self.wants().min(rest.len()));
            self.came.extend(taken);
            rest = left;
            if self.wants() == 0 {
                self.step(out)?;
            }
        }
        Ok(input.len() - rest.len())
    }

    /// What was awaited is there.
    fn step(&mut self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let came = std::mem::take(&mut self.came);
        self.awaits = match std::mem::replace(&mut self.awaits, Awaits::Nothing) {
            Awaits::Head => self.head(&came)?,
            Awaits::Header => Awaits::Frame(Frame::parse(came.first_chunk().ok_or(DecodeError::Length)?)?),
            Awaits::Frame(frame) => self.frame(frame, &came, out)?,
            Awaits::Nothing => Awaits::Nothing,
        };
        self.came = came;
        self.came.clear();
        Ok(())
    }

    fn head(&mut self, came: &[u8]) -> Result<Awaits, DecodeError> {
        let (asked, max) = (parse_head(came)?, self.cache_pages_max);
        if asked > max {
            return Err(DecodeError::Cache { asked, max });
        }
        self.cache = Cache::new(asked);
        Ok(Awaits::Header)
    }

    fn frame(&mut self, frame: Frame, came: &[u8], out: &mut Vec<u8>) -> Result<Awaits, DecodeError> {
        let before = out.len();
        let done = self.plain(frame, came, out).and_then(|()| self.sound(frame, &out[before..]));
        done.inspect_err(|_| out.truncate(before))?;
        Ok(if self.reader.is_finished() { Awaits::Nothing } else { Awaits::Header })
    }

    /// Appends what the frame stands for.
    fn plain(&mut self, frame: Frame, came: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        match frame.contents {
            Contents::Verbatim => out.extend(came),
            Contents::Pages if !self.reader.is_between_records() => return Err(DecodeError::WithinRecord),
            Contents::Pages => {
                let unpacked = self.unpacker.unpack(frame.packed, came, frame.payload_len);
                let payload = Payload::parse(unpacked.ok_or(DecodeError::Packed)?, frame.plain_len)?;
                payload.write(&mut self.cache, out)?;
            }
        }
        Ok(())
    }

    /// Whether it is what was sent, and something that libxc would take.
    fn sound(&mut self, frame: Frame, mut plain: &[u8]) -> Result<(), DecodeError> {
        if plain.len() != frame.plain_len || crc32fast::hash(plain) != frame.sum {
            return Err(DecodeError::Sum);
        }
        while self.reader.next(&mut plain).map_err(DecodeError::Stream)?.is_some() {}
        if plain.is_empty() { Ok(()) } else { Err(DecodeError::AfterEnd) }
    }
}

/// What stands for a record of pages.
struct Payload<'a> {
    record: Record,
    start: &'a [u8; 8],
    fields: Vec<u64>,
    kinds: Vec<Kind>,
    sent: &'a [Page],
}

impl<'a> Payload<'a> {
    /// Takes it apart; what it has agrees with what it announces, and with the length of the record.
    fn parse(bytes: &'a [u8], record_len: usize) -> Result<Self, DecodeError> {
        Self::split(bytes).filter(|payload| payload.record_bytes() == record_len).ok_or(DecodeError::Pages)
    }

    fn split(bytes: &'a [u8]) -> Option<Self> {
        let (start, rest) = bytes.split_first_chunk()?;
        let count = u32_at(start, 0) as usize;
        let (steps, rest) = (count <= PAGES_MAX).then(|| rest.split_at_checked(count * 8))??;
        let fields: Vec<u64> = fields(steps).collect();
        let with_contents = fields.iter().filter(|field| has_contents(**field)).count();
        let (kinds, rest) = rest.split_at_checked(with_contents)?;
        let kinds = kinds.iter().map(|kind| Kind::of(*kind)).collect::<Option<Vec<_>>>()?;
        let (sent, left) = rest.as_chunks();
        let agrees = left.is_empty() && sent.len() == kinds.iter().filter(|kind| kind.is_sent()).count();
        let len = u32::try_from(8 + fields.len() * 8 + kinds.len() * PAGE_BYTES).ok()?;
        agrees.then_some(Self { record: Record { kind: PAGE_DATA, len }, start, fields, kinds, sent })
    }

    fn record_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.record.len as usize
    }

    /// Appends the record.
    fn write(&self, cache: &mut Cache, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        out.reserve(self.record_bytes());
        out.extend(self.record.emit());
        out.extend(self.start);
        out.extend(self.fields.iter().flat_map(|field| field.to_le_bytes()));
        let numbers = self.fields.iter().filter(|field| has_contents(**field)).map(|field| pfn(*field));
        let mut sent = self.sent.iter();
        for (pfn, kind) in numbers.zip(&self.kinds) {
            let sent = kind.is_sent().then(|| sent.next()).flatten();
            let page = page(*kind, sent, cache.get(pfn), out).ok_or(DecodeError::Unknown { pfn })?;
            cache.sent(pfn, *kind, page);
        }
        Ok(())
    }
}

/// The fields of the pages, from the steps between them.
fn fields(steps: &[u8]) -> impl Iterator<Item = u64> {
    steps.as_chunks().0.iter().scan(u64::MAX, |before, step| {
        *before = u64::from_le_bytes(*step).wrapping_add(*before).wrapping_add(1);
        Some(*before)
    })
}

/// Appends a page, from what was sent of it and what is known. `None` if what it takes is not there.
fn page<'a>(kind: Kind, sent: Option<&Page>, known: Option<&Page>, out: &'a mut Vec<u8>) -> Option<&'a Page> {
    match kind {
        Kind::Zero => out.resize(out.len() + PAGE_BYTES, 0),
        Kind::Same => out.extend_from_slice(known?),
        Kind::Plain | Kind::Passing | Kind::Delta => out.extend_from_slice(sent?),
    }
    if kind == Kind::Delta {
        xor(out.last_chunk_mut()?, known?);
    }
    out.last_chunk()
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("awaits", &self.awaits).finish_non_exhaustive()
    }
}
