//! A page of a guest, and what can be said of it quickly.

/// Bytes of a page: `page_shift` of the domain header is 12 on x86.
pub const PAGE_BYTES: usize = 4096;

/// What a page holds.
pub type Page = [u8; PAGE_BYTES];

/// How a page that has contents is sent. Its number is what stands in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// As it is; the caches keep it.
    Plain = 0,
    /// Zeros: elided.
    Zero = 1,
    /// What the cache has: elided.
    Same = 2,
    /// XOR with what the cache has.
    Delta = 3,
    /// As it is; the caches are left as they are, which is quicker.
    Passing = 4,
}

impl Kind {
    pub(crate) fn of(byte: u8) -> Option<Self> {
        let all = [Self::Plain, Self::Zero, Self::Same, Self::Delta, Self::Passing];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Whether something of the page is in the frame.
    pub(crate) fn is_sent(self) -> bool {
        matches!(self, Self::Plain | Self::Delta | Self::Passing)
    }
}

/// Bytes that are looked at together, in a loop without a branch: a few registers of the processor's widest kind.
const BLOCK_BYTES: usize = 256;

/// Whether a page is all zeros. Ends at the first block that is not.
#[must_use]
pub fn is_zero(page: &Page) -> bool {
    let (blocks, _) = page.as_chunks::<BLOCK_BYTES>();
    blocks.iter().all(|block| words(block).fold(0, |found, word| found | word) == 0)
}

/// The most words of a delta that may differ. Beyond that the page holds something new, of which the difference from the old has less order
/// than itself.
const DELTA_WORDS_MAX: usize = PAGE_BYTES / 8 / 2;

/// How a page is best sent when the cache holds `known` of it.
pub(crate) fn compare(page: &Page, known: &Page) -> Kind {
    if page == known {
        return Kind::Same;
    }
    let differ = words(page).zip(words(known)).filter(|(new, old)| new != old).count();
    if differ <= DELTA_WORDS_MAX { Kind::Delta } else { Kind::Plain }
}

/// XOR, in place: makes a delta, and a page of a delta.
pub(crate) fn xor(page: &mut Page, known: &Page) {
    page.iter_mut().zip(known).for_each(|(byte, known)| *byte ^= known);
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_anywhere_is_found() {
        assert!(is_zero(&[0; PAGE_BYTES]));
        for place in 0..PAGE_BYTES {
            let mut page = [0; PAGE_BYTES];
            page[place] = 1 << (place % 8);
            assert!(!is_zero(&page), "{place}");
        }
    }

    #[test]
    fn a_page_that_holds_something_new_is_no_delta() {
        let known = [7; PAGE_BYTES];
        let changed = |bytes: usize| {
            let mut page = known;
            page[..bytes].fill(8);
            compare(&page, &known)
        };
        assert_eq!(changed(0), Kind::Same);
        assert_eq!(changed(1), Kind::Delta);
        assert_eq!(changed(DELTA_WORDS_MAX * 8), Kind::Delta);
        assert_eq!(changed(DELTA_WORDS_MAX * 8 + 1), Kind::Plain);
    }

    #[test]
    fn a_delta_gives_the_page_back() {
        let known: Page = std::array::from_fn(|place| place.to_le_bytes()[0].wrapping_mul(3));
        let mut page = [3; PAGE_BYTES];
        xor(&mut page, &known);
        xor(&mut page, &known);
        assert_eq!(page, [3; PAGE_BYTES]);
    }

    #[test]
    fn each_kind_has_its_number() {
        for kind in [Kind::Plain, Kind::Zero, Kind::Same, Kind::Delta, Kind::Passing] {
            assert_eq!(Kind::of(kind as u8), Some(kind));
        }
        assert_eq!(Kind::of(5), None);
    }
}
