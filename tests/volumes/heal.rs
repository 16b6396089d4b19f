//! Split brains that a lost link made in a handover, healed on the real module with data on the survivor. This host is the
//! source, `r0`; the other one is the destination, `r1`.

use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use bascule::drbd::{Drbd, HealError};
use bascule::ids::VolumeId;
use bascule::layer::Layer;
use bascule::replication::{Error, Link, Replication};
use drbd_nl::Role;

use crate::pair::{self, ENDS, is_connected, is_up_to_date};
use crate::{Hosts, disk, minor, sectors, soon, volume, volume_at};

/// Long enough for the slower side to have taken a step.
const MOMENT: Duration = Duration::from_millis(400);

/// A domain whose disk lies on this host, and what was noted of both hosts before it was moved.
struct Handover {
    user: File, // closed before the pair is taken apart
    pair: Hosts,
    drbd: Drbd,
    links: [Link; 2],
}

/// Which side begins to heal.
#[derive(Clone, Copy, Debug)]
enum First {
    Keeper,
    Yielder,
    Both,
}

impl Handover {
    /// The domain has written block 1.
    fn begin() -> Handover {
        let mut pair = Hosts::connected();
        let size = sectors(&mut pair);
        pair.drbd.primary(&pair::target(0, 0), false).unwrap();
        let layer = Layer::lay(&volume(), minor(), size).unwrap();
        let user = disk::open(layer.path());
        disk::write(&user, 1, 1).unwrap();
        let drbd = Drbd::open().unwrap();
        let links = ENDS.map(|end| drbd.link(end).unwrap().unwrap());
        Handover { user, pair, drbd, links }
    }

    /// Single-primary: the destination is Primary alone, its copy paused.
    fn hand_over(&mut self) {
        self.drbd.release(&volume(), soon()).unwrap();
        self.pair.drbd.primary(&pair::target(1, 0), false).unwrap();
        self.await_primary_there();
    }

    fn await_primary_there(&mut self) {
        self.pair.wait("the destination's promotion", |ends| ends[0].connections[0].peer_role == Role::Primary);
    }

    /// The link comes back, and the hosts find that both have been Primary.
    fn meet(&mut self) {
        self.pair.mend();
        self.pair.wait("the split brain", |ends| ends.iter().any(|end| end.connections.is_empty()));
    }

    /// The destination discards its paused copy.
    fn discard_copy(&mut self) {
        self.drbd.demote(&volume_at(1), soon()).unwrap();
    }

    fn heal(&self, end: usize, sacrifice: bool, deadline: Instant) -> Result<(), Error> {
        heal(&self.links[end], sacrifice, deadline)
    }

    /// Both hosts heal, each in a thread of its own as in a process of its own.
    fn heal_both(&self, first: First) {
        let pause_of = |end: usize| match (first, end) {
            (First::Keeper, 1) | (First::Yielder, 0) => MOMENT,
            _ => Duration::ZERO,
        };
        let links = &self.links;
        thread::scope(|scope| {
            let healing = [0, 1].map(|end| {
                scope.spawn(move || {
                    thread::sleep(pause_of(end));
                    heal(&links[end], end == 1, soon()).unwrap();
                })
            });
            healing.into_iter().for_each(|healing| healing.join().unwrap());
        });
    }

    /// Both have the source's data and the options of before, and are not healed twice.
    fn check(mut self, blocks: &[(u64, u8)]) {
        self.pair.wait("both UpToDate", |ends| ends.iter().all(|end| is_connected(end) && is_up_to_date(end)));
        let begun = Instant::now();
        (0..2).for_each(|end| self.heal(end, end == 1, begun).unwrap());
        assert_eq!(ENDS.map(|end| self.drbd.link(end).unwrap().unwrap()), self.links);
        for (block, byte) in blocks {
            assert_eq!(disk::read(&self.user, *block), *byte);
        }
        drop(self.user);
        self.drbd.demote(&volume(), soon()).unwrap();
        self.pair.drbd.primary(&pair::target(1, 0), false).unwrap();
        let there = disk::open("/dev/drbd1");
        for (block, byte) in blocks {
            assert_eq!(disk::read(&there, *block), *byte);
        }
    }
}

