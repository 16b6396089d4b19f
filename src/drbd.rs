//! [`Replication`] by DRBD's generic netlink, with our device-mapper layer over each volume.

pub mod bring;
pub mod conf;
mod heal;
mod inventory;
mod options;
pub mod review;
pub mod sockets;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use drbd_nl::{ConnectionState, ConnectionStatus, PeerDeviceStatus, ReplState, ResourceStatus, Role, VolumeStatus};

pub use self::heal::Error as HealError;
use self::heal::Healing;
use crate::backing;
use crate::dm::DeviceNumber;
use crate::holders;
use crate::ids::{DomId, Minor, VolumeId};
use crate::layer::{self, Layer};
use crate::replication::{Attachment, Counters, Error, Inventory, Link, Replication, VolumeState};
use crate::role::{self, Patience};
use crate::wait::poll_until;
use crate::xen::vbd;
use crate::xen::xenstore::Xenstore;

/// DRBD on this host.
#[derive(Debug)]
pub struct Drbd {
    netlink: Mutex<drbd_nl::Drbd>,
}

impl Drbd {
    /// Opens the way to the kernel's DRBD.
    ///
    /// # Errors
    /// The module is not loaded, or the kernel refuses.
    pub fn open() -> Result<Drbd, drbd_nl::Error> {
        Ok(Drbd { netlink: Mutex::new(drbd_nl::Drbd::open()?) })
    }

    /// All resources, as `bascule status` shows them.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn status(&self) -> Result<Vec<ResourceStatus>, drbd_nl::Error> {
        self.netlink().status()
    }

    /// Brings a resource of the files up; see [`bring::up`].
    ///
    /// # Errors
    /// Why it is not up; what was done is undone.
    pub fn up(&self, config: &drbd_conf::Config, name: &str, uname: &str) -> Result<(), bring::Error> {
        bring::up(&mut self.netlink(), config, name, uname)
    }

    /// Takes a resource down; see [`bring::down`].
    ///
    /// # Errors
    /// Why it is not down.
    pub fn down(&self, name: &str, state_dir: &Path) -> Result<(), bring::Error> {
        bring::down(&mut self.netlink(), name, state_dir)
    }

    /// What the loaded module speaks.
    pub fn dialect(&self) -> drbd_nl::Dialect {
        self.netlink().dialect()
    }

    fn netlink(&self) -> MutexGuard<'_, drbd_nl::Drbd> {
        self.netlink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, volume: &VolumeId) -> Result<VolumeState, Error> {
        self.state(volume)?.ok_or_else(|| format!("Volume {volume} is not configured in the kernel").into())
    }

    fn target(&self, volume: &VolumeId) -> Result<drbd_nl::Target, Error> {
        Ok(drbd_nl::Target { resource: volume.resource.clone(), minor: self.known(volume)?.minor.0 })
    }

    /// Waits until the peer is not Primary, or not there. DRBD refuses a second Primary by itself, but not where the
    /// configuration permits two for good.
    fn await_peer(&self, volume: &VolumeId, deadline: Instant) -> Result<(), Error> {
        let let_go = poll_until(deadline, || match self.known(volume) {
            Ok(state) if state.connected && state.peer_primary => None,
            looked => Some(looked.map(drop)),
        });
        let_go.unwrap_or_else(|| Err(format!("{volume} is still Primary on the peer").into()))
    }

    fn layer(&self, volume: &VolumeId) -> Result<Layer, Error> {
        Layer::find(volume)?.ok_or_else(|| format!("Volume {volume} has no layer of ours").into())
    }

    fn volume_of_minor(&self, minor: u32) -> Result<Option<VolumeId>, Error> {
        let resources = self.status()?;
        let mut volumes =
            resources.iter().flat_map(|resource| resource.volumes.iter().map(move |volume| (resource, volume)));
        Ok(volumes.find(|(_, volume)| volume.minor == minor).map(|(resource, volume)| id_of(resource, volume)))
    }

    /// By the path of its backing device, below /dev.
    fn volume_on(&self, backing: &str) -> Result<Option<VolumeId>, Error> {
        let is_there = |volume: &VolumeStatus| {
            volume.backing_dev.as_deref().and_then(|path| path.strip_prefix("/dev/")) == Some(backing)
        };
        let resources = self.status()?;
        let found = resources.iter().find_map(|resource| {
            resource.volumes.iter().find(|volume| is_there(volume)).map(|volume| id_of(resource, volume))
        });
        Ok(found)
    }

    fn volume_of_name(&self, name: &str, number: Option<&str>) -> Result<Option<VolumeId>, Error> {
        let Some(resource) = self.netlink().resource(name)? else { return Ok(None) };
        match (number, resource.volumes.as_slice()) {
            (None, [only]) => Ok(Some(id_of(&resource, only))),
            (None, volumes) => {
                Err(format!("Resource {name} has {} volumes: name one, as {name}/0", volumes.len()).into())
            }
            (Some(number), volumes) => {
                let volume = volumes.iter().find(|volume| volume.volume.to_string() == number);
                Ok(volume.map(|volume| id_of(&resource, volume)))
            }
        }
    }
}

