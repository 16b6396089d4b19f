//! The daemon, what it keeps, and what it has left to do.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use procfs::process::Process;

use super::Asked;
use super::report::Report;
use super::ways::Guest;
use crate::config::Security;
use crate::daemon::check::address::{INIT, OUR_NAME, listener};
use crate::daemon::check::{Looked, files};
use crate::journal::{self, Listed};
use crate::migrate::chain;
use crate::plan::is_between_hosts;
use crate::tls::certificates::Files;
use crate::tls::{Identity, Pins, expiry};

const UNIT: &str = "bascule.service";
/// Where systemd's units are.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// There where systemd is what the host was booted with (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";
/// How long before its end a certificate is worth a warning.
const EXPIRY_NOTICE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Service {
    daemon: Option<Daemon>,
    /// Each address that should be listened on, and who does.
    listeners: Vec<(SocketAddr, Option<(i32, String)>)>,
    unit: Option<Unit>,
}

/// The process of `bascule serve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Daemon {
    pid: i32,
    /// Whether its program is the file that this process runs, where that can be told.
    same_program: Option<bool>,
}

/// What systemd has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Missing,
    Disabled,
    Enabled,
}

impl Service {
    pub(super) fn look(asked: &Asked<'_>) -> Service {
        let addresses = asked.listen.iter().flatten();
        Service {
            daemon: Daemon::look(),
            listeners: addresses.map(|address| (*address, listener(*address))).collect(),
            unit: Path::new(SYSTEMD).is_dir().then(Unit::look),
        }
    }

    pub(super) fn judge(&self, asked: &Asked<'_>, is_root: bool, report: &mut Report) {
        if let Err(why) = asked.listen {
            report.error("daemon-listens-nowhere", why.as_str(), "bascule config show, and bascule serve --check");
        }
        match self.daemon {
            Some(daemon) => daemon.judge(report),
            None => report.error(
                "daemon-down",
                "No bascule serve runs: no domain can come here, and nobody finishes a migration that was interrupted",
                "systemctl start bascule, or: bascule serve",
            ),
        }
        match is_root {
            true => self.judge_listeners(report),
            false => report.cannot_tell("not-root", "Only root can see who listens on the port", "sudo bascule check"),
        }
        self.judge_unit(report);
        if is_root {
            judge_directories(files::state_dir(&asked.config.state.dir), files::run_dir(asked.run_dir), report);
        }
    }

    fn judge_listeners(&self, report: &mut Report) {
        for (address, listener) in &self.listeners {
            match listener {
                Some((pid, name)) if name == OUR_NAME || *pid == INIT => {}
                Some((pid, name)) => report.error(
                    "port-taken",
                    format!("{name} (process {pid}) listens on {address}, where the daemon should"),
                    format!("systemctl status {pid}; end it, or set relocation.port to another one"),
                ),
                None if self.daemon.is_some() => report.error(
                    "daemon-not-listening",
                    format!("The daemon runs and does not listen on {address}"),
                    "Compare relocation.address and port (bascule config show), then: systemctl restart bascule",
                ),
                None => {}
            }
        }
    }

    fn judge_unit(&self, report: &mut Report) {
        match self.unit {
            Some(Unit::Missing) => report.note_with(
                "unit-missing",
                "Systemd has no unit of the daemon: nobody starts it when the host boots",
                "install -m 644 systemd/bascule.* /etc/systemd/system/ && systemctl enable --now bascule",
            ),
            Some(Unit::Disabled) => report.warning(
                "unit-disabled",
                "The daemon's unit is not enabled: nobody starts it when the host boots",
                "systemctl enable bascule",
            ),
            Some(Unit::Enabled) | None => {}
        }
    }
}

impl Daemon {
    fn look() -> Option<Daemon> {
        let processes = procfs::process::all_processes().into_iter().flatten().flatten();
        let daemon = processes.into_iter().find(is_daemon)?;
        Some(Daemon { pid: daemon.pid, same_program: is_same_program(daemon.pid) })
    }

    fn judge(self, report: &mut Report) {
        if self.same_program == Some(false) {
            let found = format!(
                "The daemon (process {}) runs another program file than this one: one of the two is old",
                self.pid
            );
            report.warning("daemon-other-program", found, "systemctl restart bascule: it touches no domain");
        }
    }
}

