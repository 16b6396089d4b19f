//! The destination, from the restore of its copy on.
//!
//! | state | what happened | what it does |
//! |---|---|---|
//! | before READY | anything that fails | journals ABORTED, discards the copy |
//! | before READY | the copy is complete | journals READY, says so |
//! | READY | the source says that it holds the domain | notes it |
//! | READY | GO | journals OWNED, starts the copy; journals STARTED, finishes |
//! | READY | the connection is lost | journals HELD if that was said; asks the source's daemon, again and again |
//! | asking | GO is journaled there | journals OWNED, starts the copy |
//! | asking | anything else is; it knows of no such migration; nobody there, but its host is up | journals ABORTED, discards the copy |
//! | asking | nobody there | keeps the paused copy, asks again |
//! | asking | the source's host is dead; it held the domain, and has not written since | journals OWNED, starts the copy |
//! | asking | the source's host is dead; otherwise | a human must speak |
//! | OWNED | it could not be started, no virtual CPU has run | journals ABORTED, discards the copy and gives the domain back |

use serde::{Deserialize, Serialize};

use super::{Answer, Ending, INTERRUPTED, SourceStage};

/// Where the destination is. The texts say why it got there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The copy is being made.
    Restoring,
    /// The copy is complete and paused; READY is being journaled.
    Promising,
    /// READY is said.
    AwaitGo,
    /// And the source has answered that it still holds the domain.
    Held,
    /// HELD is being journaled.
    Noting(String),
    /// GO did not come: the source's daemon, the replication link and the operator are asked.
    Asking {
        /// Why.
        why: String,
        /// The source held the domain after READY: without that it may have run and written after its RELEASED.
        held: bool,
    },
    /// OWNED is being journaled.
    Owning,
    /// The copy is being started.
    Starting,
    /// The copy runs, and the source is being told.
    Reporting,
    /// STARTED is being journaled.
    Recording,
    /// What is left of the handover is being put in order.
    Finishing,
    /// ABORTED is being journaled.
    Aborting {
        /// Why.
        why: String,
        /// How far it had come.
        promised: Promised,
    },
    /// The copy is being destroyed.
    Discarding,
    /// Nothing more will be done by this machine.
    Over,
}

/// What the source has been promised when the destination gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Promised {
    /// Nothing: nobody can have sent GO, so the copy goes even if ABORTED cannot be journaled.
    Nothing,
    /// That the copy is ready: GO may have been sent.
    Ready,
    /// That the copy is started: the source has handed the domain over and is to have it back.
    Owned,
}

/// How far the destination's journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DestinationStage {
    /// The domain is being received.
    Open,
    /// The copy is complete and paused.
    Ready,
    /// And the source still held the domain then. Written only if GO does not come.
    Held,
    /// The domain is this host's: its copy is started as soon as this is durable.
    Owned,
    /// The copy has run.
    Started,
    /// The copy will never run.
    Aborted,
    /// Nothing is left to do.
    Done(Ending),
}

/// What is seen of the destination's copy when a journal is adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DestinationSeen {
    /// It is there and no virtual CPU of it has run.
    Paused,
    /// It runs, or has run.
    Running,
    /// It does not exist.
    Gone,
}

/// What can happen to the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationEvent {
    /// The copy is complete and paused, and holds its volumes.
    Complete,
    /// The copy cannot be completed.
    Failed(String),
    /// The source still holds the domain, after READY.
    Held,
    /// The source handed the domain over.
    Go,
    /// The connection ended, or something else than what was awaited came, or nothing in time.
    Lost(String),
    /// The record that was asked for is durable.
    Journaled,
    /// It may or may not be.
    NotJournaled(String),
    /// The source's daemon was asked, and the link was looked at.
    Asked {
        /// What it said.
        answer: Answer<SourceStage>,
        /// The replication link to the source's host is up: that host lives, and has its copy.
        replication_up: bool,
    },
    /// The operator says that the source's host is down.
    PeerDead {
        /// What this host has received has grown since READY: the source has gone on, and its writes are on the disk here.
        written: bool,
    },
    /// The domain runs.
    Running,
    /// The domain could not be started and no virtual CPU has run.
    NotStarted(String),
    /// The source was told, as well as it can be.
    Reported,
    /// Names, settings and permissions are as they should be for good.
    Finished,
    /// The copy is gone and its volumes are released.
    Discarded,
    /// What [`DestinationAction::Discard`] or [`DestinationAction::Finish`] asked for could not be done now.
    Stuck(String),
}

