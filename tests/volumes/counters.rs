//! What moves DRBD's counters, and what they survive: the proofs of who wrote rest on it.

use std::fs::File;
use std::os::fd::AsFd;

use bascule::drbd::Drbd;
use bascule::replication::{Counters, Replication, VolumeState};
use nix::fcntl::{FallocateFlags, fallocate};

use crate::disk::{self, BLOCK_SECTORS};
use crate::pair::{self, is_connected, is_up_to_date};
use crate::{Hosts, volume_at};

/// Both hosts' counters of the volume, and where they stood last.
struct Witness {
    drbd: Drbd,
    last: [VolumeState; 2],
}

/// Written, sent and received.
type Moves = [i64; 3];

const NONE: Moves = [0; 3];
const BLOCK: i64 = BLOCK_SECTORS.cast_signed();

impl Witness {
    fn new() -> Witness {
        let drbd = Drbd::open().unwrap();
        let last = look(&drbd);
        Witness { drbd, last }
    }

    /// How far the counters have moved since the last time, on this host and on the other.
    fn moves(&mut self) -> [Moves; 2] {
        let now = look(&self.drbd);
        let moves = [0, 1].map(|end| difference(&self.last[end].counters, &now[end].counters));
        self.last = now;
        moves
    }
}

fn look(drbd: &Drbd) -> [VolumeState; 2] {
    [0, 1].map(|end| drbd.state(&volume_at(end)).unwrap().unwrap())
}

fn difference(from: &Counters, to: &Counters) -> Moves {
    let of = |counter: fn(&Counters) -> u64| counter(to).cast_signed() - counter(from).cast_signed();
    [of(|counters| counters.written), of(|counters| counters.sent), of(|counters| counters.received)]
}

fn reconnected(pair: &mut Hosts) {
    pair.wait("the connection again", |ends| ends.iter().all(|end| is_connected(end) && is_up_to_date(end)));
}

/// Zeroes a block without sending zeroes, as a discard does.
fn zero(user: &File) {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(user.as_fd(), flags, 0, BLOCK * 512).unwrap();
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn writes_move_the_counters_and_roles_do_not() {
    let mut pair = Hosts::connected();
    let mut witness = Witness::new();
    pair.promote(0).unwrap();
    let user = disk::open("/dev/drbd0");
    assert_eq!(witness.moves(), [NONE, NONE]);
    disk::write(&user, 1, 1).unwrap();
    assert_eq!(witness.moves(), [[BLOCK, BLOCK, 0], [BLOCK, 0, BLOCK]]);
    disk::read(&user, 1);
    assert_eq!(witness.moves(), [NONE, NONE]);
    // What has no payload shows on the disks only.
    zero(&user);
    assert_eq!(witness.moves(), [[BLOCK, 0, 0], [BLOCK, 0, 0]]);
    drop(user);
    pair.demote(0).unwrap();
    pair.promote(1).unwrap();
    disk::read(&disk::open("/dev/drbd1"), 1);
    pair.demote(1).unwrap();
    assert_eq!(witness.moves(), [NONE, NONE]);
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn counters_survive_the_loss_of_the_link_and_a_resync_moves_them() {
    let mut pair = Hosts::connected();
    pair.promote(0).unwrap();
    let user = disk::open("/dev/drbd0");
    disk::write(&user, 1, 1).unwrap();
    let mut witness = Witness::new();
    pair.cut();
    assert_eq!(witness.moves(), [NONE, NONE]);
    disk::write(&user, 2, 2).unwrap();
    assert_eq!(witness.moves(), [[BLOCK, 0, 0], NONE]);
    let [here, there] = &witness.last;
    assert_eq!((here.out_of_sync_sectors, there.out_of_sync_sectors), (BLOCK_SECTORS, 0));

    pair.mend();
    reconnected(&mut pair);
    assert_eq!(witness.moves(), [[0, BLOCK, 0], [BLOCK, 0, BLOCK]]);
    assert_eq!(witness.last[0].out_of_sync_sectors, 0);
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_disconnect_shows_the_same_counters_and_a_connect_begins_anew_but_for_the_disk_s() {
    let mut pair = Hosts::connected();
    pair.promote(0).unwrap();
    disk::write(&disk::open("/dev/drbd0"), 1, 1).unwrap();
    pair.demote(0).unwrap();
    let mut witness = Witness::new();
    pair.drbd.disconnect(&pair::peer(0), true).unwrap();
    pair.wait("r0 alone", |ends| ends[0].connections.is_empty());
    assert_eq!(witness.moves(), [NONE, NONE]);
    assert_eq!([witness.last[0].standalone, witness.last[1].standalone], [true, false]);
    pair.connect(0, false);
    reconnected(&mut pair);
    assert_eq!(witness.moves(), [[0, -BLOCK, 0], NONE]);
    assert!(!witness.last[0].standalone);
}
