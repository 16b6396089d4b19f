//! How a condition divides the sources: for whom it holds, and for whom it may.

use super::packet::{Byte, Origin};
use super::sources::{Ip, Sources};

/// Both sets have nothing in common; for all others the condition does not hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Split {
    pub(super) yes: Sources,
    pub(super) maybe: Sources,
    /// On what it depends for the second set.
    pub(super) why: Option<String>,
}

impl Split {
    pub(super) fn never() -> Split {
        Split::default()
    }

    pub(super) fn of(yes: Sources) -> Split {
        Split { yes, ..Split::default() }
    }

    /// The same for everybody.
    pub(super) fn fixed(ip: Ip, holds: bool) -> Split {
        if holds { Split::of(Sources::all(ip)) } else { Split::never() }
    }

    pub(super) fn depends(ip: Ip, on: impl Into<String>) -> Split {
        Split { maybe: Sources::all(ip), why: Some(on.into()), ..Split::default() }
    }

    /// Both hold.
    pub(super) fn and(&self, other: &Split) -> Split {
        let yes = self.yes.and(&other.yes);
        let may = self.yes.or(&self.maybe).and(&other.yes.or(&other.maybe));
        Split { maybe: may.minus(&yes), yes, why: self.why.clone().or_else(|| other.why.clone()) }
    }

    /// One of them holds.
    pub(super) fn any(splits: impl IntoIterator<Item = Split>) -> Split {
        let (mut yes, mut maybe, mut why) = (Vec::new(), Vec::new(), None);
        for split in splits {
            yes.extend_from_slice(split.yes.ranges());
            maybe.extend_from_slice(split.maybe.ranges());
            why = why.or(split.why);
        }
        let yes: Sources = yes.into_iter().collect();
        Split { maybe: maybe.into_iter().collect::<Sources>().minus(&yes), yes, why }
    }

    pub(super) fn not(self, ip: Ip) -> Split {
        let yes = Sources::all(ip).minus(&self.yes).minus(&self.maybe);
        Split { yes, ..self }
    }

    pub(super) fn inverted_if(self, inverted: bool, ip: Ip) -> Split {
        if inverted { self.not(ip) } else { self }
    }
}

/// The longest number that is compared, in bytes.
const NUMBER_LEN_MAX: usize = 16;

/// Whether a value lies between two others of its length, both included, as numbers whose first byte weighs most.
pub(super) fn within(key: &[Byte], low: &[u8], high: &[u8], ip: Ip) -> Split {
    if key.len() != low.len() || key.len() != high.len() {
        return Split::depends(ip, "a comparison of unlike lengths");
    }
    if let Some(value) = known(key) {
        return Split::fixed(ip, (low..=high).contains(&value.as_slice()));
    }
    match (source_mask(key, ip), key.len() <= NUMBER_LEN_MAX) {
        (Some(mask), true) => Split::of(sources_within(mask, as_number(low), as_number(high), key.len(), ip)),
        _ if low == high => equal(key, low, ip),
        _ => Split::depends(ip, unknown_of(key)),
    }
}

/// Whether a value that has parts of several kinds is this one: each run of bytes of one kind by itself.
fn equal(key: &[Byte], value: &[u8], ip: Ip) -> Split {
    let mut all = Split::fixed(ip, true);
    let mut at = 0;
    while at < key.len() {
        let len = run(&key[at..], ip);
        all = all.and(&run_equals(&key[at..at + len], &value[at..at + len], ip));
        at += len;
    }
    all
}

/// How many bytes at the beginning belong together.
fn run(key: &[Byte], ip: Ip) -> usize {
    let is_interface = |byte: &&Byte| byte.known != 0xff && byte.origin == Origin::Interface;
    let interface = key.iter().take_while(is_interface).count();
    let starts_address = key[0].known != 0xff && key[0].origin == Origin::Source(0);
    let longest = if starts_address { ip.len().min(key.len()) } else { 0 };
    let address = (1..=longest).rev().find(|len| source_mask(&key[..*len], ip).is_some());
    interface.max(address.unwrap_or(1))
}

