//! The destination's hand: what [`crate::handover::Destination`] decides from the restore on, or about an orphan, is done here.

use std::time::{Duration, Instant};

use super::arriving::{Arriving, Start};
use super::ask;
use super::leaving::volume_state;
use super::settle::{self, Data};
use super::stages;
use super::{Next, Over, Patience};
use crate::fault::Step;
use crate::handover::{Destination, DestinationAction, DestinationEvent, DestinationStage, Ending};
use crate::host::Host;
use crate::ids::DomId;
use crate::journal::{Journal, JournaledVolume, Record, Sample};
use crate::migrate::chain;
use crate::orders::{self, Order};
use crate::plan::Timeouts;
use crate::toolstack::Error;

/// The destination's end of one migration.
#[derive(Debug)]
pub struct DestinationEnd<'a> {
    /// This host.
    pub host: &'a Host<'a>,
    /// The migration's journal.
    pub journal: Journal,
    /// The bound of each wait.
    pub timeouts: Timeouts,
    /// Why the copy is discarded, or waits.
    reason: String,
    /// Since when the replication link has been seen up, while the source's daemon did not answer.
    up_since: Option<Instant>,
    /// The link was seen down meanwhile: the source's host may have been started anew, without its copy.
    link_was_down: bool,
    /// The copy, once it runs.
    pub running: Option<DomId>,
}

/// How long the replication link must be seen up before it proves that the source's host lives: longer than DRBD takes to notice that
/// a peer is dead (`ping-int` and `ping-timeout`, 10.5 s unless set otherwise).
const REPLICATION_PROOF: Duration = Duration::from_secs(12);

