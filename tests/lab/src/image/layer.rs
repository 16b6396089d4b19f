//! What one lab lays over the shared root file system: settings, keys, DRBD's resources, the guests, and modules of the user's own.
//!
//! It is a disk of its own, made anew at each start, so that a change here does not cost a new root file system.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::kernel::Kernel;
use super::root;
use crate::command::{as_root, run};
use crate::guest::GuestImage;
use crate::layout::{Layout, NODES};

/// A resource of the lab.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) volumes: &'static [Volume],
}

/// A volume of a resource. Its number is its place in the list; its partition is that of its minor.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) minor: u32,
    pub(crate) size_mib: u64,
}

/// What both nodes share. Four partitions are all that the disk has room for.
pub(crate) const RESOURCES: [Resource; 3] = [
    Resource { name: "r0", port: 7788, volumes: &[Volume { minor: 0, size_mib: 128 }] },
    Resource {
        name: "r1",
        port: 7789,
        volumes: &[Volume { minor: 1, size_mib: 64 }, Volume { minor: 2, size_mib: 64 }],
    },
    Resource { name: "r2", port: 7790, volumes: &[Volume { minor: 3, size_mib: 128 }] },
];

/// A domain that both nodes have a configuration file for.
#[derive(Debug)]
struct Domain {
    name: &'static str,
    number: u8,
    /// What `drbd:` names, and the guest's device.
    disks: &'static [(&'static str, &'static str)],
}

const DOMAINS: [Domain; 3] = [
    Domain { name: "vm0", number: 0, disks: &[("r0", "xvda")] },
    Domain { name: "vm1", number: 1, disks: &[("r1/0", "xvda"), ("r1/1", "xvdb")] },
    Domain { name: "vm2", number: 2, disks: &[("r2", "xvda")] },
];

const MEMORY_MIB: u32 = 128;

/// Files of the layer that are the same in every lab.
const FILES: [(&str, u32, &str); 9] = [
    ("etc/inittab", 0o644, include_str!("../../node/files/etc/inittab")),
    ("etc/lab-boot", 0o755, include_str!("../../node/files/etc/lab-boot")),
    ("etc/hosts", 0o644, include_str!("../../node/files/etc/hosts")),
    ("etc/ssh/sshd_config", 0o644, include_str!("../../node/files/etc/ssh/sshd_config")),
    ("etc/drbd.conf", 0o644, include_str!("../../node/files/etc/drbd.conf")),
    ("etc/drbd.d/global_common.conf", 0o644, include_str!("../../node/files/etc/drbd.d/global_common.conf")),
    ("etc/xen/xl.conf", 0o644, include_str!("../../node/files/etc/xen/xl.conf")),
    ("etc/bascule/bascule.toml", 0o644, include_str!("../../node/files/etc/bascule/bascule.toml")),
    ("root/.ssh/config", 0o600, include_str!("../../node/files/root/.ssh/config")),
];

/// Where the nodes find the guests' kernel and RAM disk.
const GUEST_DIR: &str = "var/lib/bascule-lab/guest";

/// Room beside the files, in MiB.
const SPARE_MIB: u64 = 16;

/// Which DRBD the nodes load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Drbd {
    /// The kernel's own, 8.4.
    InTree,
    /// Modules in this directory, of version 9.
    Nine(PathBuf),
    /// Modules in this directory, of version 8.4.
    Eight(PathBuf),
}

impl Drbd {
    /// Looks at the modules that the user named.
    pub(crate) fn choose(modules: Option<&Path>) -> anyhow::Result<Self> {
        let Some(dir) = modules else { return Ok(Self::InTree) };
        let dir = dir.canonicalize().with_context(|| format!("{} is not there", dir.display()))?;
        ensure!(dir.join("drbd.ko").exists(), "{} holds no drbd.ko", dir.display());
        let version = modinfo(&dir, "version")?;
        Ok(if version.starts_with('8') { Self::Eight(dir) } else { Self::Nine(dir) })
    }

    fn modules(&self) -> Option<&Path> {
        match self {
            Self::InTree => None,
            Self::Eight(dir) | Self::Nine(dir) => Some(dir),
        }
    }
}

/// Writes the image.
pub(super) fn write(
    image: &Path,
    layout: &Layout,
    kernel: &Kernel,
    guest: &GuestImage,
    drbd: &Drbd,
) -> anyhow::Result<()> {
    let tree = tempfile::tempdir_in(layout.dir())?;
    let tree = tree.path();
    for (path, mode, contents) in FILES {
        put(tree, path, mode, contents.as_bytes())?;
    }
    put_keys(tree, layout)?;
    for (name, file) in [("kernel", &guest.kernel), ("vmlinuz", &guest.compressed), ("initrd", &guest.initrd)] {
        put(tree, &format!("{GUEST_DIR}/{name}"), 0o644, &fs::read(file)?)?;
    }
    for domain in &DOMAINS {
        put(tree, &format!("etc/xen/{}.cfg", domain.name), 0o644, domain_file(domain).as_bytes())?;
    }
    for resource in &RESOURCES {
        put(tree, &format!("etc/drbd.d/{}.res", resource.name), 0o644, resource_file(resource, drbd).as_bytes())?;
    }
    if let Some(dir) = drbd.modules() {
        put_drbd_modules(tree, kernel, dir)?;
    }
    write_image(tree, image)
}

