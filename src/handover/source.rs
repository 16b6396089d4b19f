//! The source, from the end of the stream on.
//!
//! | state | what happened | what it does |
//! |---|---|---|
//! | before GO | READY, then the witnesses agree | verifies; journals GO, sends it |
//! | before GO | anything that fails; a wish to stop | takes the domain back |
//! | GO | started | retires its copy |
//! | GO | given back | journals RETURNED, takes the domain back |
//! | GO | the connection is lost | asks the destination's daemon, again and again |
//! | asking | STARTED, or it ended so | retires its copy |
//! | asking | ABORTED, or it ended so | journals RETURNED, takes the domain back |
//! | asking | nobody there, or its copy is lost; the replication link proves that it is gone and never wrote | journals RETURNED, takes the domain back |
//! | asking | its copy is lost and has written; the operator says that it is lost, and the disk was written | destroys its copy, which fits no disk any more |
//! | asking | its copy is lost, and nothing proves that it has not written; it knows of no such migration | a human must speak |
//! | taking back | the disk was written after all | destroys its copy |
//! | asking | anything else | asks again |

use serde::{Deserialize, Serialize};

use super::{Answer, DestinationStage, Ending, INTERRUPTED};

/// Where the source is. The texts say why it got there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The domain is suspended here; the destination builds its copy.
    AwaitReady,
    /// The destination is ready; the witnesses are being asked.
    Verifying,
    /// GO is being journaled.
    Promising,
    /// GO may have reached the destination: its report alone decides.
    Committed,
    /// Nobody reported: the destination's daemon, the replication link and the operator are asked.
    Asking(String),
    /// RETURNED is being journaled.
    Returning(String),
    /// The domain is being taken back.
    TakingBack,
    /// The copy here is being destroyed: the domain lives at the destination.
    Retiring,
    /// The same, and it lives nowhere.
    Burying,
    /// Nothing more will be done by this machine.
    Over,
}

/// How far the source's journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceStage {
    /// The domain is being sent.
    Open,
    /// Single-primary handover: the volumes are the destination's.
    Released,
    /// The domain was handed over.
    Go,
    /// The domain is this host's again, for good.
    Returned,
    /// Nothing is left to do.
    Done(Ending),
}

/// What is seen of the source's domain when a journal is adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceSeen {
    /// It runs, or is paused by somebody.
    Running,
    /// It is suspended, as the migration left it.
    Suspended,
    /// It does not exist.
    Gone,
}

/// What the replication link shows at the source, over all volumes of the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Witness {
    /// Every volume is connected, both disks are UpToDate and no resync runs, so that the roles and counters speak of now.
    pub connected: bool,
    /// The destination is Primary on a volume: its copy may exist.
    pub peer_primary: bool,
    /// A counter has moved since the sample that was taken when the domain had been suspended: the disk here was written.
    pub written: bool,
}

/// What can happen to the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// The destination's copy is complete and paused.
    Ready,
    /// The volumes are as they should be, nobody has written since the domain was suspended, and its name is out of the way.
    Verified,
    /// A witness disagrees.
    Refuted(String),
    /// The user wants the migration stopped.
    Cancelled,
    /// The destination gave up.
    Failed(String),
    /// The connection ended or nothing came in time.
    Lost(String),
    /// The domain runs at the destination.
    Started,
    /// The destination could not start its copy, which never ran and is gone.
    Returned(String),
    /// The record that was asked for is durable.
    Journaled,
    /// It may or may not be.
    NotJournaled(String),
    /// The destination's daemon was asked, and the link was looked at *after* its answer or its silence.
    Asked {
        /// What it said.
        answer: Answer<DestinationStage>,
        /// What the link shows.
        witness: Witness,
    },
    /// The operator says that the destination's host is down.
    PeerDead {
        /// What the link shows; whether it is connected does not matter here.
        witness: Witness,
    },
    /// The volumes are this host's and the domain runs here under its name.
    TakenBack,
    /// There is no domain to take back.
    Gone,
    /// The volumes are this host's, but written since the sample: the domain was not resumed.
    Written,
    /// The suspended copy is gone and so are its claims on the volumes.
    Retired,
    /// What [`SourceAction::TakeBack`], [`SourceAction::Retire`] or [`SourceAction::Bury`] asked for could not be done now.
    Stuck(String),
}

/// What the source does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAction {
    /// Tell the destination that the domain is held here still, ask the witnesses, then rename the domain out of the way.
    Verify,
    /// Make this record durable: [`SourceEvent::Journaled`] or [`SourceEvent::NotJournaled`] follows.
    Journal(SourceStage),
    /// Send GO and await the report.
    SendGo,
    /// Ask the destination's daemon, after a pause that grows: [`SourceEvent::Asked`] follows. The domain stays suspended.
    Ask(String),
    /// Take the volumes back, then compare their counters with the sample, for a resync may have written them up to that
    /// moment; then put the name back and resume the domain. What is already so stays so.
    TakeBack(String),
    /// Destroy the suspended copy: the domain lives at the destination. What is already gone stays so.
    Retire,
    /// The same for a copy that nobody may ever resume, because its disk was written (I4), and the domain lives nowhere: it can be started
    /// anew when this is done.
    Bury(String),
    /// Say that a human must speak. While the machine is [`Source::Asking`] go on as after [`SourceAction::Ask`], at leisure.
    Doubt(String),
    /// Keep the hands off: what is on disk decides, and whoever adopts the journal goes on from it.
    Leave(String),
    /// Journal that it is done, and how.
    Close(Ending),
    /// Await the next event.
    Wait,
}

