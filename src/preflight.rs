//! Preflight: draws the [`Plan`] and finds, read-only, everything on this host that would make the migration fail.
//!
//! All findings come at once, each with what to do about it. The source runs [`draw`], the destination [`destination`]
//! on the offer that it got, which it has made its own by [`localise`]. [`codes`] has all that can be found.

pub mod codes;
mod disks;
mod machine;
mod nics;
pub mod trust;
mod volumes;

pub use self::codes::Code;
use self::trust::Agreed;
use crate::host::Host;
use crate::ids::{DomId, VolumeId};
use crate::journal;
use crate::plan::{self, DomainFacts, Plan, Request};
use crate::protocol::{Finding, Offer, OfferedVolume, Severity};
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
/// What could not be looked at: the domain does not exist or is dom0, libxl or DRBD do not answer.
pub fn draw(host: &Host<'_>, request: Request) -> Result<Drawn, Error> {
    let domid = request.domid;
    if domid == DomId(0) {
        return Err("Domain 0 cannot move; name a guest: bascule list".into());
    }
    let domain = host.toolstack.domain(domid)?.ok_or_else(|| format!("Domain {domid} does not exist"))?;
    let config = host.toolstack.config(domid)?;
    let mut facts = DomainFacts::from_json(&config)?;
    facts.name.clone_from(&domain.name);

    let mut findings = domain_findings(host, &domain, &facts);
    findings.extend(guest_findings(host, &domain)?);
    let disks = disks::place(host, (domid, &facts.disks), &request.shared_disks, &mut findings)?;
    let volumes = volumes::look(host, disks.volumes.iter().map(|(_, id)| id), &mut findings)?;
    let handover = volumes::choose_handover(host, request.handover, &volumes, &mut findings);
    findings.extend(volumes.iter().flat_map(|volume| volumes::source_findings(host, &volume.state, handover)));
    findings.extend(unfinished(host, facts.uuid, volumes.iter().map(|volume| &volume.state.id))?);
    findings.extend(nics::unknown_bridges(host, &facts, &request.bridges));

    let config = plan::attach_by_volume(&config, disks.volumes.iter().map(|(index, id)| (*index, id)))?;
    let config = plan::serve_by_kernel(&config, disks.shared())?;
    let (config, settled_nics) = plan::map_bridges(&config, &request.bridges, &[])?;
    let plan = Plan {
        id: uuid::Uuid::new_v4(),
        domid,
        facts,
        config,
        volumes,
        disks: disks.local,
        settled_nics,
        cpu: host.toolstack.cpu_policy(crate::cpu::Viewer::Domain(domid))?,
        release: host.toolstack.release()?,
        handover,
        request,
    };
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
        disks: plan.disks.clone(),
        settled_nics: plan.settled_nics.clone(),
        cpu: plan.cpu.clone(),
        xen: plan.release,
        handover: plan.handover,
        port: plan.request.port,
        check_only: plan.request.dry_run,
    }
}

fn domain_findings(host: &Host<'_>, domain: &Domain, facts: &DomainFacts) -> Vec<Finding> {
    let name = &domain.name;
    let mut findings = Vec::new();
    if domain.state != RunState::Running {
        let found = format!("Domain {name} is {}", state_word(domain.state));
        findings.push(host.error(Code::NotRunning, found, "A live migration needs the guest's help: let it run first"));
    }
    if plan::is_between_hosts(name) {
        let found = format!("Domain {name} belongs to a migration that has not ended");
        findings.push(host.error(Code::LeftOver, found, "Look at both hosts with bascule list before anything else"));
    }
    if facts.pci_devices > 0 {
        let found = format!("Domain {name} has PCI devices passed through: {}", facts.pci_devices);
        let remedy = format!("Take them out: xl pci-list {name} shows them, xl pci-detach {name} BDF takes one away");
        findings.push(host.error(Code::PciPassthrough, found, remedy));
    }
    if facts.vnuma_nodes > 0 {
        let found = format!("Domain {name} has virtual NUMA nodes, which libxl cannot migrate");
        findings.push(host.error(Code::Vnuma, found, "Start it without vnuma="));
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

/// Whether guest and hypervisor can do what a live migration needs of them.
fn guest_findings(host: &Host<'_>, domain: &Domain) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    if host.toolstack.cannot_suspend(domain.domid)? {
        let found = format!("The guest of {} does not know how to suspend", domain.name);
        let remedy = "Linux needs CONFIG_HIBERNATE_CALLBACKS (it comes with CONFIG_XEN_SAVE_RESTORE)";
        findings.push(host.error(Code::CannotSuspend, found, remedy));
    }
    if let Some(found) = host.toolstack.live_migration_obstacle(domain.domid)? {
        let remedy = "Boot a hypervisor that has it; Debian's 4.17.5 has, its 4.17.7 has not";
        findings.push(host.error(Code::NoLogDirty, found, remedy));
    }
    Ok(findings)
}

/// Migrations of this domain or these volumes whose journal on this host has no end yet.
fn unfinished<'a>(
    host: &Host<'_>,
    domain: uuid::Uuid,
    volumes: impl Iterator<Item = &'a VolumeId>,
) -> Result<Option<Finding>, Error> {
    let mut open = journal::open_of(host.state_dir, domain)?;
    for volume in volumes {
        open = match open {
            None => journal::open_for(host.state_dir, volume)?,
            found => found,
        };
    }
    Ok(open.map(|story| {
        let volumes: Vec<String> = story.head.volumes.iter().map(|volume| volume.id.to_string()).collect();
        let found =
            format!("Migration {} of {} is not finished here: {}", story.head.id, story.head.name, volumes.join(", "));
        let remedy = format!("The daemon works on it; look with: bascule recover --dry-run {}", story.head.id);
        host.error(Code::MigrationOpen, found, remedy)
    }))
}

