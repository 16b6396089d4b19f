//! The workload guest as a domain boots it: Debian's kernel, uncompressed, and an initrd with the drivers of a PV, PVH or
//! HVM domain and the program of `lab-guest` as its init.
//!
//! The domain needs, beside `kernel` and `ramdisk`: `extra = "console=hvc0 …"` with the parameters of `lab_guest::cmdline`,
//! 96 MiB of memory plus the checked area, ext4 on each disk, and a nic in the guests' LAN.

pub mod initrd;
pub mod kernel;
pub mod modules;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use initrd::Initrd;
use modules::ModuleTree;

/// What the guest's init loads: the disk and the nic of a Xen domain, and ext4 with the checksum that it asks the kernel's crypto layer for.
pub const XEN_MODULES: [&str; 4] = ["crc32c_generic", "ext4", "xen_blkfront", "xen_netfront"];
/// The target that the program is built for; naming it keeps the flags for static linking from build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The files that a domain of the workload guest boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestImage {
    /// The kernel as an ELF file: Xen's tools load it as it is, without a decompression that is slow under emulation.
    pub kernel: PathBuf,
    /// The same kernel as it came, for HVM domains: QEMU loads no other with an initrd.
    pub compressed: PathBuf,
    /// The initrd, not compressed for the same reason.
    pub initrd: PathBuf,
}

/// Builds the guest from `kernel_tree`, an unpacked linux-image package, into the directory `out`. Files that are there are replaced, each at once.
///
/// # Errors
/// A tree without kernel or modules, a missing decompressor (xz), or a program that does not build.
pub fn build(kernel_tree: &Path, out: &Path) -> anyhow::Result<GuestImage> {
    build_with(kernel_tree, &XEN_MODULES, out)
}

/// As [`build`], with the modules named by the caller; what they depend on comes with them.
///
/// # Errors
/// As [`build`].
pub fn build_with(kernel_tree: &Path, modules: &[&str], out: &Path) -> anyhow::Result<GuestImage> {
    fs::create_dir_all(out)?;
    let (kernel, initrd) = (out.join("guest-vmlinux"), out.join("guest-initrd"));
    let image = GuestImage { kernel, compressed: kernel::find_vmlinuz(kernel_tree)?, initrd };
    write_at_once(&image.kernel, &kernel::extract_vmlinux(&image.compressed)?)?;
    let program = fs::read(build_program()?)?;
    let modules = ModuleTree::of(kernel_tree)?.load_order(modules)?;
    write_at_once(&image.initrd, &pack(&program, &modules)?)?;
    Ok(image)
}

/// Builds `lab-guest` as a static program and returns its path.
fn build_program() -> anyhow::Result<PathBuf> {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target_dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| lab.join("../../target"), PathBuf::from);
    let target_dir = std::path::absolute(target_dir)?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--release", "--package", "lab-guest", "--bin", "lab-guest", "--target", TARGET]);
    cargo.arg("--target-dir").arg(&target_dir).current_dir(lab);
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols");
    let status = cargo.status().context("cargo cannot be run")?;
    ensure!(status.success(), "lab-guest does not build: {cargo:?} ended with {status}");
    Ok(target_dir.join(TARGET).join("release/lab-guest"))
}

fn pack(program: &[u8], modules: &[modules::Module]) -> anyhow::Result<Vec<u8>> {
    let mut initrd = Initrd::new();
    for dir in ["dev", "proc", "sys", "data", "sbin", "lib", "lib/modules"] {
        initrd.directory(dir)?;
    }
    // The kernel opens the console for init before init can mount anything.
    initrd.character_device("dev/console", 5, 1)?;
    initrd.character_device("dev/null", 1, 3)?;
    initrd.file("init", 0o755, program)?;
    for name in ["sbin/poweroff", "sbin/reboot"] {
        initrd.symlink(name, "/init")?;
    }
    let mut list = String::new();
    for module in modules {
        let path = format!("lib/modules/{}.ko", module.name);
        initrd.file(&path, 0o644, &module.contents)?;
        list.push_str(&format!("/{path}\n"));
    }
    initrd.file(lab_guest::init::MODULE_LIST.trim_start_matches('/'), 0o644, list.as_bytes())?;
    initrd.finish()
}

/// A reader sees the old file or the new one, never a part.
fn write_at_once(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, contents).with_context(|| format!("{} cannot be written", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("{} cannot be put in place", path.display()))
}
