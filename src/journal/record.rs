//! What a journal says: its head, and the records after it.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::admission::Side;
use crate::ids::{DomId, Minor, VolumeId};
use crate::protocol::Handover;
use crate::replication::Counters;

/// The format that this program writes, and the newest that it reads. A field that a later program adds is ignored; a new
/// record, or a new meaning of an old one, is a new format.
pub const FORMAT: u32 = 1;

/// The first record: everything about the migration that is known when it begins. Its keyword is `open`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// [`FORMAT`].
    pub format: u32,
    /// The migration.
    pub id: Uuid,
    /// Which end of it this host is.
    pub side: Side,
    /// The domain's own name, without a suffix.
    pub name: String,
    /// The domain.
    pub uuid: Uuid,
    /// Its number at the source.
    pub domid: Option<DomId>,
    /// The other end.
    pub peer: Peer,
    /// How the volumes are to be handed over.
    pub handover: Handover,
    /// The volumes of its disks.
    pub volumes: Vec<JournaledVolume>,
    /// The kernel's boot id when the journal was opened ([`super::this_boot`]): tells a reboot.
    pub boot: Uuid,
    /// The process that opened it.
    pub pid: u32,
    /// The program that opened it and its version ([`crate::host::PROGRAM`]).
    pub program: String,
}

/// How the other end is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name or address.
    pub host: String,
    /// Its relocation port.
    pub port: u16,
    /// Its node name, empty while it is not known.
    pub node: String,
}

/// A volume as it was when the journal was opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournaledVolume {
    /// Which volume.
    pub id: VolumeId,
    /// Its device on this host.
    pub minor: Minor,
    /// Whether two Primaries were allowed on its connection.
    pub two_primaries: bool,
    /// How to connect it to its peer again, as the replication wrote it.
    pub link: Option<serde_json::Value>,
}

/// Everything that can follow the head. The keyword of a line is the record's name in lower case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// Source: the domain is suspended, and its volumes are about to be released, or kept (dual-primary).
    Released {
        /// How they are handed over.
        handover: Handover,
        /// What the kernel had counted, after the domain's last write.
        samples: Vec<Sample>,
    },
    /// Source: the destination is about to be told to start the domain, which is no longer ours.
    Go,
    /// Source: the domain is ours again although GO was journaled.
    Returned {
        /// How we know.
        reason: String,
        /// Whether the destination itself says that its copy never ran. Else the disk must be as it was at the sample.
        #[serde(default)]
        peer_aborted: bool,
    },
    /// Destination: the copy has its number.
    Copy {
        /// The number.
        domid: DomId,
    },
    /// Destination: two Primaries are about to be allowed where they were not.
    Allowed {
        /// The resource.
        resource: String,
    },
    /// Destination: the copy is complete and paused, and READY is about to be said.
    Ready {
        /// The copy.
        domid: DomId,
        /// What the kernel had counted.
        #[serde(default)]
        samples: Vec<Sample>,
    },
    /// Destination: the source had heard READY and still held the domain, when the connection was lost.
    Held,
    /// Destination: GO has come; the domain is ours, and about to run.
    Owned,
    /// Destination: the copy runs.
    Started,
    /// Destination: the copy will never run. On disk before anybody hears of it.
    Aborted {
        /// Why.
        reason: String,
    },
    /// Either: what a recovery saw and concluded. Decides nothing.
    Note {
        /// The same in words.
        text: String,
    },
    /// Either: nothing is left to do. The last record.
    Done {
        /// How it ended.
        outcome: Done,
        /// Why, for people.
        reason: String,
        /// The receipt, where there is one.
        receipt: Option<serde_json::Value>,
    },
}

impl Record {
    /// The record's keyword.
    #[must_use]
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Released { .. } => "released",
            Self::Go => "go",
            Self::Returned { .. } => "returned",
            Self::Copy { .. } => "copy",
            Self::Allowed { .. } => "allowed",
            Self::Ready { .. } => "ready",
            Self::Held => "held",
            Self::Owned => "owned",
            Self::Started => "started",
            Self::Aborted { .. } => "aborted",
            Self::Note { .. } => "note",
            Self::Done { .. } => "done",
        }
    }
}

/// A volume's counters at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The volume.
    pub volume: VolumeId,
    /// What the kernel had counted.
    pub counters: Counters,
}

/// How a migration ended, seen from one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// The domain runs at the destination.
    Moved,
    /// Everything was taken back; the domain runs at the source.
    RolledBack,
    /// The domain ended with its host, or was destroyed.
    Lost,
    /// It failed before the domain was touched.
    Failed,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Moved => "moved",
            Self::RolledBack => "rolled back",
            Self::Lost => "lost",
            Self::Failed => "failed",
        })
    }
}
