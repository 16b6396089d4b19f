//! The story of the source: one domain moves to another host.
//!
//! Each phase is a struct that owns the one before; what failed before GO takes everything back and leaves the domain
//! running here. [`Released::go`] holds the point of no return: after it there is an [`Outcome`], never a `Result`. What this
//! process has promised is in the journal first, so that the daemon can go on when it dies.

mod outcome;
mod receipt;
mod witness;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::outcome::Outcome;
use self::outcome::conclude;
use crate::admission::{Record, Side};
use crate::ends::source::SourceEnd;
use crate::ends::{Next, Patience};
use crate::fault::Step;
use crate::handover::{Source, SourceAction, SourceEvent};
use crate::host::{Host, PROGRAM};
use crate::ids::VolumeId;
use crate::journal::{self, Head, Journal, JournaledVolume, Peer};
use crate::orders::{self, Follower};
use crate::peer::{self, refusal};
use crate::plan::{self, Plan, Request};
use crate::preflight::{self, Code, stops};
use crate::protocol::{Finding, Go, Handover, Held, Kept, Message, Released as ReleasedMessage, Started, Stream};
use crate::report::{Event, Phase, Report};
use crate::stream::{self, Cancel, Streamed};
use crate::tls::Protection;
use crate::toolstack::Error;
use crate::transport::Channel;
use crate::watch;

/// Moves a domain. Every wait is bounded by the request's timeouts.
pub fn migrate(host: &Host<'_>, request: Request, report: &Arc<dyn Report>, cancel: &Cancel) -> Outcome {
    let run = Run { host, report, cancel, begun: Instant::now() };
    tell(run, request).unwrap_or_else(|stopped| stopped)
}

fn tell(run: Run<'_>, request: Request) -> Result<Outcome, Outcome> {
    let cleared = clear(run, request)?;
    if cleared.plan.request.dry_run {
        return Ok(Outcome::Clear(cleared.findings));
    }
    let opened = cleared.open()?;
    let sent = opened.send()?;
    let released = sent.release()?;
    Ok(released.go())
}

/// What all phases work with.
#[derive(Clone, Copy)]
struct Run<'a> {
    host: &'a Host<'a>,
    report: &'a Arc<dyn Report>,
    cancel: &'a Cancel,
    begun: Instant,
}

impl Run<'_> {
    fn phase(&self, phase: Phase) {
        let at_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(?phase, elapsed_ms = at_ms, "phase");
        self.report.event(Event::Phase { phase, at_ms });
    }
}

/// Steps 0 to 2: the domain is locked, both ends found nothing against it, and the destination is ready to receive. Nothing has been
/// changed on either host.
struct Cleared<'a> {
    run: Run<'a>,
    plan: Plan,
    _record: Record,
    channel: Channel,
    destination: String,
    findings: Vec<Finding>,
    cleared_at: Instant,
}

fn clear(run: Run<'_>, request: Request) -> Result<Cleared<'_>, Outcome> {
    run.phase(Phase::Preflight);
    let drawn = preflight::draw(run.host, request).map_err(Outcome::Failed)?;
    let (plan, mut findings) = (drawn.plan, drawn.findings);
    let volumes: Vec<VolumeId> = plan.volume_ids().cloned().collect();
    let record = Record::open(run.host.run_dir, plan.id, Side::Outgoing, &plan.facts.name, &volumes);
    let record = record.map_err(|error| Outcome::Failed(error.into()))?;

    let (request, timeouts) = (&plan.request, plan.request.timeouts);
    let called = peer::call(run.host.caller(), (&request.host, request.port), timeouts.connect, timeouts.answer);
    let greeted = called.and_then(|(channel, welcome)| {
        let found = offer(run, &plan, &channel)?;
        Ok((channel, welcome, found))
    });
    let (channel, welcome) = match greeted {
        Ok((channel, welcome, found)) => {
            findings.extend(found);
            findings.extend(in_clear(run, &plan, &channel));
            (channel, welcome)
        }
        // What this end found is told even if the other end could not be asked.
        Err(error) if stops(&findings) => {
            findings.push(unreachable(run, &plan, &error));
            return Err(Outcome::Refused(findings));
        }
        Err(error) => return Err(Outcome::Failed(error)),
    };
    run.report.event(Event::Preflight { findings: &findings });
    if stops(&findings) {
        return Err(Outcome::Refused(findings));
    }
    run.host.reach(Step::SourceCleared).map_err(Outcome::Failed)?;
    Ok(Cleared { run, plan, _record: record, channel, destination: welcome.node, findings, cleared_at: Instant::now() })
}

/// It is said each time.
fn in_clear(run: Run<'_>, plan: &Plan, channel: &Channel) -> Option<Finding> {
    let Plan { facts, request, .. } = plan;
    let found =
        || format!("The memory of {} goes to {} in clear, and nobody proves who he is", facts.name, request.host);
    let remedy = "Take the hosts out of [security] in-clear in both configurations, and bascule pair them";
    (channel.protection() == Protection::Clear).then(|| run.host.warning(Code::InClear, found(), remedy))
}

fn unreachable(run: Run<'_>, plan: &Plan, error: &Error) -> Finding {
    let found = format!("{} could not be asked: {}", plan.request.host, chain(error.as_ref()));
    run.host.error(Code::DestinationUnreachable, found, "There: systemctl status bascule, or bascule serve")
}

/// An error and its sources in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn offer(run: Run<'_>, plan: &Plan, channel: &Channel) -> Result<Vec<Finding>, Error> {
    let timeout = plan.request.timeouts.answer;
    let domain = run.host.toolstack.domain(plan.domid)?.ok_or("The domain has gone")?;
    channel.send(preflight::offer(plan, domain.memory_kib), timeout)?;
    match channel.receive(timeout)? {
        Message::Answer(answer) => Ok(answer.findings),
        other => Err(refusal(other, "Answer")),
    }
}

