//! What a domain sees of the processor, and what one may see at most on this host, as the hypervisor has it (xenguest.h, "cpu_policy").

use nix::errno::Errno;

use super::context::Context;
use crate::cpu::{Policy, Viewer};

/// The policy; `None` where the installed Xen cannot tell (before 4.16).
#[cfg(xen_cpu_policy)]
pub(super) fn policy(of: Viewer) -> Result<Option<Policy>, Errno> {
    known::policy(of).map(Some)
}

/// The policy; `None` where the installed Xen cannot tell (before 4.16).
#[cfg(not(xen_cpu_policy))]
pub(super) fn policy(_: Viewer) -> Result<Option<Policy>, Errno> {
    Ok(None)
}

impl Context {
    /// What a domain, or one of a kind at most, sees of the processor here.
    ///
    /// # Errors
    /// When the hypervisor does not answer, or runs no domains of that kind.
    pub fn cpu_policy(&self, of: Viewer) -> std::io::Result<Option<Policy>> {
        Ok(policy(of)?)
    }
}

#[cfg(xen_cpu_policy)]
mod known {
    use std::ptr::{self, NonNull};

    use nix::errno::Errno;
    use xen_sys as sys;

    use crate::cpu::{Leaf, Policy, Viewer};
    use crate::xen::control::Interface;

    pub(super) fn policy(of: Viewer) -> Result<Policy, Errno> {
        let interface = Interface::open()?;
        let object = Object::new()?;
        object.fill(&interface, of)?;
        Ok(Policy::from_leaves(&object.leaves(&interface)?))
    }

    /// libxenguest's own.
    struct Object(NonNull<sys::xc_cpu_policy_t>);

    impl Object {
        fn new() -> Result<Self, Errno> {
            // SAFETY: takes nothing; the result is NULL or ours to destroy (xenguest.h, xc_cpu_policy_init).
            NonNull::new(unsafe { sys::xc_cpu_policy_init() }).map(Self).ok_or_else(Errno::last)
        }

        fn fill(&self, interface: &Interface, of: Viewer) -> Result<(), Errno> {
            let (xch, target) = (interface.raw(), self.0.as_ptr());
            let rc = match of {
                // SAFETY: an open interface and a policy to fill (xenguest.h, xc_cpu_policy_get_domain).
                Viewer::Domain(domid) => unsafe { sys::xc_cpu_policy_get_domain(xch, domid.0, target) },
                // SAFETY: as before (xenguest.h, xc_cpu_policy_get_system).
                Viewer::AnyPv => unsafe {
                    sys::xc_cpu_policy_get_system(xch, sys::XEN_SYSCTL_cpu_policy_pv_max, target)
                },
                // SAFETY: as before.
                Viewer::AnyHvm => unsafe {
                    sys::xc_cpu_policy_get_system(xch, sys::XEN_SYSCTL_cpu_policy_hvm_max, target)
                },
            };
            Errno::result(rc).map(drop)
        }

        fn leaves(&self, interface: &Interface) -> Result<Vec<Leaf>, Errno> {
            let (mut count, mut msrs) = (0, 0);
            // SAFETY: an open interface and two numbers to write (xenguest.h, xc_cpu_policy_get_size).
            let rc = unsafe { sys::xc_cpu_policy_get_size(interface.raw(), &raw mut count, &raw mut msrs) };
            Errno::result(rc)?;
            let none = sys::xen_cpuid_leaf_t { leaf: 0, subleaf: 0, a: 0, b: 0, c: 0, d: 0 };
            let mut leaves = vec![none; usize::try_from(count).map_err(|_| Errno::EOVERFLOW)?];
            // SAFETY: room for `count` leaves, which becomes how many there are; no MSRs are asked for (xenguest.h, xc_cpu_policy_serialise).
            let rc = unsafe {
                sys::xc_cpu_policy_serialise(
                    interface.raw(),
                    self.0.as_ptr(),
                    leaves.as_mut_ptr(),
                    &raw mut count,
                    ptr::null_mut(),
                    ptr::null_mut(),
                )
            };
            Errno::result(rc)?;
            leaves.truncate(usize::try_from(count).map_err(|_| Errno::EOVERFLOW)?);
            let leaf = |leaf: &sys::xen_cpuid_leaf_t| {
                let sys::xen_cpuid_leaf_t { leaf, subleaf, a, b, c, d } = *leaf;
                Leaf { leaf, subleaf: (subleaf != NO_SUBLEAF).then_some(subleaf), registers: [a, b, c, d] }
            };
            Ok(leaves.iter().map(leaf).collect())
        }
    }

    /// xen.h, XEN_CPUID_NO_SUBLEAF.
    const NO_SUBLEAF: u32 = u32::MAX;

    impl Drop for Object {
        fn drop(&mut self) {
            // SAFETY: made by new, destroyed once (xenguest.h, xc_cpu_policy_destroy).
            unsafe { sys::xc_cpu_policy_destroy(self.0.as_ptr()) };
        }
    }
}
