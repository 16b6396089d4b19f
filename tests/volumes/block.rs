//! The disk hotplug program, with xenstore in memory.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bascule::admission::{Handover, Record, Side};
use bascule::dm::DeviceNumber;
use bascule::hotplug::block::{Call, Error};
use bascule::hotplug::{Backend, chain};
use bascule::ids::Minor;
use bascule::journal::{self, Head, Journal, JournaledVolume, Peer};
use bascule::layer::Layer;
use drbd_nl::Role;
use tempfile::TempDir;
use uuid::Uuid;

use crate::nodes::Memory;
use crate::pair;
use crate::{Hosts, roles, soon, volume};

const SECONDARY: (Role, Role) = (Role::Secondary, Role::Secondary);

/// A host's xenstore and its folder of open migrations.
struct Host {
    nodes: Memory,
    dir: TempDir,
}

impl Host {
    fn new() -> Host {
        let host = Host { nodes: Memory::default(), dir: tempfile::tempdir_in("/run").unwrap() };
        host.configure(&format!("[state]\ndir = {:?}", host.dir.path()));
        host
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.dir.path().join(CONFIG), text).unwrap();
    }

    fn add(&self, backend: &str) -> Result<(), Error> {
        call(&self.nodes, self.dir.path(), backend).add()
    }

    fn remove(&self, backend: &str) -> Result<(), Error> {
        call(&self.nodes, self.dir.path(), backend).remove()
    }

    fn record(&self, side: Side) -> Record {
        Record::open(self.dir.path(), Uuid::new_v4(), side, "vm", &[volume()]).unwrap()
    }
}

fn call<'a>(nodes: &'a Memory, dir: &Path, backend: &'a str) -> Call<'a> {
    Call::new(Backend::new(nodes, backend).unwrap(), dir, &dir.join(CONFIG))
}

/// The configuration's name.
const CONFIG: &str = "bascule.toml";

