//! What the machine that runs the lab must have: Debian 12 and a few of its packages.

use std::collections::HashSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::command::{as_root, run};

/// Packages of the host, and what each is for.
const PACKAGES: [&str; 14] = [
    "qemu-system-x86", // the nodes
    "mmdebstrap",      // their root file system
    "e2fsprogs",       // its image
    "kmod",            // depmod
    "xz-utils",        // the dom0 kernel is an XZ stream in its vmlinuz
    "openssh-client",  // the way into the nodes
    "debian-archive-keyring",
    "iproute2", // the firewall's tests
    "iptables",
    "nftables",
    "libxen-dev", // to build bascule itself
    "libclang-dev",
    "pkg-config",
    "g++", // the fuzzer's engine
];

/// Installs the packages that the lab and the build of our programs need and that are missing, by apt-get from the machine's own
/// sources. Says so before it does.
///
/// # Errors
/// This is not Debian 12, or apt-get failed.
pub fn ensure_packages(say: fn(&str)) -> anyhow::Result<()> {
    ensure_supported()?;
    let missing = missing_packages(&PACKAGES)?;
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!("installing Debian packages: {}", missing.join(" ")));
    if install(&missing).is_err() {
        update_package_lists()?;
        install(&missing).context("The packages that the lab needs cannot be installed")?;
    }
    Ok(())
}

/// Fetches the package lists anew.
pub(crate) fn update_package_lists() -> anyhow::Result<()> {
    run(as_root("apt-get").args(["-qq", "update"])).context("apt-get cannot fetch the package lists")?;
    Ok(())
}

/// Says no where the lab cannot run at all.
///
/// # Errors
/// This is not Debian 12 on x86_64.
pub fn ensure_supported() -> anyhow::Result<()> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let bookworm = release.lines().any(|line| line == "VERSION_CODENAME=bookworm");
    ensure!(
        bookworm && cfg!(target_arch = "x86_64"),
        "The lab needs Debian 12 (bookworm) on x86_64: its nodes are made from the packages of the machine's own sources"
    );
    Ok(())
}

fn missing_packages<'a>(wanted: &[&'a str]) -> anyhow::Result<Vec<&'a str>> {
    // dpkg-query exits 1 when it does not know one of the names; what it prints for the others is still good.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output()
        .context("dpkg-query cannot be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let installed: HashSet<&str> = text.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    Ok(wanted.iter().copied().filter(|name| !installed.contains(name)).collect())
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    run(as_root("env")
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--no-install-recommends"])
        .args(packages))?;
    Ok(())
}
