//! The initial RAM disk of a node: static busybox, the modules that reach the disks, the script that mounts them.

use std::fs;
use std::path::Path;

use super::kernel::Kernel;
use crate::guest::initrd::Initrd;
use crate::guest::modules::ModuleTree;

const INIT: &str = include_str!("../../node/initrd-init");
const MODULES: [&str; 5] = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "overlay"];

/// Mount points of the script.
const DIRECTORIES: [&str; 7] = ["bin", "dev", "layer", "modules", "new", "root", "rw"];

/// Writes the archive, uncompressed: unpacking is what costs under emulation.
pub(super) fn write(file: &Path, busybox: &Path, kernel: &Kernel) -> anyhow::Result<()> {
    let mut archive = Initrd::new();
    for dir in DIRECTORIES {
        archive.directory(dir)?;
    }
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?)?;
    let mut order = String::new();
    for module in ModuleTree::of(&kernel.tree)?.load_order(&MODULES)? {
        archive.file(&format!("modules/{}.ko", module.name), 0o644, &module.contents)?;
        order.push_str(&format!("{}.ko\n", module.name));
    }
    archive.file("modules/order", 0o644, order.as_bytes())?;
    fs::write(file, archive.finish()?)?;
    Ok(())
}