/// Opens what the program has announced, as blkback does.
fn open(host: &Host, backend: &str) -> File {
    let hex = host.nodes.get(&format!("{backend}/physical-device")).unwrap();
    let device = DeviceNumber::from_hex(&hex).unwrap();
    let path = host.nodes.get(&format!("{backend}/physical-device-path")).unwrap();
    assert_eq!(path, format!("/dev/dm-{}", device.minor));
    File::options().read(true).write(true).open(path).unwrap()
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_disk_is_attached_and_detached() {
    let mut pair = Hosts::connected();
    let host = Host::new();
    let backend = host.nodes.with_disk(3, "vm", "drbd:r0/0");
    host.add(&backend).unwrap();
    assert_eq!(roles(&mut pair), (Role::Primary, Role::Secondary));
    let user = open(&host, &backend);
    host.add(&backend).unwrap();
    let closing = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        drop(user);
    });
    host.remove(&backend).unwrap();
    closing.join().unwrap();
    assert_eq!(roles(&mut pair), SECONDARY);
    assert!(Layer::find(&volume()).unwrap().is_none());
    host.remove(&backend).unwrap();
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_second_domain_on_this_host_is_refused_and_takes_nothing_away() {
    let mut pair = Hosts::connected();
    let host = Host::new();
    let first = host.nodes.with_disk(3, "vm", "r0/0");
    host.add(&first).unwrap();
    // Before the first one's backend has opened it, and after.
    for user in [None, Some(open(&host, &first))] {
        let second = host.nodes.with_disk(4, "twin", "r0/0");
        let refused = host.add(&second).unwrap_err();
        assert_eq!(refused.to_string(), "r0/0 is attached to domain vm (3) on this host already");
        host.remove(&second).unwrap();
        assert_eq!(roles(&mut pair), (Role::Primary, Role::Secondary));
        drop(user);
    }
    host.remove(&first).unwrap();
    assert_eq!(roles(&mut pair), SECONDARY);
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_volume_that_the_peer_has_is_refused_even_where_two_primaries_are_permitted() {
    let mut pair = Hosts::connected();
    pair.promote(1).unwrap();
    pair.wait("the peer's promotion", |ends| ends[0].connections[0].peer_role == Role::Primary);
    let host = Host::new();
    let backend = host.nodes.with_disk(3, "vm", "r0/0");
    for permitted in [false, true] {
        pair.allow_two(permitted);
        let refused = host.add(&backend).unwrap_err();
        assert!(matches!(&refused, Error::PeerPrimary { peer, .. } if peer == "127.0.0.1:7702"), "{refused}");
        assert_eq!(roles(&mut pair), (Role::Secondary, Role::Primary));
        assert!(Layer::find(&volume()).unwrap().is_none());
    }
    host.remove(&backend).unwrap();
    assert_eq!(roles(&mut pair), (Role::Secondary, Role::Primary));
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_migration_lets_the_volume_in_once_the_peer_is_secondary() {
    for permitted in [false, true] {
        let mut pair = Hosts::connected();
        pair.allow_two(permitted);
        pair.promote(1).unwrap();
        let host = Host::new();
        let mut record = host.record(Side::Incoming);
        let backend = host.nodes.with_disk(3, "vm--incoming", "r0/0");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let adding = scope.spawn(|| {
                let result = host.add(&backend);
                done.store(true, Ordering::SeqCst);
                result
            });
            record.next_request(soon()).unwrap().unwrap().grant(Handover::Single);
            thread::sleep(Duration::from_millis(300));
            // Granted, and still waiting for the peer: never two Primaries.
            assert!(!done.load(Ordering::SeqCst));
            assert_eq!(roles(&mut pair), (Role::Secondary, Role::Primary));
            pair.demote(1).unwrap();
            adding.join().unwrap().unwrap();
        });
        assert_eq!(roles(&mut pair), (Role::Primary, Role::Secondary));
        host.remove(&backend).unwrap();
        assert_eq!(roles(&mut pair), SECONDARY);
    }
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_migration_may_allow_two_primaries() {
    let mut pair = Hosts::connected();
    pair.promote(1).unwrap();
    pair.allow_two(true);
    let host = Host::new();
    let mut record = host.record(Side::Incoming);
    let backend = host.nodes.with_disk(3, "vm--incoming", "r0/0");
    thread::scope(|scope| {
        let adding = scope.spawn(|| host.add(&backend));
        record.next_request(soon()).unwrap().unwrap().grant(Handover::Dual);
        adding.join().unwrap().unwrap();
    });
    assert_eq!(roles(&mut pair), (Role::Primary, Role::Primary));
    host.remove(&backend).unwrap();
    assert_eq!(roles(&mut pair), (Role::Secondary, Role::Primary));
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn an_open_migration_keeps_others_out() {
    let mut pair = Hosts::connected();
    let host = Host::new();
    let backend = host.nodes.with_disk(3, "vm", "r0/0");
    let leaving = host.record(Side::Outgoing);
    let refused = chain(&host.add(&backend).unwrap_err());
    assert!(refused.contains("Domain vm is being moved away from this host"), "{refused}");
    drop(leaving);

    let mut coming = host.record(Side::Incoming);
    thread::scope(|scope| {
        let adding = scope.spawn(|| host.add(&backend));
        assert!(coming.next_request(std::time::Instant::now() + Duration::from_millis(500)).unwrap().is_none());
        let refused = chain(&adding.join().unwrap().unwrap_err());
        assert!(refused.contains("kept for vm--incoming"), "{refused}");
    });
    drop(coming);
    assert_eq!(roles(&mut pair), SECONDARY);
    host.add(&backend).unwrap();
    host.remove(&backend).unwrap();
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_target_that_names_no_volume_says_which_would_do() {
    let _pair = Hosts::connected();
    let host = Host::new();
    let add = |target| host.add(&host.nodes.with_disk(3, "vm", target)).unwrap_err().to_string();
    assert_eq!(add("r0"), "DRBD resource r0 has several volumes: name one of r0/0, r0/1");
    assert_eq!(add("r0/7"), "DRBD resource r0 has no volume 7; it has r0/0, r0/1");
    assert_eq!(add("nope"), "DRBD resource nope is not up on this host");
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_volume_that_was_primary_before_stays_so_when_the_call_fails() {
    let mut pair = Hosts::connected();
    let host = Host::new();
    let backend = host.nodes.with_disk(3, "vm", "r0/0");
    pair.promote(0).unwrap();
    let claim = File::options().read(true).write(true).custom_flags(libc::O_EXCL).open("/dev/drbd0").unwrap();
    assert!(matches!(host.add(&backend), Err(Error::Layer(_))));
    // It was Primary before the call: not ours to take back.
    assert_eq!(roles(&mut pair), (Role::Primary, Role::Secondary));
    drop(claim);
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_volume_whose_peer_is_away_is_attached() {
    let mut pair = Hosts::connected();
    pair.drbd.disconnect(&pair::peer(0), true).unwrap();
    pair.wait("r0 alone", |ends| ends[0].connections.is_empty());
    let host = Host::new();
    let backend = host.nodes.with_disk(3, "vm", "r0/0");
    host.add(&backend).unwrap();
    host.remove(&backend).unwrap();
    assert_eq!(roles(&mut pair).0, Role::Secondary);
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_disk_is_detached_though_its_target_has_become_ambiguous() {
    let mut pair = Hosts::connected();
    let host = Host::new();
    let backend = host.nodes.with_disk(3, "vm", "r0/0");
    host.add(&backend).unwrap();
    host.nodes.set(&format!("{backend}/params"), "r0");
    host.remove(&backend).unwrap();
    assert_eq!(roles(&mut pair), SECONDARY);
    assert!(Layer::find(&volume()).unwrap().is_none());
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_backend_that_does_not_close_does_not_keep_the_volume() {
    let mut pair = Hosts::connected();
    let host = Host::new();
    let first = host.nodes.with_disk(3, "vm", "r0/0");
    host.add(&first).unwrap();
    let stuck = open(&host, &first);
    host.remove(&first).unwrap();
    assert_eq!(roles(&mut pair), SECONDARY);
    let second = host.nodes.with_disk(4, "vm", "r0/0");
    host.add(&second).unwrap();
    drop(stuck);
    host.remove(&second).unwrap();
    assert_eq!(roles(&mut pair), SECONDARY);
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_migration_without_a_process_keeps_its_volume_wherever_the_configuration_has_the_journals() {
    let _pair = Hosts::connected();
    let host = Host::new();
    let state = host.dir.path().join("elsewhere");
    host.configure(&format!("[state]\ndir = {state:?}"));
    let journal = Journal::create(&state, head()).unwrap();
    drop(journal);
    let backend = host.nodes.with_disk(3, "vm", "r0/0");
    let refused = host.add(&backend).unwrap_err();
    assert!(matches!(refused, Error::Unfinished { .. }), "{refused}");
    // Where the journals are cannot be known: no permission.
    host.configure("[state]\ndri = \"/var/lib/bascule\"");
    let refused = host.add(&backend).unwrap_err();
    assert!(matches!(refused, Error::Config(_)), "{refused}");
    std::fs::remove_file(host.dir.path().join(CONFIG)).unwrap();
    host.add(&backend).unwrap();
    host.remove(&backend).unwrap();
}

pub(super) fn head() -> Head {
    Head {
        format: journal::FORMAT,
        id: Uuid::new_v4(),
        side: Side::Incoming,
        name: "vm".into(),
        uuid: Uuid::from_u128(0xd0),
        domid: None,
        peer: Peer { host: "127.0.0.1".into(), port: 8002, node: "node1".into() },
        handover: bascule::protocol::Handover::Single,
        volumes: vec![JournaledVolume { id: volume(), minor: Minor(0), two_primaries: false, link: None }],
        boot: journal::this_boot(),
        pid: std::process::id(),
        program: "bascule 0.1.0".into(),
    }
}
