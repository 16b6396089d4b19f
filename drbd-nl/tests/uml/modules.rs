//! Loading the kernel's modules, which lie uncompressed in the directory `UML_MODULES`.

use std::{env, error::Error, ffi::CStr, fs::File, path::Path};

use nix::kmod::{ModuleInitFlags, finit_module};
#[cfg(test)]
use {
    nix::{
        errno::Errno,
        kmod::{DeleteModuleFlags, delete_module},
    },
    std::time::{Duration, Instant},
};

/// DRBD itself.
pub(crate) const DRBD: &[&str] = &["drivers/block/drbd/drbd.ko"];
/// DRBD's helper programs do nothing here: the real ones are `drbdadm`'s business.
const DRBD_PARAMETERS: &CStr = c"usermode_helper=/bin/true";

/// Loads modules; one that is loaded already is an error.
pub(crate) fn load(modules: &[&str]) -> Result<(), Box<dyn Error>> {
    let directory = env::var("UML_MODULES").map_err(|error| format!("UML_MODULES: {error}"))?;
    for path in modules {
        let file = File::open(Path::new(&directory).join(path)).map_err(|error| format!("{path}: {error}"))?;
        let parameters = if DRBD.contains(path) { DRBD_PARAMETERS } else { c"" };
        finit_module(&file, parameters, ModuleInitFlags::empty())
            .map_err(|errno| format!("cannot load {path}: {errno}"))?;
    }
    Ok(())
}

/// Unloads a module; its last threads may need a moment to end.
#[cfg(test)]
pub(crate) fn unload(name: &CStr) -> nix::Result<()> {
    const UNLOAD_MAX: Duration = Duration::from_secs(10);
    let deadline = Instant::now() + UNLOAD_MAX;
    loop {
        match delete_module(name, DeleteModuleFlags::O_NONBLOCK) {
            Err(Errno::EAGAIN) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            result => return result,
        }
    }
}
