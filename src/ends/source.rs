//! The source's hand: what [`crate::handover::Source`] decides from the end of the stream on, or about an orphan, is done here.

use std::time::Instant;

use super::ask;
use super::leaving::{Leaving, TakenBack};
use super::settle::{self, Data};
use super::stages;
use super::{Next, Over, Patience};
use crate::handover::{Ending, Source, SourceAction, SourceEvent, SourceSeen, SourceStage, Witness};
use crate::host::Host;
use crate::journal::{Done, Journal, Record, Stage};
use crate::migrate::chain;
use crate::orders::{self, Order};
use crate::plan::Timeouts;
use crate::toolstack::Error;

/// The source's end of one migration.
#[derive(Debug)]
pub struct SourceEnd<'a> {
    /// This host.
    pub host: &'a Host<'a>,
    /// The migration's journal.
    pub journal: Journal,
    /// The bound of each wait.
    pub timeouts: Timeouts,
    /// The process that migrated is gone: what it was doing at its end is not known.
    adopted: bool,
    /// Why the domain is taken back, or is not known to run anywhere.
    reason: String,
    /// The destination itself says that its copy never ran.
    pub peer_aborted: bool,
    /// The domain runs here again, whatever else is left to do.
    pub runs_here: bool,
    /// What is put beside the end in the journal.
    pub receipt: Option<serde_json::Value>,
}

impl<'a> SourceEnd<'a> {
    /// The end of a migration that begins.
    #[must_use]
    pub fn new(host: &'a Host<'a>, journal: Journal, timeouts: Timeouts) -> SourceEnd<'a> {
        SourceEnd {
            host,
            journal,
            timeouts,
            adopted: false,
            reason: String::new(),
            peer_aborted: false,
            runs_here: false,
            receipt: None,
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
    ) -> Result<(SourceEnd<'a>, Source, SourceAction), Error> {
        let end = SourceEnd { adopted: true, ..SourceEnd::new(host, journal, timeouts) };
        let stage = stages::of_source(end.journal.story().stage()).ok_or("The journal is not a source's")?;
        let seen = end.leaving().seen()?;
        let (machine, action) = Source::adopt(stage, seen);
        Ok((end, machine, action))
    }

