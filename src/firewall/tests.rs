//! Rulesets as they are decoded, and what is said of them. What the kernel does under real ones is in tests/firewall.

use proptest::prelude::*;

use super::attrs::Attrs;
use super::packet::Packet;
use super::ruleset::{Chain, Element, Expr, Family, Hook, Map, Point, Rule, Ruleset, Set, Table, Test, Verdict};
use super::walk::walk;
use super::*;

fn peer(text: &str) -> Peer {
    Peer { name: text.to_owned(), nets: vec![text.parse().expect("a network")] }
}

/// What is needed by a service of IPv4 at one address, with one network of peers.
fn needs() -> Needs {
    let peers = Peers { known: vec![peer("10.0.0.0/24")], ..Peers::default() };
    Needs { port: 8002, listen: vec!["192.0.2.1".parse().expect("an address")], peers }
}

fn rule(number: u64, exprs: Vec<Expr>) -> Rule {
    Rule { number, exprs }
}

/// A table of nf_tables with an input chain, and others without a hook.
fn table(accepts: bool, rules: Vec<Rule>, others: Vec<(&str, Vec<Rule>)>) -> Table {
    let hook = Hook { point: Point::Input, priority: 0, accepts, nat: false };
    let mut table =
        Table { family: Family::Inet, name: "t".into(), chains: Default::default(), sets: Default::default() };
    table.chains.insert("input".into(), Chain { hook: Some(hook), rules });
    for (name, rules) in others {
        table.chains.insert(name.to_owned(), Chain { hook: None, rules });
    }
    table
}

fn judged(table: Table) -> Report {
    judge(&needs(), &Ruleset { tables: vec![table] })
}

/// The fate of the peers and of the others, each in one piece.
fn fates(report: &Report) -> Vec<Fate> {
    assert!(report.rows.iter().all(|row| row.whole), "{report:#?}");
    report.rows.iter().map(|row| row.fate).collect()
}

#[test]
fn an_expression_that_is_not_known_may_do_anything() {
    let unknown = || rule(7, vec![Expr::Unknown("tunnelling".into())]);
    let report = judged(table(true, vec![unknown()], vec![]));
    assert_eq!(fates(&report), [Fate::CannotTell; 2]);
    assert_eq!(report.rows[0].by, ["inet t input handle 7: depends on tunnelling"]);
    let drop = || rule(8, vec![Expr::Verdict(Verdict::Drop)]);
    assert_eq!(fates(&judged(table(true, vec![drop(), unknown()], vec![]))), [Fate::Dropped; 2]);
}

#[test]
fn a_set_or_a_chain_that_is_not_there_is_not_guessed() {
    let lookup = |map| Expr::Lookup { sreg: 0, set: "s".into(), inverted: false, map };
    for exprs in [
        vec![lookup(Map::Member), Expr::Verdict(Verdict::Drop)],
        vec![lookup(Map::Verdict)],
        vec![Expr::Verdict(Verdict::Jump("c".into()))],
    ] {
        assert_eq!(fates(&judged(table(true, vec![rule(1, exprs)], vec![]))), [Fate::CannotTell; 2]);
    }
}

#[test]
fn chains_that_lead_to_each_other_for_ever_end() {
    let jump = |to: &str| rule(1, vec![Expr::Verdict(Verdict::Jump(to.into()))]);
    let report = judged(table(true, vec![jump("a")], vec![("a", vec![jump("b"), jump("b")]), ("b", vec![jump("a")])]));
    assert_eq!(fates(&report), [Fate::CannotTell; 2]);
    assert!(report.rows[0].by[0].ends_with("depends on more rules than are looked through"), "{report:#?}");
}

#[test]
fn an_element_with_a_rate_may_match() {
    let key = Some(vec![10, 0, 0, 0]);
    let element = Element { key, key_end: Some(vec![10, 0, 0, 255]), perhaps: true, ..Element::default() };
    let load = Expr::Payload { dreg: 0, base: 1, offset: 12, len: 4 };
    let lookup = Expr::Lookup { sreg: 0, set: "s".into(), inverted: false, map: Map::Member };
    let mut table = table(true, vec![rule(1, vec![load, lookup, Expr::Verdict(Verdict::Drop)])], vec![]);
    table.sets.insert("s".into(), Set { intervals: true, parts: vec![4], elements: vec![element] });
    assert_eq!(fates(&judged(table)), [Fate::CannotTell, Fate::Accepted]);
}

