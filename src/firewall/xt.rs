//! Matches and targets of iptables, as ip_tables and nf_tables' compatibility layer hand them out: structs in this machine's byte
//! order, of which linux/netfilter/xt_*.h tells the layout.

use super::ruleset::{Expr, Test, Verdict};

const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const NF_QUEUE: i32 = 3;

/// A verdict of netfilter's (linux/netfilter.h); a drop may have an errno above its low byte.
pub(super) fn netfilter(code: i32) -> Verdict {
    match code & 0xff {
        NF_DROP => Verdict::Drop,
        NF_ACCEPT => Verdict::Accept,
        NF_QUEUE => Verdict::Elsewhere("queue".into()),
        _ => Verdict::Elsewhere("what took it over".into()),
    }
}

/// The conditions of a match; what is not known, or looks otherwise than its header says, is one that nobody can tell.
pub(super) fn matches(name: &str, revision: u32, data: &[u8]) -> Vec<Expr> {
    let data = Data(data);
    let tests = match (name, revision) {
        ("comment", _) => Some(Vec::new()),
        ("tcp", 0) => tcp(&data),
        ("udp" | "udplite" | "sctp" | "dccp" | "icmp" | "icmp6" | "esp" | "ah", _) => Some(vec![Test::Never]),
        ("multiport", 0) => multiport(&data, false),
        ("multiport", 1) => multiport(&data, true),
        ("state", 0) => data.u32(0).map(|mask| vec![Test::State { mask, inverted: false }]),
        ("conntrack", 2 | 3) => conntrack(&data),
        ("iprange", 1) => iprange(&data),
        ("addrtype", 1) => addrtype(&data),
        ("pkttype", 0) => pkttype(&data),
        _ => None,
    };
    let tests = tests.unwrap_or_else(|| vec![Test::Depends(format!("the match {name}"))]);
    tests.into_iter().map(Expr::Test).collect()
}

struct Data<'a>(&'a [u8]);

impl Data<'_> {
    fn u8(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.0.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.0.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
    }
}

/// struct xt_tcp: ports from and to, of the source and of the destination, an option, flags and what of all that is inverted.
fn tcp(data: &Data<'_>) -> Option<Vec<Test>> {
    const INV_SOURCE: u8 = 1;
    const INV_DESTINATION: u8 = 2;
    const INV_FLAGS: u8 = 4;
    let (mask, value, inverse) = (data.u8(9)?, data.u8(10)?, data.u8(11)?);
    let mut tests = Vec::new();
    if (data.u16(0)?, data.u16(2)?) != (0, u16::MAX) || inverse & INV_SOURCE != 0 {
        tests.push(Test::Depends("the source port".into()));
    }
    let ports = vec![(data.u16(4)?, data.u16(6)?)];
    tests.push(Test::Ports { ranges: ports, inverted: inverse & INV_DESTINATION != 0 });
    if data.u8(8)? != 0 {
        tests.push(Test::Depends("an option of TCP's".into()));
    }
    if mask != 0 {
        tests.push(Test::Flags { mask, value, inverted: inverse & INV_FLAGS != 0 });
    }
    Some(tests)
}

/// struct xt_multiport, and xt_multiport_v1, which knows ranges: a port with a flag begins one that the next port ends.
fn multiport(data: &Data<'_>, ranges: bool) -> Option<Vec<Test>> {
    const PORTS: usize = 15;
    const DESTINATION: u8 = 1;
    const FLAGS_AT: usize = 2 + 2 * PORTS;
    if data.u8(0)? != DESTINATION {
        return None;
    }
    let count = usize::from(data.u8(1)?).min(PORTS);
    let inverted = ranges && data.u8(FLAGS_AT + PORTS)? != 0;
    let (mut found, mut at) = (Vec::new(), 0);
    while at < count {
        let first = data.u16(2 + 2 * at)?;
        let begins = ranges && data.u8(FLAGS_AT + at)? != 0 && at + 1 < count;
        at += usize::from(begins);
        found.push((first, data.u16(2 + 2 * at)?));
        at += 1;
    }
    Some(vec![Test::Ports { ranges: found, inverted }])
}

