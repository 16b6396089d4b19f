//! Loading the kernel's modules, which lie uncompressed in the directory `UML_MODULES`.

use std::{env, error::Error, ffi::CString, fs::File, path::Path};

use nix::kmod::{ModuleInitFlags, finit_module};

/// In the order of their dependence, with their parameters. DRBD's helper programs do nothing: the real ones are `drbdadm`'s business.
pub(crate) const ALL: &[(&str, &str)] =
    &[("lib/lru_cache.ko", ""), ("drivers/block/drbd/drbd.ko", "usermode_helper=/bin/true")];

/// Loads modules; one that is loaded already is an error.
pub(crate) fn load(modules: &[(&str, &str)]) -> Result<(), Box<dyn Error>> {
    let directory = env::var("UML_MODULES").map_err(|error| format!("UML_MODULES: {error}"))?;
    for (path, parameters) in modules {
        let file = File::open(Path::new(&directory).join(path)).map_err(|error| format!("{path}: {error}"))?;
        finit_module(&file, &CString::new(*parameters)?, ModuleInitFlags::empty())
            .map_err(|errno| format!("cannot load {path}: {errno}"))?;
    }
    Ok(())
}
