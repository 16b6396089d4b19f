//! The bridges of a domain's nics.

use super::Code;
use crate::host::Host;
use crate::plan::{BridgeMap, DomainFacts};
use crate::protocol::Finding;

/// Bridges that the user maps and that no nic is on.
pub(super) fn unknown_bridges<'a>(
    host: &'a Host<'_>,
    facts: &'a DomainFacts,
    maps: &'a [BridgeMap],
) -> impl Iterator<Item = Finding> {
    let unknown = maps.iter().filter(|map| !facts.bridges.contains(&map.old));
    unknown.map(move |map| {
        let found = format!("No nic of {} is on a bridge {}, which --map-bridge {map} names", facts.name, map.old);
        let remedy = match facts.bridges.as_slice() {
            [] => "Leave it out: its nics are on no bridge".to_owned(),
            bridges => format!("Its nics are on {}", bridges.join(", ")),
        };
        host.error(Code::BridgeUnknown, found, remedy)
    })
}

/// Bridges that this host does not have.
pub(super) fn missing_bridges(host: &Host<'_>, facts: &DomainFacts) -> Vec<Finding> {
    let here = host.toolstack.bridges();
    let missing = facts.bridges.iter().filter(|bridge| !here.contains(bridge));
    missing
        .map(|bridge| host.error(Code::BridgeMissing, format!("Bridge {bridge} does not exist"), remedy(bridge, &here)))
        .collect()
}

fn remedy(bridge: &str, here: &[String]) -> String {
    let make = format!("Make it: ip link add {bridge} type bridge");
    match here {
        [] => make,
        here => format!(
            "{make}; or name another for this once: --map-bridge {bridge}=NEW, where NEW is {}",
            here.join(" or ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_that_could_stand_in_is_named() {
        assert_eq!(remedy("a", &[]), "Make it: ip link add a type bridge");
        let both = remedy("a", &["b".into(), "c".into()]);
        assert!(both.ends_with("--map-bridge a=NEW, where NEW is b or c"), "{both}");
    }
}
