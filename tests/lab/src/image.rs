//! What the nodes boot from. Hypervisor, kernel and root file system come out of Debian packages and stay in the cache; the layer and
//! the disks are made anew for each lab.

mod disk;
mod hypervisor;
mod initrd;
mod kernel;
mod layer;
mod root;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, bail};

use crate::command::run;
use crate::guest;
use crate::layout::{Layout, NODES};

pub(crate) use layer::{Drbd, RESOURCES};

/// Files in the lab's directory that QEMU is given.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    pub(crate) hypervisor: PathBuf,
    pub(crate) vmlinux: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) layer: PathBuf,
}

impl Images {
    /// Where the images of a lab are, built or not.
    pub(crate) fn of(layout: &Layout) -> Self {
        Self {
            hypervisor: layout.file("xen"),
            vmlinux: layout.file("vmlinux"),
            initrd: layout.file("initrd"),
            root: layout.file("root.img"),
            layer: layout.file("layer.img"),
        }
    }
}

/// Builds what is missing in the cache, then the lab's own images.
pub(crate) fn build(layout: &Layout, drbd: &Drbd, say: fn(&str)) -> anyhow::Result<Images> {
    let hypervisor = hypervisor::build(layout.cache(), say)?;
    let kernel = kernel::build(layout.cache(), say)?;
    // The one waits for packages, the other for the compiler.
    let (root, guest) = thread::scope(|scope| {
        let guest = scope.spawn(|| guest::build(&kernel.tree, &layout.file("guest")));
        let root = root::build(layout.cache(), &kernel, say);
        say("workload guest and the lab's own layer");
        let guest = guest.join().unwrap_or_else(|_| bail!("The build of the workload guest panicked"));
        anyhow::Ok((root?, guest?))
    })?;

    let images = Images::of(layout);
    link(&hypervisor, &images.hypervisor)?;
    link(&kernel.vmlinux, &images.vmlinux)?;
    link(&root.image, &images.root)?;
    initrd::write(&images.initrd, &root.busybox, &kernel)?;
    layer::write(&images.layer, layout, &kernel, &guest, drbd)?;
    Ok(images)
}

/// Makes the disks that DRBD replicates, two equal ones, without DRBD's meta data; and the disk of each node's own state.
pub(crate) fn create_disks(layout: &Layout) -> anyhow::Result<()> {
    let [first, second] = NODES.map(|node| layout.disk(node));
    disk::create(&first)?;
    fs::remove_file(&second).ok();
    run(Command::new("cp").arg("--sparse=always").args([&first, &second]))?;
    NODES.into_iter().try_for_each(|node| disk::create_state(&layout.state_disk(node)))
}

/// A hard link, so that the cache may forget the entry while the lab runs; a copy where the cache lies on another file system.
fn link(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::remove_file(to).ok();
    fs::hard_link(from, to)
        .or_else(|_| fs::copy(from, to).map(drop))
        .with_context(|| format!("{} cannot be brought into the lab", from.display()))
}
