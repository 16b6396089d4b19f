//! The connections that were let in: silent until the peer has said something, half open until a worker has said who it is, then a session.
//!
//! The peer speaks first. Before it does, a connection costs a descriptor; then a process, and those are started no faster than
//! [`STARTED_MAX`] says, first for whoever has had the fewest.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Workers;
use super::door::{Door, Heard};
use super::limits::{FAILED_COUNTS, Limits, Room, network};
use super::names::{self, Names};
use super::refusals::{Refusals, Why};
use super::worker::Word;

/// The most workers that are started in a [`START_WINDOW`].
const STARTED_MAX: usize = 32;
/// The same before the daemon sees to its other duties.
const STARTED_AT_ONCE_MAX: usize = 4;
const START_WINDOW: Duration = Duration::from_secs(1);
/// How long a worker may take to end once there is nothing more to do, or to turn away a peer that is known.
const LEAVING_WAIT: Duration = Duration::from_secs(10);

pub(super) struct Sessions<'a> {
    workers: &'a Workers<'a>,
    names: Names,
    /// In the order in which they came.
    all: Vec<Session>,
    /// When the last workers were started.
    started: Vec<Instant>,
    /// Who failed to say who he is, and when.
    failed: Vec<(IpAddr, Instant)>,
}

struct Session {
    peer: SocketAddr,
    /// When it must have gone on to the next stage.
    deadline: Instant,
    stage: Stage,
}

enum Stage {
    /// The peer has said nothing.
    Silent(TcpStream),
    /// It has, and there is no worker yet.
    Talking(TcpStream),
    /// The worker has not said who the peer is.
    HalfOpen(Child, Door),
    /// The worker ends: the peer had what it wanted, or is nobody, or is told that there are too many sessions.
    Leaving(Child),
    /// A session of a peer of that name.
    Open(Child, String),
    /// It was killed; what it was is in the log.
    Killed(Child),
    /// Nothing is left of it.
    Over,
}

