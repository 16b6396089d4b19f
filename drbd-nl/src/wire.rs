//! Netlink messages and attributes as bytes, in both directions and without loss.
//!
//! Nothing here knows DRBD. Every length is checked before it is used, each step of an iteration consumes at least one
//! header, and what is copied is never more than what came.

use std::fmt;

use netlink_packet_core::{Emitable, NLA_F_NESTED, NLA_TYPE_MASK, NetlinkBuffer, NetlinkHeader, NlasIterator};

use crate::error::DecodeError;

/// Message type of an error or an acknowledgement (linux/netlink.h).
pub const NLMSG_ERROR: u16 = 2;
/// Message type that ends a dump (linux/netlink.h).
pub const NLMSG_DONE: u16 = 3;
/// Flag: this is a request (linux/netlink.h).
pub const NLM_F_REQUEST: u16 = 1;
/// Flags that turn a GET into a dump of all objects, `NLM_F_ROOT | NLM_F_MATCH` (linux/netlink.h).
pub const NLM_F_DUMP: u16 = 0x300;
/// Flag on an error: the request that it echoes was cut to its header (linux/netlink.h).
pub const NLM_F_CAPPED: u16 = 0x100;
/// Flag on an error or on `NLMSG_DONE`: attributes with the kernel's explanation follow (linux/netlink.h).
pub const NLM_F_ACK_TLVS: u16 = 0x200;

const NLMSGERR_ATTR_MSG: u16 = 1; // linux/netlink.h, enum nlmsgerr_attrs
const HEADER_LEN: usize = 16; // struct nlmsghdr
const ATTR_HEADER_LEN: usize = 4; // struct nlattr

/// One netlink message: the fields of `struct nlmsghdr` without the length, and what follows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// `nlmsg_type`: a control type below 16 or a family's id.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`. The kernel repeats the request's; broadcasts carry a counter of the kernel's own.
    pub sequence: u32,
    /// `nlmsg_pid`: the port that is spoken to, 0 in requests, broadcasts and in DRBD's initial state.
    pub port: u32,
    /// Everything after the header.
    pub payload: Vec<u8>,
}

impl Message {
    /// The message as it goes on the wire, padded to four bytes.
    pub fn emit(&self) -> Vec<u8> {
        let length = HEADER_LEN + self.payload.len();
        let mut header = NetlinkHeader::default();
        header.length = u32::try_from(length).unwrap_or(u32::MAX);
        header.message_type = self.kind;
        header.flags = self.flags;
        header.sequence_number = self.sequence;
        header.port_number = self.port;
        let mut bytes = vec![0; HEADER_LEN];
        header.emit(&mut bytes);
        bytes.extend_from_slice(&self.payload);
        bytes.resize(align(length), 0);
        bytes
    }

    /// What an `NLMSG_ERROR` or `NLMSG_DONE` says; nothing for other messages.
    ///
    /// # Errors
    ///
    /// The payload is shorter than the error number.
    pub fn verdict(&self) -> Result<Option<Verdict>, DecodeError> {
        if !matches!(self.kind, NLMSG_ERROR | NLMSG_DONE) {
            return Ok(None);
        }
        let Some(code) = self.payload.first_chunk::<4>() else {
            return Err(DecodeError::Short { what: "Verdict", len: self.payload.len(), need: 4 });
        };
        let errno = i32::from_ne_bytes(*code).unsigned_abs().cast_signed();
        Ok(Some(Verdict { errno, text: self.explanation() }))
    }

    /// The kernel's sentence in the extended acknowledgement, if it sent one.
    fn explanation(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let attrs = self.payload.get(self.explanation_offset()?..)?;
        let text = RawAttr::list(attrs).filter_map(Result::ok).find(|a| a.number() == NLMSGERR_ATTR_MSG)?;
        Some(text_of(text.value))
    }

    /// An error repeats the request, or its header alone when capped, before the attributes; an end of dump does not.
    fn explanation_offset(&self) -> Option<usize> {
        if self.kind == NLMSG_DONE {
            return Some(4);
        }
        let echoed = self.payload.get(4..4 + HEADER_LEN)?;
        let length = if self.flags & NLM_F_CAPPED != 0 {
            HEADER_LEN
        } else {
            usize::try_from(NetlinkBuffer::new(echoed).length()).ok()?
        };
        length.checked_next_multiple_of(4)?.checked_add(4)
    }
}

/// Shows no payload: it may hold a shared secret.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, flags, sequence, port, payload } = self;
        write!(f, "Message(type {kind}, flags {flags:#x}, seq {sequence}, port {port}, {} bytes)", payload.len())
    }
}

/// What the netlink layer answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The error number, positive; 0 is success.
    pub errno: i32,
    /// The kernel's own sentence (extended acknowledgement).
    pub text: Option<String>,
}

/// The messages of one datagram, in order. After an error there is nothing more.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message, DecodeError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let first = first_message(rest);
        rest = match &first {
            Ok((_, consumed)) => rest.get(*consumed..).unwrap_or_default(),
            Err(_) => &[],
        };
        Some(first.map(|(message, _)| message))
    })
}

fn first_message(bytes: &[u8]) -> Result<(Message, usize), DecodeError> {
    let short = |need| DecodeError::Short { what: "Netlink message", len: bytes.len(), need };
    if bytes.len() < HEADER_LEN {
        return Err(short(HEADER_LEN));
    }
    let header = NetlinkBuffer::new(bytes);
    let length = usize::try_from(header.length()).unwrap_or(usize::MAX);
    if length < HEADER_LEN || length > bytes.len() {
        return Err(short(length.max(HEADER_LEN)));
    }
    let message = Message {
        kind: header.message_type(),
        flags: header.flags(),
        sequence: header.sequence_number(),
        port: header.port_number(),
        payload: bytes[HEADER_LEN..length].to_vec(),
    };
    Ok((message, align(length)))
}

