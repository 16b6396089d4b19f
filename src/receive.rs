//! The story of the destination: one session of the relocation daemon.
//!
//! The other end drives: each step awaits its message and nothing else. Until GO, whatever fails or ends the connection
//! destroys the copy and releases its volumes; the copy is started on GO alone ([`crate::handover::Destination`]).

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use crate::admission::{Record, Request, Side};
use crate::handover::{self, Destination, DestinationAction, DestinationEvent};
use crate::host::{Host, PROGRAM};
use crate::ids::{DomId, VolumeId};
use crate::migrate::chain;
use crate::plan;
use crate::preflight::{self, stops};
use crate::protocol::{
    self, Answer, Failed, Finding, Handover, Hello, Message, Offer, Ready, Returned, Started, Welcome,
};
use crate::stream::Cancel;
use crate::toolstack::{Abort, Error, RunState};
use crate::transport::Channel;

/// How a session ended.
#[derive(Debug)]
pub enum Ended {
    /// The domain runs here.
    Moved(DomId),
    /// Only the findings were wanted, or they were against it.
    Answered(Vec<Finding>),
    /// It failed before GO; the copy, if there was one, is gone.
    Discarded(Error),
    /// It failed after GO; the copy never ran and is gone, and the source has been told.
    Returned(Error),
}

/// The bound of each wait of a session.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the first message.
    pub hello: Duration,
    /// For the messages of preflight.
    pub offer: Duration,
    /// From the end of the stream to RELEASED or KEPT.
    pub released: Duration,
    /// From READY to GO.
    pub go: Duration,
    /// For a destroyed copy's volumes to be released.
    pub volumes: Duration,
    /// From STARTED until the source closes the connection.
    pub farewell: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            hello: Duration::from_secs(10),
            offer: Duration::from_secs(60),
            released: Duration::from_secs(30),
            go: Duration::from_secs(120),
            volumes: Duration::from_secs(30),
            farewell: Duration::from_secs(120),
        }
    }
}

/// Receives one domain, or answers one question.
pub fn session(host: &Host<'_>, channel: &Channel, timeouts: Timeouts, cancel: &Cancel) -> Ended {
    let run = Run { host, channel, timeouts, cancel };
    let ended = tell(run).unwrap_or_else(|failure| run.give_up(failure));
    channel.finish(timeouts.hello);
    ended
}

fn tell(run: Run<'_>) -> Result<Ended, Failure> {
    run.greet().map_err(failed("greeting"))?;
    let offer = run.offer().map_err(failed("reading the offer"))?;
    let findings = run.answer(&offer).map_err(failed("checking the offer"))?;
    if offer.check_only || stops(&findings) {
        return Ok(Ended::Answered(findings));
    }
    let complete = receive(run, offer)?;
    Ok(complete.hand_over())
}

/// What all steps work with.
#[derive(Clone, Copy)]
struct Run<'a> {
    host: &'a Host<'a>,
    channel: &'a Channel,
    timeouts: Timeouts,
    cancel: &'a Cancel,
}

/// Why a step failed. Nothing of the copy is left.
struct Failure {
    step: &'static str,
    reason: Error,
}

fn failed(step: &'static str) -> impl FnOnce(Error) -> Failure {
    move |reason| Failure { step, reason }
}

impl Run<'_> {
    fn greet(&self) -> Result<(), Error> {
        let hello = self.expect_hello()?;
        let version = protocol::choose_version(&hello)?;
        tracing::info!(source = %hello.node, program = %hello.program, version, "greeted");
        let welcome = Welcome { version, node: self.host.node.into(), program: PROGRAM.into() };
        Ok(self.channel.send(welcome, self.timeouts.offer)?)
    }

    fn expect_hello(&self) -> Result<Hello, Error> {
        match self.channel.receive(self.timeouts.hello)? {
            Message::Hello(hello) => Ok(hello),
            other => Err(unexpected("Hello", &other)),
        }
    }

    fn offer(&self) -> Result<Offer, Error> {
        match self.channel.receive(self.timeouts.offer)? {
            Message::Offer(offer) => Ok(offer),
            other => Err(unexpected("Offer", &other)),
        }
    }

    fn answer(&self, offer: &Offer) -> Result<Vec<Finding>, Error> {
        let findings = preflight::destination(self.host, offer)?;
        self.channel.send(Answer { findings: findings.clone() }, self.timeouts.offer)?;
        Ok(findings)
    }

    /// Tells the source what failed, as well as it can still be told.
    fn give_up(&self, failure: Failure) -> Ended {
        let Failure { step, reason } = failure;
        tracing::error!(step, reason = %chain(reason.as_ref()), "gave up");
        let message = Failed { step: step.into(), reason: chain(reason.as_ref()) };
        let _ = self.channel.send(message, self.timeouts.offer);
        Ended::Discarded(reason)
    }
}

