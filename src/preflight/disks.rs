//! Where a domain's disks lie: on volumes, or on what both hosts have. Whatever is written to must be one of the two for sure.

use std::path::Path;

use super::{Code, volumes};
use crate::host::Host;
use crate::ids::{DomId, VolumeId};
use crate::plan::{DiskFacts, HOTPLUG_PROGRAM};
use crate::protocol::{DiskUse, Finding, OfferedDisk};
use crate::toolstack::Error;

/// A domain's disks by where they lie.
#[derive(Clone, Debug, Default)]
pub(super) struct Placed {
    /// The volumes, each with the index of its disk in the configuration.
    pub(super) volumes: Vec<(usize, VolumeId)>,
    /// What lies on none and can move all the same.
    pub(super) local: Vec<OfferedDisk>,
}

/// Finds where each disk of a domain lies; `shared` are those of which the user says that both hosts have them. An empty drive lies nowhere.
pub(super) fn place(
    host: &Host<'_>,
    (domid, disks): (DomId, &[DiskFacts]),
    shared: &[String],
    findings: &mut Vec<Finding>,
) -> Result<Placed, Error> {
    let mut placed = Placed::default();
    let by_kernel = host.toolstack.disks_of_the_kernel(domid)?;
    for (index, disk) in disks.iter().enumerate().filter(|(_, disk)| !disk.target.is_empty()) {
        let found = match host.replication.resolve(&disk.target)? {
            Some(id) => placed.on_volume(host, index, disk, id),
            None => placed.elsewhere(host, disk, (shared.contains(&disk.vdev), by_kernel.contains(&disk.vdev)))?,
        };
        findings.extend(found);
    }
    findings.extend(not_shared(host, disks, shared, &placed));
    Ok(placed)
}

impl Placed {
    /// The names of those that both hosts write.
    pub(super) fn shared(&self) -> impl Iterator<Item = &str> + Clone {
        self.local.iter().filter(|disk| disk.usage == DiskUse::Shared).map(|disk| disk.vdev.as_str())
    }

    fn on_volume(&mut self, host: &Host<'_>, index: usize, disk: &DiskFacts, id: VolumeId) -> Option<Finding> {
        let (is_raw, is_new) = (disk.is_raw(), self.volumes.iter().all(|(_, other)| *other != id));
        match (is_raw, is_new) {
            (true, true) => {
                self.volumes.push((index, id));
                None
            }
            (false, _) => Some(not_raw(host, disk)),
            (true, false) => {
                let found = format!("Disk {} is {id}, as another disk of the domain", disk.vdev);
                Some(host.error(Code::DiskTwice, found, "Take one of the two out of the domain first"))
            }
        }
    }

    fn elsewhere(
        &mut self,
        host: &Host<'_>,
        disk: &DiskFacts,
        (is_shared, by_kernel): (bool, bool),
    ) -> Result<Option<Finding>, Error> {
        let DiskFacts { vdev, target, .. } = disk;
        if disk.names_a_volume() {
            let resource = target.split('/').next().filter(|name| !name.is_empty()).unwrap_or("RES");
            return Ok(Some(volumes::unknown(host, resource, target)));
        }
        let usage = match usage(disk, is_shared, by_kernel) {
            Ok(usage) if disk.is_raw() => usage,
            Ok(_) => return Ok(Some(not_raw(host, disk))),
            Err(refusal) => return Ok(Some(refusal.finding(host, disk))),
        };
        let Some(backing) = host.toolstack.backing(Path::new(target))? else {
            return Ok(Some(missing(host, vdev, target)));
        };
        self.local.push(OfferedDisk { vdev: vdev.clone(), path: target.clone(), usage, backing });
        Ok(None)
    }
}

impl DiskFacts {
    /// libxl takes for raw what says nothing.
    fn is_raw(&self) -> bool {
        matches!(self.format.as_str(), "raw" | "unknown")
    }

    /// Whether it can be nothing but a volume, also where DRBD knows of none.
    fn names_a_volume(&self) -> bool {
        self.script.as_deref().is_some_and(|script| script.rsplit('/').next() == Some(HOTPLUG_PROGRAM))
            || self.target.starts_with("/dev/drbd")
    }
}

