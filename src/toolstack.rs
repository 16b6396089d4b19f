//! What a migration needs of a toolstack, and no more: the seam between the story and Xen.
//!
//! `xen::Context` implements it by libxenlight; tests and other hypervisor tooling implement it too.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backing::{self, Backing};
use crate::cpu::{Policy, Viewer};
use crate::ids::DomId;

/// What a domain is doing (libxl.h, `libxl_dominfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It has a virtual CPU that runs or is blocked waiting for an event.
    Running,
    /// Its virtual CPUs are paused by the toolstack.
    Paused,
    /// It suspended itself on request: its memory is at rest (`SHUTDOWN_suspend`).
    Suspended,
    /// It shut down, crashed or rebooted and waits to be destroyed.
    Shutdown,
    /// It is being torn down.
    Dying,
}

/// One domain as the hypervisor and xenstore show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its number on this host.
    pub domid: DomId,
    /// Its name in xenstore, empty while it is being made.
    pub name: String,
    /// Its UUID, the same on both hosts of a migration.
    pub uuid: uuid::Uuid,
    /// What it is doing.
    pub state: RunState,
    /// Memory that it holds now, in KiB.
    pub memory_kib: u64,
    /// The most memory it may hold, in KiB.
    pub memory_max_kib: u64,
    /// Virtual CPUs that are online.
    pub vcpus: u32,
    /// Processor time that it has used.
    pub cpu_time: Duration,
}

/// One step of the memory stream's progress (libxc, "Frames iteration N").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamProgress {
    /// The round, from 0: the first sends all pages, each later one what was dirtied during the one before.
    pub round: u32,
    /// Pages of this round that have been sent.
    pub done: u64,
    /// Pages that this round has to send.
    pub total: u64,
}

/// What happens while a stream is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// The stream went on.
    Progress(StreamProgress),
    /// Save only: the domain has just been suspended. Told at once, by the event that the hypervisor raises then
    /// (xenstore's `@releaseDomain`), since downtime is measured from here.
    Suspended,
}

/// Called on any thread while a stream is on its way; must not block.
pub type OnStream = Arc<dyn Fn(StreamEvent) + Send + Sync>;

/// Stops a running save or restore from another thread. The operation may complete all the same.
pub trait Abort: Send + Sync {
    /// Asks the operation to stop; idempotent, and without effect when it has ended.
    fn abort(&self);
}

/// What a host says of its hypervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hypervisor {
    /// Its version, such as `4.17.5`.
    pub version: String,
    /// The version of the toolstack's memory stream.
    pub stream: u32,
    /// Memory that a new domain could use, in KiB.
    pub free_kib: u64,
    /// It has hardware-assisted paging, in which HVM and PVH domains can be logged for migration.
    pub hap: bool,
    /// It has shadow paging, without which PV domains cannot be logged for migration.
    pub shadow: bool,
    /// It can run PV domains.
    pub pv: bool,
    /// It can run HVM and PVH domains.
    pub hvm: bool,
    /// Its command line says how much memory dom0 has (`dom0_mem`).
    pub dom0_mem: bool,
}

/// A toolstack's error: one clause, with what the toolstack itself said last.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The verbs that a migration uses.
///
/// All calls block until the operation has ended. A domain configuration travels as libxl's own JSON text
/// (`libxl_domain_config_to_json`); [`crate::plan`] reads from it what a migration must know.
pub trait Toolstack: Send + Sync {
    /// All domains of this host, dom0 included, by domid.
    fn domains(&self) -> Result<Vec<Domain>, Error>;

    /// One domain, or `None` when no domain has that number.
    fn domain(&self, domid: DomId) -> Result<Option<Domain>, Error>;

    /// The configuration of a running domain, with what was changed since it was started.
    fn config(&self, domid: DomId) -> Result<String, Error>;

    /// Free memory in KiB that a new domain could use, dom0's possible ballooning not counted.
    fn free_memory_kib(&self) -> Result<u64, Error>;

