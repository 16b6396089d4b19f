//! Handover: READY -> GO -> report, and what follows when a process, a host or a link dies on the way: one pure state
//! machine for each end. Only an action from here makes a host send GO, resume, start, destroy or give back a copy.
//!
//! [`Source::step`] and [`Destination::step`] decide while the migration lives; `adopt` makes the same machines out of a
//! journal whose process is gone, and out of what is seen of its domain. A machine does no I/O: its caller carries out the
//! action and steps again with what came of it. A caller may stop anywhere: that is a crash, and adoption goes on from it.
//!
//! What holds them together, and is checked by exploring every interleaving of both (`tests/model.rs`):
//!
//! - Before GO is in its journal the source is master of the domain: every failure takes it back (invariant I2).
//! - From READY on the destination decides: its journal holds OWNED or ABORTED, whichever came first. ABORTED follows OWNED
//!   only when no virtual CPU has run.
//! - The source destroys its copy when the other one *runs* (the report, or STARTED in the other journal): OWNED is no more
//!   than the will to start it.
//! - A record is durable before the act that it announces; what may or may not be on disk (a write that failed) is left alone.

mod destination;
mod source;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use destination::{Destination, DestinationAction, DestinationEvent, DestinationSeen, DestinationStage, Promised};
pub use source::{Source, SourceAction, SourceEvent, SourceSeen, SourceStage, Witness};

/// How a journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The domain ran at the destination.
    Moved,
    /// The source has its domain back, or had it all the time.
    Returned,
    /// This end's copy is gone, with its host as a rule. At the destination it may have run, if OWNED was journaled.
    Lost,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ending::Moved => "the domain ran at the destination",
            Ending::Returned => "the source has its domain",
            Ending::Lost => "the copy on this host is gone",
        })
    }
}

/// What the other end's daemon said when it was asked how far its journal of the migration is. It may be stale: every stage
/// that decides something is one that the other end cannot leave in a way that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer<Stage> {
    /// The last record.
    Stage(Stage),
    /// It has no such journal.
    Unknown,
    /// It could not be asked.
    Unreachable,
}

/// Why a machine that adopts a journal acts at all.
const INTERRUPTED: &str = "The process that migrated the domain ended";