/// What one host does.
fn heal(link: &Link, sacrifice: bool, deadline: Instant) -> Result<(), Error> {
    let volume = VolumeId { resource: link.resource().to_owned(), volume: 0 };
    Drbd::open()?.heal(link, &[volume], sacrifice, deadline)
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_source_that_took_back_without_its_link_keeps_what_it_wrote() {
    for first in [First::Keeper, First::Yielder, First::Both] {
        let mut handover = Handover::begin();
        handover.hand_over();
        handover.pair.cut();
        handover.drbd.retake(&volume(), soon()).unwrap();
        disk::write(&handover.user, 2, 2).unwrap();
        handover.meet();
        disk::write(&handover.user, 3, 3).unwrap();
        handover.discard_copy();

        handover.heal_both(first);
        disk::write(&handover.user, 4, 4).unwrap();
        handover.check(&[(1, 1), (2, 2), (3, 3), (4, 4)]);
    }
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_link_that_was_lost_between_two_primaries_is_healed_and_two_are_forbidden_again() {
    for first in [First::Keeper, First::Yielder, First::Both] {
        let mut handover = Handover::begin();
        handover.pair.allow_two(true);
        handover.pair.drbd.primary(&pair::target(1, 0), false).unwrap();
        handover.await_primary_there();
        handover.pair.cut();
        disk::write(&handover.user, 2, 2).unwrap();
        handover.discard_copy();
        handover.meet();

        handover.heal_both(first);
        handover.check(&[(1, 1), (2, 2)]);
    }
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn hosts_heal_before_they_meet_again() {
    let mut handover = Handover::begin();
    handover.pair.allow_two(true);
    handover.pair.drbd.primary(&pair::target(1, 0), false).unwrap();
    handover.await_primary_there();
    handover.pair.cut();
    disk::write(&handover.user, 2, 2).unwrap();
    handover.discard_copy();
    let links = &handover.links;
    thread::scope(|scope| {
        let healing = [0, 1].map(|end| scope.spawn(move || heal(&links[end], end == 1, soon())));
        thread::sleep(MOMENT);
        // Both wait for each other, with the options of before, and the destination is ready to yield.
        let waiting = handover.pair.ends().map(|end| end.connections[0].net.clone());
        assert_eq!(waiting.each_ref().map(|net| net.two_primaries), [Some(false), Some(false)]);
        assert_eq!(waiting.each_ref().map(|net| net.discard_my_data), [Some(false), Some(true)]);
        handover.pair.mend();
        healing.into_iter().for_each(|healing| healing.join().unwrap().unwrap());
    });
    handover.check(&[(1, 1), (2, 2)]);
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn what_both_wrote_is_not_given_up() {
    let mut handover = Handover::begin();
    handover.hand_over();
    handover.pair.cut();
    handover.drbd.retake(&volume(), soon()).unwrap();
    disk::write(&handover.user, 2, 2).unwrap();
    disk::write(&disk::open("/dev/drbd1"), 3, 77).unwrap();
    // A Primary does not give up its data,
    let refused = handover.heal(1, true, soon());
    assert!(matches!(cause(&refused), HealError::Primary { volume: 0, .. }), "{refused:?}");
    handover.discard_copy();
    // nor does one that has what the other has not, and both stay as they are.
    handover.meet();
    for _ in 0..2 {
        let refused = handover.heal(1, true, soon());
        assert!(matches!(cause(&refused), HealError::OnlyHere { volume: 0, sectors: 8, .. }), "{refused:?}");
    }
    let user = handover.user;
    assert_eq!(disk::read(&user, 2), 2);
    assert_ne!(disk::read(&user, 3), 77);
    drop(user);
    handover.drbd.demote(&volume(), soon()).unwrap();
}

fn cause(result: &Result<(), Error>) -> &HealError {
    result.as_ref().unwrap_err().downcast_ref().unwrap()
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_peer_that_does_not_come_is_waited_for_no_longer_than_said() {
    let pair = Hosts::connected();
    let drbd = Drbd::open().unwrap();
    let link = drbd.link(ENDS[0]).unwrap().unwrap();
    for end in ENDS {
        let status = drbd.link(end).unwrap().unwrap();
        drbd_nl::Drbd::open().unwrap().disconnect(&status.peer, true).unwrap();
        assert_eq!(drbd.link(end).unwrap(), None);
    }
    let refused = drbd.heal(&link, &[volume()], true, Instant::now() + MOMENT);
    assert!(
        matches!(cause(&refused), HealError::NotConnected { found, .. } if found.starts_with("WFConnection")),
        "{refused:?}"
    );
    // With no secret nobody would connect: it is not tried.
    drbd_nl::Drbd::open().unwrap().disconnect(&link.peer, true).unwrap();
    let unknown = Link { secret: None, ..link };
    let refused = drbd.heal(&unknown, &[volume()], false, soon());
    assert!(matches!(cause(&refused), HealError::SecretUnknown { .. }), "{refused:?}");
    assert_eq!(drbd.link(ENDS[0]).unwrap(), None);
    drop(pair);
}
