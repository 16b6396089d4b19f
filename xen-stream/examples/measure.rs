//! The codec alone, on one core: `measure RUNS [FILE …]`, for `cargo xtask bench stream`. Prints JSON.
//!
//! A FILE is a domain saved by xl or bascule, or raw memory (`xl dump-core`, too). Where FILE.later stands beside it, which is the same
//! guest some time later, the pages that differ are sent again, as a round of a migration does. Without a FILE, memory is made up, and
//! its name says so.
#![expect(clippy::print_stdout, reason = "a program for a person, or for xtask")]

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xen_stream::page::{PAGE_BYTES, Page, is_zero};
use xen_stream::records::{END, HEAD_BYTES, Head, PAGE_DATA, PAGES_MAX, PageData, Part, Reader, write, write_pages};
use xen_stream::{CACHE_PAGES_DEFAULT, Decoder, Encoder, Method, Tally};

type Outcome<T> = Result<T, Box<dyn Error>>;

const METHODS: [Method; 5] =
    [Method::Stored, Method::Lz4, Method::Zstd { level: 1 }, Method::Zstd { level: 3 }, Method::Zstd { level: 6 }];
/// What is given to the codec at one time, in bytes: what a reader of a connection has room for.
const PIECE_BYTES: usize = 1 << 20;
/// More than the processor's caches hold.
const COPIED_BYTES: usize = 256 << 20;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let runs = arguments.next().ok_or("how many runs?")?.parse()?;
    let files: Vec<String> = arguments.collect();
    let images = if files.is_empty() {
        made_up()?
    } else {
        files.iter().map(|file| Image::read(file)).collect::<Outcome<_>>()?
    };
    let measured = images.iter().map(|image| image.measure(runs)).collect::<Outcome<Vec<_>>>()?;
    let report = json!({ "memcpy_gb_s": copies(runs), "zero_gb_s": zeros(runs), "images": measured });
    println!("{report}");
    Ok(())
}

/// A guest's memory as libxc would send it: all of it, then what has changed.
struct Image {
    name: String,
    stream: Vec<u8>,
    /// Where the second round begins.
    later: usize,
}

impl Image {
    fn read(file: &str) -> Outcome<Self> {
        let name = Path::new(file).file_name().map_or(file.into(), |name| name.to_string_lossy().into_owned());
        let bytes = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
        let pages = pages(&bytes).map_err(|error| format!("{file}: {error}"))?;
        let later = fs::read(format!("{file}.later")).unwrap_or_default();
        let known: HashMap<u64, &Page> = pages.iter().copied().collect();
        let mut changed = if later.is_empty() { Vec::new() } else { self::pages(&later)? };
        changed.retain(|(pfn, page)| known.get(pfn) != Some(page));
        Self::new(name, &pages, &changed)
    }

    fn new(name: String, pages: &[(u64, &Page)], changed: &[(u64, &Page)]) -> Outcome<Self> {
        let head = Head { version: 3, domain_type: 2, page_shift: 12, xen: (4, 17) };
        let mut stream = head.emit().to_vec();
        batches(&mut stream, pages)?;
        let later = stream.len();
        batches(&mut stream, changed)?;
        write(&mut stream, END, b"")?;
        Ok(Self { name, stream, later })
    }

    fn measure(&self, runs: usize) -> Outcome<Value> {
        let methods = METHODS.map(|method| self.by(method, runs)).into_iter().collect::<Outcome<Vec<_>>>()?;
        Ok(json!({ "name": self.name, "methods": methods }))
    }