impl<'a> Cleared<'a> {
    /// From here on there is something to take back, and the journal says so.
    fn open(self) -> Result<Opened<'a>, Outcome> {
        let Cleared { run, plan, .. } = &self;
        let journal = self.head().and_then(|head| {
            journal::prune(run.host.state_dir, run.host.history_max)?;
            Ok(Journal::create(run.host.state_dir, head)?)
        });
        let journal = journal.map_err(Outcome::Failed)?;
        watch::stand_in_for_xl(run.host.run_dir, plan.domid, &plan.facts.name, plan.facts.uuid);
        let mut end = SourceEnd::new(run.host, journal, plan.request.timeouts);
        match run.host.reach(Step::SourceOpened) {
            Ok(()) => Ok(Opened { cleared: self, end }),
            Err(reason) => Err(self.undo(&mut end, reason)),
        }
    }

    fn head(&self) -> Result<Head, Error> {
        let Cleared { run, plan, destination, .. } = self;
        let request = &plan.request;
        let volume = |planned: &plan::PlannedVolume| -> Result<JournaledVolume, Error> {
            let state = &planned.state;
            let link = run.host.replication.link(&state.id.resource)?.map(serde_json::to_value).transpose()?;
            Ok(JournaledVolume { id: state.id.clone(), minor: state.minor, two_primaries: state.two_primaries, link })
        };
        Ok(Head {
            format: journal::FORMAT,
            id: plan.id,
            side: Side::Outgoing,
            name: plan.facts.name.clone(),
            uuid: plan.facts.uuid,
            domid: Some(plan.domid),
            peer: Peer { host: request.host.clone(), port: request.port, node: destination.clone() },
            handover: plan.handover,
            volumes: plan.volumes.iter().map(volume).collect::<Result<_, _>>()?,
            boot: journal::this_boot(),
            pid: std::process::id(),
            program: PROGRAM.into(),
        })
    }

    /// The undo of everything before GO. The connection ends first, which makes the destination discard its copy.
    fn undo(&self, end: &mut SourceEnd<'_>, reason: Error) -> Outcome {
        let Cleared { run, plan, channel, .. } = self;
        channel.finish(Duration::ZERO);
        run.report.event(Event::Undo { step: "taking the domain back" });
        let (machine, action) = Source::AwaitReady.step(SourceEvent::Failed(chain(reason.as_ref())));
        let over = end.run(machine, action, &mut self.patience());
        conclude(plan, end, over)
    }

    fn patience(&self) -> Patience {
        let until = Instant::now() + self.plan.request.timeouts.resolve;
        // After GO the wish to stop does not end the asking.
        Patience::new(Some(until), &Cancel::default())
    }
}

/// The journal is open.
struct Opened<'a> {
    cleared: Cleared<'a>,
    end: SourceEnd<'a>,
}

impl<'a> Opened<'a> {
    /// Step 3: the memory is streamed while the domain runs, then the rest.
    fn send(mut self) -> Result<Sent<'a>, Outcome> {
        let Cleared { run, plan, .. } = &self.cleared;
        run.phase(Phase::Precopy);
        let orders = orders::follow(run.host.state_dir, plan.id, run.cancel);
        match self.try_send() {
            Ok(streamed) => Ok(Sent { opened: self, streamed, _orders: orders }),
            Err(reason) => Err(self.cleared.undo(&mut self.end, reason)),
        }
    }

    fn try_send(&self) -> Result<Streamed, Error> {
        let Cleared { run, plan, channel, .. } = &self.cleared;
        let timeouts = &plan.request.timeouts;
        channel.send(Stream {}, timeouts.answer)?;
        run.host.reach(Step::SourceStream)?;
        let streamed = stream::send(run.host, plan.domid, channel, run.report, run.cancel, timeouts.stall)?;
        channel.expect_promptness()?;
        run.host.reach(Step::SourceSuspended)?;
        Ok(streamed)
    }
}

