//! What can go wrong with a layer.

use crate::dm::{self, DeviceNumber};
use crate::holders::{self, Holder};
use crate::ids::VolumeId;

/// Why an operation on a layer failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Device-mapper refused.
    #[error("Layer over volume {volume} could not be changed")]
    Dm {
        /// The volume.
        volume: VolumeId,
        /// What device-mapper said.
        #[source]
        source: dm::Error,
    },
    /// Somebody has the volume attached.
    #[error(
        "Volume {volume} is attached on this host already, open {open_count} times; held by {}",
        holders::describe(holders)
    )]
    Attached {
        /// The volume.
        volume: VolumeId,
        /// How often its layer is open.
        open_count: u32,
        /// Who holds it, as far as that shows.
        holders: Vec<Holder>,
    },
    /// Somebody has claimed the DRBD device itself.
    #[error("Volume {volume} (device {device}) is claimed on this host by {}", holders::describe(holders))]
    Claimed {
        /// The volume.
        volume: VolumeId,
        /// The DRBD device.
        device: DeviceNumber,
        /// Who holds it, as far as that shows.
        holders: Vec<Holder>,
    },
    /// Requests were still under way at the deadline.
    #[error("Layer over volume {volume} still has {in_flight} requests under way")]
    NotIdle {
        /// The volume.
        volume: VolumeId,
        /// Requests that DRBD has not completed.
        in_flight: u64,
    },
    /// The layer was still open at the deadline.
    #[error("Layer over volume {volume} is still open {open_count} times; held by {}", holders::describe(holders))]
    StillOpen {
        /// The volume.
        volume: VolumeId,
        /// How often it is open.
        open_count: u32,
        /// Who holds it, as far as that shows.
        holders: Vec<Holder>,
    },
    /// The layer is not there any more.
    #[error("Layer over volume {volume} is gone")]
    Gone {
        /// The volume.
        volume: VolumeId,
    },
}
