//! Captures of netlink traffic (nlmon), as tcpdump and dumpcap write them.

use std::io;

const MAGICS: [u32; 2] = [0xa1b2_c3d4, 0xa1b2_3c4d]; // microseconds, nanoseconds
const FILE_HEADER_LEN: usize = 24;
const RECORD_HEADER_LEN: usize = 16;
const LINKTYPE_NETLINK: u32 = 253;
const COOKED_HEADER_LEN: usize = 16; // Linux's cooked header in front of each message
const NETLINK_GENERIC: u16 = 16;

/// The datagrams of generic netlink in a capture, both directions, in order.
///
/// # Errors
///
/// No pcap, of another link type, written on a machine of the other byte order, or broken off.
pub(crate) fn generic_netlink(file: &[u8]) -> io::Result<Vec<&[u8]>> {
    let word = |at: usize| file.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    if !word(0).is_some_and(|magic| MAGICS.contains(&magic)) {
        return Err(invalid("not a little-endian pcap file"));
    }
    if word(20).map(|link| link & 0xffff) != Some(LINKTYPE_NETLINK) {
        return Err(invalid("not a capture of netlink (link type 253)"));
    }
    let mut datagrams = Vec::new();
    let mut rest = file.get(FILE_HEADER_LEN..).unwrap_or_default();
    while !rest.is_empty() {
        let (frame, after) = record(rest).ok_or_else(|| invalid("record broken off"))?;
        let (cooked, datagram) =
            frame.split_first_chunk::<COOKED_HEADER_LEN>().ok_or_else(|| invalid("frame too short"))?;
        if u16::from_be_bytes([cooked[14], cooked[15]]) == NETLINK_GENERIC {
            datagrams.push(datagram);
        }
        rest = after;
    }
    Ok(datagrams)
}

/// One frame and what follows it. A frame that the capture has cut is as good as broken off.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (captured, length) = (usize::try_from(word(8)?).ok()?, usize::try_from(word(12)?).ok()?);
    if captured != length {
        return None;
    }
    bytes.get(RECORD_HEADER_LEN..)?.split_at_checked(captured)
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
