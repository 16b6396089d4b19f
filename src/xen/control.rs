//! libxenctrl, which has the few calls that libxl has not.

use std::ptr::{self, NonNull};

use nix::errno::Errno;
use xen_sys as sys;

use super::logger::Logger;

/// An open interface to the hypervisor.
pub(super) struct Interface {
    raw: NonNull<sys::xc_interface>,
    /// Freed after the interface that logs to it.
    _logger: Box<Logger>,
}

impl Interface {
    pub(super) fn open() -> Result<Self, Errno> {
        let logger = Box::new(Logger::new(None));
        let lines = (&raw const *logger).cast_mut().cast();
        // SAFETY: the logger begins with xentoollog_logger and outlives the interface (xenctrl.h, xc_interface_open).
        let raw = unsafe { sys::xc_interface_open(lines, ptr::null_mut(), 0) };
        NonNull::new(raw).map(|raw| Self { raw, _logger: logger }).ok_or_else(Errno::last)
    }

    /// The interface, for as long as this is borrowed.
    pub(super) fn raw(&self) -> *mut sys::xc_interface {
        self.raw.as_ptr()
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        // SAFETY: opened by open, closed once (xenctrl.h, xc_interface_close).
        unsafe { sys::xc_interface_close(self.raw.as_ptr()) };
    }
}
