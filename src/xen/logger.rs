//! libxl's log: its messages become events of `tracing`, target `libxl`; its error lines join the error of the call that
//! they belong to; its progress messages go to whoever follows a stream.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_ulong};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

use tracing::{Level, debug, error, info, trace, warn};
use xen_sys as sys;

use super::error::Said;
use crate::toolstack::StreamProgress;

/// The longest line taken over; more is cut.
const LINE_BYTES_MAX: usize = 4096;

/// Who follows a stream's progress.
pub(super) type Follower = Box<dyn Fn(StreamProgress) + Send + Sync>;

/// What libxl gets as its logger. It must outlive the context that logs to it, and must not move.
#[repr(C)]
pub(super) struct Logger {
    /// First, so that C's pointer to it is a pointer to the whole.
    raw: sys::xentoollog_logger,
    follower: Option<Follower>,
    /// Error lines since the last [`Logger::take`], by the thread that libxl ran on.
    said: Mutex<HashMap<ThreadId, Said>>,
    /// Whether libxl has started a child process in this context.
    forked: AtomicBool,
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logger").finish_non_exhaustive()
    }
}

impl Logger {
    pub(super) fn new(follower: Option<Follower>) -> Self {
        let raw = sys::xentoollog_logger { vmessage: Some(vmessage), progress: Some(progress), destroy: None };
        Self { raw, follower, said: Mutex::default(), forked: AtomicBool::new(false) }
    }

    /// The error lines that this thread has caused, and forgets them.
    pub(super) fn take(&self) -> Said {
        self.said().remove(&thread::current().id()).unwrap_or_default()
    }

    /// Notes that libxl has started a child process.
    pub(super) fn set_forked(&self) {
        self.forked.store(true, Ordering::Release);
    }

    /// Whether libxl has started a child process in this context.
    pub(super) fn has_forked(&self) -> bool {
        self.forked.load(Ordering::Acquire)
    }

    fn message(&self, level: sys::xentoollog_level, errnoval: c_int, context: &str, text: &str) {
        use sys::xentoollog_level as L;
        let errno = (errnoval > 0).then(|| std::io::Error::from_raw_os_error(errnoval));
        let errno = errno.as_ref().map(tracing::field::display);
        match level {
            L::XTL_CRITICAL | L::XTL_ERROR => {
                self.remember(text, errnoval);
                error!(target: "libxl", context, errno, "{text}");
            }
            L::XTL_WARN => warn!(target: "libxl", context, errno, "{text}"),
            L::XTL_NOTICE | L::XTL_INFO => info!(target: "libxl", context, errno, "{text}"),
            L::XTL_PROGRESS | L::XTL_DETAIL | L::XTL_VERBOSE => debug!(target: "libxl", context, errno, "{text}"),
            _ => trace!(target: "libxl", context, errno, "{text}"),
        }
    }

    fn remember(&self, text: &str, errnoval: c_int) {
        let line = match errnoval {
            1.. => format!("{text}: {}", std::io::Error::from_raw_os_error(errnoval)),
            _ => text.to_owned(),
        };
        self.said().entry(thread::current().id()).or_default().add(line);
    }