fn is_daemon(process: &Process) -> bool {
    let arguments = process.cmdline().unwrap_or_default();
    let says = |word: &str| arguments.iter().skip(1).any(|argument| argument == word);
    process.stat().is_ok_and(|stat| stat.comm == OUR_NAME) && says("serve") && !says("--check")
}

fn is_same_program(pid: i32) -> Option<bool> {
    let file = |who: &str| fs::metadata(format!("/proc/{who}/exe")).map(|meta| (meta.dev(), meta.ino())).ok();
    Some(file(&pid.to_string())? == file("self")?)
}

impl Unit {
    fn look() -> Unit {
        let is_there = |directory: &&str| Path::new(directory).join(UNIT).exists();
        match UNITS.iter().any(is_there) {
            false => Unit::Missing,
            true if wanted(Path::new(UNITS[0])) => Unit::Enabled,
            true => Unit::Disabled,
        }
    }
}

/// Whether a target wants the unit.
fn wanted(units: &Path) -> bool {
    let entries = fs::read_dir(units).into_iter().flatten().flatten();
    let mut wants =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == "wants"));
    wants.any(|wants| wants.join(UNIT).symlink_metadata().is_ok())
}

fn judge_directories(state_dir: Looked, run_dir: Looked, report: &mut Report) {
    for (code, looked) in [("state-dir", state_dir), ("run-dir", run_dir)] {
        if let Some(remedy) = looked.remedy {
            report.error(code, format!("{}: {}", looked.what, looked.found), remedy);
        }
    }
}

/// What migrations have left: journals without an end, and domains that are neither here nor there.
pub(super) fn judge_migrations(asked: &Asked<'_>, guests: &[Guest], report: &mut Report) {
    let journals = match journal::unfinished(&asked.config.state.dir) {
        Ok(journals) => journals,
        Err(error) => return report.cannot_tell("journals", chain(&error), "sudo bascule history"),
    };
    journals.iter().for_each(|listed| judge_journal(listed, report));
    let open: Vec<&str> =
        journals.iter().filter_map(|listed| Some(listed.story.as_ref().ok()?.head.name.as_str())).collect();
    let left = guests.iter().filter(|guest| is_between_hosts(&guest.name));
    for Guest { name, .. } in left.filter(|guest| !open.iter().any(|open| guest.name.starts_with(&format!("{open}--"))))
    {
        let found = format!("Domain {name} is the copy of a migration of which this host has no journal");
        report.warning(
            "domain-left",
            found,
            "Look where the domain runs, with bascule list on both hosts, before you destroy it",
        );
    }
}

fn judge_journal(listed: &Listed, report: &mut Report) {
    let Listed { id, story, held, .. } = listed;
    match story {
        Err(error) => {
            report.error("journal-unreadable", chain(error), format!("A person must look: bascule history {id}"));
        }
        Ok(story) if story.is_done() => {}
        Ok(story) if *held => report.note("migration-runs", format!("{} is being migrated ({id})", story.head.name)),
        Ok(story) => {
            let found =
                format!("A migration of {} is not finished ({id}), and nobody works on it now", story.head.name);
            report.warning("migration-open", found, format!("bascule recover --dry-run {id}"));
        }
    }
}

/// Who this host is to its peers, and who they are.
pub(super) fn judge_protection(security: &Security, state_dir: &Path, is_root: bool, report: &mut Report) {
    let clear = security.in_clear.texts();
    if !clear.is_empty() {
        let found =
            format!("Connections with {} are not encrypted, and nobody there proves who he is", clear.join(", "));
        report.note_with("in-clear", found, "Where that is not meant: remove security.in-clear, and bascule pair");
    }
    match security.certificates() {
        Err(why) => report.error("security-settings", format!("In [security]: {why}"), "bascule config show"),
        Ok(_) if !is_root => report.cannot_tell("not-root", "Only root can look at keys", "sudo bascule check"),
        Ok(Some(files)) => judge_certificates(&files, Timestamp::now(), report),
        Ok(None) => {
            judge_key("identity-key", &Identity::file(state_dir), report);
            judge_pins(Pins::read(state_dir), clear.is_empty(), report);
        }
    }
}

