//! The rules in nf_tables, read natively: those of `nft`, of firewalld, and of the iptables that stores its rules there.

use std::collections::BTreeMap;

use super::Error;
use super::attrs::Attrs;
use super::expr;
use super::netlink::{Broken, Get, Netlink, Object};
use super::ruleset::{Chain, Element, Expr, Family, Hook, Point, Rule, Ruleset, Set, Table};

/// How often it is tried to read rules that do not change meanwhile.
const TRIES_MAX: u32 = 8;

/// Reads all tables; none if the kernel has no nf_tables.
///
/// The kernel may load its module of that name to answer.
pub(super) fn read() -> Result<Ruleset, Error> {
    for _ in 0..TRIES_MAX {
        let mut netlink = match Netlink::open() {
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(Ruleset::default()),
            opened => opened.map_err(|source| Error::Netlink { source })?,
        };
        match consistent(&mut netlink) {
            Err(Broken::Changed) => {}
            Err(Broken::For(Error::Netlink { source })) if is_missing(&source) => return Ok(Ruleset::default()),
            Err(Broken::For(error)) => return Err(error),
            Ok(ruleset) => return Ok(ruleset),
        }
    }
    Err(Error::Unsteady { tries: TRIES_MAX })
}

/// What netfilter says of a part that it does not have.
fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// One generation of the rules: the lists are not one transaction.
fn consistent(netlink: &mut Netlink) -> Result<Ruleset, Broken> {
    let before = generation(netlink)?;
    let tables = netlink.list(Get::Tables, ANY, &[])?;
    let (chains, rules) = (netlink.list(Get::Chains, ANY, &[])?, netlink.list(Get::Rules, ANY, &[])?);
    let sets = netlink.list(Get::Sets, ANY, &[])?;
    let mut ruleset = assemble(&tables, &chains, &rules, &sets).ok_or(GARBLED)?;
    for (family, table, set) in ruleset.looked_up() {
        let names = [(ELEMENTS_TABLE, table.as_str()), (ELEMENTS_SET, set.as_str())];
        let listed = netlink.list(Get::Elements, number(family), &names)?;
        let found = ruleset.table(family, &table).and_then(|table| table.sets.get_mut(&set));
        if let Some(set) = found {
            set.elements = elements(&listed).ok_or(GARBLED)?;
        }
    }
    match generation(netlink)? == before {
        true => Ok(ruleset),
        false => Err(Broken::Changed),
    }
}

const ANY: u8 = 0; // NFPROTO_UNSPEC
const GARBLED: Broken = Broken::For(Error::Garbled { what: "list" });
// enum nft_set_elem_list_attributes
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS_LIST: u16 = 3;

/// Changes with each change of the rules (`NFTA_GEN_ID`).
fn generation(netlink: &mut Netlink) -> Result<Option<u32>, Broken> {
    let objects = netlink.list(Get::Generation, ANY, &[])?;
    Ok(objects.first().and_then(|object| Attrs::parse(&object.attrs)?.u32(1)))
}

/// Families as netfilter numbers them (linux/netfilter.h).
const FAMILIES: [(u8, Family); 5] =
    [(1, Family::Inet), (2, Family::Ip), (5, Family::Netdev), (7, Family::Bridge), (10, Family::Ip6)];

fn family(number: u8) -> Family {
    FAMILIES.iter().find(|(n, _)| *n == number).map_or(Family::Other, |(_, family)| *family)
}

fn number(family: Family) -> u8 {
    FAMILIES.iter().find(|(_, f)| *f == family).map_or(ANY, |(number, _)| *number)
}

/// Makes a ruleset, its sets still empty, out of four lists.
fn assemble(tables: &[Object], chains: &[Object], rules: &[Object], sets: &[Object]) -> Option<Ruleset> {
    let mut ruleset = Ruleset::default();
    for object in tables.iter().filter(|object| family(object.family) != Family::Other) {
        let (family, attrs) = (family(object.family), Attrs::parse(&object.attrs)?);
        // enum nft_table_attributes; the hooks of a dormant table are not there.
        if attrs.u32(2).unwrap_or(0) & NFT_TABLE_F_DORMANT == 0 {
            let (chains, sets) = (BTreeMap::new(), BTreeMap::new());
            ruleset.tables.push(Table { family, name: attrs.text(1)?, chains, sets });
        }
    }
    for object in chains {
        let attrs = Attrs::parse(&object.attrs)?;
        if let Some(table) = ruleset.table(family(object.family), &attrs.text(1)?) {
            table.chains.insert(attrs.text(3)?, Chain { hook: hook(table.family, &attrs)?, rules: Vec::new() });
        }
    }
    for object in rules {
        let attrs = Attrs::parse(&object.attrs)?;
        let table = ruleset.table(family(object.family), &attrs.text(1)?);
        if let Some(chain) = table.and_then(|table| table.chains.get_mut(&attrs.text(2)?)) {
            chain.rules.push(rule(&attrs)?);
        }
    }
    for object in sets {
        let attrs = Attrs::parse(&object.attrs)?;
        if let Some(table) = ruleset.table(family(object.family), &attrs.text(1)?) {
            table.sets.insert(attrs.text(2)?, set(&attrs)?);
        }
    }
    Some(ruleset)
}

