//! The kernel's resources without what a peer need not know.

use std::fs;

use drbd_nl::{ConnectionStatus, Dialect, PeerDeviceStatus, ResourceStatus};

use super::is_steady;
use crate::replication::{Connection, Inventory, PeerVolume, Resource, Volume};

/// Where the kernel says which version of the module it has loaded.
const VERSION: &str = "/sys/module/drbd/version";

pub(super) fn of(dialect: Dialect, resources: &[ResourceStatus]) -> Inventory {
    let version = fs::read_to_string(VERSION).unwrap_or_default();
    let dialect = match dialect {
        Dialect::V84 => "8.4",
        Dialect::V9 => "9",
    };
    Inventory {
        version: version.trim().to_owned(),
        dialect: dialect.to_owned(),
        resources: resources.iter().map(resource).collect(),
    }
}

fn resource(status: &ResourceStatus) -> Resource {
    let volumes = status.volumes.iter().map(|volume| Volume {
        number: volume.volume,
        minor: volume.minor,
        size_sectors: volume.size_sectors,
        disk: volume.disk_state.to_string(),
    });
    Resource {
        name: status.name.clone(),
        role: status.role.to_string(),
        volumes: volumes.collect(),
        connections: status.connections.iter().map(connection).collect(),
    }
}

fn connection(status: &ConnectionStatus) -> Connection {
    Connection {
        state: status.state.to_string(),
        connected: status.state.is_connected(),
        peer_role: status.peer_role.to_string(),
        mine: status.my_addr.to_string(),
        peers: status.peer_addr.to_string(),
        two_primaries: status.net.two_primaries == Some(true),
        volumes: status.peer_devices.iter().map(peer_volume).collect(),
    }
}

fn peer_volume(status: &PeerDeviceStatus) -> PeerVolume {
    PeerVolume {
        number: status.volume,
        disk: status.peer_disk_state.to_string(),
        replication: status.repl_state.to_string(),
        resyncing: !is_steady(&status.repl_state),
    }
}