/// The keys of the lab: one to come in by, which the nodes also use among themselves, and that of their ssh servers.
fn put_keys(tree: &Path, layout: &Layout) -> anyhow::Result<()> {
    for key in ["id", "host"] {
        let file = layout.file(&format!("{key}_ed25519"));
        if !file.exists() {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]).arg(&file))?;
        }
    }
    let key = |name: &str| fs::read(layout.file(name));
    put(tree, "root/.ssh/id_ed25519", 0o600, &key("id_ed25519")?)?;
    put(tree, "root/.ssh/authorized_keys", 0o600, &key("id_ed25519.pub")?)?;
    put(tree, "etc/ssh/ssh_host_ed25519_key", 0o600, &key("host_ed25519")?)?;
    put(tree, "etc/ssh/ssh_host_ed25519_key.pub", 0o644, &key("host_ed25519.pub")?)
}

/// Puts modules of the user's own where modprobe prefers them to the kernel's (depmod.d(5), `search updates built-in`).
fn put_drbd_modules(tree: &Path, kernel: &Kernel, dir: &Path) -> anyhow::Result<()> {
    let built_for = modinfo(dir, "vermagic")?;
    ensure!(
        built_for.split(' ').next() == Some(kernel.release.as_str()),
        "The modules in {} were built for Linux {}, the nodes run {}",
        dir.display(),
        built_for.trim(),
        kernel.release
    );
    // depmod wants all modules in one tree; beside the user's own, its lists are what the layer needs of it.
    let whole = tempfile::tempdir()?;
    let modules = whole.path().join("lib/modules").join(&kernel.release);
    root::stage_modules(&modules, kernel)?;
    let updates = modules.join("updates");
    fs::create_dir(&updates)?;
    for path in files_in(dir)?.iter().filter(|path| path.extension().is_some_and(|extension| extension == "ko")) {
        fs::copy(path, updates.join(path.file_name().unwrap_or_default()))?;
    }
    run(Command::new("depmod").arg("-b").args([whole.path().as_os_str(), kernel.release.as_ref()]))?;
    for path in files_in(&updates)?.iter().chain(&files_in(&modules)?).filter(|path| path.is_file()) {
        let below = path.strip_prefix(whole.path())?;
        put(tree, &format!("usr/{}", below.display()), 0o644, &fs::read(path)?)?;
    }
    Ok(())
}

fn files_in(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    dir.read_dir()?.map(|entry| Ok(entry?.path())).collect()
}

fn modinfo(dir: &Path, field: &str) -> anyhow::Result<String> {
    run(Command::new("modinfo").args(["-F", field]).arg(dir.join("drbd.ko")))
}

/// The configuration of a domain, for xl as well as for bascule.
fn domain_file(domain: &Domain) -> String {
    let disks: Vec<String> =
        domain.disks.iter().map(|(target, device)| format!("\"drbd:{target},{device},w\"")).collect();
    let devices: Vec<&str> = domain.disks.iter().map(|(_, device)| *device).collect();
    let number = domain.number;
    format!(
        r#"name = "{name}"
type = "pv"
memory = {MEMORY_MIB}
vcpus = 1
kernel = "/{GUEST_DIR}/kernel"
ramdisk = "/{GUEST_DIR}/initrd"
extra = "console=hvc0 quiet lab.name={name} lab.ip=10.97.0.{host}/24 lab.disks={devices}"
disk = [ {disks} ]
vif = [ "mac=00:16:3e:ba:00:{number:02x},bridge=xenbr0" ]
on_poweroff = "destroy"
on_reboot = "restart"
on_crash = "destroy"
"#,
        name = domain.name,
        host = number + 10,
        devices = devices.join(","),
        disks = disks.join(", "),
    )
}

fn resource_file(resource: &Resource, drbd: &Drbd) -> String {
    let mut text = format!("resource {} {{\n", resource.name);
    for (number, volume) in resource.volumes.iter().enumerate() {
        let (minor, partition) = (volume.minor, volume.minor + 1);
        let _ = writeln!(text, "    volume {number} {{");
        let _ = writeln!(text, "        device /dev/drbd{minor} minor {minor};");
        let _ = writeln!(text, "        disk /dev/vdc{partition};");
        text.push_str("        meta-disk internal;\n    }\n");
    }
    for node in NODES {
        let _ = write!(text, "    on node{node} {{\n        address 10.98.0.{node}:{};\n", resource.port);
        if matches!(drbd, Drbd::Nine(_)) {
            let _ = writeln!(text, "        node-id {};", node - 1);
        }
        text.push_str("    }\n");
    }
    text.push_str("}\n");
    text
}

fn put(tree: &Path, path: &str, mode: u32, contents: &[u8]) -> anyhow::Result<()> {
    let file = tree.join(path);
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(&file, contents)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Everything in the layer is root's: sshd and ssh insist on it.
fn write_image(tree: &Path, image: &Path) -> anyhow::Result<()> {
    fs::set_permissions(tree, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(tree.join("root/.ssh"), fs::Permissions::from_mode(0o700))?;
    fs::set_permissions(tree.join("root"), fs::Permissions::from_mode(0o700))?;
    run(as_root("chown").args(["-R", "0:0"]).arg(tree))?;
    let used = run(as_root("du").arg("-sm").arg(tree))?;
    let used_mib: u64 = used.split_whitespace().next().unwrap_or_default().parse().context("du printed no number")?;
    fs::remove_file(image).ok();
    let made = run(as_root("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"])
        .args([tree, image])
        .arg(format!("{}M", used_mib + used_mib / 10 + SPARE_MIB)));
    let owner = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
    run(as_root("chown").args(["-R", &owner]).arg(tree))?;
    made?;
    run(as_root("chown").arg(&owner).arg(image))?;
    Ok(())
}
