//! The story of the destination: one session of the relocation daemon.
//!
//! The other end drives: each step awaits its message and nothing else. Until READY, whatever fails or ends the connection
//! destroys the copy and releases its volumes; from READY on [`crate::handover::Destination`] decides, and what it decides is in
//! the journal first.

mod moment;

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use self::moment::Moment;
use crate::admission::{Record, Request, Side};
use crate::checkup::{Facts, facts};
use crate::ends::destination::DestinationEnd;
use crate::ends::leaving::volume_state;
use crate::ends::{self, Next, Over, Patience};
use crate::fault::Step;
use crate::handover::{Destination, DestinationAction, DestinationEvent, Ending};
use crate::host::{Host, PROGRAM};
use crate::ids::{DomId, VolumeId};
use crate::journal::{self, Head, Journal, JournaledVolume, Peer};
use crate::migrate::chain;
use crate::plan;
use crate::preflight::{self, stops};
use crate::protocol::{
    self, Answer, Failed, Finding, Handover, Hello, Message, Offer, OfferedVolume, Returned, Status, Told, Welcome,
};
use crate::stream::Cancel;
use crate::timeouts::timeouts;
use crate::toolstack::{Abort, Error};
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
    /// What is left to do is the daemon's, which tries again.
    Left(Error),
}

timeouts! {
    /// The bound of each wait of the destination.
    Timeouts {
        /// For the peer to prove who it is.
        authentication = 10,
        /// For the first message.
        hello = 10,
        /// For the messages of preflight.
        offer = 60,
        /// From the end of the stream to RELEASED or KEPT.
        released = 30,
        /// From READY to GO.
        go = 120,
        /// For a destroyed copy's volumes to be released.
        volumes = 30,
        /// From STARTED until the source closes the connection.
        farewell = 120,
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
    let source = run.greet().map_err(failed("greeting"))?;
    let mut offer = match run.question().map_err(failed("reading the offer"))? {
        Question::Offer(offer) => *offer,
        Question::Query(id) => return run.tell_status(id).map_err(failed("reading the journal")),
        Question::Examine => return run.tell_facts().map_err(failed("looking at this host")),
    };
    preflight::localise(run.host, &mut offer).map_err(failed("reading the configuration"))?;
    let findings = run.answer(&offer).map_err(failed("checking the offer"))?;
    if offer.check_only || stops(&findings) {
        return Ok(Ended::Answered(findings));
    }
    Ok(match begin(run, source, offer)?.receive() {
        Ok(complete) => complete.hand_over(),
        Err(ended) => ended,
    })
}

/// What the other end wants.
enum Question {
    /// To send a domain.
    Offer(Box<Offer>),
    /// To know how far this host's journal of a migration is.
    Query(uuid::Uuid),
    /// To know what this host is like.
    Examine,
}

/// What all steps work with.
#[derive(Clone, Copy)]
struct Run<'a> {
    host: &'a Host<'a>,
    channel: &'a Channel,
    timeouts: Timeouts,
    cancel: &'a Cancel,
}

/// Why a step failed. Nothing had been changed.
struct Failure {
    step: &'static str,
    reason: Error,
}

fn failed(step: &'static str) -> impl FnOnce(Error) -> Failure {
    move |reason| Failure { step, reason }
}

impl Run<'_> {
    fn greet(&self) -> Result<Hello, Error> {
        let hello = self.expect_hello()?;
        let version = protocol::choose_version(&hello)?;
        tracing::info!(source = %hello.node, program = %hello.program, version, "greeted");
        let welcome = Welcome { version, node: self.host.node.into(), program: PROGRAM.into() };
        self.channel.send(welcome, self.timeouts.offer)?;
        Ok(hello)
    }

    fn expect_hello(&self) -> Result<Hello, Error> {
        match self.channel.receive(self.timeouts.hello)? {
            Message::Hello(hello) => Ok(hello),
            other => Err(unexpected("Hello", &other)),
        }
    }

    fn question(&self) -> Result<Question, Error> {
        match self.channel.receive(self.timeouts.offer)? {
            Message::Offer(offer) => Ok(Question::Offer(Box::new(offer))),
            Message::Query(query) => Ok(Question::Query(query.id)),
            Message::Examine(_) => Ok(Question::Examine),
            other => Err(unexpected("Offer, Query or Examine", &other)),
        }
    }

    /// Reports; whoever holds the journal's lock decides. Where nobody holds it any more, for the migration is over here, the volumes are connected
    /// again for the end that is not done.
    fn tell_status(&self, id: uuid::Uuid) -> Result<Ended, Error> {
        let story = journal::read(self.host.state_dir, id)?;
        let stage = story.as_ref().map(journal::Story::stage);
        tracing::info!(%id, ?stage, "asked for the status");
        self.channel.send(Status { id, stage }, self.timeouts.offer)?;
        if let Some(story) = story.filter(journal::Story::is_done)
            && let Err(error) = ends::meet(self.host, &story.head)
        {
            tracing::warn!(%id, error = %chain(error.as_ref()), "the volumes are not connected; the other end will ask again");
        }
        Ok(Ended::Answered(Vec::new()))
    }

    /// What `bascule check --peer` compares: nothing is changed, and nothing in it is a secret.
    fn tell_facts(&self) -> Result<Ended, Error> {
        let asked_us = facts::clock_us();
        let Host { node, toolstack, replication, .. } = *self.host;
        let local = self.channel.local()?.ip().to_canonical();
        let facts = Box::new(Facts::look(node, Ok(toolstack), Ok(replication), local));
        tracing::info!("asked what this host is like");
        self.channel.send(Told { asked_us, answered_us: facts::clock_us(), facts }, self.timeouts.offer)?;
        Ok(Ended::Answered(Vec::new()))
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

/// The journal is open; the stream follows.
struct Begun<'a> {
    run: Run<'a>,
    offer: Offer,
    record: Record,
    end: DestinationEnd<'a>,
}

