//! The story of the source: one domain moves to another host.
//!
//! Each phase is a struct that owns the one before; what failed before GO takes everything back and leaves the domain
//! running here. [`Released::go`] is the point of no return: after it there is an [`Outcome`], never a `Result`.

mod retire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::{Record, Side};
use crate::handover::{Source, SourceAction, SourceEvent};
use crate::host::{Host, PROGRAM};
use crate::ids::VolumeId;
use crate::plan::{self, Plan, Request};
use crate::preflight::{self, stops};
use crate::protocol::{
    self, Finding, Go, Handover, Hello, Kept, Message, Released as ReleasedMessage, Started, Stream, Welcome,
};
use crate::replication::{Counters, VolumeState};
use crate::report::{Event, Phase, Receipt, Report};
use crate::stream::{self, Cancel, Streamed};
use crate::toolstack::{Error, RunState};
use crate::transport::Channel;

/// How a migration ended.
#[derive(Debug)]
pub enum Outcome {
    /// The domain runs at the destination.
    Moved(Box<Receipt>),
    /// A dry run found nothing against it; warnings only.
    Clear(Vec<Finding>),
    /// Preflight found what would make it fail; nothing was changed.
    Refused(Vec<Finding>),
    /// It failed before the domain was touched; the domain runs at the source.
    Failed(Error),
    /// It failed on the way; everything was taken back and the domain runs at the source.
    RolledBack {
        /// What failed.
        reason: Error,
    },
    /// The domain is suspended at the source and could not be resumed, or nobody here can know where it runs.
    Indeterminate {
        /// What failed.
        reason: Error,
        /// What is known, and what to type.
        advice: String,
    },
}

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
    let sent = cleared.send()?;
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

