//! From libxc's stream to the coded one.

use std::fmt;

use crate::cache::Cache;
use crate::frame::{Contents, Frame, VERBATIM_BYTES_MAX, head};
use crate::method::{Method, Packed, Packer};
use crate::page::{Kind, PAGE_BYTES, Page, compare, is_zero, xor};
use crate::records::{
    PAGE_DATA, PAGE_DATA_BYTES_MAX, PageData, Part, RECORD_HEADER_BYTES, Reader, Record, StreamError,
};

/// Codes one stream. Whatever of it is complete is in what has been given out: nothing waits for the next record.
///
/// Memory: the cache, and four times the longest PAGE_DATA record (4 MiB), with Zstandard's own (some MiB at the levels that
/// [`choose`](crate::choose) takes).
pub struct Encoder {
    reader: Reader,
    cache: Cache,
    method: Method,
    packer: Packer,
    /// The coded stream's head, until it is given out.
    head: Option<u32>,
    /// Whether the stream's pages have the size that is known here.
    known_pages: bool,
    /// Whether the record that is coming is held until it is complete, being one of pages.
    gathers: bool,
    /// What is not in a frame yet.
    held: Vec<u8>,
    payload: Vec<u8>,
    tally: Tally,
}

/// What was coded, since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes of the stream.
    pub plain_bytes: u64,
    /// Bytes of the coded stream.
    pub coded_bytes: u64,
    /// Pages that were zeros.
    pub zero_pages: u64,
    /// Pages that the other end had.
    pub same_pages: u64,
    /// Pages that went as the difference from what the other end had.
    pub delta_pages: u64,
    /// Pages that went as they were.
    pub plain_pages: u64,
    /// Bytes that were given to the method: the pages that were not elided, and the fields of all.
    pub packable_bytes: u64,
    /// Bytes that it made of them.
    pub packed_bytes: u64,
}

impl Encoder {
    /// An encoder whose other end will keep this many pages ([`CACHE_PAGES_DEFAULT`](crate::CACHE_PAGES_DEFAULT)); it must be willing to.
    #[must_use]
    pub fn new(cache_pages: u32) -> Self {
        Self {
            reader: Reader::default(),
            cache: Cache::new(cache_pages),
            method: Method::default(),
            packer: Packer::default(),
            head: Some(cache_pages),
            known_pages: false,
            gathers: false,
            held: Vec::new(),
            payload: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// What the records that follow are compressed with.
    pub fn set_method(&mut self, method: Method) {
        self.method = method;
    }

    /// What was coded.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether END was coded: the stream is complete.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.reader.is_finished()
    }

    /// Codes what `input` has, and appends it. Says how much of it belongs to the stream: all, up to END.
    ///
    /// # Errors
    /// It is no stream of libxc's that is known. The encoder is of no use then.
    pub fn encode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, StreamError> {
        let before = out.len();
        out.extend(self.head.take().map(head).into_iter().flatten());
        let mut rest = input;
        while let Some(part) = self.reader.next(&mut rest)? {
            self.part(part, out);
        }
        let taken = input.len() - rest.len();
        self.tally.plain_bytes += taken as u64;
        self.tally.coded_bytes += (out.len() - before) as u64;
        Ok(taken)
    }

    fn part(&mut self, part: Part<'_>, out: &mut Vec<u8>) {
        match part {
            Part::Head(head, bytes) => {
                self.known_pages = 1 << head.page_shift.min(15) == PAGE_BYTES;
                self.held.extend(bytes);
                self.verbatim(out);
            }
            Part::Record(record) => {
                self.gathers = self.known_pages && may_be_pages(record);
                self.held.extend(record.emit());
            }
            Part::Body(body) => {
                self.held.extend(body);
                if !self.gathers && self.held.len() >= VERBATIM_BYTES_MAX {
                    self.verbatim(out);
                }
            }
            Part::Done if self.gathers => self.pages(out),
            Part::Done => self.verbatim(out),
        }
    }

    fn verbatim(&mut self, out: &mut Vec<u8>) {
        for piece in self.held.chunks(VERBATIM_BYTES_MAX) {
            frame(out, Contents::Verbatim, piece, piece.len(), (Packed::Stored, piece));
        }
        self.held.clear();
    }

    /// A record of pages. One whose lengths do not agree is for libxc to judge.
    fn pages(&mut self, out: &mut Vec<u8>) {
        let record = std::mem::take(&mut self.held);
        if let Some(data) = PageData::parse(&record[RECORD_HEADER_BYTES..]) {
            self.fill(&data);
            let packed = self.packer.pack(self.method, &self.payload);
            self.tally.packable_bytes += self.payload.len() as u64;
            self.tally.packed_bytes += packed.1.len() as u64;
            frame(out, Contents::Pages, &record, self.payload.len(), packed);
            self.held = record;
            self.held.clear();
        } else {
            self.held = record;
            self.verbatim(out);
        }
    }

    /// Puts what stands for the record into the payload.
    fn fill(&mut self, data: &PageData<'_>) {
        self.payload.clear();
        self.payload.extend(data.start);
        let before = std::iter::once(u64::MAX).chain(data.fields());
        let steps = data.fields().zip(before).map(|(field, before)| field.wrapping_sub(before).wrapping_sub(1));
        self.payload.extend(steps.flat_map(u64::to_le_bytes));
        let (pages, kinds) = (data.pages(), self.payload.len());
        self.payload.resize(kinds + pages.len(), 0);
        for (nth, (pfn, page)) in pages.enumerate() {
            self.payload[kinds + nth] = self.page(pfn, page) as u8;
        }
    }

    /// Puts the page, or its difference, behind the payload if it has to be sent.
    fn page(&mut self, pfn: u64, page: &Page) -> Kind {
        let (known, stored) = (self.cache.get(pfn), self.method == Method::Stored);
        let kind = match known.map(|known| compare(page, known)) {
            _ if is_zero(page) => Kind::Zero,
            Some(Kind::Delta) if stored => Kind::Plain,
            Some(found) => found,
            None if stored => Kind::Passing,
            None => Kind::Plain,
        };
        if kind.is_sent() {
            self.payload.extend(page);
        }
        if let (Kind::Delta, Some(known), Some(sent)) = (kind, known, self.payload.last_chunk_mut()) {
            xor(sent, known);
        }
        self.cache.sent(pfn, kind, page);
        let counter = match kind {
            Kind::Plain | Kind::Passing => &mut self.tally.plain_pages,
            Kind::Zero => &mut self.tally.zero_pages,
            Kind::Same => &mut self.tally.same_pages,
            Kind::Delta => &mut self.tally.delta_pages,
        };
        *counter += 1;
        kind
    }
}

/// Not if the body has to be filled up: what fills it up would be taken for pages.
fn may_be_pages(record: Record) -> bool {
    record.kind == PAGE_DATA && record.len as usize <= PAGE_DATA_BYTES_MAX && record.len.is_multiple_of(8)
}

fn frame(out: &mut Vec<u8>, contents: Contents, plain: &[u8], payload_len: usize, (packed, bytes): (Packed, &[u8])) {
    let sum = crc32fast::hash(plain);
    let frame = Frame { contents, packed, plain_len: plain.len(), payload_len, coded_len: bytes.len(), sum };
    out.extend(frame.emit());
    out.extend(bytes);
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, tally, .. } = self;
        f.debug_struct("Encoder").field("method", method).field("tally", tally).finish_non_exhaustive()
    }
}
