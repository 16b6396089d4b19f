//! libxc's migration stream, version 2 and 3: what it is made of, read as it comes and written (docs/specs/libxc-migration-stream.pandoc).
//!
//! [`Reader`] finds where each record begins and ends and keeps nothing but what is needed for that: a body passes through it in the
//! pieces in which it comes.

use crate::page::{PAGE_BYTES, Page};

/// Bytes of the image header and the domain header together.
pub const HEAD_BYTES: usize = 40;
/// Bytes of a record's header: type and length of the body.
pub const RECORD_HEADER_BYTES: usize = 8;
/// The longest body that libxc takes (`REC_LENGTH_MAX`, xg_sr_stream_format.h), in bytes.
pub const BODY_BYTES_MAX: u32 = 128 << 20;
/// The most pages of one PAGE_DATA record that libxc writes (`MAX_BATCH_SIZE`, xg_save_restore.h).
pub const PAGES_MAX: usize = 1024;
/// The longest body of such a record, in bytes.
pub const PAGE_DATA_BYTES_MAX: usize = 8 + PAGES_MAX * (8 + PAGE_BYTES);

/// The type of the record that ends the stream.
pub const END: u32 = 0;
/// The type of records with the memory's contents.
pub const PAGE_DATA: u32 = 1;

const MARKER: [u8; 8] = [0xff; 8];
const ID: [u8; 4] = *b"XENF";
/// Before Xen 4.14, and since.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
const BIG_ENDIAN: u16 = 1;
const BODY_ALIGN: usize = 8;

/// A stream that is none, or that libxc would not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It does not begin as libxc's stream does.
    #[error("It does not begin as libxc's migration stream does")]
    Marker,
    /// A version that is not known.
    #[error("It is libxc's migration stream of version {version}; 2 and 3 are known")]
    Version {
        /// The version.
        version: u32,
    },
    /// It is of a host of another byte order.
    #[error("It is from a big-endian host")]
    BigEndian,
    /// A record is longer than libxc takes.
    #[error("A record of type {kind:#x} announces {announced} bytes where at most {BODY_BYTES_MAX} can be")]
    Length {
        /// The record's type.
        kind: u32,
        /// What it announces.
        announced: u32,
    },
}

/// The domain header; of the image header, the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Of the stream: 2 or 3.
    pub version: u32,
    /// The domain's type: 1 x86 PV, 2 x86 HVM (PVH, too).
    pub domain_type: u32,
    /// A page has `1 << page_shift` bytes.
    pub page_shift: u16,
    /// The Xen that it was saved on.
    pub xen: (u32, u32),
}

impl Head {
    /// Reads both headers.
    ///
    /// # Errors
    /// They are not those of a stream that is known.
    pub fn parse(bytes: &[u8; HEAD_BYTES]) -> Result<Self, StreamError> {
        if !bytes.starts_with(&MARKER) || bytes[8..12] != ID {
            return Err(StreamError::Marker);
        }
        let version = u32_at(bytes, 12).swap_bytes();
        if !VERSIONS.contains(&version) {
            return Err(StreamError::Version { version });
        }
        if u16::from_be_bytes([bytes[16], bytes[17]]) & BIG_ENDIAN != 0 {
            return Err(StreamError::BigEndian);
        }
        let page_shift = u16::from_le_bytes([bytes[28], bytes[29]]);
        Ok(Self { version, domain_type: u32_at(bytes, 24), page_shift, xen: (u32_at(bytes, 32), u32_at(bytes, 36)) })
    }

    /// Writes both headers, what is reserved as zeros.
    #[must_use]
    pub fn emit(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&MARKER);
        bytes[8..12].copy_from_slice(&ID);
        bytes[12..16].copy_from_slice(&self.version.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.domain_type.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.page_shift.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.xen.0.to_le_bytes());
        bytes[36..].copy_from_slice(&self.xen.1.to_le_bytes());
        bytes
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its type.
    pub kind: u32,
    /// Bytes of its body, without what fills it up to a multiple of 8.
    pub len: u32,
}

impl Record {
    /// Reads it.
    ///
    /// # Errors
    /// It announces a body longer than libxc takes.
    pub fn parse(bytes: [u8; RECORD_HEADER_BYTES]) -> Result<Self, StreamError> {
        let record = Self { kind: u32_at(&bytes, 0), len: u32_at(&bytes, 4) };
        match record.len {
            0..=BODY_BYTES_MAX => Ok(record),
            announced => Err(StreamError::Length { kind: record.kind, announced }),
        }
    }

    /// Writes it.
    #[must_use]
    pub fn emit(self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.kind.to_le_bytes());
        bytes[4..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// Bytes of the body and what fills it up.
    fn padded(self) -> usize {
        (self.len as usize).next_multiple_of(BODY_ALIGN)
    }
}

/// Something of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Its headers, and their bytes.
    Head(Head, [u8; HEAD_BYTES]),
    /// A record begins.
    Record(Record),
    /// More of the record's body, or of what fills it up.
    Body(&'a [u8]),
    /// The record is complete.
    Done,
}

/// Takes the stream apart, in whatever pieces it comes.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
    /// What has come of a header.
    header: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Between,
    Body {
        record: Record,
        left: usize,
    },
    End,
}

