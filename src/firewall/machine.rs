//! What the conditions of one rule say: nf_tables' registers with what is known of their bits, and the matches of iptables.

use super::packet::{Byte, FLAG_SYN, FLAGS_KNOWN, IPPROTO_TCP, Origin, Packet, RTN_LOCAL, STATE_NEW};
use super::ruleset::{Element, Expr, Map, Set, Table, Test, Verdict};
use super::sources::Sources;
use super::split::{Split, as_number, within};

/// Bytes of nf_tables' registers.
pub(super) const REGISTERS_LEN: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Machine<'a> {
    packet: &'a Packet,
    /// Whether no rule has said yet that the connection is not tracked.
    tracked: bool,
    registers: [Byte; REGISTERS_LEN],
}

impl<'a> Machine<'a> {
    pub(super) fn new(packet: &'a Packet) -> Machine<'a> {
        Machine { packet, tracked: true, registers: filled("a register that nothing was loaded into") }
    }

    /// Registers do not outlive a rule.
    pub(super) fn begin_rule(&mut self) {
        self.registers = filled("a register that nothing was loaded into");
    }

    /// Takes a step that is no verdict; gives the condition under which the rule goes on, if it has one.
    pub(super) fn step(&mut self, table: &Table, expr: &Expr) -> Option<Split> {
        let ip = self.packet.ip;
        match expr {
            Expr::Payload { dreg, base, offset, len } => {
                self.load(*dreg, &self.packet.header(*base, *offset, (*len).min(REGISTERS_LEN)));
            }
            Expr::Meta { dreg, key } => self.load(*dreg, &self.packet.meta(*key)),
            Expr::Ct { dreg, key } => self.load(*dreg, &self.packet.ct(*key, self.tracked)),
            Expr::FibType { dreg, flags } => self.load(*dreg, &Packet::fib_type(*flags)),
            Expr::Constant { dreg, data } => {
                self.load(*dreg, &data.iter().copied().map(Byte::known).collect::<Vec<_>>());
            }
            Expr::Bitwise { sreg, dreg, mask, xor } => {
                self.load(*dreg, &bitwise(&self.key(*sreg, mask.len()), mask, xor));
            }
            Expr::Load(what) => {
                self.registers = filled(what);
                return Some(Split::depends(ip, *what));
            }
            Expr::NoTrack => self.tracked = false,
            Expr::Perhaps(why) => return Some(Split::depends(ip, *why)),
            Expr::Cmp { sreg, op, data } => return Some(self.compare(*sreg, *op, data)),
            Expr::Range { sreg, inverted, from, to } => {
                return Some(within(&self.key(*sreg, from.len()), from, to, ip).inverted_if(*inverted, ip));
            }
            Expr::Lookup { sreg, set, inverted, map } => {
                let found = self.is_in(*sreg, table, set).inverted_if(*inverted, ip);
                if *map == Map::Value {
                    self.registers = filled("a value from a map");
                }
                return Some(found);
            }
            Expr::Test(test) => return Some(self.test(test)),
            Expr::Passive | Expr::Verdict(_) | Expr::Unknown(_) => {}
        }
        None
    }

    /// A register is filled to a multiple of four bytes.
    fn load(&mut self, dreg: usize, bytes: &[Byte]) {
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        let bytes = bytes.iter().copied().chain(std::iter::repeat_n(Byte::known(0), padding));
        self.registers.iter_mut().skip(dreg).zip(bytes).for_each(|(register, byte)| *register = byte);
    }

    fn key(&self, sreg: usize, len: usize) -> Vec<Byte> {
        let beyond = Byte::unknown(Origin::Other("a register that does not exist"));
        (sreg..sreg.saturating_add(len)).map(|at| self.registers.get(at).copied().unwrap_or(beyond)).collect()
    }

    /// nf_tables.h, enum nft_cmp_ops.
    fn compare(&self, sreg: usize, op: u32, data: &[u8]) -> Split {
        let (key, ip) = (self.key(sreg, data.len()), self.packet.ip);
        let (least, most) = (vec![0; data.len()], vec![0xff; data.len()]);
        match op {
            0 => within(&key, data, data, ip),
            1 => within(&key, data, data, ip).not(ip),
            2 => within(&key, data, &most, ip).not(ip),
            3 => within(&key, &least, data, ip),
            4 => within(&key, &least, data, ip).not(ip),
            5 => within(&key, data, &most, ip),
            _ => Split::depends(ip, "an unknown comparison"),
        }
    }

    fn is_in(&self, sreg: usize, table: &Table, set: &str) -> Split {
        match table.sets.get(set) {
            Some(set) => Split::any(self.elements(sreg, set).into_iter().map(|(split, _)| split)),
            None => Split::depends(self.packet.ip, format!("the set {set}")),
        }
    }

    /// For whom each element of a set is the one that is found.
    pub(super) fn elements<'s>(&self, sreg: usize, set: &'s Set) -> Vec<(Split, Option<&'s Verdict>)> {
        let has_ends = set.elements.iter().any(|element| element.ends);
        let mut found = match set.intervals && set.parts.len() <= 1 && has_ends {
            true => self.intervals(sreg, set),
            false => set.elements.iter().filter_map(|element| self.element(sreg, set, element)).collect(),
        };
        if let Some(others) = set.elements.iter().find(|element| element.key.is_none()) {
            let named = Split::any(found.iter().map(|(split, _)| split.clone()));
            found.push((named.not(self.packet.ip), others.verdict.as_ref()));
        }
        found
    }

