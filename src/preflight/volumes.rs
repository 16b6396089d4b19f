//! What either end requires of the volumes under a domain's disks.

use super::Code;
use crate::host::Host;
use crate::ids::VolumeId;
use crate::plan::{self, PlannedVolume};
use crate::protocol::{Finding, Handover, OfferedVolume};
use crate::replication::{Attachment, VolumeState};
use crate::toolstack::Error;

/// The volumes as DRBD has them now; those that it has not are findings.
pub(super) fn look<'a>(
    host: &Host<'_>,
    ids: impl Iterator<Item = &'a VolumeId>,
    findings: &mut Vec<Finding>,
) -> Result<Vec<PlannedVolume>, Error> {
    let mut volumes = Vec::new();
    for id in ids {
        match host.replication.state(id)? {
            Some(state) => volumes.push(PlannedVolume { state, attachment: host.replication.attachment(id)? }),
            None => findings.push(unknown(host, &id.resource, &id.to_string())),
        }
    }
    Ok(volumes)
}

/// The volume of a resource that this host does not have.
pub(super) fn unknown(host: &Host<'_>, resource: &str, volume: &str) -> Finding {
    let found = format!("Volume {volume} is not configured in the kernel");
    host.error(Code::VolumeUnknown, found, format!("Bring the resource up: bascule drbd up {resource}"))
}

/// The handover that was asked for, else the one that the disks' attachment allows.
pub(super) fn choose_handover(
    host: &Host<'_>,
    asked: Option<Handover>,
    volumes: &[PlannedVolume],
    findings: &mut Vec<Finding>,
) -> Handover {
    let possible = plan::handover_for(volumes);
    if asked == Some(Handover::Single) && possible == Handover::Dual {
        let direct: Vec<String> = volumes
            .iter()
            .filter(|volume| volume.attachment == Attachment::Direct)
            .map(|volume| volume.state.id.to_string())
            .collect();
        let found = format!(
            "{} is attached straight to DRBD, so it cannot be released while the domain lives",
            direct.join(", ")
        );
        let remedy = "Use --handover dual for this once; from then on single works";
        findings.push(host.error(Code::AttachedDirectly, found, remedy));
    }
    asked.unwrap_or(possible)
}

pub(super) fn source_findings(host: &Host<'_>, volume: &VolumeState, handover: Handover) -> Vec<Finding> {
    let mut findings = replication_findings(host, volume);
    if !volume.primary {
        let found = format!("This host is not Primary on {}, though the domain uses it", volume.id);
        let remedy = "Look at bascule status: the disk may be lost to the domain";
        findings.push(host.error(Code::NotPrimary, found, remedy));
    }
    if volume.connected && volume.peer_primary {
        let found = format!("{} is Primary on {} already", volume.peer, volume.id);
        let remedy = format!("There: drbdadm secondary {}", volume.id.resource);
        findings.push(host.error(Code::PeerPrimary, found, remedy));
    }
    match (volume.protocol, handover) {
        (Some('C') | None, _) => {}
        (Some(protocol), Handover::Dual) => {
            let found = format!("{} uses protocol {protocol}; two Primaries need protocol C", volume.id);
            let remedy = "Set protocol C and drbdadm adjust, or use --handover single";
            findings.push(host.error(Code::Protocol, found, remedy));
        }
        (Some(protocol), Handover::Single) => {
            let found =
                format!("{} uses protocol {protocol}: a crash of this host can lose the last writes", volume.id);
            findings.push(host.warning(Code::Protocol, found, "Protocol C is what domains that move should have"));
        }
    }
    findings
}

/// What either end requires of the replication of a volume.
fn replication_findings(host: &Host<'_>, volume: &VolumeState) -> Vec<Finding> {
    let (id, resource) = (&volume.id, &volume.id.resource);
    if !volume.connected {
        let found = format!("{id} is not connected to {}: {}", volume.peer, volume.connection);
        let remedy = format!("Check the replication link, then: drbdadm connect {resource}");
        return vec![host.error(Code::NotConnected, found, remedy)];
    }
    let mut findings = Vec::new();
    if !volume.up_to_date {
        let found =
            format!("{id} is {} here and {} on {}, not UpToDate on both", volume.disk, volume.peer_disk, volume.peer);
        let remedy = bring_up_to_date(resource, volume.resyncing, (&volume.disk, &volume.peer_disk));
        findings.push(host.error(Code::NotUpToDate, found, remedy));
    }
    if volume.resyncing {
        let found = format!("{id} is being resynchronised or verified ({})", volume.replication);
        findings.push(host.error(Code::Resync, found, "Wait for it to end: bascule status shows it"));
    }
    findings
}

/// What helps a volume that is not UpToDate on both hosts.
fn bring_up_to_date(resource: &str, resyncing: bool, disks: (&str, &str)) -> String {
    let attach = format!("look in dmesg why it lost its disk, then: drbdadm attach {resource}");
    match disks {
        _ if resyncing => "Wait for the resync to end: bascule status shows it".to_owned(),
        (DISKLESS, _) => format!("Here {attach}"),
        (_, DISKLESS) => format!("There {attach}"),
        _ => format!("No resync runs: look in dmesg why, on both hosts, then: drbdadm adjust {resource}"),
    }
}

/// DRBD's word for a volume without a disk of its own.
const DISKLESS: &str = "Diskless";

pub(super) fn destination_findings(host: &Host<'_>, offered: &OfferedVolume) -> Result<Vec<Finding>, Error> {
    let id = &offered.id;
    let Some(volume) = host.replication.state(id)? else {
        return Ok(vec![unknown(host, &id.resource, &id.to_string())]);
    };
    let mut findings = replication_findings(host, &volume);
    if volume.primary {
        let found = format!("This host is Primary on {id} already");
        findings.push(host.error(Code::DestinationPrimary, found, format!("drbdadm secondary {}", id.resource)));
    }
    if let Some(holder) = host.replication.holder(id)? {
        findings.push(held_open(host, &id.to_string(), &holder));
    }
    if volume.size_sectors != offered.size_sectors {
        let found = format!("{id} has {} sectors here and {} at the source", volume.size_sectors, offered.size_sectors);
        findings.push(host.error(Code::SizeDiffers, found, ANOTHER_RESOURCE));
    }
    // Until a resync has ended its target has another one.
    let is_settled = volume.connected && volume.up_to_date && !volume.resyncing;
    if is_settled && volume.generation != offered.generation {
        let found = format!("{id} has another data generation here than at the source");
        findings.push(host.error(Code::GenerationDiffers, found, ANOTHER_RESOURCE));
    }
    Ok(findings)
}

const ANOTHER_RESOURCE: &str = "Two resources of one name? Compare drbdadm dump on both hosts";

pub(super) fn held_open(host: &Host<'_>, what: &str, holder: &str) -> Finding {
    let remedy = "End that user first: kill a process, umount a file system, dmsetup remove a device";
    host.error(Code::HeldOpen, format!("{what} is held open by {holder}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_resync_is_waited_for() {
        let remedy = |resyncing, disks| bring_up_to_date("r0", resyncing, disks);
        assert!(remedy(true, ("UpToDate", "Inconsistent")).starts_with("Wait"));
        assert!(remedy(false, ("UpToDate", DISKLESS)).starts_with("There look"));
        assert!(remedy(false, (DISKLESS, "UpToDate")).ends_with("drbdadm attach r0"));
        assert!(remedy(false, ("UpToDate", "Outdated")).ends_with("drbdadm adjust r0"));
    }
}