fn unexpected(expected: &'static str, got: &Message) -> Error {
    protocol::Error::Unexpected { expected, got: got.name() }.into()
}

/// Steps 3 to 5: the copy is complete, paused, and holds its volumes.
struct Complete<'a> {
    run: Run<'a>,
    offer: Offer,
    _record: Record,
    domid: DomId,
    disks: Disks,
    completed_at: Instant,
}

/// What happened to the disks while libxl attached them.
#[derive(Clone, Debug, Default)]
struct Disks {
    /// The resources on which we have allowed two Primaries, and on which they are forbidden again.
    allowed: Vec<String>,
    /// What the source said: RELEASED or KEPT.
    handover: Option<Handover>,
    first_request: Option<Instant>,
    last_grant: Option<Instant>,
}

fn receive(run: Run<'_>, offer: Offer) -> Result<Complete<'_>, Failure> {
    let volumes: Vec<VolumeId> = offer.volumes.iter().map(|volume| volume.id.clone()).collect();
    let record = Record::open(run.host.run_dir, offer.id, Side::Incoming, &offer.name, &volumes);
    let mut record = record.map_err(|error| failed("locking the volumes")(error.into()))?;
    match run.channel.receive(run.timeouts.offer) {
        Ok(Message::Stream(_)) => {}
        Ok(other) => return Err(failed("waiting for the stream")(unexpected("Stream", &other))),
        Err(error) => return Err(failed("waiting for the stream")(error.into())),
    }
    let mut disks = Disks::default();
    let restored = restore(run, &offer, &mut record, &mut disks);
    let released = restored.and_then(|domid| match disks.handover {
        Some(_) => Ok(domid),
        None => disks.hear(run, &offer).map(|()| domid).map_err(|error| discard(run, domid, error)),
    });
    match released {
        Ok(domid) => Ok(Complete { run, offer, _record: record, domid, disks, completed_at: Instant::now() }),
        Err(reason) => {
            release_volumes(run, &offer, &disks);
            Err(Failure { step: "restoring the domain", reason })
        }
    }
}

/// Lets libxl restore on a thread of its own, while this one answers the hotplug program's requests for disks.
fn restore(run: Run<'_>, offer: &Offer, record: &mut Record, disks: &mut Disks) -> Result<DomId, Error> {
    let config = plan::rename(&offer.config, &plan::incoming_name(&offer.name))?;
    let handle: Mutex<Option<Arc<dyn Abort>>> = Mutex::default();
    let keep = |abort: Arc<dyn Abort>| *handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(abort);
    std::thread::scope(|scope| {
        let toolstack = run.host.toolstack;
        let restoring = scope.spawn(|| toolstack.restore(&config, run.channel.as_fd(), Arc::new(|_| {}), &keep));
        while !restoring.is_finished() {
            if run.cancel.requested() {
                handle.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|abort| abort.abort());
            }
            match record.next_request(Instant::now() + REQUEST_INTERVAL) {
                Ok(Some(request)) => disks.answer(run, offer, request),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(error = %chain(&error), "the hotplug program cannot be heard");
                    std::thread::sleep(REQUEST_INTERVAL);
                }
            }
        }
        join(restoring)
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().unwrap_or_else(|_| Err("A thread panicked".into()))
}

impl Disks {
    /// Step 5. The first request shows that libxl has read the stream to its end: what follows on the connection is ours.
    fn answer(&mut self, run: Run<'_>, offer: &Offer, request: Request) {
        self.first_request.get_or_insert_with(Instant::now);
        let heard = match self.handover {
            Some(_) => Ok(()),
            None => self.hear(run, offer),
        };
        match (heard, self.handover) {
            (Ok(()), Some(handover)) => request.grant(handover),
            (Err(error), _) => request.refuse(&chain(error.as_ref())),
            (Ok(()), None) => request.refuse("The source has not released the volume"),
        }
        self.last_grant = Some(Instant::now());
    }

    /// Awaits RELEASED or KEPT; for KEPT, two Primaries are allowed from here on.
    fn hear(&mut self, run: Run<'_>, offer: &Offer) -> Result<(), Error> {
        let handover = match run.channel.receive(run.timeouts.released)? {
            Message::Released(_) => Handover::Single,
            Message::Kept(_) => Handover::Dual,
            other => return Err(unexpected("Released or Kept", &other)),
        };
        self.handover = Some(handover);
        if handover == Handover::Dual {
            self.allow_two_primaries(run, offer)?;
        }
        Ok(())
    }

    fn allow_two_primaries(&mut self, run: Run<'_>, offer: &Offer) -> Result<(), Error> {
        let deadline = Instant::now() + run.timeouts.volumes;
        for volume in &offer.volumes {
            let resource = &volume.id.resource;
            let state = run.host.replication.state(&volume.id)?.ok_or("The volume has gone from this host")?;
            if !state.two_primaries && !self.allowed.contains(resource) {
                self.allowed.push(resource.clone());
                run.host.replication.allow_two_primaries(resource, true, deadline)?;
            }
        }
        Ok(())
    }
}

/// The undo of the restore: the copy goes. Gives the reason back.
fn discard(run: Run<'_>, domid: DomId, reason: Error) -> Error {
    if let Err(error) = run.host.toolstack.destroy(domid) {
        tracing::error!(%domid, error = %chain(error.as_ref()), "the copy could not be destroyed");
    }
    reason
}

/// The undo of step 5: the hotplug program has let go of the volumes; make sure of it, and forbid two Primaries again.
fn release_volumes(run: Run<'_>, offer: &Offer, disks: &Disks) {
    let deadline = Instant::now() + run.timeouts.volumes;
    for volume in &offer.volumes {
        if let Err(error) = run.host.replication.demote(&volume.id, deadline) {
            tracing::error!(volume = %volume.id, error = %chain(error.as_ref()), "not demoted");
        }
    }
    forbid_two_primaries(run, disks);
}

fn forbid_two_primaries(run: Run<'_>, disks: &Disks) {
    let deadline = Instant::now() + run.timeouts.volumes;
    for resource in &disks.allowed {
        if let Err(error) = run.host.replication.allow_two_primaries(resource, false, deadline) {
            tracing::error!(resource, error = %chain(error.as_ref()), "two Primaries are still allowed");
        }
    }
}

impl Complete<'_> {
    /// Steps 6 to 8. The machine decides; this carries out.
    fn hand_over(self) -> Ended {
        let mut machine = Destination::Restoring;
        let mut event = DestinationEvent::Complete;
        let mut go_at = Instant::now();
        loop {
            let (next, action) = machine.step(event);
            machine = next;
            event = match action {
                DestinationAction::Journal(_) => DestinationEvent::Journaled,
                DestinationAction::SendReady | DestinationAction::Wait => self.await_go(),
                // There is no journal to ask for: whatever fails before GO discards the copy.
                DestinationAction::Ask(_) => {
                    DestinationEvent::Asked { answer: handover::Answer::Unreachable, replication_up: true }
                }
                DestinationAction::Start => {
                    go_at = Instant::now();
                    self.start()
                }
                DestinationAction::ReportStarted => return self.report_started(go_at),
                DestinationAction::Discard(reason) => return self.give_up(reason.into()),
                DestinationAction::DiscardAndReturn(reason) => return self.give_back(reason.into()),
                DestinationAction::Finish => DestinationEvent::Finished,
                DestinationAction::Doubt(reason) | DestinationAction::Leave(reason) => {
                    return Ended::Discarded(reason.into());
                }
                DestinationAction::Close(_) => return Ended::Moved(self.domid),
            };
        }
    }

    fn await_go(&self) -> DestinationEvent {
        let ready = Ready { disks_us: self.disks_us(), devices_us: micros(self.completed_at - self.last_disk()) };
        if let Err(error) = self.run.channel.send(ready, self.run.timeouts.offer) {
            return DestinationEvent::Lost(chain(&error));
        }
        let deadline = Instant::now() + self.run.timeouts.go;
        while Instant::now() < deadline {
            if self.run.cancel.requested() {
                return DestinationEvent::Lost("The daemon is being stopped".into());
            }
            match self.run.channel.wait_readable(REQUEST_INTERVAL) {
                Ok(false) => {}
                Ok(true) => return self.hear_go(),
                Err(error) => return DestinationEvent::Lost(chain(&error)),
            }
        }
        DestinationEvent::Lost("GO did not come in time".into())
    }

    fn hear_go(&self) -> DestinationEvent {
        match self.run.channel.receive(self.run.timeouts.offer) {
            Ok(Message::Go(_)) => DestinationEvent::Go,
            Ok(other) => DestinationEvent::Lost(unexpected("Go", &other).to_string()),
            Err(error) => DestinationEvent::Lost(chain(&error)),
        }
    }

    /// Step 8: the copy gets the domain's name and runs.
    fn start(&self) -> DestinationEvent {
        let (toolstack, name) = (self.run.host.toolstack, &self.offer.name);
        let renamed = toolstack.rename(self.domid, &plan::incoming_name(name), name);
        match renamed.and_then(|()| toolstack.unpause(self.domid)) {
            Ok(()) => DestinationEvent::Running,
            Err(error) if self.still_paused() => DestinationEvent::NotStarted(chain(error.as_ref())),
            Err(error) => {
                tracing::warn!(error = %chain(error.as_ref()), "the domain runs although libxl reports an error");
                DestinationEvent::Running
            }
        }
    }

    fn still_paused(&self) -> bool {
        let domain = self.run.host.toolstack.domain(self.domid);
        domain.is_ok_and(|domain| domain.is_none_or(|domain| domain.state == RunState::Paused))
    }

    fn report_started(self, go_at: Instant) -> Ended {
        let Run { channel, timeouts, .. } = self.run;
        let downtime_from = self.disks.first_request.unwrap_or(self.completed_at);
        let started = Started {
            domid: self.domid.0,
            downtime_us: micros(downtime_from.elapsed()),
            start_us: micros(go_at.elapsed()),
        };
        tracing::info!(domain = %self.offer.name, domid = %self.domid, "domain runs here");
        if let Err(error) = channel.send(started, timeouts.offer) {
            tracing::warn!(%error, "the source could not be told that the domain runs here");
        }
        // The source demotes itself before it closes; only then can two Primaries be forbidden again.
        channel.finish(timeouts.farewell);
        forbid_two_primaries(self.run, &self.disks);
        Ended::Moved(self.domid)
    }

    /// The undo of the complete copy, before GO.
    fn give_up(self, reason: Error) -> Ended {
        tracing::error!(reason = %chain(reason.as_ref()), "no GO: the copy is discarded");
        self.discard();
        let message = Failed { step: "waiting for GO".into(), reason: chain(reason.as_ref()) };
        let _ = self.run.channel.send(message, self.run.timeouts.offer);
        Ended::Discarded(reason)
    }

    /// The undo of the complete copy after GO: the source may have its domain back once the volumes are free. A copy that
    /// cannot be destroyed is not returned: then the source must not go on by itself.
    fn give_back(self, reason: Error) -> Ended {
        if self.discard() {
            let _ = self.run.channel.send(Returned { reason: chain(reason.as_ref()) }, self.run.timeouts.offer);
        }
        Ended::Returned(reason)
    }

    /// Whether the copy is gone.
    fn discard(&self) -> bool {
        let destroyed = self.run.host.toolstack.destroy(self.domid);
        if let Err(error) = &destroyed {
            tracing::error!(domid = %self.domid, error = %chain(error.as_ref()), "the copy could not be destroyed");
        }
        release_volumes(self.run, &self.offer, &self.disks);
        destroyed.is_ok()
    }

    fn disks_us(&self) -> u64 {
        self.disks.first_request.map_or(0, |first| micros(self.last_disk() - first))
    }

    fn last_disk(&self) -> Instant {
        self.disks.last_grant.unwrap_or(self.completed_at)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Between two looks at whether the restore has ended or the daemon is being stopped.
const REQUEST_INTERVAL: Duration = Duration::from_millis(5);