impl<'a> Sessions<'a> {
    pub(super) fn new(workers: &'a Workers<'a>) -> Sessions<'a> {
        let names = Names::new(names::system);
        Sessions { workers, names, all: Vec::new(), started: Vec::new(), failed: Vec::new() }
    }

    /// A connection has come in.
    pub(super) fn consider(&mut self, refusals: &mut Refusals, stream: TcpStream, peer: SocketAddr) {
        match (self.workers.policy)().allow.by_address(peer.ip()) {
            Some(true) => self.admit(refusals, stream, peer),
            Some(false) => refusals.say(Why::Host, Some(peer), ""),
            None => {
                if let Err(why) = self.names.ask(stream, peer) {
                    refusals.say(Why::Names, Some(peer), &why);
                }
            }
        }
    }

    /// Sees to everything that has happened since.
    pub(super) fn turn(&mut self, refusals: &mut Refusals) {
        self.admit_named(refusals);
        self.listen(refusals);
        self.start_workers(refusals);
        self.hear(refusals);
        self.expire(refusals);
        self.reap(refusals);
        self.failed.retain(|(_, since)| since.elapsed() < FAILED_COUNTS);
    }

    /// Those whose name was looked up.
    fn admit_named(&mut self, refusals: &mut Refusals) {
        for (stream, peer, name) in self.names.settled() {
            match name {
                Ok(name) if (self.workers.policy)().allow.by_name(&name) => self.admit(refusals, stream, peer),
                Ok(name) => refusals.say(Why::Host, Some(peer), &name),
                Err(why) => refusals.say(Why::Host, Some(peer), why),
            }
        }
    }

    fn admit(&mut self, refusals: &mut Refusals, stream: TcpStream, peer: SocketAddr) {
        let limits = self.limits();
        let strangers = self.all.iter().enumerate().filter(|(_, session)| session.is_stranger());
        let (places, half_open): (Vec<usize>, Vec<IpAddr>) =
            strangers.map(|(at, session)| (at, session.address())).unzip();
        let failed: Vec<IpAddr> = self.failed.iter().map(|(address, _)| *address).collect();
        match limits.room(peer.ip().to_canonical(), &half_open, &failed) {
            Room::Free => {}
            Room::InsteadOf(place) => self.refuse(places[place], refusals, Why::Crowd, "another had fewer"),
            Room::None(of) => return refusals.say(Why::Crowd, Some(peer), of),
        }
        match stream.set_nonblocking(true) {
            Ok(()) => {
                let deadline = Instant::now() + limits.authentication;
                self.all.push(Session { peer, deadline, stage: Stage::Silent(stream) });
            }
            Err(error) => tracing::debug!(%peer, %error, "the connection is gone"),
        }
    }

    /// Finds those that have begun to speak, without taking anything of what they say.
    fn listen(&mut self, refusals: &mut Refusals) {
        for at in 0..self.all.len() {
            let Stage::Silent(stream) = &self.all[at].stage else { continue };
            match stream.peek(&mut [0]) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Ok(0) | Err(_) => self.refuse(at, refusals, Why::Proof, "it said nothing"),
                Ok(_) => self.all[at].begins_to_talk(),
            }
        }
    }

    fn start_workers(&mut self, refusals: &mut Refusals) {
        self.started.retain(|since| since.elapsed() < START_WINDOW);
        for _ in 0..STARTED_AT_ONCE_MAX.min(STARTED_MAX.saturating_sub(self.started.len())) {
            let Some(at) = self.next_to_start() else { return };
            self.started.push(Instant::now());
            self.start(at, refusals);
        }
    }

    /// The oldest of whoever has had the fewest workers lately that found nobody they know.
    fn next_to_start(&self) -> Option<usize> {
        let talking = self.all.iter().enumerate().filter(|(_, session)| matches!(session.stage, Stage::Talking(_)));
        talking.min_by_key(|(_, session)| self.had_lately(session.address())).map(|(at, _)| at)
    }

    fn had_lately(&self, address: IpAddr) -> usize {
        let half_open = self.all.iter().filter(|session| matches!(session.stage, Stage::HalfOpen(..)));
        let addresses = half_open.map(Session::address).chain(self.failed.iter().map(|(address, _)| *address));
        addresses.filter(|of| network(*of) == network(address)).count()
    }

    fn start(&mut self, at: usize, refusals: &mut Refusals) {
        let session = &mut self.all[at];
        let Stage::Talking(stream) = std::mem::replace(&mut session.stage, Stage::Over) else { return };
        let spawned = stream.set_nonblocking(false).and_then(|()| Door::pair()).and_then(|(door, theirs)| {
            let mut command = (self.workers.session)();
            let worker = command.stdin(Stdio::from(OwnedFd::from(stream))).stdout(Stdio::from(theirs)).spawn()?;
            Ok((worker, door))
        });
        match spawned {
            Ok((worker, door)) => {
                tracing::debug!(peer = %session.peer, worker = worker.id(), "half open");
                session.stage = Stage::HalfOpen(worker, door);
            }
            Err(error) => refusals.say(Why::Worker, Some(session.peer), &error.to_string()),
        }
    }

    /// What the workers have said.
    fn hear(&mut self, refusals: &mut Refusals) {
        for at in 0..self.all.len() {
            let Stage::HalfOpen(_, door) = &mut self.all[at].stage else { continue };
            match door.hear() {
                Heard::Nothing => {}
                Heard::Word(Word::Authenticated(name)) => self.open(at, refusals, name),
                Heard::Word(Word::Refused(why)) => {
                    refusals.say(Why::Proof, Some(self.all[at].peer), &why);
                    self.failed.push((self.all[at].address(), Instant::now()));
                    self.all[at].leaves();
                }
                Heard::Word(Word::Served(what)) => {
                    tracing::info!(peer = %self.all[at].peer, "{what}");
                    self.all[at].leaves();
                }
                Heard::Nonsense => self.refuse(at, refusals, Why::Proof, "its worker has ended"),
            }
        }
    }

    /// The peer is known: it has a session, or is told that there is no room.
    fn open(&mut self, at: usize, refusals: &mut Refusals, name: String) {
        let sessions: Vec<IpAddr> = self.open_sessions().map(Session::address).collect();
        let room = self.limits().session(self.all[at].address(), &sessions);
        let session = &mut self.all[at];
        let peer = session.peer;
        let Stage::HalfOpen(worker, door) = std::mem::replace(&mut session.stage, Stage::Over) else { return };
        session.stage = match room {
            Ok(()) => {
                tracing::info!(%peer, name, worker = worker.id(), "session");
                Stage::Open(worker, name)
            }
            Err(of) => {
                refusals.say(Why::Busy, Some(peer), &format!("{of} ({name})"));
                session.deadline = Instant::now() + LEAVING_WAIT;
                Stage::Leaving(worker)
            }
        };
        if let Err(error) = door.answer(room.is_ok()) {
            tracing::debug!(%peer, %error, "a worker has ended before its answer");
        }
    }

    fn open_sessions(&self) -> impl Iterator<Item = &Session> {
        self.all.iter().filter(|session| matches!(session.stage, Stage::Open(..)))
    }

    /// Those whose peer, or worker, took too long.
    fn expire(&mut self, refusals: &mut Refusals) {
        let now = Instant::now();
        for at in 0..self.all.len() {
            match &self.all[at] {
                late if late.deadline > now => {}
                late if late.is_stranger() => self.refuse(at, refusals, Why::Proof, "not in time"),
                Session { stage: Stage::Leaving(_), .. } => self.all[at].kill(),
                _ => {}
            }
        }
    }

    /// A worker that has not said who its peer is holds nothing that would have to be put back.
    fn refuse(&mut self, at: usize, refusals: &mut Refusals, why: Why, detail: &str) {
        let session = &mut self.all[at];
        session.kill();
        refusals.say(why, Some(session.peer), detail);
        self.failed.push((session.address(), Instant::now()));
    }

    fn reap(&mut self, refusals: &mut Refusals) {
        for at in 0..self.all.len() {
            let Some(worker) = self.all[at].worker() else { continue };
            let (id, ended) = (worker.id(), worker.try_wait());
            match ended {
                Ok(None) => {}
                Ok(Some(status)) => self.end(at, refusals, id, &status.to_string()),
                Err(error) => {
                    tracing::error!(worker = id, %error, "a worker cannot be waited for");
                    self.all[at].stage = Stage::Over;
                }
            }
        }
        self.all.retain(|session| !matches!(session.stage, Stage::Over));
    }

    fn end(&mut self, at: usize, refusals: &mut Refusals, worker: u32, status: &str) {
        let session = &mut self.all[at];
        match std::mem::replace(&mut session.stage, Stage::Over) {
            Stage::Open(_, name) => tracing::info!(peer = %session.peer, name, worker, status, "session ended"),
            Stage::HalfOpen(..) => {
                refusals.say(Why::Proof, Some(session.peer), status);
                self.failed.push((session.address(), Instant::now()));
            }
            _ => {}
        }
    }

    fn limits(&self) -> Limits {
        (self.workers.policy)().limits
    }

    /// What else there is to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all.iter().filter_map(|session| match &session.stage {
            Stage::Silent(stream) => Some(stream.as_fd()),
            Stage::HalfOpen(_, door) => Some(door.as_fd()),
            _ => None,
        })
    }

    /// Whether something is to be done soon that nobody will wake the daemon for.
    pub(super) fn is_pressed(&self) -> bool {
        !self.names.is_idle() || self.next_to_start().is_some()
    }

    /// How many sessions there are, of peers that are known.
    pub(super) fn count(&self) -> usize {
        self.open_sessions().count()
    }

    /// Asks the sessions to end: before GO they give up, after it they finish. Who is not known is cut off.
    pub(super) fn ask_to_end(&mut self) {
        self.names = Names::new(names::system);
        for session in &mut self.all {
            match &session.stage {
                Stage::Open(worker, _) => terminate(worker),
                _ => session.kill(),
            }
        }
    }

    pub(super) fn have_ended(&self) -> bool {
        self.all.is_empty()
    }

    /// Says which go on without the daemon.
    pub(super) fn leave(&mut self) {
        for session in &mut self.all {
            let peer = session.peer;
            if let Some(worker) = session.worker() {
                tracing::warn!(worker = worker.id(), %peer, "left to itself: its session goes on");
            }
        }
    }
}

