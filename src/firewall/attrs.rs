//! nf_tables' attributes: numbers have their first byte weigh most, names end with a NUL.

use drbd_nl::wire::RawAttr;

/// The attributes of one object or nest; of repeated ones the last counts, as in the kernel.
#[derive(Clone, Debug)]
pub(super) struct Attrs<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Attrs<'a> {
    /// None if a length is impossible.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Attrs<'a>> {
        let each = RawAttr::list(bytes).map(|attr| attr.map(|attr| (attr.number(), attr.value)));
        each.collect::<Result<Vec<_>, _>>().ok().map(Attrs)
    }

    pub(super) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.0.iter().rev().find(|(number, _)| *number == kind).map(|(_, value)| *value)
    }

    pub(super) fn u32(&self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&self, kind: u16) -> Option<u64> {
        self.get(kind)?.try_into().ok().map(u64::from_be_bytes)
    }

    pub(super) fn text(&self, kind: u16) -> Option<String> {
        let bytes = self.get(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8(bytes[..end].to_vec()).ok()
    }

    pub(super) fn nest(&self, kind: u16) -> Option<Attrs<'a>> {
        Attrs::parse(self.get(kind)?)
    }

    /// The nests of a list, whose attributes have all one number.
    pub(super) fn list(&self, kind: u16) -> Option<Vec<Attrs<'a>>> {
        let Attrs(items) = self.nest(kind)?;
        items.into_iter().map(|(_, bytes)| Attrs::parse(bytes)).collect()
    }
}