/// A key that is not there yet is made when it is first needed.
fn judge_key(code: &str, file: &Path, report: &mut Report) {
    let Ok(meta) = fs::metadata(file) else { return };
    if meta.mode() & 0o077 != 0 || meta.uid() != 0 {
        let found = format!(
            "{} belongs to user {} and has mode {:o}: others than root could have read it",
            file.display(),
            meta.uid(),
            meta.mode() & 0o7777
        );
        report.error(
            code,
            found,
            format!(
                "chown root: {0} && chmod 0600 {0}; if others have been on this host, make a new one",
                file.display()
            ),
        );
    }
}

fn judge_pins(pins: Result<Pins, crate::tls::Error>, must_be: bool, report: &mut Report) {
    match pins {
        Err(error) => report.error("peers", chain(&error), "bascule peers"),
        Ok(pins) if must_be && pins.iter().next().is_none() => {
            report.warning(
                "no-peers",
                "This host is paired with no other: no domain can go or come",
                "On the other host: bascule pair; here: bascule pair HOST",
            );
        }
        Ok(_) => {}
    }
}

fn judge_certificates(files: &Files, now: Timestamp, report: &mut Report) {
    let all: [(&PathBuf, _); 2] = [&files.certificate, &files.authority].map(|file| (file, expiry::of(file)));
    for (file, end) in all {
        match end {
            Ok(end) => judge_expiry(file, end, now, report),
            Err(error) => report.error("certificate", chain(&error), "bascule config show, [security]"),
        }
    }
    judge_key("certificate-key", &files.key, report);
}

fn judge_expiry(file: &Path, end: Timestamp, now: Timestamp, report: &mut Report) {
    let remedy = "Have it renewed by its authority; new connections take the new file";
    let days = (end.as_second() - now.as_second()) / 86_400;
    if end <= now {
        report.error(
            "certificate-expired",
            format!("{} has expired ({end}): no peer accepts it", file.display()),
            remedy,
        );
    } else if end.duration_since(now).unsigned_abs() < EXPIRY_NOTICE {
        report.warning("certificate-expires", format!("{} expires in {days} days ({end})", file.display()), remedy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(judge: impl FnOnce(&mut Report)) -> Vec<String> {
        let mut report = Report::new("node1");
        judge(&mut report);
        report.findings().into_iter().map(|finding| finding.code).collect()
    }

    fn listeners(daemon: Option<Daemon>, by: Option<(i32, &str)>) -> Vec<String> {
        let address = "[::]:8002".parse().expect("an address");
        let listeners = vec![(address, by.map(|(pid, name)| (pid, name.to_owned())))];
        codes(|report| Service { daemon, listeners, unit: None }.judge_listeners(report))
    }

    #[test]
    fn who_listens_is_our_daemon_or_a_finding() {
        let daemon = Some(Daemon { pid: 70, same_program: Some(true) });
        assert_eq!(listeners(daemon, Some((70, OUR_NAME))), [""; 0]);
        assert_eq!(listeners(daemon, Some((INIT, "systemd"))), [""; 0]);
        assert_eq!(listeners(daemon, Some((71, "xend"))), ["port-taken"]);
        assert_eq!(listeners(daemon, None), ["daemon-not-listening"]);
        assert_eq!(listeners(None, None), [""; 0], "that it is down is said already");
        let old = Daemon { pid: 70, same_program: Some(false) };
        assert_eq!(codes(|report| old.judge(report)), ["daemon-other-program"]);
    }

    #[test]
    fn a_certificate_is_warned_of_for_thirty_days() {
        let now: Timestamp = "2026-11-27T00:00:00Z".parse().expect("a time");
        let rows = [
            ("2027-11-27T00:00:00Z", &[][..]),
            ("2026-12-20T00:00:00Z", &["certificate-expires"]),
            ("2026-11-26T23:59:59Z", &["certificate-expired"]),
        ];
        for (end, expected) in rows {
            let end = end.parse().expect("a time");
            assert_eq!(codes(|report| judge_expiry(Path::new("c"), end, now, report)), expected, "{end}");
        }
    }

    #[test]
    fn a_unit_is_wanted_by_a_link_below_a_target() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(!wanted(dir.path()));
        let wants = dir.path().join("multi-user.target.wants");
        fs::create_dir(&wants).expect("a directory");
        std::os::unix::fs::symlink("/none", wants.join(UNIT)).expect("a link");
        assert!(wanted(dir.path()));
    }
}