impl Reader {
    /// The next part that `input` has; what was taken is no longer in it. `None` when more has to come, or nothing: what follows END stays.
    ///
    /// # Errors
    /// The stream is none that is known. The reader is of no use then.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Part<'a>>, StreamError> {
        Ok(match self.state {
            State::Head => self.header(input).map(|bytes| self.head(bytes)).transpose()?,
            State::Between => self.header(input).map(|bytes| self.record(bytes)).transpose()?,
            State::Body { record, left: 0 } => {
                self.state = if record.kind == END { State::End } else { State::Between };
                Some(Part::Done)
            }
            State::Body { record, left } if !input.is_empty() => {
                let (body, rest) = input.split_at(left.min(input.len()));
                *input = rest;
                self.state = State::Body { record, left: left - body.len() };
                Some(Part::Body(body))
            }
            State::Body { .. } | State::End => None,
        })
    }

    fn head<'a>(&mut self, bytes: [u8; HEAD_BYTES]) -> Result<Part<'a>, StreamError> {
        let head = Head::parse(&bytes)?;
        self.state = State::Between;
        Ok(Part::Head(head, bytes))
    }

    fn record<'a>(&mut self, bytes: [u8; RECORD_HEADER_BYTES]) -> Result<Part<'a>, StreamError> {
        let record = Record::parse(bytes)?;
        self.state = State::Body { record, left: record.padded() };
        Ok(Part::Record(record))
    }

    /// Whether END has come, and all of it.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state == State::End
    }

    /// Whether a record may begin with the next byte.
    #[must_use]
    pub fn is_between_records(&self) -> bool {
        self.state == State::Between && self.header.is_empty()
    }

    /// A header, if all of it is there.
    fn header<const LEN: usize>(&mut self, input: &mut &[u8]) -> Option<[u8; LEN]> {
        let (taken, rest) = input.split_at(input.len().min(LEN - self.header.len()));
        self.header.extend(taken);
        *input = rest;
        let header = self.header.first_chunk().copied()?;
        self.header.clear();
        Some(header)
    }
}

/// Whether a page of this field of PAGE_DATA has contents in the record: all but those that are broken, only allocated or not there, and types
/// that are reserved.
#[must_use]
pub fn has_contents(field: u64) -> bool {
    matches!(field >> 60, 0..=4 | 9..=12)
}

/// The number of the page, of a field of PAGE_DATA.
#[must_use]
pub fn pfn(field: u64) -> u64 {
    field & ((1 << 52) - 1)
}

/// A PAGE_DATA record's body.
#[derive(Clone, Copy, Debug)]
pub struct PageData<'a> {
    /// Its first 8 bytes: how many pages, and what is reserved.
    pub start: &'a [u8; 8],
    fields: &'a [[u8; 8]],
    contents: &'a [Page],
}

impl<'a> PageData<'a> {
    /// Looks at a body. `None` if its lengths do not agree, or if it has more than [`PAGES_MAX`] pages.
    #[must_use]
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let (start, rest) = body.split_first_chunk()?;
        let count = u32_at(start, 0) as usize;
        let (fields, rest) = (count <= PAGES_MAX).then(|| rest.split_at_checked(count * 8))??;
        let (fields, _) = fields.as_chunks();
        let (contents, left) = rest.as_chunks();
        let with_contents = fields.iter().filter(|field| has_contents(u64::from_le_bytes(**field))).count();
        (left.is_empty() && contents.len() == with_contents).then_some(Self { start, fields, contents })
    }

    /// The field of each page: its type and number.
    pub fn fields(&self) -> impl Iterator<Item = u64> + use<'a> {
        self.fields.iter().map(|field| u64::from_le_bytes(*field))
    }

    /// Number and contents of each page that has any.
    pub fn pages(&self) -> impl ExactSizeIterator<Item = (u64, &'a Page)> + use<'a> {
        let numbers: Vec<u64> = self.fields().filter(|field| has_contents(*field)).map(pfn).collect();
        numbers.into_iter().zip(self.contents)
    }
}

/// Appends a record.
///
/// # Errors
/// The body is longer than libxc takes.
pub fn write(out: &mut Vec<u8>, kind: u32, body: &[u8]) -> Result<(), StreamError> {
    let record = Record::parse(Record { kind, len: u32::try_from(body.len()).unwrap_or(u32::MAX) }.emit())?;
    out.extend(record.emit());
    out.extend(body);
    out.resize(out.len() + record.padded() - body.len(), 0);
    Ok(())
}