fn run_equals(key: &[Byte], value: &[u8], ip: Ip) -> Split {
    if let Some(mask) = source_mask(key, ip) {
        return Split::of(sources_within(mask, as_number(value), as_number(value), key.len(), ip));
    }
    let differs = |(byte, value): (&Byte, &u8)| (byte.value ^ value) & byte.known != 0;
    let is_interface = key.iter().all(|byte| byte.known != 0xff && byte.origin == Origin::Interface);
    match key.iter().zip(value).any(differs) || (is_interface && is_loopback(value)) {
        true => Split::never(),
        false if known(key).is_some() => Split::fixed(ip, true),
        false => Split::depends(ip, unknown_of(key)),
    }
}

/// The loopback interface has the number 1 in every network namespace. Names are compared with their NUL.
fn is_loopback(value: &[u8]) -> bool {
    value == 1_u32.to_ne_bytes() || value.strip_prefix(b"lo\0").is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
}

fn known(key: &[Byte]) -> Option<Vec<u8>> {
    key.iter().map(|byte| (byte.known == 0xff).then_some(byte.value)).collect()
}

/// If the bytes are those of the source address from its first on, all but its highest bits masked away: which bits are left.
fn source_mask(key: &[Byte], ip: Ip) -> Option<u128> {
    let mut mask = 0_u128;
    for (at, byte) in key.iter().enumerate() {
        let mine = byte.origin == Origin::Source(u8::try_from(at).ok()?) || byte.known == 0xff;
        if !mine || byte.value != 0 {
            return None;
        }
        mask = mask.checked_mul(256)? | u128::from(!byte.known);
    }
    let bits = 8 * u32::try_from(key.len()).ok()?;
    let prefix = mask.checked_shl(128_u32.checked_sub(bits)?)?.leading_ones();
    (key.len() <= ip.len() && prefix > 0 && mask.count_ones() == prefix).then_some(mask)
}

/// The addresses whose first bytes, masked, lie between two numbers of `len` bytes.
fn sources_within(mask: u128, low: u128, high: u128, len: usize, ip: Ip) -> Sources {
    let step = 1_u128 << mask.trailing_zeros();
    let Some(low) = low.checked_next_multiple_of(step) else { return Sources::default() };
    let high = high / step * step;
    let most = (mask | (step - 1), 8 * (ip.len() - len));
    if low > high || high > most.0 {
        return Sources::default();
    }
    let below = 1_u128.checked_shl(u32::try_from(most.1).unwrap_or(0)).map_or(u128::MAX, |size| size - 1);
    Sources::range(low << most.1, ((high | (step - 1)) << most.1) | below)
}

/// Bytes as a number whose first byte weighs most.
pub(super) fn as_number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