    /// An element with its own end, or with a single key; each part of a concatenation lies in its own interval.
    fn element<'s>(&self, sreg: usize, set: &Set, element: &'s Element) -> Option<(Split, Option<&'s Verdict>)> {
        let low = element.key.as_ref()?;
        let high = element.key_end.as_ref().unwrap_or(low);
        let (key, ip) = (self.key(sreg, low.len()), self.packet.ip);
        let parts = if low == high { vec![low.len()] } else { set.parts.clone() };
        let mut split = Split::fixed(ip, true);
        let mut at = 0;
        for len in parts {
            let part = at..at + len;
            split = match (key.get(part.clone()), low.get(part.clone()), high.get(part)) {
                (Some(key), Some(low), Some(high)) => split.and(&within(key, low, high, ip)),
                _ => Split::depends(ip, "a set whose elements have unlike lengths"),
            };
            at += len.next_multiple_of(4);
        }
        Some((self.weakened(split, element), element.verdict.as_ref()))
    }

    /// Elements of which some end the interval that another one has begun.
    fn intervals<'s>(&self, sreg: usize, set: &'s Set) -> Vec<(Split, Option<&'s Verdict>)> {
        let keyed = set.elements.iter().filter_map(|element| Some((element.key.as_ref()?, element)));
        let mut bounds: Vec<(&Vec<u8>, &Element)> = keyed.collect();
        // What ends at a key comes before what begins there.
        bounds.sort_by_key(|(key, element)| (*key, !element.ends));
        let next = |at: usize| bounds.get(at + 1).map(|(key, _)| *key);
        let interval = |(at, (low, element)): (usize, &(&'s Vec<u8>, &'s Element))| {
            let high = next(at).map_or(Some(vec![0xff; low.len()]), |next| predecessor(next))?;
            let split = within(&self.key(sreg, low.len()), low, &high, self.packet.ip);
            Some((self.weakened(split, element), element.verdict.as_ref()))
        };
        bounds.iter().enumerate().filter(|(_, (_, element))| !element.ends).filter_map(interval).collect()
    }

    fn weakened(&self, split: Split, element: &Element) -> Split {
        match element.perhaps {
            true => split.and(&Split::depends(self.packet.ip, "a rate or a quota of a set's element")),
            false => split,
        }
    }

    fn test(&self, test: &Test) -> Split {
        let (ip, packet) = (self.packet.ip, self.packet);
        let fixed = |holds: bool, inverted: &bool| Split::fixed(ip, holds != *inverted);
        match test {
            Test::Never => Split::never(),
            Test::Source { first, last, inverted } => {
                Split::of(Sources::range(*first, *last)).inverted_if(*inverted, ip)
            }
            Test::Destination { first, last, inverted } => match packet.is_to(*first, *last) {
                Some(holds) => fixed(holds, inverted),
                None => Split::depends(ip, "the address of this host"),
            },
            Test::Between { source, first, last, inverted } => {
                let [first, last] = [first, last].map(|bytes| as_number(&bytes[..ip.len()]));
                self.test(&match source {
                    true => Test::Source { first, last, inverted: *inverted },
                    false => Test::Destination { first, last, inverted: *inverted },
                })
            }
            Test::Protocol { number, inverted } => fixed(*number == u16::from(IPPROTO_TCP), inverted),
            Test::Ports { ranges, inverted } => {
                fixed(ranges.iter().any(|(first, last)| (first..=last).contains(&&packet.port)), inverted)
            }
            Test::Flags { mask, value, inverted } if mask & !FLAGS_KNOWN == 0 => {
                fixed(FLAG_SYN & mask == *value, inverted)
            }
            Test::Flags { .. } => Split::depends(ip, "ECN"),
            Test::State { .. } if !self.tracked => Split::depends(ip, "whether the connection is tracked"),
            Test::State { mask, inverted } => fixed(mask & STATE_NEW != 0, inverted),
            Test::DestinationType { mask, inverted } => fixed(mask & (1 << RTN_LOCAL) != 0, inverted),
            Test::Interface { loopback: true, inverted } => fixed(false, inverted),
            Test::Interface { .. } => Split::depends(ip, "the interface"),
            Test::Depends(what) => Split::depends(ip, what.clone()),
        }
    }
}

fn filled(what: &'static str) -> [Byte; REGISTERS_LEN] {
    [Byte::unknown(Origin::Other(what)); REGISTERS_LEN]
}

/// `(key & mask) ^ xor`.
fn bitwise(key: &[Byte], mask: &[u8], xor: &[u8]) -> Vec<Byte> {
    let xor = xor.iter().copied().chain(std::iter::repeat(0));
    let bytes = key.iter().zip(mask).zip(xor).map(|((byte, mask), xor)| {
        let known = byte.known | !mask;
        let turned = xor & !known != 0;
        let origin = if turned { Origin::Other("a changed value") } else { byte.origin };
        Byte { value: ((byte.value & mask) ^ xor) & known, known, origin }
    });
    bytes.collect()
}

/// The number before, if there is one.
fn predecessor(key: &[u8]) -> Option<Vec<u8>> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            return Some(key);
        }
    }
    None
}
