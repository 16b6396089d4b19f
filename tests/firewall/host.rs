//! The host and the others: two network namespaces, each on a thread of its own.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bascule::firewall::{Fate, Needs, Peer, Peers, Report, check};
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};

pub(crate) const PORT: u16 = 8002;
/// Who tries: two of IPv4, two of IPv6.
pub(crate) const ADDRESSES: [&str; 4] = ["10.77.0.2", "10.77.200.3", "fd77::2", "fd77:0:0:200::3"];
/// The host, as those of each family see it.
const HOST: [&str; 4] = ["10.77.0.1", "10.77.0.1", "fd77::1", "fd77::1"];
/// How long a connection that should come through may take.
const ACCEPTED_MAX: Duration = Duration::from_secs(30);
/// How long one that should not is waited for.
const DROPPED_MIN: Duration = Duration::from_millis(1200);

/// The thread that the test runs on is in the host's namespace from now on.
pub(crate) struct Host {
    _listener: TcpListener,
    tries: Option<Sender<(SocketAddr, IpAddr, Duration)>>,
    outcomes: Receiver<bool>,
    others: Option<JoinHandle<()>>,
}

impl Host {
    pub(crate) fn new() -> Host {
        let (tries, wanted) = channel();
        let (told, outcomes) = channel();
        let (ready, thread_id) = channel();
        let (go, linked) = channel();
        let others = std::thread::spawn(move || others(&ready, &linked, &wanted, &told));
        unshare(CloneFlags::CLONE_NEWNET).expect("root");
        let thread_id: i32 = thread_id.recv().expect("the others' namespace");
        run("ip", &["link", "add", "wire", "type", "veth", "peer", "name", "eth7", "netns", &thread_id.to_string()]);
        set_up("wire", &["10.77.0.1/16", "fd77::1/32"]);
        go.send(()).expect("the others");
        assert!(outcomes.recv().expect("the others' link"));
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("a listener");
        Host { _listener: listener, tries: Some(tries), outcomes, others: Some(others) }
    }

    /// Whether each of [`ADDRESSES`] is let in: what is said, what is so, and what was expected, a letter each: `+`, `-`, or `?`.
    /// What cannot be told is not tried.
    pub(crate) fn compare(&self, expected: &str, rules: &str) {
        let report = check(&needs(&ADDRESSES)).expect("the rules are read");
        let said: String = (0..4).map(|at| letter(fate(&report, at))).collect();
        assert_eq!(said, expected, "of\n{rules}\n{report:#?}");
        let real: String = (0..4).map(|at| self.real(at, said.as_bytes()[at])).collect();
        assert_eq!(said, real, "of\n{rules}\n{report:#?}");
    }

    fn real(&self, at: usize, said: u8) -> char {
        match said {
            b'?' => '?',
            b'+' if self.connects(at, ACCEPTED_MAX) => '+',
            b'-' if self.connects(at, DROPPED_MIN) => '+',
            _ => '-',
        }
    }

    pub(crate) fn connects(&self, at: usize, wait: Duration) -> bool {
        let [to, from]: [IpAddr; 2] = [HOST[at], ADDRESSES[at]].map(|address| address.parse().expect("an address"));
        self.tries.as_ref().expect("alive").send((SocketAddr::new(to, PORT), from, wait)).expect("the others");
        self.outcomes.recv().expect("an outcome")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.tries = None;
        let ended = self.others.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

/// The thread of the others: gets its link, then tries what it is told.
fn others(
    ready: &Sender<i32>,
    linked: &Receiver<()>,
    wanted: &Receiver<(SocketAddr, IpAddr, Duration)>,
    told: &Sender<bool>,
) {
    unshare(CloneFlags::CLONE_NEWNET).expect("root");
    ready.send(nix::unistd::gettid().as_raw()).expect("the host");
    if linked.recv().is_err() {
        return; // the host has failed, and says so
    }
    set_up("eth7", &["10.77.0.2/16", "10.77.200.3/16", "fd77::2/32", "fd77:0:0:200::3/32"]);
    told.send(true).expect("the host");
    for (to, from, wait) in wanted {
        told.send(connect(to, from, wait).is_ok()).expect("the host");
    }
}

fn set_up(link: &str, addresses: &[&str]) {
    for address in addresses {
        let family = if address.contains(':') { "-6" } else { "-4" };
        let mut words = vec![family, "address", "add", address, "dev", link];
        words.extend(address.contains(':').then_some("nodad"));
        run("ip", &words);
    }
    run("ip", &["link", "set", link, "up"]);
    run("ip", &["link", "set", "lo", "up"]);
}

fn connect(to: SocketAddr, from: IpAddr, wait: Duration) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), wait)
}

/// Each of these a peer.
pub(crate) fn needs(peers: &[&str]) -> Needs {
    let peer = |text: &&str| {
        let address: IpAddr = text.parse().expect("an address");
        Peer { name: (*text).to_owned(), nets: vec![address.into()] }
    };
    let peers = Peers { known: peers.iter().map(peer).collect(), ..Peers::default() };
    Needs { port: PORT, listen: Vec::new(), peers }
}

fn fate(report: &Report, at: usize) -> Fate {
    let name = Some(ADDRESSES[at].to_owned());
    report.rows.iter().find(|row| row.peer == name).expect("a row").fate
}

fn letter(fate: Fate) -> char {
    match fate {
        Fate::Accepted => '+',
        Fate::Dropped => '-',
        Fate::CannotTell => '?',
    }
}

/// Runs a program of the host's.
pub(crate) fn run(program: &str, words: &[&str]) {
    feed(program, words, "");
}

/// Loads a ruleset. This nft wants the end of a block at the end of a line.
pub(crate) fn load(rules: &str) {
    let rules = rules.replace("}}", "} }").replace("} } }", "}\n}\n}").replace("} }", "}\n}");
    feed("nft", &["-f", "-"], &format!("{rules}\n"));
}

/// Runs one, with something on its standard input.
pub(crate) fn feed(program: &str, words: &[&str], input: &str) {
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}\n{input}", words.join(" "));
}
