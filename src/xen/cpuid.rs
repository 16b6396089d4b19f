//! What a domain sees of the processor: libxl's own parser of both syntaxes of xl.cfg's key `cpuid`. Works without Xen.

use std::ffi::{CString, c_int};
use std::ptr;

use serde_json::Value;
use xen_sys as sys;

use super::disposed::Disposed;
use super::memory::Malloced;

/// A policy that grows flag by flag.
#[derive(Debug)]
pub struct Cpuid(Disposed<sys::libxl_domain_build_info>);

impl Cpuid {
    /// A policy that says nothing.
    #[must_use]
    pub fn new() -> Self {
        Self(Disposed::new())
    }

    /// Adds a flag by its name, such as `tm=0`.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence (libxl_cpuid.c, `libxl_cpuid_parse_config`, numbers its errors).
    pub fn flag(&mut self, flag: &str) -> Result<(), &'static str> {
        let flag = CString::new(flag).map_err(|_| NUL)?;
        // SAFETY: a policy that the build info owns, a NUL-terminated string that is only read (libxl.h).
        let rc = unsafe { sys::libxl_cpuid_parse_config(&raw mut self.0.cpuid, flag.as_ptr()) };
        refusal(
            rc,
            &[
                "has no value: write it as NAME=VALUE",
                "is no flag that libxl knows",
                "needs a number, x, k or s as its value",
            ],
        )
    }

    /// Adds registers of a leaf as xend had them, such as `1:ecx=` and 32 characters.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence (as before, `libxl_cpuid_parse_config_xend`).
    pub fn registers(&mut self, registers: &str) -> Result<(), &'static str> {
        let registers = CString::new(registers).map_err(|_| NUL)?;
        // SAFETY: as in flag.
        let rc = unsafe { sys::libxl_cpuid_parse_config_xend(&raw mut self.0.cpuid, registers.as_ptr()) };
        refusal(
            rc,
            &[
                "does not begin with the number of a leaf",
                "has no number of a subleaf behind its comma",
                "has no colon behind the leaf",
                "names a register that is not eax, ebx, ecx or edx",
                "needs exactly 32 characters for each register",
            ],
        )
    }

    /// The policy as libxl's JSON, `None` when it says nothing.
    #[must_use]
    pub fn json(mut self) -> Option<Value> {
        // SAFETY: a valid value; the context is only used to report lack of memory (_libxl_types.h).
        let text = unsafe { sys::libxl_domain_build_info_to_json(ptr::null_mut(), self.0.as_mut_ptr()) };
        let text = Malloced::from(ptr::NonNull::new(text)?).string();
        let mut info: Value = serde_json::from_str(&text).ok()?;
        info.as_object_mut()?.remove("cpuid")
    }
}

impl Default for Cpuid {
    fn default() -> Self {
        Self::new()
    }
}

const NUL: &str = "contains a NUL byte";

/// libxl's convention for these two: 0, or the number of the reason.
fn refusal(rc: c_int, reasons: &[&'static str]) -> Result<(), &'static str> {
    match usize::try_from(rc) {
        Ok(0) => Ok(()),
        Ok(number) => Err(reasons.get(number - 1).copied().unwrap_or("is refused by libxl")),
        Err(_) => Err("is refused by libxl"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_registers_become_a_policy() {
        let mut policy = Cpuid::new();
        policy.flag("tm=0").expect("a flag");
        policy.registers("1:ecx=xxxxxxxx0xxxxxxxxxxxxxxxxxxxxxxx").expect("registers");
        let json = policy.json().expect("JSON").to_string();
        assert!(json.contains(r#""ecx":"xxxxxxxx0xxxxxxxxxxxxxxxxxxxxxxx""#), "{json}");
        assert!(json.contains(r#""edx":"xx0xxxxxxxxxxxxxxxxxxxxxxxxxxxxx""#), "{json}");
        assert_eq!(Cpuid::new().json(), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (flag, named) in [("tm", "NAME=VALUE"), ("warp=1", "no flag"), ("tm=q", "number")] {
            assert!(Cpuid::new().flag(flag).expect_err(flag).contains(named), "{flag}");
        }
        for (registers, named) in
            [("x", "leaf"), ("1,:", "subleaf"), ("1", "colon"), ("1:ezx=0", "edx"), ("1:eax=0", "32")]
        {
            assert!(Cpuid::new().registers(registers).expect_err(registers).contains(named), "{registers}");
        }
    }
}
