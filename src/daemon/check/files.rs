//! Directories and programs: whether they are there, are root's alone, and keep what is written.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use procfs::process::{MountInfo, Process};

use super::Looked;
use crate::config::distrust;

/// Where libxl looks for hotplug programs (XEN_SCRIPT_DIR, as it is on every Linux).
pub(crate) const SCRIPTS_DIR: &str = "/etc/xen/scripts";
pub(crate) const BLOCK_DRBD: &str = "block-drbd";

/// File systems that forget with the host's power.
const FORGETFUL: [&str; 2] = ["tmpfs", "ramfs"];
/// Mount options with which what was synced may be lost all the same.
const CARELESS: [&str; 2] = ["nobarrier", "volatile"];

/// The journals: only root may write there, and what is synced must stay.
pub(crate) fn state_dir(dir: &Path) -> Looked {
    let what = format!("state {}", dir.display());
    if let Err((found, remedy)) = ours_alone(dir) {
        return Looked::problem(what, found, remedy);
    }
    match forgetful(dir, &mounts()) {
        Some(why) => Looked::problem(what, why, "Set state.dir to a directory on a disk of this host"),
        None => Looked::ok(what, "it can be written, by root alone"),
    }
}

/// The records of open migrations, which need not outlive the host.
pub(crate) fn run_dir(dir: &Path) -> Looked {
    let what = format!("records {}", dir.display());
    match ours_alone(dir) {
        Ok(()) => Looked::ok(what, "it can be written, by root alone"),
        Err((found, remedy)) => Looked::problem(what, found, remedy),
    }
}

/// A directory that is not there is made by the daemon, in the one above it.
fn ours_alone(dir: &Path) -> Result<(), (String, String)> {
    let there = dir.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let meta = fs::metadata(there).map_err(|error| (error.to_string(), format!("ls -ld {}", there.display())))?;
    if !meta.is_dir() {
        return Err((format!("{} is no directory", there.display()), format!("ls -ld {}", there.display())));
    }
    if there == dir
        && let Some(found) = distrust(meta.mode(), meta.uid())
    {
        let dir = dir.display();
        return Err((found, format!("chown root: {dir} && chmod 0700 {dir}")));
    }
    access(there, AccessFlags::W_OK).map_err(|errno| {
        (
            format!("{} cannot be written: {}", there.display(), errno.desc()),
            format!("findmnt --target {}", there.display()),
        )
    })
}

fn mounts() -> Vec<MountInfo> {
    Process::myself().and_then(|me| me.mountinfo()).map(|mounts| mounts.0).unwrap_or_default()
}

/// Why what was synced in `dir` may be lost with the power. What an overlay keeps is on the file system of its upper directory.
fn forgetful(dir: &Path, mounts: &[MountInfo]) -> Option<String> {
    let real = dir.ancestors().find_map(|above| above.canonicalize().ok())?;
    // Of two at one place the later hides the former.
    let at = |mount: &&MountInfo| real.starts_with(&mount.mount_point);
    let mount = mounts.iter().filter(at).max_by_key(|mount| mount.mount_point.components().count())?;
    let options = mount.super_options.iter().chain(&mount.mount_options);
    let careless = options.clone().find(|(name, value)| {
        CARELESS.contains(&name.as_str()) || (*name == "barrier" && value.as_deref() == Some("0"))
    });
    if FORGETFUL.contains(&mount.fs_type.as_str()) {
        return Some(format!(
            "{} is {}: the host forgets it with its power",
            mount.mount_point.display(),
            mount.fs_type
        ));
    }
    if let Some((name, _)) = careless {
        return Some(format!("{} is mounted with {name}: what was synced may be lost", mount.mount_point.display()));
    }
    let upper = options.clone().find(|(name, _)| *name == "upperdir").and_then(|(_, value)| value.clone());
    let upper = upper.map(PathBuf::from).filter(|upper| upper.exists() && !upper.starts_with(&mount.mount_point));
    upper.and_then(|upper| forgetful(&upper, mounts))
}

