//! A pair of DRBD nodes on one kernel: two resources with crossed addresses, each the other's peer, of two volumes each.

use std::{
    fs::File,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use drbd_nl::{
    Address, Change, ConnectionStatus, DeviceConf, DiskConf, DiskState, Drbd, Event, Events, NetConf, Peer, PeerVolume,
    Protocol, Refusal, ResourceOpts, ResourceStatus, Role, Secret, Target,
};

/// The two ends.
pub(crate) const ENDS: [&str; 2] = ["r0", "r1"];
/// Volumes of each.
pub(crate) const VOLUMES: [u32; 2] = [0, 1];
/// How long DRBD may take for anything that the tests wait for; the slowest is a reconnect.
const STEP_MAX: Duration = Duration::from_secs(30);
const SECRET: &str = "open sesame";

/// The pair, taken apart when dropped.
pub(crate) struct Pair {
    pub(crate) drbd: Drbd,
    events: Events,
    two_primaries: bool,
}

impl Pair {
    /// Both ends with disks, connected, both volumes UpToDate, all Secondary.
    pub(crate) fn connected() -> Pair {
        let mut pair = Pair::attached();
        (0..2).for_each(|end| pair.connect(end, false));
        pair.wait("the connection", |ends| ends.iter().all(is_connected));
        pair.settle();
        // The disks are new: equal by declaration, no resync.
        VOLUMES.iter().for_each(|volume| pair.drbd.new_current_uuid(minor(0, *volume), true).unwrap());
        pair.wait("both UpToDate", |ends| ends.iter().all(is_up_to_date));
        pair
    }

    /// Both ends with disks.
    pub(crate) fn attached() -> Pair {
        assert!(std::env::var_os("UML_TEST").is_some(), "this belongs into user-mode Linux: cargo xtask uml");
        let mut pair = Pair { drbd: Drbd::open().unwrap(), events: Events::open().unwrap(), two_primaries: false };
        for (end, name) in (0..).zip(ENDS) {
            pair.drbd.new_resource(name, &ResourceOpts::default()).unwrap();
            for volume in VOLUMES {
                let minor = minor(end, volume);
                pair.drbd.new_minor(name, volume, minor, &DeviceConf::default()).unwrap();
                create_metadata(minor);
                pair.drbd.attach(minor, &DiskConf::internal(disk(minor))).unwrap();
            }
        }
        pair
    }

    /// Starts connecting one end, with everything that 8.4 forgets when it disconnects.
    pub(crate) fn connect(&mut self, end: usize, discard_my_data: bool) {
        let net = NetConf {
            wire_protocol: Some(Protocol::C),
            shared_secret: Some(Secret::new(SECRET)),
            cram_hmac_alg: Some("sha1".to_owned()),
            connect_int: Some(1), // both start at once and often collide at first
            ping_int: Some(1),    // a link that was cut is soon seen to be
            two_primaries: Some(self.two_primaries),
            ..NetConf::default()
        };
        self.drbd.connect(&peer(end), &net, discard_my_data).unwrap();
    }

    /// Waits until each end has all that the other one's worker had to tell about the connection. DRBD 8.4 sends its state once more after it
    /// connected (`after_state_ch`): a copy made at the change, sent when the worker comes to it. If it comes after a later change of the disk or the role,
    /// the peer believes it, for ever. A held resync goes through the same worker and the same socket, and can be seen at the other end.
    fn settle(&mut self) {
        for (end, other) in [(0, 1), (1, 0)] {
            for volume in VOLUMES {
                self.drbd.pause_sync(&peer_volume(end, volume)).unwrap();
            }
            self.wait("a held resync at the other end", |ends| is_held(&ends[other]).all(|held| held));
            for volume in VOLUMES {
                self.drbd.resume_sync(&peer_volume(end, volume)).unwrap();
            }
            self.wait("no held resync at the other end", |ends| !is_held(&ends[other]).any(|held| held));
        }
    }

    /// Both ends as they are now.
    pub(crate) fn ends(&mut self) -> [ResourceStatus; 2] {
        ENDS.map(|name| self.drbd.resource(name).unwrap().expect("the resource exists"))
    }

    /// Looks at both ends after each event, until they are as wished.
    pub(crate) fn wait(&mut self, what: &str, wish: impl Fn(&[ResourceStatus; 2]) -> bool) -> [ResourceStatus; 2] {
        let deadline = Instant::now() + STEP_MAX;
        loop {
            let ends = self.ends();
            if wish(&ends) {
                return ends;
            }
            // 8.4 tells no progress of a resync, and a setting of the peer's is no event: look once in a while anyway.
            let pause = Instant::now() + Duration::from_millis(100);
            drop(self.events.next(pause.min(deadline)).unwrap());
            assert!(Instant::now() < deadline, "{what} did not come: {}; {ends:?}", in_short(&ends));
        }
    }

    pub(crate) fn promote(&mut self, end: usize) -> Result<Vec<Change>, drbd_nl::Error> {
        VOLUMES.iter().map(|volume| self.drbd.primary(&target(end, *volume), false)).collect()
    }

    pub(crate) fn demote(&mut self, end: usize) -> Result<Vec<Change>, drbd_nl::Error> {
        VOLUMES.iter().map(|volume| self.drbd.secondary(&target(end, *volume))).collect()
    }

    /// Allows or forbids two Primaries by a call at one end, and waits until both have it.
    pub(crate) fn allow_two(&mut self, on: bool) {
        let [end, _] = self.ends();
        self.drbd.set_two_primaries(ENDS[0], &end.connections[0], on).unwrap();
        self.two_primaries = on;
        self.wait("two-primaries at both ends", |ends| {
            ends.iter().all(|end| end.connections[0].net.two_primaries == Some(on))
        });
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let deadline = Instant::now() + STEP_MAX;
        for name in ENDS {
            // A test may end while its connection is being made or lost.
            let transient = |error: &drbd_nl::Error| error.refusal().is_some_and(Refusal::is_transient);
            let mut down = self.drbd.down(name);
            while down.as_ref().is_err_and(transient) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
                down = self.drbd.down(name);
            }
            assert!(down.is_ok() || std::thread::panicking(), "{down:?}");
        }
    }
}

