//! What a process that was killed in the middle of a single-primary handover leaves behind, and that it is taken back from there.

use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use bascule::dm::{DeviceMapper, Table, Target};
use bascule::drbd::Drbd;
use bascule::layer::{Layer, State};
use bascule::replication::{Attachment, Replication};
use drbd_nl::Role;

use crate::pair::{self, target};
use crate::{Hosts, disk, minor, roles, sectors, soon, volume, volume_at};

const NAME: &str = "bascule-r0-0";
const MOMENT: Duration = Duration::from_millis(300);

/// A domain's disk on this host.
struct Attached {
    user: File, // closed before the pair is taken apart
    pair: Hosts,
    drbd: Drbd,
    layer: Layer,
    sectors: u64,
}

impl Attached {
    fn new() -> Attached {
        let mut pair = Hosts::connected();
        let sectors = sectors(&mut pair);
        pair.drbd.primary(&target(0, 0), false).unwrap();
        let layer = Layer::lay(&volume(), minor(), sectors).unwrap();
        let user = disk::open(layer.path());
        Attached { user, pair, drbd: Drbd::open().unwrap(), layer, sectors }
    }

    fn load(&self, target: Target) {
        DeviceMapper::open().unwrap().load(NAME, &Table { sectors: self.sectors, target }).unwrap();
    }

    fn take(&self, step: Step) {
        let dm = DeviceMapper::open().unwrap();
        match step {
            Step::Suspend => dm.suspend(NAME).unwrap(),
            Step::LoadError => self.load(Target::Error),
            Step::LoadLinear => self.load(Target::Linear(bascule::dm::DeviceNumber::drbd(minor()))),
            Step::Resume => dm.resume(NAME).unwrap(),
            Step::Demote => drop(drbd_nl::Drbd::open().unwrap().secondary(&target(0, 0)).unwrap()),
            Step::Promote => drop(drbd_nl::Drbd::open().unwrap().primary(&target(0, 0), false).unwrap()),
        }
    }

    /// The domain has its disk again, and what was written while it had not is there.
    fn check_taken_back(&mut self, number: u8) {
        assert_eq!(self.layer.state().unwrap(), State::Laid);
        assert_eq!(self.drbd.attachment(&volume()).unwrap(), Attachment::Layer);
        assert_eq!(roles(&mut self.pair).0, Role::Primary);
        disk::write(&self.user, u64::from(number), number).unwrap();
        assert_eq!(disk::read(&self.user, u64::from(number)), number);
    }
}

/// The steps of releasing a volume and of taking it back, one system call each.
#[derive(Clone, Copy, Debug)]
enum Step {
    Suspend,
    LoadError,
    LoadLinear,
    Resume,
    Demote,
    Promote,
}

