//! Turns what xen-sys found out about the installed Xen into cfgs: `xen_logdirty_control` and the like.

use std::env;

/// The cfgs, each from `DEP_XENLIGHT_HAVE_*` of the same name (xen-sys/build.rs, FEATURES).
const FEATURES: [&str; 4] = ["LOGDIRTY_CONTROL", "CPU_POLICY", "DEVICE_TRUSTED", "PCI_SPEC_STRING"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for feature in FEATURES {
        let cfg = format!("xen_{}", feature.to_lowercase());
        println!("cargo::rustc-check-cfg=cfg({cfg})");
        if env::var_os(format!("DEP_XENLIGHT_HAVE_{feature}")).is_some() {
            println!("cargo::rustc-cfg={cfg}");
        }
    }
}
