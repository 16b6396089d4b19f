//! Domains: what there is, and what can be done to one.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xen_sys as sys;

use super::config::{DomainConfig, Raw};
use super::context::Context;
use super::disposed::Disposed;
use super::error::{Code, Error, Result, Subject};
use super::memory::Malloced;
use super::operation::{Nobody, Operation, Witness, console_how};
use super::xenstore::Xenstore;
use crate::ids::DomId;
use crate::toolstack::{Domain, RunState};

/// Between two looks at the end of what makes a domain.
const BIRTH_INTERVAL: Duration = Duration::from_millis(50);
/// Fires whenever a domain shuts down, suspends or dies (docs/misc/xenstore.txt).
pub(super) const RELEASE_DOMAIN: &str = "@releaseDomain";

/// One domain with what `xl list` shows beyond [`Domain`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainInfo {
    /// What a migration needs to know.
    #[serde(flatten)]
    pub domain: Domain,
    /// How it runs.
    pub kind: Kind,
    /// The letters of `xl list`.
    pub flags: Flags,
    /// Why it shut down, when it has.
    pub shutdown: Option<ShutdownReason>,
}

/// How a domain runs, as the hypervisor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Paravirtualised.
    Pv,
    /// In hardware virtualisation: HVM or PVH, which the hypervisor does not tell apart.
    Hvm,
}

/// What `xl list` writes as `rbpscd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "six independent flags of the hypervisor")]
pub struct Flags {
    /// A virtual CPU runs right now.
    pub running: bool,
    /// All virtual CPUs wait for events.
    pub blocked: bool,
    /// Paused by the toolstack.
    pub paused: bool,
    /// Shut down, for whatever reason, suspended included.
    pub shutdown: bool,
    /// Shut down by a crash.
    pub crashed: bool,
    /// Being torn down.
    pub dying: bool,
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { running, blocked, paused, shutdown, crashed, dying } = *self;
        let letters = [(running, 'r'), (blocked, 'b'), (paused, 'p'), (shutdown, 's'), (crashed, 'c'), (dying, 'd')];
        letters.iter().try_for_each(|(set, letter)| write!(f, "{}", if *set { *letter } else { '-' }))
    }
}

/// Why a domain shut down (libxl.h, `libxl_shutdown_reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShutdownReason {
    /// It powered itself off.
    Poweroff,
    /// It asks to be started again.
    Reboot,
    /// It suspended itself on request.
    Suspend,
    /// It crashed.
    Crash,
    /// Its watchdog fired.
    Watchdog,
    /// It asks for a soft reset.
    SoftReset,
    /// A reason that this program does not know.
    Unknown,
}

/// How a domain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It has shut down and waits to be destroyed.
    Shutdown(ShutdownReason),
    /// It is gone.
    Gone,
}

/// Who wants to know of a console.
struct OnConsole<'a>(&'a mut dyn FnMut(DomId));

impl Witness for OnConsole<'_> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn look(&mut self) {}

    fn console(&mut self, domid: DomId) {
        (self.0)(domid);
    }
}

