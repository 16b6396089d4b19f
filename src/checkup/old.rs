//! What older toolstacks have left: xend's settings and port, and what xendomains would do with domains when the host shuts down.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;

use super::dom0::is_running;
use super::report::Report;
use crate::daemon::check::address::{OUR_NAME, listener};
use crate::plan::RELOCATION_PORT;

const XEND_CONFIG: &str = "/etc/xen/xend-config.sxp";
/// Where xendomains has its settings: Debian's place, and others'.
const XENDOMAINS: [&str; 2] = ["/etc/default/xendomains", "/etc/sysconfig/xendomains"];

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Old {
    xend_config: bool,
    xend_runs: bool,
    /// Who listens on xend's port, where ours is another one.
    on_xends_port: Option<(i32, String)>,
    /// The file of xendomains, and its text.
    xendomains: Option<(&'static str, String)>,
}

impl Old {
    pub(super) fn look(port: u16) -> Old {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, RELOCATION_PORT));
        let stranger = (port != RELOCATION_PORT).then(|| listener(address)).flatten();
        Old {
            xend_config: Path::new(XEND_CONFIG).exists(),
            xend_runs: is_running("xend"),
            on_xends_port: stranger.filter(|(_, name)| name != OUR_NAME),
            xendomains: XENDOMAINS.into_iter().find_map(|file| Some((file, fs::read_to_string(file).ok()?))),
        }
    }

    pub(super) fn judge(&self, report: &mut Report) {
        if self.xend_runs {
            report.warning(
                "xend-runs",
                "Xend runs: it and libxl cannot have the same domains",
                "service xend stop, and remove it",
            );
        }
        if let Some((pid, name)) = &self.on_xends_port {
            let found = format!("{name} (process {pid}) listens on port {RELOCATION_PORT}, which was xend's");
            report.warning("xend-port", found, format!("Look what it is: systemctl status {pid}"));
        }
        if self.xend_config {
            let found = format!("{XEND_CONFIG} is there; nothing reads it any more");
            report.note_with(
                "xend-config",
                found,
                format!("bascule config import {XEND_CONFIG} --output /etc/bascule/bascule.toml, then remove it"),
            );
        }
        let Some((file, text)) = &self.xendomains else { return };
        if let Some(target) = assigned(text, "XENDOMAINS_MIGRATE") {
            let found = format!(
                "When the host shuts down, xendomains migrates domains by xl to {target} ({file}: XENDOMAINS_MIGRATE)"
            );
            report.note_with(
                "xendomains-migrate",
                found,
                "Xl knows nothing of their volumes: write XENDOMAINS_MIGRATE=\"\"",
            );
        }
        if let Some(directory) = assigned(text, "XENDOMAINS_SAVE") {
            let found =
                format!("When the host shuts down, xendomains saves domains to {directory} ({file}: XENDOMAINS_SAVE)");
            report.note_with("xendomains-save", found, "A domain that is started on the peer meanwhile must not be restored from there: write XENDOMAINS_SAVE=\"\"");
        }
    }
}

/// What a shell would have in a variable after reading the text, as far as that is said without substitutions; `None` when that is nothing.
fn assigned(text: &str, name: &str) -> Option<String> {
    let value = text.lines().rev().find_map(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").unwrap_or(line);
        line.strip_prefix(name)?.strip_prefix('=')
    })?;
    let value = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].split(quote).next(),
        _ => value.split([' ', '\t', ';', '#']).next(),
    };
    value.map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shells_assignments_are_read() {
        let text = "# XENDOMAINS_SAVE=/no\nXENDOMAINS_MIGRATE=\"\"\nXENDOMAINS_SAVE=/old\n export XENDOMAINS_SAVE='/var/lib/xen/save' # yes\nA=b;c\n";
        assert_eq!(assigned(text, "XENDOMAINS_SAVE").as_deref(), Some("/var/lib/xen/save"));
        assert_eq!(assigned(text, "XENDOMAINS_MIGRATE"), None);
        assert_eq!(assigned(text, "A").as_deref(), Some("b"));
        assert_eq!(assigned(text, "B"), None);
    }

    #[test]
    fn what_is_left_is_said_and_is_information_unless_it_runs() {
        let text = "XENDOMAINS_MIGRATE=node2\nXENDOMAINS_SAVE=/var/lib/xen/save\n".to_owned();
        let old = Old {
            xend_config: true,
            xend_runs: true,
            on_xends_port: Some((70, "python".into())),
            xendomains: Some((XENDOMAINS[0], text)),
        };
        let mut report = Report::new("node1");
        old.judge(&mut report);
        let codes: Vec<String> = report.findings().into_iter().map(|finding| finding.code).collect();
        assert_eq!(codes, ["xend-runs", "xend-port", "xend-config", "xendomains-migrate", "xendomains-save"]);
    }
}
