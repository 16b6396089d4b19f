//! `bascule list`: the domains as `xl list` shows them, each with its volumes.

use bascule::config::Config;
use bascule::drbd::Drbd;
use bascule::ids::DomId;
use bascule::journal::Story;
use bascule::plan::DomainFacts;
use bascule::replication::{Replication, VolumeState};
use bascule::toolstack::Toolstack;
use bascule::xen::Context;
use bascule::xen::domain::DomainInfo;
use clap::Args;
use serde::Serialize;

use super::exit::Error;
use super::unfinished::{self, Left, Migration};

/// Show the domains of this host with the state of their volumes
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only these domains, by name or number
    domains: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    info: DomainInfo,
    volumes: Vec<VolumeState>,
    /// The unfinished migration that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    migration: Option<Migration>,
    /// The killed process that has left it so.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<Left>,
}

/// Runs the command.
pub(crate) fn run(args: &List, config: &Config) -> Result<(), Error> {
    warn_of_clear(config);
    let context = Context::open()?;
    // A host without DRBD still has domains to show.
    let drbd = Drbd::open().ok();
    let domains = match args.domains.as_slice() {
        [] => context.list()?,
        names => names.iter().map(|name| context.find(name)).collect::<Result<Vec<_>, _>>()?,
    };
    let open = unfinished::stories(&config.state.dir)?;
    let left = unfinished::left()?;
    let rows = domains.into_iter().map(|info| row(&context, drbd.as_ref(), (&open, &left), info));
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    print(args, &rows)
}

/// On standard error, so that what reads the table or JSON is not disturbed.
fn warn_of_clear(config: &Config) {
    let hosts = config.security.in_clear.texts();
    if !hosts.is_empty() {
        tracing::warn!("connections with {} are not encrypted: security.in-clear", hosts.join(", "));
    }
}

fn row(
    context: &Context,
    drbd: Option<&Drbd>,
    (open, left): (&[Story], &[Left]),
    info: DomainInfo,
) -> Result<Row, Error> {
    let volumes = match drbd {
        Some(drbd) if info.domain.domid != DomId(0) => volumes_of(context, drbd, info.domain.domid)?,
        _ => Vec::new(),
    };
    let story = open.iter().find(|story| story.head.uuid == info.domain.uuid);
    let left = left.iter().find(|left| left.charge.uuid == info.domain.uuid).cloned();
    Ok(Row { info, volumes, migration: story.map(Migration::from), left })
}

fn volumes_of(context: &Context, drbd: &Drbd, domid: DomId) -> Result<Vec<VolumeState>, Error> {
    // A domain that libxl did not make, or is still making, has no configuration; it is listed all the same.
    let Ok(config) = context.config(domid) else { return Ok(Vec::new()) };
    let mut volumes = Vec::new();
    for disk in DomainFacts::from_json(&config)?.disks {
        // Nor is a disk elsewhere, or on a resource that is down, a reason not to list it.
        if let Ok(Some(volume)) = drbd.resolve(&disk.target) {
            volumes.extend(drbd.state(&volume)?);
        }
    }
    Ok(volumes)
}

fn print(args: &List, rows: &[Row]) -> Result<(), Error> {
    if args.json {
        out!("{}", serde_json::to_string_pretty(rows)?);
        return Ok(());
    }
    out!("{:<40}{:>6} {:>6} {:>6}  {:<8}{:>9}", "Name", "ID", "Mem", "VCPUs", "State", "Time(s)");
    for Row { info, volumes, migration, left } in rows {
        let (domain, letters) = (&info.domain, info.flags.to_string());
        let (mib, seconds) = (domain.memory_kib >> 10, domain.cpu_time.as_secs_f64());
        out!("{:<40}{:>6} {mib:>6} {:>6}  {letters:<8}{seconds:>9.1}", domain.name, domain.domid, domain.vcpus);
        volumes.iter().for_each(|volume| out!("    {}", line(volume)));
        migration.iter().for_each(|migration| out!("    {migration}"));
        left.iter().for_each(|left| out!("    {left}"));
    }
    Ok(())
}

/// One volume in one line, as one reads `/proc/drbd`: this host's side first.
pub(super) fn line(volume: &VolumeState) -> String {
    let role = |primary| if primary { "Primary" } else { "Secondary" };
    let peer_role = if volume.connected { role(volume.peer_primary) } else { "Unknown" };
    let mut line = format!(
        "{:<14} {}/{peer_role}  {}/{}  {}",
        volume.id.to_string(),
        role(volume.primary),
        volume.disk,
        volume.peer_disk,
        volume.replication,
    );
    if let Some(done) = volume.resync_done {
        line.push_str(&format!("  {:.1} % done", done * 100.0));
    }
    line
}
