//! What became of whom, compared with what should: one row for each peer, family and fate, and the findings.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::packet::Packet;
use super::propose::{self, Proposal};
use super::ruleset::Ruleset;
use super::sources::{Ip, Sources};
use super::walk::{Place, Walk};
use super::{Needs, Peers};

/// Networks that one row names; a firewall with a list of the world's addresses has thousands.
const NETWORKS_MAX: usize = 64;
/// Rules that one row names.
const PLACES_MAX: usize = 4;

/// What the firewall does, and what follows.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The relocation port.
    pub port: u16,
    /// Who is treated how: the peers in their order, then everybody else.
    pub rows: Vec<Row>,
    /// What is not as it should be, or cannot be told.
    pub findings: Vec<Finding>,
    /// Rules that would make it so; none where nothing has to be closed or opened.
    pub proposal: Option<Proposal>,
}

/// Some sources that have the same fate.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The peer; none of everybody else.
    pub peer: Option<String>,
    /// Their family.
    pub family: Ip,
    /// The address of this host that they connect to; any if there is none.
    pub destination: Option<IpAddr>,
    /// Which of their addresses, the first ones of a long list.
    #[serde(serialize_with = "as_text")]
    pub sources: Vec<IpNet>,
    /// How many networks are not named in `sources`.
    pub more_sources: usize,
    /// Whether that is all of them.
    pub whole: bool,
    /// What the firewall does with them.
    pub fate: Fate,
    /// Which rules, or policies, do it, or on which it hangs and why.
    pub by: Vec<String>,
    /// What it should do with them.
    pub wanted: Fate,
}

/// What the firewall does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It comes through.
    Accepted,
    /// It does not, with an answer or without.
    Dropped,
    /// It hangs on something that is not known.
    CannotTell,
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Fate::Accepted => "accepted",
            Fate::Dropped => "dropped",
            Fate::CannotTell => "cannot tell",
        })
    }
}

/// How much a finding of a check matters, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Domains cannot move, or are in danger: here, a peer cannot reach the service.
    Error,
    /// It will become one, or makes one likely: here, the port is open to others; the service refuses them, but meets them.
    Warning,
    /// It cannot be told.
    CannotTell,
    /// Good to know.
    Notice,
}

/// One thing to know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// In a sentence.
    pub text: String,
    /// A stable code, such as `port-open`.
    pub code: &'static str,
}

impl Report {
    /// Of a host that serves no port.
    #[must_use]
    pub fn not_served(port: u16) -> Report {
        let text = "No port is served: relocation.enabled is false".to_owned();
        Report { port, rows: Vec::new(), findings: vec![notice("not-served", text)], proposal: None }
    }

    /// The worst of the findings; none where there is nothing to say.
    #[must_use]
    pub fn worst(&self) -> Option<Level> {
        self.findings.iter().map(|finding| finding.level).min()
    }
}

/// Compares the walks, each an answer to its question, with what is needed.
pub(super) fn report(needs: &Needs, ruleset: &Ruleset, walks: &[(Walk, Packet)]) -> Report {
    let mut rows: Vec<Row> = Vec::new();
    let mut refusals = Vec::new();
    for (walk, packet) in walks {
        for peer in &needs.peers.known {
            let sources = Sources::nets(packet.ip, &peer.nets);
            rows.extend(rows_of(walk, packet, Some(&peer.name), &sources));
            refusals.extend(propose::refusals(walk, packet.ip, &sources));
        }
        rows.extend(rows_of(walk, packet, None, &strangers(packet.ip, &needs.peers)));
    }
    let place = |row: &Row| needs.peers.known.iter().position(|peer| Some(&peer.name) == row.peer.as_ref());
    rows.sort_by_key(|row| place(row).unwrap_or(usize::MAX));
    let mut findings = of_peers(&needs.peers);
    findings.extend(rows.iter().filter_map(|row| of_row(needs.port, ruleset, row)));
    if walks.is_empty() {
        findings.push(notice(
            "loopback-alone",
            "The service listens on loopback addresses only: no firewall is needed".into(),
        ));
    }
    findings.sort();
    let proposal = propose::proposal(needs, ruleset, &rows, refusals);
    Report { port: needs.port, rows, findings, proposal }
}

/// Everybody who could send a packet to this host and is no peer.
fn strangers(ip: Ip, peers: &Peers) -> Sources {
    // Addresses that no connection from elsewhere can have: this host's own, multicast, reserved.
    let nobody = ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/127", "::ffff:0:0/96", "ff00::/8"];
    let nobody: Vec<IpNet> = nobody.iter().filter_map(|net| net.parse().ok()).collect();
    Sources::all(ip).minus(&Sources::nets(ip, &nobody)).minus(&Sources::nets(ip, &peers.nets()))
}

