//! One long operation in a context of its own: its log lines, its progress and its abort cannot be mistaken for another
//! operation's, and the thread that started it drives its events.

use std::ffi::c_int;
use std::fmt;
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libc::{POLLIN, pollfd, timeval};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use xen_sys as sys;

use super::error::{Code, Error, Result, Subject, check_rc};
use super::handle::Handle;
use super::logger::Follower;
use crate::ids::DomId;
use crate::toolstack::Abort;

/// How many descriptors libxl may want to wait for in one operation; it uses about ten.
const FDS_MAX: u16 = 256;

/// Names our operation among those of its context, in which there is no other.
const EVENT: u64 = 1;

const ENDED: sys::libxl_event_type = sys::libxl_event_type::LIBXL_EVENT_TYPE_OPERATION_COMPLETE;
const CONSOLE: sys::libxl_event_type = sys::libxl_event_type::LIBXL_EVENT_TYPE_DOMAIN_CREATE_CONSOLE_AVAILABLE;

/// What an operation says by events.
enum Said {
    Console(DomId),
    Ended(c_int),
}

/// An operation before and while it runs.
pub(super) struct Operation {
    pub(super) handle: Handle,
    abort_reader: PipeReader,
    switch: Arc<AbortSwitch>,
}

/// Something else to look at while the operation runs.
pub(super) trait Witness {
    /// Readable when there is something to see.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
    /// Called when the descriptor is readable, and once when the operation has ended.
    fn look(&mut self);
    /// Called when the domain that is being made has a console to attach to: its boot loader's, then its own.
    fn console(&mut self, _domid: DomId) {}
}

/// For an operation at which nobody looks.
pub(super) struct Nobody;

impl Witness for Nobody {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn look(&mut self) {}
}

impl Operation {
    pub(super) fn new(follower: Option<Follower>) -> Result<Self> {
        let handle = Handle::open(follower)?;
        let (abort_reader, writer) = pipe().map_err(Error::Wait)?;
        let switch = Arc::new(AbortSwitch { requested: AtomicBool::new(false), writer });
        Ok(Self { handle, abort_reader, switch })
    }

    /// What aborts this operation, from any thread, also before it has begun.
    pub(super) fn abort_switch(&self) -> Arc<dyn Abort> {
        self.switch.clone()
    }