pub(crate) fn minor(end: u32, volume: u32) -> u32 {
    end + 2 * volume
}

pub(crate) fn target(end: usize, volume: u32) -> Target {
    Target { resource: ENDS[end].to_owned(), minor: minor(u32::try_from(end).unwrap(), volume) }
}

fn peer_volume(end: usize, volume: u32) -> PeerVolume {
    PeerVolume { target: target(end, volume), volume, peer_node_id: None }
}

pub(crate) fn disk(minor: u32) -> String {
    format!("/dev/ubd{}", char::from(b'a' + u8::try_from(minor).unwrap()))
}

/// New metadata: the one thing that no netlink command does. DRBD 8.4 takes metadata that was in use only after `drbdmeta apply-al`, so each
/// test starts from nothing.
pub(crate) fn create_metadata(minor: u32) {
    let arguments = ["--force", &minor.to_string(), "v08", &disk(minor), "internal", "create-md"];
    let program = std::env::var_os("UML_DRBDMETA").expect("UML_DRBDMETA");
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The other end's address is this end's peer.
pub(crate) fn peer(end: usize) -> Peer {
    let address = |port| Address::from(SocketAddr::from(([127, 0, 0, 1], port)));
    let mut addresses = [address(7701), address(7702)];
    addresses.rotate_left(end);
    let [my_addr, peer_addr] = addresses;
    Peer { resource: ENDS[end].to_owned(), peer_node_id: None, my_addr, peer_addr }
}

/// Holds a volume open as its user would.
pub(crate) fn open(end: usize, volume: u32) -> File {
    let path = format!("/dev/drbd{}", target(end, volume).minor);
    File::options().read(true).write(true).open(path).unwrap()
}

pub(crate) fn is_connected(end: &ResourceStatus) -> bool {
    let connected = |connection: &ConnectionStatus| {
        connection.state.is_connected() && connection.peer_devices.iter().all(|peer| peer.repl_state.is_established())
    };
    !end.connections.is_empty() && end.connections.iter().all(connected)
}

pub(crate) fn is_up_to_date(end: &ResourceStatus) -> bool {
    let peers = end.connections.iter().flat_map(|connection| &connection.peer_devices);
    end.volumes
        .iter()
        .map(|volume| volume.disk_state)
        .chain(peers.map(|peer| peer.peer_disk_state))
        .all(DiskState::is_up_to_date)
}

/// What a wait is most often about.
fn in_short(ends: &[ResourceStatus; 2]) -> String {
    let volumes = |end: &ResourceStatus| end.volumes.iter().map(|volume| volume.disk_state).collect::<Vec<_>>();
    let peers = |connection: &ConnectionStatus| {
        connection.peer_devices.iter().map(|peer| (peer.repl_state, peer.peer_disk_state)).collect::<Vec<_>>()
    };
    let connection = |connection: &ConnectionStatus| (connection.state, connection.peer_role, peers(connection));
    let end =
        |end: &ResourceStatus| (end.role, volumes(end), end.connections.iter().map(connection).collect::<Vec<_>>());
    format!("{:?}", ends.each_ref().map(end))
}

/// Whether each volume's resync is held.
fn is_held(end: &ResourceStatus) -> impl Iterator<Item = bool> + '_ {
    end.connections.iter().flat_map(|connection| &connection.peer_devices).map(|peer| peer.resync_suspended)
}

/// Role of each end and of its peer as the end sees it.
pub(crate) fn roles(ends: &[ResourceStatus; 2]) -> [(Role, Role); 2] {
    [0, 1].map(|end| (ends[end].role, ends[end].connections[0].peer_role))
}

/// Events until each of `wishes` has come, in any order, or a panic.
pub(crate) fn until(events: &mut Events, wishes: &[&dyn Fn(&Event) -> bool]) -> Vec<Event> {
    let deadline = Instant::now() + STEP_MAX;
    let mut seen = Vec::new();
    while !wishes.iter().all(|wish| seen.iter().any(wish)) {
        let event = events.next(deadline).unwrap();
        seen.push(event.unwrap_or_else(|| panic!("not all came: {seen:#?}")));
    }
    seen
}