const NFT_TABLE_F_DORMANT: u32 = 1;

/// None inside if the chain is no base chain (enum nft_chain_attributes, nft_hook_attributes).
fn hook(family: Family, attrs: &Attrs<'_>) -> Option<Option<Hook>> {
    let Some(nest) = attrs.get(4) else { return Some(None) };
    let nest = Attrs::parse(nest)?;
    let point = match (family, nest.u32(1)?) {
        (Family::Netdev, 0) | (Family::Inet, 5) => Point::Ingress,
        (Family::Netdev, _) => Point::Elsewhere,
        (_, 0) => Point::Prerouting,
        (_, 1) => Point::Input,
        _ => Point::Elsewhere,
    };
    const NF_ACCEPT: u32 = 1;
    let accepts = attrs.u32(5).unwrap_or(NF_ACCEPT) == NF_ACCEPT;
    let nat = attrs.text(7).is_some_and(|kind| kind == "nat");
    Some(Some(Hook { point, priority: nest.u32(2)?.cast_signed(), accepts, nat }))
}

/// enum nft_rule_attributes
fn rule(attrs: &Attrs<'_>) -> Option<Rule> {
    let unreadable = || vec![Expr::Unknown("a rule that cannot be read".into())];
    let exprs = match attrs.get(4) {
        None => Vec::new(),
        Some(_) => attrs.list(4).map_or_else(unreadable, |list| list.iter().flat_map(expr::decode).collect()),
    };
    Some(Rule { number: attrs.u64(3)?, exprs })
}

/// enum nft_set_attributes; the lengths of fields are in bits in headers and in bytes in the kernel (`nft_set_desc_concat_parse`).
fn set(attrs: &Attrs<'_>) -> Option<Set> {
    const NFT_SET_INTERVAL: u32 = 4;
    let intervals = attrs.u32(3).unwrap_or(0) & NFT_SET_INTERVAL != 0;
    let fields = attrs.nest(9).filter(|desc| desc.get(2).is_some()).and_then(|desc| desc.list(2));
    let lengths = fields.unwrap_or_default();
    let lengths = lengths.iter().map(|field| field.u32(1).and_then(|len| usize::try_from(len).ok()));
    let mut parts = lengths.collect::<Option<Vec<_>>>()?;
    if parts.is_empty() {
        parts.push(usize::try_from(attrs.u32(5)?).ok()?);
    }
    Some(Set { intervals, parts, elements: Vec::new() })
}

fn elements(listed: &[Object]) -> Option<Vec<Element>> {
    let mut found = Vec::new();
    for object in listed {
        let attrs = Attrs::parse(&object.attrs)?;
        if attrs.get(ELEMENTS_LIST).is_some() {
            for nest in attrs.list(ELEMENTS_LIST)? {
                found.push(element(&nest)?);
            }
        }
    }
    Some(found)
}

/// enum nft_set_elem_attributes; only the element that stands for all other keys has none.
fn element(attrs: &Attrs<'_>) -> Option<Element> {
    const INTERVAL_END: u32 = 1;
    const CATCHALL: u32 = 2;
    let (flags, key) = (attrs.u32(3).unwrap_or(0), expr::key(attrs, 1));
    let mut nested = attrs.nest(7).into_iter().chain(attrs.list(11).unwrap_or_default());
    let element = Element {
        key_end: expr::key(attrs, 10),
        ends: flags & INTERVAL_END != 0,
        perhaps: !nested.all(|nested| expr::is_passive(&nested)),
        verdict: expr::verdict_data(attrs, 2),
        key,
    };
    (element.key.is_some() || flags & CATCHALL != 0).then_some(element)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_that_are_no_lists_make_nothing_panic(lists: [Vec<Vec<u8>>; 4], elements_bytes: Vec<u8>) {
            let objects = lists.map(|list| list.into_iter().map(|attrs| Object { family: 1, attrs }).collect::<Vec<_>>());
            let [tables, chains, rules, sets] = &objects;
            assemble(tables, chains, rules, sets);
            elements(&[Object { family: 1, attrs: elements_bytes }]);
        }
    }
}
