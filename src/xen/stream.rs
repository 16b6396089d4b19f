//! A domain's memory on its way out or in, and the toolstack that a migration sees.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::Arc;

use xen_sys as sys;

use super::begin;
use super::config::{DomainConfig, Raw};
use super::context::Context;
use super::disposed::Disposed;
use super::domain::{DomainInfo, Kind, RELEASE_DOMAIN};
use super::error::{Error, Result, Subject};
use super::logdirty;
use super::logger::Follower;
use super::operation::{Nobody, Operation, Witness};
use super::vbd;
use super::xenstore::Xenstore;
use crate::cpu::{Policy, Viewer};
use crate::ids::DomId;
use crate::saved;
use crate::toolstack::{self, Abort, Domain, OnStream, RunState, StreamEvent, Toolstack};

/// The format that all of Xen from 4.6 on writes and reads (libxl-migration-stream, version 2).
pub(super) const STREAM_VERSION: u32 = 2;

impl Context {
    /// As [`Toolstack::save`].
    ///
    /// # Errors
    /// As there.
    pub fn save(
        &self,
        domid: DomId,
        fd: BorrowedFd<'_>,
        events: &OnStream,
        handle: &dyn Fn(Arc<dyn Abort>),
    ) -> Result<()> {
        self.send(domid, fd, sys::LIBXL_SUSPEND_LIVE, events, handle)
    }

    fn send(
        &self,
        domid: DomId,
        fd: BorrowedFd<'_>,
        flags: u32,
        events: &OnStream,
        handle: &dyn Fn(Arc<dyn Abort>),
    ) -> Result<()> {
        let operation = Operation::new(Some(follower(events)))?;
        let mut witness = SuspendWitness::new(self, domid, events)?;
        handle(operation.abort_switch());
        begin::wait_writable(fd, operation.abort_fd())?;
        let flags = flags.cast_signed();
        let saved = operation.run("libxl_domain_suspend", domid.into(), &mut witness, |ctx, how| {
            // SAFETY: the descriptor is open until run returns, at the operation's end (libxl.h, libxl_domain_suspend).
            unsafe { sys::libxl_domain_suspend(ctx, domid.0, fd.as_raw_fd(), flags, how) }
        });
        if saved.is_err() {
            logdirty::off(domid);
        }
        saved
    }

    /// As [`Toolstack::restore`].
    ///
    /// # Errors
    /// As there.
    pub fn restore(
        &self,
        config: &DomainConfig,
        fd: BorrowedFd<'_>,
        events: &OnStream,
        handle: &dyn Fn(Arc<dyn Abort>),
    ) -> Result<DomId> {
        let operation = Operation::new(Some(follower(events)))?;
        let mut raw = Raw::for_new_domain(&operation.handle, config)?;
        let mut parameters = Disposed::<sys::libxl_domain_restore_params>::new();
        parameters.stream_version = STREAM_VERSION;
        handle(operation.abort_switch());
        begin::wait_begun(fd, operation.abort_fd())?;
        let (target, parameters, mut domid) = (raw.0.as_mut_ptr(), parameters.as_mut_ptr(), u32::MAX);
        let out = &raw mut domid;
        let made = operation.run("libxl_domain_create_restore", Subject::NewDomain, &mut Nobody, |ctx, how| {
            let fd = fd.as_raw_fd();
            // SAFETY: the descriptor is open and all values live until run returns, at the operation's end (libxl.h).
            unsafe { sys::libxl_domain_create_restore(ctx, target, out, fd, -1, parameters, how, ptr::null()) }
        });
        self.made(made, domid, config.uuid())
    }

