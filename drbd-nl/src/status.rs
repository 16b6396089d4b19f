//! Status: the four dumps joined into one tree.
//!
//! The dumps are not atomic: an object can vanish between two of them, and then it is simply not in the tree.

use crate::{
    Address, CfgContext, Command, ConnectionState, Contents, DeviceConf, Dialect, DiskConf,
    DiskState, Drbd, Error, NetConf, Peer, Refusal, ReplState, ResourceOpts, Role, StateInfo,
    Target,
    drbd::{Record, Request},
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
#[expect(
    clippy::struct_excessive_bools,
    reason = "five independent flags of the kernel's"
)]
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
    /// How good the peer's data is.
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
        Target {
            resource: self.name.clone(),
            minor: volume.minor,
        }
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

impl Drbd {
    /// Everything that DRBD has on this host.
    ///
    /// # Errors
    ///
    /// None of DRBD's; what the socket and the kernel's netlink can say.
    pub fn status(&mut self) -> Result<Vec<ResourceStatus>, Error> {
        let resources = self.dump_all(Command::GET_RESOURCES)?;
        let dumps = Dumps {
            devices: self.dump_all(Command::GET_DEVICES)?,
            connections: self.dump_all(Command::GET_CONNECTIONS)?,
            peer_devices: self.dump_all(Command::GET_PEER_DEVICES)?,
            paths: self.paths()?,
        };
        let mut tree = join(&resources, &dumps);
        tree.iter_mut()
            .try_for_each(|resource| self.add_minors_of_84(resource))?;
        Ok(tree)
    }

    /// One resource; nothing when there is none of this name.
    ///
    /// # Errors
    ///
    /// As [`Drbd::status`].
    pub fn resource(&mut self, name: &str) -> Result<Option<ResourceStatus>, Error> {
        // The dump of resources ignores a filter. The others obey one, and never end if they do not know the name: ask only for a known one.
        let mut resources = self.dump_all(Command::GET_RESOURCES)?;
        resources.retain(|record| name_of(record) == Some(name));
        if resources.is_empty() {
            return Ok(None);
        }
        match self.one(name, &resources) {
            Err(error) if error.refusal() == Some(Refusal::ResourceUnknown) => Ok(None), // gone in the meantime
            result => result,
        }
    }

    fn one(&mut self, name: &str, resources: &[Record]) -> Result<Option<ResourceStatus>, Error> {
        let dumps = Dumps {
            devices: self.dump(&Request::of_resource(Command::GET_DEVICES, name)?)?,
            connections: self.dump(&Request::of_resource(Command::GET_CONNECTIONS, name)?)?,
            peer_devices: self.dump(&Request::of_resource(Command::GET_PEER_DEVICES, name)?)?,
            paths: self.paths()?,
        };
        let mut found = join(resources, &dumps).into_iter().next();
        found
            .iter_mut()
            .try_for_each(|resource| self.add_minors_of_84(resource))?;
        Ok(found)
    }

    fn dump_all(&mut self, command: Command) -> Result<Vec<Record>, Error> {
        self.dump(&Request::new(command, "all resources".to_owned()))
    }

    /// Paths exist in 9 only, and their dump only in late versions of it; without it there are none to show.
    fn paths(&mut self) -> Result<Vec<Record>, Error> {
        if self.dialect() == Dialect::V84 {
            return Ok(Vec::new());
        }
        match self.dump_all(Command::GET_PATHS) {
            Err(Error::Kernel {
                errno: nix::errno::Errno::EOPNOTSUPP,
                ..
            }) => Ok(Vec::new()),
            result => result,
        }
    }

    /// What only 8.4's record of a single minor tells: the minor's own role, and how much the running resync had to do.
    fn add_minors_of_84(&mut self, resource: &mut ResourceStatus) -> Result<(), Error> {
        if self.dialect() != Dialect::V84 {
            return Ok(());
        }
        for volume in &mut resource.volumes {
            let Some(info) = self.minor_of_84(volume.minor)? else {
                continue;
            };
            volume.role = info.current_state.map(crate::State84::role);
            let peers = resource
                .connections
                .iter_mut()
                .flat_map(|connection| &mut connection.peer_devices);
            peers
                .filter(|peer| peer.volume == volume.volume && peer.repl_state.is_resync())
                .for_each(|peer| peer.resync_done = info.resync_done());
        }
        Ok(())
    }