fn rows_of(walk: &Walk, packet: &Packet, peer: Option<&str>, sources: &Sources) -> Vec<Row> {
    let (may, may_not) = (sources.and(&walk.accepted), sources.and(&walk.dropped()));
    let fates = [
        (Fate::Accepted, may.minus(&may_not)),
        (Fate::Dropped, sources.minus(&may)),
        (Fate::CannotTell, may.and(&may_not)),
    ];
    let row = |(fate, some): (Fate, Sources)| {
        let mut nets = some.networks(packet.ip);
        let more_sources = nets.len().saturating_sub(NETWORKS_MAX);
        nets.truncate(NETWORKS_MAX);
        Row {
            peer: peer.map(str::to_owned),
            family: packet.ip,
            destination: packet.destination,
            sources: nets,
            more_sources,
            whole: some == *sources,
            fate,
            by: by(walk, fate, &some),
            wanted: if peer.is_some() { Fate::Accepted } else { Fate::Dropped },
        }
    };
    fates.into_iter().filter(|(_, some)| !some.is_empty()).map(row).collect()
}

/// The rules that matter: of what is accepted those that say so, and a policy only where no rule does.
fn by(walk: &Walk, fate: Fate, some: &Sources) -> Vec<String> {
    let met = |places: &[(Sources, Place)]| -> Vec<Place> {
        places.iter().filter(|(sources, _)| sources.meets(some)).map(|(_, place)| place.clone()).collect()
    };
    let mut by: Vec<String> = match fate {
        Fate::Accepted => {
            let places = met(&walk.accepts);
            let rules = places.iter().any(|place| place.rule.is_some());
            places.iter().filter(|place| place.rule.is_some() == rules).map(Place::to_string).collect()
        }
        Fate::Dropped => met(&walk.drops).iter().map(Place::to_string).collect(),
        Fate::CannotTell => {
            let doubts = walk.doubts.iter().filter(|(sources, _, _)| sources.meets(some));
            doubts.map(|(_, place, why)| format!("{place}: depends on {why}")).collect()
        }
    };
    let mut seen = std::collections::BTreeSet::new();
    by.retain(|text| seen.insert(text.clone()));
    by.truncate(PLACES_MAX);
    by
}

/// What is known before any rule is read.
fn of_peers(peers: &Peers) -> Vec<Finding> {
    let pattern = |pattern: &String| {
        notice(
            "pattern",
            format!("{pattern} of hosts-allow cannot be put into a firewall: give addresses, networks or names there"),
        )
    };
    let unresolved = |(name, why): &(String, String)| Finding {
        level: Level::CannotTell,
        text: format!("{name} has no address ({why}): what the firewall does with it is not known"),
        code: "unresolved",
    };
    let nobody = peers.known.is_empty() && peers.unresolved.is_empty() && peers.patterns.is_empty();
    let nobody = nobody.then(|| {
        notice(
            "no-peers",
            "No peers are known (bascule peers, relocation.hosts-allow): nobody has to reach the port".into(),
        )
    });
    peers.patterns.iter().map(pattern).chain(peers.unresolved.iter().map(unresolved)).chain(nobody).collect()
}

fn notice(code: &'static str, text: String) -> Finding {
    Finding { level: Level::Notice, text, code }
}

fn of_row(port: u16, ruleset: &Ruleset, row: &Row) -> Option<Finding> {
    let (who, by) = (row.who(), row.by.join("; "));
    let (level, code, text) = match (row.wanted, row.fate) {
        (Fate::Accepted, Fate::Dropped) => {
            (Level::Error, "port-closed", format!("Port {port} is closed to {who}, by {by}"))
        }
        (Fate::Dropped, Fate::Accepted) if ruleset.is_void(row.family) => {
            (Level::Warning, "no-firewall", format!("No firewall: port {port} is open to {who}"))
        }
        (Fate::Dropped, Fate::Accepted) => {
            (Level::Warning, "port-open", format!("Port {port} is open to {who}, by {by}"))
        }
        (_, Fate::CannotTell) => {
            (Level::CannotTell, "port-unclear", format!("Whether port {port} is open to {who} cannot be told: {by}"))
        }
        _ => return None,
    };
    Some(Finding { level, text, code })
}

impl Row {
    /// Whom the row is about, in words.
    #[must_use]
    pub fn who(&self) -> String {
        let to = self.destination.map(|to| format!(" to {to}")).unwrap_or_default();
        let part = |all: &str| match self.whole {
            true => all.to_owned(),
            false => format!("{} ({all})", self.shown_sources()),
        };
        match &self.peer {
            Some(peer) => format!("the peer {} over {}{to}", part(peer), self.family),
            None => format!("{} over {}{to}", part("everybody else"), self.family),
        }
    }

    /// Its first addresses.
    #[must_use]
    pub fn shown_sources(&self) -> String {
        const SHOWN: usize = 3;
        let more = self.more_sources + self.sources.len().saturating_sub(SHOWN);
        let mut shown: Vec<String> = self.sources.iter().take(SHOWN).map(text).collect();
        if more > 0 {
            shown.push(format!("{more} more"));
        }
        shown.join(", ")
    }
}

/// A network of one address is written as that.
pub(super) fn text(net: &IpNet) -> String {
    match net.prefix_len() == net.max_prefix_len() {
        true => net.addr().to_string(),
        false => net.to_string(),
    }
}

fn as_text<S: Serializer>(nets: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(nets.iter().map(text))
}