/// Why a disk that is no volume cannot move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// A program attaches it, and nobody can tell to what.
    Program,
    /// It is written to, and nobody has said that the other host has it.
    Written,
    /// What was written may be in this host's memory only.
    Cached,
}

/// How a disk that is no volume may be used at the destination. A disk that is written to must be served by the block backend of the kernel,
/// which goes past this host's page cache, and of which it can be seen that all has been written before the other host reads (I4).
fn usage(disk: &DiskFacts, is_shared: bool, by_kernel: bool) -> Result<DiskUse, Refusal> {
    match (&disk.script, disk.writable, is_shared) {
        (Some(_), ..) => Err(Refusal::Program),
        (None, false, _) => Ok(DiskUse::ReadOnly),
        (None, true, false) => Err(Refusal::Written),
        (None, true, true) if by_kernel => Ok(DiskUse::Shared),
        (None, true, true) => Err(Refusal::Cached),
    }
}

impl Refusal {
    fn finding(self, host: &Host<'_>, disk: &DiskFacts) -> Finding {
        let DiskFacts { vdev, target, .. } = disk;
        match self {
            Refusal::Program => {
                let program = disk.script.as_deref().unwrap_or_default();
                let found = format!("Disk {vdev} ({target}) is attached by the program {program}, not a DRBD volume");
                host.error(
                    Code::DiskNotReplicated,
                    found,
                    "Put it on a DRBD volume, or take it out of the domain first",
                )
            }
            Refusal::Written => {
                let found = format!("Disk {vdev} ({target}) is not a DRBD volume");
                let remedy = format!(
                    "Put it on a DRBD volume, or take it out of the domain first; if both hosts have the same storage at {target}: \
                     --shared-disk {vdev}"
                );
                host.error(Code::DiskNotReplicated, found, remedy)
            }
            Refusal::Cached => {
                let found = format!(
                    "Disk {vdev} ({target}) is not served by the kernel from a block device: what was written may be in this host's page cache only"
                );
                let remedy = "Only a block device that the kernel serves (phy:) can be shared; put it on one, or on a DRBD volume";
                host.error(Code::SharedDiskCached, found, remedy)
            }
        }
    }
}

fn not_raw(host: &Host<'_>, disk: &DiskFacts) -> Finding {
    let found = format!("Disk {} ({}) has the format {}, not raw", disk.vdev, disk.target, disk.format);
    host.error(Code::DiskFormat, found, "Convert it, with the domain shut down: qemu-img convert -O raw")
}

fn missing(host: &Host<'_>, vdev: &str, path: &str) -> Finding {
    let found = format!("{path} (disk {vdev}) is no block device or file of this host");
    let remedy = format!(
        "Put it there; or, if it is a CD-ROM that the guest can do without, at the source: xl cd-eject DOMAIN {vdev}"
    );
    host.error(Code::DiskMissing, found, remedy)
}

/// What the user calls shared and is not: no disk at all, or one that needs no such word.
fn not_shared<'a>(
    host: &'a Host<'_>,
    disks: &'a [DiskFacts],
    shared: &'a [String],
    placed: &'a Placed,
) -> impl Iterator<Item = Finding> {
    shared.iter().filter_map(move |vdev| {
        let index = disks.iter().position(|disk| disk.vdev == *vdev);
        let found = match index.map(|index| (index, &disks[index])) {
            None => format!("The domain has no disk {vdev}, which --shared-disk names"),
            Some((index, disk)) => match placed.volumes.iter().find(|(other, _)| *other == index) {
                Some((_, id)) => format!("Disk {vdev}, which --shared-disk names, is the DRBD volume {id}"),
                None if !disk.writable => format!("Disk {vdev}, which --shared-disk names, is only read"),
                None => return None,
            },
        };
        let all: Vec<&str> = disks.iter().map(|disk| disk.vdev.as_str()).collect();
        let remedy = format!("Leave it out, or name another: its disks are {}", all.join(", "));
        Some(host.error(Code::SharedDiskUnknown, found, remedy))
    })
}

