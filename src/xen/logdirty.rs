//! Log-dirty mode, switched off when a save has not done so: its helper is killed by SIGPIPE when the peer dies, and
//! then libxc's own clean-up does not run.

use std::ptr;

use nix::errno::Errno;
use tracing::{debug, warn};
use xen_sys as sys;

use super::control::Interface;
use crate::ids::DomId;

/// Switches log-dirty mode off, if it is on. A domain that is left in it runs on, only slower, so that a failure is logged
/// and nothing more; the next save switches it off and on again (xg_sr_save.c, enable_logdirty).
pub(super) fn off(domid: DomId) {
    match Interface::open().and_then(|interface| shadow_off(&interface, domid)) {
        Ok(()) => debug!(%domid, "log-dirty mode is off"),
        Err(Errno::ESRCH) => debug!(%domid, "no domain to switch log-dirty mode off for"),
        Err(errno) => warn!(%domid, %errno, "log-dirty mode may still be on"),
    }
}

#[cfg(xen_logdirty_control)]
fn shadow_off(interface: &Interface, domid: DomId) -> Result<(), Errno> {
    let off = sys::XEN_DOMCTL_SHADOW_OP_OFF;
    // SAFETY: an open interface, no buffer for this operation (xenctrl.h, xc_shadow_control).
    let rc = unsafe { sys::xc_shadow_control(interface.raw(), domid.0, off, ptr::null_mut(), 0) };
    Errno::result(rc).map(drop)
}

/// Xen 4.15 and before: the same call carries the bitmap of other operations.
#[cfg(not(xen_logdirty_control))]
fn shadow_off(interface: &Interface, domid: DomId) -> Result<(), Errno> {
    let (off, none) = (sys::XEN_DOMCTL_SHADOW_OP_OFF, ptr::null_mut());
    let (xch, mb, stats) = (interface.raw(), ptr::null_mut(), ptr::null_mut());
    // SAFETY: an open interface, no buffers for this operation (xenctrl.h, xc_shadow_control).
    let rc = unsafe { sys::xc_shadow_control(xch, domid.0, off, none, 0, mb, 0, stats) };
    Errno::result(rc).map(drop)
}
