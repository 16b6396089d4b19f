//! What becomes of a domain that has shut down, and what a person can do to one that runs: libxl's part of it.

use std::ffi::CString;
use std::path::Path;
use std::ptr;
use std::time::Instant;

use uuid::Uuid;
use xen_sys as sys;

use super::config::{DomainConfig, Raw};
use super::context::Context;
use super::domain::{DomainInfo, Ended};
use super::error::{Error, Result};
use super::operation::{Nobody, Operation};
use crate::ids::DomId;
use crate::toolstack::{self, RunState};
use crate::watch::Domains;

impl Context {
    /// Asks the guest to reboot itself. Whether it is started anew is for whoever watches it.
    ///
    /// # Errors
    /// When there is no such domain, or it has no driver that hears the request.
    pub fn reboot(&self, domid: DomId) -> Result<()> {
        self.simple("libxl_domain_reboot", domid, sys::libxl_domain_reboot)
    }

    /// Gives a domain a UUID of its own and puts `suffix` behind its name, so that another can have both.
    ///
    /// # Errors
    /// When the name is taken or is not what the configuration says any more.
    pub fn preserve(&self, domid: DomId, config: &DomainConfig, suffix: &str) -> Result<()> {
        let suffix = c_string(suffix)?;
        let mut raw = Raw::parse(&self.handle, &config.to_json())?;
        let info = &raw mut raw.0.c_info;
        let uuid = sys::libxl_uuid { uuid: Uuid::new_v4().into_bytes() };
        let preserved = self.handle.call("libxl_domain_preserve", domid, |ctx| {
            // SAFETY: a valid configuration, of which the name is read, and a NUL-terminated string (libxl.h, libxl_domain_preserve).
            unsafe { sys::libxl_domain_preserve(ctx, domid.0, info, suffix.as_ptr(), uuid) }
        });
        preserved.map(drop)
    }

    /// Writes a domain's memory to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn core_dump(&self, domid: DomId, file: &Path) -> Result<()> {
        let file = c_string(&file.to_string_lossy())?;
        let dumped = self.handle.call("libxl_domain_core_dump", domid, |ctx| {
            // SAFETY: a NUL-terminated string, no ao_how: it has ended when it returns (libxl.h, libxl_domain_core_dump).
            unsafe { sys::libxl_domain_core_dump(ctx, domid.0, file.as_ptr(), ptr::null()) }
        });
        dumped.map(drop)
    }

    /// Lets an HVM or PVH domain begin anew in the memory that it has; its devices are made anew, and it is paused then.
    ///
    /// # Errors
    /// When the hypervisor or a device refuses: the domain cannot go on.
    pub fn soft_reset(&self, domid: DomId, config: &DomainConfig) -> Result<()> {
        let operation = Operation::new(None)?;
        let mut raw = Raw::parse(&operation.handle, &config.to_json())?;
        let target = raw.0.as_mut_ptr();
        operation.run("libxl_domain_soft_reset", domid.into(), &mut Nobody, |ctx, how| {
            // SAFETY: a valid configuration that is alive until run returns, at the operation's end (libxl.h, libxl_domain_soft_reset).
            unsafe { sys::libxl_domain_soft_reset(ctx, target, domid.0, how, ptr::null()) }
        })
    }
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Nul { text: text.to_owned() })
}

impl Domains for Context {
    fn look(&self, domid: DomId) -> std::result::Result<Option<DomainInfo>, toolstack::Error> {
        Ok(self.info(domid)?)
    }

    fn exists(&self, config: &DomainConfig) -> std::result::Result<bool, toolstack::Error> {
        // What is left of a domain that was destroyed has the UUID still, and will never run.
        let lives = |info: &&DomainInfo| info.domain.state != RunState::Dying;
        let same = |info: &DomainInfo| info.domain.name == config.name() || Some(info.domain.uuid) == config.uuid();
        Ok(self.list()?.iter().filter(lives).any(same))
    }

    fn await_end(&self, domid: DomId, deadline: Instant) -> std::result::Result<Option<Ended>, toolstack::Error> {
        Ok(self.wait_shutdown(domid, deadline)?)
    }

    fn stored(&self, domid: DomId) -> std::result::Result<DomainConfig, toolstack::Error> {
        Ok(self.retrieve(domid)?)
    }

    fn end(&self, domid: DomId) -> std::result::Result<(), toolstack::Error> {
        Ok(self.destroy(domid)?)
    }

    fn make(
        &self,
        config: &DomainConfig,
        notice: &mut (dyn FnMut(DomId) + Send),
    ) -> std::result::Result<DomId, toolstack::Error> {
        Ok(match config.uuid() {
            Some(uuid) => self.noticing(uuid, notice, || self.create(config))?,
            None => self.create(config)?,
        })
    }

    fn run(&self, domid: DomId) -> std::result::Result<(), toolstack::Error> {
        Ok(self.unpause(domid)?)
    }

    fn preserve(&self, domid: DomId, config: &DomainConfig, suffix: &str) -> std::result::Result<(), toolstack::Error> {
        Ok(Context::preserve(self, domid, config, suffix)?)
    }

    fn dump(&self, domid: DomId, file: &Path) -> std::result::Result<(), toolstack::Error> {
        Ok(self.core_dump(domid, file)?)
    }

    fn soft_reset(&self, domid: DomId, config: &DomainConfig) -> std::result::Result<(), toolstack::Error> {
        Ok(Context::soft_reset(self, domid, config)?)
    }
}
