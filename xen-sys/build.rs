//! Makes the bindings from the Xen headers of this machine: libxl's ABI moves with each Xen release, so bindings that
//! were made elsewhere would be wrong here.
//!
//! What the installed Xen can do goes to the crates that depend on this one as `DEP_XENLIGHT_HAVE_*=1`.

use std::env;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The libxl API that our code is written to (libxl.h, "libxl API compatibility"). Left undefined, "the latest" would move
/// under us; 4.17 refuses anything newer than 4.20's number below 0x041500.
const LIBXL_API_VERSION: &str = "0x041400";

/// The libraries by their pkg-config names. The linker is told to keep those that a program really uses.
const LIBRARIES: [&str; 6] = ["xenlight", "xlutil", "xenstore", "xentoollog", "xencontrol", "xenguest"];

/// What may differ between Xen releases and matters to us: the name that we export, and what the bindings or headers contain where it exists.
const FEATURES: [(&str, &str); 4] = [
    // Since 4.16 log-dirty calls have a function of their own; before, xc_shadow_control carried them.
    ("HAVE_LOGDIRTY_CONTROL", "pub fn xc_logdirty_control("),
    // Since 4.16 libxenguest has CPU policies as objects.
    ("HAVE_CPU_POLICY", "pub fn xc_cpu_policy_get_system("),
    // libxl.h: nics have a field `trusted`, disks too (XSA-403).
    ("HAVE_DEVICE_TRUSTED", "pub const LIBXL_HAVE_DISK_TRUSTED"),
    // Since 4.15 libxlutil reads whole PCI specifications, names included.
    ("HAVE_PCI_SPEC_STRING", "pub fn xlu_pci_parse_spec_string("),
];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=wrapper.h");
    println!("cargo::rerun-if-changed=build.rs");
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            println!("cargo::error={sentence}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("x86_64") {
        return Err("Xen migrates domains on x86 only; build xen-sys for x86_64.".into());
    }
    let include_paths = find_libraries()?;
    find_libclang()?;
    let bindings = make_bindings(&include_paths)?;
    let file = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set.")?).join("bindings.rs");
    fs::write(&file, &bindings).map_err(|e| format!("Could not write {}: {e}.", file.display()))?;
    export_features(&bindings);
    Ok(())
}

/// Finds the libraries, tells cargo to link them, and returns where their headers are.
fn find_libraries() -> Result<Vec<PathBuf>, String> {
    let mut include_paths = Vec::new();
    for name in LIBRARIES {
        let library = pkg_config::Config::new().probe(name).map_err(|error| match error {
            pkg_config::Error::Command { .. } => {
                "The program pkg-config is missing; on Debian: apt-get install pkg-config.".to_owned()
            }
            _ => format!("The Xen development files are missing ({name}.pc); on Debian: apt-get install libxen-dev."),
        })?;
        include_paths.extend(library.include_paths);
    }
    include_paths.dedup();
    Ok(include_paths)
}

/// Bindgen panics without libclang: asks it for something harmless first.
fn find_libclang() -> Result<(), String> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let found = panic::catch_unwind(bindgen::clang_version);
    panic::set_hook(hook);
    match found {
        Ok(_) => Ok(()),
        Err(_) => {
            Err("libclang is missing, which reads the Xen headers; on Debian: apt-get install libclang-dev.".into())
        }
    }
}

fn make_bindings(include_paths: &[impl AsRef<Path>]) -> Result<String, String> {
    bindgen::builder()
        .header("wrapper.h")
        .clang_arg(format!("-DLIBXL_API_VERSION={LIBXL_API_VERSION}"))
        .clang_args(include_paths.iter().map(|path| format!("-I{}", path.as_ref().display())))
        .allowlist_function("(libxl|xlu|xs|xtl)_.*")
        .allowlist_function("xc_(interface_open|interface_close|shadow_control|logdirty_control)")
        .allowlist_function("xc_cpu_policy_(init|destroy|get_domain|get_system|get_size|serialise)")
        // Both sides of a log callback share the va_list type that bindgen gives to this one.
        .allowlist_function("vsnprintf")
        .allowlist_type("(libxl|xlu|xs|XLU|xentoollog)_.*")
        .allowlist_var("(LIBXL|XS|XBT|XTL|ERROR|XEN_DOMCTL_SHADOW_OP|XEN_SYSCTL_cpu_policy)_.*")
        .blocklist_type("_?IO_FILE|FILE|pollfd|timeval")
        .raw_line("use libc::{FILE, pollfd, timeval};")
        // C may return a value that this header does not know; a Rust enum would make that undefined behaviour.
        .default_enum_style(bindgen::EnumVariation::NewType { is_bitfield: false, is_global: false })
        .prepend_enum_name(false)
        // All-zero is no valid value of a libxl type: libxl_X_init is.
        .derive_default(false)
        .layout_tests(true)
        .generate_comments(false)
        .wrap_unsafe_ops(true)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        .generate()
        .map(|bindings| bindings.to_string())
        .map_err(|error| {
            let reasons = error.to_string();
            let reason = reasons.lines().next().unwrap_or_default();
            format!("The Xen headers could not be read ({reason}); on Debian: apt-get install libxen-dev libclang-dev.")
        })
}

fn export_features(bindings: &str) {
    for (name, mark) in FEATURES {
        if bindings.contains(mark) {
            println!("cargo::metadata={name}=1");
        }
    }
}
