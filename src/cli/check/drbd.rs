//! `bascule check --drbd`: DRBD's state, its files, its kernel, and what in them is a danger to domains that move.

use std::path::Path;

use bascule::checkup::{self, Finding, Level, Ways};
use bascule::drbd::conf;
use bascule::drbd::review::{Now, Seen, review};
use bascule::host;
use bascule::migrate::chain;
use drbd_nl::Dialect;

use super::super::exit::Error;
use super::super::unfinished;
use super::Part;

pub(super) const NAME: &str = "drbd";
const GOOD: &str = "DRBD's files and its kernel agree, and nothing in them is a danger to domains that move.";

/// Reads the files, asks the kernel and compares.
pub(super) fn part(state_dir: &Path, ways: &Ways) -> Result<Part, Error> {
    let files = conf::here();
    let kernel = kernel(ways)?;
    let (node, uname) = (host::node_name(), conf::node().name);
    let reviewed = review(&Seen {
        files: files.as_ref().map(Option::as_ref),
        kernel: kernel.as_ref().map(|(resources, dialect)| (resources.as_slice(), *dialect)),
        migrating: &unfinished::resources(state_dir)?,
        node: &node,
        uname: &uname,
    });
    let mut findings: Vec<Finding> = reviewed.into_iter().map(told).collect();
    findings.extend(match (&kernel, ways.replication()) {
        (Some(_), Ok(replication)) => checkup::storage(&node, Some(&replication.inventory()?)),
        // The review has told it where there are files.
        _ if findings.iter().any(|finding| finding.code == "drbd-not-loaded") => Vec::new(),
        _ => checkup::storage(&node, None),
    });
    findings.sort_by_key(|finding| finding.severity);
    Ok(Part::of(NAME, findings, GOOD))
}

/// Nothing differs from files that are not there.
fn told(finding: bascule::protocol::Finding) -> Finding {
    let finding = Finding::from(finding);
    match finding.code.as_str() {
        "drbd-conf-missing" => Finding { severity: Level::CannotTell, ..finding },
        _ => finding,
    }
}

/// What the kernel has; nothing without the module.
fn kernel(ways: &Ways) -> Result<Option<(Vec<Now>, Dialect)>, Error> {
    let drbd = match &ways.drbd {
        Ok(drbd) => drbd,
        Err(drbd_nl::Error::NotLoaded) => return Ok(None),
        Err(error) => return Err(chain(error).into()),
    };
    let resources = drbd.status()?.iter().map(Now::from).collect();
    Ok(Some((resources, drbd.dialect())))
}
