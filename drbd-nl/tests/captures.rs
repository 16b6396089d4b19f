//! Both directions over everything that two real kernels and their clients said: parse, and emit what was parsed.

#[path = "../examples/decode/pcap.rs"]
mod pcap;

use drbd_nl::{
    Dialect, Family, GENL_ID_CTRL, Packet,
    wire::{self, Attr, Message},
};

const V84: &[u8] = include_bytes!("captured/drbd-8.4.11.pcap");
const V9: &[u8] = include_bytes!("captured/drbd-9.2.12.pcap");
const CAPTURES: [(&[u8], Dialect); 2] = [(V84, Dialect::V84), (V9, Dialect::V9)];

fn messages(capture: &'static [u8]) -> Vec<Message> {
    let datagrams = pcap::generic_netlink(capture).unwrap();
    datagrams.into_iter().flat_map(wire::messages).map(Result::unwrap).collect()
}

/// DRBD's messages, by the family id that the controller told.
fn packets(capture: &'static [u8]) -> Vec<Packet> {
    let messages = messages(capture);
    let family = messages.iter().find_map(|message| Family::parse(message).unwrap()).unwrap();
    let of_drbd = messages.iter().filter(|message| Some(message.kind) == family.family_id);
    of_drbd.map(|message| Packet::parse(&message.payload).unwrap()).collect()
}

#[test]
fn every_message_comes_back_byte_for_byte() {
    for (capture, _) in CAPTURES {
        for datagram in pcap::generic_netlink(capture).unwrap() {
            let emitted: Vec<u8> = wire::messages(datagram).flat_map(|message| message.unwrap().emit()).collect();
            assert_eq!(emitted, datagram);
        }
    }
}

#[test]
fn every_message_of_drbd_comes_back_byte_for_byte() {
    for (capture, _) in CAPTURES {
        let family = messages(capture).iter().find_map(|message| Family::parse(message).unwrap()).unwrap();
        let of_drbd = messages(capture).into_iter().filter(|message| Some(message.kind) == family.family_id);
        let count =
            of_drbd.map(|message| assert_eq!(Packet::parse(&message.payload).unwrap().emit(), message.payload)).count();
        assert!(count > 150, "{count}");
    }
}

/// The typed contents hold all that was in the message: emitted they give the same attributes, but for order, flag bits and padding.
#[test]
fn nothing_is_lost_between_bytes_and_fields() {
    for (capture, dialect) in CAPTURES {
        for packet in packets(capture) {
            let contents = packet.contents(dialect).unwrap();
            let emitted = Packet::request(packet.command, packet.minor, &contents, dialect);
            assert_eq!(normal(&emitted.attrs), normal(&packet.attrs), "{contents:?}");
        }
    }
}

/// Every attribute has a name: nothing had to go to `other`.
#[test]
fn every_attribute_is_known() {
    for (capture, dialect) in CAPTURES {
        for packet in packets(capture) {
            let contents = format!("{:?}", packet.contents(dialect).unwrap());
            assert!(!contents.contains("Attr("), "{contents}");
        }
    }
}

type Numbered<T> = Vec<(u16, T)>;

/// Attributes and those inside them as (number, value), in order of their numbers.
fn normal(attrs: &[Attr]) -> Numbered<Numbered<Vec<u8>>> {
    let inside = |attr: &Attr| sorted(Attr::list(&attr.value).unwrap().into_iter().map(|a| (a.number(), a.value)));
    sorted(attrs.iter().map(|attr| (attr.number(), inside(attr))))
}

fn sorted<T: Ord>(items: impl Iterator<Item = (u16, T)>) -> Numbered<T> {
    let mut items: Vec<_> = items.filter(|(number, _)| *number != 0).collect();
    items.sort();
    items
}

#[test]
fn the_traps_are_in_the_captures() {
    let of_84 = packets(V84);
    let has = |wish: &dyn Fn(&Attr) -> bool| {
        of_84.iter().flat_map(|packet| packet.attrs.clone()).any(|nest| wish(&nest) || inside(&nest).iter().any(wish))
    };
    assert!(has(&|attr| attr.kind & 0x4000 != 0), "the mandatory bit");
    assert!(has(&|attr| attr.kind == 0), "padding");
    assert!(has(&|attr| attr.kind & 0x8000 != 0) && has(&|attr| attr.kind == 2), "nests with and without their bit");
    assert!(of_84.iter().filter(|packet| packet.code == 158).count() > 20, "the dump that does not end");
    let unflagged = messages(V84).into_iter().filter(|message| message.kind != GENL_ID_CTRL && message.kind > 15);
    let of_initial_state =
        unflagged.filter(|message| message.port == 0 && message.flags == 0 && message.sequence > 1000);
    assert!(of_initial_state.count() > 5, "an initial state without flags and port");
}

fn inside(nest: &Attr) -> Vec<Attr> {
    Attr::list(&nest.value).unwrap_or_default()
}

#[test]
fn the_secret_of_the_captures_does_not_show() {
    let secrets = |capture, dialect| {
        packets(capture).into_iter().filter_map(move |packet| {
            let net = packet.contents(dialect).unwrap().net_conf?;
            let secret = net.shared_secret.clone()?.expose().to_owned();
            (!secret.is_empty()).then_some((secret, format!("{packet:?} {net:?}")))
        })
    };
    for (capture, dialect) in CAPTURES {
        let shown: Vec<_> = secrets(capture, dialect).collect();
        assert!(!shown.is_empty());
        assert!(shown.iter().all(|(secret, text)| !text.contains(secret)), "{shown:?}");
    }
}