    /// Why the domain is taken back, or is not known to run anywhere.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The copy here.
    #[must_use]
    pub fn leaving(&self) -> Leaving<'_> {
        let story = self.journal.story();
        Leaving { host: self.host, head: &story.head, samples: story.samples() }
    }

    /// Carries out until the machine has nothing more to decide, or waiting must end.
    pub fn run(&mut self, mut machine: Source, mut action: SourceAction, patience: &mut Patience) -> Over {
        loop {
            match self.carry_out(action, patience) {
                Next::Event(event) => (machine, action) = machine.step(event),
                Next::Over(over) => return over,
            }
        }
    }

    /// Carries out one action. `Verify`, `SendGo` and `Wait` are the living migration's own.
    pub fn carry_out(&mut self, action: SourceAction, patience: &mut Patience) -> Next<SourceEvent> {
        match action {
            SourceAction::Journal(stage) => Next::Event(self.record(stage)),
            SourceAction::Ask(why) => self.ask(why, patience),
            SourceAction::TakeBack(why) => Next::Event(self.take_back(why)),
            SourceAction::Retire => Next::Event(self.retire()),
            SourceAction::Bury(why) => Next::Event(self.bury(why)),
            SourceAction::Doubt(why) => Next::Over(Over::Doubt(why)),
            SourceAction::Leave(why) => Next::Over(Over::Left(why)),
            SourceAction::Close(ending) => Next::Over(self.close(ending)),
            SourceAction::Verify | SourceAction::SendGo | SourceAction::Wait => {
                Next::Over(Over::Left("Nothing can be decided now".into()))
            }
        }
    }

    fn record(&mut self, stage: SourceStage) -> SourceEvent {
        let record = match stage {
            SourceStage::Go => Record::Go,
            _ => Record::Returned { reason: self.reason.clone(), peer_aborted: self.peer_aborted },
        };
        match self.journal.append(record) {
            Ok(()) => SourceEvent::Journaled,
            Err(error) => SourceEvent::NotJournaled(chain(&error)),
        }
    }

    /// The destination's daemon first, then the link: what the link shows must not be older than the answer.
    fn ask(&mut self, why: String, patience: &mut Patience) -> Next<SourceEvent> {
        self.reason.clone_from(&why);
        if !patience.pause() {
            return Next::Over(Over::Left(why));
        }
        let head = &self.journal.story().head;
        let id = head.id;
        let said = ask::stage_or_reason(self.host, &head.peer, id);
        let mut heard = self.leaving().witness();
        if matches!(said, Ok(Some(Stage::Done(Done::Lost)))) && heard.as_ref().is_ok_and(|witness| !witness.connected) {
            // The destination's host has been started anew, and its DRBD does not allow two Primaries as this one does: the two part until this
            // end connects as before. Nothing is given up for that.
            if let Err(error) = settle::reconnect(self.host, &self.journal.story().head, Data::Keep) {
                tracing::warn!(error = %chain(error.as_ref()), "not connected");
            }
            heard = self.leaving().witness();
        }
        if let Ok(witness) = heard
            && said.is_err()
            && !peer_lives(&self.leaving())
            && Order::PeerIsDead.is_given(self.host.state_dir, id)
        {
            return Next::Event(SourceEvent::PeerDead { witness });
        }
        let witness = heard.unwrap_or_else(|error| {
            tracing::warn!(error = %chain(error.as_ref()), "DRBD was not heard as a witness");
            // Neither a disk to resume on nor one to give the copy up for.
            Witness { connected: false, peer_primary: false, written: true }
        });
        tracing::info!(?said, ?witness, "asked");
        self.peer_aborted = matches!(said, Ok(Some(Stage::Aborted | Stage::Done(Done::RolledBack | Done::Failed))));
        Next::Event(SourceEvent::Asked { answer: stages::answer(said, stages::of_destination), witness })
    }

    fn take_back(&mut self, why: String) -> SourceEvent {
        self.reason = why;
        match self.leaving().seen() {
            Ok(SourceSeen::Gone) => return SourceEvent::Gone,
            Ok(_) => {}
            Err(error) => return SourceEvent::Stuck(chain(error.as_ref())),
        }
        match self.try_take_back() {
            Ok(TakenBack::Runs) => SourceEvent::TakenBack,
            Ok(TakenBack::Written) => SourceEvent::Written,
            Err(error) => SourceEvent::Stuck(chain(error.as_ref())),
        }
    }

    fn try_take_back(&mut self) -> Result<TakenBack, Error> {
        let deadline = Instant::now() + self.timeouts.retake;
        let story = self.journal.story();
        // Before GO nobody can have started the copy.
        let proven = story.stage() != Stage::Returned || story.peer_aborted();
        let taken = match self.adopted {
            true => self.leaving().take_back_after_death(proven, deadline)?,
            false => self.leaving().take_back(proven, deadline)?,
        };
        if taken == TakenBack::Runs {
            self.runs_here = true;
            self.settle(Data::Keep)?;
        }
        Ok(taken)
    }

    fn retire(&mut self) -> SourceEvent {
        let deadline = Instant::now() + self.timeouts.volumes;
        match self.leaving().let_go(deadline).and_then(|()| self.settle(Data::Yield)) {
            Ok(()) => SourceEvent::Retired,
            Err(error) => SourceEvent::Stuck(chain(error.as_ref())),
        }
    }

    /// Two Primaries are forbidden first: whoever adopts a journal that says RETURNED and finds no copy has nothing left to do (I5).
    fn bury(&mut self, why: String) -> SourceEvent {
        self.reason = why;
        match self.try_bury() {
            Ok(()) => SourceEvent::Retired,
            Err(error) => SourceEvent::Stuck(chain(error.as_ref())),
        }
    }

    fn try_bury(&self) -> Result<(), Error> {
        let head = &self.journal.story().head;
        let deadline = Instant::now() + self.timeouts.volumes;
        self.leaving().forbid_two_primaries(deadline)?;
        self.leaving().let_go(deadline)?;
        // A peer that is dead, as the operator says, connects with nobody.
        match Order::PeerIsDead.is_given(self.host.state_dir, head.id) {
            true => Ok(()),
            false => settle::reconnect(self.host, head, Data::Yield),
        }
    }

    /// Settings and connections are as they were.
    fn settle(&self, data: Data) -> Result<(), Error> {
        let deadline = Instant::now() + self.timeouts.volumes;
        settle::reconnect(self.host, &self.journal.story().head, data)?;
        self.leaving().forbid_two_primaries(deadline)
    }

    fn close(&mut self, ending: Ending) -> Over {
        let outcome = stages::done(ending);
        let done = Record::Done { outcome, reason: self.reason.clone(), receipt: self.receipt.take() };
        let id = self.journal.story().head.id;
        match self.journal.append(done) {
            Ok(()) => {
                orders::clear(self.host.state_dir, id);
                Over::Closed { ending, reason: self.reason.clone() }
            }
            Err(error) => Over::Left(chain(&error)),
        }
    }
}

/// A host whose DRBD is connected is not dead, whatever a person says. A kernel that cannot be asked is no proof either way.
fn peer_lives(leaving: &Leaving<'_>) -> bool {
    leaving.any_connected().unwrap_or(true)
}