    fn said(&self) -> std::sync::MutexGuard<'_, HashMap<ThreadId, Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// libxl has met something that it cannot recover from. Without this hook it would end the process (libxl_event.h,
/// `libxl_event_hooks`). The calls that it concerns return errors from here on.
pub(super) fn disaster(message: &str, errnoval: c_int) {
    let errno = std::io::Error::from_raw_os_error(errnoval);
    error!(target: "libxl", %errno, "libxl cannot go on: {message}");
}

unsafe extern "C" fn vmessage(
    logger: *mut sys::xentoollog_logger,
    level: sys::xentoollog_level,
    errnoval: c_int,
    context: *const c_char,
    format: *const c_char,
    arguments: *mut sys::__va_list_tag,
) {
    if !enabled(level) {
        return;
    }
    // SAFETY: `raw` is the first field of our repr(C) Logger, which outlives the context (Handle).
    let logger = unsafe { &*logger.cast::<Logger>() };
    let mut line = [0u8; LINE_BYTES_MAX];
    let (start, size) = (line.as_mut_ptr().cast(), LINE_BYTES_MAX as c_ulong);
    // SAFETY: writes at most `size` bytes and always a NUL; format and arguments belong together (xentoollog.h, vmessage).
    unsafe { sys::vsnprintf(start, size, format, arguments) };
    let text = CStr::from_bytes_until_nul(&line).unwrap_or_default().to_string_lossy();
    let context = string(context);
    // A panic must not reach C: it ends here, and the line is lost.
    drop(catch_unwind(AssertUnwindSafe(|| logger.message(level, errnoval, &context, text.trim_end()))));
}

/// libxl's debug lines are many: they are not even formatted when nobody reads them.
fn enabled(level: sys::xentoollog_level) -> bool {
    level.0 > sys::xentoollog_level::XTL_DEBUG.0 || tracing::enabled!(target: "libxl", Level::TRACE)
}

unsafe extern "C" fn progress(
    logger: *mut sys::xentoollog_logger,
    _context: *const c_char,
    doing_what: *const c_char,
    _percent: c_int,
    done: c_ulong,
    total: c_ulong,
) {
    // SAFETY: as in vmessage.
    let logger = unsafe { &*logger.cast::<Logger>() };
    let doing_what = string(doing_what);
    if let (Some(follower), Some(round)) = (&logger.follower, round(&doing_what)) {
        let step = StreamProgress { round, done, total };
        drop(catch_unwind(AssertUnwindSafe(|| follower(step))));
    }
}

/// The round that libxc's progress message is about: "Frames iteration 3", on some releases "Frames iteration 3 of 5"
/// (xg_sr_save.c, update_progress_string); just "Frames" where there is one only (send_domain_memory_nonlive).
fn round(doing_what: &str) -> Option<u32> {
    if doing_what == "Frames" {
        return Some(0);
    }
    doing_what.strip_prefix("Frames iteration ")?.split(' ').next()?.parse().ok()
}

/// A C string that may be missing.
fn string(pointer: *const c_char) -> String {
    let Some(pointer) = NonNull::new(pointer.cast_mut()) else {
        return String::new();
    };
    // SAFETY: xentoollog passes NULL or a NUL-terminated string that lives during the call (xentoollog.h).
    let string = unsafe { CStr::from_ptr(pointer.as_ptr()) };
    string.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn error_lines_are_kept_per_thread() {
        let logger = Logger::new(None);
        let raw = (&raw const logger).cast_mut().cast();
        // SAFETY: xtl_log formats "%d" with one int and calls our vmessage with a logger that lives here.
        unsafe { sys::xtl_log(raw, sys::xentoollog_level::XTL_ERROR, 22, c"xc".as_ptr(), c"no %d pages".as_ptr(), 7) };
        thread::scope(|scope| scope.spawn(|| assert_eq!(logger.take(), Said::default())).join().expect("join"));
        assert_eq!(logger.take().to_string(), "no 7 pages: Invalid argument (os error 22)");
        assert_eq!(logger.take(), Said::default());
    }

    #[test]
    fn rounds_reach_the_follower_and_panics_stop_at_the_border() {
        let seen = Arc::new(AtomicU64::new(0));
        let follower: Follower = Box::new({
            let seen = Arc::clone(&seen);
            move |step| {
                seen.store(u64::from(step.round) * 1000 + step.done, Ordering::Relaxed);
                assert!(step.done != 13, "a panic in a follower");
            }
        });
        let logger = Logger::new(Some(follower));
        let raw = (&raw const logger).cast_mut().cast();
        for (what, done) in [(c"Frames iteration 2", 5), (c"Domain now suspended", 9), (c"Frames iteration 3 of 5", 13)]
        {
            // SAFETY: plain values and a logger that lives here (xentoollog.h, xtl_progress).
            unsafe { sys::xtl_progress(raw, c"xc".as_ptr(), what.as_ptr(), done, 100) };
        }
        assert_eq!(seen.load(Ordering::Relaxed), 3013);
    }
}
