//! The toolstack of this host, and what it says about the host itself.

use std::ffi::{CStr, c_char};
use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use xen_sys as sys;

use super::config::{DomainConfig, Raw};
use super::disposed::Disposed;
use super::error::{Result, Subject};
use super::handle::Handle;
use super::stream::STREAM_VERSION;
use crate::toolstack::Hypervisor;

/// libxl counts memory in pages of this size, in KiB.
const PAGE_KIB: u64 = 4;

/// libxenlight on this host. Any number of threads may use it at once.
#[derive(Debug)]
pub struct Context {
    pub(super) handle: Handle,
    version: OnceLock<Version>,
}

/// The hypervisor that runs here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its major number: 4.
    pub major: i32,
    /// Its minor number.
    pub minor: i32,
    /// What follows the two numbers, with the dot.
    pub extra: String,
    /// The kinds of domain that it can run, as it names them.
    pub capabilities: String,
    /// What it was booted with.
    pub command_line: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}{}", self.major, self.minor, self.extra)
    }
}

/// The host's resources and abilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Physinfo {
    /// All memory that the hypervisor manages, in KiB.
    pub total_kib: u64,
    /// Memory that nobody has, the part that is still being scrubbed included, in KiB.
    pub free_kib: u64,
    /// The part of the free memory that domains under construction have claimed, in KiB.
    pub claimed_kib: u64,
    /// Physical CPUs that are online.
    pub cpus: u32,
    /// It can run HVM and PVH domains.
    pub hvm: bool,
    /// It can run PV domains.
    pub pv: bool,
    /// It has hardware-assisted paging, in which HVM and PVH domains can be logged for migration.
    pub hap: bool,
    /// It has shadow paging, without which PV domains cannot be logged for migration.
    pub shadow: bool,
}

impl Context {
    /// Connects to the hypervisor and to xenstore.
    ///
    /// # Errors
    /// [`super::Error::Open`] when this is not dom0 of a Xen host, or the caller is not root.
    pub fn open() -> Result<Self> {
        Ok(Self { handle: Handle::open(None)?, version: OnceLock::new() })
    }

    /// The hypervisor's version.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    pub fn version(&self) -> Result<&Version> {
        if let Some(version) = self.version.get() {
            return Ok(version);
        }
        let version = self.ask_version()?;
        Ok(self.version.get_or_init(|| version))
    }

    /// In a context of its own, since libxl fills its cache of it without a lock (libxl.c, libxl_get_version_info).
    fn ask_version(&self) -> Result<Version> {
        let handle = Handle::open(None)?;
        let info = handle.call_ptr("libxl_get_version_info", Subject::Host, |ctx| {
            // SAFETY: the result belongs to the context and lives as long (libxl.h).
            unsafe { sys::libxl_get_version_info(ctx) }.cast_mut()
        })?;
        // SAFETY: valid until the handle goes, at the end of this function.
        let info = unsafe { info.as_ref() };
        Ok(Version {
            major: info.xen_version_major,
            minor: info.xen_version_minor,
            extra: string(info.xen_version_extra),
            capabilities: string(info.capabilities),
            command_line: string(info.commandline),
        })
    }

    /// The host's memory, CPUs and abilities.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    pub fn physinfo(&self) -> Result<Physinfo> {
        let mut info = Disposed::<sys::libxl_physinfo>::new();
        let target = info.as_mut_ptr();
        self.handle.call("libxl_get_physinfo", Subject::Host, |ctx| {
            // SAFETY: an initialised value to fill (libxl.h, libxl_get_physinfo).
            unsafe { sys::libxl_get_physinfo(ctx, target) }
        })?;
        Ok(Physinfo {
            total_kib: info.total_pages * PAGE_KIB,
            free_kib: (info.free_pages + info.scrub_pages) * PAGE_KIB,
            claimed_kib: info.outstanding_pages * PAGE_KIB,
            cpus: info.nr_cpus,
            hvm: info.cap_hvm,
            pv: info.cap_pv,
            hap: info.cap_hap,
            shadow: info.cap_shadow,
        })
    }

    /// What one host tells another of its hypervisor.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    pub fn hypervisor(&self) -> Result<Hypervisor> {
        let (version, physinfo) = (self.version()?, self.physinfo()?);
        Ok(Hypervisor {
            version: version.to_string(),
            stream: STREAM_VERSION,
            free_kib: physinfo.free_kib.saturating_sub(physinfo.claimed_kib),
            hap: physinfo.hap,
            shadow: physinfo.shadow,
            pv: physinfo.pv,
            hvm: physinfo.hvm,
            dom0_mem: version.command_line.split_ascii_whitespace().any(|word| word.starts_with("dom0_mem=")),
        })
    }

    /// Memory that a domain of this configuration will need, its overhead included, in KiB.
    ///
    /// # Errors
    /// [`super::Error::Config`] when libxl does not take the configuration.
    pub fn memory_needed_kib(&self, config: &DomainConfig) -> Result<u64> {
        let mut raw = Raw::parse(&self.handle, &config.to_json())?;
        let (target, mut need_kib) = (raw.0.as_mut_ptr(), 0);
        self.handle.call("libxl_domain_need_memory", Subject::NewDomain, |ctx| {
            // SAFETY: a valid configuration, in which libxl sets its defaults (libxl.h, libxl_domain_need_memory).
            unsafe { sys::libxl_domain_need_memory(ctx, target, u32::MAX, &raw mut need_kib) }
        })?;
        Ok(need_kib)
    }
}

/// A string inside a libxl struct, empty where it is NULL.
fn string(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: libxl's strings are NUL-terminated and live as long as the struct that holds them.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
