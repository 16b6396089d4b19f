//! A pretended host, for what is decided and in which order; it stands for neither Xen nor DRBD.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::admission::{Record, Side};
use crate::journal::{Done, Head, Journal, Peer};
use crate::protocol::Handover;
use crate::xen::domain::{Flags, Kind, ShutdownReason};

const VM: Uuid = Uuid::from_u128(7);
const OTHER: Uuid = Uuid::from_u128(8);
const FIVE: DomId = DomId(5);

/// Domains by number; what was done to them, in order.
struct Pretended {
    dir: tempfile::TempDir,
    domains: RefCell<BTreeMap<DomId, DomainInfo>>,
    config: serde_json::Value,
    done: RefCell<Vec<String>>,
    /// Called while a domain is being made.
    while_making: Box<dyn Fn(&Path)>,
    cannot_make: bool,
    xl: Cell<bool>,
}

impl Pretended {
    fn new(config: serde_json::Value) -> Pretended {
        Pretended {
            dir: tempfile::tempdir().unwrap(),
            domains: RefCell::default(),
            config,
            done: RefCell::default(),
            while_making: Box::new(|_| {}),
            cannot_make: false,
            xl: Cell::new(false),
        }
    }

    /// A host with domain 5, called so, that has shut down for this reason, and its record.
    fn with(name: &str, shutdown: Option<ShutdownReason>) -> Pretended {
        let config = json!({ "on_poweroff": "destroy", "on_reboot": "restart", "on_crash": "preserve" });
        let host = Pretended::new(config);
        host.put(FIVE, name, VM, shutdown);
        announce(host.run_dir(), FIVE, VM).unwrap();
        host
    }

    fn put(&self, domid: DomId, name: &str, uuid: Uuid, shutdown: Option<ShutdownReason>) {
        let state = match shutdown {
            None => RunState::Running,
            Some(ShutdownReason::Suspend) => RunState::Suspended,
            Some(_) => RunState::Shutdown,
        };
        let (memory_kib, memory_max_kib, vcpus, cpu_time) = (1, 1, 1, Duration::ZERO);
        let domain = Domain { domid, name: name.into(), uuid, state, memory_kib, memory_max_kib, vcpus, cpu_time };
        let flags =
            Flags { running: false, blocked: false, paused: false, shutdown: false, crashed: false, dying: false };
        self.domains.borrow_mut().insert(domid, DomainInfo { domain, kind: Kind::Pv, flags, shutdown });
    }

