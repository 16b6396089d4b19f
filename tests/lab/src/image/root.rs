//! The root file system of the nodes: packages installed by mmdebstrap, a few modules, one ext4 image that both nodes read
//! and neither writes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::kernel::Kernel;
use crate::apt;
use crate::cache;
use crate::command::{as_root, run};
use crate::guest::modules::ModuleTree;

/// What a node has beside Debian's minimal system. qemu-system-xen serves PVH and HVM guests.
const PACKAGES: [&str; 28] = [
    "bridge-utils",
    "busybox-static",
    "dmsetup",
    "drbd-utils",
    "e2fsprogs",
    "ethtool",
    "iperf3",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "less",
    "libxenmisc4.17",
    "libxenstore4",
    "lsof",
    "netcat-openbsd",
    "openssh-client",
    "openssh-server",
    "procps",
    "psmisc",
    "qemu-system-xen",
    "socat",
    "strace",
    "tcpdump",
    "util-linux",
    "xen-utils-4.17",
    "xenstore-utils",
    "xz-utils",
];

/// Modules that a node can load. `handshake` and `tls` are there for kTLS and for DRBD 9. ChaCha20 and Poly1305 are the plain ones: what emulates a
/// processor does its vector instructions one by one, and what they encrypt is many times slower.
const MODULES: [&str; 44] = [
    "xen_evtchn",
    "xen_gntdev",
    "xen_gntalloc",
    "xen_privcmd",
    "xenfs",
    "xen_blkback",
    "xen_netback",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "ext4",
    "overlay",
    "loop",
    "brd",
    "bridge",
    "tun",
    "veth",
    "dummy",
    "8021q",
    "nlmon",
    "sch_netem",
    "drbd",
    "dm_mod",
    "dm_snapshot",
    "dm_flakey",
    "dm_delay",
    "tls",
    "crc32c_generic",
    "crc32c_intel",
    "sha1_generic",
    "sha256_generic",
    "hmac",
    "gcm",
    "ccm",
    "chacha20poly1305",
    "chacha_generic",
    "poly1305_generic",
    "aesni_intel",
    "unix_diag",
    "tcp_diag",
    "udp_diag",
    "ip_tables",
    "iptable_filter",
    "xt_tcpudp",
];

/// Directories of the root file system that are emptied: they are half of its size and nobody reads them there.
const EMPTIED: [&str; 5] = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache/apt"];

/// Room beside the files, in MiB. Nobody writes there, but mke2fs needs some for its tables.
const SPARE_MIB: u64 = 64;

/// The image, and the program that runs before it is mounted.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) image: PathBuf,
    pub(super) busybox: PathBuf,
}

/// Builds the root file system from the machine's apt sources.
pub(super) fn build(cache: &Path, kernel: &Kernel, say: fn(&str)) -> anyhow::Result<Root> {
    let candidates = apt::candidates(&PACKAGES)?;
    let versions: Vec<String> = candidates.iter().map(|c| format!("{}={}", c.package, c.version)).collect();
    let ingredients = format!("{}\n{}\n{}\n", versions.join("\n"), kernel.release, MODULES.join(" "));
    let entry = cache::entry(cache, "root", &ingredients, |dir| {
        say("root file system: mmdebstrap (about a minute)");
        let tree = dir.join("tree");
        install_packages(&tree)?;
        install_modules(&tree, kernel)?;
        // Read by those who may not enter a tree of root's.
        fs::write(dir.join("busybox"), fs::read(tree.join("bin/busybox"))?)?;
        write_image(&tree, &dir.join("root.img"))
    })?;
    Ok(Root { image: entry.join("root.img"), busybox: entry.join("busybox") })
}

fn install_packages(tree: &Path) -> anyhow::Result<()> {
    let mut command = as_root("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", "--mode=root", "--format=directory"]);
    command.args(["--aptopt=APT::Install-Recommends \"false\";", "--dpkgopt=force-unsafe-io"]);
    for option in apt::transport_options()? {
        command.arg(format!("--aptopt={option}"));
    }
    for dir in EMPTIED {
        command.arg(format!("--dpkgopt=path-exclude=/{dir}/*"));
    }
    command.arg(format!("--include={}", PACKAGES.join(",")));
    let sources = tempfile::NamedTempFile::new()?;
    fs::write(sources.path(), apt::debian_sources()?)?;
    run(command.arg("bookworm").args([tree, sources.path()])).context("mmdebstrap cannot build a root file system")?;
    for dir in EMPTIED {
        run(as_root("find").arg(tree.join(dir)).args(["-mindepth", "1", "-delete"]))?;
    }
    Ok(())
}

fn install_modules(tree: &Path, kernel: &Kernel) -> anyhow::Result<()> {
    let staged = tempfile::tempdir()?;
    stage_modules(staged.path(), kernel)?;
    let modules = tree.join("usr/lib/modules").join(&kernel.release);
    run(as_root("mkdir").arg("-p").arg(&modules))?;
    run(as_root("cp").args(["-r", "--no-preserve=ownership"]).arg(staged.path().join(".")).arg(&modules))?;
    run(as_root("depmod").arg("-b").args([tree.as_os_str(), kernel.release.as_ref()]))?;
    Ok(())
}

/// Puts what `/lib/modules/RELEASE` of a node holds into a directory, without depmod's lists. The modules lie flat: those
/// lists are all that modprobe goes by.
pub(super) fn stage_modules(dir: &Path, kernel: &Kernel) -> anyhow::Result<()> {
    fs::create_dir_all(dir.join("kernel"))?;
    for module in ModuleTree::of(&kernel.tree)?.load_order(&MODULES)? {
        fs::write(dir.join("kernel").join(format!("{}.ko", module.name)), module.contents)?;
    }
    for list in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        fs::copy(kernel.modules().join(list), dir.join(list))?;
    }
    Ok(())
}

fn write_image(tree: &Path, image: &Path) -> anyhow::Result<()> {
    let used = run(as_root("du").args(["-sm", "--apparent-size"]).arg(tree))?;
    let used_mib: u64 = used.split_whitespace().next().unwrap_or_default().parse().context("du printed no number")?;
    let size_mib = used_mib + used_mib / 5 + SPARE_MIB;
    run(as_root("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"])
        .args([tree, image])
        .arg(format!("{size_mib}M")))?;
    run(as_root("chmod").arg("0644").arg(image))?;
    run(as_root("rm").args(["-rf", "--one-file-system", "--"]).arg(tree))?;
    Ok(())
}
