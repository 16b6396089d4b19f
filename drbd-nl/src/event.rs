//! What an event says, made from one notification.

use crate::{
    Address, CfgContext, Command, ConnectionStatus, Contents, Notified, Packet, PathStatus, PeerDeviceStatus,
    ResourceStatus, VolumeStatus, drbd::Record, error::DecodeError,
};

/// One event.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Part of the initial state.
    Exists(Object),
    /// The initial state is complete; from here on changes.
    SnapshotDone,
    /// A new object.
    Created(Object),
    /// An object's state, all of it.
    Changed(Object),
    /// An object is gone.
    Destroyed(ObjectId),
    /// A resource has another name (9).
    Renamed {
        /// The old name.
        resource: String,
        /// The new one.
        new_name: String,
    },
    /// The kernel runs a program for a resource: fence-peer, before-resync-target and so on.
    Helper {
        /// The resource, if the kernel told.
        resource: Option<String>,
        /// The minor, if it runs for one.
        minor: Option<u32>,
        /// The program's task.
        name: String,
        /// It starts or has ended.
        phase: HelperPhase,
    },
    /// Notifications were lost: all that was told before is stale, and everything that exists follows anew.
    Lost,
}

/// The start or end of a helper program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelperPhase {
    /// It starts.
    Call,
    /// It has ended with this exit code, 0 to 255.
    Response(u8),
}

/// An object with its state. Notifications carry state and counters; options, disks' and connections', are in [`crate::Drbd::status`] only.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Object {
    /// A resource; its lists are empty.
    Resource(Box<ResourceStatus>),
    /// A volume on this host.
    Device {
        /// Its resource.
        resource: String,
        /// Its state.
        volume: Box<VolumeStatus>,
    },
    /// A connection; its lists are empty.
    Connection {
        /// Its resource.
        resource: String,
        /// Its state. The peer's role is here.
        connection: Box<ConnectionStatus>,
    },
    /// A volume as seen over a connection.
    PeerDevice {
        /// Its resource.
        resource: String,
        /// The peer (9).
        peer_node_id: Option<u32>,
        /// Its state.
        peer_device: PeerDeviceStatus,
    },
    /// A path of a connection (9).
    Path {
        /// Its resource.
        resource: String,
        /// The peer.
        peer_node_id: Option<u32>,
        /// Its state.
        path: PathStatus,
    },
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ObjectId {
    /// A resource.
    Resource {
        /// Its name.
        name: String,
    },
    /// A volume on this host.
    Device {
        /// Its resource.
        resource: String,
        /// Its number.
        volume: u32,
        /// Its minor.
        minor: u32,
    },
    /// A connection.
    Connection {
        /// Its resource.
        resource: String,
        /// The peer (9).
        peer_node_id: Option<u32>,
    },
    /// A volume as seen over a connection.
    PeerDevice {
        /// Its resource.
        resource: String,
        /// The peer (9).
        peer_node_id: Option<u32>,
        /// Its number.
        volume: u32,
    },
    /// A path of a connection (9).
    Path {
        /// Its resource.
        resource: String,
        /// The peer.
        peer_node_id: Option<u32>,
        /// Our end.
        my_addr: Address,
        /// The peer's end.
        peer_addr: Address,
    },
}

/// Nothing for notifications that say nothing new: 8.4 sends each change a second time in its old form.
pub(crate) fn of(packet: &Packet, contents: &Contents, what: Notified) -> Result<Option<Event>, DecodeError> {
    if packet.command == Command::HELPER {
        return Ok(Some(helper(packet, contents, what)));
    }
    if what.what() == Notified::DESTROY {
        return Ok(id(packet, contents)?.map(Event::Destroyed));
    }
    if what.what() == Notified::RENAME {
        return renamed(contents).map(Some);
    }
    let Some(object) = object(packet, contents)? else { return Ok(None) };
    Ok(Some(match what.what() {
        Notified::EXISTS => Event::Exists(object),
        Notified::CREATE => Event::Created(object),
        _ => Event::Changed(object),
    }))
}

