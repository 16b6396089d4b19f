//! What strangers do, and what it does to others: nothing.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bascule::daemon::Limits;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Tested;
use crate::client::{Crowd, Known, SOON, connect};
use crate::process::{Daemon, Use, wait};
use crate::stand_in::Setting;

/// How much more memory the daemon may hold after a flood than before.
const GROWTH_KIB_MAX: u64 = 4096;
/// How many lines a flood may make of one kind: five in five seconds, and their sum, for as long as the flood may take.
const LINES_MAX: usize = 60;

const FORBIDDEN: Ipv4Addr = Ipv4Addr::new(127, 200, 0, 1);
const HOSTILE: Ipv4Addr = Ipv4Addr::new(127, 0, 66, 6);
const PEER: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 2);

/// A daemon that has served before, so that what it keeps for good is counted as its own; with a session that lasts.
fn started(setting: &Setting) -> anyhow::Result<(Daemon, Use, Known)> {
    let daemon = Daemon::start(setting)?;
    for _ in 0..3 {
        Known::enter(daemon.address, OTHER)?.ping()?;
    }
    wait("the first sessions have ended", || Ok(daemon.workers()?.is_empty().then_some(())))?;
    let before = daemon.uses()?;
    let session = Known::enter(daemon.address, PEER)?;
    Ok((daemon, before, session))
}

/// Nothing of it is left, and the session still lives.
fn is_unharmed(daemon: &Daemon, before: Use, mut session: Known, kinds: &[&str]) -> Tested {
    session.ping()?;
    drop(session);
    Known::enter(daemon.address, OTHER)?.ping()?;
    daemon.await_quiet(before)?;
    let after = daemon.uses()?;
    ensure!(after.resident_kib <= before.resident_kib + GROWTH_KIB_MAX, "{before:?} became {after:?}");
    for kind in kinds {
        let (lines, _) = daemon.refusals(kind)?;
        ensure!(lines <= LINES_MAX, "{lines} lines of {kind:?}");
    }
    Ok(())
}

const NOT_ALLOWED: &str = "not an allowed host";
const CROWD: &str = "too many connections";
const PROOF: &str = "it did not prove";
const BUSY: &str = "too many sessions";

pub(crate) fn a_thousand_of_a_forbidden_host() -> Tested {
    let (daemon, before, mut session) = started(&Setting::default())?;
    let mut crowd = Crowd::of(daemon.address, [FORBIDDEN; 1000])?;
    session.ping()?;
    Known::enter(daemon.address, OTHER)?.ping()?;
    crowd.await_cut_off(0)?;
    daemon.await_refusals(NOT_ALLOWED, 1000)?;
    ensure!(daemon.workers()?.len() <= 2, "workers were started for a forbidden host");
    is_unharmed(&daemon, before, session, &[NOT_ALLOWED])
}

pub(crate) fn a_thousand_silent_ones_of_an_allowed_host() -> Tested {
    let setting = Setting::default();
    let Limits { sessions, half_open_per_address, .. } = setting.limits;
    let (daemon, before, mut session) = started(&setting)?;
    let mut crowd = Crowd::of(daemon.address, [HOSTILE; 1000])?;
    let mut workers = 0;
    while crowd.len() > half_open_per_address {
        session.ping()?;
        Known::enter(daemon.address, OTHER)?.ping()?;
        workers = workers.max(daemon.workers()?.len());
        crowd.look()?;
    }
    ensure!(workers <= sessions, "{workers} workers at one time, for silence");
    // The rest has had its time.
    crowd.await_cut_off(0)?;
    daemon.await_refusals(CROWD, 1000 - 2 * half_open_per_address)?;
    is_unharmed(&daemon, before, session, &[CROWD, PROOF])
}

