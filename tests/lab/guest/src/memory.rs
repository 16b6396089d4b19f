//! The memory area whose contents are checked: page i at version v holds words derived from (i, v).
//!
//! The versions are kept apart from the pages. A migration that loses a write leaves a page, or the table, at an older
//! version, and the next check sees it, whichever of the two it was.

/// Words of 8 bytes in a page.
const PAGE_WORDS: usize = 512;
/// Pages of 4 KiB in a MiB.
const PAGES_PER_MIB: usize = 256;

/// The area. Rewriting and checking go through it in circles of their own.
#[derive(Debug)]
pub struct Memory {
    pages: Vec<Page>,
    versions: Vec<u32>,
    next_rewritten: usize,
    next_checked: usize,
    totals: Totals,
}

/// What has been done to the area since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Pages found with wrong contents.
    pub errors: u64,
    /// How often the whole area has been checked.
    pub rounds: u64,
    /// Pages rewritten.
    pub rewritten: u64,
}

/// One page of memory, aligned so that it is one page frame of the guest.
#[derive(Debug, Clone)]
#[repr(C, align(4096))]
struct Page([u64; PAGE_WORDS]);

impl Memory {
    /// An area of `mib` MiB, every page of it written.
    #[must_use]
    pub fn new(mib: usize) -> Self {
        let count = mib.max(1) * PAGES_PER_MIB;
        let mut pages = vec![Page([0; PAGE_WORDS]); count];
        for (index, page) in pages.iter_mut().enumerate() {
            page.fill(seed(index, 0));
        }
        Self { pages, versions: vec![0; count], next_rewritten: 0, next_checked: 0, totals: Totals::default() }
    }

    /// Pages of the area.
    #[must_use]
    pub fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// What has been done so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Checks the next `count` pages of the circle and writes their next version into them.
    pub fn rewrite(&mut self, count: usize) {
        for _ in 0..count {
            let index = self.next_rewritten;
            self.check_page(index);
            self.write_next_version(index);
            self.totals.rewritten += 1;
            self.next_rewritten = (index + 1) % self.pages.len();
        }
    }

    /// Checks the next `count` pages of the circle.
    pub fn check(&mut self, count: usize) {
        for _ in 0..count {
            self.check_page(self.next_checked);
            self.next_checked = (self.next_checked + 1) % self.pages.len();
            if self.next_checked == 0 {
                self.totals.rounds += 1;
            }
        }
    }

    /// A wrong page is counted once: it is written anew, so that the next error stands for itself.
    fn check_page(&mut self, index: usize) {
        if !self.pages[index].holds(seed(index, self.versions[index])) {
            self.totals.errors += 1;
            self.write_next_version(index);
        }
    }

    fn write_next_version(&mut self, index: usize) {
        let version = self.versions[index].wrapping_add(1);
        self.versions[index] = version;
        self.pages[index].fill(seed(index, version));
    }
}

/// How many beginnings of such pages there are in some bytes, wherever they lie.
#[must_use]
pub fn pages_in(bytes: &[u8]) -> usize {
    let word = |at: usize| bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
    let is_page = |at: usize| -> Option<bool> {
        let first = word(at)?;
        let follows = |offset: usize, position: u64| Some(word(at + offset)? == word_at(first, position));
        Some(follows(8, 1)? && follows(16, 2)? && follows(24, 3)?)
    };
    (0..bytes.len()).filter(|at| is_page(*at).unwrap_or(false)).count()
}

impl Page {
    fn fill(&mut self, seed: u64) {
        for (position, word) in (0_u64..).zip(self.0.iter_mut()) {
            *word = word_at(seed, position);
        }
    }

    fn holds(&self, seed: u64) -> bool {
        (0_u64..).zip(self.0.iter()).all(|(position, word)| *word == word_at(seed, position))
    }
}

/// Distinct for each (page, version); the finalizer of splitmix64.
fn seed(index: usize, version: u32) -> u64 {
    let mut z = ((index as u64) << 32 | u64::from(version)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Cheap on purpose: the guest runs under emulation.
fn word_at(seed: u64, position: u64) -> u64 {
    seed ^ position.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_untouched_area_has_no_errors() {
        let mut memory = Memory::new(1);
        memory.rewrite(300);
        memory.check(2 * PAGES_PER_MIB);
        assert_eq!(memory.totals(), Totals { errors: 0, rounds: 2, rewritten: 300 });
    }

    #[test]
    fn a_flipped_bit_is_counted_once() {
        let mut memory = Memory::new(1);
        memory.pages[17].0[511] ^= 1;
        memory.check(2 * PAGES_PER_MIB);
        assert_eq!(memory.totals().errors, 1);
    }

    #[test]
    fn a_page_of_an_older_version_is_an_error() {
        let mut memory = Memory::new(1);
        let old = memory.pages[3].clone();
        memory.rewrite(4);
        memory.pages[3] = old;
        memory.check(PAGES_PER_MIB);
        assert_eq!(memory.totals().errors, 1);
    }

    #[test]
    fn a_page_in_anothers_place_is_an_error() {
        let mut memory = Memory::new(1);
        memory.pages.swap(1, 2);
        memory.check(PAGES_PER_MIB);
        assert_eq!(memory.totals().errors, 2);
    }

    #[test]
    fn a_wrong_page_is_seen_before_it_is_rewritten() {
        let mut memory = Memory::new(1);
        memory.pages[0].0[0] ^= 1;
        memory.rewrite(1);
        assert_eq!(memory.totals().errors, 1);
    }

    #[test]
    fn pages_are_found_wherever_they_lie() {
        let memory = Memory::new(1);
        let mut bytes = vec![0xa5; 13];
        for page in &memory.pages[..3] {
            bytes.extend(page.0.iter().flat_map(|word| word.to_le_bytes()));
            bytes.push(0);
        }
        // Within a page the words differ by other steps, and zeroes are no page.
        assert_eq!((pages_in(&bytes), pages_in(&[0; 8192])), (3, 0));
    }
}