impl<'a> DestinationEnd<'a> {
    /// The end of a migration that begins.
    #[must_use]
    pub fn new(host: &'a Host<'a>, journal: Journal, timeouts: Timeouts) -> DestinationEnd<'a> {
        DestinationEnd {
            host,
            journal,
            timeouts,
            reason: String::new(),
            up_since: None,
            link_was_down: false,
            running: None,
        }
    }

    /// The end of a migration whose process is gone, and what its machine does first.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    pub fn adopt(
        host: &'a Host<'a>,
        journal: Journal,
        timeouts: Timeouts,
    ) -> Result<(DestinationEnd<'a>, Destination, DestinationAction), Error> {
        let end = DestinationEnd::new(host, journal, timeouts);
        let story = end.journal.story();
        let stage = stages::of_destination(story.stage()).ok_or("The journal is not a destination's")?;
        let seen = end.arriving().seen()?;
        let (machine, action) = Destination::adopt(stage, seen);
        Ok((end, machine, action))
    }

    /// The copy here.
    #[must_use]
    pub fn arriving(&self) -> Arriving<'_> {
        let story = self.journal.story();
        Arriving { host: self.host, head: &story.head, domid: story.copy() }
    }

    /// Carries out until the machine has nothing more to decide, or waiting must end.
    pub fn run(&mut self, mut machine: Destination, mut action: DestinationAction, patience: &mut Patience) -> Over {
        loop {
            match self.carry_out(action, patience) {
                Next::Event(event) => (machine, action) = machine.step(event),
                Next::Over(over) => return over,
            }
        }
    }

    /// Carries out one action. `SendReady` and `Wait` are the living migration's own, and so is telling the source.
    pub fn carry_out(&mut self, action: DestinationAction, patience: &mut Patience) -> Next<DestinationEvent> {
        match action {
            DestinationAction::Journal(stage) => Next::Event(self.record(stage)),
            DestinationAction::Ask(why) => self.ask(why, patience),
            DestinationAction::Start => Next::Event(self.start()),
            DestinationAction::ReportStarted => Next::Event(DestinationEvent::Reported),
            DestinationAction::Finish => Next::Event(self.finish()),
            DestinationAction::Discard(why) | DestinationAction::DiscardAndReturn(why) => {
                Next::Event(self.discard(why))
            }
            DestinationAction::Doubt(why) => Next::Over(Over::Doubt(why)),
            DestinationAction::Leave(why) => Next::Over(Over::Left(why)),
            DestinationAction::Close(ending) => Next::Over(self.close(ending)),
            DestinationAction::SendReady | DestinationAction::Wait => {
                Next::Over(Over::Left("Nothing can be decided now".into()))
            }
        }
    }

    fn record(&mut self, stage: DestinationStage) -> DestinationEvent {
        let record = match stage {
            DestinationStage::Ready => match self.ready() {
                Ok(record) => record,
                Err(error) => return DestinationEvent::NotJournaled(chain(error.as_ref())),
            },
            DestinationStage::Held => Record::Held,
            DestinationStage::Owned => Record::Owned,
            DestinationStage::Started => Record::Started,
            _ => Record::Aborted { reason: self.reason.clone() },
        };
        match self.journal.append(record) {
            Ok(()) => DestinationEvent::Journaled,
            Err(error) => DestinationEvent::NotJournaled(chain(&error)),
        }
    }

    /// The samples show later whether the source has gone on.
    fn ready(&self) -> Result<Record, Error> {
        let story = self.journal.story();
        let sample = |volume: &JournaledVolume| -> Result<Sample, Error> {
            let now = volume_state(self.host, &volume.id)?;
            Ok(Sample { volume: now.id, counters: now.counters })
        };
        let samples = story.head.volumes.iter().map(sample).collect::<Result<_, _>>()?;
        Ok(Record::Ready { domid: story.copy().unwrap_or(DomId(0)), samples })
    }

    fn ask(&mut self, why: String, patience: &mut Patience) -> Next<DestinationEvent> {
        self.reason.clone_from(&why);
        if !patience.pause() {
            return Next::Over(Over::Left(why));
        }
        let head = &self.journal.story().head;
        let said = ask::stage_or_reason(self.host, &head.peer, head.id);
        // A host whose DRBD is connected is not dead, whatever a person says.
        let lives = self.arriving().any_connected().unwrap_or(true);
        if said.is_err() && !lives && Order::PeerIsDead.is_given(self.host.state_dir, head.id) {
            let written = self.arriving().written(self.journal.story().samples()).unwrap_or(true);
            return Next::Event(DestinationEvent::PeerDead { written });
        }
        let replication_up = said.is_err() && self.replication_is_up();
        tracing::info!(?said, replication_up, "asked");
        Next::Event(DestinationEvent::Asked { answer: stages::answer(said, stages::of_source), replication_up })
    }

    /// Whether the link has been up for [`REPLICATION_PROOF`] without a gap.
    fn replication_is_up(&mut self) -> bool {
        let up = self.arriving().replication_up().unwrap_or(false);
        self.link_was_down |= !up;
        let up_since = *self.up_since.get_or_insert_with(Instant::now);
        !self.link_was_down && up_since.elapsed() >= REPLICATION_PROOF
    }

    fn start(&mut self) -> DestinationEvent {
        match self.arriving().start() {
            Start::Running(domid) => {
                self.running = Some(domid);
                // What runs is not stopped for a fault.
                if let Err(error) = self.host.reach(Step::DestinationRunning) {
                    tracing::warn!(error = %chain(error.as_ref()), "the domain runs");
                }
                DestinationEvent::Running
            }
            Start::NotStarted(error) => {
                self.reason = chain(error.as_ref());
                DestinationEvent::NotStarted(self.reason.clone())
            }
        }
    }

    /// What is left of the handover is put in order; the domain runs here and keeps its data.
    fn finish(&mut self) -> DestinationEvent {
        match self.settle(Data::Keep) {
            Ok(()) => DestinationEvent::Finished,
            Err(error) => DestinationEvent::Stuck(chain(error.as_ref())),
        }
    }

    fn discard(&mut self, why: String) -> DestinationEvent {
        self.reason = why;
        let deadline = Instant::now() + self.timeouts.volumes;
        match self.arriving().discard(deadline) {
            Ok(()) => DestinationEvent::Discarded,
            Err(error) => DestinationEvent::Stuck(chain(error.as_ref())),
        }
    }

    fn settle(&self, data: Data) -> Result<(), Error> {
        let story = self.journal.story();
        settle::reconnect(self.host, &story.head, data)?;
        let deadline = Instant::now() + self.timeouts.volumes;
        self.arriving().forbid_two_primaries(&self.allowed(), deadline)
    }

    fn allowed(&self) -> Vec<String> {
        self.journal.story().allowed().map(str::to_owned).collect()
    }

    /// An abort has been told of already, so that the source need not wait; the connection is put in order before the end is journaled. The
    /// loss of a copy is told by this very record, and the connection may need what the source does when it knows.
    fn close(&mut self, ending: Ending) -> Over {
        let settled = match ending {
            Ending::Moved => Ok(()),
            Ending::Returned => self.settle(Data::Yield),
            Ending::Lost => {
                self.arriving().forbid_two_primaries(&self.allowed(), Instant::now() + self.timeouts.volumes)
            }
        };
        if let Err(error) = settled {
            return Over::Left(chain(error.as_ref()));
        }
        let (outcome, id) = (stages::done(ending), self.journal.story().head.id);
        let done = Record::Done { outcome, reason: self.reason.clone(), receipt: None };
        match self.journal.append(done) {
            Ok(()) => {
                orders::clear(self.host.state_dir, id);
                Over::Closed { ending, reason: self.reason.clone() }
            }
            Err(error) => Over::Left(chain(&error)),
        }
    }
}