    /// DRBD 8.4's view of one minor; nothing when it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::NotInDialect`] on DRBD 9.
    pub fn minor_of_84(&mut self, minor: u32) -> Result<Option<StateInfo>, Error> {
        self.only_in(Dialect::V84, Command::GET_STATUS)?;
        match self.ask(&Request::of_minor(Command::GET_STATUS, minor)) {
            Ok((_, contents)) => Ok(contents.state_info),
            Err(error) if error.refusal() == Some(Refusal::MinorInvalid) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

struct Dumps {
    devices: Vec<Record>,
    connections: Vec<Record>,
    peer_devices: Vec<Record>,
    paths: Vec<Record>,
}

/// Joins by name, on 9 also by node id, and by volume: the minor of a peer device's record is not always a minor.
fn join(resources: &[Record], dumps: &Dumps) -> Vec<ResourceStatus> {
    let resource = |record| {
        let mut resource = ResourceStatus::of(&record)?;
        let ours = |records: &[Record]| -> Vec<Record> {
            records
                .iter()
                .filter(|other| name_of(other) == Some(&resource.name))
                .cloned()
                .collect()
        };
        let (peers, paths) = (ours(&dumps.peer_devices), ours(&dumps.paths));
        let mut volumes: Vec<_> = ours(&dumps.devices)
            .iter()
            .filter_map(VolumeStatus::of)
            .collect();
        volumes.sort_by_key(|volume| volume.volume);
        resource.connections = ours(&dumps.connections)
            .iter()
            .map(|record| connection_with(record, &peers, &paths))
            .collect();
        resource.volumes = volumes;
        Some(resource)
    };
    resources
        .iter()
        .filter_map(|record| resource(record.clone()))
        .collect()
}

fn connection_with(record: &Record, peers: &[Record], paths: &[Record]) -> ConnectionStatus {
    let mut connection = ConnectionStatus::of(&record.contents);
    let same_peer = |other: &&Record| context_of(other).peer_node_id == connection.peer_node_id;
    connection.peer_devices = peers
        .iter()
        .filter(same_peer)
        .filter_map(|r| PeerDeviceStatus::of(&r.contents))
        .collect();
    connection.peer_devices.sort_by_key(|device| device.volume);
    connection.paths = paths
        .iter()
        .filter(same_peer)
        .map(|r| PathStatus::of(&r.contents))
        .collect();
    connection
}

fn name_of(record: &Record) -> Option<&str> {
    record.contents.context.as_ref()?.resource_name.as_deref()
}

fn context_of(record: &Record) -> CfgContext {
    record.contents.context.clone().unwrap_or_default()
}

impl ResourceStatus {
    pub(crate) fn of(record: &Record) -> Option<ResourceStatus> {
        let info = record.contents.resource_info.clone().unwrap_or_default();
        Some(ResourceStatus {
            name: name_of(record)?.to_owned(),
            role: info.role.unwrap_or(Role::Unknown),
            suspended: Suspended {
                user: info.susp.unwrap_or(false),
                no_data: info.susp_nod.unwrap_or(false),
                fencing: info.susp_fen.unwrap_or(false),
                quorum: info.susp_quorum.unwrap_or(false),
                fail_io: info.fail_io.unwrap_or(false),
            },
            options: record.contents.resource_opts.clone().unwrap_or_default(),
            volumes: Vec::new(),
            connections: Vec::new(),
        })
    }
}

impl VolumeStatus {
    pub(crate) fn of(record: &Record) -> Option<VolumeStatus> {
        let Contents {
            context,
            disk_conf,
            device_conf,
            device_info,
            device_statistics,
            ..
        } = record.contents.clone();
        let (info, statistics) = (
            device_info.unwrap_or_default(),
            device_statistics.unwrap_or_default(),
        );
        let disk = disk_conf.unwrap_or_default();
        let path = info.backing_dev_path.filter(|path| path != "none");
        Some(VolumeStatus {
            volume: context?.volume?,
            minor: record.minor,
            role: None,
            disk_state: info.disk_state.unwrap_or(DiskState::Diskless),
            backing_dev: path.or_else(|| disk.backing_dev.clone()),
            disk,
            conf: device_conf.unwrap_or_default(),
            size_sectors: statistics.size.unwrap_or(0),
            read_sectors: statistics.read.unwrap_or(0),
            written_sectors: statistics.write.unwrap_or(0),
            al_writes: statistics.al_writes.unwrap_or(0),
            bm_writes: statistics.bm_writes.unwrap_or(0),
            upper_pending: statistics.upper_pending.unwrap_or(0),
            lower_pending: statistics.lower_pending.unwrap_or(0),
            upper_blocked: statistics.upper_blocked.unwrap_or(false),
            lower_blocked: statistics.lower_blocked.unwrap_or(false),
            current_uuid: statistics.current_uuid.unwrap_or(0),
            history_uuids: statistics.history_uuids.unwrap_or_default(),
            is_open: info.is_open,
            has_quorum: info.has_quorum,
            is_intentional_diskless: info.is_intentional_diskless,
        })
    }
}

impl ConnectionStatus {
    pub(crate) fn of(contents: &Contents) -> ConnectionStatus {
        let Contents {
            context,
            net_conf,
            connection_info,
            connection_statistics,
            ..
        } = contents.clone();
        let (context, net) = (context.unwrap_or_default(), net_conf.unwrap_or_default());
        let (info, statistics) = (
            connection_info.unwrap_or_default(),
            connection_statistics.unwrap_or_default(),
        );
        ConnectionStatus {
            name: context.conn_name.or_else(|| net.name.clone()),
            peer_node_id: context.peer_node_id,
            state: info.state.unwrap_or(ConnectionState::StandAlone),
            peer_role: info.role.unwrap_or(Role::Unknown),
            my_addr: context.my_addr.unwrap_or_default(),
            peer_addr: context.peer_addr.unwrap_or_default(),
            net,
            peer_devices: Vec::new(),
            paths: Vec::new(),
            congested: statistics.congested.unwrap_or(false),
            in_flight_sectors: statistics.ap_in_flight,
            resync_in_flight_sectors: statistics.rs_in_flight,
        }
    }
}

impl PathStatus {
    pub(crate) fn of(contents: &Contents) -> PathStatus {
        let context = contents.context.clone().unwrap_or_default();
        PathStatus {
            my_addr: context.my_addr.unwrap_or_default(),
            peer_addr: context.peer_addr.unwrap_or_default(),
            established: contents
                .path_info
                .as_ref()
                .and_then(|info| info.path_established)
                .unwrap_or(false),
        }
    }
}

impl PeerDeviceStatus {
    pub(crate) fn of(contents: &Contents) -> Option<PeerDeviceStatus> {
        let info = contents.peer_device_info.clone().unwrap_or_default();
        let statistics = contents.peer_device_statistics.clone().unwrap_or_default();
        let repl_state = info.repl_state.unwrap_or(ReplState::Off);
        let held = [
            info.resync_susp_user,
            info.resync_susp_peer,
            info.resync_susp_dependency,
        ];
        Some(PeerDeviceStatus {
            volume: contents.context.as_ref()?.volume?,
            repl_state,
            peer_disk_state: info.disk_state.unwrap_or(DiskState::DUnknown),
            received_sectors: statistics.received.unwrap_or(0),
            sent_sectors: statistics.sent.unwrap_or(0),
            pending: statistics.pending.unwrap_or(0),
            unacked: statistics.unacked.unwrap_or(0),
            out_of_sync_sectors: statistics.out_of_sync.unwrap_or(0),
            resync_failed_sectors: statistics.resync_failed.unwrap_or(0),
            resync_done: statistics.resync_done().filter(|_| repl_state.is_resync()),
            resync_suspended: held.into_iter().flatten().any(|held| held != 0),
            bitmap_uuid: statistics.bitmap_uuid.unwrap_or(0),
        })
    }
}