/// Steps 0 to 2: the domain is locked, both ends found nothing against it, and the destination is ready to receive.
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

    let greeted = greet(run, &plan).and_then(|(channel, welcome)| {
        let found = offer(run, &plan, &channel)?;
        Ok((channel, welcome, found))
    });
    let (channel, welcome) = match greeted {
        Ok((channel, welcome, found)) => {
            findings.extend(found);
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
    Ok(Cleared { run, plan, _record: record, channel, destination: welcome.node, findings, cleared_at: Instant::now() })
}

fn unreachable(run: Run<'_>, plan: &Plan, error: &Error) -> Finding {
    let found = format!("{} could not be asked: {}", plan.request.host, chain(error.as_ref()));
    run.host.error("destination-unreachable", found, "There: systemctl status bascule, or bascule serve")
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

fn greet(run: Run<'_>, plan: &Plan) -> Result<(Channel, Welcome), Error> {
    let (request, timeouts) = (&plan.request, plan.request.timeouts);
    let channel = Channel::connect(&request.host, request.port, timeouts.connect)?;
    let hello = Hello {
        oldest: protocol::VERSION_OLDEST,
        newest: protocol::VERSION,
        node: run.host.node.into(),
        program: PROGRAM.into(),
    };
    channel.send(hello, timeouts.answer)?;
    match channel.receive(timeouts.answer)? {
        Message::Welcome(welcome) => Ok((channel, welcome)),
        other => Err(refusal(other, "Welcome")),
    }
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

/// What the destination said instead of what was awaited, as an error.
fn refusal(message: Message, expected: &'static str) -> Error {
    match message {
        Message::Failed(failed) => format!("The destination failed while {}: {}", failed.step, failed.reason).into(),
        other => protocol::Error::Unexpected { expected, got: other.name() }.into(),
    }
}

/// Step 3: the stream is sent and the domain is suspended.
struct Sent<'a> {
    cleared: Cleared<'a>,
    streamed: Streamed,
}

impl<'a> Cleared<'a> {
    fn send(self) -> Result<Sent<'a>, Outcome> {
        let Run { host, report, cancel, .. } = self.run;
        self.run.phase(Phase::Precopy);
        let streamed = match self.channel.send(Stream {}, self.plan.request.timeouts.answer) {
            Ok(()) => stream::send(host, self.plan.domid, &self.channel, report, cancel).map_err(Error::from),
            Err(error) => Err(error.into()),
        };
        match streamed {
            Ok(streamed) => Ok(Sent { cleared: self, streamed }),
            Err(reason) => Err(self.resume(reason)),
        }
    }

    /// The undo of the stream: the domain runs here again, whatever libxl left it in.
    fn resume(&self, reason: Error) -> Outcome {
        let Cleared { run, plan, channel, .. } = self;
        channel.finish(Duration::ZERO);
        match run.host.toolstack.domain(plan.domid) {
            Ok(Some(domain)) if domain.state == RunState::Suspended => {
                run.report.event(Event::Undo { step: "resuming the domain" });
                match run.host.toolstack.resume(plan.domid) {
                    Ok(()) => Outcome::RolledBack { reason },
                    Err(error) => stuck(plan, reason, &error),
                }
            }
            Ok(Some(_)) => Outcome::RolledBack { reason },
            Ok(None) => Outcome::Indeterminate { reason, advice: gone(plan) },
            Err(error) => stuck(plan, reason, &error),
        }
    }
}

fn gone(plan: &Plan) -> String {
    let name = &plan.facts.name;
    format!(
        "Domain {name} does not exist here any more: somebody destroyed it. It does not run on {}. Start it again: bascule create",
        plan.request.host
    )
}

fn stuck(plan: &Plan, reason: Error, error: &Error) -> Outcome {
    let (name, host) = (&plan.facts.name, &plan.request.host);
    let advice = format!(
        "Domain {name} is suspended here and could not be resumed: {}. It does not run on {host}, which was never told to start it. \
         Its disks are intact: destroy it here (bascule destroy {}) and start it again (bascule create)",
        chain(error.as_ref()),
        plan.domid
    );
    Outcome::Indeterminate { reason, advice }
}

/// Step 4: the source writes no more. Single-primary: it is Secondary. Dual-primary: it keeps its role for the moment.
struct Released<'a> {
    cleared: Cleared<'a>,
    streamed: Streamed,
    /// Each volume's counters when nothing of the domain was on its way any more.
    samples: Vec<Sample>,
    released_at: Instant,
    /// When READY came.
    ready_at: Instant,
    /// The destination's report, and when it came.
    started: Option<(Started, Instant)>,
    bytes: u64,
    /// Sectors that the destination had sent when the witnesses were asked.
    destination_sectors: u64,
}

/// A volume's counters at one moment.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    volume: VolumeId,
    counters: Counters,
}

impl<'a> Sent<'a> {
    fn release(self) -> Result<Released<'a>, Outcome> {
        self.cleared.run.phase(Phase::Release);
        let samples = match self.try_release() {
            Ok(samples) => samples,
            Err(reason) => return Err(self.cleared.take_back(reason)),
        };
        let Sent { cleared, streamed } = self;
        let now = Instant::now();
        Ok(Released {
            cleared,
            streamed,
            samples,
            released_at: now,
            ready_at: now,
            started: None,
            bytes: 0,
            destination_sectors: 0,
        })
    }

    fn try_release(&self) -> Result<Vec<Sample>, Error> {
        let Cleared { run, plan, channel, .. } = &self.cleared;
        let (replication, timeouts) = (run.host.replication, plan.request.timeouts);
        let deadline = Instant::now() + timeouts.volumes;
        replication.wait_idle(plan.domid, deadline)?;
        if plan.handover == Handover::Dual {
            let samples = sample(*run, plan)?;
            channel.send(Kept {}, timeouts.answer)?;
            return Ok(samples);
        }
        for volume in plan.volume_ids() {
            replication.release(volume, deadline)?;
        }
        let samples = sample(*run, plan)?;
        channel.send(ReleasedMessage {}, timeouts.answer)?;
        Ok(samples)
    }
}