/// An attribute that lies in somebody's buffer.
#[derive(Clone, Copy)]
pub struct RawAttr<'a> {
    /// The type as it came, with its two flag bits.
    pub kind: u16,
    /// The value without padding.
    pub value: &'a [u8],
}

impl<'a> RawAttr<'a> {
    /// The attributes of a list. After an error there is nothing more.
    pub fn list(bytes: &'a [u8]) -> impl Iterator<Item = Result<RawAttr<'a>, DecodeError>> {
        NlasIterator::new(bytes).map(|attr| {
            let attr = attr.map_err(DecodeError::Attributes)?;
            let length = usize::from(attr.length());
            let bytes: &'a [u8] = attr.into_inner();
            let kind = u16::from_ne_bytes([bytes[2], bytes[3]]);
            Ok(RawAttr { kind, value: &bytes[ATTR_HEADER_LEN..length] })
        })
    }

    /// The type without its flag bits: DRBD 8.4 sets 0x4000 on some, the kernel 0x8000 on some nests.
    pub fn number(&self) -> u16 {
        self.kind & NLA_TYPE_MASK
    }

    /// A copy.
    pub fn to_owned(&self) -> Attr {
        Attr { kind: self.kind, value: self.value.to_vec() }
    }
}

impl fmt::Debug for RawAttr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attr({:#x}, {} bytes)", self.kind, self.value.len())
    }
}

/// An attribute as it came, flag bits included. Its Debug shows no value: it may be a shared secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Attr {
    /// The type as it came, with its two flag bits.
    pub kind: u16,
    /// The value without padding.
    pub value: Vec<u8>,
}

impl Attr {
    /// The attributes of a list.
    ///
    /// # Errors
    ///
    /// A length that is smaller than a header or larger than what is left.
    pub fn list(bytes: &[u8]) -> Result<Vec<Attr>, DecodeError> {
        RawAttr::list(bytes).map(|attr| attr.map(|a| a.to_owned())).collect()
    }

    /// The type without its flag bits.
    pub fn number(&self) -> u16 {
        self.kind & NLA_TYPE_MASK
    }

    /// Appends the attribute, padded to four bytes.
    pub fn emit(&self, out: &mut Vec<u8>) {
        put(out, self.kind, |out| out.extend_from_slice(&self.value));
    }
}

impl fmt::Debug for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        RawAttr { kind: self.kind, value: &self.value }.fmt(f)
    }
}

/// The largest value that an attribute's 16-bit length can carry.
const ATTR_VALUE_MAX: usize = u16::MAX as usize - ATTR_HEADER_LEN;

/// Appends an attribute whose value `body` writes. A value that is too long for an attribute is cut: no field of DRBD's
/// comes near it, and the kernel refuses an overlong value itself.
pub(crate) fn put(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; ATTR_HEADER_LEN]);
    body(out);
    out.truncate(start + ATTR_HEADER_LEN + ATTR_VALUE_MAX);
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    out[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
    out.resize(start + align(usize::from(length)), 0);
}

/// The type of a nest: kernels from 5.2 on refuse a top-level nest without this bit.
pub(crate) fn nested(number: u16) -> u16 {
    number | NLA_F_NESTED
}

/// A NUL-terminated string. Bytes that are no UTF-8 are replaced: DRBD's names are ASCII in practice.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shorter_than_its_header_or_longer_than_the_datagram_is_an_error_and_ends_the_iteration() {
        for bad in [&[0u8; 3][..], &[0; 16], &[15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0xff; 20]] {
            let all: Vec<_> = messages(bad).collect();
            assert_eq!(all.len(), 1);
            assert!(all[0].is_err());
        }
    }

    #[test]
    fn several_messages_of_one_datagram_are_all_seen() {
        let one = Message { kind: 26, flags: 2, sequence: 7, port: 9, payload: vec![1, 2, 3, 4, 5] };
        let two = Message { payload: vec![], ..one.clone() };
        let bytes = [one.emit(), two.emit()].concat();
        let seen: Vec<_> = messages(&bytes).map(Result::unwrap).collect();
        assert_eq!(seen, [one, two]);
    }

    #[test]
    fn flag_bits_are_masked_and_kept() {
        let attr = Attr { kind: 0x4002, value: vec![1] };
        assert_eq!(attr.number(), 2);
        let mut bytes = vec![];
        attr.emit(&mut bytes);
        assert_eq!(bytes, [5, 0, 2, 0x40, 1, 0, 0, 0]);
        assert_eq!(Attr::list(&bytes).unwrap(), [attr]);
    }

    #[test]
    fn a_value_that_no_attribute_can_hold_is_cut() {
        let mut out = vec![];
        put(&mut out, 1, |out| out.resize(100_000, 7));
        assert_eq!(out.len(), 65536);
        assert_eq!(Attr::list(&out).unwrap()[0].value.len(), ATTR_VALUE_MAX);
    }

    #[test]
    fn nothing_of_a_value_shows_in_debug() {
        let attr = Attr { kind: 1, value: b"topsecret".to_vec() };
        assert_eq!(format!("{attr:?}"), "Attr(0x1, 9 bytes)");
    }
}