/// What the destination does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationAction {
    /// Make this record durable: [`DestinationEvent::Journaled`] or [`DestinationEvent::NotJournaled`] follows.
    Journal(DestinationStage),
    /// Send READY and await GO.
    SendReady,
    /// Ask the source's daemon, after a pause that grows: [`DestinationEvent::Asked`] follows. The copy stays paused.
    Ask(String),
    /// Rename the copy to the domain's name and unpause it.
    Start,
    /// Tell the source that the domain runs, if the connection still is: [`DestinationEvent::Reported`] follows anyway.
    ReportStarted,
    /// Put the rest in order: the name, the permission for two Primaries. What is already so stays so.
    Finish,
    /// Destroy the copy and release its volumes, then tell the source why. What is already gone stays so.
    Discard(String),
    /// The same, then tell the source that it may have its domain back.
    DiscardAndReturn(String),
    /// Say that a human must speak. While the machine is [`Destination::Asking`] go on as after
    /// [`DestinationAction::Ask`], at leisure.
    Doubt(String),
    /// Keep the hands off: what is on disk decides, and whoever adopts the journal goes on from it.
    Leave(String),
    /// Journal that it is done, and how.
    Close(Ending),
    /// Await the next event.
    Wait,
}

impl Destination {
    /// One step.
    pub fn step(self, event: DestinationEvent) -> (Destination, DestinationAction) {
        use DestinationEvent as E;
        match (self, event) {
            (Destination::Restoring, E::Complete) => journal(Destination::Promising, DestinationStage::Ready),
            (Destination::Restoring, E::Failed(why) | E::Lost(why)) => abort(why, Promised::Nothing),
            (Destination::Promising, E::Journaled) => (Destination::AwaitGo, DestinationAction::SendReady),
            (Destination::Promising, E::NotJournaled(why)) => abort(why, Promised::Nothing),

            (Destination::AwaitGo, E::Held) => (Destination::Held, DestinationAction::Wait),
            (Destination::AwaitGo | Destination::Held, E::Go) => own(),
            (Destination::AwaitGo, E::Lost(why) | E::Failed(why)) => ask(why, false),
            (Destination::Held, E::Lost(why) | E::Failed(why)) => {
                journal(Destination::Noting(why), DestinationStage::Held)
            }
            (Destination::Noting(why), E::Journaled) => ask(why, true),
            (Destination::Asking { why, held }, E::Asked { answer, replication_up }) => {
                hear(why, held, answer, replication_up)
            }
            (Destination::Asking { held: true, .. }, E::PeerDead { written: false }) => own(),
            (Destination::Asking { why, held }, E::PeerDead { .. }) => {
                (Destination::Asking { why, held }, DestinationAction::Doubt(MAY_HAVE_GONE_ON.into()))
            }

            (Destination::Owning, E::Journaled) => start(),
            (Destination::Starting, E::Running) => (Destination::Reporting, DestinationAction::ReportStarted),
            (Destination::Starting, E::NotStarted(why)) => abort(why, Promised::Owned),
            (Destination::Reporting, E::Reported) => journal(Destination::Recording, DestinationStage::Started),
            (Destination::Recording, E::Journaled) => (Destination::Finishing, DestinationAction::Finish),
            (Destination::Finishing, E::Finished) => close(Ending::Moved),

            (Destination::Aborting { why, promised }, E::Journaled) => discard(why, promised),
            (Destination::Aborting { why, promised: Promised::Nothing }, E::NotJournaled(_)) => {
                discard(why, Promised::Nothing)
            }
            (Destination::Discarding, E::Discarded) => close(Ending::Returned),

            (
                Destination::Noting(_) | Destination::Owning | Destination::Recording | Destination::Aborting { .. },
                E::NotJournaled(why),
            )
            | (Destination::Finishing | Destination::Discarding, E::Stuck(why)) => leave(why),
            (state, _) => (state, DestinationAction::Wait),
        }
    }

