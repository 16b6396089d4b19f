//! What of this host, and of it and a peer together, stands against domains that move: `bascule check`. Nothing is changed.
//!
//! What is looked at stands in structs of facts; what is said of it is a function of them alone. One host tells another its [`Facts`]; all
//! else concerns the host alone and stays there. Nothing runs another program, and whoever may hang is asked on a thread of its own.

pub mod ask;
mod dom0;
pub mod facts;
mod library;
mod old;
mod pair;
mod programs;
mod report;
mod service;
mod storage;
mod ways;

use std::net::SocketAddr;
use std::path::Path;

pub use self::facts::Facts;
pub use self::pair::compare;
use self::report::Report;
pub use self::report::{Finding, Level};
pub use self::storage::judge as storage;
pub use self::ways::{Guest, Ways, guests};
use crate::config::Config;

/// What this host is held against.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// This node's name, for findings.
    pub node: &'a str,
    /// Its configuration.
    pub config: &'a Config,
    /// Where records of open migrations are kept.
    pub run_dir: &'a Path,
    /// The addresses that the daemon should listen on, or why there are none.
    pub listen: &'a Result<Vec<SocketAddr>, String>,
}

/// Everything about this host but DRBD, which is [`storage`]'s and [`crate::drbd::review`]'s, and the firewall.
#[must_use]
pub fn host(asked: &Asked<'_>, ways: &Ways) -> Vec<Finding> {
    let mut report = Report::new(asked.node);
    let library = library::Library::look();
    dom0::Dom0::look(ways).judge(&library, ways.is_root, &mut report);
    programs::Programs::look(&library).judge(&asked.config.guests.nic_scripts, &mut report);
    service::Service::look(asked).judge(asked, ways.is_root, &mut report);
    service::judge_migrations(asked, &guests(ways), &mut report);
    service::judge_protection(&asked.config.security, &asked.config.state.dir, ways.is_root, &mut report);
    old::Old::look(asked.config.relocation.port).judge(&mut report);
    facts::judge_clock(crate::xen::clock::is_synchronised(), &mut report);
    report.findings()
}
