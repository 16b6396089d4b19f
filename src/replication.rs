//! What a migration needs of replicated storage, and no more: the seam between the story and DRBD.
//!
//! [`crate::drbd`] implements it by generic netlink and device-mapper; tests and other tooling implement it too.

mod inventory;
mod link;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::inventory::{Connection, Inventory, PeerVolume, Resource, Volume};
pub use self::link::Link;
use crate::ids::{DomId, Minor, VolumeId};

/// A replication error: one clause, with its source.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// How a domain's disk lies on its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Attachment {
    /// Over the device-mapper layer of our `block-drbd`: the volume can be taken from under the suspended domain.
    Layer,
    /// Straight on the DRBD device: the domain holds it open as long as it lives.
    Direct,
}

/// One volume and its connection to the peer, as this host's kernel has it now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VolumeState {
    /// Which volume.
    pub id: VolumeId,
    /// Its device on this host.
    pub minor: Minor,
    /// Its size in sectors of 512 bytes.
    pub size_sectors: u64,
    /// The current data generation UUID, its lowest bit (the role) cleared.
    pub generation: u64,
    /// Whether this host may write it.
    pub primary: bool,
    /// Whether the peer may write it.
    pub peer_primary: bool,
    /// Whether the two hosts are connected.
    pub connected: bool,
    /// DRBD's word for the connection, such as `Connected` or `WFConnection`.
    pub connection: String,
    /// This host's disk, such as `UpToDate`.
    pub disk: String,
    /// The peer's disk.
    pub peer_disk: String,
    /// Whether both disks are UpToDate.
    pub up_to_date: bool,
    /// DRBD's word for what the connection does with this volume, such as `Established` or `SyncSource`.
    pub replication: String,
    /// How much of a resync is done, 0 to 1, while there is one.
    pub resync_done: Option<f64>,
    /// Whether a resync or an online verify is under way.
    pub resyncing: bool,
    /// Protocol A, B or C, if connected.
    pub protocol: Option<char>,
    /// Whether two Primaries are allowed on the connection now.
    pub two_primaries: bool,
    /// Whether this host does not even try to reach the peer: a split brain, or somebody's wish. DRBD 8.4 has forgotten the
    /// addresses then.
    pub standalone: bool,
    /// What differs from the peer's data as this host's bitmap knows it, in sectors of 512 bytes; also without a connection.
    pub out_of_sync_sectors: u64,
    /// How the peer is known: its connection's name or its address.
    pub peer: String,
    /// What the kernel has counted since the volume was attached.
    pub counters: Counters,
}

/// DRBD's counters of one volume, in sectors of 512 bytes: the witness of who wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Written to this host's disk, by local users, by the peer and by a resync, since the volume was attached.
    pub written: u64,
    /// Sent to the peer, by local users and by a resync, since `connect`: a connection that was lost and came back by itself goes on
    /// counting, one that was made anew begins at 0. Without discards.
    pub sent: u64,
    /// Received from the peer; otherwise as `sent`.
    pub received: u64,
}

/// The verbs that a migration uses. All waits end at the deadline that they are given.
pub trait Replication: Send + Sync {
    /// The volume that a disk's target names: `RES`, `RES/VOL`, with or without `drbd:`; a device of DRBD's under any name, or a link to it;
    /// `/dev/drbdN`, `/dev/drbd/by-res/RES/VOL` and `/dev/drbd/by-disk/PATH` also where nobody has made them. `None`: not DRBD's.
    ///
    /// # Errors
    /// The name is of DRBD's form, but no such volume is configured, or `RES` has several volumes.
    fn resolve(&self, target: &str) -> Result<Option<VolumeId>, Error>;

    /// The volume's state now, or `None` when this host has no such volume.
    fn state(&self, volume: &VolumeId) -> Result<Option<VolumeState>, Error>;

    /// Everything that this host replicates, for `bascule check`.
    ///
    /// # Errors
    /// The kernel does not answer, or the implementation does not tell.
    fn inventory(&self) -> Result<Inventory, Error> {
        Err("What is replicated is not told".into())
    }

    /// How the volume is attached to its local user.
    fn attachment(&self, volume: &VolumeId) -> Result<Attachment, Error>;

    /// Who has the volume open on this host, in words, or `None`.
    fn holder(&self, volume: &VolumeId) -> Result<Option<String>, Error>;

    /// Waits until nothing that the suspended domain had submitted is on its way to its disks.
    fn wait_idle(&self, domid: DomId, deadline: Instant) -> Result<(), Error>;

    /// Takes the volume from under the suspended domain and makes this host Secondary.
    ///
    /// # Errors
    /// The caller gives the volume back with [`Replication::retake`]: it works from every state that this can leave.
    fn release(&self, volume: &VolumeId, deadline: Instant) -> Result<(), Error>;

    /// The undo of [`Replication::release`]: Primary again, and the volume under the domain again. Retries while the
    /// peer is still Primary; a peer that is not connected does not count, and may be Primary, too: [`Replication::heal`] then.
    ///
    /// # Errors
    /// Nothing has changed when the domain's attachment is gone (its host was restarted, or the domain destroyed).
    fn retake(&self, volume: &VolumeId, deadline: Instant) -> Result<(), Error>;

    /// After the handover: lets requests of the domain that is about to be destroyed end in errors, not in waits.
    fn abandon(&self, volume: &VolumeId) -> Result<(), Error>;

    /// Makes this host Secondary once the last local user of the volume is gone; also when it is already. An attachment that a dead
    /// migration left behind, which nobody has open, is taken away first: the caller holds whatever keeps others from attaching
    /// the volume at the same time.
    fn demote(&self, volume: &VolumeId, deadline: Instant) -> Result<(), Error>;

    /// Allows or forbids two Primaries on the resource's connection to the peer, and waits until this end has it.
    fn allow_two_primaries(&self, resource: &str, allow: bool, deadline: Instant) -> Result<(), Error>;

    /// What it takes to connect the resource once more, while the kernel still knows; `None` when it knows of no connection. To be asked
    /// before anything is changed: [`Replication::heal`] puts back the options that are in it.
    fn link(&self, resource: &str) -> Result<Option<Link>, Error>;

    /// Connects a resource again that a split brain made StandAlone, or whose connection is gone, and waits until it is connected or
    /// resyncs. Both hosts call it, in any order; a resource that is connected is left as it is.
    ///
    /// `sacrifice`: this host takes the other one's data for `volumes`. The caller knows that it loses nothing: its copy of the domain has not
    /// run since the domain was suspended. Exactly one of the two hosts does.
    ///
    /// # Errors
    /// Refused, with nothing changed: a sacrifice while this host is Primary, or while it has written to a volume of the resource that
    /// is not in `volumes`; any connection when its secret is unknown ([`Link::secret_unknown`]). At `deadline`: what the
    /// connection is doing instead.
    fn heal(&self, link: &Link, volumes: &[VolumeId], sacrifice: bool, deadline: Instant) -> Result<(), Error>;
}

/// Between two looks at a state that no event announces.
pub const POLL_INTERVAL: Duration = Duration::from_millis(5);