/// Step 3 is done: the domain is suspended.
struct Sent<'a> {
    opened: Opened<'a>,
    streamed: Streamed,
    _orders: Follower,
}

impl<'a> Sent<'a> {
    /// Step 4: the source writes no more. Single-primary: it is Secondary. Dual-primary: it keeps its role for the moment.
    fn release(mut self) -> Result<Released<'a>, Outcome> {
        self.opened.cleared.run.phase(Phase::Release);
        if let Err(reason) = self.try_release() {
            return Err(self.opened.cleared.undo(&mut self.opened.end, reason));
        }
        let now = Instant::now();
        Ok(Released { sent: self, released_at: now, ready_at: now, started: None, bytes: 0, destination_sectors: 0 })
    }

    fn try_release(&mut self) -> Result<(), Error> {
        let Opened { cleared, end } = &mut self.opened;
        let Cleared { run, plan, channel, .. } = cleared;
        let (host, replication, timeouts) = (run.host, run.host.replication, plan.request.timeouts);
        let deadline = Instant::now() + timeouts.volumes;
        replication.wait_idle(plan.domid, deadline)?;
        let samples = witness::sample(run.host, plan.volume_ids())?;
        end.journal.append(journal::Record::Released { handover: plan.handover, samples })?;
        host.reach(Step::SourceJournaledReleased)?;
        if plan.handover == Handover::Single {
            plan.volume_ids().try_for_each(|volume| replication.release(volume, deadline))?;
        }
        host.reach(Step::SourceReleased)?;
        match plan.handover {
            Handover::Single => channel.send(ReleasedMessage {}, timeouts.answer)?,
            Handover::Dual => channel.send(Kept {}, timeouts.answer)?,
        }
        host.reach(Step::SourceSentReleased)
    }
}

/// Step 4 is done: the destination may attach the volumes.
struct Released<'a> {
    sent: Sent<'a>,
    released_at: Instant,
    /// When READY came.
    ready_at: Instant,
    /// The destination's report, and when it came.
    started: Option<(Started, Instant)>,
    bytes: u64,
    /// Sectors that the destination had sent when the witnesses were asked.
    destination_sectors: u64,
}