    fn run_dir(&self) -> &Path {
        self.dir.path()
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn done(&self) -> Vec<String> {
        self.done.take()
    }

    /// Lets one look at the domain happen, by a process of its own.
    fn treat(&self, steps: impl FnOnce(&mut Watch<'_>)) {
        let (state_dir, xl) = (self.state_dir(), |_: DomId, _: &str| self.xl.get());
        let watcher = Watcher { domains: self, run_dir: self.run_dir(), state_dir: &state_dir, xl: &xl };
        let post = Post::take(self.run_dir(), FIVE).unwrap().unwrap();
        let since = Instant::now();
        steps(&mut Watch { watcher: &watcher, post, since, ended_at: None, short_lives: 0, waits: false });
    }

    /// The whole watch over domain 5, which must end by itself.
    fn watch(&self) {
        let (state_dir, xl) = (self.state_dir(), |_: DomId, _: &str| self.xl.get());
        let watcher = Watcher { domains: self, run_dir: self.run_dir(), state_dir: &state_dir, xl: &xl };
        watch(&watcher, FIVE, &Cancel::default()).unwrap();
    }

    fn journal(&self, side: Side, records: impl IntoIterator<Item = journal::Record>) -> Journal {
        let peer = Peer { host: "node2".into(), port: 8002, node: "node2".into() };
        let head = Head {
            format: journal::FORMAT,
            id: Uuid::new_v4(),
            side,
            name: "vm".into(),
            uuid: VM,
            domid: Some(FIVE).filter(|_| side == Side::Outgoing),
            peer,
            handover: Handover::Single,
            volumes: Vec::new(),
            boot: journal::this_boot(),
            pid: 1,
            program: "test".into(),
        };
        let mut journal = Journal::create(&self.state_dir(), head).unwrap();
        records.into_iter().for_each(|record| journal.append(record).unwrap());
        journal
    }

    fn log(&self, deed: impl Into<String>) {
        self.done.borrow_mut().push(deed.into());
    }
}

impl Domains for Pretended {
    fn look(&self, domid: DomId) -> Result<Option<DomainInfo>, Error> {
        Ok(self.domains.borrow().get(&domid).cloned())
    }

    fn exists(&self, config: &DomainConfig) -> Result<bool, Error> {
        Ok(self.domains.borrow().values().any(|info| info.domain.name == config.name()))
    }

    fn await_end(&self, domid: DomId, _: Instant) -> Result<Option<Ended>, Error> {
        match self.look(domid)? {
            None => Ok(Some(Ended::Gone)),
            Some(info) if info.shutdown == Some(ShutdownReason::Suspend) => Ok(None),
            Some(info) => Ok(info.shutdown.map(Ended::Shutdown)),
        }
    }

    fn stored(&self, _: DomId) -> Result<DomainConfig, Error> {
        let mut config = self.config.clone();
        config["c_info"] = json!({ "name": "vm--incoming", "uuid": VM.to_string() });
        Ok(DomainConfig::from_json(&config.to_string())?)
    }

    fn end(&self, domid: DomId) -> Result<(), Error> {
        self.log(format!("end {domid}"));
        self.domains.borrow_mut().remove(&domid);
        Ok(())
    }

    fn make(&self, config: &DomainConfig, notice: &mut (dyn FnMut(DomId) + Send)) -> Result<DomId, Error> {
        self.log(format!("make {}", config.name()));
        (self.while_making)(self.run_dir());
        if self.cannot_make {
            return Err("the peer is Primary".into());
        }
        let domid = DomId(6);
        notice(domid);
        self.put(domid, config.name(), VM, None);
        Ok(domid)
    }

    fn run(&self, domid: DomId) -> Result<(), Error> {
        self.log(format!("run {domid}"));
        Ok(())
    }

    fn preserve(&self, domid: DomId, _: &DomainConfig, _: &str) -> Result<(), Error> {
        self.log(format!("preserve {domid}"));
        Ok(())
    }

    fn dump(&self, domid: DomId, file: &Path) -> Result<(), Error> {
        self.log(format!("dump {domid} {}", file.display()));
        Err("no room".into())
    }

    fn soft_reset(&self, domid: DomId, _: &DomainConfig) -> Result<(), Error> {
        self.log(format!("reset {domid}"));
        Ok(())
    }
}

#[test]
fn a_domain_that_reboots_is_started_anew_under_its_own_name_and_watched_on() {
    let host = Pretended::with("vm", Some(ShutdownReason::Reboot));
    host.treat(|watch| {
        assert_eq!(watch.treat().unwrap(), Next::Runs);
        assert_eq!(watch.post.domid(), DomId(6));
        assert!(is_watched(host.run_dir(), DomId(6)) && !is_watched(host.run_dir(), FIVE));
        assert_eq!(watch.await_end(Instant::now()).unwrap(), Next::Runs);
    });
    assert_eq!(host.done(), ["end 5", "make vm", "run 6"]);
}

#[test]
fn a_domain_that_powers_off_is_destroyed_and_nothing_is_left() {
    let host = Pretended::with("vm", Some(ShutdownReason::Poweroff));
    host.watch();
    assert_eq!(host.done(), ["end 5"]);
    assert!(unwatched(host.run_dir()).unwrap().is_empty());
}

#[test]
fn a_domain_that_shall_be_preserved_stays_and_is_not_watched_any_more() {
    let host = Pretended::with("vm", Some(ShutdownReason::Crash));
    host.watch();
    assert!(host.done().is_empty() && unwatched(host.run_dir()).unwrap().is_empty());
}

#[test]
fn memory_that_cannot_be_written_keeps_no_domain_down() {
    let host = Pretended {
        config: json!({ "on_crash": "coredump_restart" }),
        ..Pretended::with("vm", Some(ShutdownReason::Crash))
    };
    host.treat(|watch| assert_eq!(watch.treat().unwrap(), Next::Runs));
    assert_eq!(host.done(), ["dump 5 /var/lib/xen/dump/vm", "end 5", "make vm", "run 6"]);
}

#[test]
fn rename_restart_and_soft_reset_are_done_without_destroying() {
    let crashed = || Pretended::with("vm", Some(ShutdownReason::Crash));
    for (word, expected) in [
        ("restart_rename", ["preserve 5", "make vm", "run 6"].as_slice()),
        ("soft_reset", ["reset 5", "run 5"].as_slice()),
    ] {
        let host = Pretended { config: json!({ "on_crash": word }), ..crashed() };
        host.treat(|watch| assert_eq!(watch.treat().unwrap(), Next::Runs));
        assert_eq!(host.done(), expected, "{word}");
    }
}

/// I1, I3: the migration takes the domain back, or gives it up; until that is over nobody else touches it.
#[test]
fn a_guest_that_reboots_while_it_is_migrated_is_left_to_the_migration() {
    let host = Pretended::with("vm", Some(ShutdownReason::Reboot));
    let migration = Record::open(host.run_dir(), Uuid::new_v4(), Side::Outgoing, "vm", &[]).unwrap();
    let mut journal = host.journal(Side::Outgoing, []);
    host.treat(|watch| {
        assert_eq!(watch.treat().unwrap(), Next::Look);
        drop(migration);
        assert_eq!(watch.treat().unwrap(), Next::Look, "the journal alone keeps it, too");
        assert!(host.done().is_empty());
        let (outcome, reason) = (Done::Failed, "it rebooted".into());
        journal.append(journal::Record::Done { outcome, reason, receipt: None }).unwrap();
        assert_eq!(watch.treat().unwrap(), Next::Runs);
    });
    assert_eq!(host.done(), ["end 5", "make vm", "run 6"]);
}

/// I2: from GO on the domain is the other host's, until that has said that it is not.
#[test]
fn a_journal_that_nobody_works_on_keeps_the_domain_at_every_stage_before_its_end() {
    let samples = Vec::new;
    let released = || journal::Record::Released { handover: Handover::Single, samples: samples() };
    let returned = || journal::Record::Returned { reason: String::new(), peer_aborted: true };
    let ready = || journal::Record::Ready { domid: FIVE, samples: samples() };
    let copy = || journal::Record::Copy { domid: FIVE };
    let rows = [
        (Side::Outgoing, vec![]),
        (Side::Outgoing, vec![released()]),
        (Side::Outgoing, vec![released(), journal::Record::Go]),
        (Side::Outgoing, vec![released(), journal::Record::Go, returned()]),
        (Side::Incoming, vec![copy(), ready()]),
        (Side::Incoming, vec![copy(), ready(), journal::Record::Held]),
        (Side::Incoming, vec![copy(), ready(), journal::Record::Owned]),
    ];
    for (side, records) in rows {
        let host = Pretended::with("vm", Some(ShutdownReason::Reboot));
        drop(host.journal(side, records.clone()));
        host.treat(|watch| assert_eq!(watch.treat().unwrap(), Next::Look, "{side} {records:?}"));
        assert!(host.done().is_empty(), "{side} {records:?}");
    }
}

/// The source's host may be dead, and the journal stays open until it is back: a guest that reboots meanwhile does not wait for that.
#[test]
fn a_domain_that_has_run_at_its_destination_is_that_hosts() {
    let host = Pretended::with("vm", Some(ShutdownReason::Reboot));
    let ready = journal::Record::Ready { domid: FIVE, samples: Vec::new() };
    let copy = journal::Record::Copy { domid: FIVE };
    drop(host.journal(Side::Incoming, [copy, ready, journal::Record::Owned, journal::Record::Started]));
    host.treat(|watch| assert_eq!(watch.treat().unwrap(), Next::Runs));
    assert_eq!(host.done(), ["end 5", "make vm", "run 6"]);
}

#[test]
fn a_copy_that_arrives_or_was_moved_away_is_never_touched() {
    for name in ["vm--incoming", "vm--migratedaway"] {
        for reason in [ShutdownReason::Reboot, ShutdownReason::Crash, ShutdownReason::Poweroff, ShutdownReason::Suspend]
        {
            let host = Pretended::with(name, Some(reason));
            host.treat(|watch| assert_eq!(watch.treat().unwrap(), Next::Look, "{name} {reason:?}"));
            assert!(host.done().is_empty(), "{name} {reason:?}");
        }
    }
}

#[test]
fn a_suspended_domain_is_watched_on_and_not_touched() {
    let host = Pretended::with("vm", Some(ShutdownReason::Suspend));
    host.treat(|watch| assert_eq!(watch.await_end(Instant::now()).unwrap(), Next::Runs));
    assert!(host.done().is_empty());
}

/// Whoever has the domain's name goes on; the other is refused.
#[test]
fn a_migration_that_begins_while_the_domain_is_started_anew_is_refused() {
    let host = Pretended {
        while_making: Box::new(|run_dir| {
            for side in [Side::Outgoing, Side::Incoming] {
                let refused = Record::open(run_dir, Uuid::new_v4(), side, "vm", &[]).unwrap_err().to_string();
                assert!(refused.contains("started anew") && refused.contains("try again"), "{refused}");
            }
            assert!(admission::open_migrations(run_dir).unwrap().is_empty(), "it is none");
        }),
        ..Pretended::with("vm", Some(ShutdownReason::Reboot))
    };
    host.treat(|watch| assert_eq!(watch.treat().unwrap(), Next::Runs));
    Record::open(host.run_dir(), Uuid::new_v4(), Side::Outgoing, "vm", &[]).unwrap();
}

#[test]
fn while_xls_own_process_is_there_the_domain_is_xls() {
    let host = Pretended::with("vm", Some(ShutdownReason::Reboot));
    host.xl.set(true);
    host.treat(|watch| {
        assert_eq!(watch.treat().unwrap(), Next::Look);
        assert!(host.done().is_empty());
        host.xl.set(false);
        assert_eq!(watch.treat().unwrap(), Next::Runs);
    });
    assert_eq!(host.done(), ["end 5", "make vm", "run 6"]);
}

#[test]
fn another_domain_with_the_same_number_is_not_touched() {
    let host = Pretended::with("vm", None);
    host.put(FIVE, "other", OTHER, Some(ShutdownReason::Reboot));
    host.watch();
    assert!(host.done().is_empty() && unwatched(host.run_dir()).unwrap().is_empty());
}

#[test]
fn a_domain_that_somebody_destroys_is_not_started_anew() {
    let host = Pretended::with("vm", None);
    host.domains.borrow_mut().clear();
    host.watch();
    assert!(host.done().is_empty() && unwatched(host.run_dir()).unwrap().is_empty());
}

#[test]
fn a_domain_that_cannot_be_started_anew_is_given_up() {
    let host = Pretended { cannot_make: true, ..Pretended::with("vm", Some(ShutdownReason::Reboot)) };
    host.watch();
    assert_eq!(host.done(), ["end 5", "make vm"]);
    assert!(unwatched(host.run_dir()).unwrap().is_empty());
}

#[test]
fn a_wish_to_stop_leaves_the_record_to_the_next() {
    let host = Pretended::with("vm", Some(ShutdownReason::Reboot));
    let stop = Cancel::default();
    stop.cancel();
    let (state_dir, xl) = (host.state_dir(), |_: DomId, _: &str| false);
    let watcher = Watcher { domains: &host, run_dir: host.run_dir(), state_dir: &state_dir, xl: &xl };
    watch(&watcher, FIVE, &stop).unwrap();
    assert!(host.done().is_empty());
    assert_eq!(unwatched(host.run_dir()).unwrap(), [FIVE]);
}

/// A process was killed between destroying and making: the next goes on, if nothing has changed meanwhile.
#[test]
fn an_interrupted_restart_is_gone_on_with_by_the_next() {
    let interrupted = || {
        let host = Pretended::with("vm", None);
        host.domains.borrow_mut().clear();
        let config = json!({ "c_info": { "name": "vm", "uuid": VM.to_string() } });
        Post::take(host.run_dir(), FIVE).unwrap().unwrap().note_restart(&config).unwrap();
        host
    };
    let host = interrupted();
    host.treat(|watch| assert_eq!(watch.resume().unwrap(), Next::Runs));
    assert_eq!(host.done(), ["make vm", "run 6"]);

    // One that is still there goes on, when it is known what the killed process has left of it.
    let host = Pretended::with("vm", None);
    let config = json!({ "c_info": { "name": "vm", "uuid": VM.to_string() } });
    Post::take(host.run_dir(), FIVE).unwrap().unwrap().note_restart(&config).unwrap();
    let left = Record::act(host.run_dir(), Act::Settle, "vm").unwrap();
    let seen_to = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(left);
    });
    let begun = Instant::now();
    host.treat(|watch| assert_eq!(watch.resume().unwrap(), Next::Runs));
    assert!(begun.elapsed() >= Duration::from_millis(50), "it was not waited for");
    seen_to.join().unwrap();
    assert!(host.done().is_empty());
    host.treat(|watch| assert_eq!(watch.post.watched().restart, None));

