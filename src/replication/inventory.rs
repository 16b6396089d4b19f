//! What a host replicates, as it is shown to a person or told to a peer: no options, no secrets.

use serde::{Deserialize, Serialize};

/// Everything that is replicated on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The version of the kernel's module.
    pub version: String,
    /// What it speaks: `8.4` or `9`.
    pub dialect: String,
    /// Its resources.
    pub resources: Vec<Resource>,
}

/// A resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// This host's role; where volumes have their own, the highest.
    pub role: String,
    /// Its volumes on this host.
    pub volumes: Vec<Volume>,
    /// Its connections.
    pub connections: Vec<Connection>,
}

/// A volume on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its number.
    pub number: u32,
    /// Its minor.
    pub minor: u32,
    /// Its size in sectors of 512 bytes.
    pub size_sectors: u64,
    /// How good the local data is.
    pub disk: String,
}

/// A connection of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// DRBD's word for its state.
    pub state: String,
    /// Whether the hosts are connected.
    pub connected: bool,
    /// The peer's role.
    pub peer_role: String,
    /// This host's end.
    pub mine: String,
    /// The peer's end.
    pub peers: String,
    /// Two Primaries are allowed on it now.
    pub two_primaries: bool,
    /// The volumes as seen over it.
    pub volumes: Vec<PeerVolume>,
}

/// A volume as seen over one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerVolume {
    /// Its number.
    pub number: u32,
    /// How good the peer's data is.
    pub disk: String,
    /// DRBD's word for what replication does.
    pub replication: String,
    /// Whether a resync or a verify is under way.
    pub resyncing: bool,
}

impl Resource {
    /// A volume of this resource.
    #[must_use]
    pub fn volume(&self, number: u32) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.number == number)
    }
}