/// What the first bits are that are not known.
fn unknown_of(key: &[Byte]) -> &'static str {
    let unknown = key.iter().find(|byte| byte.known != 0xff);
    match unknown.map(|byte| byte.origin) {
        Some(Origin::Interface) => "the interface",
        Some(Origin::Source(_)) => "some bits of the source address",
        Some(Origin::Other(what)) => what,
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::packet::Packet;
    use super::*;

    fn packet(ip: Ip) -> Packet {
        Packet { ip, destination: None, port: 8002 }
    }

    fn address(text: &str) -> u128 {
        super::super::sources::number(text.parse().expect("an address"))
    }

    fn masked(key: &[Byte], mask: &[u8]) -> Vec<Byte> {
        let masked = |(byte, mask): (&Byte, &u8)| Byte { value: byte.value & mask, known: byte.known | !mask, ..*byte };
        key.iter().zip(mask).map(masked).collect()
    }

    #[test]
    fn a_network_is_a_masked_address_or_the_first_bytes_of_one() {
        let source = packet(Ip::V4).header(1, 12, 4);
        let net = Sources::range(address("10.16.0.0"), address("10.31.255.255"));
        let found = within(&masked(&source, &[255, 240, 0, 0]), &[10, 16, 0, 0], &[10, 16, 0, 0], Ip::V4);
        assert_eq!(found, Split::of(net));
        assert_eq!(
            within(&masked(&source, &[255, 240, 0, 0]), &[10, 17, 0, 0], &[10, 17, 0, 0], Ip::V4),
            Split::never()
        );
        let first = packet(Ip::V6).header(1, 8, 8);
        let prefix = [0xfd, 0, 0, 0, 0, 0, 0, 1];
        let net = Sources::range(address("fd00:0:0:1::"), address("fd00::1:ffff:ffff:ffff:ffff"));
        assert_eq!(within(&first, &prefix, &prefix, Ip::V6), Split::of(net));
    }

    #[test]
    fn the_second_half_of_an_address_is_not_its_first() {
        let half = packet(Ip::V4).header(1, 14, 2);
        assert_eq!(within(&half, &[0, 1], &[0, 1], Ip::V4).maybe, Sources::all(Ip::V4));
    }

    #[test]
    fn a_concatenation_is_compared_part_by_part() {
        let mut key = packet(Ip::V4).header(1, 12, 4);
        key.extend(packet(Ip::V4).header(2, 2, 2));
        key.extend([Byte::known(0); 2]);
        let (one, two) = ([10, 0, 0, 1, 0x1f, 0x42, 0, 0], [10, 0, 0, 1, 0x1f, 0x43, 0, 0]);
        assert_eq!(
            within(&key, &one, &one, Ip::V4),
            Split::of(Sources::range(address("10.0.0.1"), address("10.0.0.1")))
        );
        assert_eq!(within(&key, &two, &two, Ip::V4), Split::never());
    }

    #[test]
    fn it_came_by_an_interface_that_is_not_the_loopback_one() {
        let name = packet(Ip::V4).meta(6);
        let padded = |text: &[u8]| [text, &[0; 16][text.len()..]].concat();
        assert_eq!(within(&name, &padded(b"lo"), &padded(b"lo"), Ip::V4), Split::never());
        let eth0 = within(&name, &padded(b"eth0"), &padded(b"eth0"), Ip::V4);
        assert_eq!((eth0.why.as_deref(), eth0.yes.is_empty()), (Some("the interface"), true));
        let index = packet(Ip::V4).meta(4);
        assert_eq!(within(&index, &1_u32.to_ne_bytes(), &1_u32.to_ne_bytes(), Ip::V4), Split::never());
    }

    proptest! {
        #[test]
        fn an_address_is_within_as_its_number_is(low: u32, high: u32, source: u32, bits in 1_u32..=32) {
            let mask = u32::MAX << (32 - bits);
            let key = masked(&packet(Ip::V4).header(1, 12, 4), &mask.to_be_bytes());
            let split = within(&key, &low.to_be_bytes(), &high.to_be_bytes(), Ip::V4);
            let expected = (low..=high).contains(&(source & mask));
            let one = Sources::range(source.into(), source.into());
            prop_assert_eq!(split.yes.meets(&one), expected);
            prop_assert!(split.maybe.is_empty());
        }

        #[test]
        fn the_same_with_six_bytes_of_ipv6(low: [u8; 6], high: [u8; 6], source: u128) {
            let key = packet(Ip::V6).header(1, 8, 6);
            let split = within(&key, &low, &high, Ip::V6);
            let expected = (low.as_slice()..=high.as_slice()).contains(&&source.to_be_bytes()[..6]);
            prop_assert_eq!(split.yes.meets(&Sources::range(source, source)), expected);
        }

        #[test]
        fn nothing_makes_it_panic(
            key in prop::collection::vec((any::<u8>(), any::<u8>(), 0_u8..20), 0..40),
            low: Vec<u8>, high: Vec<u8>, fit: bool,
        ) {
            let byte = |(value, known, origin): (u8, u8, u8)| Byte {
                value: value & known,
                known,
                origin: if origin < 17 { Origin::Source(origin) } else { Origin::Interface },
            };
            let key: Vec<Byte> = key.into_iter().map(byte).collect();
            let fitted = |mut bytes: Vec<u8>| { if fit { bytes.resize(key.len(), 0); } bytes };
            let (low, high) = (fitted(low), fitted(high));
            within(&key, &low, &high, Ip::V4);
            within(&key, &low, &low.clone(), Ip::V6);
        }
    }
}