/// The others are many hosts: who needs a place for a moment takes it from one of them.
pub(crate) fn a_thousand_of_many_addresses() -> Tested {
    let setting = Setting::default();
    let (daemon, before, mut session) = started(&setting)?;
    let addresses = (0..1000_u16).map(|n| {
        let [_, low] = (n / 4).to_be_bytes();
        Ipv4Addr::new(127, 0, 66, low)
    });
    for said in [&b""[..], b"i"] {
        let mut crowd = Crowd::of(daemon.address, addresses.clone())?;
        crowd.say(said);
        for _ in 0..5 {
            session.ping()?;
            enter_some_time(&daemon, OTHER)?;
            crowd.look()?;
        }
        crowd.await_cut_off(0)?;
    }
    is_unharmed(&daemon, before, session, &[CROWD, PROOF])
}

/// In the flood itself a place may be taken away again before its owner has spoken; it asks again.
fn enter_some_time(daemon: &Daemon, from: Ipv4Addr) -> Tested {
    wait("a peer that is known comes in", || {
        let entered = Known::try_enter(daemon.address, from);
        Ok(entered.ok().filter(|(_, answer)| answer == "welcome\n").map(drop))
    })
}

/// A slow one is cut off when its time is over, however busy it looks.
pub(crate) fn one_byte_a_second() -> Tested {
    let setting = Setting::default();
    let (daemon, before, mut session) = started(&setting)?;
    let since = Instant::now();
    let addresses = (0..20_u8).map(|n| Ipv4Addr::new(127, 0, 66, n));
    let mut crowd = Crowd::of(daemon.address, addresses)?;
    let mut second = Instant::now();
    while crowd.len() > 0 {
        ensure!(since.elapsed() < SOON, "{} are not cut off", crowd.len());
        if second.elapsed() >= Duration::from_secs(1) {
            crowd.say(b"i");
            second = Instant::now();
            session.ping()?;
            Known::enter(daemon.address, OTHER)?.ping()?;
        }
        crowd.look()?;
    }
    ensure!(since.elapsed() >= setting.limits.authentication, "cut off after {:?} already", since.elapsed());
    daemon.await_refusals(PROOF, 20)?;
    is_unharmed(&daemon, before, session, &[PROOF])
}

/// What fails at once has processes started no faster than what waits.
pub(crate) fn garbage_again_and_again() -> Tested {
    let setting = Setting::default();
    let (daemon, before, mut session) = started(&setting)?;
    let since = Instant::now();
    let mut count = 0;
    while since.elapsed() < Duration::from_secs(4) {
        let mut crowd = Crowd::of(daemon.address, [HOSTILE; 50])?;
        crowd.say(b"GET / HTTP/1.1\r\n\x1b[2J\n\xff\xff\xff\xff");
        session.ping()?;
        Known::enter(daemon.address, OTHER)?.ping()?;
        // Those that said nothing in time are cut off like all others.
        crowd.await_cut_off(0)?;
        count += 50;
    }
    daemon.await_refusals(CROWD, count / 2)?;
    let (_, processes) = daemon.refusals(PROOF)?;
    let seconds = usize::try_from(since.elapsed().as_secs())? + 2;
    let at_most = setting.limits.half_open_per_address * seconds;
    ensure!(processes <= at_most, "{processes} processes for {count} connections in {seconds} s");
    ensure!(!daemon.log()?.contains('\x1b'), "the peer writes to the terminal of whoever reads the log");
    is_unharmed(&daemon, before, session, &[CROWD, PROOF])
}

pub(crate) fn only_who_is_known_hears_that_there_is_no_room() -> Tested {
    let limits = Limits { sessions: 3, sessions_per_address: 2, ..Setting::default().limits };
    let daemon = Daemon::start(&Setting { limits, ..Setting::default() })?;
    let _first = Known::enter(daemon.address, PEER)?;
    let mut second = Known::enter(daemon.address, PEER)?;
    let (mut third, answer) = Known::try_enter(daemon.address, PEER)?;
    ensure!(answer == "busy\n" && third.line()?.is_empty(), "{answer:?}");
    let _other = Known::enter(daemon.address, OTHER)?;
    let (_, answer) = Known::try_enter(daemon.address, OTHER)?;
    ensure!(answer == "busy\n", "{answer:?}");
    daemon.await_refusals(BUSY, 2)?;
    let log = daemon.log()?;
    ensure!(log.contains("of its address (peer-127.0.1.1)") && log.contains("in all (peer-127.0.2.2)"), "{log}");
    let mut stranger = Crowd::of(daemon.address, [HOSTILE])?;
    stranger.say(b"who are you\n");
    stranger.await_cut_off(0)?;
    second.ping()
}

