//! The destination's sessions, driven by whatever a source may send, on a stand-in for Xen and DRBD: no order of messages starts a domain
//! that was not handed over, a proper one does, and in the end nothing is left behind.
//!
//! The input is a [`script`]: what comes on one connection after the other, what fails on this host, and what the source's daemon says.

mod daemon;
mod host;
mod script;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bascule::config::{Guests, Security};
use bascule::daemon::Nets;
use bascule::ends::Patience;
use bascule::fault::Faults;
use bascule::host::Host;
use bascule::journal;
use bascule::plan;
use bascule::protocol::{self, HEADER_LEN, Header, Message};
use bascule::receive::{self, Ended};
use bascule::recover::recover;
use bascule::stream::Cancel;
use bascule::transport::Channel;
use socket2::SockRef;
use tempfile::TempDir;

use self::daemon::Daemon;
use self::host::StandIn;
use self::script::{Connection, Script};

static DOOR: LazyLock<TcpListener> = LazyLock::new(|| TcpListener::bind("127.0.0.1:0").expect("a port"));
static DAEMON: LazyLock<Daemon> = LazyLock::new(Daemon::start);

/// Longer than any recovery with a source that answers takes.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// Recoveries that each meet one thing that fails.
const RECOVERIES_MAX: usize = 8;

pub(crate) fn run(bytes: &[u8]) {
    let script = Script::read(bytes, DAEMON.port);
    let place = Place::new(&script);
    for connection in &script.connections {
        place.serve(&script, connection);
    }
    place.recover();
    place.check_rest();
}

/// A host in directories of its own.
struct Place {
    dir: TempDir,
    here: StandIn,
    security: Security,
    guests: Guests,
    faults: Faults,
}

impl Place {
    fn new(script: &Script) -> Place {
        let dir = crate::memory_dir().expect("a directory");
        let here = StandIn::new(dir.path(), &script.faults);
        Place { dir, here, security: in_clear(), guests: Guests::default(), faults: Faults::none() }
    }

    fn host(&self) -> Host<'_> {
        Host {
            toolstack: &self.here,
            replication: &self.here,
            node: "node2",
            run_dir: self.dir.path(),
            state_dir: self.dir.path(),
            history_max: journal::KEPT,
            security: &self.security,
            guests: &self.guests,
            faults: &self.faults,
        }
    }

    /// One session, all of whose input is there when it begins, and ends there.
    fn serve(&self, script: &Script, connection: &Connection) {
        let ran_before = self.here.runs();
        let cancel = Cancel::default();
        DAEMON.say(&connection.answers, &cancel);
        self.here.begin(connection.stays_primary);
        let (mut source, channel) = connected();
        source.write_all(&connection.bytes()).expect("the kernel holds it all");
        source.shutdown(Shutdown::Write).expect("connected");
        let ended = receive::session(&self.host(), &channel, receive::Timeouts::default(), &cancel);
        let heard = heard(source);
        if self.here.runs() && !ran_before {
            assert!(connection.may_start(), "started without GO: {connection:?}");
            assert!(matches!(ended, Ended::Moved(_) | Ended::Left(_)), "{ended:?}");
        }
        if !ran_before && script.must_move(connection) {
            assert!(matches!(ended, Ended::Moved(_)), "{ended:?} of {connection:?}");
        }
        check_answers(&heard, self.here.runs());
    }

    /// What a daemon does with what is left; the source has no such migration.
    fn recover(&self) {
        let ran_before = self.here.runs();
        DAEMON.say(&[], &Cancel::default());
        self.here.begin(false);
        for _ in 0..RECOVERIES_MAX {
            for listed in journal::unfinished(self.dir.path()).expect("our journals") {
                let story = listed.story.expect("what we wrote");
                assert!(!listed.held, "{story:?} is held");
                let mut patience = Patience::new(Some(Instant::now() + RECOVERY_MAX), &Cancel::default());
                let recovered = recover(&self.host(), listed.id, plan::Timeouts::default(), &mut patience);
                drop(recovered); // what still fails here does so once
            }
        }
        assert_eq!(self.here.runs(), ran_before, "a recovery has started or ended the domain");
    }

    fn check_rest(&self) {
        self.here.check_rest();
        assert!(journal::unfinished(self.dir.path()).expect("our journals").is_empty(), "a journal is left open");
        let names = std::fs::read_dir(self.dir.path()).expect("our directory").flatten().map(|entry| entry.file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("migration-")).collect();
        assert!(left.is_empty(), "{left:?} are left");
    }
}

/// Nothing here is about what protects a connection.
fn in_clear() -> Security {
    Security { in_clear: Nets(vec!["127.0.0.0/8".parse().expect("a network")]), ..Security::default() }
}

/// The source's end of a connection, and ours.
fn connected() -> (TcpStream, Channel) {
    let source = TcpStream::connect(DOOR.local_addr().expect("bound")).expect("connects");
    let (accepted, _) = DOOR.accept().expect("accepts");
    (source, Channel::adopt(accepted).expect("adopts"))
}

/// Everything that the session said. The connection goes without the wait that follows a proper end: there are too many of them.
fn heard(mut source: TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    drop(source.read_to_end(&mut heard)); // what came before an error counts
    drop(SockRef::from(&source).set_linger(Some(Duration::ZERO)));
    heard
}

/// What the destination says is the destination's to say, each at most once, and STARTED is true.
fn check_answers(mut heard: &[u8], runs: bool) {
    let mut said = Vec::new();
    while let Some((header, rest)) = heard.split_first_chunk::<HEADER_LEN>() {
        let header = Header::parse(*header).expect("our frame");
        let (payload, rest) = rest.split_at_checked(header.len).expect("a whole frame");
        let message = protocol::decode(header, payload).expect("our message");
        assert!(header.kind.is_multiple_of(2) && !said.contains(&header.kind), "{message:?} at this place");
        assert!(!matches!(message, Message::Started(_)) || runs, "STARTED, and it does not run");
        said.push(header.kind);
        heard = rest;
    }
}
