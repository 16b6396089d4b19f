//! The coded migration stream. Whatever comes in as one: it is refused or gives something that is coded and decoded the same again. Whatever
//! libxc writes: it is decoded as it was, and ends where it ended.
//!
//! The first byte says which of the two; in the other, the rest are orders for a guest that writes.

use xen_stream::page::{PAGE_BYTES, Page};
use xen_stream::records::{END, Head, PAGE_DATA, has_contents, write, write_pages};
use xen_stream::{Decoder, Encoder, Method};

/// A small cache: places are taken again.
const CACHE_PAGES: u32 = 8;
/// Bytes of a coded stream's head, and of the header of a frame, and where in that the length and the sum stand.
const HEAD_BYTES: usize = 16;
const HEADER_BYTES: usize = 24;
const LENGTH_AT: usize = 12;
const SUM_AT: usize = 20;
/// The longest stream that is coded again, in bytes, and the most pages that one input orders.
const AGAIN_BYTES_MAX: usize = 1 << 20;
const PAGES_MAX: usize = 256;

pub(crate) fn run(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let piece = usize::from(first >> 1) * 16 + 1;
    if first & 1 == 0 { any(with_sums(rest.to_vec()), piece) } else { written(rest, piece) }
}

/// With the sums of the headers put right: what is behind them is to be reached.
fn with_sums(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut at = HEAD_BYTES;
    while let Some(header) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<HEADER_BYTES>) {
        let sum = crc32fast::hash(&header[..SUM_AT]);
        header[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        let len = header[LENGTH_AT..].first_chunk().copied().map_or(0, u32::from_le_bytes);
        at = at.saturating_add(HEADER_BYTES).saturating_add(len as usize);
    }
    bytes
}

fn any(bytes: Vec<u8>, piece: usize) {
    let (mut decoder, mut all) = (Decoder::new(CACHE_PAGES), Vec::new());
    for piece in bytes.chunks(piece) {
        let mut out = Vec::new();
        let taken = decoder.decode(piece, &mut out);
        all.extend(out.into_iter().take(AGAIN_BYTES_MAX - all.len()));
        match taken {
            Ok(taken) => assert!(taken == piece.len() || decoder.is_finished()),
            Err(_) => return assert!(decoder.wants() == 0 && !decoder.is_finished()),
        }
    }
    drop(bytes);
    if decoder.is_finished() && all.len() < AGAIN_BYTES_MAX {
        there_and_back(&all, &[Method::Lz4], piece);
    }
}

fn written(mut orders: &[u8], piece: usize) {
    let mut plain = Head { version: 3, domain_type: 2, page_shift: 12, xen: (4, 17) }.emit().to_vec();
    let (mut methods, mut pages) = (Vec::new(), 0);
    while let Some((order, rest)) = orders.split_first() {
        let len = usize::from(order >> 2);
        orders = match order & 3 {
            0 if len == 0 => break,
            0 => other(&mut plain, PAGE_DATA + u32::from(order >> 2), rest),
            1 if pages + len <= PAGES_MAX => {
                pages += len;
                of_pages(&mut plain, len, rest)
            }
            1 => break,
            2 => other(&mut plain, PAGE_DATA, rest),
            _ => {
                methods
                    .push([Method::Stored, Method::Lz4, Method::Zstd { level: 1 }, Method::Zstd { level: 3 }][len % 4]);
                rest
            }
        };
    }
    write(&mut plain, END, b"").expect("short");
    there_and_back(&plain, &methods, piece);
}

/// A record with a body of as many bytes as the first says.
fn other<'a>(plain: &mut Vec<u8>, kind: u32, orders: &'a [u8]) -> &'a [u8] {
    let Some((len, rest)) = orders.split_first() else { return &[] };
    let (body, rest) = rest.split_at(rest.len().min(usize::from(*len)));
    write(plain, kind, body).expect("short");
    rest
}

/// Pages of three bytes each: type and number; what is all over it; what is in one place.
fn of_pages<'a>(plain: &mut Vec<u8>, count: usize, orders: &'a [u8]) -> &'a [u8] {
    let (orders, rest) = orders.split_at(orders.len().min(count * 3));
    let (fields, pages): (Vec<u64>, Vec<Page>) = orders.as_chunks().0.iter().copied().map(page).unzip();
    let with_contents = fields.iter().zip(&pages).filter(|(field, _)| has_contents(**field)).map(|(_, page)| page);
    write_pages(plain, &fields, with_contents).expect("short");
    rest
}

fn page([what, all, one]: [u8; 3]) -> (u64, Page) {
    let mut page = [all; PAGE_BYTES];
    page[usize::from(what) * 8] = one;
    (u64::from(what >> 4) << 60 | u64::from(what & 0xf), page)
}

/// The methods change from piece to piece.
fn there_and_back(plain: &[u8], methods: &[Method], piece: usize) {
    let (mut encoder, mut coded) = (Encoder::new(CACHE_PAGES), Vec::new());
    let mut methods = methods.iter().cycle();
    for piece in plain.chunks(piece) {
        methods.next().into_iter().for_each(|method| encoder.set_method(*method));
        assert_eq!(encoder.encode(piece, &mut coded), Ok(piece.len()));
    }
    assert!(encoder.is_finished());
    let whole = coded.len();
    coded.extend(b"libxl");
    let (mut decoder, mut back, mut taken) = (Decoder::new(CACHE_PAGES), Vec::new(), 0);
    for piece in coded.chunks(piece) {
        taken += decoder.decode(piece, &mut back).expect("our own");
    }
    assert!(decoder.is_finished() && taken == whole && back == plain);
}