    /// Why a domain of this kind cannot be logged for a live migration here, if so.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    pub fn live_migration_obstacle(&self, domid: DomId) -> Result<Option<String>> {
        let info = self.info(domid)?.ok_or(Error::NoDomain { domid })?;
        if domid.0 == 0 {
            return Ok(Some("dom0 cannot leave its host".into()));
        }
        let physinfo = self.physinfo()?;
        let logged_by_hap = info.kind == Kind::Hvm && physinfo.hap && self.uses_hap(domid)?;
        Ok((!logged_by_hap && !physinfo.shadow).then(|| no_log_dirty(&info)))
    }

    /// Whether the guest has said that it does not know how to suspend: it names what it can do, and that is not among it
    /// (xenstore-paths.pandoc, `control/feature-*`). A guest that names nothing is an old one, and may be able to.
    ///
    /// # Errors
    /// When xenstore does not answer.
    pub fn cannot_suspend(&self, domid: DomId) -> Result<bool> {
        let xenstore = Xenstore::open()?;
        let feature = |name: &str| xenstore.read(&format!("/local/domain/{domid}/control/feature-{name}"));
        let (suspends, powers_off) = (feature("suspend")?, feature("poweroff")?);
        Ok(match suspends.as_deref() {
            Some("1") => false,
            Some("0") => true,
            _ => powers_off.as_deref() == Some("1"),
        })
    }

    /// Whether a domain in hardware virtualisation uses hardware-assisted paging: it does unless its configuration forbids it.
    fn uses_hap(&self, domid: DomId) -> Result<bool> {
        let config = self.retrieve(domid)?;
        Ok(config.value().pointer("/c_info/hap").and_then(serde_json::Value::as_str) != Some("False"))
    }
}

/// Sees the moment in which the domain is suspended.
struct SuspendWitness<'a> {
    context: &'a Context,
    xenstore: Xenstore,
    domid: DomId,
    /// Taken when it has been told.
    events: Option<&'a OnStream>,
}

impl<'a> SuspendWitness<'a> {
    fn new(context: &'a Context, domid: DomId, events: &'a OnStream) -> Result<Self> {
        let xenstore = Xenstore::open()?;
        xenstore.watch(RELEASE_DOMAIN, "suspend")?;
        Ok(Self { context, xenstore, domid, events: Some(events) })
    }
}

impl Witness for SuspendWitness<'_> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.events.map(|_| self.xenstore.fd())
    }

    fn look(&mut self) {
        while let Ok(Some(_)) = self.xenstore.next_event() {}
        let Some(events) = self.events else { return };
        if let Ok(Some(RunState::Suspended)) = self.context.state(self.domid) {
            events(StreamEvent::Suspended);
            self.events = None;
        }
    }
}

fn follower(events: &OnStream) -> Follower {
    let events = Arc::clone(events);
    Box::new(move |step| events(StreamEvent::Progress(step)))
}

fn no_log_dirty(info: &DomainInfo) -> String {
    let name = &info.domain.name;
    match info.kind {
        Kind::Pv => format!(
            "The hypervisor was built without shadow paging, which it needs to log the dirty memory of a PV domain: {name} can \
             only move live as a PVH or HVM domain, or under a Xen that has CONFIG_SHADOW_PAGING"
        ),
        Kind::Hvm => format!(
            "The hypervisor has no paging mode in which it can log the dirty memory of {name}: it needs hardware-assisted paging \
             (hap=1) or a Xen that has CONFIG_SHADOW_PAGING"
        ),
    }
}

impl saved::Domains for Context {
    fn write(
        &self,
        domid: DomId,
        fd: BorrowedFd<'_>,
        events: OnStream,
        handle: &dyn Fn(Arc<dyn Abort>),
    ) -> std::result::Result<(), toolstack::Error> {
        Ok(self.send(domid, fd, 0, &events, handle)?)
    }

    fn state(&self, domid: DomId) -> std::result::Result<Option<RunState>, toolstack::Error> {
        Ok(Context::state(self, domid)?)
    }

    fn resume(&self, domid: DomId) -> std::result::Result<(), toolstack::Error> {
        Ok(Context::resume(self, domid)?)
    }