/// struct xt_conntrack_mtinfo2 and 3: eight addresses, two times, a protocol, four ports, then what is matched, what of it is
/// inverted, and the states.
fn conntrack(data: &Data<'_>) -> Option<Vec<Test>> {
    const FLAGS_AT: usize = 8 * 16 + 2 * 4 + 2 + 4 * 2;
    const STATE: u16 = 1;
    const STATE_ALIAS: u16 = 1 << 13; // it was written as the match `state`
    // Invalid, established, related, new and untracked; not the two that stand for translations.
    const STATES: u16 = 0x10f;
    let (what, inverse, mask) = (data.u16(FLAGS_AT)?, data.u16(FLAGS_AT + 2)?, data.u16(FLAGS_AT + 4)?);
    let known = what & !STATE_ALIAS == STATE && mask & !STATES == 0;
    known.then(|| vec![Test::State { mask: mask.into(), inverted: inverse & STATE != 0 }])
}

/// struct xt_iprange_mtinfo: the first and the last source, the first and the last destination, flags.
fn iprange(data: &Data<'_>) -> Option<Vec<Test>> {
    const FLAGS_AT: usize = 4 * 16;
    let flags = data.u8(FLAGS_AT)?;
    let address = |number: usize| data.0.get(16 * number..)?.first_chunk::<16>().copied();
    let mut tests = Vec::new();
    // IPRANGE_SRC and IPRANGE_DST, and their inverses four bits above.
    for (source, bit, at) in [(true, 1, 0), (false, 2, 2)] {
        if flags & bit != 0 {
            let inverted = flags & (bit << 4) != 0;
            tests.push(Test::Between { source, first: address(at)?, last: address(at + 1)?, inverted });
        }
    }
    Some(tests)
}

/// struct xt_addrtype_info_v1, of the destination alone.
fn addrtype(data: &Data<'_>) -> Option<Vec<Test>> {
    const INVERT_DESTINATION: u32 = 2;
    let (source, mask, flags) = (data.u16(0)?, data.u16(2)?, data.u32(4)?);
    let plain = source == 0 && mask != 0 && flags & !INVERT_DESTINATION == 0;
    plain.then(|| vec![Test::DestinationType { mask, inverted: flags & INVERT_DESTINATION != 0 }])
}

/// struct xt_pkttype_info: a packet for this host is of the type 0.
fn pkttype(data: &Data<'_>) -> Option<Vec<Test>> {
    let holds = (data.u32(0)? == 0) != (data.u32(4)? != 0);
    Some(if holds { Vec::new() } else { vec![Test::Never] })
}

/// What a target does. One that is not known may do anything.
pub(super) fn target(name: &str, data: &[u8]) -> Expr {
    const NOTRACK: u16 = 1; // xt_CT.h
    match name {
        "REJECT" => Expr::Verdict(Verdict::Drop),
        "LOG" | "NFLOG" | "ULOG" | "TRACE" | "AUDIT" | "MARK" | "CONNMARK" | "SECMARK" | "CONNSECMARK" | "CLASSIFY"
        | "CHECKSUM" | "DSCP" | "TOS" | "ECN" | "TTL" | "HL" | "TCPMSS" | "TCPOPTSTRIP" | "SET" | "TEE" | "LED"
        | "RATEEST" | "IDLETIMER" | "HMARK" => Expr::Passive,
        "NOTRACK" => Expr::NoTrack,
        "CT" if Data(data).u16(0).is_none_or(|flags| flags & NOTRACK != 0) => Expr::NoTrack,
        "CT" => Expr::Passive,
        "NFQUEUE" | "QUEUE" | "DNAT" | "SNAT" | "REDIRECT" | "NETMAP" | "MASQUERADE" | "TPROXY" | "SYNPROXY"
        | "TARPIT" => Expr::Verdict(Verdict::Elsewhere(name.into())),
        _ => Expr::Verdict(Verdict::Whatever(format!("the target {name}"))),
    }
}