impl Context {
    /// All domains, dom0 included, by domid.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    pub fn list(&self) -> Result<Vec<DomainInfo>> {
        let mut count = 0;
        let list = self.handle.call_ptr("libxl_list_domain", Subject::Host, |ctx| {
            // SAFETY: `count` is ours to write; the list is ours to free (libxl.h, libxl_list_domain).
            unsafe { sys::libxl_list_domain(ctx, &raw mut count) }
        })?;
        // SAFETY: libxl filled `count` entries, valid until they are freed below.
        let entries = unsafe { std::slice::from_raw_parts(list.as_ptr(), usize::try_from(count).unwrap_or(0)) };
        let mut domains: Vec<_> = entries.iter().map(|info| self.describe(info)).collect();
        // SAFETY: the list and its count as libxl gave them, freed once (libxl.h, libxl_dominfo_list_free).
        unsafe { sys::libxl_dominfo_list_free(list.as_ptr(), count) };
        domains.sort_by_key(|info| info.domain.domid);
        Ok(domains)
    }

    /// One domain, or `None` when no domain has that number.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    pub fn info(&self, domid: DomId) -> Result<Option<DomainInfo>> {
        Ok(self.dominfo(domid)?.map(|info| self.describe(&info)))
    }

    /// What one domain is doing: as [`Context::info`], but without asking xenstore.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    pub fn state(&self, domid: DomId) -> Result<Option<RunState>> {
        Ok(self.dominfo(domid)?.map(|info| run_state(&info, shutdown_reason(&info))))
    }

    fn dominfo(&self, domid: DomId) -> Result<Option<Disposed<sys::libxl_dominfo>>> {
        let mut info = Disposed::<sys::libxl_dominfo>::new();
        let target = info.as_mut_ptr();
        let found = self.handle.call("libxl_domain_info", domid, |ctx| {
            // SAFETY: an initialised value to fill (libxl.h, libxl_domain_info).
            unsafe { sys::libxl_domain_info(ctx, target, domid.0) }
        });
        match found {
            Ok(_) => Ok(Some(info)),
            Err(error) if error.code() == Some(Code::DOMAIN_NOTFOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The domain that has this name, or else this number.
    ///
    /// # Errors
    /// [`Error::NoDomainNamed`] when there is none.
    pub fn find(&self, name: &str) -> Result<DomainInfo> {
        let domains = self.list()?;
        let number = name.parse().ok().map(DomId);
        let named = domains.iter().find(|info| info.domain.name == name);
        let found = named.or_else(|| domains.iter().find(|info| Some(info.domain.domid) == number));
        found.cloned().ok_or_else(|| Error::NoDomainNamed { name: name.to_owned() })
    }

    /// The domain's name, empty while it has none.
    #[must_use]
    pub fn name(&self, domid: DomId) -> String {
        // SAFETY: the result is NULL or a malloc'd string (libxl_utils.h, libxl_domid_to_name).
        let name = unsafe { sys::libxl_domid_to_name(self.handle.ctx(), domid.0) };
        NonNull::new(name).map_or_else(String::new, |name| Malloced::from(name).string())
    }

    /// The configuration of a running domain, with what was changed since it was started.
    ///
    /// # Errors
    /// For dom0, and for domains that libxl did not make.
    pub fn retrieve(&self, domid: DomId) -> Result<DomainConfig> {
        let json = Raw::retrieve(&self.handle, domid)?.text(&self.handle, domid.into())?;
        DomainConfig::from_json(&json)
    }

    /// Makes a domain and leaves it paused.
    ///
    /// # Errors
    /// What had been made of it is destroyed.
    pub fn create(&self, config: &DomainConfig) -> Result<DomId> {
        self.create_telling(config, &mut |_| {})
    }

    /// The same. `console` is told when there is one to attach to: while it is being made, that of its boot loader, if it has one, and again
    /// when it is made. The domain waits for `console` to return.
    ///
    /// # Errors
    /// What had been made of it is destroyed.
    pub fn create_telling(&self, config: &DomainConfig, console: &mut dyn FnMut(DomId)) -> Result<DomId> {
        let operation = Operation::new(None)?;
        let mut raw = Raw::for_new_domain(&operation.handle, config)?;
        let (target, mut domid) = (raw.0.as_mut_ptr(), u32::MAX);
        let (out, console_how) = (&raw mut domid, console_how());
        let made = operation.run("libxl_domain_create_new", Subject::NewDomain, &mut OnConsole(console), |ctx, how| {
            // SAFETY: a valid configuration and a number to write, both alive until run returns, at the operation's end (libxl.h).
            unsafe { sys::libxl_domain_create_new(ctx, target, out, how, &raw const console_how) }
        });
        self.made(made, domid, config.uuid())
    }

    /// Tells the number of the domain with this UUID as soon as it has one, while `make` makes it: libxl tells only when all is done. There must have
    /// been none of that UUID before.
    ///
    /// # Errors
    /// What `make` returns; xenstore cannot be opened.
    pub fn noticing<T, E: From<Error>>(
        &self,
        uuid: Uuid,
        notice: impl FnOnce(DomId) + Send,
        make: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let (xenstore, ended) = (Xenstore::open().map_err(Error::from)?, AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| self.await_birth(&xenstore, uuid, &ended).map(notice));
            let made = make();
            ended.store(true, Ordering::Release);
            made
        })
    }

    /// libxl writes what a domain is called in one transaction as soon as it has its number (libxl_create.c, `libxl__domain_make`).
    fn await_birth(&self, xenstore: &Xenstore, uuid: Uuid, ended: &AtomicBool) -> Option<DomId> {
        let path = format!("/vm/{}", uuid.hyphenated());
        while !ended.load(Ordering::Acquire) {
            let found = xenstore.wait_until(&[&path], Instant::now() + BIRTH_INTERVAL, |_| self.born(uuid));
            match found {
                Ok(None) => {}
                Ok(domid) => return domid,
                Err(error) => {
                    tracing::warn!(%uuid, %error, "the number of the domain that is being made is not noticed");
                    return None;
                }
            }
        }
        None
    }

    /// The one domain of this UUID that is being made.
    fn born(&self, uuid: Uuid) -> Result<Option<DomId>> {
        let of = |info: &DomainInfo| info.domain.uuid == uuid && info.domain.state != RunState::Dying;
        let mut found = self.list()?.into_iter().filter(of);
        Ok(found.next().filter(|_| found.next().is_none()).map(|info| info.domain.domid))
    }

    /// The number of a domain that has been made, or else what is left of it destroyed.
    pub(super) fn made(&self, made: Result<()>, domid: u32, uuid: Option<Uuid>) -> Result<DomId> {
        let domid = DomId(domid);
        let Err(error) = made else { return Ok(domid) };
        // libxl destroys what it failed to make, but not always what it was told to abort (libxl.h, domain_create).
        if domid.0 != u32::MAX
            && let Ok(Some(left)) = self.info(domid)
            && Some(left.domain.uuid) == uuid
            && let Err(undo) = self.destroy(domid)
        {
            tracing::warn!(%domid, %undo, "half-made domain not destroyed");
        }
        Err(error)
    }

    /// Stops a domain's virtual CPUs where they are.
    ///
    /// # Errors
    /// When there is no such domain.
    pub fn pause(&self, domid: DomId) -> Result<()> {
        self.simple("libxl_domain_pause", domid, sys::libxl_domain_pause)
    }

    /// Lets a paused domain run.
    ///
    /// # Errors
    /// When there is no such domain, or its device model does not answer.
    pub fn unpause(&self, domid: DomId) -> Result<()> {
        self.simple("libxl_domain_unpause", domid, sys::libxl_domain_unpause)
    }

    /// Asks the guest to shut itself down; [`Context::wait_shutdown`] tells when it has.
    ///
    /// # Errors
    /// When there is no such domain, or it has no driver that hears the request.
    pub fn shutdown(&self, domid: DomId) -> Result<()> {
        self.simple("libxl_domain_shutdown", domid, sys::libxl_domain_shutdown)
    }

    /// Destroys a domain and removes its devices. Their hotplug programs may take up to 40 s each.
    ///
    /// # Errors
    /// When there is no such domain, or a device could not be removed.
    pub fn destroy(&self, domid: DomId) -> Result<()> {
        let operation = Operation::new(None)?;
        operation.run("libxl_domain_destroy", domid.into(), &mut Nobody, |ctx, how| {
            // SAFETY: a live context and operation (libxl.h, libxl_domain_destroy).
            unsafe { sys::libxl_domain_destroy(ctx, domid.0, how) }
        })
    }

    /// Lets a suspended domain go on in place, cooperatively: its devices are as they were.
    ///
    /// # Errors
    /// [`Error::NotSuspended`], with nothing changed, when it is not suspended: resuming a domain that runs once corrupted its
    /// registers (xen.git f393b48c).
    pub fn resume(&self, domid: DomId) -> Result<()> {
        let state = self.state(domid)?.ok_or(Error::NoDomain { domid })?;
        if state != RunState::Suspended {
            return Err(Error::NotSuspended { domid, state });
        }
        let resumed = self.handle.call("libxl_domain_resume", domid, |ctx| {
            // SAFETY: a live context, no ao_how: it has ended when it returns (libxl.h, libxl_domain_resume).
            unsafe { sys::libxl_domain_resume(ctx, domid.0, 1, ptr::null()) }
        });
        resumed.map(drop)
    }

    /// Renames a domain if it still has the name `old` and nobody on this host has the name `new`: one xenstore transaction.
    ///
    /// # Errors
    /// When either is not so.
    pub fn rename(&self, domid: DomId, old: &str, new: &str) -> Result<()> {
        let c_string = |text: &str| std::ffi::CString::new(text).map_err(|_| Error::Nul { text: text.to_owned() });
        let (old, new) = (c_string(old)?, c_string(new)?);
        let renamed = self.handle.call("libxl_domain_rename", domid, |ctx| {
            // SAFETY: NUL-terminated strings that live during the call (libxl.h, libxl_domain_rename).
            unsafe { sys::libxl_domain_rename(ctx, domid.0, old.as_ptr(), new.as_ptr()) }
        });
        renamed.map(drop)
    }

    /// Waits until a domain has shut down or is gone; `None` when the deadline passes first. A suspended domain has not ended.
    ///
    /// # Errors
    /// When the hypervisor or xenstore does not answer.
    pub fn wait_shutdown(&self, domid: DomId, deadline: Instant) -> Result<Option<Ended>> {
        Xenstore::open()?.wait_until(&[RELEASE_DOMAIN], deadline, |_| {
            let Some(info) = self.dominfo(domid)? else { return Ok(Some(Ended::Gone)) };
            let ended = shutdown_reason(&info).filter(|reason| *reason != ShutdownReason::Suspend);
            Ok(ended.map(Ended::Shutdown))
        })
    }

    /// A function that takes a domain and nothing else, and has ended when it returns.
    pub(super) fn simple(
        &self,
        function: &'static str,
        domid: DomId,
        call: unsafe extern "C" fn(*mut sys::libxl_ctx, u32, *const sys::libxl_asyncop_how) -> std::ffi::c_int,
    ) -> Result<()> {
        // SAFETY: a live context, no ao_how: it has ended when it returns (libxl.h).
        self.handle.call(function, domid, |ctx| unsafe { call(ctx, domid.0, ptr::null()) }).map(drop)
    }

    fn describe(&self, info: &sys::libxl_dominfo) -> DomainInfo {
        let domid = DomId(info.domid);
        let shutdown = shutdown_reason(info);
        let pv = info.domain_type == sys::libxl_domain_type::LIBXL_DOMAIN_TYPE_PV;
        DomainInfo {
            domain: Domain {
                domid,
                name: self.name(domid),
                uuid: Uuid::from_bytes(info.uuid.uuid),
                state: run_state(info, shutdown),
                memory_kib: info.current_memkb + info.outstanding_memkb,
                memory_max_kib: info.max_memkb,
                vcpus: info.vcpu_online,
                cpu_time: Duration::from_nanos(info.cpu_time),
            },
            kind: if pv { Kind::Pv } else { Kind::Hvm },
            flags: Flags {
                running: info.running,
                blocked: info.blocked,
                paused: info.paused,
                shutdown: info.shutdown,
                crashed: shutdown == Some(ShutdownReason::Crash),
                dying: info.dying,
            },
            shutdown,
        }
    }
}