/// From here on there is something to take back, and the journal says so.
fn begin(run: Run<'_>, source: Hello, offer: Offer) -> Result<Begun<'_>, Failure> {
    let volumes: Vec<VolumeId> = offer.volumes.iter().map(|volume| volume.id.clone()).collect();
    let record = Record::open(run.host.run_dir, offer.id, Side::Incoming, &offer.name, &volumes);
    let record = record.map_err(|error| failed("locking the volumes")(error.into()))?;
    match run.channel.receive(run.timeouts.offer) {
        Ok(Message::Stream(_)) => {}
        Ok(other) => return Err(failed("waiting for the stream")(unexpected("Stream", &other))),
        Err(error) => return Err(failed("waiting for the stream")(error.into())),
    }
    let journal = open_journal(run, source, &offer).map_err(failed("opening the journal"))?;
    let end =
        DestinationEnd::new(run.host, journal, plan::Timeouts { volumes: run.timeouts.volumes, ..Default::default() });
    Ok(Begun { run, offer, record, end })
}

fn open_journal(run: Run<'_>, source: Hello, offer: &Offer) -> Result<Journal, Error> {
    let volume = |offered: &OfferedVolume| -> Result<JournaledVolume, Error> {
        let state = volume_state(run.host, &offered.id)?;
        let link = run.host.replication.link(&offered.id.resource)?.map(serde_json::to_value).transpose()?;
        Ok(JournaledVolume { id: state.id, minor: state.minor, two_primaries: state.two_primaries, link })
    };
    journal::prune(run.host.state_dir, run.host.history_max)?;
    let head = Head {
        format: journal::FORMAT,
        id: offer.id,
        side: Side::Incoming,
        name: offer.name.clone(),
        uuid: offer.uuid,
        domid: None,
        peer: Peer { host: run.channel.peer()?.ip().to_canonical().to_string(), port: offer.port, node: source.node },
        handover: offer.handover,
        volumes: offer.volumes.iter().map(volume).collect::<Result<_, _>>()?,
        boot: journal::this_boot(),
        pid: std::process::id(),
        program: PROGRAM.into(),
    };
    Ok(Journal::create(run.host.state_dir, head)?)
}

/// Steps 3 to 5: the copy is complete, paused, and holds its volumes.
struct Complete<'a> {
    begun: Begun<'a>,
    domid: DomId,
    disks: Disks,
    completed_at: Instant,
}

/// What happened to the disks while libxl attached them.
#[derive(Clone, Debug, Default)]
struct Disks {
    /// What the source said: RELEASED or KEPT.
    handover: Option<Handover>,
    first_request: Option<Instant>,
    last_grant: Option<Instant>,
}