impl Session {
    fn address(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    fn is_stranger(&self) -> bool {
        matches!(self.stage, Stage::Silent(_) | Stage::Talking(_) | Stage::HalfOpen(..))
    }

    fn begins_to_talk(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Silent(stream) => Stage::Talking(stream),
            other => other,
        };
    }

    fn leaves(&mut self) {
        self.deadline = Instant::now() + LEAVING_WAIT;
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::HalfOpen(worker, _) => Stage::Leaving(worker),
            other => other,
        };
    }

    fn worker(&mut self) -> Option<&mut Child> {
        match &mut self.stage {
            Stage::HalfOpen(worker, _) | Stage::Leaving(worker) => Some(worker),
            Stage::Open(worker, _) | Stage::Killed(worker) => Some(worker),
            Stage::Silent(_) | Stage::Talking(_) | Stage::Over => None,
        }
    }

    fn kill(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Silent(_) | Stage::Talking(_) | Stage::Over => Stage::Over,
            Stage::HalfOpen(mut worker, _)
            | Stage::Leaving(mut worker)
            | Stage::Open(mut worker, _)
            | Stage::Killed(mut worker) => {
                // One that has ended already waits to be reaped: its number is still its own.
                let _ = worker.kill();
                Stage::Killed(worker)
            }
        };
    }
}

/// Asks a process to end.
pub(super) fn terminate(process: &Child) {
    if let Ok(pid) = i32::try_from(process.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}