/// What stands against a disk on no volume at the destination. What is not allowed is not even looked for.
pub(super) fn destination_findings(host: &Host<'_>, offered: &OfferedDisk) -> Result<Vec<Finding>, Error> {
    let OfferedDisk { vdev, path, usage, backing } = offered;
    if !host.guests.allows_disk(*usage, Path::new(path)) {
        return Ok(vec![not_allowed(host, offered)]);
    }
    let mut findings = Vec::new();
    match host.toolstack.backing(Path::new(path))? {
        None => return Ok(vec![missing(host, vdev, path)]),
        Some(here) if here != *backing => {
            let found = format!("{path} (disk {vdev}) is {here} here and {backing} at the source");
            findings.push(host.error(
                Code::DiskDiffers,
                found,
                "Make both the same, or take it out of the domain first",
            ));
        }
        Some(_) => {
            let found =
                format!("Of {path} (disk {vdev}) only kind and size were compared, which are those of the source");
            let remedy = match usage {
                DiskUse::ReadOnly => format!("If in doubt, on both hosts: sha256sum {path}"),
                DiskUse::Shared => {
                    format!("It must be the same storage; if in doubt, on both hosts: udevadm info {path}")
                }
            };
            findings.push(host.warning(Code::DiskNotCompared, found, remedy));
        }
    }
    if *usage == DiskUse::Shared {
        if let Some(volume) = host.replication.resolve(path)? {
            let found = format!("{path} (disk {vdev}) is the DRBD volume {volume} here, and none at the source");
            findings.push(host.error(Code::DiskDiffers, found, "Give it another name on one of the hosts"));
        }
        findings.extend(host.toolstack.holder(Path::new(path)).map(|holder| volumes::held_open(host, path, &holder)));
    }
    Ok(findings)
}

fn not_allowed(host: &Host<'_>, offered: &OfferedDisk) -> Finding {
    let OfferedDisk { vdev, path, usage, .. } = offered;
    let (does, key) = match usage {
        DiskUse::ReadOnly => ("read", "read-only-disks"),
        DiskUse::Shared => ("write", "shared-disks"),
    };
    let found = format!("This host does not allow a domain from elsewhere to {does} {path} (disk {vdev})");
    let remedy = format!(
        "In {} there, under [guests]: {key} = [{path:?}], beside what stands there; then systemctl reload bascule",
        crate::config::FILE
    );
    host.error(Code::DiskNotAllowed, found, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(script: Option<&str>, writable: bool) -> DiskFacts {
        DiskFacts {
            vdev: "xvdb".into(),
            target: "/srv/x".into(),
            script: script.map(str::to_owned),
            format: "raw".into(),
            writable,
        }
    }

    #[test]
    fn what_is_only_read_may_be_anything_and_what_is_written_a_device_of_both() {
        assert_eq!(usage(&disk(None, false), false, false), Ok(DiskUse::ReadOnly));
        assert_eq!(usage(&disk(None, false), true, true), Ok(DiskUse::ReadOnly));
        assert_eq!(usage(&disk(None, true), true, true), Ok(DiskUse::Shared));
        assert_eq!(usage(&disk(None, true), false, true), Err(Refusal::Written));
        assert_eq!(usage(&disk(None, true), true, false), Err(Refusal::Cached));
        for writable in [false, true] {
            assert_eq!(usage(&disk(Some("block-nbd"), writable), true, true), Err(Refusal::Program));
        }
    }

    #[test]
    fn what_must_be_a_volume_is_told_from_what_need_not() {
        let named = |script, target: &str| DiskFacts { target: target.into(), ..disk(script, true) };
        assert!(named(Some("block-drbd"), "r0").names_a_volume());
        assert!(named(Some("/etc/xen/scripts/block-drbd"), "r0/1").names_a_volume());
        assert!(named(None, "/dev/drbd7").names_a_volume());
        assert!(!named(Some("block-nbd"), "r0").names_a_volume());
        assert!(!named(None, "/dev/vg/drbd").names_a_volume());
    }
}