#[test]
fn findings_follow_from_what_should_be() {
    let peers = Test::Source { first: 0x0a00_0000, last: 0x0a00_00ff, inverted: false };
    let on_peers = |verdict| vec![rule(1, vec![Expr::Test(peers.clone()), Expr::Verdict(verdict)])];
    let closed = judged(table(true, on_peers(Verdict::Drop), vec![]));
    assert_eq!(closed.findings.iter().map(|finding| finding.level).collect::<Vec<_>>(), [Level::Error, Level::Warning]);
    let proposal = closed.proposal.expect("a proposal");
    assert_eq!(proposal.open, ["nft insert rule inet t input ip saddr { 10.0.0.0/24 } tcp dport 8002 accept"]);
    assert!(proposal.nft.is_some_and(|file| file.contains("tcp dport 8002 ip saddr { 10.0.0.0/24 } accept\n")));
    let fine = judged(table(false, on_peers(Verdict::Accept), vec![]));
    assert_eq!((fine.worst(), fine.proposal), (None, None));
}

#[test]
fn nobody_else_comes_to_a_loopback_address() {
    let mut needs = needs();
    needs.listen = vec!["127.0.0.1".parse().expect("an address"), "::1".parse().expect("an address")];
    let report = judge(&needs, &Ruleset::default());
    assert_eq!((report.rows.len(), report.worst()), (0, Some(Level::Notice)));
}

#[test]
fn a_socket_on_all_addresses_takes_both_families() {
    let mut needs = needs();
    needs.listen = vec!["0.0.0.0".parse().expect("an address")];
    assert!(questions(&needs).iter().all(|packet| packet.ip == Ip::V4 && packet.destination.is_none()));
    needs.listen = vec!["::".parse().expect("an address")];
    assert!(questions(&needs).iter().any(|packet| packet.ip == Ip::V4));
}

/// Names of expressions, of matches, and of a set.
const NAMES: &[&str] = &[
    "payload",
    "meta",
    "ct",
    "fib",
    "bitwise",
    "cmp",
    "range",
    "lookup",
    "immediate",
    "match",
    "target",
    "tcp",
    "limit",
    "multiport",
    "conntrack",
    "iprange",
    "s",
];

/// A value of an attribute: bytes, a number, a name that means something, or a nest.
fn attribute() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        (0_u32..24).prop_map(|number| number.to_be_bytes().to_vec()),
        (-6_i32..4).prop_map(|number| number.to_be_bytes().to_vec()),
        prop::sample::select(NAMES).prop_map(|name| [name.as_bytes(), &[0]].concat()),
        prop::collection::vec(any::<u8>(), 160..161),
    ];
    leaf.prop_recursive(4, 60, 5, |inner| prop::collection::vec((1_u16..8, inner), 0..6).prop_map(|list| nest(&list)))
}

fn nest(list: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in list {
        drbd_nl::wire::Attr { kind: *kind, value: value.clone() }.emit(&mut bytes);
    }
    bytes
}

proptest! {
    #[test]
    fn whatever_a_rule_is_made_of_nothing_panics_and_nobody_is_forgotten(
        exprs in prop::collection::vec((prop::sample::select(NAMES), attribute()), 0..6),
        accepts: bool, v6: bool, intervals: bool,
        elements in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), any::<bool>()), 0..5),
    ) {
        let decoded = exprs.iter().flat_map(|(name, data)| {
            let name = [name.as_bytes(), &[0]].concat();
            expr::decode(&Attrs::parse(&nest(&[(1, name), (2, data.clone())])).expect("a nest"))
        });
        let mut table = table(accepts, vec![rule(1, decoded.collect())], vec![("s", vec![])]);
        let elements = elements.into_iter().map(|(key, ends)| Element { key: Some(key), ends, ..Element::default() });
        table.sets.insert("s".into(), Set { intervals, parts: vec![4], elements: elements.collect() });
        let ip = if v6 { Ip::V6 } else { Ip::V4 };
        let walked = walk(&Ruleset { tables: vec![table] }, &Packet { ip, destination: None, port: 8002 });
        prop_assert_eq!(walked.accepted.or(&walked.dropped()), sources::Sources::all(ip));
    }
}
