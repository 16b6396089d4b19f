//! Who comes to the relocation port without being a peer: refused, each with a line in the log, while a domain moves.

#![expect(clippy::print_stdout, reason = "the figures are a result")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bascule::config::Security;
use bascule::tls::{self, Fingerprint, Pin};
use bascule_lab::pair::{Pair, VM0};
use bascule_lab::{Order, lan};

use super::{VERIFY_LIMIT, on_the_encrypted_pair, text, whole};

const LOG: &str = "/var/log/bascule.log";
/// How long the daemon may take to be done with one who says nothing: its bound for authentication, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Connections at once.
const FLOOD: usize = 1000;

/// The lab's own networks and this machine, as the node sees it, may come.
const OPEN: &str = "[relocation]\nhosts-allow = ['10.99.0.0/24', '10.98.0.1', '10.0.2.2']\n";
const CLOSED: &str = "[relocation]\nhosts-allow = ['10.99.0.0/24']\n";

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn strangers_are_refused_and_the_migration_beside_them_goes_on() {
    on_the_encrypted_pair("strangers", |pair| {
        let since = lan::monotonic_now();
        pair.stop_serving(2)?;
        pair.serve_as_configured(2)?;
        pair.configure(2, OPEN)?;
        let port = pair.node(2).forward(8002)?;
        let door = Door { port, key: key_of(pair, 2)? };
        pair.create(VM0, 1)?;
        pair.lab().witness().ask(VM0.name, Order::Dirty(super::DIRTY_KIB_S), VERIFY_LIMIT)?;
        for (what, said, come) in visits() {
            let before = log_lines(pair)?;
            let answer = come(door).with_context(|| format!("{what} could not come"))?;
            ensure!(answer.len() <= ALERT_LEN, "{what} was told {answer:?}");
            pair.wait(what, || Ok(log_since(pair, before)?.contains(said)))?;
        }
        from_a_forbidden_address(pair, door)?;
        flood(pair)?;
        pair.check(VM0, 2)?;
        whole(pair, VM0, since)?;
        // As the other tests have it.
        pair.stop_serving(2)?;
        pair.serve(2)
    });
}

/// An alert record of TLS: five bytes, and two.
const ALERT_LEN: usize = 7;

/// Where they come to, and the key of who answers there.
#[derive(Clone, Copy)]
struct Door {
    port: SocketAddr,
    key: Fingerprint,
}

type Visit = fn(Door) -> anyhow::Result<Vec<u8>>;

/// What comes, a word of the line in the log, and how.
fn visits() -> [(&'static str, &'static str, Visit); 5] {
    [
        ("an unknown key", "is of no peer of this host", stranger),
        ("a client in clear", "is not TLS", in_clear),
        ("a client of TLS 1.2", "TLS failed", |door| say(door.port, &tls_1_2())),
        ("garbage", "is not TLS", |door| say(door.port, b"GET / HTTP/1.1\r\nHost: node2\r\n\r\n")),
        ("one who says little, slowly", "not in time", slowly),
    ]
}

/// Says it, and hears all that is answered.
fn say(port: SocketAddr, words: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut tcp = TcpStream::connect(port)?;
    tcp.write_all(words)?;
    hear(tcp)
}

fn hear(mut tcp: TcpStream) -> anyhow::Result<Vec<u8>> {
    tcp.set_read_timeout(Some(PATIENCE))?;
    let mut answer = Vec::new();
    match tcp.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            anyhow::bail!("it is not over after {PATIENCE:?}")
        }
        // The end is the end, also a reset.
        _ => Ok(answer),
    }
}