impl Replication for Drbd {
    fn resolve(&self, target: &str) -> Result<Option<VolumeId>, Error> {
        let target = target.strip_prefix("drbd:").or(target.strip_prefix("phy:")).unwrap_or(target);
        match backing::device(Path::new(target)) {
            Some(DeviceNumber { major: DeviceNumber::DRBD_MAJOR, minor }) => self.volume_of_minor(minor),
            Some(_) => Ok(None),
            None => match Named::by(target) {
                Named::Minor(minor) => self.volume_of_minor(minor),
                Named::Backing(path) => self.volume_on(path),
                Named::Volume(name, number) => self.volume_of_name(name, number),
                Named::Nothing => Ok(None),
            },
        }
    }

    fn state(&self, id: &VolumeId) -> Result<Option<VolumeState>, Error> {
        let Some(resource) = self.netlink().resource(&id.resource)? else { return Ok(None) };
        let volume = resource.volumes.iter().find(|volume| volume.volume == u32::from(id.volume));
        Ok(volume.map(|volume| state_of(id, &resource, volume)))
    }

    fn inventory(&self) -> Result<Inventory, Error> {
        Ok(inventory::of(self.dialect(), &self.status()?))
    }

    fn attachment(&self, volume: &VolumeId) -> Result<Attachment, Error> {
        let layer = Layer::find(volume)?;
        let laid = match &layer {
            Some(layer) => layer.state()? == layer::State::Laid && layer.open_count()? > 0,
            None => false,
        };
        Ok(if laid { Attachment::Layer } else { Attachment::Direct })
    }

    fn holder(&self, volume: &VolumeId) -> Result<Option<String>, Error> {
        let Some(state) = self.state(volume)? else { return Ok(None) };
        let holders = holders::holders(DeviceNumber::drbd(state.minor));
        Ok((!holders.is_empty()).then(|| holders::describe(&holders)))
    }

    fn wait_idle(&self, domid: DomId, deadline: Instant) -> Result<(), Error> {
        let backends = vbd::backends(&Xenstore::open()?, domid)?;
        Ok(vbd::wait_idle(&backends, deadline)?)
    }

    fn release(&self, volume: &VolumeId, deadline: Instant) -> Result<(), Error> {
        self.layer(volume)?.withdraw(deadline)?;
        self.become_secondary(volume, deadline)
    }

    fn retake(&self, volume: &VolumeId, deadline: Instant) -> Result<(), Error> {
        // Without a layer there is nobody to take it back for: its role stays as it is.
        let (layer, target) = (self.layer(volume)?, self.target(volume)?);
        self.await_peer(volume, deadline)?;
        role::promote_with_retry(&mut self.netlink(), &target, Patience::WaitForPeer, deadline)?;
        let sectors = self.known(volume)?.size_sectors;
        Ok(layer.give_back(Minor(target.minor), sectors)?)
    }

