//! One `libxl_ctx` with its logger and hooks. Several may be open at once, on any threads.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

use xen_sys as sys;

use super::error::{Code, Error, Result, Said, Subject, check_ptr, check_rc};
use super::logger::{self, Follower, Logger};

/// An open context and the logger that it writes to.
#[derive(Debug)]
pub(super) struct Handle {
    ctx: NonNull<sys::libxl_ctx>,
    logger: NonNull<Logger>,
}

// SAFETY: a libxl_ctx may be used by any number of threads, it locks itself (libxl_event.h, "Threads"; libxl_internal.h, CTX_LOCK);
// Logger is Send + Sync by its fields but for the function pointers, which are immutable.
unsafe impl Send for Handle {}
// SAFETY: as for Send.
unsafe impl Sync for Handle {}

/// libxl reaps its own children and no others: we have children of our own. Every context of the process must agree on this
/// (libxl_event.h, `libxl_sigchld_owner`). "*hooks is not copied and must outlast the libxl_ctx", hence static.
static CHILD_HOOKS: sys::libxl_childproc_hooks = sys::libxl_childproc_hooks {
    chldowner: sys::libxl_sigchld_owner::libxl_sigchld_owner_libxl_always_selective_reap,
    fork_replacement: Some(fork),
    reaped_callback: None,
};

/// No events by callback; a disaster is logged instead of ending the process.
static EVENT_HOOKS: sys::libxl_event_hooks =
    sys::libxl_event_hooks { event_occurs_mask: 0, event_occurs: None, disaster: Some(disaster) };

impl Handle {
    /// Opens a context; `follower` gets the progress of the streams that run in it.
    pub(super) fn open(follower: Option<Follower>) -> Result<Self> {
        let logger = NonNull::from(Box::leak(Box::new(Logger::new(follower))));
        match alloc(logger) {
            Ok(ctx) => {
                let handle = Self { ctx, logger };
                handle.set_hooks();
                Ok(handle)
            }
            Err(code) => {
                // SAFETY: leaked above, and nobody else has it: no context was made.
                let logger = unsafe { Box::from_raw(logger.as_ptr()) };
                Err(Error::Open { code, said: logger.take() })
            }
        }
    }

    fn set_hooks(&self) {
        // SAFETY: nothing runs in the new context yet; the hooks are static (libxl_event.h, libxl_childproc_setmode).
        unsafe { sys::libxl_childproc_setmode(self.ctx(), &raw const CHILD_HOOKS, self.logger.as_ptr().cast()) };
        // SAFETY: as above (libxl_event.h, libxl_event_register_callbacks).
        unsafe { sys::libxl_event_register_callbacks(self.ctx(), &raw const EVENT_HOOKS, ptr::null_mut()) };
    }

    /// The context, for as long as the handle is borrowed.
    pub(super) fn ctx(&self) -> *mut sys::libxl_ctx {
        self.ctx.as_ptr()
    }

    /// Calls a libxl function that returns an error number, and adds to an error what libxl logged meanwhile.
    pub(super) fn call(
        &self,
        function: &'static str,
        subject: impl Into<Subject>,
        call: impl FnOnce(*mut sys::libxl_ctx) -> c_int,
    ) -> Result<c_int> {
        self.forget();
        check_rc(call(self.ctx())).map_err(|code| self.error(function, subject, code))
    }

    /// The same for a function that returns an object or NULL.
    pub(super) fn call_ptr<T>(
        &self,
        function: &'static str,
        subject: impl Into<Subject>,
        call: impl FnOnce(*mut sys::libxl_ctx) -> *mut T,
    ) -> Result<NonNull<T>> {
        self.forget();
        check_ptr(call(self.ctx())).map_err(|code| self.error(function, subject, code))
    }

    /// Whether libxl has started a child process in this context.
    pub(super) fn has_forked(&self) -> bool {
        // SAFETY: as in said.
        unsafe { self.logger.as_ref() }.has_forked()
    }

    /// Drops the error lines of earlier calls that succeeded all the same.
    pub(super) fn forget(&self) {
        self.said();
    }

    /// What libxl has logged as errors on this thread since the last call.
    pub(super) fn said(&self) -> Said {
        // SAFETY: the logger lives until Drop, and is only ever borrowed shared.
        unsafe { self.logger.as_ref() }.take()
    }

    pub(super) fn error(&self, function: &'static str, subject: impl Into<Subject>, code: Code) -> Error {
        Error::Libxl { function, subject: subject.into(), code, said: self.said() }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: alloc made it, no operation is under way (Operation waits for its end), and it is freed once (libxl.h).
        unsafe { sys::libxl_ctx_free(self.ctx.as_ptr()) };
        // SAFETY: leaked in open; the context that used it is gone.
        drop(unsafe { Box::from_raw(self.logger.as_ptr()) });
    }
}

fn alloc(logger: NonNull<Logger>) -> std::result::Result<NonNull<sys::libxl_ctx>, Code> {
    let mut ctx = ptr::null_mut();
    let version = sys::LIBXL_VERSION.cast_signed();
    // SAFETY: `ctx` is ours to write; the logger begins with xentoollog_logger and outlives the context (libxl.h, libxl_ctx_alloc).
    check_rc(unsafe { sys::libxl_ctx_alloc(&raw mut ctx, version, 0, logger.as_ptr().cast()) })?;
    check_ptr(ctx)
}

/// Forks, as libxl would, and takes note of it: whoever aborts a stream must know whether its helper runs.
/// "Should behave exactly like fork, including setting errno" (libxl_event.h); in the child nothing is touched.
unsafe extern "C" fn fork(logger: *mut c_void) -> libc::pid_t {
    // SAFETY: libxl calls this where it would fork itself; its child execs or exits without returning to Rust.
    let pid = unsafe { libc::fork() };
    if pid > 0 {
        // SAFETY: the logger given in set_hooks, which outlives the context.
        let logger = unsafe { &*logger.cast::<Logger>() };
        logger.set_forked();
    }
    pid
}

/// Must not call libxl (libxl_event.h), and does not.
unsafe extern "C" fn disaster(_: *mut c_void, _: sys::libxl_event_type, message: *const c_char, errnoval: c_int) {
    // SAFETY: libxl passes a NUL-terminated string that lives during the call (libxl_event.c, libxl__event_disaster).
    let message = unsafe { CStr::from_ptr(message) };
    drop(catch_unwind(AssertUnwindSafe(|| logger::disaster(&message.to_string_lossy(), errnoval))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_open_or_the_error_says_what_is_missing() {
        match Handle::open(None) {
            Ok(handle) => assert_eq!(handle.said(), Said::default()),
            Err(error) => assert!(error.to_string().contains("cannot open libxc handle"), "{error}"),
        }
    }
}
