//! What the files say, what the kernel has, and what in either is a danger to domains that move. A pure function: nothing is asked here.
//!
//! What is set for good stands in the files; what is set now, the kernel has. A migration sets some of it for a moment, and the next
//! `drbdadm adjust` makes all of it as the files have it.

mod drift;
mod safety;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use drbd_conf::{Config, Connection, Mistakes, Resource, Setting};
use drbd_nl::{Dialect, DiskConf, NetConf, ResourceStatus};

use crate::protocol::{Finding, Severity};

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'s> {
    /// The files, as this host sees them; `None` where there are none.
    pub files: Result<Option<&'s Config>, &'s Mistakes>,
    /// The kernel's resources; `None` where its module is not loaded.
    pub kernel: Option<(&'s [Now], Dialect)>,
    /// The resources with an unfinished migration: what that sets for a moment is no finding.
    pub migrating: &'s [String],
    /// This host's name, for findings.
    pub node: &'s str,
    /// This host's name as the files have it.
    pub uname: &'s str,
}

/// What the kernel has of a resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Now {
    /// Its name.
    pub name: String,
    /// Its connections. 8.4 has at most one, and none when it is StandAlone.
    pub connections: Vec<NowConnection>,
    /// Its volumes on this host.
    pub volumes: Vec<NowVolume>,
}

/// What the kernel has of a connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NowConnection {
    /// The peer's node id (9).
    pub peer_node_id: Option<u32>,
    /// This host's end, where it is an internet address.
    pub mine: Option<SocketAddr>,
    /// The peer's end.
    pub peers: Option<SocketAddr>,
    /// Its options.
    pub net: NetConf,
}

/// What the kernel has of a volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NowVolume {
    /// Its number.
    pub number: u32,
    /// Its minor.
    pub minor: u32,
    /// The disk below; `None` where it has none.
    pub disk: Option<String>,
    /// Its options.
    pub conf: DiskConf,
}

impl From<&ResourceStatus> for Now {
    fn from(status: &ResourceStatus) -> Now {
        let connections = status.connections.iter().map(|connection| NowConnection {
            peer_node_id: connection.peer_node_id,
            mine: connection.my_addr.socket_addr(),
            peers: connection.peer_addr.socket_addr(),
            net: connection.net.clone(),
        });
        let volumes = status.volumes.iter().map(|volume| NowVolume {
            number: volume.volume,
            minor: volume.minor,
            disk: volume.backing_dev.clone(),
            conf: volume.disk.clone(),
        });
        Now { name: status.name.clone(), connections: connections.collect(), volumes: volumes.collect() }
    }
}

/// Everything that is to be said, in the order of the files.
#[must_use]
pub fn review(seen: &Seen<'_>) -> Vec<Finding> {
    let report = Reporter { node: seen.node };
    let config = match seen.files {
        Ok(Some(config)) => config,
        Ok(None) => return vec![no_files(&report)],
        Err(mistakes) => return refused(&report, mistakes),
    };
    let mut findings = Vec::new();
    if seen.kernel.is_none() {
        findings.push(report.warning(
            "drbd-not-loaded",
            "DRBD's module is not loaded: what is set now cannot be seen",
            "Type: modprobe drbd",
        ));
    }
    for resource in config.resources.iter().filter(|resource| resource.mine().is_some()) {
        let mut review = Review { seen, report: &report, resource, findings: Vec::new() };
        review.look();
        findings.append(&mut review.findings);
    }
    findings.extend(strangers(seen, &report, config));
    findings
}

/// The resources that the files have for this host, and that are not among those that are up.
#[must_use]
pub fn down<'c>(config: &'c Config, up: &[&str]) -> Vec<&'c Resource> {
    let mine = config.resources.iter().filter(|resource| resource.mine().is_some());
    mine.filter(|resource| !up.contains(&resource.name.as_str())).collect()
}

fn no_files(report: &Reporter<'_>) -> Finding {
    let found = format!("there is none of {}", drbd_conf::FILES.join(", "));
    report.warning("drbd-conf-missing", found, "Write one, or say what DRBD does by hand: see drbd.conf(5)")
}

fn refused(report: &Reporter<'_>, mistakes: &Mistakes) -> Vec<Finding> {
    let remedy = "Correct it, then type: drbdadm dump >/dev/null";
    let mut findings: Vec<Finding> =
        mistakes.told.iter().map(|mistake| report.error("drbd-conf-mistake", mistake.to_string(), remedy)).collect();
    if mistakes.untold > 0 {
        findings.push(report.error(
            "drbd-conf-mistake",
            format!("there are {} more mistakes", mistakes.untold),
            remedy,
        ));
    }
    findings
}

/// What the kernel has and the files have not.
fn strangers(seen: &Seen<'_>, report: &Reporter<'_>, config: &Config) -> Vec<Finding> {
    let kernel = seen.kernel.map_or(&[][..], |(kernel, _)| kernel);
    let known = |name: &str| config.resource(name).is_some_and(|resource| resource.mine().is_some());
    let strange = kernel.iter().filter(|resource| !known(&resource.name)).map(|resource| {
        report.warning(
            "resource-not-in-files",
            format!("resource {} is up and not in the files: it will not come back after a boot", resource.name),
            format!(
                "Write it into {}",
                config.files.first().map_or_else(String::new, |file| file.display().to_string())
            ),
        )
    });
    strange.collect()
}

/// Writes findings of this host.
pub(crate) struct Reporter<'s> {
    node: &'s str,
}

impl Reporter<'_> {
    fn error(&self, code: &str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(Severity::Error, code, found.into(), remedy.into())
    }

    fn warning(&self, code: &str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(Severity::Warning, code, found.into(), remedy.into())
    }

    fn finding(&self, severity: Severity, code: &str, found: String, remedy: String) -> Finding {
        Finding { code: code.to_owned(), severity, node: self.node.to_owned(), found, remedy }
    }
}

/// One resource that is looked at.
pub(crate) struct Review<'s> {
    pub(crate) seen: &'s Seen<'s>,
    pub(crate) report: &'s Reporter<'s>,
    pub(crate) resource: &'s Resource,
    pub(crate) findings: Vec<Finding>,
}

impl<'s> Review<'s> {
    fn look(&mut self) {
        let resource = self.resource;
        for (connection, _, peer) in resource.my_connections() {
            self.judge_connection(connection, &peer.name);
        }
        self.judge_disks();
        self.judge_handlers();
        let Some((kernel, dialect)) = self.seen.kernel else { return };
        match kernel.iter().find(|known| known.name == resource.name) {
            None => self.tell_down(),
            Some(status) => self.compare(status, dialect),
        }
    }

    fn tell_down(&mut self) {
        let name = &self.resource.name;
        let found = format!("resource {name} is in the files ({}) and down", self.resource.place);
        self.warn("resource-down", found, format!("Type: bascule drbd up {name}"));
    }

    pub(crate) fn warn(&mut self, code: &str, found: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(self.report.warning(code, found, remedy));
    }

    /// Whether somebody moves a domain that has this resource.
    pub(crate) fn is_migrating(&self) -> bool {
        self.seen.migrating.contains(&self.resource.name)
    }

    /// What to type when a line of the files has been changed.
    pub(crate) fn adjust(&self) -> String {
        format!("on both hosts, then type: drbdadm adjust {}", self.resource.name)
    }
}

/// A connection's setting that has this value.
pub(crate) fn set_to<'c>(connection: &'c Connection, name: &str, values: &[&str]) -> Option<&'c Setting> {
    connection.net.get(name).filter(|setting| values.contains(&setting.value.as_str()))
}
