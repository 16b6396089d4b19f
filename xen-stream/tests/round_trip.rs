//! What is decoded is what was coded, byte for byte, whatever the pieces; and what is damaged is not taken for it.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use xen_stream::page::{PAGE_BYTES, Page};
use xen_stream::records::{END, HEAD_BYTES, Head, PAGE_DATA, has_contents, write, write_pages};
use xen_stream::{DecodeError, Decoder, Encoder, Method, Tally};

/// The pages that the guests here have: few, so that they come again.
const PFNS: u64 = 24;
/// Fewer than that: pages displace each other.
const CACHE_PAGES: u32 = 10;

/// A record of a guest that keeps writing.
#[derive(Clone, Debug)]
enum Step {
    /// Pages, of types and contents, and a method.
    Pages(Vec<(u64, u8, Contents)>, Method),
    /// Any other record, any length, also of a PAGE_DATA record whose lengths do not agree.
    Other(u32, Vec<u8>),
}

/// What a page holds.
#[derive(Clone, Debug)]
enum Contents {
    Zero,
    /// One byte all over, and other bytes in some places.
    Mostly(u8, Vec<(Index, u8)>),
    Noise(u32),
}

impl Contents {
    fn page(&self) -> Page {
        match self {
            Self::Zero => [0; PAGE_BYTES],
            Self::Mostly(byte, others) => {
                let mut page = [*byte; PAGE_BYTES];
                others.iter().for_each(|(place, byte)| page[place.index(PAGE_BYTES)] = *byte);
                page
            }
            Self::Noise(seed) => {
                let mut state = seed | 1;
                std::array::from_fn(|_| {
                    state ^= state << 13;
                    state ^= state >> 17;
                    state ^= state << 5;
                    state.to_le_bytes()[0]
                })
            }
        }
    }
}

fn contents() -> impl Strategy<Value = Contents> {
    prop_oneof![
        Just(Contents::Zero),
        (0_u8..3, vec(any::<(Index, u8)>(), 0..6)).prop_map(|(byte, others)| Contents::Mostly(byte, others)),
        any::<u32>().prop_map(Contents::Noise),
    ]
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![Just(Method::Stored), Just(Method::Lz4), (1..5).prop_map(|level| Method::Zstd { level })]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (vec((0..PFNS, 0_u8..16, contents()), 1..40), method()).prop_map(|(pages, method)| Step::Pages(pages, method)),
        1 => (1_u32..30, vec(any::<u8>(), 0..70)).prop_map(|(kind, body)| Step::Other(kind, body)),
        1 => vec(any::<u8>(), 0..70).prop_map(|body| Step::Other(PAGE_DATA, body)),
    ]
}

const HEAD: Head = Head { version: 3, domain_type: 1, page_shift: 12, xen: (4, 17) };

/// The stream, and from which byte on which method is in use.
fn stream(steps: &[Step]) -> (Vec<u8>, Vec<(usize, Method)>) {
    let (mut plain, mut methods) = (HEAD.emit().to_vec(), Vec::new());
    for step in steps {
        match step {
            Step::Other(kind, body) => write(&mut plain, *kind, body).expect("short"),
            Step::Pages(pages, method) => {
                methods.push((plain.len(), *method));
                let fields: Vec<u64> = pages.iter().map(|(pfn, kind, _)| u64::from(*kind) << 60 | pfn).collect();
                let with_contents = pages.iter().zip(&fields).filter(|(_, field)| has_contents(**field));
                let contents: Vec<Page> = with_contents.map(|((_, _, contents), _)| contents.page()).collect();
                write_pages(&mut plain, &fields, &contents).expect("short");
            }
        }
    }
    write(&mut plain, END, b"").expect("short");
    (plain, methods)
}

/// Codes in pieces of this length, which also end where the method changes.
fn coded((plain, methods): &(Vec<u8>, Vec<(usize, Method)>), piece: usize) -> (Vec<u8>, Tally) {
    let (mut encoder, mut out, mut at) = (Encoder::new(CACHE_PAGES), Vec::new(), 0);
    for (begins, method) in methods.iter().copied().chain([(plain.len(), Method::Stored)]) {
        for piece in plain[at..begins].chunks(piece) {
            assert_eq!(encoder.encode(piece, &mut out), Ok(piece.len()));
        }
        encoder.set_method(method);
        at = begins;
    }
    assert!(encoder.is_finished());
    (out, encoder.tally())
}