/// The program behind `drbd:RES`: DRBD's own package has a shell script of that name, which knows nothing of layers.
pub(crate) fn block_drbd() -> Looked {
    let path = Path::new(SCRIPTS_DIR).join(BLOCK_DRBD);
    let looked = program(&path);
    if looked.ok && is_script(&path) {
        let remedy = format!("install target/release/{BLOCK_DRBD} {SCRIPTS_DIR}/");
        return Looked::problem(looked.what, "it is a shell script, not bascule's", remedy);
    }
    looked
}

/// The programs that nics may name; two names of one are looked at once.
pub(crate) fn nic_scripts(names: &[String]) -> Vec<Looked> {
    let mut paths: Vec<PathBuf> = names.iter().map(|name| Path::new(SCRIPTS_DIR).join(name)).collect();
    paths.sort();
    paths.dedup();
    paths.iter().map(|path| program(path)).collect()
}

fn program(path: &Path) -> Looked {
    let what = format!("program {}", path.display());
    let (dir, name) = (path.parent().unwrap_or(path).display(), path.file_name().unwrap_or_default().display());
    match fs::metadata(path) {
        Err(error) => Looked::problem(what, error.to_string(), format!("install target/release/{name} {dir}/")),
        Ok(meta) if !meta.is_file() || meta.mode() & 0o111 == 0 => {
            Looked::problem(what, "it cannot be run", format!("chmod 0755 {}", path.display()))
        }
        Ok(meta) => match distrust(meta.mode(), meta.uid()) {
            Some(found) => Looked::problem(what, found, format!("chown root: {0} && chmod 0755 {0}", path.display())),
            None => Looked::ok(what, "it can be run"),
        },
    }
}

fn is_script(path: &Path) -> bool {
    let mut start = [0; 2];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"#!"
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
    }

    #[test]
    fn a_directory_of_others_and_a_file_in_its_place_are_problems() {
        let dir = tempfile::tempdir().expect("a directory");
        let ours = nix::unistd::geteuid().is_root();
        assert_eq!(run_dir(dir.path()).ok, ours);
        assert!(run_dir(&dir.path().join("made/by/the/daemon")).ok);
        chmod(dir.path(), 0o777);
        let found = run_dir(dir.path());
        assert!(!found.ok && found.remedy.is_some_and(|remedy| remedy.contains("chmod 0700")));
        fs::write(dir.path().join("file"), "").expect("a file");
        assert!(!run_dir(&dir.path().join("file/below")).ok);
    }

    #[test]
    fn what_forgets_is_found_under_an_overlay_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let real = dir.path().canonicalize().expect("its path");
        let (top, upper) = (real.join("top"), real.join("upper"));
        fs::create_dir_all(&top).and_then(|()| fs::create_dir_all(&upper)).expect("directories");
        let mount = |point: &Path, kind: &str, options: &str| {
            let line = format!("36 35 98:0 / {} rw,noatime - {kind} source rw{options}", point.display());
            MountInfo::from_line(&line).expect("a line of mountinfo")
        };
        let overlay = format!(",upperdir={}", upper.display());
        let rows = [
            (vec![mount(&top, "ext4", "")], false),
            (vec![mount(&top, "ext4", ",nobarrier")], true),
            (vec![mount(&top, "ext4", ",barrier=0")], true),
            (vec![mount(&real, "ext4", ""), mount(&top, "tmpfs", "")], true),
            (vec![mount(&real, "ext4", ""), mount(&top, "overlay", &overlay)], false),
            (vec![mount(&real, "tmpfs", ""), mount(&top, "overlay", &overlay)], true),
            (vec![mount(&top, "overlay", ",volatile")], true),
        ];
        for (mounts, forgets) in rows {
            assert_eq!(forgetful(&top.join("not/yet"), &mounts).is_some(), forgets, "{mounts:?}");
        }
    }

    #[test]
    fn a_program_is_a_file_of_roots_that_can_be_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("vif-bridge");
        assert!(program(&path).remedy.is_some_and(|remedy| remedy.starts_with("install target/release/vif-bridge ")));
        fs::write(&path, "#!/bin/sh\n").expect("a file");
        chmod(&path, 0o644);
        assert!(program(&path).remedy.is_some_and(|remedy| remedy.starts_with("chmod")));
        chmod(&path, 0o755);
        assert_eq!(program(&path).ok, nix::unistd::geteuid().is_root());
        assert!(is_script(&path));
    }
}
