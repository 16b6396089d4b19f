//! Preflight: draws the [`Plan`] and finds, read-only, everything on this host that would make the migration fail.
//!
//! All findings come at once, each with what to do about it. The source runs [`draw`], the destination [`destination`]
//! on the offer that it got.

pub mod trust;

use crate::host::Host;
use crate::ids::{DomId, VolumeId};
use crate::journal;
use crate::plan::{self, DiskFacts, DomainFacts, Plan, PlannedVolume, Request};
use crate::protocol::{Finding, Handover, Offer, OfferedVolume, Severity};
use crate::replication::{Attachment, VolumeState};
use crate::toolstack::{Domain, Error, RunState};

/// Memory that a domain needs on top of its own pages, in KiB: page tables, its shared pages and what Xen keeps of it.
const MEMORY_OVERHEAD_KIB: u64 = 4 << 10;

/// A plan, and what stands against it on this host.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The plan.
    pub plan: Plan,
    /// Findings on this host, errors and warnings.
    pub findings: Vec<Finding>,
}

/// Whether any of the findings stops the migration.
pub fn stops(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

/// Draws the plan for a request and checks the source's half of it.
///
/// # Errors
/// What could not be looked at: the domain does not exist, libxl or DRBD do not answer.
pub fn draw(host: &Host<'_>, request: Request) -> Result<Drawn, Error> {
    let domid = request.domid;
    let domain = host.toolstack.domain(domid)?.ok_or_else(|| format!("Domain {domid} does not exist"))?;
    let config = host.toolstack.config(domid)?;
    let mut facts = DomainFacts::from_json(&config)?;
    facts.name.clone_from(&domain.name);

    let mut findings = domain_findings(host, &domain, &facts);
    let disks = resolve_disks(host, &facts.disks, &mut findings)?;
    let volumes = look_at_volumes(host, &disks, &mut findings)?;
    let handover = choose_handover(host, &request, &volumes, &mut findings);
    findings.extend(volumes.iter().flat_map(|volume| source_volume_findings(host, &volume.state, handover)));
    findings.extend(obstacle(host, domid)?);
    findings.extend(unfinished(host, volumes.iter().map(|volume| &volume.state.id))?);

    let config = plan::attach_by_volume(&config, disks.iter().map(|(index, id)| (*index, id)))?;
    let plan = Plan { id: uuid::Uuid::new_v4(), domid, facts, config, volumes, handover, request };
    Ok(Drawn { plan, findings })
}

/// The offer that tells the destination of the plan.
pub fn offer(plan: &Plan, memory_kib: u64) -> Offer {
    let volumes = plan.volumes.iter().map(|volume| OfferedVolume {
        id: volume.state.id.clone(),
        size_sectors: volume.state.size_sectors,
        generation: volume.state.generation,
    });
    Offer {
        id: plan.id,
        name: plan.facts.name.clone(),
        uuid: plan.facts.uuid,
        config: plan.config.clone(),
        memory_kib: memory_kib + MEMORY_OVERHEAD_KIB,
        volumes: volumes.collect(),
        handover: plan.handover,
        port: plan.request.port,
        check_only: plan.request.dry_run,
    }
}

fn domain_findings(host: &Host<'_>, domain: &Domain, facts: &DomainFacts) -> Vec<Finding> {
    let name = &domain.name;
    let mut findings = Vec::new();
    if domain.domid == DomId(0) {
        findings.push(host.error("dom0", "Domain 0 cannot move", "Name a guest: bascule list"));
    }
    if domain.state != RunState::Running {
        let found = format!("Domain {name} is {}", state_word(domain.state));
        findings.push(host.error("not-running", found, "A live migration needs the guest's help: let it run first"));
    }
    if plan::is_between_hosts(name) {
        let found = format!("Domain {name} belongs to a migration that has not ended");
        findings.push(host.error("left-over", found, "Look at both hosts with bascule list before anything else"));
    }
    if facts.pci_devices > 0 {
        let found = format!("Domain {name} has {} PCI devices passed through", facts.pci_devices);
        findings.push(host.error("pci-passthrough", found, "Take them out: xl pci-detach"));
    }
    if facts.vnuma_nodes > 0 {
        let found = format!("Domain {name} has virtual NUMA nodes, which libxl cannot migrate");
        findings.push(host.error("vnuma", found, "Start it without vnuma="));
    }
    findings
}

fn state_word(state: RunState) -> &'static str {
    match state {
        RunState::Running => "running",
        RunState::Paused => "paused",
        RunState::Suspended => "suspended",
        RunState::Shutdown => "shut down",
        RunState::Dying => "dying",
    }
}

/// The volume of each disk that has one, with the disk's index in the configuration.
fn resolve_disks(
    host: &Host<'_>,
    disks: &[DiskFacts],
    findings: &mut Vec<Finding>,
) -> Result<Vec<(usize, VolumeId)>, Error> {
    let mut found = Vec::new();
    for (index, disk) in disks.iter().enumerate().filter(|(_, disk)| !disk.target.is_empty()) {
        match host.replication.resolve(&disk.target)? {
            Some(volume) => found.push((index, volume)),
            None => findings.push(not_replicated(host, disk)),
        }
    }
    Ok(found)
}