const RELEASE: [Step; 5] = [Step::Suspend, Step::LoadError, Step::Resume, Step::Suspend, Step::Demote];
const RETAKE: [Step; 4] = [Step::Promote, Step::Suspend, Step::LoadLinear, Step::Resume];

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_release_that_was_interrupted_anywhere_is_taken_back() {
    let mut attached = Attached::new();
    for (number, steps) in (1..).zip(0..=RELEASE.len()) {
        RELEASE[..steps].iter().for_each(|step| attached.take(*step));
        attached.drbd.retake(&volume(), soon()).unwrap();
        attached.check_taken_back(number);
        attached.drbd.retake(&volume(), soon()).unwrap();
        attached.check_taken_back(number);
    }
    // A whole one, and one that was finished by another process.
    for (number, steps) in (11..).zip(0..=RELEASE.len()) {
        RELEASE[..steps].iter().for_each(|step| attached.take(*step));
        attached.drbd.release(&volume(), soon()).unwrap();
        assert_eq!(attached.layer.state().unwrap(), State::Withdrawn);
        assert_eq!(roles(&mut attached.pair).0, Role::Secondary);
        attached.drbd.retake(&volume(), soon()).unwrap();
        attached.check_taken_back(number);
    }
    end(attached);
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_return_that_was_interrupted_anywhere_is_completed() {
    let mut attached = Attached::new();
    for (number, steps) in (1..).zip(0..=RETAKE.len()) {
        attached.drbd.release(&volume(), soon()).unwrap();
        RETAKE[..steps].iter().for_each(|step| attached.take(*step));
        attached.drbd.retake(&volume(), soon()).unwrap();
        attached.check_taken_back(number);
    }
    // A migration that was abandoned had let requests fail: it can be taken back, too, if none came.
    attached.drbd.release(&volume(), soon()).unwrap();
    attached.drbd.abandon(&volume()).unwrap();
    assert_eq!(attached.layer.state().unwrap(), State::Released);
    attached.drbd.retake(&volume(), soon()).unwrap();
    attached.check_taken_back(20);
    end(attached);
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_volume_is_not_taken_back_before_the_peer_has_let_it_go() {
    for permitted in [false, true] {
        let mut attached = Attached::new();
        attached.pair.allow_two(permitted);
        attached.drbd.release(&volume(), soon()).unwrap();
        attached.pair.drbd.primary(&target(1, 0), false).unwrap();
        attached.pair.wait("the peer's promotion", |ends| ends[0].connections[0].peer_role == Role::Primary);
        let refused = attached.drbd.retake(&volume(), Instant::now() + MOMENT).unwrap_err();
        assert!(refused.to_string().contains("still Primary on the peer"), "{refused}");
        assert_eq!((roles(&mut attached.pair).0, attached.layer.state().unwrap()), (Role::Secondary, State::Withdrawn));
        thread::scope(|scope| {
            let taking = scope.spawn(|| attached.drbd.retake(&volume(), soon()));
            thread::sleep(MOMENT);
            assert!(!taking.is_finished());
            drbd_nl::Drbd::open().unwrap().secondary(&target(1, 0)).unwrap();
            taking.join().unwrap().unwrap();
        });
        attached.check_taken_back(1);
        end(attached);
    }
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_volume_is_taken_back_at_once_when_the_peer_cannot_be_seen() {
    let mut attached = Attached::new();
    attached.drbd.release(&volume(), soon()).unwrap();
    attached.pair.cut();
    attached.drbd.retake(&volume(), Instant::now() + MOMENT).unwrap();
    attached.check_taken_back(1);
    // And when nobody looks for it.
    attached.drbd.release(&volume(), soon()).unwrap();
    attached.pair.drbd.disconnect(&pair::peer(0), true).unwrap();
    attached.drbd.retake(&volume(), Instant::now() + MOMENT).unwrap();
    attached.check_taken_back(2);
    end(attached);
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn nothing_is_promoted_for_a_domain_that_is_gone() {
    let mut pair = Hosts::connected();
    let refused = Drbd::open().unwrap().retake(&volume(), soon()).unwrap_err();
    assert!(refused.to_string().contains("no layer of ours"), "{refused}");
    assert_eq!(roles(&mut pair), (Role::Secondary, Role::Secondary));
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_dead_migration_s_layer_does_not_keep_the_volume() {
    let mut attached = Attached::new();
    let refused = attached.drbd.demote(&volume(), Instant::now() + MOMENT).unwrap_err();
    assert!(refused.to_string().contains("held open by"), "{refused}");
    assert_eq!((roles(&mut attached.pair).0, attached.layer.state().unwrap()), (Role::Primary, State::Laid));
    drop(attached.user);
    // However far the release had come.
    for steps in 0..RELEASE.len() {
        attached.pair.drbd.primary(&target(0, 0), false).unwrap();
        drop(Layer::lay(&volume(), minor(), attached.sectors).unwrap());
        let layer = Layer::find(&volume()).unwrap().unwrap();
        let dm = DeviceMapper::open().unwrap();
        for step in &RELEASE[..steps] {
            match step {
                Step::Suspend => dm.suspend(NAME).unwrap(),
                Step::Resume => dm.resume(NAME).unwrap(),
                _ => dm.load(NAME, &Table { sectors: attached.sectors, target: Target::Error }).unwrap(),
            }
        }
        attached.drbd.demote(&volume(), soon()).unwrap();
        attached.drbd.demote(&volume(), soon()).unwrap();
        assert!(Layer::find(&volume()).unwrap().is_none());
        assert!(layer.state().is_err());
        assert_eq!(roles(&mut attached.pair).0, Role::Secondary);
    }
    // A volume without any layer, too.
    attached.pair.drbd.primary(&target(1, 0), false).unwrap();
    attached.drbd.demote(&volume_at(1), soon()).unwrap();
    assert_eq!(roles(&mut attached.pair).1, Role::Secondary);
}

/// The domain ends; its disk is detached.
fn end(attached: Attached) {
    let Attached { pair, layer, user, drbd, .. } = attached;
    drop(user);
    layer.remove(soon()).unwrap();
    drbd.demote(&volume(), soon()).unwrap();
    drop(pair);
}
