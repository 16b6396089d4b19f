//! DRBD's generic netlink: what `drbdsetup` does, as a library.
//!
//! [`Drbd`] asks and commands over one socket, [`Events`] listens on another: first everything that exists, then
//! each change. Both speak family `drbd` version 1 (DRBD 8.4, in the Linux tree) and version 2 (DRBD 9), chosen when the
//! family is resolved ([`Dialect`]). The codec underneath ([`Packet`], [`Contents`]) is pure.
//!
//! ```no_run
//! let mut drbd = drbd_nl::Drbd::open()?;
//! for resource in drbd.status()? {
//!     println!("{} {}", resource.name, resource.role);
//! }
//! # Ok::<(), drbd_nl::Error>(())
//! ```
//!
//! Commands need `CAP_NET_ADMIN` in the initial user namespace, DRBD 9 `CAP_SYS_ADMIN` too; status and events need nothing, but
//! a reader without `CAP_SYS_ADMIN` does not see shared secrets. The kernel runs a command inside the caller's `send`: a
//! promotion can take seconds (a ping to the peer, a fence-peer handler), which no timeout of ours shortens.

mod address;
mod channel;
mod command;
mod connection;
mod contents;
mod device;
mod dialect;
mod drbd;
mod error;
mod event;
#[cfg(test)]
mod event_traps;
mod events;
#[cfg(test)]
mod fake;
mod family;
mod join;
mod nest;
mod packet;
mod path;
mod peer_device;
mod record;
mod refusal;
#[cfg(test)]
mod replay;
mod resource;
mod secret;
mod socket;
mod state;
mod state84;
mod status;
#[cfg(test)]
mod traps;
pub mod wire;

pub use address::{Address, NotAnAddress};
pub use command::Command;
pub use connection::{ConnectParms, ConnectionInfo, ConnectionStatistics, DisconnectParms, NetConf, Peer};
pub use contents::{CfgContext, CfgReply, Contents, HelperInfo, NotificationHeader, Notified};
pub use device::{
    DetachParms, DeviceConf, DeviceInfo, DeviceStatistics, DiskConf, InvalidateParms, NewCurrentUuidParms, ResizeParms,
    SuspendIoParms, Target,
};
pub use dialect::Dialect;
pub use drbd::{ANSWER_TIMEOUT, Change, DUMP_RECORDS_MAX, Drbd};
pub use error::{DecodeError, Error};
pub use event::{Event, HelperPhase, Object, ObjectId};
pub use events::{Events, PENDING_MAX};
pub use family::{Family, FamilyOp, GENL_ID_CTRL, List, McastGroup};
pub use packet::{NO_MINOR, Packet};
pub use path::{PathInfo, PathParms};
pub use peer_device::{
    ForgetPeerParms, InvalidatePeerParms, PeerDeviceConf, PeerDeviceInfo, PeerDeviceStatistics, PeerVolume,
    StartVerifyParms, TimeoutParms,
};
pub use refusal::Refusal;
pub use resource::{
    RenameResourceInfo, RenameResourceParms, ResourceInfo, ResourceOpts, ResourceStatistics, SetRoleParms,
};
pub use secret::Secret;
pub use state::{ConnectionState, DiskState, Protocol, ReplState, Role};
pub use state84::{State84, StateInfo};
pub use status::{ConnectionStatus, PathStatus, PeerDeviceStatus, ResourceStatus, Suspended, VolumeStatus};
