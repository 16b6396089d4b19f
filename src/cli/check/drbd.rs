//! `bascule check --drbd`: DRBD's files, its kernel, and what in either is a danger to domains that move.

use std::path::Path;

use bascule::drbd::review::{Now, Seen, review};
use bascule::drbd::{Drbd, conf};
use bascule::host;
use bascule::protocol::{Finding, Severity};

use super::super::exit::Error;
use super::super::unfinished;
use super::Verdict;

/// Reads the files, asks the kernel and compares.
pub(super) fn look(state_dir: &Path) -> Result<Vec<Finding>, Error> {
    let files = conf::here();
    let kernel = kernel()?;
    let (node, uname) = (host::node_name(), conf::node().name);
    Ok(review(&Seen {
        files: files.as_ref().map(Option::as_ref),
        kernel: kernel.as_ref().map(|(resources, dialect)| (resources.as_slice(), *dialect)),
        migrating: &migrating(state_dir)?,
        node: &node,
        uname: &uname,
    }))
}

/// What the kernel has; nothing without the module.
fn kernel() -> Result<Option<(Vec<Now>, drbd_nl::Dialect)>, Error> {
    let drbd = match Drbd::open() {
        Err(drbd_nl::Error::NotLoaded) => return Ok(None),
        drbd => drbd?,
    };
    let resources = drbd.status()?.iter().map(Now::from).collect();
    Ok(Some((resources, drbd.dialect())))
}

/// The resources that unfinished migrations name.
fn migrating(state_dir: &Path) -> Result<Vec<String>, Error> {
    let stories = unfinished::stories(state_dir)?;
    let volumes = stories.iter().flat_map(|story| &story.head.volumes);
    Ok(volumes.map(|volume| volume.id.resource.clone()).collect())
}

pub(super) fn verdict(findings: &[Finding]) -> Verdict {
    match findings {
        [] => Verdict::Good,
        // Nothing differs from files that are not there.
        [only] if only.code == "drbd-conf-missing" => Verdict::CannotTell,
        _ => Verdict::Differs,
    }
}

pub(super) fn show(findings: &[Finding]) {
    for finding in findings {
        let word = if finding.severity == Severity::Error { "error" } else { "warning" };
        out!("{word}: {} [{}]\n  -> {}", finding.found, finding.code, finding.remedy);
    }
    if findings.is_empty() {
        out!("DRBD's files and its kernel agree, and nothing in them is a danger to domains that move.");
    }
}
