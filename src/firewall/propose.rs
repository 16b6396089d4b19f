//! Rules that would close the port to all but the peers, as text: a table of its own, so that what is there stays as it is.

use ipnet::IpNet;
use serde::Serialize;

use super::Needs;
use super::report::{Fate, Row, text};
use super::ruleset::{Family, Hook, Point, Ruleset};
use super::sources::{Ip, Sources};
use super::walk::{Place, Walk};

/// The table, and the chain of iptables, that a proposal makes.
const TABLE: &str = "bascule";
const IPTABLES_CHAIN: &str = "BASCULE";
/// Before the chains of the filter (`filter` is 0), after connection tracking and the translation of destinations.
const PRIORITY: i32 = -10;

/// What could be typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proposal {
    /// A file for `nft -f` that closes the port to all but the peers; none where it is closed.
    pub nft: Option<String>,
    /// The same as commands of iptables; none on a host that does not use it.
    pub iptables: Option<String>,
    /// Commands that let the peers pass who are refused by the chains that are there.
    pub open: Vec<String>,
}

/// A base chain that refuses a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    place: Place,
    ip: Ip,
    nets: Vec<IpNet>,
}

/// The chains that refuse some of these.
pub(super) fn refusals(walk: &Walk, ip: Ip, sources: &Sources) -> Vec<Refusal> {
    let refused = sources.minus(&walk.accepted);
    let met = walk.drops.iter().map(|(dropped, place)| (dropped.and(&refused), place));
    let met = met.filter(|(dropped, _)| !dropped.is_empty());
    met.map(|(dropped, place)| Refusal { place: place.clone(), ip, nets: dropped.networks(ip) }).collect()
}

pub(super) fn proposal(needs: &Needs, ruleset: &Ruleset, rows: &[Row], refusals: Vec<Refusal>) -> Option<Proposal> {
    let (ours, theirs): (Vec<_>, Vec<_>) = refusals.into_iter().partition(is_ours);
    let open_to_others = rows.iter().any(|row| row.wanted == Fate::Dropped && row.fate != Fate::Dropped);
    let closes = open_to_others || !ours.is_empty();
    let mut open: Vec<String> = theirs.iter().flat_map(|refusal| opening(needs.port, refusal)).collect();
    open.sort();
    open.dedup();
    let nets = needs.peers.nets();
    let proposal = Proposal {
        nft: closes.then(|| nft(needs, &nets)),
        iptables: (closes && uses_iptables(ruleset)).then(|| iptables(needs, &nets)),
        open,
    };
    (closes || !proposal.open.is_empty()).then_some(proposal)
}

/// An older proposal, of which there is a newer one now.
fn is_ours(refusal: &Refusal) -> bool {
    let place = &refusal.place;
    (place.family == Family::Inet && place.table == TABLE) || place.chain == IPTABLES_CHAIN
}

/// A chain of its own before the filter's: what it lets pass meets the other chains afterwards, what it drops is gone.
fn nft(needs: &Needs, nets: &[IpNet]) -> String {
    let (port, left_out) = (needs.port, left_out(needs, "    "));
    let family = |ip: Ip, word: &str| {
        let elements: Vec<String> = nets.iter().filter(|net| Ip::of(net.addr()) == ip).map(text).collect();
        let elements = elements.join(", ");
        (!elements.is_empty()).then(|| format!("    tcp dport {port} {word} saddr {{ {elements} }} accept\n"))
    };
    let (v4, v6) = (family(Ip::V4, "ip").unwrap_or_default(), family(Ip::V6, "ip6").unwrap_or_default());
    format!(
        "# Closes port {port} to all but the peers of this host. Load it with: nft -f FILE
# Take it back with: nft delete table inet {TABLE}
table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  chain relocation {{
    type filter hook input priority {PRIORITY}; policy accept;
    iif \"lo\" accept
{left_out}{v4}{v6}    tcp dport {port} drop
  }}
}}
"
    )
}

fn left_out(needs: &Needs, indent: &str) -> String {
    let names = needs.peers.unresolved.iter().map(|(name, why)| format!("{name}, which has no address ({why})"));
    let patterns = needs.peers.patterns.iter().map(|pattern| format!("{pattern}, which no firewall has"));
    names.chain(patterns).map(|what| format!("{indent}# Not in it: {what}\n")).collect()
}

/// The chain is emptied first, so that the commands can be given again.
fn iptables(needs: &Needs, nets: &[IpNet]) -> String {
    let port = needs.port;
    let mut commands = format!("# Closes port {port} to all but the peers of this host.\n{}", left_out(needs, ""));
    for (ip, tool) in [(Ip::V4, "iptables"), (Ip::V6, "ip6tables")] {
        let jump = format!("INPUT ! -i lo -p tcp --dport {port} -j {IPTABLES_CHAIN}");
        commands += &format!("{tool} -N {IPTABLES_CHAIN} 2>/dev/null || {tool} -F {IPTABLES_CHAIN}\n");
        for net in nets.iter().filter(|net| Ip::of(net.addr()) == ip) {
            commands += &format!("{tool} -A {IPTABLES_CHAIN} -s {} -j RETURN\n", text(net));
        }
        commands += &format!("{tool} -A {IPTABLES_CHAIN} -j DROP\n");
        commands += &format!("{tool} -C {jump} 2>/dev/null || {tool} -I {jump}\n");
    }
    commands
}

/// Whether somebody works with iptables here: its chains have names in capitals.
fn uses_iptables(ruleset: &Ruleset) -> bool {
    let mut tables = ruleset
        .tables
        .iter()
        .filter(|table| table.name == "filter" && matches!(table.family, Family::Ip | Family::Ip6 | Family::Legacy(_)));
    let in_use = |hook: &Hook, rules: usize| hook.point == Point::Input && (rules > 0 || !hook.accepts);
    tables.any(|table| {
        let input = table.chains.get("INPUT");
        input.is_some_and(|chain| chain.hook.as_ref().is_some_and(|hook| in_use(hook, chain.rules.len())))
    })
}

/// A rule at the head of the base chain that refuses them; it decides for that chain alone.
fn opening(port: u16, refusal: &Refusal) -> Vec<String> {
    let Refusal { place, ip, nets } = refusal;
    let Place { family, table, base, .. } = place;
    let nets: Vec<String> = nets.iter().map(text).collect();
    let tool = match (family, ip) {
        (Family::Legacy(_), Ip::V4) => Some("iptables"),
        (Family::Legacy(_), Ip::V6) => Some("ip6tables"),
        (Family::Ip, _) if base == "INPUT" => Some("iptables"),
        (Family::Ip6, _) if base == "INPUT" => Some("ip6tables"),
        _ => None,
    };
    let word = if *ip == Ip::V4 { "ip" } else { "ip6" };
    let with_tool = |tool| {
        nets.iter().map(move |net| format!("{tool} -t {table} -I {base} -p tcp -s {net} --dport {port} -j ACCEPT"))
    };
    match tool {
        Some(tool) => with_tool(tool).collect(),
        None => {
            let (family, nets) = (family.word(), nets.join(", "));
            vec![format!("nft insert rule {family} {table} {base} {word} saddr {{ {nets} }} tcp dport {port} accept")]
        }
    }
}
