//! Status: the tree of everything that DRBD has on a host.

use crate::{
    Address, ConnectionState, DeviceConf, DiskConf, DiskState, NetConf, Peer, ReplState, ResourceOpts, Role, Target,
};

/// A resource and everything that belongs to it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ResourceStatus {
    /// Its name.
    pub name: String,
    /// Its role. On 8.4 each volume has its own, and this is the highest.
    pub role: Role,
    /// Whether I/O is held, and why.
    pub suspended: Suspended,
    /// Its options.
    pub options: ResourceOpts,
    /// Its volumes on this host, by number.
    pub volumes: Vec<VolumeStatus>,
    /// Its connections. 8.4 has at most one, and none when it is StandAlone.
    pub connections: Vec<ConnectionStatus>,
}

/// Why I/O is held; all false when it flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[expect(clippy::struct_excessive_bools, reason = "five independent flags of the kernel's")]
#[non_exhaustive]
pub struct Suspended {
    /// By the user.
    pub user: bool,
    /// For lack of good data.
    pub no_data: bool,
    /// While a peer is fenced.
    pub fencing: bool,
    /// For lack of quorum (9).
    pub quorum: bool,
    /// Not held but failed, until all openers have closed (9.1).
    pub fail_io: bool,
}

/// A volume on this host.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct VolumeStatus {
    /// Its number in the resource.
    pub volume: u32,
    /// Its minor: `/dev/drbdN`.
    pub minor: u32,
    /// Its own role, on 8.4; 9 knows only the resource's.
    pub role: Option<Role>,
    /// How good the local data is.
    pub disk_state: DiskState,
    /// Path of the backing device; nothing when diskless.
    pub backing_dev: Option<String>,
    /// Options of the disk.
    pub disk: DiskConf,
    /// Fixed properties (9).
    pub conf: DeviceConf,
    /// Usable size, sectors of 512 bytes.
    pub size_sectors: u64,
    /// Read from the backing device, sectors of 512 bytes.
    pub read_sectors: u64,
    /// Written to the backing device, sectors of 512 bytes.
    pub written_sectors: u64,
    /// Updates of the activity log.
    pub al_writes: u64,
    /// Updates of the bitmap.
    pub bm_writes: u64,
    /// Requests from above in progress.
    pub upper_pending: u32,
    /// Requests to the backing device in progress.
    pub lower_pending: u32,
    /// Requests from above are being held.
    pub upper_blocked: bool,
    /// The backing device is congested.
    pub lower_blocked: bool,
    /// Identifier of the current data generation. Its lowest bit says Primary: two nodes have the same data when the other bits are equal.
    pub current_uuid: u64,
    /// Identifiers of earlier generations.
    pub history_uuids: Vec<u64>,
    /// What differs from the peer's data, sectors of 512 bytes; known without a connection, too (8.4; on 9 see
    /// [`PeerDeviceStatus::out_of_sync_sectors`]).
    pub out_of_sync_sectors: Option<u64>,
    /// Sent since `connect`, sectors of 512 bytes; known without a connection, too (8.4).
    pub sent_sectors: Option<u64>,
    /// Received since `connect`, sectors of 512 bytes; known without a connection, too (8.4).
    pub received_sectors: Option<u64>,
    /// Somebody has it open (9.1).
    pub is_open: Option<bool>,
    /// Enough nodes are there (9).
    pub has_quorum: Option<bool>,
    /// No disk here, on purpose (9).
    pub is_intentional_diskless: Option<bool>,
}

/// A connection of a resource.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// Its name, usually the peer's host name (9).
    pub name: Option<String>,
    /// The peer's node id (9).
    pub peer_node_id: Option<u32>,
    /// Its state.
    pub state: ConnectionState,
    /// The peer's role; on 8.4 the highest of its volumes.
    pub peer_role: Role,
    /// Our end; empty on 9 where a connection has no path.
    pub my_addr: Address,
    /// The peer's end.
    pub peer_addr: Address,
    /// Its options.
    pub net: NetConf,
    /// The volumes as seen over it.
    pub peer_devices: Vec<PeerDeviceStatus>,
    /// All its paths (9).
    pub paths: Vec<PathStatus>,
    /// The send buffer is nearly full.
    pub congested: bool,
    /// Writes in flight, sectors of 512 bytes (9).
    pub in_flight_sectors: Option<u64>,
    /// Resync in flight, sectors of 512 bytes (9).
    pub resync_in_flight_sectors: Option<u64>,
}

/// A path of a connection (9).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PathStatus {
    /// Our end.
    pub my_addr: Address,
    /// The peer's end.
    pub peer_addr: Address,
    /// It is in use.
    pub established: bool,
}

/// A volume as seen over one connection.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PeerDeviceStatus {
    /// Its number in the resource.
    pub volume: u32,
    /// What replication does.
    pub repl_state: ReplState,
    /// How good the peer's data is, as it said last. DRBD 8.4 says it once more soon after connecting, with a copy that may have become old
    /// meanwhile (`after_state_ch`): a change made at once after connecting can stay unseen here until the next one.
    pub peer_disk_state: DiskState,
    /// Received since the connection was made, sectors of 512 bytes.
    pub received_sectors: u64,
    /// Sent since the connection was made, sectors of 512 bytes.
    pub sent_sectors: u64,
    /// Requests that the peer has not answered.
    pub pending: u32,
    /// Requests of the peer that we have not answered.
    pub unacked: u32,
    /// What differs, sectors of 512 bytes.
    pub out_of_sync_sectors: u64,
    /// What could not be resynced, sectors of 512 bytes.
    pub resync_failed_sectors: u64,
    /// The part of a running resync that is done, 0 to 1; nothing when none runs.
    pub resync_done: Option<f64>,
    /// A running resync is held: by our user, by the peer, or behind another one.
    pub resync_suspended: bool,
    /// Identifier of the generation since which the bitmap counts; 0 when the data is the same.
    pub bitmap_uuid: u64,
}

impl ResourceStatus {
    /// Names a volume of this resource.
    pub fn target(&self, volume: &VolumeStatus) -> Target {
        Target { resource: self.name.clone(), minor: volume.minor }
    }
}

impl ConnectionStatus {
    /// Names this connection, addresses byte for byte.
    pub fn peer(&self, resource: &str) -> Peer {
        Peer {
            resource: resource.to_owned(),
            peer_node_id: self.peer_node_id,
            my_addr: self.my_addr.clone(),
            peer_addr: self.peer_addr.clone(),
        }
    }
}