/// Makes an offer this host's own: its administrator's names for bridges, where the source's has not spoken. To be done before anything else
/// looks at it, so that what is judged is what libxl gets.
///
/// # Errors
/// The configuration is no JSON.
pub fn localise(host: &Host<'_>, offer: &mut Offer) -> Result<(), Error> {
    (offer.config, _) = plan::map_bridges(&offer.config, &host.guests.bridges, &offer.settled_nics)?;
    Ok(())
}

/// Checks the destination's half on what the source offers.
///
/// # Errors
/// What could not be looked at: libxl or DRBD do not answer.
pub fn destination(host: &Host<'_>, offer: &Offer) -> Result<Vec<Finding>, Error> {
    let facts = DomainFacts::from_json(&offer.config)?;
    let mut findings = trust_findings(host, offer, &facts)?;
    for disk in &offer.disks {
        findings.extend(disks::destination_findings(host, disk)?);
    }
    // Nothing of a configuration that is not accepted goes to libxl.
    let needed_kib = match stops(&findings) {
        true => 0,
        false => host.toolstack.memory_needed_kib(&offer.config)?,
    };
    findings.extend(name_findings(host, offer)?);
    findings.extend(machine::release(host, offer)?);
    findings.extend(machine::memory(host, needed_kib.max(offer.memory_kib))?);
    findings.extend(machine::cpu(host, offer, &facts.kind)?);
    for volume in &offer.volumes {
        findings.extend(volumes::destination_findings(host, volume)?);
    }
    findings.extend(unfinished(host, offer.uuid, offer.volumes.iter().map(|volume| &volume.id))?);
    findings.extend(nics::missing_bridges(host, &facts));
    Ok(findings)
}

/// What stands in the configuration that this host does not accept from another one.
fn trust_findings(host: &Host<'_>, offer: &Offer, facts: &DomainFacts) -> Result<Vec<Finding>, Error> {
    let volumes: Vec<VolumeId> = offer.volumes.iter().map(|volume| volume.id.clone()).collect();
    let agreed = Agreed { volumes: &volumes, disks: &offer.disks };
    let mut objections = trust::objections(host.guests, &serde_json::from_str(&offer.config)?, agreed);
    if facts.name != offer.name || facts.uuid != offer.uuid {
        objections
            .push(format!("it is of domain {} ({}), not of {} ({})", facts.name, facts.uuid, offer.name, offer.uuid));
    }
    let refused = |objection: String| {
        let found = format!("The domain's configuration is not accepted from another host: {objection}");
        let remedy = "Start the domain without it, or without what it names, and migrate again";
        host.error(Code::Configuration, found, remedy)
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
            return host.warning(Code::StillDying, found, "Nothing has to be done: it goes by itself");
        }
        let code = if taken.contains(&domain.name) { Code::NameTaken } else { Code::UuidTaken };
        let found = format!("Domain {} ({}, uuid {}) exists here", domain.name, domain.domid, domain.uuid);
        host.error(code, found, format!("If it is a left-over: bascule destroy {}", domain.domid))
    });
    Ok(findings.collect())
}
