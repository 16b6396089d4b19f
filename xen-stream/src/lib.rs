//! Fewer bytes for the memory of a domain that moves: a coding of libxc's migration stream, version 2 and 3 (xen.git,
//! docs/specs/libxc-migration-stream.pandoc).
//!
//! It stands between libxc and the connection, from the image header to the END record; what libxl writes around that (its own
//! stream, docs/specs/libxl-migration-stream.pandoc) never comes here. Nothing here reads or writes a descriptor, looks at a clock
//! or starts a thread: bytes in, bytes out. [`Encoder`] takes the stream in any pieces, [`Decoder`] gives back the same bytes;
//! [`choose::Chooser`] says how hard to compress; [`records`] reads and writes the stream itself.
//!
//! # The coded stream
//!
//! All numbers are little-endian. A head of 16 bytes, then frames:
//!
//! | bytes | head |
//! |---|---|
//! | 8 | `XENSTRM` and a zero byte |
//! | 4 | version, 1 |
//! | 4 | pages in the cache of each end; 0: none |
//!
//! | bytes | frame |
//! |---|---|
//! | 1 | kind: 1 verbatim, 2 the pages of one PAGE_DATA record |
//! | 1 | method of what is in it: 0 as it is, 1 LZ4 (block format), 2 Zstandard |
//! | 2 | 0 |
//! | 4 | bytes of the stream that it stands for |
//! | 4 | bytes of what is in it before the method |
//! | 4 | bytes of what is in it |
//! | 4 | CRC-32 of the bytes of the stream that it stands for |
//! | 4 | CRC-32 of the 20 bytes before this |
//! | n | what is in it |
//!
//! What stands for a PAGE_DATA record of at most [`records::PAGES_MAX`] pages: the first 8 bytes of its body (count, reserved); `count` numbers of 8
//! bytes, each the record's field of a page (type and pfn) less the one before and 1; a byte for each page that has contents ([`page::Kind`]);
//! the contents that are not elided, as they are or as the difference from the cache. All else is verbatim, in frames of at most
//! 1 MiB, of which none spans two records. The coded stream ends with the frame that holds the end of END.
//!
//! The sum of the stream's own bytes is checked before any of them is given out: it shows damage on the way, and would show caches that differ, too.
//!
//! # The cache
//!
//! Both ends keep, by the same rule, what was last sent of a page: page `pfn` has the place `pfn` modulo the pages of the cache and
//! displaces what is there; a page of zeros leaves its place empty; one that is only passing is not kept. Memory is taken as places
//! are filled.

mod cache;
pub mod choose;
mod decode;
mod encode;
mod frame;
mod method;
pub mod page;
pub mod records;

pub use decode::{DecodeError, Decoder};
pub use encode::{Encoder, Tally};
pub use method::Method;

/// A cache of this many pages is what both ends have unless something else is agreed: 128 MiB.
pub const CACHE_PAGES_DEFAULT: u32 = 1 << 15;
