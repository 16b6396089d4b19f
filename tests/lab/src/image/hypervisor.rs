//! The hypervisor: one exact version, because the later ones of Debian 12 cannot migrate paravirtual domains.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::apt;
use crate::cache;
use crate::command::run;

/// Debian's 4.17.7 is built without CONFIG_SHADOW_PAGING: "Failed to enable logdirty: 95" when a PV domain migrates live.
/// This one, the last before it, has it. The tools of both work with either.
const PACKAGE: &str = "xen-hypervisor-4.17-amd64=4.17.5+72-g01140da4e8-1";

/// Returns the hypervisor as an uncompressed multiboot ELF file. The package stays beside it.
pub(super) fn build(cache: &Path, say: fn(&str)) -> anyhow::Result<PathBuf> {
    let entry = cache::entry(cache, "hypervisor", PACKAGE, |dir| {
        say("hypervisor: fetching Xen 4.17.5");
        let package = apt::download(PACKAGE, dir).context(
            "The lab needs exactly this version of the hypervisor: the later ones of Debian 12 are built without shadow \
             paging and cannot migrate PV domains live",
        )?;
        let tree = dir.join("tree");
        run(Command::new("dpkg-deb").arg("-x").args([&package, &tree]))?;
        run(Command::new("gzip").arg("-dk").arg(tree.join("boot/xen-4.17-amd64.gz")))?;
        fs::rename(tree.join("boot/xen-4.17-amd64"), dir.join("xen"))?;
        fs::remove_dir_all(tree)?;
        Ok(())
    })?;
    Ok(entry.join("xen"))
}
