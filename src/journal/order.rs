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
        (Incoming, Stage::Ready, Record::Held) => true,
        (Incoming, Stage::Ready | Stage::Held, Record::Owned) => true,
        (Incoming, Stage::Owned, Record::Started) => true,
        // Also after Owned: as long as no virtual CPU has run. Again, too: a recovery may find another reason.
        (Incoming, stage, Record::Aborted { .. }) => stage != Stage::Started,
        _ => false,
    }
}

/// How a migration may end. A domain can be lost at any time; who was ready says that it gives up before it ends.
fn may_end(side: Side, stage: Stage, outcome: Done) -> bool {
    match (outcome, side) {
        (Done::Lost, _) => true,
        (Done::Moved, Outgoing) => stage == Stage::Go,
        (Done::Moved, Incoming) => stage == Stage::Started,
        (Done::RolledBack, Outgoing) => matches!(stage, Stage::Open | Stage::Released | Stage::Returned),
        (Done::Failed, Outgoing) => stage == Stage::Open,
        (Done::RolledBack | Done::Failed, Incoming) => matches!(stage, Stage::Open | Stage::Aborted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DomId;
    use crate::protocol::Handover;

    const STAGES: [Stage; 9] = [
        Stage::Open,
        Stage::Released,
        Stage::Go,
        Stage::Returned,
        Stage::Ready,
        Stage::Held,
        Stage::Owned,
        Stage::Started,
        Stage::Aborted,
    ];
    const OUTCOMES: [Done; 4] = [Done::Moved, Done::RolledBack, Done::Lost, Done::Failed];

    fn record(keyword: &str) -> Record {
        let (domid, why) = (DomId(9), String::new());
        match keyword {
            "released" => Record::Released { handover: Handover::Single, samples: Vec::new() },
            "go" => Record::Go,
            "returned" => Record::Returned { reason: why, peer_aborted: false },
            "copy" => Record::Copy { domid },
            "allowed" => Record::Allowed { resource: why },
            "ready" => Record::Ready { domid, samples: Vec::new() },
            "held" => Record::Held,
            "owned" => Record::Owned,
            "started" => Record::Started,
            "aborted" => Record::Aborted { reason: why },
            _ => Record::Note { text: why },
        }
    }

    const KEYWORDS: [&str; 11] =
        ["released", "go", "returned", "copy", "allowed", "ready", "held", "owned", "started", "aborted", "note"];

    fn followers(side: Side, stage: Stage, copied: bool) -> String {
        let may = |keyword: &&str| may_follow(side, stage, copied, &record(keyword));
        KEYWORDS.into_iter().filter(may).collect::<Vec<_>>().join(" ")
    }

    fn ends(side: Side, stage: Stage) -> String {
        let may = |outcome: &Done| {
            let record = Record::Done { outcome: *outcome, reason: String::new(), receipt: None };
            may_follow(side, stage, true, &record)
        };
        OUTCOMES.into_iter().filter(may).map(|outcome| outcome.to_string()).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn the_source_releases_goes_and_may_get_it_back() {
        let rows = [
            (Stage::Open, "released note", "rolled back, lost, failed"),
            (Stage::Released, "go note", "rolled back, lost"),
            (Stage::Go, "returned note", "moved, lost"),
            (Stage::Returned, "note", "rolled back, lost"),
        ];
        for (stage, records, outcomes) in rows {
            assert_eq!(followers(Outgoing, stage, false), records, "after {stage}");
            assert_eq!(ends(Outgoing, stage), outcomes, "after {stage}");
        }
    }

    #[test]
    fn the_destination_is_ready_owns_or_aborts() {
        let rows = [
            (Stage::Open, true, "allowed ready aborted note", "rolled back, lost, failed"),
            (Stage::Open, false, "copy allowed aborted note", "rolled back, lost, failed"),
            (Stage::Ready, true, "held owned aborted note", "lost"),
            (Stage::Held, true, "owned aborted note", "lost"),
            (Stage::Owned, true, "started aborted note", "lost"),
            (Stage::Started, true, "note", "moved, lost"),
            (Stage::Aborted, true, "aborted note", "rolled back, lost, failed"),
        ];
        for (stage, copied, records, outcomes) in rows {
            assert_eq!(followers(Incoming, stage, copied), records, "after {stage}");
            assert_eq!(ends(Incoming, stage), outcomes, "after {stage}");
        }
    }

    #[test]
    fn nothing_follows_the_end_and_no_end_names_both() {
        for (side, outcome) in [Outgoing, Incoming].into_iter().flat_map(|side| OUTCOMES.map(|outcome| (side, outcome)))
        {
            assert_eq!(
                (followers(side, Stage::Done(outcome), true), ends(side, Stage::Done(outcome))),
                Default::default()
            );
        }
        for (side, stage) in [Outgoing, Incoming].into_iter().flat_map(|side| STAGES.map(|stage| (side, stage))) {
            let ends = ends(side, stage);
            let both = ends.contains("moved") && ends.contains("rolled back");
            assert!(!both, "{side} after {stage}: {ends}");
        }
    }
}
