//! `bascule list`: the domains as `xl list` shows them, each with its volumes.

use bascule::drbd::Drbd;
use bascule::replication::{Replication, VolumeState};
use bascule::toolstack::{Domain, Toolstack};
use bascule::xen::Context;
use clap::Args;
use serde::Serialize;

use super::exit::Error;

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
    domain: Domain,
    /// `xl list`'s letters: running, blocked, paused, shut down, crashed, dying.
    letters: String,
    volumes: Vec<VolumeState>,
}

/// Runs the command.
pub(crate) fn run(args: &List) -> Result<(), Error> {
    let context = Context::open()?;
    // A host without DRBD still has domains to show.
    let drbd = Drbd::open().ok();
    let wanted = args.domains.iter().map(|name| super::domain::find(&context, name)).collect::<Result<Vec<_>, _>>()?;
    let domains = context.domains()?.into_iter();
    let rows = domains
        .filter(|domain| wanted.is_empty() || wanted.contains(&domain.domid))
        .map(|domain| row(&context, drbd.as_ref(), domain))
        .collect::<Result<Vec<_>, _>>()?;
    print(args, &rows)
}

fn row(context: &Context, drbd: Option<&Drbd>, domain: Domain) -> Result<Row, Error> {
    let letters = context.state_letters(domain.domid)?;
    let volumes = match drbd {
        Some(drbd) => volumes_of(context, drbd, &domain)?,
        None => Vec::new(),
    };
    Ok(Row { domain, letters, volumes })
}

fn volumes_of(context: &Context, drbd: &Drbd, domain: &Domain) -> Result<Vec<VolumeState>, Error> {
    let mut volumes = Vec::new();
    for target in context.disk_targets(domain.domid)? {
        // A disk elsewhere, or on a resource that is down, is no reason not to list the domain.
        if let Ok(Some(volume)) = drbd.resolve(&target) {
            volumes.extend(drbd.state(&volume)?);
        }
    }
    Ok(volumes)
}

#[expect(clippy::print_stdout, reason = "the program's output")]
fn print(args: &List, rows: &[Row]) -> Result<(), Error> {
    if args.json {
        println!("{}", serde_json::to_string_pretty(rows)?);
        return Ok(());
    }
    println!("{:<40}{:>6} {:>6} {:>6}  {:<8}{:>9}", "Name", "ID", "Mem", "VCPUs", "State", "Time(s)");
    for Row { domain, letters, volumes } in rows {
        let (mib, seconds) = (domain.memory_kib >> 10, domain.cpu_time.as_secs_f64());
        println!("{:<40}{:>6} {mib:>6} {:>6}  {letters:<8}{seconds:>9.1}", domain.name, domain.domid, domain.vcpus);
        volumes.iter().for_each(|volume| println!("    {}", line(volume)));
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
