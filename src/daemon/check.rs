//! Whether the daemon could serve on this host, and what to type where it could not. Nothing is changed.

pub(crate) mod address;
pub(crate) mod files;

use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;

use crate::config::Config;
use crate::drbd::Drbd;
use crate::migrate::chain;
use crate::xen::Context;
use crate::xen::xenstore::Xenstore;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// What was looked at.
    pub what: String,
    /// Whether it is as it must be.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What to type, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Looked {
    /// It is as it must be.
    #[must_use]
    pub fn ok(what: impl Into<String>, found: impl Into<String>) -> Looked {
        Looked { what: what.into(), ok: true, found: found.into(), remedy: None }
    }

    /// It is not.
    #[must_use]
    pub fn problem(what: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Looked {
        Looked { what: what.into(), ok: false, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Looks at all that a daemon with this configuration needs, with these addresses to listen on.
#[must_use]
pub fn check(config: &Config, run_dir: &Path, listen: &[SocketAddr]) -> Vec<Looked> {
    let mut looked = vec![root(), files::state_dir(&config.state.dir), files::run_dir(run_dir)];
    looked.extend(listen.iter().map(|address| address::look(*address)));
    looked.extend([xen(), xenstore(), drbd(), files::block_drbd()]);
    looked.extend(files::nic_scripts(&config.guests.nic_scripts));
    looked
}

fn root() -> Looked {
    match nix::unistd::geteuid().is_root() {
        true => Looked::ok("user", "root"),
        false => Looked::problem("user", "not root", "sudo bascule serve --check"),
    }
}

fn xen() -> Looked {
    match Context::open() {
        Ok(_) => Looked::ok("Xen", "libxl can be opened"),
        Err(error) => {
            let remedy = "This must be the dom0 of a Xen host: cat /proc/xen/capabilities says control_d there";
            Looked::problem("Xen", chain(&error), remedy)
        }
    }
}

fn xenstore() -> Looked {
    let answered = Xenstore::open().and_then(|store| store.read("/local/domain/0/domid"));
    match answered {
        Ok(Some(_)) => Looked::ok("xenstore", "it answers"),
        Ok(None) => Looked::problem(
            "xenstore",
            "dom0 is not in it",
            "/usr/lib/xen-*/bin/xen-init-dom0, or: systemctl start xen-init-dom0",
        ),
        Err(error) => Looked::problem("xenstore", chain(&error), "systemctl start xenstored, or: service xen start"),
    }
}

fn drbd() -> Looked {
    match Drbd::open() {
        Ok(_) => Looked::ok("DRBD", "its netlink family is there"),
        Err(error) => Looked::problem("DRBD", chain(&error), "modprobe drbd"),
    }
}