/// Appends a PAGE_DATA record: the field of each page, and its contents if it has any ([`has_contents`]).
///
/// # Errors
/// It is longer than libxc takes.
pub fn write_pages<'a>(
    out: &mut Vec<u8>,
    fields: &[u64],
    contents: impl IntoIterator<Item = &'a Page>,
) -> Result<(), StreamError> {
    let mut body = Vec::with_capacity(8 + fields.len() * (8 + PAGE_BYTES));
    body.extend((fields.len() as u64).to_le_bytes());
    body.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
    contents.into_iter().for_each(|page| body.extend(page));
    write(out, PAGE_DATA, &body)
}

/// The number at a place of a header, which is longer than that.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head { version: 3, domain_type: 2, page_shift: 12, xen: (4, 17) };

    fn stream() -> Vec<u8> {
        let mut bytes = HEAD.emit().to_vec();
        write(&mut bytes, 0x10, b"").expect("short");
        write_pages(&mut bytes, &[5, 0xF << 60 | 6], [&[9; PAGE_BYTES]]).expect("short");
        write(&mut bytes, 9, b"eleven byte").expect("short");
        write(&mut bytes, END, b"").expect("short");
        bytes
    }

    /// Everything that a reader says of pieces of this length, bodies put together.
    fn read(bytes: &[u8], piece: usize) -> (Vec<(u32, Vec<u8>)>, Reader) {
        let (mut reader, mut records, mut current) = (Reader::default(), Vec::new(), (0, Vec::new()));
        for mut piece in bytes.chunks(piece) {
            while let Some(part) = reader.next(&mut piece).expect("a stream") {
                match part {
                    Part::Head(head, raw) => assert_eq!((head, raw), (HEAD, HEAD.emit())),
                    Part::Record(record) => current = (record.kind, Vec::new()),
                    Part::Body(body) => current.1.extend(body),
                    Part::Done => records.push(current.clone()),
                }
            }
            assert!(piece.is_empty());
        }
        (records, reader)
    }

    #[test]
    fn the_pieces_in_which_it_comes_make_no_difference() {
        let whole = read(&stream(), usize::MAX);
        assert_eq!(
            whole.0.iter().map(|(kind, body)| (*kind, body.len())).collect::<Vec<_>>(),
            [(0x10, 0), (PAGE_DATA, 8 + 16 + PAGE_BYTES), (9, 16), (END, 0)]
        );
        assert!(whole.1.is_finished());
        for piece in [1, 7, 8, 39, 40, 41, 4096] {
            assert_eq!(read(&stream(), piece).0, whole.0, "{piece}");
        }
    }

    #[test]
    fn what_follows_the_end_is_left() {
        let bytes = [stream(), b"libxl".to_vec()].concat();
        let mut rest = &*bytes;
        let mut reader = Reader::default();
        while reader.next(&mut rest).expect("a stream").is_some() {}
        assert!(reader.is_finished() && rest == b"libxl");
    }

    #[test]
    fn other_streams_are_refused() {
        let with = |at: usize, byte: u8| {
            let mut head = HEAD.emit();
            head[at] = byte;
            Head::parse(&head)
        };
        assert_eq!(with(0, 0), Err(StreamError::Marker));
        assert_eq!(with(11, b'G'), Err(StreamError::Marker));
        assert_eq!(with(15, 1), Err(StreamError::Version { version: 1 }));
        assert_eq!(with(15, 4), Err(StreamError::Version { version: 4 }));
        assert_eq!(with(17, 1), Err(StreamError::BigEndian));
        assert!(with(15, 2).is_ok());
        let long = Record { kind: 9, len: BODY_BYTES_MAX + 1 };
        assert_eq!(Record::parse(long.emit()), Err(StreamError::Length { kind: 9, announced: long.len }));
    }

    #[test]
    fn pages_are_those_with_contents() {
        let mut bytes = Vec::new();
        let fields = [1, 0xD << 60 | 2, 0xE << 60 | 3, 0xF << 60 | 4, 5 << 60 | 5, 0xC << 60 | 6];
        write_pages(&mut bytes, &fields, [&[1; PAGE_BYTES], &[6; PAGE_BYTES]]).expect("short");
        let data = PageData::parse(&bytes[RECORD_HEADER_BYTES..]).expect("it agrees");
        assert_eq!(data.fields().collect::<Vec<_>>(), fields);
        assert_eq!(data.pages().map(|(pfn, page)| (pfn, page[0])).collect::<Vec<_>>(), [(1, 1), (6, 6)]);
    }

    #[test]
    fn lengths_that_do_not_agree_are_no_pages() {
        let mut bytes = Vec::new();
        write_pages(&mut bytes, &[1, 2], [&[1; PAGE_BYTES]; 2]).expect("short");
        let body = &bytes[RECORD_HEADER_BYTES..];
        assert!(PageData::parse(body).is_some());
        for len in [0, 7, 8, 23, 24, body.len() - 1] {
            assert!(PageData::parse(&body[..len]).is_none(), "{len}");
        }
        let mut more = body.to_vec();
        more[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(PageData::parse(&more).is_none());
    }
}