impl<'a> Released<'a> {
    fn cleared(&self) -> &Cleared<'a> {
        &self.sent.opened.cleared
    }

    /// Steps 5 to 9. The machine of [`crate::handover`] decides; this carries out, with the hand that recovery has, too.
    fn go(mut self) -> Outcome {
        self.cleared().run.phase(Phase::Attach);
        let mut patience = self.cleared().patience();
        let (mut machine, mut action) = Source::AwaitReady.step(self.await_ready());
        loop {
            let next = match action {
                SourceAction::Verify => Next::Event(self.verify()),
                SourceAction::SendGo => Next::Event(self.say_go()),
                SourceAction::Wait => Next::Event(self.await_report()),
                SourceAction::Ask(why) => {
                    patience = self.begin_asking(patience);
                    self.sent.opened.end.carry_out(SourceAction::Ask(why), &mut patience)
                }
                SourceAction::TakeBack(why) => {
                    self.cleared().channel.finish(Duration::ZERO);
                    self.cleared().run.report.event(Event::Undo { step: "taking the domain back" });
                    self.sent.opened.end.carry_out(SourceAction::TakeBack(why), &mut patience)
                }
                SourceAction::Retire => return self.retire(machine, &mut patience),
                action => self.sent.opened.end.carry_out(action, &mut patience),
            };
            match next {
                Next::Event(event) => (machine, action) = machine.step(event),
                Next::Over(over) => return conclude(&self.cleared().plan, &self.sent.opened.end, over),
            }
        }
    }

    /// The time for asking begins with the first question.
    fn begin_asking(&self, patience: Patience) -> Patience {
        match patience.has_begun() {
            true => patience,
            false => {
                self.cleared().channel.finish(Duration::ZERO);
                self.cleared().patience()
            }
        }
    }

    fn await_ready(&self) -> SourceEvent {
        let Cleared { run, plan, channel, .. } = self.cleared();
        let timeouts = plan.request.timeouts;
        let deadline = Instant::now() + timeouts.ready;
        while !run.cancel.requested() {
            match channel.wait_readable(CANCEL_INTERVAL) {
                Ok(true) => return self.hear(timeouts.answer).0,
                Ok(false) if Instant::now() >= deadline => return lost("its copy was not ready in time"),
                Ok(false) => {}
                Err(error) => return lost(&chain(&error)),
            }
        }
        SourceEvent::Cancelled
    }

    fn hear(&self, timeout: Duration) -> (SourceEvent, Option<Started>) {
        let event = match self.cleared().channel.receive(timeout) {
            Ok(Message::Ready(_)) => SourceEvent::Ready,
            Ok(Message::Started(started)) => return (SourceEvent::Started, Some(started)),
            Ok(Message::Returned(returned)) => {
                SourceEvent::Returned(format!("The destination could not start the domain: {}", returned.reason))
            }
            Ok(Message::Failed(failed)) => {
                SourceEvent::Failed(format!("The destination failed while {}: {}", failed.step, failed.reason))
            }
            Ok(other) => lost(&format!("it sent {} out of place", other.name())),
            Err(error) => lost(&chain(&error)),
        };
        (event, None)
    }

    /// Step 7, the witnesses: DRBD at this end says that the destination has the volumes and that nobody has written.
    /// Then the domain's name is moved out of the way, which is the last thing that can be undone.
    fn verify(&mut self) -> SourceEvent {
        self.ready_at = Instant::now();
        self.cleared().run.phase(Phase::Handover);
        let verified = self.try_verify();
        verified.unwrap_or_else(|error| SourceEvent::Refuted(chain(error.as_ref())))
    }

    fn try_verify(&mut self) -> Result<SourceEvent, Error> {
        let Opened { cleared, end } = &self.sent.opened;
        let Cleared { run, plan, .. } = cleared;
        run.host.reach(Step::SourceReady)?;
        cleared.channel.send(Held {}, plan.request.timeouts.answer)?;
        let samples = end.journal.story().samples().iter();
        self.destination_sectors =
            samples.map(|sample| witness::verify_volume(run.host, plan.handover, sample)).sum::<Result<_, _>>()?;
        if run.cancel.requested() {
            return Ok(SourceEvent::Cancelled);
        }
        let name = &plan.facts.name;
        run.host.toolstack.rename(plan.domid, name, &plan::migrated_away_name(name))?;
        run.host.reach(Step::SourceVerified)?;
        Ok(SourceEvent::Verified)
    }

    /// The point of no return has been journaled.
    fn say_go(&mut self) -> SourceEvent {
        let Cleared { run, plan, channel, .. } = self.cleared();
        tracing::info!(domain = %plan.facts.name, "GO");
        let bytes = channel.bytes().acknowledged;
        let sent = run
            .host
            .reach(Step::SourceJournaledGo)
            .and_then(|()| Ok(channel.send(Go {}, plan.request.timeouts.answer)?));
        let sent = sent.and_then(|()| run.host.reach(Step::SourceSentGo));
        self.bytes = bytes;
        match sent {
            Ok(()) => self.await_report(),
            Err(error) => lost(&chain(error.as_ref())),
        }
    }

    fn await_report(&mut self) -> SourceEvent {
        let Cleared { run, plan, .. } = self.cleared();
        let (event, started) = self.hear(plan.request.timeouts.report);
        let peer_aborted = matches!(event, SourceEvent::Returned(_));
        if started.is_some()
            && let Err(error) = run.host.reach(Step::SourceStarted)
        {
            return lost(&chain(error.as_ref()));
        }
        self.started = started.map(|started| (started, Instant::now()));
        self.sent.opened.end.peer_aborted = peer_aborted;
        event
    }

    /// Step 9: the domain lives at the destination; what is left of it here goes. What cannot be done now is the daemon's, and told.
    fn retire(mut self, machine: Source, patience: &mut Patience) -> Outcome {
        self.cleared().run.phase(Phase::Retire);
        let (end, mut warnings) = (&mut self.sent.opened.end, Vec::new());
        let (machine, action) = match end.carry_out(SourceAction::Retire, patience) {
            Next::Event(event) => machine.step(event),
            Next::Over(over) => (machine, SourceAction::Leave(format!("{over:?}"))),
        };
        if let Err(error) = self.cleared().run.host.reach(Step::SourceRetired) {
            warnings.push(chain(error.as_ref()));
        }
        if let SourceAction::Leave(why) = &action {
            let id = self.cleared().plan.id;
            warnings.push(format!(
                "Something is left of the domain here ({why}). The daemon goes on, or type: bascule recover {id}"
            ));
        }
        let receipt = self.receipt(warnings);
        let end = &mut self.sent.opened.end;
        end.receipt = serde_json::to_value(&receipt).ok();
        end.run(machine, action, patience);
        Outcome::Moved(Box::new(receipt))
    }
}

fn lost(why: &str) -> SourceEvent {
    SourceEvent::Lost(format!("The destination is lost: {why}"))
}

/// Between two looks at the user's wish while the destination builds its copy.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);