fn sample(run: Run<'_>, plan: &Plan) -> Result<Vec<Sample>, Error> {
    let of = |volume: &VolumeId| {
        volume_state(run, volume).map(|state| Sample { volume: volume.clone(), counters: state.counters })
    };
    plan.volume_ids().map(of).collect()
}

fn volume_state(run: Run<'_>, volume: &VolumeId) -> Result<VolumeState, Error> {
    let state = run.host.replication.state(volume)?;
    state.ok_or_else(|| format!("Volume {volume} has gone from this host").into())
}

impl Cleared<'_> {
    /// The undo of release and stream: the volumes are ours again, then the domain runs. The connection ends first,
    /// which makes the destination discard its copy and become Secondary. It forbids two Primaries again, too; this end
    /// makes sure of it, in case the destination's process is gone, when the domain runs.
    fn take_back(self, reason: Error) -> Outcome {
        let Cleared { run, plan, channel, .. } = &self;
        channel.finish(Duration::ZERO);
        if let Err(error) = retake(*run, plan) {
            return stuck(plan, reason, &error);
        }
        let outcome = self.resume(reason);
        if let Err(error) = self.forbid_two_primaries() {
            tracing::warn!(error = %chain(error.as_ref()), "two Primaries may still be allowed: look at bascule status");
        }
        outcome
    }

    /// Puts the permission back where it was not given before.
    fn forbid_two_primaries(&self) -> Result<(), Error> {
        let Cleared { run, plan, .. } = self;
        if plan.handover == Handover::Single {
            return Ok(());
        }
        let deadline = Instant::now() + plan.request.timeouts.volumes;
        let forbidden_before = plan.volumes.iter().filter(|volume| !volume.state.two_primaries);
        let mut resources: Vec<&str> = forbidden_before.map(|volume| volume.state.id.resource.as_str()).collect();
        resources.dedup();
        let mut forbid = |resource: &str| run.host.replication.allow_two_primaries(resource, false, deadline);
        resources.into_iter().try_for_each(&mut forbid)
    }
}

/// The undo of a single-primary release; with two Primaries nothing was released.
fn retake(run: Run<'_>, plan: &Plan) -> Result<(), Error> {
    if plan.handover == Handover::Dual {
        return Ok(());
    }
    run.report.event(Event::Undo { step: "taking the volumes back" });
    let deadline = Instant::now() + plan.request.timeouts.retake;
    plan.volume_ids().try_for_each(|volume| run.host.replication.retake(volume, deadline))
}

