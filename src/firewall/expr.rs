//! nf_tables' expressions, as `NFTA_RULE_EXPRESSIONS` lists them. Numbers as in linux/netfilter/nf_tables.h of Linux 6.1.

use super::attrs::Attrs;
use super::machine::REGISTERS_LEN;
use super::ruleset::{Expr, Map, Verdict};
use super::xt;

// Data: a value or a verdict (enum nft_data_attributes), and the verdict's attributes.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const NFT_REG_VERDICT: u32 = 0;

/// The steps of one expression; what cannot be read is [`Expr::Unknown`].
pub(super) fn decode(expr: &Attrs<'_>) -> Vec<Expr> {
    let (Some(name), data) = (expr.text(1), expr.get(2).unwrap_or_default()) else {
        return vec![Expr::Unknown("an expression without a name".into())];
    };
    let decoded = Attrs::parse(data).and_then(|data| named(&name, &data));
    decoded.unwrap_or_else(|| vec![Expr::Unknown(name)])
}

fn named(name: &str, data: &Attrs<'_>) -> Option<Vec<Expr>> {
    let expr = match name {
        "payload" if data.get(1).is_none() => Expr::Passive, // it writes
        "payload" => Expr::Payload {
            dreg: register(data.u32(1)?)?,
            base: data.u32(2)?,
            offset: data.u32(3)?,
            len: usize::try_from(data.u32(4)?).ok()?,
        },
        "meta" if data.get(1).is_none() => Expr::Passive,
        "meta" => Expr::Meta { dreg: register(data.u32(1)?)?, key: data.u32(2)? },
        "ct" if data.get(1).is_none() => Expr::Passive,
        "ct" => Expr::Ct { dreg: register(data.u32(1)?)?, key: data.u32(2)? },
        "fib" if data.u32(2)? == FIB_RESULT_ADDRTYPE => {
            Expr::FibType { dreg: register(data.u32(1)?)?, flags: data.u32(3)? }
        }
        "fib" => Expr::Load("the routes"),
        "bitwise" => bitwise(data)?,
        "cmp" => Expr::Cmp { sreg: register(data.u32(1)?)?, op: data.u32(2)?, data: value(data, 3)? },
        "range" => Expr::Range {
            sreg: register(data.u32(1)?)?,
            inverted: data.u32(2)? != 0,
            from: value(data, 3)?,
            to: value(data, 4)?,
        },
        "lookup" => lookup(data)?,
        "immediate" => immediate(data)?,
        "match" => return Some(xt::matches(&data.text(1)?, data.u32(2)?, data.get(3)?)),
        "target" => xt::target(&data.text(1)?, data.get(3)?),
        "reject" => Expr::Verdict(Verdict::Drop),
        "counter" | "log" | "last" | "dup" | "objref" | "flow_offload" => Expr::Passive,
        "notrack" => Expr::NoTrack,
        "limit" => Expr::Perhaps("a rate"),
        "quota" => Expr::Perhaps("a quota"),
        "connlimit" => Expr::Perhaps("the number of connections"),
        "dynset" => Expr::Perhaps("a set that rules fill"),
        "queue" | "nat" | "masq" | "redir" | "tproxy" | "fwd" | "synproxy" => {
            Expr::Verdict(Verdict::Elsewhere(name.into()))
        }
        "byteorder" => Expr::Load("a value in another order"),
        "numgen" | "hash" => Expr::Load("chance"),
        "socket" => Expr::Load("the sockets of this host"),
        "osf" => Expr::Load("the sender's system"),
        "rt" | "xfrm" | "tunnel" => Expr::Load("how the packet came"),
        "exthdr" if data.get(1).is_none() => Expr::Passive,
        "exthdr" => Expr::Load("the packet's options"),
        _ => return None,
    };
    Some(vec![expr])
}

const FIB_RESULT_ADDRTYPE: u32 = 3; // enum nft_fib_result

/// Registers of four bytes, and the four old ones of sixteen that lie over them (enum nft_registers).
fn register(number: u32) -> Option<usize> {
    let at = match number {
        1..=4 => (number - 1) * 16,
        8..=23 => (number - 8) * 4,
        _ => return None,
    };
    usize::try_from(at).ok().filter(|at| *at < REGISTERS_LEN)
}

fn value(data: &Attrs<'_>, kind: u16) -> Option<Vec<u8>> {
    data.nest(kind)?.get(DATA_VALUE).map(<[u8]>::to_vec)
}

fn bitwise(data: &Attrs<'_>) -> Option<Expr> {
    const MASK_XOR: u32 = 0; // enum nft_bitwise_ops; kernels before 5.6 have no others and do not say it
    if data.u32(6).unwrap_or(MASK_XOR) != MASK_XOR {
        return Some(Expr::Load("a shifted value"));
    }
    let (mask, xor) = (value(data, 4)?, value(data, 5)?);
    Some(Expr::Bitwise { sreg: register(data.u32(1)?)?, dreg: register(data.u32(2)?)?, mask, xor })
}

fn lookup(data: &Attrs<'_>) -> Option<Expr> {
    let map = match data.u32(3) {
        None => Map::Member,
        Some(NFT_REG_VERDICT) => Map::Verdict,
        Some(_) => Map::Value,
    };
    let inverted = data.u32(5).unwrap_or(0) & 1 != 0; // NFT_LOOKUP_F_INV
    Some(Expr::Lookup { sreg: register(data.u32(2)?)?, set: data.text(1)?, inverted, map })
}

fn immediate(data: &Attrs<'_>) -> Option<Expr> {
    match data.u32(1)? {
        NFT_REG_VERDICT => data.nest(2)?.nest(DATA_VERDICT).map(|nest| Expr::Verdict(verdict(&nest))),
        number => Some(Expr::Constant { dreg: register(number)?, data: value(data, 2)? }),
    }
}

/// enum nft_verdicts, and those of netfilter (linux/netfilter.h), which may have an errno above their low byte.
pub(super) fn verdict(nest: &Attrs<'_>) -> Verdict {
    let code = nest.u32(VERDICT_CODE).map(u32::cast_signed);
    let chain = nest.text(VERDICT_CHAIN);
    match (code, chain) {
        (Some(-1 | -2), _) => Verdict::Continue,
        (Some(-3), Some(chain)) => Verdict::Jump(chain),
        (Some(-4), Some(chain)) => Verdict::Goto(chain),
        (Some(-5), _) => Verdict::Return,
        (Some(code @ 0..), _) => xt::netfilter(code),
        _ => Verdict::Whatever("an unknown verdict".into()),
    }
}

/// The verdict in the data of a map's element; none if it is a value.
pub(super) fn verdict_data(element: &Attrs<'_>, kind: u16) -> Option<Verdict> {
    element.nest(kind)?.nest(DATA_VERDICT).map(|nest| verdict(&nest))
}

/// The key of an element.
pub(super) fn key(element: &Attrs<'_>, kind: u16) -> Option<Vec<u8>> {
    value(element, kind)
}

/// Whether an element's own expressions let each packet through.
pub(super) fn is_passive(expr: &Attrs<'_>) -> bool {
    decode(expr).iter().all(|expr| *expr == Expr::Passive)
}
