//! What libxl runs: its helpers, and the hotplug programs, whose old traps make an attach hang for 40 s ("Hotplug scripts not working").

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::library::Library;
use super::report::Report;
use crate::daemon::check::files::{self, BLOCK_DRBD, SCRIPTS_DIR};

/// The helper that saves and restores memory, and the variable that names another one (libxl_save_callout.c).
const SAVE_HELPER: &str = "libxl-save-helper";
const SAVE_HELPER_VARIABLE: &str = "LIBXL_SAVE_HELPER";
/// What the stock scripts read first.
const HOTPLUG_PATH: &str = "hotplugpath.sh";
/// What a shell that is run by libxl reads and writes. udev makes them; without it nobody does.
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Programs {
    /// Where libxl looks for hotplug programs, if that is another place than ours are installed in.
    elsewhere: Option<PathBuf>,
    save_helper: Option<Program>,
    /// Xen's release, where it is known.
    release: Option<String>,
    qemu: Option<Program>,
    /// Stock scripts that cannot be run.
    not_executable: Vec<String>,
    /// There are stock scripts, and the file that they read first is missing.
    hotplug_path_missing: bool,
    missing_links: Vec<(&'static str, &'static str)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Program {
    path: PathBuf,
    can_be_run: bool,
}

impl Program {
    fn look(path: PathBuf) -> Program {
        let can_be_run = fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0);
        Program { path, can_be_run }
    }
}

impl Programs {
    pub(super) fn look(library: &Library) -> Programs {
        let named = env::var_os(SAVE_HELPER_VARIABLE).map(PathBuf::from);
        let save_helper = named.or_else(|| library.programs.as_ref().map(|directory| directory.join(SAVE_HELPER)));
        let scripts = Scripts::look(Path::new(SCRIPTS_DIR));
        Programs {
            elsewhere: library.scripts.clone().filter(|scripts| scripts != Path::new(SCRIPTS_DIR)),
            save_helper: save_helper.map(Program::look),
            release: library.release.clone(),
            qemu: library.qemu.clone().map(Program::look),
            hotplug_path_missing: scripts.has_shell && !scripts.has_hotplug_path,
            not_executable: scripts.not_executable,
            missing_links: DEVICE_LINKS.into_iter().filter(|(link, _)| !Path::new(link).exists()).collect(),
        }
    }

    pub(super) fn judge(&self, nic_scripts: &[String], report: &mut Report) {
        for looked in [files::block_drbd()].into_iter().chain(files::nic_scripts(nic_scripts)) {
            if let Some(remedy) = looked.remedy {
                report.error("hotplug-program", format!("{}: {}", looked.what, looked.found), remedy);
            }
        }
        self.judge_traps(report);
        self.judge_helpers(report);
    }

    fn judge_traps(&self, report: &mut Report) {
        if let Some(elsewhere) = &self.elsewhere {
            let found = format!("Libxl looks for hotplug programs in {}, not in {SCRIPTS_DIR}", elsewhere.display());
            report.error(
                "hotplug-elsewhere",
                found,
                format!("Make {SCRIPTS_DIR} a link to it, or install bascule's there, too"),
            );
        }
        if self.hotplug_path_missing {
            let found = format!("{SCRIPTS_DIR}/{HOTPLUG_PATH} is missing: Xen's own scripts fail without it");
            report.warning(
                "hotplugpath-missing",
                found,
                "Install Xen's package of it anew: apt-get install --reinstall xen-utils-common",
            );
        }
        if !self.not_executable.is_empty() {
            let names = self.not_executable.join(" ");
            let found = format!("Scripts in {SCRIPTS_DIR} cannot be run: {names}");
            report.warning("script-not-executable", found, format!("cd {SCRIPTS_DIR} && chmod 0755 {names}"));
        }
        if !self.missing_links.is_empty() {
            let found = self.missing_links.iter().map(|(link, _)| *link).collect::<Vec<_>>().join(", ");
            let made = self.missing_links.iter().map(|(link, to)| format!("ln -s {to} {link}")).collect::<Vec<_>>();
            let found = format!("{found} missing: Xen's own hotplug scripts hang until libxl gives up");
            report.warning("device-link-missing", found, made.join(" && "));
        }
    }

