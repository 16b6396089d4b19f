//! `bascule check --firewall`: what the host's firewall does with the relocation port.

use std::net::IpAddr;

use bascule::config::{Config, Relocation};
use bascule::firewall::{self, Known, Level, Needs, Peers, Proposal, Report, Row};
use bascule::host;
use bascule::tls::Pins;
use comfy_table::{Table, presets};
use serde_json::json;

use super::super::exit::Error;
use super::{Part, Verdict, word};

pub(super) const NAME: &str = "firewall";

pub(super) fn part(config: &Config) -> Result<Part, Error> {
    let report = look(config)?;
    let (verdict, mut json) = (verdict(&report), json!(report));
    json["node"] = json!(host::node_name());
    Ok(Part { name: NAME, verdict, json, show: Box::new(move || show(&report)) })
}

/// How good what was found is.
fn verdict(report: &Report) -> Verdict {
    match report.worst() {
        Some(Level::Error | Level::Warning) => Verdict::Differs,
        Some(Level::CannotTell) => Verdict::CannotTell,
        Some(Level::Notice) | None => Verdict::Good,
    }
}

fn look(config: &Config) -> Result<Report, Error> {
    let relocation = &config.relocation;
    if !relocation.enabled {
        return Ok(Report::not_served(relocation.port));
    }
    let peers = Peers::new(&relocation.hosts_allow, &known(config)?, &firewall::system);
    Ok(firewall::check(&Needs { port: relocation.port, listen: listen(relocation)?, peers })?)
}

/// Who can prove who he is, or need not.
fn known(config: &Config) -> Result<Vec<Known>, Error> {
    let security = &config.security;
    let alike = |name: &String| Known { name: name.clone(), address: name.clone() };
    let mut known: Vec<Known> = match &security.authority {
        Some(_) => security.names.iter().map(alike).collect(),
        None => {
            let pins = Pins::read(&config.state.dir)?;
            pins.iter().map(|pin| Known { name: pin.name.clone(), address: pin.address.clone() }).collect()
        }
    };
    known.extend(security.in_clear.texts().iter().map(alike));
    Ok(known)
}

fn listen(relocation: &Relocation) -> Result<Vec<IpAddr>, Error> {
    let mut listen = Vec::new();
    for address in &relocation.address {
        listen.extend(address.resolve(relocation.port)?.into_iter().map(|found| found.ip()));
    }
    Ok(listen)
}

fn show(report: &Report) {
    if !report.rows.is_empty() {
        out!("{}\n", table(report).trim_fmt());
    }
    for finding in &report.findings {
        out!("{}: {}. [{}]", word(finding.level), finding.text, finding.code);
    }
    if report.findings.is_empty() {
        out!("Port {} is open to the peers, and to nobody else.", report.port);
    }
    report.proposal.iter().for_each(propose);
}

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["Who", "Addresses", "To", "Now", "Should be", "By"]);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    report.rows.iter().for_each(|row| {
        table.add_row(cells(row));
    });
    table
}

fn cells(row: &Row) -> [String; 6] {
    let addresses = match (&row.peer, row.whole) {
        (None, true) => format!("all of {}", row.family),
        _ => row.shown_sources(),
    };
    [
        row.peer.clone().unwrap_or_else(|| "everybody else".into()),
        addresses,
        row.destination.map_or_else(|| "any".into(), |to| to.to_string()),
        row.fate.to_string(),
        row.wanted.to_string(),
        if row.by.is_empty() { "no rule".into() } else { row.by.join("\n") },
    ]
}

fn propose(proposal: &Proposal) {
    if !proposal.open.is_empty() {
        out!("\nThis would let the peers pass:\n\n{}", proposal.open.join("\n"));
    }
    for (how, text) in [("nft -f", &proposal.nft), ("a shell", &proposal.iptables)] {
        if let Some(text) = text {
            out!("\nThis would close the port to all but the peers (for {how}):\n\n{}", text.trim_end());
        }
    }
}
