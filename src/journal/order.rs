//! Which record may follow which: what no process may promise after what it has promised.

use super::error::Error;
use super::record::{Done, Record};
use super::story::{Stage, Story};
use crate::admission::Side::{self, Incoming, Outgoing};

/// Whether the record may follow the story.
///
/// # Errors
/// [`Error::OutOfOrder`].
pub(super) fn check(story: &Story, record: &Record) -> Result<(), Error> {
    let (id, side, stage) = (story.head.id, story.head.side, story.stage());
    match may_follow(side, stage, story.copy().is_some(), record) {
        true => Ok(()),
        false => Err(Error::OutOfOrder { id, side, stage, record: record.keyword() }),
    }
}

/// The table. `copied`: the destination's copy has been recorded.
fn may_follow(side: Side, stage: Stage, copied: bool, record: &Record) -> bool {
    match (side, stage, record) {
        (_, Stage::Done(_), _) => false,
        (_, _, Record::Note { .. }) => true,
        (_, _, Record::Done { outcome, .. }) => may_end(side, stage, *outcome),
        (Outgoing, Stage::Open, Record::Released { .. }) => true,
        (Outgoing, Stage::Released, Record::Go) => true,
        (Outgoing, Stage::Go, Record::Returned { .. }) => true,
        (Incoming, Stage::Open, Record::Copy { .. }) => !copied,
        (Incoming, Stage::Open, Record::Allowed { .. }) => true,
        (Incoming, Stage::Open, Record::Ready { .. }) => copied,
        (Incoming, Stage::Ready, Record::Owned) => true,
        // Also after Owned: as long as no virtual CPU has run. Again, too: a recovery may find another reason.
        (Incoming, _, Record::Aborted { .. }) => true,
        _ => false,
    }
}

/// How a migration may end. A domain can be lost at any time; who was ready says that it gives up before it ends.
fn may_end(side: Side, stage: Stage, outcome: Done) -> bool {
    match (outcome, side) {
        (Done::Lost, _) => true,
        (Done::Moved, Outgoing) => stage == Stage::Go,
        (Done::Moved, Incoming) => stage == Stage::Owned,
        (Done::RolledBack, Outgoing) => matches!(stage, Stage::Open | Stage::Released | Stage::Returned),
        (Done::Failed, Outgoing) => stage == Stage::Open,
        (Done::RolledBack | Done::Failed, Incoming) => matches!(stage, Stage::Open | Stage::Aborted),
    }
}