/// A byte of a long record every now and then.
fn slowly(door: Door) -> anyhow::Result<Vec<u8>> {
    let mut tcp = TcpStream::connect(door.port)?;
    tcp.write_all(&[22, 3, 1, 0x20, 0])?;
    let deadline = Instant::now() + PATIENCE;
    while tcp.write_all(&[1]).is_ok() {
        ensure!(Instant::now() < deadline, "it is not over after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(Vec::new())
}

fn tls_1_2() -> Vec<u8> {
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    let len = u8::try_from(hello.len()).unwrap_or_default();
    let mut record = vec![22, 3, 1, 0, len + 4, 1, 0, 0, len];
    record.extend(hello);
    record
}

/// It knows who answers: only the other end can refuse.
fn stranger(door: Door) -> anyhow::Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let pin = Pin { name: "node2".into(), address: "node2".into(), fingerprint: door.key, paired_at: UNKNOWN };
    pin.keep(dir.path())?;
    let security = Security { kernel_tls: false, ..Security::default() };
    let connected = tls::connect(&security, dir.path(), TcpStream::connect(door.port)?, PATIENCE);
    ensure!(connected.is_err(), "it was let in");
    Ok(Vec::new())
}

const UNKNOWN: jiff::Timestamp = jiff::Timestamp::UNIX_EPOCH;

fn key_of(pair: &Pair, nr: u8) -> anyhow::Result<Fingerprint> {
    let peers: serde_json::Value = serde_json::from_str(&pair.node(nr).ok("bascule peers --json")?)?;
    let key = peers["fingerprint"].as_str().context("no fingerprint")?;
    key.parse().map_err(anyhow::Error::msg)
}

fn in_clear(door: Door) -> anyhow::Result<Vec<u8>> {
    let tcp = TcpStream::connect(door.port)?;
    let listening = tcp.try_clone()?;
    bascule::transport::Channel::adopt(tcp)?.send(bascule::protocol::Query { id: uuid::Uuid::nil() }, PATIENCE)?;
    hear(listening)
}

/// The right key does not help who comes from elsewhere.
fn from_a_forbidden_address(pair: &Pair, door: Door) -> anyhow::Result<()> {
    pair.configure(2, CLOSED)?;
    let before = log_lines(pair)?;
    stranger(door)?;
    pair.wait("the refusal", || Ok(log_since(pair, before)?.contains("not an allowed host")))?;
    pair.configure(2, OPEN)
}

/// A thousand silent ones at once, from another address than the peer's, while the domain moves.
fn flood(pair: &Pair) -> anyhow::Result<()> {
    let (before, kib) = (log_lines(pair)?, resident_kib(pair)?);
    let port = format!("/dev/tcp/{}/8002", pair.node(2).replication_address());
    let connect = format!(
        "ulimit -n 4096; for n in $(seq {FLOOD}); do exec {{fd}}<>{port}; echo $n >/run/flood; done; sleep 600"
    );
    let flood = pair.node(1).spawn(&format!("exec bash -c '{connect}'"))?;
    let made = || Ok::<usize, anyhow::Error>(pair.node(1).run("cat /run/flood")?.stdout.trim().parse().unwrap_or(0));
    pair.wait("the first hundred", || Ok(made()? >= 100))?;
    let moved = pair.migrate(VM0, 1, "")?;
    pair.wait("the flood", || Ok(made()? == FLOOD))?;
    let (grown, lines) = (resident_kib(pair)?.saturating_sub(kib), log_lines(pair)? - before);
    flood.signal("KILL")?;
    ensure!(moved.success(), "{}", text(&moved));
    ensure!(grown < GROWTH_MAX_KIB, "the daemon has grown by {grown} KiB");
    ensure!(lines < FLOOD, "{lines} lines for {FLOOD} connections");
    println!("{FLOOD} connections: the daemon has grown by {grown} KiB and has logged {lines} lines");
    Ok(())
}

/// The daemon's memory that a flood may cost, in KiB.
const GROWTH_MAX_KIB: usize = 4096;

fn resident_kib(pair: &Pair) -> anyhow::Result<usize> {
    let status = pair.node(2).ok("cat /proc/$(pgrep -o -f '^bascule serve')/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn log_lines(pair: &Pair) -> anyhow::Result<usize> {
    Ok(pair.node(2).ok(&format!("wc -l <{LOG}"))?.trim().parse()?)
}

fn log_since(pair: &Pair, lines: usize) -> anyhow::Result<String> {
    pair.node(2).ok(&format!("tail -n +{} {LOG}", lines + 1))
}