impl<'a> Begun<'a> {
    fn receive(mut self) -> Result<Complete<'a>, Ended> {
        let mut disks = Disks::default();
        match self.try_receive(&mut disks) {
            Ok(domid) => Ok(Complete { begun: self, domid, disks, completed_at: Instant::now() }),
            Err(reason) => {
                let (machine, action) = Destination::Restoring.step(DestinationEvent::Failed(chain(reason.as_ref())));
                Err(self.carry_on(machine, action, "restoring the domain", |_, action| Err(action)))
            }
        }
    }

    fn try_receive(&mut self, disks: &mut Disks) -> Result<DomId, Error> {
        self.run.host.reach(Step::DestinationAccepted)?;
        self.run.host.reach(Step::DestinationStream)?;
        let domid = self.restore(disks)?;
        self.end.journal.append(journal::Record::Copy { domid })?;
        if disks.handover.is_none() {
            disks.hear(self.run, &self.offer, &mut self.end.journal)?;
        }
        self.run.channel.expect_promptness()?;
        self.run.host.reach(Step::DestinationComplete)?;
        Ok(domid)
    }

    /// Lets libxl restore on a thread of its own, while this one answers the hotplug program's requests for disks.
    fn restore(&mut self, disks: &mut Disks) -> Result<DomId, Error> {
        let Begun { run, offer, record, end } = self;
        let run = *run;
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
                    Ok(Some(request)) => disks.answer(run, offer, &mut end.journal, request),
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

    /// Carries out until the machine has nothing more to decide. `live` does what only the living migration can, and gives back the
    /// actions that are not of that kind; a copy that is gone is told to the source, which may wait for it.
    fn carry_on(
        &mut self,
        mut machine: Destination,
        mut action: DestinationAction,
        step: &'static str,
        mut live: impl FnMut(&mut Self, DestinationAction) -> Result<DestinationEvent, DestinationAction>,
    ) -> Ended {
        let mut patience = Patience::new(None, self.run.cancel);
        let mut returned = false;
        loop {
            let last_words = self.last_words(&action, step);
            returned |= matches!(action, DestinationAction::DiscardAndReturn(_));
            let next = match live(self, action) {
                Ok(event) => Next::Event(event),
                Err(action) => self.end.carry_out(action, &mut patience),
            };
            match next {
                Next::Event(event) => {
                    if let (DestinationEvent::Discarded, Some(words)) = (&event, last_words) {
                        let _ = self.run.channel.send(words, self.run.timeouts.offer);
                    }
                    (machine, action) = machine.step(event);
                }
                Next::Over(over) => return self.conclude(over, returned),
            }
        }
    }

    /// What the source hears when the copy is gone.
    fn last_words(&self, action: &DestinationAction, step: &str) -> Option<Message> {
        match action {
            DestinationAction::Discard(why) => Some(Failed { step: step.into(), reason: why.clone() }.into()),
            DestinationAction::DiscardAndReturn(why) => Some(Returned { reason: why.clone() }.into()),
            _ => None,
        }
    }

    fn conclude(&self, over: Over, returned: bool) -> Ended {
        match (over, self.end.running) {
            (_, Some(domid)) => Ended::Moved(domid),
            (Over::Closed { ending: Ending::Returned, reason }, _) if returned => Ended::Returned(reason.into()),
            (Over::Closed { reason, .. }, _) => Ended::Discarded(reason.into()),
            (Over::Left(why) | Over::Doubt(why), _) => Ended::Left(why.into()),
        }
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().unwrap_or_else(|_| Err("A thread panicked".into()))
}

impl Disks {
    /// Step 5. The first request shows that libxl has read the stream to its end: what follows on the connection is ours.
    fn answer(&mut self, run: Run<'_>, offer: &Offer, journal: &mut Journal, request: Request) {
        self.first_request.get_or_insert_with(Instant::now);
        let heard = match self.handover {
            Some(_) => Ok(()),
            None => self.hear(run, offer, journal),
        };
        match (heard, self.handover) {
            (Ok(()), Some(handover)) => request.grant(handover),
            (Err(error), _) => request.refuse(&chain(error.as_ref())),
            (Ok(()), None) => request.refuse("The source has not released the volume"),
        }
        self.last_grant = Some(Instant::now());
    }

    /// Awaits RELEASED or KEPT, whichever the offer promised; for KEPT, two Primaries are allowed from here on.
    fn hear(&mut self, run: Run<'_>, offer: &Offer, journal: &mut Journal) -> Result<(), Error> {
        let handover = match run.channel.receive(run.timeouts.released)? {
            Message::Released(_) => Handover::Single,
            Message::Kept(_) => Handover::Dual,
            other => return Err(unexpected("Released or Kept", &other)),
        };
        if handover != offer.handover {
            return Err(
                format!("The source offered a {} handover and now does a {handover} one", offer.handover).into()
            );
        }
        run.host.reach(Step::DestinationReleased)?;
        if handover == Handover::Dual {
            allow_two_primaries(run, offer, journal)?;
        }
        self.handover = Some(handover);
        Ok(())
    }
}

/// On the resources where it is not so already, and journaled before.
fn allow_two_primaries(run: Run<'_>, offer: &Offer, journal: &mut Journal) -> Result<(), Error> {
    let deadline = Instant::now() + run.timeouts.volumes;
    for volume in &offer.volumes {
        let resource = &volume.id.resource;
        if !volume_state(run.host, &volume.id)?.two_primaries {
            journal.append(journal::Record::Allowed { resource: resource.clone() })?;
            run.host.replication.allow_two_primaries(resource, true, deadline)?;
        }
    }
    Ok(())
}

impl Complete<'_> {
    /// Steps 6 to 8. The machine decides; this carries out, with the hand that recovery has, too.
    fn hand_over(self) -> Ended {
        let Complete { mut begun, domid, disks, completed_at } = self;
        let mut moment = Moment::new(domid, disks, completed_at);
        let (machine, action) = Destination::Restoring.step(DestinationEvent::Complete);
        begun.carry_on(machine, action, "waiting for GO", |begun, action| moment.live(begun, action))
    }
}

/// Between two looks at whether the restore has ended or the daemon is being stopped.
const REQUEST_INTERVAL: Duration = Duration::from_millis(5);