fn decoded(coded: &[u8], piece: usize) -> (Vec<u8>, Result<Decoder, DecodeError>) {
    let (mut decoder, mut out) = (Decoder::new(CACHE_PAGES), Vec::new());
    for piece in coded.chunks(piece) {
        if let Err(error) = decoder.decode(piece, &mut out) {
            assert_eq!(decoder.wants(), 0);
            return (out, Err(error));
        }
    }
    (out, Ok(decoder))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_decoded_is_what_was_coded(steps in vec(step(), 0..12), pieces in (1_usize..9000, 1_usize..9000)) {
        let stream = stream(&steps);
        let (bytes, tally) = coded(&stream, pieces.0);
        prop_assert_eq!((tally.plain_bytes, tally.coded_bytes), (stream.0.len() as u64, bytes.len() as u64));
        let (plain, decoder) = decoded(&bytes, pieces.1);
        prop_assert!(plain == stream.0);
        prop_assert!(decoder.expect("sound").is_finished());
        // The pieces make no difference to what is coded.
        prop_assert!(coded(&stream, usize::MAX).0 == bytes);
    }

    #[test]
    fn what_is_damaged_is_refused(steps in vec(step(), 1..6), place in any::<Index>(), bit in 0..8) {
        let stream = stream(&steps);
        let (mut bytes, _) = coded(&stream, usize::MAX);
        let at = place.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let (plain, decoder) = decoded(&bytes, 4096);
        // What the head says of the cache is the one thing that may be larger or smaller than it was and still do.
        let whole = plain == stream.0 && decoder.as_ref().is_ok_and(Decoder::is_finished);
        prop_assert!(decoder.is_err() || (whole && (12..16).contains(&at)));
        prop_assert!(stream.0.starts_with(&plain));
    }
}

/// What is read from a connection ends with the stream: what follows is libxl's.
#[test]
fn no_byte_too_many_is_wanted() {
    let stream = stream(&[Step::Pages(vec![(1, 0, Contents::Noise(1)); 3], Method::Lz4)]);
    let (mut bytes, _) = coded(&stream, usize::MAX);
    let whole = bytes.len();
    bytes.extend(b"libxl");
    let (mut decoder, mut plain, mut at) = (Decoder::new(CACHE_PAGES), Vec::new(), 0);
    while decoder.wants() > 0 {
        let wanted = &bytes[at..][..decoder.wants()];
        assert_eq!(decoder.decode(wanted, &mut plain), Ok(wanted.len()));
        at += wanted.len();
    }
    assert!(decoder.is_finished() && at == whole && plain == stream.0);
    assert_eq!(decoder.decode(b"libxl", &mut plain), Ok(0));
    let mut together = Decoder::new(CACHE_PAGES);
    assert_eq!(together.decode(&bytes, &mut Vec::new()), Ok(whole));
}

/// The encoder, too, leaves what is not libxc's.
#[test]
fn what_follows_the_end_is_not_coded() {
    let (mut plain, _) = stream(&[]);
    let whole = plain.len();
    plain.extend(b"libxl");
    assert_eq!(Encoder::new(0).encode(&plain, &mut Vec::new()), Ok(whole));
}

#[test]
fn a_page_that_comes_again_is_short() {
    let again = |contents: Contents| Step::Pages(vec![(7, 0, contents)], Method::Zstd { level: 1 });
    let noise = Contents::Noise(1);
    let tally = |steps: &[Step]| coded(&stream(steps), usize::MAX).1;
    let [once, same, other] = [
        tally(&[again(noise.clone())]),
        tally(&[again(noise.clone()), again(noise.clone())]),
        tally(&[again(noise), again(Contents::Noise(2))]),
    ];
    assert!(once.coded_bytes > 1000 && same.coded_bytes < once.coded_bytes + 60, "{once:?} {same:?}");
    assert_eq!((same.plain_pages, same.same_pages, other.plain_pages), (1, 1, 2));
}

/// A guest whose pages have another size, and a batch that is larger than libxc's, go as they are.
#[test]
fn what_is_not_understood_is_verbatim() {
    let mut other = Head { page_shift: 14, ..HEAD }.emit().to_vec();
    write_pages(&mut other, &[1], [&[0; PAGE_BYTES]]).expect("short");
    let mut large = HEAD.emit().to_vec();
    write_pages(&mut large, &[1; 1025], [&[0; PAGE_BYTES]; 1025]).expect("short");
    let mut filled_up = HEAD.emit().to_vec();
    write(&mut filled_up, PAGE_DATA, &[0]).expect("short");
    for mut plain in [other, large, filled_up] {
        write(&mut plain, END, b"").expect("short");
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(CACHE_PAGES);
        encoder.encode(&plain, &mut bytes).expect("a stream");
        assert_eq!((encoder.tally().zero_pages, encoder.is_finished()), (0, true));
        assert!(bytes.len() > plain.len() && decoded(&bytes, usize::MAX).0 == plain);
    }
}

#[test]
fn what_is_no_stream_is_refused_at_once() {
    assert!(Encoder::new(0).encode(&[0; HEAD_BYTES], &mut Vec::new()).is_err());
    let mut head = Vec::new();
    Encoder::new(11).encode(b"", &mut head).expect("nothing yet");
    let refused = Decoder::new(10).decode(&head, &mut Vec::new());
    assert_eq!(refused, Err(DecodeError::Cache { asked: 11, max: 10 }));
}