    fn abandon(&self, volume: &VolumeId) -> Result<(), Error> {
        match Layer::find(volume)? {
            Some(layer) => Ok(layer.release()?),
            None => Ok(()),
        }
    }

    fn demote(&self, volume: &VolumeId, deadline: Instant) -> Result<(), Error> {
        if let Some(layer) = Layer::find(volume)? {
            layer.remove_unused(deadline)?;
        }
        self.become_secondary(volume, deadline)
    }

    fn allow_two_primaries(&self, resource: &str, allow: bool, deadline: Instant) -> Result<(), Error> {
        let mut last = None;
        let done = poll_until(deadline, || match self.try_allow(resource, allow) {
            Ok(()) => Some(()),
            Err(error) => {
                last = Some(error);
                None
            }
        });
        match (done, last) {
            (None, Some(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn link(&self, resource: &str) -> Result<Option<Link>, Error> {
        let status = self.netlink().resource(resource)?;
        let connection = status.as_ref().and_then(|status| status.connections.first());
        Ok(connection.map(|connection| Link::of(resource, connection)))
    }

    fn heal(&self, link: &Link, volumes: &[VolumeId], sacrifice: bool, deadline: Instant) -> Result<(), Error> {
        Ok(Healing::new(link, volumes, sacrifice).run(self, deadline)?)
    }
}

impl Drbd {
    fn become_secondary(&self, volume: &VolumeId, deadline: Instant) -> Result<(), Error> {
        let target = self.target(volume)?;
        role::demote_with_retry(&mut self.netlink(), &target, deadline)?;
        Ok(())
    }

    /// Sets the option where it is not as wanted, and looks whether it is then.
    fn try_allow(&self, resource: &str, allow: bool) -> Result<(), Error> {
        let mut netlink = self.netlink();
        let status = netlink
            .resource(resource)?
            .ok_or_else(|| format!("Resource {resource} is not configured in the kernel"))?;
        match status.connections.first() {
            Some(connection) if connection.net.two_primaries == Some(allow) => Ok(()),
            Some(connection) => Ok(netlink.set_two_primaries(resource, connection, allow)?),
            // DRBD 8.4 forgets the settings of a connection that is StandAlone, and with them what was allowed.
            None if !allow => Ok(()),
            None => Err(format!("Resource {resource} has no connection").into()),
        }
    }
}

/// What a disk's target says, where it is no device of this host: a name of DRBD's, or a path that udev would have made a link of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named<'a> {
    /// `/dev/drbdN`.
    Minor(u32),
    /// `/dev/drbd/by-disk/PATH`: the backing device is /dev/PATH.
    Backing(&'a str),
    /// `RES`, `RES/VOL`, or `/dev/drbd/by-res/` before it.
    Volume(&'a str, Option<&'a str>),
    /// It is not DRBD's.
    Nothing,
}

impl Named<'_> {
    fn by(target: &str) -> Named<'_> {
        let below = |directory: &str| target.strip_prefix("/dev/drbd").and_then(|rest| rest.strip_prefix(directory));
        let minor = target.strip_prefix("/dev/drbd").and_then(|number| number.parse().ok());
        match (minor, below("/by-disk/"), below("/by-res/").or((!target.starts_with('/')).then_some(target))) {
            (Some(minor), ..) => Named::Minor(minor),
            (None, Some(path), _) => Named::Backing(path),
            (None, None, Some(name)) => match name.split_once('/') {
                Some((name, number)) => Named::Volume(name, Some(number)),
                None => Named::Volume(name, None),
            },
            (None, None, None) => Named::Nothing,
        }
    }
}

fn id_of(resource: &ResourceStatus, volume: &VolumeStatus) -> VolumeId {
    VolumeId { resource: resource.name.clone(), volume: u16::try_from(volume.volume).unwrap_or(u16::MAX) }
}

fn state_of(id: &VolumeId, resource: &ResourceStatus, volume: &VolumeStatus) -> VolumeState {
    let connection = resource.connections.first();
    let peer =
        connection.and_then(|connection| connection.peer_devices.iter().find(|peer| peer.volume == volume.volume));
    VolumeState {
        id: id.clone(),
        minor: Minor(volume.minor),
        size_sectors: volume.size_sectors,
        generation: volume.current_uuid & !1,
        primary: volume.role.unwrap_or(resource.role) == Role::Primary,
        peer_primary: connection.is_some_and(|connection| connection.peer_role == Role::Primary),
        connected: connection.is_some_and(|connection| connection.state.is_connected()),
        connection: connection.map_or_else(|| "StandAlone".to_owned(), |connection| connection.state.to_string()),
        disk: volume.disk_state.to_string(),
        peer_disk: peer.map_or_else(|| "DUnknown".to_owned(), |peer| peer.peer_disk_state.to_string()),
        up_to_date: volume.disk_state.is_up_to_date() && peer.is_some_and(|peer| peer.peer_disk_state.is_up_to_date()),
        replication: peer.map_or_else(|| "Off".to_owned(), |peer| peer.repl_state.to_string()),
        resync_done: peer.and_then(|peer| peer.resync_done),
        resyncing: peer.is_some_and(|peer| !is_steady(&peer.repl_state)),
        protocol: connection.and_then(protocol_of),
        two_primaries: connection.is_some_and(|connection| connection.net.two_primaries == Some(true)),
        standalone: connection.is_none_or(|connection| connection.state == ConnectionState::StandAlone),
        out_of_sync_sectors: out_of_sync_sectors(resource, volume),
        peer: connection.map_or_else(|| "the peer".to_owned(), peer_name),
        counters: counters_of(volume, peer),
    }
}

fn is_steady(state: &ReplState) -> bool {
    matches!(state, ReplState::Established | ReplState::Off)
}

fn protocol_of(connection: &ConnectionStatus) -> Option<char> {
    connection.net.wire_protocol.and_then(|protocol| protocol.to_string().chars().next())
}

fn peer_name(connection: &ConnectionStatus) -> String {
    let name = connection.name.clone().filter(|name| !name.is_empty());
    name.unwrap_or_else(|| connection.peer_addr.to_string())
}

fn counters_of(volume: &VolumeStatus, peer: Option<&PeerDeviceStatus>) -> Counters {
    Counters {
        written: volume.written_sectors,
        sent: peer.map(|peer| peer.sent_sectors).or(volume.sent_sectors).unwrap_or(0),
        received: peer.map(|peer| peer.received_sectors).or(volume.received_sectors).unwrap_or(0),
    }
}

/// What this host's bitmaps know: on 8.4 the volume has one, on 9 one for each peer.
fn out_of_sync_sectors(resource: &ResourceStatus, volume: &VolumeStatus) -> u64 {
    let peers = resource.connections.iter().flat_map(|connection| &connection.peer_devices);
    let per_peer = peers.filter(|peer| peer.volume == volume.volume).map(|peer| peer.out_of_sync_sectors);
    per_peer.chain(volume.out_of_sync_sectors).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_names_its_volume_in_many_ways() {
        let rows = [
            ("r0", Named::Volume("r0", None)),
            ("r0/1", Named::Volume("r0", Some("1"))),
            ("/dev/drbd/by-res/r0", Named::Volume("r0", None)),
            ("/dev/drbd/by-res/r0/1", Named::Volume("r0", Some("1"))),
            ("/dev/drbd7", Named::Minor(7)),
            ("/dev/drbd/by-disk/vg/lv", Named::Backing("vg/lv")),
            ("/dev/drbd/by-else/r0", Named::Nothing),
            ("/dev/drbd7x", Named::Nothing),
            ("/dev/vg/lv", Named::Nothing),
            ("/srv/drbd7", Named::Nothing),
        ];
        for (target, named) in rows {
            assert_eq!(Named::by(target), named, "{target}");
        }
    }
}