    fn judge_helpers(&self, report: &mut Report) {
        let release = self.release.as_deref().unwrap_or("VERSION");
        match &self.save_helper {
            Some(helper) if !helper.can_be_run => {
                let found =
                    format!("{} is missing or cannot be run: libxl saves and restores by it", helper.path.display());
                report.error(
                    "save-helper",
                    found,
                    format!("Install Xen's tools anew: apt-get install --reinstall xen-utils-{release}"),
                );
            }
            None => report.cannot_tell(
                "save-helper",
                "Where libxl has its save helper is not known",
                "ldd $(command -v bascule)",
            ),
            Some(_) => {}
        }
        if let Some(qemu) = self.qemu.as_ref().filter(|qemu| !qemu.can_be_run) {
            let found = format!(
                "{} is missing: HVM domains, and screens of PV ones, have no device model",
                qemu.path.display()
            );
            report.note_with("qemu-missing", found, "Where such domains shall run: apt-get install qemu-system-xen");
        }
    }
}

/// The stock scripts.
struct Scripts {
    has_shell: bool,
    has_hotplug_path: bool,
    not_executable: Vec<String>,
}

impl Scripts {
    /// What ends in `.sh` is read by others; ours are looked at by name.
    fn look(directory: &Path) -> Scripts {
        let mut scripts = Scripts {
            has_shell: false,
            has_hotplug_path: directory.join(HOTPLUG_PATH).exists(),
            not_executable: Vec::new(),
        };
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let library = name.ends_with(".sh");
            scripts.has_shell |= library;
            let meta = fs::metadata(entry.path());
            let dead = meta.is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 == 0);
            if dead && !library && !name.contains('~') && !name.contains(".dpkg-") && name != BLOCK_DRBD {
                scripts.not_executable.push(name);
            }
        }
        scripts.not_executable.sort();
        scripts
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn codes(programs: &Programs) -> Vec<(String, String)> {
        let mut report = Report::new("node1");
        programs.judge_traps(&mut report);
        programs.judge_helpers(&mut report);
        report.findings().into_iter().map(|finding| (finding.code, finding.remedy)).collect()
    }

    fn healthy() -> Programs {
        let there = |path: &str| Some(Program { path: path.into(), can_be_run: true });
        Programs { save_helper: there("/x/libxl-save-helper"), qemu: there("/x/qemu"), ..Programs::default() }
    }

    #[test]
    fn each_trap_has_its_code_and_what_to_type() {
        assert_eq!(codes(&healthy()), []);
        let links = Programs { missing_links: DEVICE_LINKS[1..2].to_vec(), ..healthy() };
        assert_eq!(codes(&links), [("device-link-missing".into(), "ln -s /proc/self/fd/0 /dev/stdin".into())]);
        let dead = Programs { not_executable: vec!["block".into(), "vif2".into()], ..healthy() };
        assert_eq!(codes(&dead)[0].1, "cd /etc/xen/scripts && chmod 0755 block vif2");
        let traps = [
            (Programs { hotplug_path_missing: true, ..healthy() }, "hotplugpath-missing"),
            (Programs { elsewhere: Some("/usr/local/etc/xen/scripts".into()), ..healthy() }, "hotplug-elsewhere"),
            (Programs { save_helper: None, ..healthy() }, "save-helper"),
            (Programs { save_helper: Some(Program::look("/none".into())), ..healthy() }, "save-helper"),
            (Programs { qemu: Some(Program::look("/none".into())), ..healthy() }, "qemu-missing"),
        ];
        for (programs, code) in traps {
            assert_eq!(codes(&programs)[0].0, code);
        }
    }

    #[test]
    fn stock_scripts_are_told_from_what_they_read() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, mode) in [("block", 0o755), ("vif2", 0o644), ("locking.sh", 0o644), ("block-drbd", 0o644)] {
            let path = dir.path().join(name);
            fs::write(&path, "#!/bin/sh\n").expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        }
        let scripts = Scripts::look(dir.path());
        assert_eq!((scripts.has_shell, scripts.has_hotplug_path), (true, false));
        assert_eq!(scripts.not_executable, ["vif2"]);
    }
}
