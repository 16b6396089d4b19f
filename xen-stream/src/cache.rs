//! What was last sent of pages: the same at both ends, since both follow the same rule (see the crate's documentation).

use crate::page::{Kind, Page};

#[derive(Debug, Default)]
pub(crate) struct Cache {
    places: Vec<Option<Box<Known>>>,
}

#[derive(Debug)]
struct Known {
    pfn: u64,
    page: Page,
}

impl Cache {
    /// Memory: 8 bytes for each page at once, the pages as they come.
    pub(crate) fn new(pages: u32) -> Self {
        let mut places = Vec::new();
        places.resize_with(pages as usize, || None);
        Self { places }
    }

    /// What was last sent of this page, if it is still there.
    pub(crate) fn get(&self, pfn: u64) -> Option<&Page> {
        let known = self.places.get(self.place(pfn)?)?.as_deref()?;
        (known.pfn == pfn).then_some(&known.page)
    }

    /// Notes what was sent, and how.
    pub(crate) fn sent(&mut self, pfn: u64, kind: Kind, page: &Page) {
        let Some(place) = self.place(pfn).and_then(|place| self.places.get_mut(place)) else { return };
        match (kind, place) {
            (Kind::Same | Kind::Passing, _) => {}
            (Kind::Zero, place) => drop(place.take_if(|known| known.pfn == pfn)),
            (_, Some(known)) => {
                known.pfn = pfn;
                known.page = *page;
            }
            (_, place) => *place = Some(Box::new(Known { pfn, page: *page })),
        }
    }

    fn place(&self, pfn: u64) -> Option<usize> {
        usize::try_from(pfn.checked_rem(self.places.len() as u64)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::PAGE_BYTES;

    #[test]
    fn a_page_displaces_the_one_in_its_place() {
        let mut cache = Cache::new(4);
        for pfn in [1, 2, 5] {
            cache.sent(pfn, Kind::Plain, &[1; PAGE_BYTES]);
        }
        assert_eq!([1, 2, 5].map(|pfn| cache.get(pfn).is_some()), [false, true, true]);
    }

    #[test]
    fn zeros_leave_the_place_empty_but_not_that_of_another_page() {
        let mut cache = Cache::new(4);
        cache.sent(1, Kind::Delta, &[1; PAGE_BYTES]);
        cache.sent(5, Kind::Zero, &[0; PAGE_BYTES]);
        assert!(cache.get(1).is_some());
        cache.sent(1, Kind::Zero, &[0; PAGE_BYTES]);
        assert!(cache.get(1).is_none());
    }

    #[test]
    fn a_cache_of_nothing_knows_nothing() {
        let mut cache = Cache::new(0);
        cache.sent(1, Kind::Plain, &[1; PAGE_BYTES]);
        assert!(cache.get(1).is_none());
    }
}