    /// Readable once an abort has been requested.
    pub(super) fn abort_fd(&self) -> BorrowedFd<'_> {
        self.abort_reader.as_fd()
    }

    /// Starts the operation and returns when it has ended. An abort is passed on once libxl has started its first child, the
    /// helper of a save or restore: before that, libxl does not survive it (see [`super::begin`]).
    pub(super) fn run(
        &self,
        function: &'static str,
        subject: Subject,
        witness: &mut dyn Witness,
        start: impl FnOnce(*mut sys::libxl_ctx, *const sys::libxl_asyncop_how) -> c_int,
    ) -> Result<()> {
        let how = how();
        self.handle.call(function, subject, |ctx| start(ctx, &raw const how))?;
        let mut abort = Some(how);
        let code = loop {
            if let Some(rc) = self.ended(witness) {
                break check_rc(rc).err();
            }
            self.wait(witness);
            if self.switch.requested()
                && self.handle.has_forked()
                && let Some(how) = abort.take()
            {
                self.abort(&how);
            }
        };
        witness.look();
        code.map_or(Ok(()), |code: Code| Err(self.handle.error(function, subject, code)))
    }

    /// The operation's result, if it has ended. What it says before goes to the witness.
    fn ended(&self, witness: &mut dyn Witness) -> Option<c_int> {
        loop {
            match self.next_event()? {
                Said::Console(domid) => witness.console(domid),
                Said::Ended(rc) => return Some(rc),
            }
        }
    }

    fn next_event(&self) -> Option<Said> {
        let mut event = ptr::null_mut();
        let mask = (1u64 << ENDED.0) | (1u64 << CONSOLE.0);
        // SAFETY: `event` is ours to write; no predicate (libxl_event.h, libxl_event_check).
        let rc = unsafe { sys::libxl_event_check(self.handle.ctx(), &raw mut event, mask, None, ptr::null_mut()) };
        check_rc(rc).ok()?;
        // SAFETY: on success libxl gives us a valid event.
        let seen = unsafe { &*event };
        let said = if seen.type_ == CONSOLE {
            Said::Console(DomId(seen.domid))
        } else {
            // SAFETY: it has the other type in the mask, whose member of the union this is.
            Said::Ended(unsafe { seen.u.operation_complete.rc })
        };
        // SAFETY: the event is ours to free, once (libxl_event.h, libxl_event_free).
        unsafe { sys::libxl_event_free(self.handle.ctx(), event) };
        Some(said)
    }

    /// Waits until libxl, the witness or the abort switch has something to do, and lets libxl do its part.
    fn wait(&self, witness: &mut dyn Witness) {
        let (mut fds, timeout_ms) = self.libxl_fds();
        let ours = fds.len();
        fds.push(readable(witness.fd()));
        fds.push(readable((!self.switch.requested()).then(|| self.abort_fd())));
        poll(&mut fds, timeout_ms);
        if fds[ours].revents != 0 {
            witness.look();
        }
        let count = c_int::try_from(ours).unwrap_or(0);
        // SAFETY: the first `count` entries are those that beforepoll gave, with what poll saw (libxl_event.h).
        unsafe { sys::libxl_osevent_afterpoll(self.handle.ctx(), count, fds.as_ptr(), now()) };
    }

    /// What libxl wants to wait for, and for how long at most (-1: no limit).
    fn libxl_fds(&self) -> (Vec<pollfd>, c_int) {
        let mut fds = vec![readable(None); usize::from(FDS_MAX)];
        let (mut count, mut timeout_ms) = (c_int::from(FDS_MAX), -1);
        let (size, start) = (&raw mut count, fds.as_mut_ptr());
        // SAFETY: `fds` has as many entries as `count` says; both numbers are ours to write (libxl_event.h).
        let rc = unsafe { sys::libxl_osevent_beforepoll(self.handle.ctx(), size, start, &raw mut timeout_ms, now()) };
        if let Err(code) = check_rc(rc) {
            // More descriptors than fit: look again soon rather than miss one.
            tracing::warn!(%code, count, "libxl's descriptors do not fit");
            (count, timeout_ms) = (0, 10);
        }
        fds.truncate(usize::try_from(count).unwrap_or(0));
        (fds, timeout_ms)
    }

    fn abort(&self, how: &sys::libxl_asyncop_how) {
        // SAFETY: `how` names the operation as it was started (libxl.h, libxl_ao_abort).
        let rc = unsafe { sys::libxl_ao_abort(self.handle.ctx(), how) };
        tracing::debug!(rc, "abort requested");
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// Sets a flag and wakes the thread that drives the operation; it never touches libxl, so it may be used on any thread, inside
/// any callback, and after the operation's end.
struct AbortSwitch {
    requested: AtomicBool,
    writer: PipeWriter,
}

impl AbortSwitch {
    fn requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }
}

impl Abort for AbortSwitch {
    fn abort(&self) {
        if !self.requested.swap(true, Ordering::AcqRel) {
            // One byte fits into an empty pipe; when the reader is gone the operation is too.
            let _ = (&self.writer).write(b"a");
        }
    }
}

/// The operation reports its end by an event, not by a callback.
fn how() -> sys::libxl_asyncop_how {
    sys::libxl_asyncop_how { callback: None, u: sys::libxl_asyncop_how__bindgen_ty_1 { for_event: EVENT } }
}

/// That a console can be attached is told by events, too.
pub(super) fn console_how() -> sys::libxl_asyncprogress_how {
    sys::libxl_asyncprogress_how { callback: None, for_event: EVENT, for_callback: ptr::null_mut() }
}

/// poll ignores an entry whose descriptor is negative.
fn readable(fd: Option<BorrowedFd<'_>>) -> pollfd {
    pollfd { fd: fd.map_or(-1, |fd| fd.as_raw_fd()), events: POLLIN, revents: 0 }
}

fn poll(fds: &mut [pollfd], timeout_ms: c_int) {
    // SAFETY: the slice is valid for its length (poll(2)). EINTR leaves revents as they are: zero.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
    if ready < 0 && nix::errno::Errno::last() != nix::errno::Errno::EINTR {
        // Out of kernel memory: do not spin.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// libxl counts its timeouts by gettimeofday (libxl_event.c).
fn now() -> timeval {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |now| now.num_microseconds());
    timeval { tv_sec: now / 1_000_000, tv_usec: now % 1_000_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_wakes_once_and_outlives_its_operation() {
        let (reader, writer) = pipe().expect("pipe");
        let switch = AbortSwitch { requested: AtomicBool::new(false), writer };
        switch.abort();
        switch.abort();
        let mut fds = [readable(Some(reader.as_fd())), readable(None)];
        poll(&mut fds, 0);
        assert_eq!((fds[0].revents, fds[1].revents), (POLLIN, 0));
        drop(reader);
        switch.abort();
    }
}
