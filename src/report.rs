//! What a migration tells while it runs, and its receipt. Data only: the program prints it.

use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::protocol::{Finding, Handover};
use crate::tls::Protection;

/// Hears of each phase and of the stream's progress. Called on several threads; must not block for long.
pub trait Report: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event<'_>);
}

/// What a migration tells while it runs.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<'a> {
    /// Preflight is done: what both ends found.
    Preflight {
        /// Findings of both ends; warnings only when the migration goes on.
        findings: &'a [Finding],
    },
    /// A phase began.
    Phase {
        /// Its name.
        phase: Phase,
        /// From the beginning of the migration, in milliseconds.
        at_ms: u64,
    },
    /// The stream's progress within a round.
    Progress {
        /// The round, from 0.
        round: u32,
        /// Pages sent of this round.
        done: u64,
        /// Pages that this round has to send.
        total: u64,
        /// Bytes that the destination's TCP has acknowledged so far.
        bytes: u64,
    },
    /// The domain has been suspended at the source: downtime begins.
    Suspended,
    /// A step of the way back after a failure.
    Undo {
        /// What was done, in words.
        step: &'a str,
    },
}

/// The phases in their order (design, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Both ends look for what would make it fail.
    Preflight,
    /// The memory is streamed while the domain runs.
    Precopy,
    /// The source gives up its volumes.
    Release,
    /// The destination attaches the disks and completes its copy.
    Attach,
    /// The source asks the witnesses and says GO.
    Handover,
    /// The source destroys its copy.
    Retire,
}

/// How long each part took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    /// From the request to the end of preflight at both ends.
    #[serde(serialize_with = "as_ms", rename = "preflight_ms")]
    pub preflight: Duration,
    /// From the first byte of the stream to the suspended domain.
    #[serde(serialize_with = "as_ms", rename = "precopy_ms")]
    pub precopy: Duration,
    /// From the suspended domain to the end of the stream.
    #[serde(serialize_with = "as_ms", rename = "stop_and_copy_ms")]
    pub stop_and_copy: Duration,
    /// From the end of the stream until the source has released its volumes (single-primary) and said so.
    #[serde(serialize_with = "as_ms", rename = "release_ms")]
    pub release: Duration,
    /// From then until the destination's READY.
    #[serde(serialize_with = "as_ms", rename = "attach_ms")]
    pub attach: Duration,
    /// From READY until the destination's report that the domain runs.
    #[serde(serialize_with = "as_ms", rename = "handover_ms")]
    pub handover: Duration,
    /// From then until the source's copy is gone.
    #[serde(serialize_with = "as_ms", rename = "retire_ms")]
    pub retire: Duration,
    /// From the request to the end.
    #[serde(serialize_with = "as_ms", rename = "total_ms")]
    pub total: Duration,
    /// Suspended wall time seen from the source: the suspended domain to the arrival of the destination's report.
    #[serde(serialize_with = "as_ms", rename = "downtime_ms")]
    pub downtime: Duration,
    /// The same seen from the destination: its first disk's request to the unpause. Excludes stop-and-copy.
    #[serde(serialize_with = "as_ms", rename = "destination_downtime_ms")]
    pub destination_downtime: Duration,
}

/// The proof that nobody but the domain's one running copy wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SingleWriter {
    /// How long both hosts were Primary: zero with a single-primary handover, where DRBD itself refused a second Primary.
    #[serde(serialize_with = "as_ms", rename = "both_primary_ms")]
    pub both_primary: Duration,
    /// Sectors that the source sent between the suspend and the end: must be 0.
    pub source_sectors: u64,
    /// Sectors that the destination sent before it was told to run: must be 0.
    pub destination_sectors: u64,
}

/// What is left of a migration: printed at its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Receipt {
    /// The migration's id.
    pub id: Uuid,
    /// The domain's name.
    pub domain: String,
    /// The source's node name.
    pub source: String,
    /// The destination's node name.
    pub destination: String,
    /// The domain's number at the destination.
    pub domid: u32,
    /// How the volumes were handed over.
    pub handover: Handover,
    /// Rounds of the memory stream, the last one in the blackout included.
    pub rounds: u32,
    /// Bytes that TCP sent to the destination, from connect to GO.
    pub bytes: u64,
    /// How the connection was protected.
    pub protection: Protection,
    /// How long each part took.
    #[serde(flatten)]
    pub times: Times,
    /// The proof of the single writer.
    pub single_writer: SingleWriter,
    /// What was not as it should be although the domain moved.
    pub warnings: Vec<String>,
}

fn as_ms<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}