/// The most telling of the flags that may be set at once: a suspended domain may be paused too.
fn run_state(info: &sys::libxl_dominfo, shutdown: Option<ShutdownReason>) -> RunState {
    match shutdown {
        _ if info.dying => RunState::Dying,
        Some(ShutdownReason::Suspend) => RunState::Suspended,
        Some(_) => RunState::Shutdown,
        None if info.paused => RunState::Paused,
        None => RunState::Running,
    }
}

fn shutdown_reason(info: &sys::libxl_dominfo) -> Option<ShutdownReason> {
    info.shutdown.then(|| reason(info.shutdown_reason))
}

fn reason(reason: sys::libxl_shutdown_reason) -> ShutdownReason {
    use sys::libxl_shutdown_reason as R;
    match reason {
        R::LIBXL_SHUTDOWN_REASON_POWEROFF => ShutdownReason::Poweroff,
        R::LIBXL_SHUTDOWN_REASON_REBOOT => ShutdownReason::Reboot,
        R::LIBXL_SHUTDOWN_REASON_SUSPEND => ShutdownReason::Suspend,
        R::LIBXL_SHUTDOWN_REASON_CRASH => ShutdownReason::Crash,
        R::LIBXL_SHUTDOWN_REASON_WATCHDOG => ShutdownReason::Watchdog,
        R::LIBXL_SHUTDOWN_REASON_SOFT_RESET => ShutdownReason::SoftReset,
        _ => ShutdownReason::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(set: impl FnOnce(&mut sys::libxl_dominfo)) -> Disposed<sys::libxl_dominfo> {
        let mut info = Disposed::new();
        set(&mut info);
        info
    }

    fn state(set: impl FnOnce(&mut sys::libxl_dominfo)) -> RunState {
        let info = info(set);
        run_state(&info, shutdown_reason(&info))
    }

    #[test]
    fn a_suspended_domain_is_told_from_one_that_shut_down() {
        let suspend = sys::libxl_shutdown_reason::LIBXL_SHUTDOWN_REASON_SUSPEND;
        let suspended = state(|info| (info.shutdown, info.paused, info.shutdown_reason) = (true, true, suspend));
        assert_eq!(suspended, RunState::Suspended);
        let poweroff = sys::libxl_shutdown_reason::LIBXL_SHUTDOWN_REASON_POWEROFF;
        assert_eq!(state(|info| (info.shutdown, info.shutdown_reason) = (true, poweroff)), RunState::Shutdown);
        assert_eq!(state(|info| info.shutdown_reason = suspend), RunState::Running);
        assert_eq!(state(|info| (info.paused, info.blocked) = (true, true)), RunState::Paused);
        assert_eq!(state(|info| (info.dying, info.shutdown) = (true, true)), RunState::Dying);
    }

    #[test]
    fn flags_are_written_as_xl_list_does() {
        let mut flags =
            Flags { running: false, blocked: true, paused: false, shutdown: false, crashed: false, dying: false };
        assert_eq!(flags.to_string(), "-b----");
        (flags.shutdown, flags.crashed) = (true, true);
        assert_eq!(flags.to_string(), "-b-sc-");
    }
}
