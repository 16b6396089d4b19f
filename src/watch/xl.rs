//! The process that `xl create` leaves behind for its domain, which acts when the domain shuts down: whoever else does must know of it.
//!
//! xl keeps no record of it. What can be seen is a process called xl whose output is a file below xl's directory of logs, and in that file
//! which domain it waits for (xl_vmcontrol.c, create_domain; xl_utils.c, do_daemonize). It ends when its domain suspends, also when that is
//! resumed afterwards.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::ids::DomId;

/// Where xl's processes write what they do (`XEN_LOG_DIR`).
const LOGS: &str = "/var/log/xen/xl-";
/// How much of the end of such a log is read, in bytes.
const TAIL: u64 = 64 * 1024;

/// Whether a process of xl's acts when this domain shuts down.
#[must_use]
pub fn watches(domid: DomId, name: &str) -> bool {
    watches_in(Path::new("/proc"), domid, name)
}

fn watches_in(proc: &Path, domid: DomId, name: &str) -> bool {
    let Ok(processes) = fs::read_dir(proc) else { return false };
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(|pid| log_of(proc, pid).map(|log| (pid, log))).any(|(pid, log)| {
        // The file itself, whatever it is called by now; and its name where it says nothing.
        let said = tail(&proc.join(format!("{pid}/fd/1"))).and_then(|text| waits_for(&text, pid));
        said.map_or_else(|| is_log_of(&log, name), |waits_for| waits_for == domid)
    })
}

/// The log of a process of xl's that stays with a domain.
fn log_of(proc: &Path, pid: u32) -> Option<PathBuf> {
    let comm = fs::read_to_string(proc.join(format!("{pid}/comm"))).ok()?;
    let log = fs::read_link(proc.join(format!("{pid}/fd/1"))).ok()?;
    (comm.trim_end() == "xl" && log.to_str()?.starts_with(LOGS)).then_some(log)
}

fn tail(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The domain that this process said last it waits for: `Waiting for domain NAME (domid N) to die [pid P]`.
fn waits_for(log: &str, pid: u32) -> Option<DomId> {
    let end = format!(") to die [pid {pid}]");
    let line = log.lines().rev().find(|line| line.trim_end().ends_with(&end))?;
    let (_, number) = line.trim_end().strip_suffix(&end)?.rsplit_once("(domid ")?;
    number.parse().ok().map(DomId)
}

/// `/var/log/xen/xl-NAME.log`, or an older one with a number behind it.
fn is_log_of(log: &Path, name: &str) -> bool {
    let rest = log.to_str().and_then(|log| log.strip_prefix(LOGS)).and_then(|rest| rest.strip_prefix(name));
    rest.is_some_and(|rest| rest == ".log" || rest.starts_with(".log."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_last_domain_that_a_process_waited_for_counts() {
        let log = "Waiting for domain vm0 (domid 3) to die [pid 77]\nDomain 3 has shut down, reason code 1 0x1\n\
                   Waiting for domain vm0 (domid 4) to die [pid 77]\nWaiting for domain b (domid 9) to die [pid 78]\n";
        assert_eq!(waits_for(log, 77), Some(DomId(4)));
        assert_eq!(waits_for(log, 78), Some(DomId(9)));
        assert_eq!((waits_for(log, 7), waits_for("", 77)), (None, None));
    }

    #[test]
    fn a_log_is_known_by_its_name_where_it_says_nothing() {
        let rows = [("xl-vm0.log", true), ("xl-vm0.log.3", true), ("xl-vm01.log", false), ("xl-vm.log", false)];
        for (log, expected) in rows {
            assert_eq!(is_log_of(&Path::new("/var/log/xen").join(log), "vm0"), expected, "{log}");
        }
    }

    /// Pretended processes: the log cannot be read, so that its name counts.
    #[test]
    fn only_a_process_of_xls_is_one() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, comm, output) in
            [(1, "init", "/dev/null"), (20, "xl", "/dev/pts/0"), (21, "cat", "/var/log/xen/xl-vm0.log")]
        {
            fs::create_dir_all(proc.path().join(format!("{pid}/fd"))).unwrap();
            fs::write(proc.path().join(format!("{pid}/comm")), format!("{comm}\n")).unwrap();
            symlink(output, proc.path().join(format!("{pid}/fd/1"))).unwrap();
        }
        assert!(!watches_in(proc.path(), DomId(3), "vm0"));
        fs::write(proc.path().join("21/comm"), "xl\n").unwrap();
        assert!(watches_in(proc.path(), DomId(3), "vm0") && !watches_in(proc.path(), DomId(3), "vm1"));
    }
}
