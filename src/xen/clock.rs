//! The kernel's clock: whether somebody keeps it right. Not Xen's; it is here because calls into C are.

/// Whether the kernel says that its clock is synchronised (adjtimex(2), `STA_UNSYNC`); `None` where it may not be asked.
#[must_use]
pub fn is_synchronised() -> Option<bool> {
    // SAFETY: all-zero is a valid timex, its fields are integers; mode 0 changes nothing (adjtimex(2)).
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: a timex that is ours to fill (adjtimex(2)).
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    (state >= 0).then_some(timex.status & libc::STA_UNSYNC == 0)
}