    let refused = |change: &dyn Fn(&Pretended) -> Box<dyn std::any::Any>| {
        let host = interrupted();
        let _kept = change(&host);
        host.treat(|watch| assert_eq!(watch.resume().unwrap(), Next::Over));
        assert!(host.done().is_empty());
    };
    refused(&|host| {
        host.put(DomId(9), "vm", VM, None);
        Box::new(())
    });
    refused(&|host| Box::new(host.journal(Side::Incoming, [])));
    refused(&|host| Box::new(Record::open(host.run_dir(), Uuid::new_v4(), Side::Incoming, "vm", &[]).unwrap()));
}

#[test]
fn short_lives_are_followed_by_longer_and_longer_pauses() {
    let pauses: Vec<u64> = (0..8).map(|lives| pause_after(lives).as_secs()).collect();
    assert_eq!(pauses, [0, 2, 4, 8, 16, 32, 60, 60]);
    let host = Pretended::with("vm", Some(ShutdownReason::Reboot));
    host.treat(|watch| {
        watch.short_lives = 1;
        assert_eq!(watch.treat().unwrap(), Next::Look, "its second short life in a row");
        watch.ended_at = watch.ended_at.map(|at| at - PAUSE_MIN);
        watch.since -= PAUSE_MIN;
        assert_eq!(watch.treat().unwrap(), Next::Runs);
        assert_eq!(watch.short_lives, 2);
    });
    assert_eq!(host.done(), ["end 5", "make vm", "run 6"]);
}
