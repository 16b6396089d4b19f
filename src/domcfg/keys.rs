//! The keys of a domain's file, one line each: where its value goes in libxl's JSON, and how. What xl does with a key is in
//! tools/xl/xl_parse.c, parse_config_data; defaults are xl's.

use super::build::Builder;

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) take: Take,
    /// Only HVM domains have it; for others it may stand there and means nothing, as with xl.
    pub(super) hvm_only: bool,
}

/// What is done with a key's value. Paths are those of libxl's JSON, with `/` between the names.
#[derive(Clone, Copy, Debug)]
pub(super) enum Take {
    /// A string, as it is.
    Text(&'static str),
    /// A number; any but 0 is true.
    Flag(&'static str),
    /// A number of MiB, given to libxl in KiB.
    Mib(&'static str),
    /// One of [`ACTIONS`]; the second is taken when the key is missing.
    Action(&'static str, &'static str),
    /// What needs words of its own; called whether the key is there or not.
    By(fn(&mut Builder)),
    /// Read together with another key of this table.
    Partner,
}

/// What may happen when a domain ends: xl's word, libxl's word.
pub(super) const ACTIONS: [(&str, &str); 7] = [
    ("destroy", "destroy"),
    ("restart", "restart"),
    ("rename-restart", "restart_rename"),
    ("preserve", "preserve"),
    ("coredump-destroy", "coredump_destroy"),
    ("coredump-restart", "coredump_restart"),
    ("soft-reset", "soft_reset"),
];

/// All keys, in the order in which they are applied: the type first, since others depend on it.
pub(super) const KEYS: &[Key] = &[
    key("type", Take::By(Builder::domain_type)),
    key("builder", Take::Partner),
    key("name", Take::By(Builder::name)),
    key("uuid", Take::By(Builder::uuid)),
    key("hap", Take::Flag("c_info/hap")),
    key("memory", Take::Mib("b_info/target_memkb")),
    key("maxmem", Take::By(Builder::max_memory)),
    key("vcpus", Take::By(Builder::vcpus)),
    key("maxvcpus", Take::Partner),
    key("kernel", Take::By(Builder::kernel)),
    key("ramdisk", Take::Text("b_info/ramdisk")),
    key("cmdline", Take::By(Builder::command_line)),
    key("root", Take::Partner),
    key("extra", Take::Partner),
    key("bootloader", Take::Text("b_info/bootloader")),
    key("bootloader_args", Take::By(Builder::bootloader_args)),
    key("nestedhvm", Take::Flag("b_info/nested_hvm")),
    key("acpi", Take::Flag("b_info/acpi")),
    hvm("apic", Take::Flag("b_info/apic")),
    hvm("pae", Take::Flag("b_info/type.hvm/pae")),
    hvm("nographic", Take::Flag("b_info/type.hvm/nographic")),
    hvm("serial", Take::Text("b_info/type.hvm/serial")),
    hvm("boot", Take::Text("b_info/type.hvm/boot")),
    key("firmware", Take::By(Builder::firmware)),
    key("disk", Take::By(Builder::disks)),
    key("vif", Take::By(Builder::nics)),
    key("on_poweroff", Take::Action("on_poweroff", "destroy")),
    key("on_reboot", Take::Action("on_reboot", "restart")),
    key("on_watchdog", Take::Action("on_watchdog", "destroy")),
    key("on_crash", Take::Action("on_crash", "destroy")),
    key("on_soft_reset", Take::Action("on_soft_reset", "soft-reset")),
];

const fn key(name: &'static str, take: Take) -> Key {
    Key { name, take, hvm_only: false }
}

const fn hvm(name: &'static str, take: Take) -> Key {
    Key { name, take, hvm_only: true }
}

/// Whether the table has a key.
pub(super) fn is_known(name: &str) -> bool {
    names().any(|known| known == name)
}

/// The names of all keys.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}
