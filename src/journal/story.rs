//! A journal as it was read, and what follows from it.

use std::fmt;
use std::fs;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::{Done, Head, Record, Sample};
use crate::ids::{DomId, VolumeId};

/// The kernel's name for this boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Everything that a journal says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// The first record.
    pub head: Head,
    /// When it was written.
    pub opened_at: Timestamp,
    /// The records after it, in their order.
    pub entries: Vec<Entry>,
    /// Whether a last record follows that is not whole, and counts for nothing.
    pub torn: bool,
}

/// A record and when it was written, by this host's clock, to the microsecond. The clock may have been set meanwhile: the
/// order of the lines counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub record: Record,
}

/// How far a migration has come on this host, by the last record that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing has been promised.
    Open,
    /// Source: the domain is suspended, its volumes are released or kept.
    Released,
    /// Source: the destination may run the domain.
    Go,
    /// Source: the destination never will.
    Returned,
    /// Destination: the copy is paused.
    Ready,
    /// Destination: the same, and the source still held the domain then.
    Held,
    /// Destination: the domain is ours, and its copy is started.
    Owned,
    /// Destination: the copy has run.
    Started,
    /// Destination: the copy will never run.
    Aborted,
    /// Nothing is left to do.
    Done(Done),
}

impl Story {
    /// How far the migration has come. Copy, Allowed and Note change nothing.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.entries.iter().rev().find_map(|entry| entry.record.stage()).unwrap_or(Stage::Open)
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.stage(), Stage::Done(_))
    }

    /// The counters at the source after the domain's last write, at the destination when its copy was complete; empty before that.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        let samples = self.records().find_map(|record| match record {
            Record::Released { samples, .. } | Record::Ready { samples, .. } => Some(samples.as_slice()),
            _ => None,
        });
        samples.unwrap_or_default()
    }

    /// Whether the destination said itself that its copy never ran.
    #[must_use]
    pub fn peer_aborted(&self) -> bool {
        self.records().any(|record| matches!(record, Record::Returned { peer_aborted: true, .. }))
    }

    /// The destination's copy, while or after there was one.
    #[must_use]
    pub fn copy(&self) -> Option<DomId> {
        self.records().find_map(|record| match record {
            Record::Copy { domid } => Some(*domid),
            _ => None,
        })
    }

    /// The resources on which two Primaries were allowed for this migration.
    pub fn allowed(&self) -> impl Iterator<Item = &str> {
        self.records().filter_map(|record| match record {
            Record::Allowed { resource } => Some(resource.as_str()),
            _ => None,
        })
    }

    /// The receipt, as it was printed, where there is one.
    #[must_use]
    pub fn receipt(&self) -> Option<&serde_json::Value> {
        self.records().find_map(|record| match record {
            Record::Done { receipt, .. } => receipt.as_ref(),
            _ => None,
        })
    }

    /// Whether nobody else may have the domain's volumes: its copy here is suspended or paused, or may be the only one. A copy that runs
    /// holds them itself, and one that never will needs them no more.
    #[must_use]
    pub fn reserves_volumes(&self) -> bool {
        match self.stage() {
            Stage::Open | Stage::Released | Stage::Go | Stage::Returned | Stage::Ready | Stage::Held | Stage::Owned => {
                true
            }
            Stage::Started | Stage::Aborted | Stage::Done(_) => false,
        }
    }

    /// Whether nobody else may touch the domain here. It is its host's own again when the migration is over, and at the destination from the
    /// moment that it has run there: what is left to do then is done to the volumes' connection.
    #[must_use]
    pub fn keeps_domain(&self) -> bool {
        !matches!(self.stage(), Stage::Started | Stage::Done(_))
    }

    /// Whether one of the domain's disks lies on this volume.
    #[must_use]
    pub fn names(&self, volume: &VolumeId) -> bool {
        self.head.volumes.iter().any(|journaled| journaled.id == *volume)
    }

    /// Whether this host has been booted since the journal was opened: no copy of that time is left.
    #[must_use]
    pub fn rebooted(&self) -> bool {
        self.head.boot != this_boot()
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        self.entries.iter().map(|entry| &entry.record)
    }
}

impl Record {
    /// The stage that begins with this record, if one does.
    fn stage(&self) -> Option<Stage> {
        match self {
            Self::Released { .. } => Some(Stage::Released),
            Self::Go => Some(Stage::Go),
            Self::Returned { .. } => Some(Stage::Returned),
            Self::Ready { .. } => Some(Stage::Ready),
            Self::Held => Some(Stage::Held),
            Self::Owned => Some(Stage::Owned),
            Self::Started => Some(Stage::Started),
            Self::Aborted { .. } => Some(Stage::Aborted),
            Self::Done { outcome, .. } => Some(Stage::Done(*outcome)),
            Self::Copy { .. } | Self::Allowed { .. } | Self::Note { .. } => None,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Released => "released",
            Self::Go => "go",
            Self::Returned => "returned",
            Self::Ready => "ready",
            Self::Held => "held",
            Self::Owned => "owned",
            Self::Started => "started",
            Self::Aborted => "aborted",
            Self::Done(outcome) => return outcome.fmt(f),
        })
    }
}

/// The kernel's id of this boot; nil where the kernel does not say.
#[must_use]
pub fn this_boot() -> Uuid {
    fs::read_to_string(BOOT_ID).ok().and_then(|id| id.trim().parse().ok()).unwrap_or_default()
}