fn not_replicated(host: &Host<'_>, disk: &DiskFacts) -> Finding {
    let found = format!("Disk {} ({}) is not a DRBD volume", disk.vdev, disk.target);
    host.error("disk-not-replicated", found, "Put it on a DRBD volume, or take it out of the domain first")
}

fn look_at_volumes(
    host: &Host<'_>,
    disks: &[(usize, VolumeId)],
    findings: &mut Vec<Finding>,
) -> Result<Vec<PlannedVolume>, Error> {
    let mut volumes = Vec::new();
    for (_, id) in disks {
        match host.replication.state(id)? {
            Some(state) => volumes.push(PlannedVolume { state, attachment: host.replication.attachment(id)? }),
            None => findings.push(unknown_volume(host, id)),
        }
    }
    Ok(volumes)
}

fn unknown_volume(host: &Host<'_>, id: &VolumeId) -> Finding {
    let remedy = format!("Bring the resource up: drbdadm up {}", id.resource);
    host.error("volume-unknown", format!("Volume {id} is not configured in the kernel"), remedy)
}

fn choose_handover(
    host: &Host<'_>,
    request: &Request,
    volumes: &[PlannedVolume],
    findings: &mut Vec<Finding>,
) -> Handover {
    let possible = plan::handover_for(volumes);
    if request.handover == Some(Handover::Single) && possible == Handover::Dual {
        let direct: Vec<String> = volumes
            .iter()
            .filter(|volume| volume.attachment == Attachment::Direct)
            .map(|volume| volume.state.id.to_string())
            .collect();
        let found = format!(
            "{} is attached straight to DRBD, so it cannot be released while the domain lives",
            direct.join(", ")
        );
        findings.push(host.error(
            "attached-directly",
            found,
            "Use --handover dual for this once; from then on single works",
        ));
    }
    request.handover.unwrap_or(possible)
}

fn source_volume_findings(host: &Host<'_>, volume: &VolumeState, handover: Handover) -> Vec<Finding> {
    let mut findings = replication_findings(host, volume);
    if !volume.primary {
        let found = format!("This host is not Primary on {}, though the domain uses it", volume.id);
        findings.push(host.error("not-primary", found, "Look at bascule status: the disk may be lost to the domain"));
    }
    if volume.connected && volume.peer_primary {
        let found = format!("{} is Primary on {} already", volume.peer, volume.id);
        findings.push(host.error("peer-primary", found, format!("There: drbdadm secondary {}", volume.id.resource)));
    }
    match (volume.protocol, handover) {
        (Some('C') | None, _) => {}
        (Some(protocol), Handover::Dual) => {
            let found = format!("{} uses protocol {protocol}; two Primaries need protocol C", volume.id);
            findings.push(host.error("protocol", found, "Set protocol C and drbdadm adjust, or use --handover single"));
        }
        (Some(protocol), Handover::Single) => {
            let found =
                format!("{} uses protocol {protocol}: a crash of this host can lose the last writes", volume.id);
            findings.push(host.warning("protocol", found, "Protocol C is what domains that move should have"));
        }
    }
    findings
}

/// What either end requires of the replication of a volume.
fn replication_findings(host: &Host<'_>, volume: &VolumeState) -> Vec<Finding> {
    let (id, resource) = (&volume.id, &volume.id.resource);
    if !volume.connected {
        let found = format!("{id} is not connected to {}: {}", volume.peer, volume.connection);
        return vec![host.error(
            "not-connected",
            found,
            format!("Check the replication link, then: drbdadm connect {resource}"),
        )];
    }
    let mut findings = Vec::new();
    if !volume.up_to_date {
        let found =
            format!("{id} is {} here and {} on {}, not UpToDate on both", volume.disk, volume.peer_disk, volume.peer);
        findings.push(host.error("not-up-to-date", found, "Wait for the resync to end: bascule status shows it"));
    }
    if volume.resyncing {
        let found = format!("{id} is being resynchronised or verified ({})", volume.replication);
        findings.push(host.error("resync", found, "Wait for it to end: bascule status shows it"));
    }
    findings
}

/// Migrations of these volumes whose journal on this host has no end yet.
fn unfinished<'a>(host: &Host<'_>, volumes: impl Iterator<Item = &'a VolumeId>) -> Result<Option<Finding>, Error> {
    for volume in volumes {
        if let Some(story) = journal::open_for(host.state_dir, volume)? {
            let found = format!("Migration {} of {} is not finished here: {volume}", story.head.id, story.head.name);
            let remedy = format!("The daemon works on it; look with: bascule recover --dry-run {}", story.head.id);
            return Ok(Some(host.error("migration-open", found, remedy)));
        }
    }
    Ok(None)
}

