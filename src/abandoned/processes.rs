//! What libxl has started for a process of ours that was killed, and what still goes on: its helper, which reads or writes a domain's memory,
//! and the hotplug programs of the domain's devices.
//!
//! A helper dies when it next has something to say to the process that is gone; until then it writes. Its command line is
//! `MODE FD FD DOMID ...` (libxl_save_helper.c); a hotplug program has its backend in `XENBUS_PATH` (libxl_linux.c).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ids::DomId;
use crate::saved::Inode;
use crate::toolstack::Error;
use crate::wait::poll_until;

/// How long a helper may take to end when it is killed: what it had mapped is given back.
const HELPER_WAIT: Duration = Duration::from_secs(10);
/// How long a hotplug program may go on: libxl would give it 40 s.
const HOTPLUG_WAIT: Duration = Duration::from_secs(45);

/// What a process does to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// It writes its memory to the file that was left, or fills it.
    Helps,
    /// It writes its memory elsewhere: somebody else is at work.
    SavesElsewhere,
    /// It attaches or detaches a device.
    Plugs,
}

/// Ends the helper that a killed process has left for a domain, and waits for its hotplug programs. `file` is what it was saved to.
///
/// # Errors
/// They do not end, or somebody else works on the domain.
pub(super) fn end_of(domid: DomId, file: Option<Inode>) -> Result<(), Error> {
    let look = |wanted| works(Path::new("/proc"), domid, file).find_map(|(pid, work)| (work == wanted).then_some(pid));
    if let Some(pid) = look(Work::SavesElsewhere) {
        return Err(format!("Process {pid} saves domain {domid}, and not to this file: it is not touched").into());
    }
    if let Some(pid) = look(Work::Helps) {
        tracing::warn!(%domid, process = pid, "the helper of a killed process is ended");
        kill(Pid::from_raw(pid), Signal::SIGKILL).or_else(|errno| match errno {
            nix::errno::Errno::ESRCH => Ok(()),
            errno => Err(format!("Process {pid}, which works on domain {domid}, cannot be ended: {errno}")),
        })?;
    }
    for (work, wait) in [(Work::Helps, HELPER_WAIT), (Work::Plugs, HOTPLUG_WAIT)] {
        if poll_until(Instant::now() + wait, || look(work).is_none().then_some(())).is_none() {
            return Err(format!("What libxl has started for domain {domid} does not end: ps -ef").into());
        }
    }
    Ok(())
}

/// The processes that work on a domain. One that ends meanwhile does nothing any more.
fn works(proc: &Path, domid: DomId, file: Option<Inode>) -> impl Iterator<Item = (i32, Work)> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    processes.filter_map(move |(pid, dir)| Some((pid, work(&dir, domid, file)?)))
}

fn work(dir: &Path, domid: DomId, file: Option<Inode>) -> Option<Work> {
    let words = strings(&dir.join("cmdline"));
    let is_of = words.get(4).and_then(|word| word.parse().ok()) == Some(domid.0);
    match words.get(1).map(String::as_str) {
        Some("--restore-domain") if is_of => Some(Work::Helps),
        Some("--save-domain") if is_of => match file.is_some_and(|file| has_open(dir, file)) {
            true => Some(Work::Helps),
            false => Some(Work::SavesElsewhere),
        },
        _ => strings(&dir.join("environ")).iter().any(|variable| is_backend_of(variable, domid)).then_some(Work::Plugs),
    }
}

fn is_backend_of(variable: &str, domid: DomId) -> bool {
    let of = |path: &str| path.rsplit('/').nth(1)?.parse().ok();
    variable.strip_prefix("XENBUS_PATH=").and_then(of) == Some(domid.0)
}

fn has_open(dir: &Path, file: Inode) -> bool {
    let descriptors = fs::read_dir(dir.join("fd")).into_iter().flatten().flatten();
    descriptors.into_iter().any(|descriptor| Inode::at(&descriptor.path()) == Some(file))
}

/// The strings of a file of procfs, each with a NUL behind it (proc(5)); none where it cannot be read.
fn strings(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Pretended processes.
    #[test]
    fn what_works_on_the_domain_is_known_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (partial, other) = (dir.path().join("partial"), dir.path().join("other"));
        fs::write(&partial, "").unwrap();
        fs::write(&other, "").unwrap();
        let inode = Inode::at(&partial);
        let save = "libxl-save-helper\0--save-domain\x0011\x00-1\x003\x000\x00136\x000\0";
        let restore = "libxl-save-helper\0--restore-domain\x0011\x00-1\x003\x001\x000\x002\x000\x007\x000\0";
        let plug = "XENBUS_PATH=/local/domain/0/backend/vbd/3/51712\0";
        let rows = [
            (save, "", &partial, Some(Work::Helps)),
            (save, "", &other, Some(Work::SavesElsewhere)),
            (restore, "", &other, Some(Work::Helps)),
            (&save.replace("\x003\0", "\x004\0"), "", &partial, None),
            (&restore.replace("\x003\0", "\x0033\0"), "", &partial, None),
            ("block-drbd\0add\0", plug, &other, Some(Work::Plugs)),
            ("block-drbd\0add\0", &plug.replace("/3/", "/51712/"), &other, None),
            ("less\0partial\0", "PATH=/bin\0", &partial, None),
            ("", "", &other, None),
        ];
        for (nr, (cmdline, environ, file, expected)) in rows.into_iter().enumerate() {
            let process = dir.path().join(format!("proc{nr}/77"));
            fs::create_dir_all(process.join("fd")).unwrap();
            fs::write(process.join("cmdline"), cmdline).unwrap();
            fs::write(process.join("environ"), environ).unwrap();
            symlink(file, process.join("fd/11")).unwrap();
            let found: Vec<_> = works(process.parent().unwrap(), DomId(3), inode).collect();
            assert_eq!(found, Vec::from_iter(expected.map(|work| (77, work))), "{cmdline:?} {environ:?}");
        }
    }
}