fn object(packet: &Packet, contents: &Contents) -> Result<Option<Object>, DecodeError> {
    let record = Record { minor: packet.minor, contents: contents.clone() };
    let context = contents.context.clone().unwrap_or_default();
    let peer_node_id = context.peer_node_id;
    Ok(Some(match packet.command {
        Command::RESOURCE_STATE => Object::Resource(Box::new(ResourceStatus::of(&record).ok_or(NO_NAME)?)),
        Command::DEVICE_STATE => {
            let volume = Box::new(VolumeStatus::of(&record).ok_or(NO_VOLUME)?);
            Object::Device { resource: name(context)?, volume }
        }
        Command::CONNECTION_STATE => {
            let connection = Box::new(ConnectionStatus::of(contents));
            Object::Connection { resource: name(context)?, connection }
        }
        Command::PEER_DEVICE_STATE => {
            let peer_device = PeerDeviceStatus::of(contents).ok_or(NO_VOLUME)?;
            Object::PeerDevice { resource: name(context)?, peer_node_id, peer_device }
        }
        Command::PATH_STATE => Object::Path { resource: name(context)?, peer_node_id, path: PathStatus::of(contents) },
        _ => return Ok(None),
    }))
}

fn id(packet: &Packet, contents: &Contents) -> Result<Option<ObjectId>, DecodeError> {
    let context = contents.context.clone().unwrap_or_default();
    let CfgContext { volume, peer_node_id, my_addr, peer_addr, .. } = context.clone();
    let volume = volume.ok_or(NO_VOLUME);
    let resource = name(context)?;
    Ok(Some(match packet.command {
        Command::RESOURCE_STATE => ObjectId::Resource { name: resource },
        Command::DEVICE_STATE => ObjectId::Device { resource, volume: volume?, minor: packet.minor },
        Command::CONNECTION_STATE => ObjectId::Connection { resource, peer_node_id },
        Command::PEER_DEVICE_STATE => ObjectId::PeerDevice { resource, peer_node_id, volume: volume? },
        Command::PATH_STATE => {
            let (my_addr, peer_addr) = (my_addr.unwrap_or_default(), peer_addr.unwrap_or_default());
            ObjectId::Path { resource, peer_node_id, my_addr, peer_addr }
        }
        _ => return Ok(None),
    }))
}

impl Object {
    /// Which object this is.
    pub fn id(&self) -> ObjectId {
        match self {
            Object::Resource(resource) => ObjectId::Resource { name: resource.name.clone() },
            Object::Device { resource, volume } => {
                ObjectId::Device { resource: resource.clone(), volume: volume.volume, minor: volume.minor }
            }
            Object::Connection { resource, connection } => {
                ObjectId::Connection { resource: resource.clone(), peer_node_id: connection.peer_node_id }
            }
            Object::PeerDevice { resource, peer_node_id, peer_device } => ObjectId::PeerDevice {
                resource: resource.clone(),
                peer_node_id: *peer_node_id,
                volume: peer_device.volume,
            },
            Object::Path { resource, peer_node_id, path } => ObjectId::Path {
                resource: resource.clone(),
                peer_node_id: *peer_node_id,
                my_addr: path.my_addr.clone(),
                peer_addr: path.peer_addr.clone(),
            },
        }
    }
}

fn helper(packet: &Packet, contents: &Contents, what: Notified) -> Event {
    let info = contents.helper.clone().unwrap_or_default();
    let [_, exit_code, ..] = info.status.unwrap_or(0).to_le_bytes(); // a wait status: the exit code is its second byte
    let phase = if what.what() == Notified::CALL { HelperPhase::Call } else { HelperPhase::Response(exit_code) };
    Event::Helper {
        resource: contents.context.as_ref().and_then(|context| context.resource_name.clone()),
        minor: (packet.minor != crate::NO_MINOR).then_some(packet.minor),
        name: info.name.unwrap_or_default(),
        phase,
    }
}

fn renamed(contents: &Contents) -> Result<Event, DecodeError> {
    let resource = name(contents.context.clone().unwrap_or_default())?;
    let info = contents.rename_resource_info.clone().unwrap_or_default();
    let new_name = info.res_new_name.ok_or(DecodeError::Missing { field: "res_new_name" })?;
    Ok(Event::Renamed { resource, new_name })
}

const NO_NAME: DecodeError = DecodeError::Missing { field: "ctx_resource_name" };
const NO_VOLUME: DecodeError = DecodeError::Missing { field: "ctx_volume" };

fn name(context: CfgContext) -> Result<String, DecodeError> {
    context.resource_name.ok_or(NO_NAME)
}
