//! Owners of libxl's own types: initialised once, disposed of once.

use std::fmt;
use std::ops::{Deref, DerefMut};

use xen_sys as sys;

/// A type that libxl's interface description defines: `libxl_X_init` makes it valid, `libxl_X_dispose` frees what it holds.
///
/// # Safety
/// `init` must make any memory a valid value, and `dispose` must free what a valid value holds.
pub(super) unsafe trait Idl {
    /// `libxl_X_init`.
    const INIT: unsafe extern "C" fn(*mut Self);
    /// `libxl_X_dispose`.
    const DISPOSE: unsafe extern "C" fn(*mut Self);
}

/// A valid value of such a type. It is boxed because some are kilobytes big; its members are freed when it goes.
pub(super) struct Disposed<T: Idl>(Box<T>);

impl<T: Idl> Disposed<T> {
    pub(super) fn new() -> Self {
        let mut memory = Box::<T>::new_uninit();
        // SAFETY: init writes the whole of a value into the memory given (libxl.h, "libxl types").
        unsafe { T::INIT(memory.as_mut_ptr()) };
        // SAFETY: init has just made it valid.
        Self(unsafe { memory.assume_init() })
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut T {
        &raw mut *self.0
    }
}

impl<T: Idl> Deref for Disposed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Idl> DerefMut for Disposed<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Idl> Drop for Disposed<T> {
    fn drop(&mut self) {
        // SAFETY: new initialised it; dispose frees members only, and this runs once (libxl.h, "libxl types").
        unsafe { T::DISPOSE(&raw mut *self.0) }
    }
}

impl<T: Idl> fmt::Debug for Disposed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Disposed<{}>", std::any::type_name::<T>())
    }
}

macro_rules! idl {
    ($($ty:ident: $init:ident, $dispose:ident;)*) => {$(
        // SAFETY: the two functions that libxl generates for this type (_libxl_types.h).
        unsafe impl Idl for sys::$ty {
            const INIT: unsafe extern "C" fn(*mut Self) = sys::$init;
            const DISPOSE: unsafe extern "C" fn(*mut Self) = sys::$dispose;
        }
    )*};
}

idl! {
    libxl_domain_config: libxl_domain_config_init, libxl_domain_config_dispose;
    libxl_domain_build_info: libxl_domain_build_info_init, libxl_domain_build_info_dispose;
    libxl_domain_restore_params: libxl_domain_restore_params_init, libxl_domain_restore_params_dispose;
    libxl_dominfo: libxl_dominfo_init, libxl_dominfo_dispose;
    libxl_physinfo: libxl_physinfo_init, libxl_physinfo_dispose;
    libxl_device_disk: libxl_device_disk_init, libxl_device_disk_dispose;
    libxl_device_pci: libxl_device_pci_init, libxl_device_pci_dispose;
    libxl_device_nic: libxl_device_nic_init, libxl_device_nic_dispose;
}
