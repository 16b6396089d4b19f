//! The layer over a volume and the disk hotplug program, against the real DRBD and device-mapper, in the user-mode Linux that
//! `cargo xtask uml` boots. Two resources on one kernel, each the other's peer, stand for two hosts: what happens to `r0/0` on
//! this host happens to `r1/0` on the other.

mod block;
mod bring;
mod counters;
mod disk;
mod heal;
mod layer;
mod leftovers;
#[path = "../../drbd-nl/tests/uml/loopback.rs"]
mod loopback;
mod nodes;
#[path = "../../drbd-nl/tests/uml/pair.rs"]
#[expect(dead_code, reason = "shared with drbd-nl's own tests, which use more of it")]
mod pair;

use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::{Duration, Instant};

use bascule::ids::{Minor, VolumeId};
use bascule::layer::Layer;
use drbd_nl::Role;
use nix::kmod::{ModuleInitFlags, finit_module};

use self::pair::Pair;

/// The two hosts. In the end both become Secondary before they are taken apart: 8.4 starts a thread when a Primary loses its
/// peer, and crashes when the connection is freed before that thread has run.
struct Hosts(Pair);

impl Hosts {
    fn connected() -> Hosts {
        load_device_mapper();
        Hosts(Pair::connected())
    }

    /// Pulls the cable between the two hosts and waits until both have noticed.
    fn cut(&mut self) {
        loopback::set_up(false).unwrap();
        self.wait("the loss of the link", |ends| !ends.iter().any(pair::is_connected));
    }

    /// Puts it back.
    fn mend(&self) {
        loopback::set_up(true).unwrap();
    }
}

/// DRBD's modules are there already; this one only these tests need.
fn load_device_mapper() {
    if Path::new("/dev/mapper/control").exists() {
        return;
    }
    let modules = std::env::var("UML_MODULES").expect("this belongs into user-mode Linux: cargo xtask uml");
    let module = File::open(Path::new(&modules).join("drivers/md/dm-mod.ko")).unwrap();
    finit_module(&module, c"", ModuleInitFlags::empty()).unwrap();
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.mend();
        if let Ok(Some(layer)) = Layer::find(&volume()) {
            drop(layer.remove(Instant::now() + Duration::from_secs(1)));
        }
        for end in 0..2 {
            // After a test that failed somebody may hold a volume; taking the pair apart says so.
            drop(self.0.demote(end));
        }
    }
}

impl Deref for Hosts {
    type Target = Pair;

    fn deref(&self) -> &Pair {
        &self.0
    }
}

impl DerefMut for Hosts {
    fn deref_mut(&mut self) -> &mut Pair {
        &mut self.0
    }
}

/// The volume that the tests attach.
fn volume() -> VolumeId {
    volume_at(0)
}

/// The volume on this host, 0, and its counterpart on the other, 1.
fn volume_at(end: usize) -> VolumeId {
    VolumeId { resource: pair::ENDS[end].to_owned(), volume: 0 }
}

fn minor() -> Minor {
    Minor(pair::minor(0, 0))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// Role of the volume here and of its counterpart there.
fn roles(pair: &mut Pair) -> (Role, Role) {
    let [here, there] = pair.ends();
    (here.volumes[0].role.unwrap(), there.volumes[0].role.unwrap())
}

fn sectors(pair: &mut Pair) -> u64 {
    pair.ends()[0].volumes[0].size_sectors
}