fn obstacle(host: &Host<'_>, domid: DomId) -> Result<Option<Finding>, Error> {
    let obstacle = host.toolstack.live_migration_obstacle(domid)?;
    Ok(obstacle.map(|found| {
        host.error("no-log-dirty", found, "Boot a hypervisor that has it; Debian's 4.17.5 has, its 4.17.7 has not")
    }))
}

/// Checks the destination's half on what the source offers.
///
/// # Errors
/// What could not be looked at: libxl or DRBD do not answer.
pub fn destination(host: &Host<'_>, offer: &Offer) -> Result<Vec<Finding>, Error> {
    let facts = DomainFacts::from_json(&offer.config)?;
    let mut findings = trust_findings(host, offer, &facts)?;
    findings.extend(name_findings(host, offer)?);
    findings.extend(memory_finding(host, offer)?);
    for volume in &offer.volumes {
        findings.extend(destination_volume_findings(host, volume)?);
    }
    findings.extend(unfinished(host, offer.volumes.iter().map(|volume| &volume.id))?);
    findings.extend(facts.bridges.iter().filter(|bridge| !host.toolstack.has_bridge(bridge)).map(|bridge| {
        let remedy = format!("Make it: ip link add {bridge} type bridge");
        host.error("bridge-missing", format!("Bridge {bridge} does not exist"), remedy)
    }));
    Ok(findings)
}

/// What stands in the configuration that this host does not accept from another one.
fn trust_findings(host: &Host<'_>, offer: &Offer, facts: &DomainFacts) -> Result<Vec<Finding>, Error> {
    let volumes: Vec<VolumeId> = offer.volumes.iter().map(|volume| volume.id.clone()).collect();
    let mut objections = trust::objections(host.guests, &serde_json::from_str(&offer.config)?, &volumes);
    if facts.name != offer.name || facts.uuid != offer.uuid {
        objections
            .push(format!("it is of domain {} ({}), not of {} ({})", facts.name, facts.uuid, offer.name, offer.uuid));
    }
    let refused = |objection: String| {
        let found = format!("The domain's configuration is not accepted from another host: {objection}");
        host.error("configuration", found, "Start the domain without it, or without what it names, and migrate again")
    };
    Ok(objections.into_iter().map(refused).collect())
}

fn name_findings(host: &Host<'_>, offer: &Offer) -> Result<Vec<Finding>, Error> {
    let taken = [offer.name.clone(), plan::incoming_name(&offer.name), plan::migrated_away_name(&offer.name)];
    let domains = host.toolstack.domains()?;
    let clashes = domains.iter().filter(|domain| taken.contains(&domain.name) || domain.uuid == offer.uuid);
    let findings = clashes.map(|domain| {
        // It will never run again. What holds it, a dead TCP connection with its pages as a rule, can take a quarter of an hour to let go.
        if domain.state == RunState::Dying {
            let found =
                format!("Domain {} is being torn down here, and something holds its memory still", domain.domid);
            return host.warning("still-dying", found, "Nothing has to be done: it goes by itself");
        }
        let code = if taken.contains(&domain.name) { "name-taken" } else { "uuid-taken" };
        let found = format!("Domain {} ({}, uuid {}) exists here", domain.name, domain.domid, domain.uuid);
        host.error(code, found, format!("If it is a left-over: bascule destroy {}", domain.domid))
    });
    Ok(findings.collect())
}

fn memory_finding(host: &Host<'_>, offer: &Offer) -> Result<Option<Finding>, Error> {
    let free_kib = host.toolstack.free_memory_kib()?;
    Ok((free_kib < offer.memory_kib).then(|| {
        let found =
            format!("{} MiB of memory are free, {} MiB are needed", free_kib >> 10, offer.memory_kib.div_ceil(1 << 10));
        host.error("memory", found, "Shut a domain down or make dom0 smaller: xl mem-set 0")
    }))
}

fn destination_volume_findings(host: &Host<'_>, offered: &OfferedVolume) -> Result<Vec<Finding>, Error> {
    let id = &offered.id;
    let Some(volume) = host.replication.state(id)? else { return Ok(vec![unknown_volume(host, id)]) };
    let mut findings = replication_findings(host, &volume);
    if volume.primary {
        let found = format!("This host is Primary on {id} already");
        findings.push(host.error("destination-primary", found, format!("drbdadm secondary {}", id.resource)));
    }
    if let Some(holder) = host.replication.holder(id)? {
        findings.push(host.error("held-open", format!("{id} is held open by {holder}"), "End that user first"));
    }
    if volume.size_sectors != offered.size_sectors {
        let found = format!("{id} has {} sectors here and {} at the source", volume.size_sectors, offered.size_sectors);
        findings.push(host.error(
            "size-differs",
            found,
            "Two resources of one name? Compare drbdadm dump on both hosts",
        ));
    }
    if volume.connected && volume.generation != offered.generation {
        let found = format!("{id} has another data generation here than at the source");
        findings.push(host.error(
            "generation-differs",
            found,
            "Two resources of one name? Compare drbdadm dump on both hosts",
        ));
    }
    Ok(findings)
}