    /// A journal whose process is gone.
    pub fn adopt(stage: DestinationStage, seen: DestinationSeen) -> (Destination, DestinationAction) {
        use {DestinationSeen as Seen, DestinationStage as Stage};
        match (stage, seen) {
            (Stage::Open, _) => abort(INTERRUPTED.into(), Promised::Nothing),
            (Stage::Ready | Stage::Held, Seen::Gone) => abort(INTERRUPTED.into(), Promised::Ready),
            (Stage::Ready | Stage::Held, Seen::Paused) => ask(INTERRUPTED.into(), stage == Stage::Held),
            (Stage::Ready | Stage::Held, Seen::Running) => {
                (Destination::Over, DestinationAction::Doubt(RUNS_WITHOUT_GO.into()))
            }
            (Stage::Owned, Seen::Paused) => start(),
            (Stage::Owned, Seen::Running) => journal(Destination::Recording, Stage::Started),
            (Stage::Owned, Seen::Gone) => close(Ending::Lost),
            (Stage::Started, _) => (Destination::Finishing, DestinationAction::Finish),
            (Stage::Aborted, _) => discard(INTERRUPTED.into(), Promised::Ready),
            (Stage::Done(_), _) => (Destination::Over, DestinationAction::Wait),
        }
    }
}

/// What the source's daemon said. A copy that is whole goes forward whenever the source has promised not to use its own.
fn hear(
    why: String,
    held: bool,
    answer: Answer<SourceStage>,
    replication_up: bool,
) -> (Destination, DestinationAction) {
    match answer {
        Answer::Stage(SourceStage::Go) => own(),
        Answer::Stage(_) | Answer::Unknown => abort(why, Promised::Ready),
        Answer::Unreachable if replication_up => abort(why, Promised::Ready),
        Answer::Unreachable => ask(why, held),
    }
}

fn ask(why: String, held: bool) -> (Destination, DestinationAction) {
    (Destination::Asking { why: why.clone(), held }, DestinationAction::Ask(why))
}

fn own() -> (Destination, DestinationAction) {
    journal(Destination::Owning, DestinationStage::Owned)
}

fn start() -> (Destination, DestinationAction) {
    (Destination::Starting, DestinationAction::Start)
}

fn abort(why: String, promised: Promised) -> (Destination, DestinationAction) {
    journal(Destination::Aborting { why, promised }, DestinationStage::Aborted)
}

fn discard(why: String, promised: Promised) -> (Destination, DestinationAction) {
    let action = match promised {
        Promised::Nothing | Promised::Ready => DestinationAction::Discard(why),
        Promised::Owned => DestinationAction::DiscardAndReturn(why),
    };
    (Destination::Discarding, action)
}

fn journal(next: Destination, stage: DestinationStage) -> (Destination, DestinationAction) {
    (next, DestinationAction::Journal(stage))
}

fn leave(why: String) -> (Destination, DestinationAction) {
    (Destination::Over, DestinationAction::Leave(why))
}

fn close(ending: Ending) -> (Destination, DestinationAction) {
    (Destination::Over, DestinationAction::Close(ending))
}

/// Not our doing, and not ours to end.
pub(super) const RUNS_WITHOUT_GO: &str = "The copy runs although the source never handed the domain over";
/// It may have given up after RELEASED and gone on; its last writes are on the disk here, then, and not in the copy.
pub(super) const MAY_HAVE_GONE_ON: &str =
    "Nothing proves that the source did not go on with the domain: only a cold start is safe";