    fn by(&self, method: Method, runs: usize) -> Outcome<Value> {
        let turns = (0..runs).map(|_| self.turn(method)).collect::<Outcome<Vec<_>>>()?;
        let Turn { first, second, .. } = turns.first().ok_or("no runs")?;
        let rates = |bytes: u64, time: fn(&Turn) -> Duration| {
            turns.iter().map(|turn| gb_s(bytes, time(turn))).collect::<Vec<_>>()
        };
        Ok(json!({
            "method": method.to_string(),
            "first": figures(first),
            "second": figures(second),
            "encode_gb_s": rates(first.plain_bytes, |turn| turn.encoding.0),
            "encode_second_gb_s": rates(second.plain_bytes, |turn| turn.encoding.1),
            "decode_gb_s": rates(first.plain_bytes + second.plain_bytes, |turn| turn.decoding),
        }))
    }

    /// Both rounds through both ends once.
    fn turn(&self, method: Method) -> Outcome<Turn> {
        let mut encoder = Encoder::new(CACHE_PAGES_DEFAULT);
        encoder.set_method(method);
        let (mut coded, mut out) = (Vec::new(), Vec::new());
        let mut round = |bytes: &[u8]| -> Outcome<(Duration, Tally)> {
            let mut taken = Duration::ZERO;
            for piece in bytes.chunks(PIECE_BYTES) {
                let begun = Instant::now();
                encoder.encode(piece, &mut out)?;
                taken += begun.elapsed();
                coded.append(&mut out);
            }
            Ok((taken, encoder.tally()))
        };
        let (first_time, first) = round(&self.stream[..self.later])?;
        let (second_time, both) = round(&self.stream[self.later..])?;
        Ok(Turn {
            first,
            second: less(both, first),
            encoding: (first_time, second_time),
            decoding: self.decode(&coded)?,
        })
    }

    /// How long it took; what came out is compared outside of that.
    fn decode(&self, coded: &[u8]) -> Outcome<Duration> {
        let (mut decoder, mut taken, mut plain) = (Decoder::new(CACHE_PAGES_DEFAULT), Duration::ZERO, Vec::new());
        let (mut coded, mut expected) = (coded, &*self.stream);
        while let Some((piece, rest)) = coded.split_at_checked(decoder.wants()).filter(|(piece, _)| !piece.is_empty()) {
            let begun = Instant::now();
            decoder.decode(piece, &mut plain)?;
            taken += begun.elapsed();
            expected = expected.strip_prefix(&*plain).ok_or("what is decoded is not what was coded")?;
            plain.clear();
            coded = rest;
        }
        if decoder.is_finished() { Ok(taken) } else { Err("the end is lost".into()) }
    }
}

struct Turn {
    first: Tally,
    second: Tally,
    encoding: (Duration, Duration),
    decoding: Duration,
}

fn less(both: Tally, first: Tally) -> Tally {
    Tally {
        plain_bytes: both.plain_bytes - first.plain_bytes,
        coded_bytes: both.coded_bytes - first.coded_bytes,
        zero_pages: both.zero_pages - first.zero_pages,
        same_pages: both.same_pages - first.same_pages,
        delta_pages: both.delta_pages - first.delta_pages,
        plain_pages: both.plain_pages - first.plain_pages,
        packable_bytes: both.packable_bytes - first.packable_bytes,
        packed_bytes: both.packed_bytes - first.packed_bytes,
    }
}

fn figures(tally: &Tally) -> Value {
    json!({
        "plain_bytes": tally.plain_bytes,
        "coded_bytes": tally.coded_bytes,
        "zero_pages": tally.zero_pages,
        "same_pages": tally.same_pages,
        "delta_pages": tally.delta_pages,
        "plain_pages": tally.plain_pages,
        "packable_bytes": tally.packable_bytes,
        "packed_bytes": tally.packed_bytes,
    })
}

/// The pages of a file: those of the stream in a saved domain, or the file itself.
fn pages(bytes: &[u8]) -> Outcome<Vec<(u64, &Page)>> {
    let is_saved = bytes.starts_with(b"Xen saved domain") || bytes.starts_with(b"LibxlFmt");
    if !is_saved {
        return Ok((0..).zip(bytes.as_chunks().0).collect());
    }
    // What xl and libxl write before libxc's stream is text and small numbers.
    let begins = |place: &[u8]| place.first_chunk::<HEAD_BYTES>().is_some_and(|head| Head::parse(head).is_ok());
    let start = (0..bytes.len()).find(|start| begins(&bytes[*start..])).ok_or("it has no stream of libxc's")?;
    pages_of(&bytes[start..])
}

