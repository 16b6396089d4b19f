//! Both hosts in one process: a migrating process, and on each host a daemon that answers, receives and adopts orphans.
//!
//! A process that dies on purpose unwinds, so that its locks and connections are let go and none of its undo is done.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bascule::checkup::ask::{Answer, ask};
use bascule::config::{Guests, Security};
use bascule::daemon::Nets;
use bascule::ends::Patience;
use bascule::fault::{Fault, Faults};
use bascule::host::{Caller, Host};
use bascule::journal;
use bascule::migrate::{Outcome, migrate};
use bascule::plan::{Request, Timeouts};
use bascule::preflight;
use bascule::protocol::{Handover, Hello, Kept, Message, Stream, VERSION, VERSION_OLDEST};
use bascule::receive::{self, Ended};
use bascule::recover::recover;
use bascule::report::{Event, Report};
use bascule::stream::Cancel;
use bascule::transport::Channel;
use tempfile::TempDir;

use crate::world::{DOMID, STREAM, Side, World};

/// How long everything may take to come to rest.
const REST_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(2);

struct Silent;

impl Report for Silent {
    fn event(&self, _: Event<'_>) {}
}

/// What a process unwinds with that dies on purpose.
struct Died;

fn die() {
    resume_unwind(Box::new(Died));
}

/// The result, unless the process died on purpose.
fn living<T>(process: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(process)) {
        Ok(result) => Some(result),
        Err(payload) if payload.is::<Died>() => None,
        Err(payload) => resume_unwind(payload),
    }
}

/// Ends the daemons when it goes, also with a test that fails: its panic would wait for them for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Both hosts, the source first.
pub(crate) struct Hosts {
    sides: [Side; 2],
    dirs: [TempDir; 2],
    security: Security,
    guests: Guests,
    faults: [Faults; 2],
    /// The same port on two addresses, as two hosts have it.
    listeners: [TcpListener; 2],
    over: AtomicBool,
    ended: Mutex<Vec<Ended>>,
}

impl Hosts {
    pub(crate) fn new(world: &Arc<World>, faults: [Option<Fault>; 2]) -> Hosts {
        let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        Hosts {
            sides: [world.end(0, dirs[0].path()), world.end(1, dirs[1].path())],
            dirs,
            security: in_clear(),
            guests: Guests::default(),
            faults: faults.map(|fault| Faults::new(fault).dying_by(die)),
            listeners: listen(),
            over: AtomicBool::new(false),
            ended: Mutex::default(),
        }
    }