    /// What is to be known of the hypervisor, for `bascule check`.
    ///
    /// # Errors
    /// It does not answer, or the toolstack does not tell.
    fn hypervisor(&self) -> Result<Hypervisor, Error> {
        Err("This toolstack does not tell what it runs on".into())
    }

    /// Memory in KiB that a new domain of this configuration takes, its overhead included.
    ///
    /// # Errors
    /// The toolstack does not understand the configuration.
    fn memory_needed_kib(&self, config: &str) -> Result<u64, Error>;

    /// What a domain, or one of a kind at most, sees of the processor here; `None` where the toolstack cannot tell.
    fn cpu_policy(&self, _of: Viewer) -> Result<Option<Policy>, Error> {
        Ok(None)
    }

    /// The hypervisor's version, its two numbers; `None` where the toolstack cannot tell.
    fn release(&self) -> Result<Option<(i32, i32)>, Error> {
        Ok(None)
    }

    /// Whether the guest has said that it does not know how to suspend. Most say nothing.
    fn cannot_suspend(&self, _domid: DomId) -> Result<bool, Error> {
        Ok(false)
    }

    /// Why a live migration of this type of domain cannot work here, if the hypervisor says so (no log-dirty mode).
    fn live_migration_obstacle(&self, domid: DomId) -> Result<Option<String>, Error>;

    /// Streams the running domain to `fd` until it is suspended and all is sent (`libxl_domain_suspend`, live).
    ///
    /// `handle` is called once, before anything is sent, with what aborts the operation.
    ///
    /// # Errors
    /// The domain may then run or be suspended: look. Log-dirty mode is off again.
    fn save(
        &self,
        domid: DomId,
        fd: BorrowedFd<'_>,
        events: OnStream,
        handle: &dyn Fn(Arc<dyn Abort>),
    ) -> Result<(), Error>;

    /// Makes a domain, paused, from the stream that `fd` gives; reads exactly to its end (`libxl_domain_create_restore`).
    ///
    /// `config` is libxl's JSON; the domain gets the name that stands in it.
    ///
    /// # Errors
    /// What had been made of the domain is destroyed.
    fn restore(
        &self,
        config: &str,
        fd: BorrowedFd<'_>,
        events: OnStream,
        handle: &dyn Fn(Arc<dyn Abort>),
    ) -> Result<DomId, Error>;

    /// Lets a suspended domain go on in place, its devices as they were (`libxl_domain_resume`, cooperative).
    ///
    /// # Errors
    /// Refused, with nothing changed, when the domain is not suspended.
    fn resume(&self, domid: DomId) -> Result<(), Error>;

    /// Switches log-dirty mode off, in case that a save was killed in the middle. What stays on costs speed alone, and is logged.
    fn stop_log_dirty(&self, domid: DomId);

    /// Renames a domain if it still has the name `old` and nobody on this host has the name `new`.
    fn rename(&self, domid: DomId, old: &str, new: &str) -> Result<(), Error>;

    /// Lets a paused domain run.
    fn unpause(&self, domid: DomId) -> Result<(), Error>;

    /// Destroys a domain and removes its devices.
    fn destroy(&self, domid: DomId) -> Result<(), Error>;

    /// The network bridges of this host, by name.
    fn bridges(&self) -> Vec<String> {
        let devices = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        let bridges = devices.filter(|device| device.path().join("bridge").is_dir());
        let mut names: Vec<String> = bridges.filter_map(|bridge| bridge.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// The disks of a domain, by their names in the guest, that the kernel serves, past this host's page cache. A configuration does not say:
    /// libxl chooses, and stores what it was told.
    fn disks_of_the_kernel(&self, _domid: DomId) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// What a disk's path leads to on this host, if that is a block device or a file.
    fn backing(&self, path: &Path) -> Result<Option<Backing>, Error> {
        Ok(backing::look(path)?)
    }

    /// Who has the block device open that a path leads to, in words, or `None`.
    fn holder(&self, path: &Path) -> Option<String> {
        backing::holder(path)
    }
}
