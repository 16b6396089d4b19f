//! The packet in question: the first one of a new TCP connection from another host to the relocation port, of which some bits are
//! known, some are the source address's, and some may be anything.

use std::net::IpAddr;

use super::sources::{Ip, number};

/// The question, but for the source.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) ip: Ip,
    /// None when the service listens on all addresses.
    pub(super) destination: Option<IpAddr>,
    pub(super) port: u16,
}

/// A byte of a header, or of what the kernel knows of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Byte {
    pub(super) value: u8,
    /// Which of its bits are known. The value of the others is 0.
    pub(super) known: u8,
    /// What the others are.
    pub(super) origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Bits of this byte of the source address.
    Source(u8),
    /// The number or the name of an interface that is not the loopback one.
    Interface,
    /// Something that is not known here.
    Other(&'static str),
}

impl Byte {
    pub(super) const fn known(value: u8) -> Byte {
        Byte { value, known: 0xff, origin: Origin::Other("") }
    }

    pub(super) const fn unknown(origin: Origin) -> Byte {
        Byte { value: 0, known: 0, origin }
    }

    const fn bits(value: u8, known: u8, what: &'static str) -> Byte {
        Byte { value, known, origin: Origin::Other(what) }
    }
}

/// What an interface's name or number is loaded as, in bytes (if.h, IFNAMSIZ).
const INTERFACE_NAME_LEN: usize = 16;
/// in.h
pub(super) const IPPROTO_TCP: u8 = 6;
/// A connection that is being made, as a bit (nf_conntrack_common.h, `NF_CT_STATE_BIT(IP_CT_NEW)`).
pub(super) const STATE_NEW: u32 = 1 << 3;
/// SYN, as a bit of the TCP header's flags. Their two highest are ECN's, and may be set.
pub(super) const FLAG_SYN: u8 = 2;
pub(super) const FLAGS_KNOWN: u8 = 0x3f;
/// An address of this host (rtnetlink.h).
pub(super) const RTN_LOCAL: u32 = 2;

impl Packet {
    /// Bytes of a header: `base` is nf_tables' number of it.
    pub(super) fn header(&self, base: u32, offset: u32, len: usize) -> Vec<Byte> {
        // nf_tables.h, enum nft_payload_bases
        let byte = |at| match (base, self.ip) {
            (1, Ip::V4) => self.v4(at),
            (1, Ip::V6) => self.v6(at),
            (2, _) => self.tcp(at),
            (0, _) => Byte::unknown(Origin::Other("the link layer")),
            _ => Byte::unknown(Origin::Other("the packet's contents")),
        };
        (offset..).take(len).map(byte).collect()
    }

    /// RFC 791; neither a fragment nor one of the odd versions.
    fn v4(&self, at: u32) -> Byte {
        match at {
            0 => Byte::bits(0x40, 0xf0, "the header's length"),
            6 => Byte::bits(0, 0xbf, "the flag that forbids fragments"),
            7 => Byte::known(0),
            9 => Byte::known(IPPROTO_TCP),
            12..16 => source(at - 12),
            16..20 => self.destination(at - 16),
            _ => Byte::unknown(Origin::Other("the packet's header")),
        }
    }

    /// RFC 8200, without extension headers.
    fn v6(&self, at: u32) -> Byte {
        match at {
            0 => Byte::bits(0x60, 0xf0, "the traffic class"),
            6 => Byte::known(IPPROTO_TCP),
            8..24 => source(at - 8),
            24..40 => self.destination(at - 24),
            _ => Byte::unknown(Origin::Other("the packet's header")),
        }
    }

    fn destination(&self, at: u32) -> Byte {
        let at = at as usize;
        let byte = match self.destination {
            Some(IpAddr::V4(v4)) => v4.octets().get(at).copied(),
            Some(IpAddr::V6(v6)) => v6.octets().get(at).copied(),
            None => None,
        };
        byte.map_or(Byte::unknown(Origin::Other("the address of this host")), Byte::known)
    }

    /// RFC 9293.
    fn tcp(&self, at: u32) -> Byte {
        let port = self.port.to_be_bytes();
        match at {
            0 | 1 => Byte::unknown(Origin::Other("the source port")),
            2 => Byte::known(port[0]),
            3 => Byte::known(port[1]),
            13 => Byte::bits(FLAG_SYN, FLAGS_KNOWN, "ECN"),
            _ => Byte::unknown(Origin::Other("TCP's header")),
        }
    }

    /// What `meta KEY` loads (nf_tables.h, enum nft_meta_keys).
    pub(super) fn meta(&self, key: u32) -> Vec<Byte> {
        let known = |bytes: &[u8]| bytes.iter().copied().map(Byte::known).collect();
        let unknown = |what, len| vec![Byte::unknown(Origin::Other(what)); len];
        match (key, self.ip) {
            (1, Ip::V4) => known(&[0x08, 0x00]),
            (1, Ip::V6) => known(&[0x86, 0xdd]),
            (3, _) => unknown("the mark", 4),
            (4, _) => vec![Byte::unknown(Origin::Interface); 4],
            (6, _) => vec![Byte::unknown(Origin::Interface); INTERFACE_NAME_LEN],
            (15, Ip::V4) => known(&[2]),
            (15, Ip::V6) => known(&[10]),
            (16, _) => known(&[IPPROTO_TCP]),
            // To this host, no broadcast (if_packet.h).
            (19, _) => known(&[0]),
            (21, _) => unknown("the interface's group", 4),
            (24, _) => unknown("chance", 4),
            (26, _) => unknown("the kind of interface", INTERFACE_NAME_LEN),
            (30..=32, _) => unknown("the time", 8),
            (17, _) => unknown("the bridge's port", INTERFACE_NAME_LEN),
            _ => unknown("what the kernel knows of the packet", INTERFACE_NAME_LEN),
        }
    }

    /// What `ct KEY` loads (nf_tables.h, enum nft_ct_keys).
    pub(super) fn ct(&self, key: u32, tracked: bool) -> Vec<Byte> {
        let unknown = |what| vec![Byte::unknown(Origin::Other(what)); INTERFACE_NAME_LEN];
        match key {
            0 if tracked => STATE_NEW.to_ne_bytes().map(Byte::known).into(),
            0 => unknown("whether the connection is tracked"),
            1 if tracked => vec![Byte::known(0)],
            3 => unknown("the connection's mark"),
            10 if tracked => vec![Byte::known(IPPROTO_TCP)],
            _ => unknown("the connection's record"),
        }
    }

    /// What `fib … type` loads: the destination is this host's.
    pub(super) fn fib_type(flags: u32) -> Vec<Byte> {
        const DADDR: u32 = 1 << 1; // nf_tables.h, enum nft_fib_flags
        match flags {
            DADDR => RTN_LOCAL.to_ne_bytes().map(Byte::known).into(),
            _ => vec![Byte::unknown(Origin::Other("the routes")); 4],
        }
    }

    /// Whether the destination lies between two addresses; not known when the service listens on all.
    pub(super) fn is_to(&self, first: u128, last: u128) -> Option<bool> {
        match self.destination {
            Some(to) => Some((first..=last).contains(&number(to))),
            None if (first, last) == (0, self.ip.max()) => Some(true),
            None => None,
        }
    }
}

fn source(at: u32) -> Byte {
    // An address has no more than 16 bytes.
    Byte::unknown(Origin::Source(u8::try_from(at).unwrap_or(u8::MAX)))
}
