//! Any bytes as a datagram from the kernel: they are read or refused, and what was understood is understood again.

use drbd_nl::{Dialect, Family, Packet, wire};

pub(crate) fn run(datagram: &[u8]) {
    for message in wire::messages(datagram).flatten() {
        drop(message.verdict());
        drop(Family::parse(&message));
        let Ok(packet) = Packet::parse(&message.payload) else { continue };
        assert_eq!(Packet::parse(&packet.emit()).expect("our own packet"), packet);
        for dialect in [Dialect::V84, Dialect::V9] {
            let Ok(contents) = packet.contents(dialect) else { continue };
            let again = Packet::request(packet.command, packet.minor, &contents, dialect);
            assert_eq!(again.contents(dialect).expect("our own contents"), contents);
        }
    }
}
