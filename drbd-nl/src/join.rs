//! Asking for status: four dumps, joined into one tree.
//!
//! The dumps are not atomic: an object can vanish between two of them, and then it is simply not in the tree.

use nix::errno::Errno;

use crate::{
    CfgContext, Command, ConnectionStatus, Dialect, Drbd, Error, PathStatus, PeerDeviceStatus, Refusal, ResourceStatus,
    StateInfo, VolumeStatus,
    drbd::{Record, Request},
};

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
        tree.iter_mut().try_for_each(|resource| self.add_minors_of_84(resource))?;
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
        found.iter_mut().try_for_each(|resource| self.add_minors_of_84(resource))?;
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
            Err(Error::Kernel { errno: Errno::EOPNOTSUPP, .. }) => Ok(Vec::new()),
            result => result,
        }
    }

    /// What only 8.4's record of a single minor tells: the minor's own role, how much the running resync had to do, and
    /// the counters of a connection that is gone.
    fn add_minors_of_84(&mut self, resource: &mut ResourceStatus) -> Result<(), Error> {
        if self.dialect() != Dialect::V84 {
            return Ok(());
        }
        for volume in &mut resource.volumes {
            let Some(info) = self.minor_of_84(volume.minor)? else {
                continue;
            };
            volume.role = info.current_state.map(crate::State84::role);
            volume.out_of_sync_sectors = info.out_of_sync_sectors();
            (volume.sent_sectors, volume.received_sectors) = (info.send_cnt, info.recv_cnt);
            let peers = resource.connections.iter_mut().flat_map(|connection| &mut connection.peer_devices);
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
            records.iter().filter(|other| name_of(other) == Some(&resource.name)).cloned().collect()
        };
        let (peers, paths) = (ours(&dumps.peer_devices), ours(&dumps.paths));
        let mut volumes: Vec<_> = ours(&dumps.devices).iter().filter_map(VolumeStatus::of).collect();
        volumes.sort_by_key(|volume| volume.volume);
        resource.connections =
            ours(&dumps.connections).iter().map(|record| connection_with(record, &peers, &paths)).collect();
        resource.volumes = volumes;
        Some(resource)
    };
    resources.iter().filter_map(|record| resource(record.clone())).collect()
}

fn connection_with(record: &Record, peers: &[Record], paths: &[Record]) -> ConnectionStatus {
    let mut connection = ConnectionStatus::of(&record.contents);
    let same_peer = |other: &&Record| context_of(other).peer_node_id == connection.peer_node_id;
    connection.peer_devices =
        peers.iter().filter(same_peer).filter_map(|r| PeerDeviceStatus::of(&r.contents)).collect();
    connection.peer_devices.sort_by_key(|device| device.volume);
    connection.paths = paths.iter().filter(same_peer).map(|r| PathStatus::of(&r.contents)).collect();
    // The path in use is what one would call the connection's addresses.
    if let Some(path) = connection.paths.iter().find(|path| path.established) {
        (connection.my_addr, connection.peer_addr) = (path.my_addr.clone(), path.peer_addr.clone());
    }
    connection
}

pub(crate) fn name_of(record: &Record) -> Option<&str> {
    record.contents.context.as_ref()?.resource_name.as_deref()
}

fn context_of(record: &Record) -> CfgContext {
    record.contents.context.clone().unwrap_or_default()
}
