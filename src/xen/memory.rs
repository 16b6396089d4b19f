//! Memory that C allocated and we free.

use std::ffi::{CStr, c_char};
use std::fmt;
use std::ptr::NonNull;

/// A string that libxl or one of its helpers has malloc'd for us.
pub(super) struct Malloced(NonNull<c_char>);

impl Malloced {
    pub(super) fn string(&self) -> String {
        // SAFETY: C's strings are NUL-terminated, and this one lives as long as self.
        unsafe { CStr::from_ptr(self.0.as_ptr()) }.to_string_lossy().into_owned()
    }
}

impl From<NonNull<c_char>> for Malloced {
    fn from(pointer: NonNull<c_char>) -> Self {
        Self(pointer)
    }
}

impl Drop for Malloced {
    fn drop(&mut self) {
        // SAFETY: "strings are malloc'd, the caller frees" (libxl.h, memory management); this runs once.
        unsafe { libc::free(self.0.as_ptr().cast()) }
    }
}

impl fmt::Debug for Malloced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.string().fmt(f)
    }
}
