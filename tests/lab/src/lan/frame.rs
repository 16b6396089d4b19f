//! The guests' datagrams inside Ethernet frames: UDP over IPv4.

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use lab_guest::wire::{COMMAND_PORT, REPORT_PORT};

/// The hub's own address on the LAN, locally administered.
const HUB_MAC: [u8; 6] = [0x02, 0x00, 0x00, 0x97, 0x00, 0xfe];
const BROADCAST_MAC: [u8; 6] = [0xff; 6];
/// The hub's own IP address; no guest may have it.
const HUB_IP: [u8; 4] = [10, 97, 0, 254];
/// Taken by every host on the link, whatever its network is.
const BROADCAST_IP: [u8; 4] = [255; 4];
const TTL: u8 = 64;

/// What a guest says, if this is a frame of a guest. Checksums are not looked at: virtual nics leave them to hardware that is not there.
#[must_use]
pub fn report_in(frame: &[u8]) -> Option<&[u8]> {
    payload_for(frame, REPORT_PORT)
}

/// A command to the guests as a frame that all of them take.
#[must_use]
pub fn command_frame(payload: &[u8]) -> Vec<u8> {
    broadcast_frame(payload, COMMAND_PORT)
}

fn payload_for(frame: &[u8], port: u16) -> Option<&[u8]> {
    match SlicedPacket::from_ethernet(frame).ok()?.transport? {
        TransportSlice::Udp(udp) if udp.destination_port() == port => Some(udp.payload()),
        _ => None,
    }
}

fn broadcast_frame(payload: &[u8], port: u16) -> Vec<u8> {
    let builder =
        PacketBuilder::ethernet2(HUB_MAC, BROADCAST_MAC).ipv4(HUB_IP, BROADCAST_IP, TTL).udp(COMMAND_PORT, port);
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write_to_vec(&mut frame, payload).expect("a datagram of the lab fits an IPv4 packet");
    frame
}

/// A report as a guest would send it.
#[cfg(test)]
pub(crate) fn report_frame(payload: &[u8]) -> Vec<u8> {
    broadcast_frame(payload, REPORT_PORT)
}

/// A command as a guest receives it.
#[cfg(test)]
pub(crate) fn command_in(frame: &[u8]) -> Option<&[u8]> {
    payload_for(frame, COMMAND_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_found_in_its_frame_only() {
        let frame = report_frame(b"LAB1 report");
        assert_eq!(report_in(&frame), Some(&b"LAB1 report"[..]));
        assert_eq!(command_in(&frame), None);
        assert_eq!(report_in(&frame[..30]), None);
        assert_eq!(report_in(b""), None);
    }

    #[test]
    fn padding_behind_the_datagram_is_not_part_of_it() {
        let mut frame = report_frame(b"short");
        frame.resize(60, 0);
        assert_eq!(report_in(&frame), Some(&b"short"[..]));
    }
}