    fn pause(&self, domid: DomId) -> std::result::Result<(), toolstack::Error> {
        Ok(Context::pause(self, domid)?)
    }

    fn destroy(&self, domid: DomId) -> std::result::Result<(), toolstack::Error> {
        Ok(Context::destroy(self, domid)?)
    }
}

impl Toolstack for Context {
    fn domains(&self) -> std::result::Result<Vec<Domain>, toolstack::Error> {
        Ok(self.list()?.into_iter().map(|info| info.domain).collect())
    }

    fn domain(&self, domid: DomId) -> std::result::Result<Option<Domain>, toolstack::Error> {
        Ok(self.info(domid)?.map(|info| info.domain))
    }

    fn config(&self, domid: DomId) -> std::result::Result<String, toolstack::Error> {
        Ok(self.retrieve(domid)?.to_json())
    }

    fn free_memory_kib(&self) -> std::result::Result<u64, toolstack::Error> {
        let physinfo = self.physinfo()?;
        Ok(physinfo.free_kib.saturating_sub(physinfo.claimed_kib))
    }

    fn hypervisor(&self) -> std::result::Result<toolstack::Hypervisor, toolstack::Error> {
        Ok(self.hypervisor()?)
    }

    fn memory_needed_kib(&self, config: &str) -> std::result::Result<u64, toolstack::Error> {
        Ok(self.memory_needed_kib(&DomainConfig::from_json(config)?)?)
    }

    fn cpu_policy(&self, of: Viewer) -> std::result::Result<Option<Policy>, toolstack::Error> {
        Ok(self.cpu_policy(of)?)
    }

    fn release(&self) -> std::result::Result<Option<(i32, i32)>, toolstack::Error> {
        let version = self.version()?;
        Ok(Some((version.major, version.minor)))
    }

    fn disks_of_the_kernel(&self, domid: DomId) -> std::result::Result<Vec<String>, toolstack::Error> {
        let backends = vbd::backends(&Xenstore::open()?, domid)?;
        let is_direct = |backend: &vbd::BlockBackend| backend.device.is_some_and(|device| !device.is_loop());
        Ok(backends.into_iter().filter(is_direct).map(|backend| backend.vdev).collect())
    }

    fn cannot_suspend(&self, domid: DomId) -> std::result::Result<bool, toolstack::Error> {
        Ok(self.cannot_suspend(domid)?)
    }

    fn live_migration_obstacle(&self, domid: DomId) -> std::result::Result<Option<String>, toolstack::Error> {
        Ok(self.live_migration_obstacle(domid)?)
    }

    fn save(
        &self,
        domid: DomId,
        fd: BorrowedFd<'_>,
        events: OnStream,
        handle: &dyn Fn(Arc<dyn Abort>),
    ) -> std::result::Result<(), toolstack::Error> {
        Ok(self.save(domid, fd, &events, handle)?)
    }

    fn restore(
        &self,
        config: &str,
        fd: BorrowedFd<'_>,
        events: OnStream,
        handle: &dyn Fn(Arc<dyn Abort>),
    ) -> std::result::Result<DomId, toolstack::Error> {
        Ok(self.restore(&DomainConfig::from_json(config)?, fd, &events, handle)?)
    }

    fn resume(&self, domid: DomId) -> std::result::Result<(), toolstack::Error> {
        Ok(self.resume(domid)?)
    }

    fn stop_log_dirty(&self, domid: DomId) {
        logdirty::off(domid);
    }

    fn rename(&self, domid: DomId, old: &str, new: &str) -> std::result::Result<(), toolstack::Error> {
        Ok(self.rename(domid, old, new)?)
    }

    fn unpause(&self, domid: DomId) -> std::result::Result<(), toolstack::Error> {
        Ok(self.unpause(domid)?)
    }

    fn destroy(&self, domid: DomId) -> std::result::Result<(), toolstack::Error> {
        Ok(self.destroy(domid)?)
    }
}