impl Released<'_> {
    /// Steps 5 to 9. The machine of [`crate::handover`] decides; this carries out. From `Go` on nothing returns early.
    fn go(mut self) -> Outcome {
        self.cleared.run.phase(Phase::Attach);
        let mut machine = Source::AwaitReady;
        let mut event = self.await_ready();
        loop {
            let (next, action) = machine.step(event);
            machine = next;
            event = match action {
                SourceAction::Verify => self.verify(),
                SourceAction::Journal(_) => SourceEvent::Journaled,
                SourceAction::SendGo => self.say_go(),
                SourceAction::Wait => self.await_report(),
                SourceAction::Retire => return self.retire(),
                SourceAction::TakeBack(reason) => return self.take_back(reason.into()),
                SourceAction::Ask(reason) | SourceAction::Doubt(reason) | SourceAction::Leave(reason) => {
                    return self.doubt(reason.into());
                }
                SourceAction::Close(ending) => return self.doubt(format!("It ended early: {ending:?}").into()),
            };
        }
    }

    fn await_ready(&self) -> SourceEvent {
        let timeouts = self.cleared.plan.request.timeouts;
        let deadline = Instant::now() + timeouts.ready;
        while !self.cleared.run.cancel.requested() {
            match self.cleared.channel.wait_readable(CANCEL_INTERVAL) {
                Ok(true) => return self.hear(timeouts.answer).0,
                Ok(false) if Instant::now() >= deadline => return lost("its copy was not ready in time"),
                Ok(false) => {}
                Err(error) => return lost(&chain(&error)),
            }
        }
        SourceEvent::Cancelled
    }

    fn hear(&self, timeout: Duration) -> (SourceEvent, Option<Started>) {
        let event = match self.cleared.channel.receive(timeout) {
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
        let Cleared { run, plan, .. } = &self.cleared;
        run.phase(Phase::Handover);
        let name = &plan.facts.name;
        let verdict: Result<u64, Error> =
            self.samples.iter().map(|sample| verify_volume(*run, plan.handover, sample)).sum();
        let renamed = verdict.and_then(|sectors| {
            self.destination_sectors = sectors;
            if run.cancel.requested() {
                return Ok(SourceEvent::Cancelled);
            }
            run.host.toolstack.rename(plan.domid, name, &plan::migrated_away_name(name))?;
            Ok(SourceEvent::Verified)
        });
        renamed.unwrap_or_else(|error| SourceEvent::Refuted(chain(error.as_ref())))
    }

    /// The point of no return.
    fn say_go(&mut self) -> SourceEvent {
        let Cleared { plan, channel, .. } = &self.cleared;
        tracing::info!(domain = %plan.facts.name, "GO");
        self.bytes = channel.bytes().acknowledged;
        match channel.send(Go {}, plan.request.timeouts.answer) {
            Ok(()) => self.await_report(),
            Err(error) => lost(&chain(&error)),
        }
    }

    fn await_report(&mut self) -> SourceEvent {
        let (event, started) = self.hear(self.cleared.plan.request.timeouts.report);
        self.started = started.map(|started| (started, Instant::now()));
        event
    }

    /// The undo of everything since the stream, the name included.
    fn take_back(self, reason: Error) -> Outcome {
        let Cleared { run, plan, .. } = &self.cleared;
        let name = &plan.facts.name;
        let away = plan::migrated_away_name(name);
        // Not renamed yet in most cases: then this changes nothing.
        let is_away = run.host.toolstack.domain(plan.domid).is_ok_and(|domain| domain.is_some_and(|d| d.name == away));
        if is_away && let Err(error) = run.host.toolstack.rename(plan.domid, &away, name) {
            tracing::warn!(%error, "the name could not be put back");
        }
        self.cleared.take_back(reason)
    }

    /// GO was said and nobody answered. The domain stays suspended here: resuming it could make it run twice.
    fn doubt(self, reason: Error) -> Outcome {
        let Plan { facts, request, .. } = &self.cleared.plan;
        let (name, host, away) = (&facts.name, &request.host, plan::migrated_away_name(&facts.name));
        let advice = format!(
            "{host} was told to start {name} and has not answered. Look there: bascule list. If {name} runs there, end the              suspended copy here: bascule destroy {away}. If it does not exist there, nor {incoming}, its disks are intact:              bascule destroy {away} here, then bascule create. Never both",
            incoming = plan::incoming_name(name)
        );
        Outcome::Indeterminate { reason, advice }
    }
}

fn lost(why: &str) -> SourceEvent {
    SourceEvent::Lost(format!("The destination is lost: {why}"))
}

/// The destination has the volume, both disks are good, and nobody has written since the sample. Gives the sectors that the
/// destination has sent since then.
fn verify_volume(run: Run<'_>, handover: Handover, sample: &Sample) -> Result<u64, Error> {
    let state = volume_state(run, &sample.volume)?;
    let id = &sample.volume;
    let expected_role = handover == Handover::Dual;
    if !state.connected || !state.up_to_date {
        return Err(format!("{id} is {}, {} here and {} there", state.connection, state.disk, state.peer_disk).into());
    }
    if !state.peer_primary || state.primary != expected_role {
        return Err(format!("The roles on {id} are not those of a {handover} handover").into());
    }
    if state.counters != sample.counters {
        return Err(format!(
            "{id} was written after the domain was suspended: {:?}, then {:?}",
            sample.counters, state.counters
        )
        .into());
    }
    Ok(state.counters.received - sample.counters.received)
}

/// Between two looks at the user's wish while the destination builds its copy.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);