impl Source {
    /// One step.
    pub fn step(self, event: SourceEvent) -> (Source, SourceAction) {
        use SourceEvent as E;
        match (self, event) {
            (Source::AwaitReady, E::Ready) => (Source::Verifying, SourceAction::Verify),
            (Source::Verifying, E::Verified) => (Source::Promising, SourceAction::Journal(SourceStage::Go)),
            (Source::AwaitReady | Source::Verifying, event) => before_go(event),

            (Source::Promising, E::Journaled) => (Source::Committed, SourceAction::SendGo),
            (Source::Committed, E::Started) => retire(),
            (Source::Committed, E::Returned(why)) => give_back(why),
            (Source::Committed, E::Lost(why) | E::Failed(why)) => ask(why),
            (Source::Committed, E::Ready) => ask(OUT_OF_PLACE.into()),

            (Source::Asking(why), E::Asked { answer, witness }) => hear(why, answer, witness),
            (Source::Asking(_), E::PeerDead { witness }) if witness.written => bury(),
            // The operator's word stands for the destination's.
            (Source::Asking(why), E::PeerDead { .. }) => give_back(why),

            (Source::Returning(why), E::Journaled) => take_back(why),
            (Source::TakingBack, E::TakenBack) => close(Ending::Returned),
            (Source::TakingBack, E::Gone) => close(Ending::Lost),
            (Source::TakingBack, E::Written) => bury(),
            (Source::Retiring, E::Retired) => close(Ending::Moved),
            (Source::Burying, E::Retired) => close(Ending::Lost),

            (Source::Promising | Source::Returning(_), E::NotJournaled(why)) => leave(why),
            (Source::TakingBack | Source::Retiring | Source::Burying, E::Stuck(why)) => leave(why),
            (state, _) => (state, SourceAction::Wait),
        }
    }

    /// A journal whose process is gone.
    pub fn adopt(stage: SourceStage, seen: SourceSeen) -> (Source, SourceAction) {
        match (stage, seen) {
            (SourceStage::Open | SourceStage::Released | SourceStage::Returned, SourceSeen::Gone) => {
                close(Ending::Lost)
            }
            (SourceStage::Open | SourceStage::Released | SourceStage::Returned, _) => take_back(INTERRUPTED.into()),
            // Whatever is seen: a copy that is gone must wait for the other end's decision, too.
            (SourceStage::Go, _) => ask(INTERRUPTED.into()),
            (SourceStage::Done(_), _) => (Source::Over, SourceAction::Wait),
        }
    }
}

/// Nobody can have started the domain elsewhere.
fn before_go(event: SourceEvent) -> (Source, SourceAction) {
    match event {
        SourceEvent::Refuted(why) | SourceEvent::Failed(why) | SourceEvent::Lost(why) => take_back(why),
        SourceEvent::Cancelled => take_back("Cancelled".into()),
        _ => take_back(OUT_OF_PLACE.into()),
    }
}

/// What the destination's daemon said, and what the replication link shows. `why` the report is missing stays with it.
fn hear(why: String, answer: Answer<DestinationStage>, witness: Witness) -> (Source, SourceAction) {
    use DestinationStage as Stage;
    match answer {
        Answer::Stage(Stage::Started | Stage::Done(Ending::Moved)) => retire(),
        Answer::Stage(Stage::Aborted | Stage::Done(Ending::Returned)) => give_back(why),
        Answer::Stage(Stage::Open | Stage::Ready | Stage::Held | Stage::Owned) => ask(why),
        Answer::Stage(Stage::Done(Ending::Lost)) | Answer::Unreachable if witness.untouched() => give_back(why),
        // Only what is connected tells of now.
        Answer::Stage(Stage::Done(Ending::Lost)) if witness.connected && witness.written => bury(),
        Answer::Stage(Stage::Done(Ending::Lost)) => doubt(why, LOST_THERE),
        Answer::Unreachable => ask(why),
        Answer::Unknown => doubt(why, UNKNOWN_THERE),
    }
}

impl Witness {
    /// The destination's copy is gone and wrote nothing: with it there it would be Primary.
    fn untouched(self) -> bool {
        self.connected && !self.peer_primary && !self.written
    }
}

fn ask(why: String) -> (Source, SourceAction) {
    (Source::Asking(why.clone()), SourceAction::Ask(why))
}

fn doubt(why: String, unknown: &str) -> (Source, SourceAction) {
    (Source::Asking(why), SourceAction::Doubt(unknown.into()))
}

fn give_back(why: String) -> (Source, SourceAction) {
    (Source::Returning(why), SourceAction::Journal(SourceStage::Returned))
}

fn take_back(why: String) -> (Source, SourceAction) {
    (Source::TakingBack, SourceAction::TakeBack(why))
}

fn retire() -> (Source, SourceAction) {
    (Source::Retiring, SourceAction::Retire)
}

fn bury() -> (Source, SourceAction) {
    (Source::Burying, SourceAction::Bury(NO_LONGER_FITS.into()))
}

fn leave(why: String) -> (Source, SourceAction) {
    (Source::Over, SourceAction::Leave(why))
}

fn close(ending: Ending) -> (Source, SourceAction) {
    (Source::Over, SourceAction::Close(ending))
}

/// A peer that sends what cannot come is not followed.
pub(super) const OUT_OF_PLACE: &str = "The destination sent a message out of place";
/// Why a suspended copy is destroyed.
pub(super) const NO_LONGER_FITS: &str = "The disk was written after the domain had been suspended, and its image in memory no longer fits: only a cold start is safe";
/// As long as the link is down, and DRBD leaves it down where a Primary here would be overwritten by what was written there.
pub(super) const LOST_THERE: &str =
    "The destination's copy is gone, and without the replication link nobody can tell whether it wrote";
/// Its state directory was lost, or the question went to another host.
pub(super) const UNKNOWN_THERE: &str = "The destination knows of no such migration";
