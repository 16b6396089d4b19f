//! The dom0's kernel: Debian's, unpacked and not installed, so that no initramfs is built for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::apt;
use crate::cache;
use crate::command::run;
use crate::guest::kernel::{extract_vmlinux, find_vmlinuz};

/// Parts of the kernel package that neither a node nor a guest of the lab has a use for; they are most of its 400 MB.
const UNUSED: [&str; 16] = [
    "sound",
    "drivers/gpu",
    "drivers/media",
    "drivers/infiniband",
    "drivers/usb",
    "drivers/scsi",
    "drivers/staging",
    "drivers/iio",
    "drivers/hid",
    "drivers/input",
    "drivers/isdn",
    "drivers/net/wireless",
    "drivers/net/ethernet",
    "drivers/bluetooth",
    "drivers/hwmon",
    "drivers/mtd",
];

/// An unpacked kernel package.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` has it.
    pub(crate) release: String,
    /// The package's files, with `boot/vmlinuz-*` and `lib/modules/*`.
    pub(crate) tree: PathBuf,
    /// The kernel as an uncompressed ELF file.
    pub(crate) vmlinux: PathBuf,
}

impl Kernel {
    /// The directory of the modules.
    pub(crate) fn modules(&self) -> PathBuf {
        self.tree.join("lib/modules").join(&self.release)
    }
}

/// Unpacks the kernel that the machine's sources offer.
pub(super) fn build(cache: &Path, say: fn(&str)) -> anyhow::Result<Kernel> {
    let meta = apt::candidates(&["linux-image-amd64"])?;
    let ingredients = format!("{} without {}", meta[0].version, UNUSED.join(" "));
    let entry = cache::entry(cache, "kernel", &ingredients, |dir| unpack(dir, say))?;
    let tree = entry.join("tree");
    Ok(Kernel { release: release_in(&tree)?, vmlinux: entry.join("vmlinux"), tree })
}

fn unpack(dir: &Path, say: fn(&str)) -> anyhow::Result<()> {
    let name = real_package()?;
    say(&format!("kernel: fetching {name}"));
    let package = apt::download(&name, dir)?;
    let tree = dir.join("tree");
    run(Command::new("dpkg-deb").arg("-x").args([&package, &tree]))?;
    fs::remove_file(package)?;
    let release = release_in(&tree)?;
    for part in UNUSED {
        fs::remove_dir_all(tree.join("lib/modules").join(&release).join("kernel").join(part))
            .with_context(|| format!("{name} has no {part}"))?;
    }
    fs::write(dir.join("vmlinux"), extract_vmlinux(&find_vmlinuz(&tree)?)?)?;
    Ok(())
}

/// The package that `linux-image-amd64` stands for.
fn real_package() -> anyhow::Result<String> {
    let depends = run(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))?;
    depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .map(|rest| format!("linux-image-{rest}"))
        .context("linux-image-amd64 depends on no kernel")
}

fn release_in(tree: &Path) -> anyhow::Result<String> {
    let entry = tree.join("lib/modules").read_dir()?.next().context("The kernel package has no modules")??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}
