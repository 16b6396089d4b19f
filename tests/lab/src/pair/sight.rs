//! What a node shows of its domains and volumes, by Xen's and DRBD's own tools and files.

use anyhow::{Context, bail};

use super::Guest;
use crate::node::Node;

/// What DRBD says of one minor on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// This node's role.
    pub here: String,
    /// The peer's role.
    pub peer: String,
}

/// What one node shows of a guest, all by one command.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) domains: Vec<(String, String)>,
    pub(super) roles: Vec<Roles>,
    /// The setting of allow-two-primaries as drbdsetup shows it.
    pub(super) two_primaries: String,
    /// Records of migrations.
    pub(super) records: usize,
}

/// Between what two commands print.
const NEXT: &str = "== next ==";

impl Sight {
    pub(super) fn of(node: &Node, guest: Guest) -> anyhow::Result<Self> {
        let shown = node.ok(&format!(
            "set -e; xl list; echo {NEXT}; cat /proc/drbd; echo {NEXT}; drbdsetup show {} --show-defaults | grep allow-two-primaries; echo {NEXT}; \
             shopt -s nullglob; records=(/run/bascule/migration-*); echo ${{#records[@]}}",
            guest.resource
        ))?;
        let parts: Vec<&str> = shown.split(NEXT).collect();
        let [list, drbd, two_primaries, records] = parts.as_slice() else { bail!("{}: {shown}", node.name()) };
        Ok(Self {
            domains: domains_in(list),
            roles: guest.minors.iter().map(|minor| roles_of(drbd, *minor)).collect::<Result<_, _>>()?,
            two_primaries: (*two_primaries).to_owned(),
            records: records.trim().parse()?,
        })
    }
}

/// The domains of a node but dom0, each with `xl list`'s letters. What is left of one that was destroyed has no name any more: it goes
/// when the last of its pages is let go, a dead TCP connection of DRBD's may hold some for minutes.
///
/// # Errors
/// `xl` fails.
pub fn domains(node: &Node) -> anyhow::Result<Vec<(String, String)>> {
    Ok(domains_in(&node.ok("xl list")?))
}

fn domains_in(list: &str) -> Vec<(String, String)> {
    let rows = list.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() >= 6 && row[0] != "Domain-0" && row[0] != "(null)")
        .map(|row| (row[0].to_owned(), row[4].to_owned()))
        .collect()
}

/// Whether these letters are of a domain that is neither paused nor shut down.
pub(super) fn runs(letters: &str) -> bool {
    !letters.contains(['p', 's', 'c', 'd'])
}

pub(super) fn roles_of(proc: &str, minor: u32) -> anyhow::Result<Roles> {
    let start = format!("{minor}: cs:");
    let line = proc.lines().find(|line| line.trim_start().starts_with(&start));
    let roles = line.and_then(|line| line.split(' ').find_map(|word| word.strip_prefix("ro:")));
    let (here, peer) =
        roles.and_then(|roles| roles.split_once('/')).with_context(|| format!("minor {minor} in {proc}"))?;
    Ok(Roles { here: here.to_owned(), peer: peer.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_from_proc_drbd() {
        let proc = "version: 8.4.11 (api:1/proto:86-101)\n\n 1: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n";
        assert_eq!(roles_of(proc, 1).expect("roles"), Roles { here: "Primary".into(), peer: "Secondary".into() });
        assert!(roles_of(proc, 0).is_err());
    }
}
