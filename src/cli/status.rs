//! `bascule status`: the DRBD side, as one would read `/proc/drbd`, and the unfinished migrations that the volumes are in.

use std::path::Path;

use bascule::drbd::{Drbd, conf, review};
use bascule::journal::JournaledVolume;
use clap::Args;
use drbd_nl::{ConnectionStatus, PeerDeviceStatus, ResourceStatus, VolumeStatus};
use serde::Serialize;

use super::exit::Error;
use super::unfinished::{self, Migration};

/// Show DRBD's resources: roles, disks, connections, resync
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Only this resource
    resource: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    resource: ResourceStatus,
    /// The unfinished migrations of its volumes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    migrations: Vec<Migration>,
}

/// A resource that is in the files and not in the kernel.
#[derive(Serialize)]
struct Down {
    name: String,
    /// Where it is written.
    down: String,
}

/// Runs the command.
pub(crate) fn run(args: &Status, state_dir: &Path) -> Result<(), Error> {
    let mut resources = Drbd::open()?.status()?;
    let mut down = down(&resources);
    if let Some(name) = &args.resource {
        resources.retain(|resource| resource.name == *name);
        down.retain(|resource| resource.name == *name);
        if resources.is_empty() && down.is_empty() {
            return Err(format!("Resource {name} is neither up nor in DRBD's files: bascule check --drbd").into());
        }
    }
    let stories = unfinished::stories(state_dir)?;
    let rows = resources.into_iter().map(|resource| {
        let of = |volume: &JournaledVolume| volume.id.resource == resource.name;
        let concerned = stories.iter().filter(|story| story.head.volumes.iter().any(of));
        Row { migrations: concerned.map(Migration::from).collect(), resource }
    });
    print(args, &rows.collect::<Vec<_>>(), &down)
}

/// What the files have for this host and the kernel has not. Files that cannot be read are `bascule check`'s to tell.
fn down(up: &[ResourceStatus]) -> Vec<Down> {
    let Ok(Some(config)) = conf::here() else { return Vec::new() };
    let up: Vec<&str> = up.iter().map(|resource| resource.name.as_str()).collect();
    let down = review::down(&config, &up).into_iter();
    down.map(|resource| Down { name: resource.name.clone(), down: resource.place.to_string() }).collect()
}

fn print(args: &Status, rows: &[Row], down: &[Down]) -> Result<(), Error> {
    if args.json {
        let mut all = rows.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
        all.extend(down.iter().map(|resource| serde_json::json!(resource)));
        out!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    rows.iter().flat_map(lines).for_each(|line| out!("{line}"));
    for Down { name, down } in down {
        out!("{name}  down, in the files at {down}: bascule drbd up {name}");
    }
    Ok(())
}

fn lines(Row { resource, migrations }: &Row) -> Vec<String> {
    let mut lines = vec![format!("{}  {}", resource.name, resource.role)];
    for volume in &resource.volumes {
        lines.push(volume_line(volume));
    }
    for connection in &resource.connections {
        lines.push(connection_line(connection));
        lines.extend(connection.peer_devices.iter().map(peer_line));
    }
    if resource.connections.is_empty() {
        lines.push(format!("  not connected to anybody: drbdadm connect {}", resource.name));
    }
    lines.extend(migrations.iter().map(|migration| format!("  {migration}")));
    lines
}

fn volume_line(volume: &VolumeStatus) -> String {
    format!(
        "  volume {} minor {}  {}  {} MiB  read {} KiB  written {} KiB  pending {}/{}",
        volume.volume,
        volume.minor,
        volume.disk_state,
        volume.size_sectors >> 11,
        volume.read_sectors / 2,
        volume.written_sectors / 2,
        volume.upper_pending,
        volume.lower_pending,
    )
}

fn connection_line(connection: &ConnectionStatus) -> String {
    let protocol = connection.net.wire_protocol.map(|protocol| format!("  protocol {protocol}")).unwrap_or_default();
    let two = if connection.net.two_primaries == Some(true) { "  two Primaries allowed" } else { "" };
    let name = connection.name.clone().unwrap_or_else(|| connection.peer_addr.to_string());
    format!("  peer {name}  {}  {}{protocol}{two}", connection.state, connection.peer_role)
}

fn peer_line(peer: &PeerDeviceStatus) -> String {
    let mut line = format!(
        "    volume {}  {}  {}  sent {} KiB  received {} KiB  out of sync {} KiB",
        peer.volume,
        peer.repl_state,
        peer.peer_disk_state,
        peer.sent_sectors / 2,
        peer.received_sectors / 2,
        peer.out_of_sync_sectors / 2,
    );
    if let Some(done) = peer.resync_done {
        line.push_str(&format!("  {:.1} % done", done * 100.0));
    }
    line
}
