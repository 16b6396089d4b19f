//! Requests to xenstore, inside a transaction or outside of any.

use std::ffi::{c_char, c_uint, c_void};

use nix::errno::Errno;
use xen_sys as sys;

use super::{Malloced, Result, Xenstore, c_string, check_errno, request, text};

/// A transaction under way: what it reads and writes is seen by others all at once, or not at all.
#[derive(Debug)]
pub struct Transaction<'a> {
    xenstore: &'a Xenstore,
    id: sys::xs_transaction_t,
}

impl<'a> Transaction<'a> {
    pub(super) fn begin(xenstore: &'a Xenstore) -> Result<Self> {
        // SAFETY: the handle is open while it is borrowed; the id is ended exactly once, by end or Drop (xenstore.h).
        let id = unsafe { sys::xs_transaction_start(xenstore.0.as_ptr()) };
        if id == sys::XBT_NULL {
            return Err(request("transaction", "/", Errno::last()));
        }
        Ok(Self { xenstore, id })
    }

    /// What a request outside of any transaction is made with.
    pub(super) fn none(xenstore: &'a Xenstore) -> Self {
        Self { xenstore, id: sys::XBT_NULL }
    }

    /// As [`Xenstore::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, path: &str) -> Result<Option<String>> {
        let (c_path, mut length) = (c_string(path)?, 0);
        // SAFETY: the handle is open, the path NUL-terminated, the length ours to write; the result is malloc'd (xenstore.h, xs_read).
        let value = unsafe { sys::xs_read(self.handle(), self.id, c_path.as_ptr(), &raw mut length) };
        let Some(value) = Malloced::new(value) else {
            return missing_is("read", path, None);
        };
        // SAFETY: the block holds `length` bytes and a NUL after them (xenstore.h, xs_read).
        let bytes = unsafe { std::slice::from_raw_parts(value.0.as_ptr().cast::<u8>(), length as usize) };
        Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
    }

    /// As [`Xenstore::write`].
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, path: &str, value: &str) -> Result<()> {
        let c_path = c_string(path)?;
        let length = c_uint::try_from(value.len()).map_err(|_| request("write", path, Errno::E2BIG))?;
        let data = value.as_ptr().cast::<c_void>();
        // SAFETY: the handle is open, the path NUL-terminated, `data` readable for `length` bytes (xenstore.h, xs_write).
        let done = unsafe { sys::xs_write(self.handle(), self.id, c_path.as_ptr(), data, length) };
        check_errno(done, "write", path)
    }

    /// As [`Xenstore::mkdir`].
    ///
    /// # Errors
    /// As there.
    pub fn mkdir(&self, path: &str) -> Result<()> {
        let c_path = c_string(path)?;
        // SAFETY: the handle is open and the path NUL-terminated (xenstore.h, xs_mkdir).
        let done = unsafe { sys::xs_mkdir(self.handle(), self.id, c_path.as_ptr()) };
        check_errno(done, "mkdir", path)
    }

    /// As [`Xenstore::rm`].
    ///
    /// # Errors
    /// As there.
    pub fn rm(&self, path: &str) -> Result<()> {
        let c_path = c_string(path)?;
        // SAFETY: the handle is open and the path NUL-terminated (xenstore.h, xs_rm).
        let done = unsafe { sys::xs_rm(self.handle(), self.id, c_path.as_ptr()) };
        if done { Ok(()) } else { missing_is("rm", path, ()) }
    }

    /// As [`Xenstore::directory`].
    ///
    /// # Errors
    /// As there.
    pub fn directory(&self, path: &str) -> Result<Vec<String>> {
        let (c_path, mut count) = (c_string(path)?, 0);
        // SAFETY: the handle is open, the path NUL-terminated, the count ours to write; the result is one malloc'd block (xenstore.h, xs_directory).
        let names = unsafe { sys::xs_directory(self.handle(), self.id, c_path.as_ptr(), &raw mut count) };
        let Some(names) = Malloced::new(names) else {
            return missing_is("directory", path, Vec::new());
        };
        // SAFETY: the block begins with `count` pointers to C strings inside it (xenstore.h, xs_directory).
        let names = unsafe { std::slice::from_raw_parts(names.0.as_ptr().cast::<*const c_char>(), count as usize) };
        Ok(names.iter().map(|name| text(*name)).collect())
    }

    fn handle(&self) -> *mut sys::xs_handle {
        self.xenstore.0.as_ptr()
    }

    pub(super) fn end(mut self, commit: bool) -> std::result::Result<(), Errno> {
        let id = std::mem::replace(&mut self.id, sys::XBT_NULL);
        // SAFETY: the id came from begin and is ended only here: Drop sees XBT_NULL (xenstore.h, xs_transaction_end).
        let done = unsafe { sys::xs_transaction_end(self.handle(), id, !commit) };
        if done { Ok(()) } else { Err(Errno::last()) }
    }
}

/// A transaction that a panic leaves behind would block the daemon's commits: it is abandoned.
impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.id != sys::XBT_NULL {
            // SAFETY: as in end.
            unsafe { sys::xs_transaction_end(self.handle(), self.id, true) };
        }
    }
}

/// What a failed request comes to where a missing node is no error.
fn missing_is<T>(operation: &'static str, path: &str, missing: T) -> Result<T> {
    match Errno::last() {
        Errno::ENOENT => Ok(missing),
        errno => Err(request(operation, path, errno)),
    }
}
