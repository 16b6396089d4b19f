//! The rules of a host as the walk sees them: those of nf_tables, those that iptables keeps there, and those of the old ip_tables.
//!
//! Whatever is not understood has a place of its own here ([`Expr::Unknown`], [`Test::Depends`], [`Verdict::Whatever`]), and is
//! never left out: what depends on it cannot be told.

use std::collections::BTreeMap;

use super::sources::Ip;

/// All tables, each of one family.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ruleset {
    pub(super) tables: Vec<Table>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    pub(super) family: Family,
    pub(super) name: String,
    pub(super) chains: BTreeMap<String, Chain>,
    pub(super) sets: BTreeMap<String, Set>,
}

/// Whose packets a table sees, and who keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    Inet,
    Ip,
    Ip6,
    Netdev,
    Bridge,
    /// The tables of the ip_tables module.
    Legacy(Ip),
    /// Arp and what else is none of our business.
    Other,
}

impl Family {
    /// The word that the tools have for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Netdev => "netdev",
            Family::Bridge => "bridge",
            Family::Legacy(Ip::V4) => "iptables",
            Family::Legacy(Ip::V6) => "ip6tables",
            Family::Other => "other",
        }
    }

    /// Whether a packet of that kind can pass its chains at all.
    pub(super) fn sees(self, ip: Ip) -> bool {
        match self {
            Family::Inet | Family::Netdev | Family::Bridge => true,
            Family::Ip | Family::Legacy(Ip::V4) => ip == Ip::V4,
            Family::Ip6 | Family::Legacy(Ip::V6) => ip == Ip::V6,
            Family::Other => false,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chain {
    /// None of a chain that only others lead to.
    pub(super) hook: Option<Hook>,
    pub(super) rules: Vec<Rule>,
}

/// Where packets enter a base chain.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hook {
    pub(super) point: Point,
    pub(super) priority: i32,
    /// Whether what no rule has decided is accepted.
    pub(super) accepts: bool,
    /// Of type `nat`, whose verdicts are about the translation.
    pub(super) nat: bool,
}

/// The places that a packet for this host passes, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Point {
    Ingress,
    Prerouting,
    Input,
    /// Forward, output and the like.
    Elsewhere,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    /// nf_tables' handle, or the place in the chain from 1 with ip_tables.
    pub(super) number: u64,
    pub(super) exprs: Vec<Expr>,
}

/// One step of a rule. Registers are numbered by their first byte, 0 to 63.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Payload {
        dreg: usize,
        base: u32,
        offset: u32,
        len: usize,
    },
    Meta {
        dreg: usize,
        key: u32,
    },
    Ct {
        dreg: usize,
        key: u32,
    },
    FibType {
        dreg: usize,
        flags: u32,
    },
    Constant {
        dreg: usize,
        data: Vec<u8>,
    },
    Bitwise {
        sreg: usize,
        dreg: usize,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Cmp {
        sreg: usize,
        op: u32,
        data: Vec<u8>,
    },
    Range {
        sreg: usize,
        inverted: bool,
        from: Vec<u8>,
        to: Vec<u8>,
    },
    Lookup {
        sreg: usize,
        set: String,
        inverted: bool,
        map: Map,
    },
    Verdict(Verdict),
    Test(Test),
    /// It counts, logs or marks; it decides nothing.
    Passive,
    /// The connection is not tracked from here on.
    NoTrack,
    /// Goes on or not, by something that is not known here: a rate, a quota.
    Perhaps(&'static str),
    /// Fills registers with something that is not known here.
    Load(&'static str),
    /// May do anything.
    Unknown(String),
}

/// What a lookup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Map {
    /// Whether the key is in the set.
    Member,
    /// The verdict that the key stands for.
    Verdict,
    /// A value that goes into a register.
    Value,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Accept,
    Drop,
    Continue,
    Return,
    Jump(String),
    Goto(String),
    /// A program decides, or the packet goes elsewhere; the word says who.
    Elsewhere(String),
    /// One of all these, by a target that is not known here.
    Whatever(String),
}

/// A match of iptables'.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    Never,
    Source {
        first: u128,
        last: u128,
        inverted: bool,
    },
    Destination {
        first: u128,
        last: u128,
        inverted: bool,
    },
    /// The same with addresses as they lie in memory; those of IPv4 in the first four bytes.
    Between {
        source: bool,
        first: [u8; 16],
        last: [u8; 16],
        inverted: bool,
    },
    Protocol {
        number: u16,
        inverted: bool,
    },
    Ports {
        ranges: Vec<(u16, u16)>,
        inverted: bool,
    },
    Flags {
        mask: u8,
        value: u8,
        inverted: bool,
    },
    State {
        mask: u32,
        inverted: bool,
    },
    /// The address types, as bits, of which the destination must be one.
    DestinationType {
        mask: u16,
        inverted: bool,
    },
    /// The loopback interface, or another.
    Interface {
        loopback: bool,
        inverted: bool,
    },
    /// On something that is not known here.
    Depends(String),
}

/// A set or a map of nf_tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Set {
    pub(super) intervals: bool,
    /// The lengths of a concatenation's parts in bytes; one part with all of it otherwise.
    pub(super) parts: Vec<usize>,
    pub(super) elements: Vec<Element>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Element {
    /// None of the element that stands for all other keys.
    pub(super) key: Option<Vec<u8>>,
    /// The last key of an interval, where the kernel says it.
    pub(super) key_end: Option<Vec<u8>>,
    /// The end of the interval before it, and not in that any more.
    pub(super) ends: bool,
    /// It has a rate or the like, and may not match.
    pub(super) perhaps: bool,
    pub(super) verdict: Option<Verdict>,
}

impl Ruleset {
    /// The sets that rules look things up in: table by table, by name.
    pub(super) fn looked_up(&self) -> Vec<(Family, String, String)> {
        let mut found = Vec::new();
        for table in &self.tables {
            let rules = table.chains.values().flat_map(|chain| &chain.rules);
            for expr in rules.flat_map(|rule| &rule.exprs) {
                if let Expr::Lookup { set, .. } = expr {
                    found.push((table.family, table.name.clone(), set.clone()));
                }
            }
        }
        found.sort();
        found.dedup();
        found
    }

    pub(super) fn table(&mut self, family: Family, name: &str) -> Option<&mut Table> {
        self.tables.iter_mut().find(|table| table.family == family && table.name == name)
    }

    /// Whether nothing that a packet for this host passes could refuse it.
    pub(super) fn is_void(&self, ip: Ip) -> bool {
        let seen = self.tables.iter().filter(|table| table.family.sees(ip));
        let decides = |hook: &Hook, chain: &Chain| {
            hook.point != Point::Elsewhere && !hook.nat && (!hook.accepts || !chain.rules.is_empty())
        };
        let mut chains = seen.flat_map(|table| table.chains.values());
        !chains.any(|chain| chain.hook.as_ref().is_some_and(|hook| decides(hook, chain)))
    }
}
