//! No bytes make the decoder panic, loop, or take more memory than they are: captured messages, damaged in every way.
//! Deterministic and bounded; `cargo xtask fuzz netlink` is the open-ended version.

#[path = "../examples/decode/pcap.rs"]
mod pcap;

use drbd_nl::{
    Dialect, Family, Packet,
    wire::{self, Message},
};
use proptest::prelude::*;

const CAPTURES: [&[u8]; 2] = [include_bytes!("captured/drbd-8.4.11.pcap"), include_bytes!("captured/drbd-9.2.12.pcap")];
/// Damages per captured datagram.
const DAMAGES: u64 = 60;

/// Everything that is done with bytes from the kernel. Returns the number of messages found.
fn digest(datagram: &[u8]) -> usize {
    let mut found = 0;
    for message in wire::messages(datagram) {
        found += 1;
        message.iter().for_each(digest_message);
    }
    found
}

fn digest_message(message: &Message) {
    drop(message.verdict());
    drop(Family::parse(message));
    let Ok(packet) = Packet::parse(&message.payload) else { return };
    for dialect in [Dialect::V84, Dialect::V9] {
        let Ok(contents) = packet.contents(dialect) else { continue };
        assert!(format!("{contents:?}").len() < 100 * message.payload.len() + 10_000);
        // What was understood once is understood the same way again.
        let again = Packet::request(packet.command, packet.minor, &contents, dialect);
        let again = Packet::parse(&again.emit()).unwrap().contents(dialect).unwrap();
        assert_eq!(format!("{again:?}"), format!("{contents:?}"));
    }
    assert_eq!(Packet::parse(&packet.emit()).unwrap(), packet);
}

/// xorshift64: the same damages in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(sides.max(1)).unwrap()).unwrap()
    }
}

fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.roll(bytes.len());
    match dice.roll(6) {
        0 => bytes.truncate(at),
        1 => bytes.extend(vec![0xff; dice.roll(40)]),
        2 => bytes[at] ^= 1 << dice.roll(8),
        3 => bytes[at] = [0, 1, 3, 4, 0x7f, 0x80, 0xff][dice.roll(7)],
        4 => drop(bytes.remove(at)),
        _ => {
            let end = bytes.len();
            bytes.copy_within(at..end.min(at + 24), 16.min(end.saturating_sub(24)));
        }
    }
}

#[test]
fn damaged_captures_are_refused_or_read_and_never_break_the_reader() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for datagram in CAPTURES.iter().flat_map(|capture| pcap::generic_netlink(capture).unwrap()) {
        assert!(digest(datagram) >= 1);
        for _ in 0..DAMAGES {
            let mut bytes = datagram.to_vec();
            for _ in 0..=dice.roll(4) {
                if !bytes.is_empty() {
                    damage(&mut bytes, &mut dice);
                }
            }
            assert!(digest(&bytes) <= bytes.len() / 16 + 1);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(digest(&bytes) <= bytes.len() / 16 + 1);
    }

    #[test]
    fn any_payload_of_drbd_ends(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        digest_message(&Message { kind: 26, flags: 0x200, sequence: 0, port: 0, payload: bytes.clone() });
        digest_message(&Message { kind: 2, flags: 0x200, sequence: 0, port: 0, payload: bytes });
    }
}