pub(crate) fn a_worker_that_dies_touches_no_other() -> Tested {
    let daemon = Daemon::start(&Setting::default())?;
    let mut lives = Known::enter(daemon.address, PEER)?;
    let before = daemon.workers()?;
    let mut aborts = Known::enter(daemon.address, OTHER)?;
    aborts.say("abort")?;
    ensure!(aborts.line()?.is_empty(), "an answer from a worker that aborts");
    wait("its end is noticed", || Ok((daemon.workers()? == before).then_some(())))?;
    let mut killed = Known::enter(daemon.address, OTHER)?;
    let worker = daemon.workers()?.into_iter().find(|pid| !before.contains(pid));
    kill(Pid::from_raw(worker.expect("a second worker")), Signal::SIGKILL)?;
    ensure!(killed.line()?.is_empty(), "an answer from a worker that was killed");
    lives.ping()?;
    wait("both ends are logged", || {
        let log = daemon.log()?;
        Ok((log.contains("SIGABRT") && log.contains("SIGKILL")).then_some(()))
    })?;
    Known::enter(daemon.address, OTHER)?.ping()
}

pub(crate) fn no_descriptor_left_is_no_reason_to_spin() -> Tested {
    let limits = Limits { half_open: 200, authentication: Duration::from_secs(600), ..Setting::default().limits };
    let daemon = Daemon::start(&Setting { limits, descriptors: 24 })?;
    let mut session = Known::enter(daemon.address, PEER)?;
    let addresses = (0..60_u8).map(|n| Ipv4Addr::new(127, 0, 66, n));
    let held: Vec<_> = addresses.map(|from| connect(daemon.address, from)).collect::<anyhow::Result<_>>()?;
    wait("no descriptor is left", || Ok((daemon.log()?.contains("Too many open files")).then_some(())))?;
    let (since, busy) = (Instant::now(), daemon.busy()?);
    std::thread::sleep(Duration::from_secs(3));
    let (busy, elapsed) = (daemon.busy()?.saturating_sub(busy), since.elapsed());
    ensure!(busy < elapsed / 3, "{busy:?} of {elapsed:?} were spent on nothing");
    session.ping()?;
    drop(held);
    enter_some_time(&daemon, OTHER)?;
    session.ping()
}

pub(crate) fn a_stopped_daemon_waits_for_sessions() -> Tested {
    let mut daemon = Daemon::start(&Setting::default())?;
    let mut session = Known::enter(daemon.address, PEER)?;
    let worker = daemon.workers()?[0];
    // It takes its time to end.
    kill(Pid::from_raw(worker), Signal::SIGSTOP)?;
    let mut stranger = Crowd::of(daemon.address, [HOSTILE])?;
    stranger.say(b"i");
    wait("the stranger has a worker", || Ok((daemon.workers()?.len() == 2).then_some(())))?;
    daemon.signal(Signal::SIGTERM)?;
    stranger.await_cut_off(0)?;
    wait("the port is closed", || Ok(connect(daemon.address, OTHER).is_err().then_some(())))?;
    wait("the strangers' workers have ended", || Ok((daemon.workers()?.len() < 2).then_some(())))?;
    ensure!(daemon.workers()? == [worker], "the daemon has not waited");
    kill(Pid::from_raw(worker), Signal::SIGCONT)?;
    ensure!(session.line()?.is_empty(), "the session goes on");
    ensure!(daemon.ended()?.success(), "{}", daemon.log()?);
    Ok(())
}
