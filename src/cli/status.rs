//! `bascule status`: the DRBD side, as one would read `/proc/drbd`.

use bascule::drbd::Drbd;
use clap::Args;
use drbd_nl::{ConnectionStatus, PeerDeviceStatus, ResourceStatus, VolumeStatus};

use super::exit::Error;

/// Show DRBD's resources: roles, disks, connections, resync
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Only this resource
    resource: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Status) -> Result<(), Error> {
    let mut resources = Drbd::open()?.status()?;
    if let Some(name) = &args.resource {
        resources.retain(|resource| resource.name == *name);
        if resources.is_empty() {
            return Err(format!("Resource {name} is not configured in the kernel: drbdadm up {name}").into());
        }
    }
    print(args, &resources)
}

fn print(args: &Status, resources: &[ResourceStatus]) -> Result<(), Error> {
    match args.json {
        true => out!("{}", serde_json::to_string_pretty(resources)?),
        false => resources.iter().flat_map(lines).for_each(|line| out!("{line}")),
    }
    Ok(())
}

fn lines(resource: &ResourceStatus) -> Vec<String> {
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