fn pages_of(stream: &[u8]) -> Outcome<Vec<(u64, &Page)>> {
    let (mut reader, mut rest, mut pages, mut kind) = (Reader::default(), stream, Vec::new(), END);
    while let Some(part) = reader.next(&mut rest)? {
        match part {
            Part::Record(record) => kind = record.kind,
            // It is all there, so that a body comes in one piece.
            Part::Body(body) if kind == PAGE_DATA => {
                pages.extend(PageData::parse(body).ok_or("a record is damaged")?.pages())
            }
            _ => {}
        }
    }
    if reader.is_finished() { Ok(pages) } else { Err("its stream was never complete".into()) }
}

fn batches(stream: &mut Vec<u8>, pages: &[(u64, &Page)]) -> Outcome<()> {
    for batch in pages.chunks(PAGES_MAX) {
        let fields: Vec<u64> = batch.iter().map(|(pfn, _)| *pfn).collect();
        write_pages(stream, &fields, batch.iter().map(|(_, page)| *page))?;
    }
    Ok(())
}

/// 64 MiB of each kind, of which every eighth page has changed a little when it is sent again.
fn made_up() -> Outcome<Vec<Image>> {
    const PAGES: usize = 1 << 14;
    let mut state = 1_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<Vec<u8>> = (0..4096)
        .map(|_| random().to_le_bytes()[..2 + (random() % 7) as usize].iter().map(|byte| b'a' + byte % 26).collect())
        .collect();
    let mut text: Vec<u8> = Vec::new();
    while text.len() < PAGES * PAGE_BYTES {
        // Common words are common.
        let nth = (random() % 64) * (random() % 64);
        text.extend(&words[usize::try_from(nth)?]);
        text.push(b' ');
    }
    let noise: Vec<u8> = (0..PAGES * PAGE_BYTES / 8).flat_map(|_| random().to_le_bytes()).collect();
    [("zeros", vec![0; PAGES * PAGE_BYTES]), ("text", text), ("noise", noise)]
        .map(|(name, bytes)| {
            let pages: Vec<(u64, &Page)> = (0..).zip(bytes.as_chunks().0).take(PAGES).collect();
            let mut changed: Vec<(u64, Page)> = pages.iter().step_by(8).map(|(pfn, page)| (*pfn, **page)).collect();
            changed.iter_mut().for_each(|(_, page)| page.iter_mut().step_by(256).for_each(|byte| *byte ^= 0x55));
            let changed: Vec<(u64, &Page)> = changed.iter().map(|(pfn, page)| (*pfn, page)).collect();
            Image::new(format!("synthetic {name}"), &pages, &changed)
        })
        .into_iter()
        .collect()
}

fn copies(runs: usize) -> Vec<f64> {
    let (from, mut to) = (vec![1_u8; COPIED_BYTES], vec![2_u8; COPIED_BYTES]);
    rates(runs, || {
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&to);
    })
}

fn zeros(runs: usize) -> Vec<f64> {
    // Written to, or all of it would be the kernel's one page of zeros.
    let mut memory = vec![1_u8; COPIED_BYTES];
    std::hint::black_box(&mut memory).fill(0);
    let (pages, _) = memory.as_chunks();
    rates(runs, || assert!(std::hint::black_box(pages).iter().all(is_zero)))
}

fn rates(runs: usize, mut work: impl FnMut()) -> Vec<f64> {
    let mut rate = || {
        let begun = Instant::now();
        work();
        gb_s(COPIED_BYTES as u64, begun.elapsed())
    };
    (0..runs).map(|_| rate()).collect()
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn gb_s(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e9 / time.as_secs_f64().max(1e-9)
}
