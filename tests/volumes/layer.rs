//! The layer by itself.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bascule::dm::DeviceMapper;
use bascule::holders::Holder;
use bascule::layer::{Error, Layer, State};
use drbd_nl::{Refusal, Role};

use crate::pair::target;
use crate::{Hosts, disk, minor, roles, sectors, soon, volume};

/// Long enough for a request to be seen waiting, or for one that should not wait to end.
const MOMENT: Duration = Duration::from_millis(300);

fn laid(pair: &mut Hosts) -> Layer {
    pair.promote(0).unwrap();
    Layer::lay(&volume(), minor(), sectors(pair)).unwrap()
}

/// Opens the layer as a backend does.
fn open(layer: &Layer) -> File {
    disk::open(layer.path())
}

fn write(file: &File, byte: u8) -> io::Result<()> {
    disk::write(file, 1, byte)
}

fn read(file: &File) -> u8 {
    disk::read(file, 1)
}

fn write_in_background(file: &File, byte: u8) -> JoinHandle<io::Result<()>> {
    let file = file.try_clone().unwrap();
    thread::spawn(move || write(&file, byte))
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_volume_is_taken_away_and_given_back_under_an_open_layer() {
    let mut pair = Hosts::connected();
    let size = sectors(&mut pair);
    let layer = laid(&mut pair);
    let user = open(&layer);
    write(&user, 1).unwrap();
    assert_eq!((layer.state().unwrap(), layer.open_count().unwrap()), (State::Laid, 1));
    let busy = pair.drbd.secondary(&target(0, 0)).unwrap_err();
    assert_eq!(busy.refusal(), Some(Refusal::DeviceInUse));

    layer.withdraw(soon()).unwrap();
    assert_eq!(layer.state().unwrap(), State::Withdrawn);
    pair.drbd.secondary(&target(0, 0)).unwrap();
    pair.drbd.secondary(&target(0, 1)).unwrap();
    pair.wait("both Secondary", |ends| {
        ends.iter().all(|end| end.role == Role::Secondary && end.connections[0].peer_role == Role::Secondary)
    });
    // A stray request waits, and is not counted as under way.
    let waiting = write_in_background(&user, 2);
    thread::sleep(MOMENT);
    assert!(!waiting.is_finished());
    assert_eq!(layer.in_flight(), 0);

    // The other host has the volume meanwhile.
    pair.promote(1).unwrap();
    assert_eq!(roles(&mut pair), (Role::Secondary, Role::Primary));
    let there = crate::pair::open(1, 0);
    assert_eq!(read(&there), 1);
    drop(there);
    pair.demote(1).unwrap();
    pair.wait("the other host's demotion", |ends| ends[0].connections[0].peer_role == Role::Secondary);

    pair.drbd.primary(&target(0, 0), false).unwrap();
    layer.give_back(minor(), size).unwrap();
    waiting.join().unwrap().unwrap();
    assert_eq!(layer.state().unwrap(), State::Laid);
    assert_eq!(read(&user), 2);
    drop(user);
    layer.remove(soon()).unwrap();
    assert!(Layer::find(&volume()).unwrap().is_none());
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn every_step_may_be_taken_twice_and_from_where_a_crash_left_it() {
    let mut pair = Hosts::connected();
    let size = sectors(&mut pair);
    let layer = laid(&mut pair);
    let dm = DeviceMapper::open().unwrap();
    let name = "bascule-r0-0";
    // A withdrawal that ended after its first step.
    dm.suspend(name).unwrap();
    assert_eq!(layer.state().unwrap(), State::Held);
    layer.withdraw(soon()).unwrap();
    layer.withdraw(soon()).unwrap();
    assert_eq!(layer.state().unwrap(), State::Withdrawn);
    // One that ended before its last.
    dm.resume(name).unwrap();
    assert_eq!(layer.state().unwrap(), State::Released);
    layer.withdraw(soon()).unwrap();
    assert_eq!(layer.state().unwrap(), State::Withdrawn);
    layer.give_back(minor(), size).unwrap();
    layer.give_back(minor(), size).unwrap();
    assert_eq!(layer.state().unwrap(), State::Laid);
    // A return that was interrupted, and one from a released layer.
    dm.suspend(name).unwrap();
    layer.give_back(minor(), size).unwrap();
    assert_eq!(layer.state().unwrap(), State::Laid);
    layer.release().unwrap();
    assert_eq!(layer.state().unwrap(), State::Laid);
    dm.suspend(name).unwrap();
    layer.release().unwrap();
    assert_eq!(layer.state().unwrap(), State::Released);
    layer.give_back(minor(), size).unwrap();
    assert_eq!(layer.state().unwrap(), State::Laid);
    layer.remove(soon()).unwrap();
    layer.remove(soon()).unwrap();
    assert!(matches!(layer.state(), Err(Error::Gone { .. })));
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_volume_cannot_be_given_back_while_the_other_host_has_it() {
    let mut pair = Hosts::connected();
    let size = sectors(&mut pair);
    let layer = laid(&mut pair);
    layer.withdraw(soon()).unwrap();
    pair.demote(0).unwrap();
    pair.wait("our demotion there", |ends| ends[1].connections[0].peer_role == Role::Secondary);
    pair.promote(1).unwrap();
    assert!(matches!(layer.give_back(minor(), size), Err(Error::Dm { .. })));
    assert_eq!(layer.state().unwrap(), State::Withdrawn);
    layer.release().unwrap();
    layer.remove(soon()).unwrap();
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_released_layer_lets_requests_end() {
    let mut pair = Hosts::connected();
    let layer = laid(&mut pair);
    let user = open(&layer);
    layer.withdraw(soon()).unwrap();
    let waiting = write_in_background(&user, 3);
    thread::sleep(MOMENT);
    assert!(!waiting.is_finished());
    layer.release().unwrap();
    assert!(waiting.join().unwrap().is_err());
    pair.demote(0).unwrap();
    drop(user);
    layer.remove(soon()).unwrap();
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_layer_in_use_is_not_replaced_and_a_stale_one_is() {
    let mut pair = Hosts::connected();
    let size = sectors(&mut pair);
    let first = laid(&mut pair);
    let user = open(&first);
    let refused = Layer::lay(&volume(), minor(), size).unwrap_err();
    let Error::Attached { open_count: 1, holders, .. } = &refused else { panic!("{refused}") };
    assert!(matches!(holders[..], [Holder::Process { .. }]), "{refused}");
    drop(user);
    let second = Layer::lay(&volume(), minor(), size).unwrap();
    assert_eq!(second.state().unwrap(), State::Laid);
    second.remove(soon()).unwrap();
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_volume_that_is_claimed_is_named_with_its_holder() {
    let mut pair = Hosts::connected();
    let size = sectors(&mut pair);
    pair.promote(0).unwrap();
    let claim = File::options().read(true).write(true).custom_flags(libc::O_EXCL).open("/dev/drbd0").unwrap();
    let refused = Layer::lay(&volume(), minor(), size).unwrap_err();
    let Error::Claimed { holders, .. } = &refused else { panic!("{refused}") };
    assert!(matches!(holders[..], [Holder::Process { .. }]), "{refused}");
    assert!(Layer::find(&volume()).unwrap().is_none());
    drop(claim);
    pair.demote(0).unwrap();
    // Not Primary: nothing is left behind either.
    assert!(Layer::lay(&volume(), minor(), size).is_err());
    assert!(Layer::find(&volume()).unwrap().is_none());
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn removal_waits_for_the_last_user_and_no_longer_than_said() {
    let mut pair = Hosts::connected();
    let layer = laid(&mut pair);
    let user = open(&layer);
    let stuck = layer.remove(Instant::now() + Duration::from_millis(50)).unwrap_err();
    assert!(matches!(stuck, Error::StillOpen { open_count: 1, .. }), "{stuck}");
    let closing = thread::spawn(move || {
        thread::sleep(MOMENT);
        drop(user);
    });
    layer.remove(soon()).unwrap();
    closing.join().unwrap();
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_user_that_does_not_close_does_not_keep_the_volume() {
    let mut pair = Hosts::connected();
    let layer = laid(&mut pair);
    let node = layer.path();
    let user = open(&layer);
    layer.abandon(soon()).unwrap();
    pair.demote(0).unwrap();
    assert!(write(&user, 4).is_err());
    // The name is free again, beside what the user still holds.
    let again = laid(&mut pair);
    assert_ne!(again.path(), node);
    again.remove(soon()).unwrap();
    drop(user);
    // The kernel removes it a moment after the last close.
    let deadline = soon();
    while fs::exists(&node).unwrap() {
        assert!(Instant::now() < deadline, "{node} is still there");
        thread::sleep(Duration::from_millis(1));
    }
}