    fn host(&self, end: usize) -> Host<'_> {
        let (side, dir) = (&self.sides[end], self.dirs[end].path());
        let node = ["node1", "node2"][end];
        Host {
            toolstack: side,
            replication: side,
            node,
            run_dir: dir,
            state_dir: dir,
            history_max: bascule::journal::KEPT,
            security: &self.security,
            guests: &self.guests,
            faults: &self.faults[end],
        }
    }

    /// Migrates, and waits until no journal is open on either host: what the migrating process said, if it lived, and how the
    /// destination's sessions ended, questions aside.
    pub(crate) fn run(&self, handover: Option<Handover>) -> (Option<Outcome>, Vec<Ended>) {
        thread::scope(|scope| {
            let over = Over(&self.over);
            let threads: Vec<_> = (0..2)
                .flat_map(|end| [scope.spawn(move || self.listen(end)), scope.spawn(move || self.adopt(end))])
                .collect();
            let outcome = living(|| self.migrate(handover));
            self.come_to_rest();
            drop(over);
            threads.into_iter().for_each(|thread| thread.join().expect("no daemon panics"));
            (outcome, std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner)))
        })
    }

    fn migrate(&self, handover: Option<Handover>) -> Outcome {
        let report: Arc<dyn Report> = Arc::new(Silent);
        migrate(&self.host(0), self.request(handover), &report, &Cancel::default())
    }

    fn request(&self, handover: Option<Handover>) -> Request {
        Request {
            domid: DOMID,
            host: "127.0.0.2".into(),
            port: self.listeners[1].local_addr().expect("bound").port(),
            handover,
            shared_disks: Vec::new(),
            bridges: Vec::new(),
            dry_run: false,
            timeouts: Timeouts::default(),
        }
    }

    /// What the first host learns when it asks the other what it is like.
    pub(crate) fn asked(&self) -> Answer {
        let Host { node, state_dir, security, .. } = self.host(0);
        thread::scope(|scope| {
            let over = Over(&self.over);
            scope.spawn(|| self.listen(1));
            let port = self.listeners[1].local_addr().expect("bound").port();
            let answer = ask(Caller { node, state_dir, security }, ("127.0.0.2", port), REST_LIMIT, REST_LIMIT);
            drop(over);
            answer
        })
    }

    /// How the destination ends a session with a source that says KEPT although it has offered a single-primary handover.
    pub(crate) fn one_that_keeps(&self) -> Ended {
        let plan = preflight::draw(&self.host(0), self.request(Some(Handover::Single))).expect("nothing is wrong").plan;
        let mut memory = TcpStream::connect(self.listeners[1].local_addr().expect("bound")).expect("connects");
        let source = Channel::adopt(memory.try_clone().expect("cloned")).expect("adopts");
        thread::scope(|scope| {
            let (accepted, _) = poll_accept(&self.listeners[1]);
            let there = Channel::adopt(accepted).expect("adopts");
            let session = scope.spawn(move || {
                receive::session(&self.host(1), &there, receive::Timeouts::default(), &Cancel::default())
            });
            let (oldest, newest) = (VERSION_OLDEST, VERSION);
            let hello = Hello { oldest, newest, node: "node1".into(), program: "bascule".into() };
            source.send(hello, REST_LIMIT).expect("sent");
            source.receive(REST_LIMIT).expect("WELCOME");
            source.send(preflight::offer(&plan, 128 << 10), REST_LIMIT).expect("sent");
            source.receive(REST_LIMIT).expect("ANSWER");
            source.send(Stream {}, REST_LIMIT).expect("sent");
            memory.write_all(STREAM).expect("sent");
            source.send(Kept {}, REST_LIMIT).expect("sent");
            assert!(matches!(source.receive(REST_LIMIT), Ok(Message::Failed(_))));
            drop((source, memory));
            session.join().expect("no panic")
        })
    }

    /// The daemon's door: each connection is a process of its own.
    fn listen(&self, end: usize) {
        thread::scope(|scope| {
            while !self.over.load(Ordering::SeqCst) {
                match self.listeners[end].accept() {
                    Ok((stream, _)) => {
                        drop(scope.spawn(move || self.session(end, Channel::adopt(stream).expect("adopts"))))
                    }
                    Err(_) => thread::sleep(POLL),
                }
            }
        });
    }

    fn session(&self, end: usize, channel: Channel) {
        let host = self.host(end);
        let ended = living(|| receive::session(&host, &channel, receive::Timeouts::default(), &Cancel::default()));
        let was_question = matches!(&ended, Some(Ended::Answered(findings)) if findings.is_empty());
        if !was_question {
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).extend(ended);
        }
    }

    /// The daemon's care for orphans.
    fn adopt(&self, end: usize) {
        while !self.over.load(Ordering::SeqCst) {
            for listed in journal::unfinished(self.dirs[end].path()).expect("the journals can be read") {
                if !listed.held && listed.story.is_ok_and(|story| !story.is_done()) {
                    let mut patience = Patience::new(Some(Instant::now() + REST_LIMIT), &Cancel::default());
                    let host = Host { faults: &Faults::none(), ..self.host(end) };
                    recover(&host, listed.id, Timeouts::default(), &mut patience).expect("recovers");
                }
            }
            thread::sleep(POLL * 10);
        }
    }

    fn come_to_rest(&self) {
        let deadline = Instant::now() + REST_LIMIT;
        let open = |dir: &Path| !journal::unfinished(dir).expect("the journals can be read").is_empty();
        while self.dirs.iter().any(|dir| open(dir.path())) {
            assert!(Instant::now() < deadline, "it does not come to rest");
            thread::sleep(POLL);
        }
    }
}

fn poll_accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept() {
            Ok(accepted) => return accepted,
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// What the story is about is not who listens.
fn in_clear() -> Security {
    Security { in_clear: Nets(vec!["127.0.0.0/8".parse().expect("a network")]), ..Security::default() }
}

/// A port that is free on both addresses.
fn listen() -> [TcpListener; 2] {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = first.local_addr().expect("bound").port();
        if let Ok(second) = TcpListener::bind(("127.0.0.2", port)) {
            [&first, &second].into_iter().for_each(|end| end.set_nonblocking(true).expect("can be asked"));
            return [first, second];
        }
    }
}
