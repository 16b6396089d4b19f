//! What a domain's configuration may say when it comes from another host.
//!
//! It is an allow-list: every value of the JSON is looked up by its place, and what is not in [`RULES`] is refused, with what it
//! says. Nothing in it may make libxl run a program, open a file or use a device that this host's administrator did not allow:
//! the places are those of libxl_types.idl (Xen 4.14 to 4.18).

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::config::Guests;
use crate::ids::VolumeId;
use crate::plan::HOTPLUG_PROGRAM;
use crate::protocol::{DiskUse, OfferedDisk};

/// What a configuration's disks may be.
#[derive(Clone, Copy, Debug)]
pub struct Agreed<'a> {
    /// The volumes that both ends have agreed on.
    pub volumes: &'a [VolumeId],
    /// The disks on none, as the source has offered them: this host's administrator decides about each.
    pub disks: &'a [OfferedDisk],
}

/// Why a configuration is not accepted: one clause for each value. A disk that was offered and is not allowed here is no objection: that is a
/// finding of its own, with what to do about it.
#[must_use]
pub fn objections(guests: &Guests, config: &Value, agreed: Agreed<'_>) -> Vec<String> {
    let mut found = Vec::new();
    walk(config, &mut Vec::new(), &mut |place, value| {
        if !is_accepted(guests, place, value, agreed) {
            found.push(format!("{} is {value}", in_words(place)));
        }
    });
    found.extend(disks(config).enumerate().filter_map(|(index, disk)| disk_objection(index, disk, agreed)));
    found
}

/// One step into the JSON.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Visits every value that is neither an object nor a list, and every empty object or list: libxl makes a device of all defaults out of an
/// object in which it knows nothing.
fn walk<'a>(value: &'a Value, place: &mut Vec<Step<'a>>, visit: &mut dyn FnMut(&[Step<'_>], &Value)) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                place.push(Step::Key(key));
                walk(value, place, visit);
                place.pop();
            }
        }
        Value::Array(values) if !values.is_empty() => {
            for (index, value) in values.iter().enumerate() {
                place.push(Step::Index(index));
                walk(value, place, visit);
                place.pop();
            }
        }
        leaf => visit(place, leaf),
    }
}

fn is_accepted(guests: &Guests, place: &[Step<'_>], value: &Value, agreed: Agreed<'_>) -> bool {
    if value.is_object() {
        return RULES
            .iter()
            .any(|(pattern, _)| pattern.rsplit_once('/').is_some_and(|(parent, _)| matches(parent, place)));
    }
    if value.is_array() {
        return RULES
            .iter()
            .any(|(pattern, _)| pattern.match_indices("/*").any(|(end, _)| matches(&pattern[..end], place)));
    }
    match RULES.iter().find(|(pattern, _)| matches(pattern, place)) {
        Some((_, rule)) => rule.accepts(guests, value, agreed),
        None => false,
    }
}

/// Whether a place is the pattern's: names between slashes, `*` for any index. Every name is written out: one with a NUL in it would be
/// another one for libxl, which reads it up to there (libxl_json.c).
fn matches(pattern: &str, place: &[Step<'_>]) -> bool {
    let mut steps = place.iter();
    for part in pattern.split('/') {
        match (part, steps.next()) {
            ("*", Some(Step::Index(_))) => {}
            (name, Some(Step::Key(key))) if name == *key => {}
            _ => return false,
        }
    }
    steps.next().is_none()
}

/// A place as an administrator reads it: `b_info.type.hvm.serial`, `disks[1].script`.
fn in_words(place: &[Step<'_>]) -> String {
    let mut words = String::new();
    for step in place {
        match step {
            Step::Key(key) if words.is_empty() => words.push_str(key),
            Step::Key(key) => words.push_str(&format!(".{key}")),
            Step::Index(index) => words.push_str(&format!("[{index}]")),
        }
    }
    words
}

/// What a value may be.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// A number, a truth value or a word: it names nothing outside the domain.
    Plain,
    /// One of these words.
    One(&'static [&'static str]),
    /// The number 0.
    Zero,
    /// Any text: it is the guest's own.
    Text,
    /// Any text that libxl can put between the commas of an option for QEMU: with one in it, the rest would be an option of its own.
    Part,
    /// Where QEMU listens for viewers.
    Listen,
    /// A kernel or ramdisk in one of the directories for them.
    Kernel,
    /// An option of pygrub's that names something inside the guest.
    Pygrub,
    /// A volume of the offer, or the path of a disk of it.
    Target,
    /// A hotplug program for nics.
    NicScript,
}

/// The longest word.
const WORD_LEN_MAX: usize = 64;

impl Rule {
    fn accepts(self, guests: &Guests, value: &Value, agreed: Agreed<'_>) -> bool {
        let text = value.as_str();
        match self {
            Rule::Plain => text.is_none_or(is_word),
            Rule::One(words) => text.is_some_and(|text| words.contains(&text)),
            Rule::Zero => value.as_u64() == Some(0),
            Rule::Text => true,
            Rule::Part => text.is_none_or(|text| !text.contains(',')),
            Rule::Listen => text.is_none_or(is_listen_address),
            Rule::Kernel => text.is_some_and(|path| is_below(Path::new(path), &guests.kernels)),
            Rule::Pygrub => text.is_some_and(is_pygrub_option),
            Rule::Target => text.is_some_and(|target| agreed.has_volume(target) || agreed.has_path(target)),
            Rule::NicScript => text.is_some_and(|script| guests.nic_scripts.iter().any(|allowed| allowed == script)),
        }
    }
}

/// A word that cannot be a path, an option or a list of them.
fn is_word(text: &str) -> bool {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'+' | b'-');
    text.len() <= WORD_LEN_MAX && !text.starts_with('-') && text.bytes().all(harmless)
}

/// A word without a colon, an address, or an address and a display's number. libxl hands on what has a colon as it is (libxl_dm.c), and
/// QEMU makes a socket's file of `unix:NAME`.
fn is_listen_address(text: &str) -> bool {
    let is_number = |display: &str| display.parse::<u16>().is_ok();
    let host = text.rsplit_once(':').filter(|(_, display)| is_number(display)).map_or(text, |(host, _)| host);
    let is_address = |host: &str| host.parse::<IpAddr>().is_ok();
    is_word(text) && (!text.contains(':') || is_address(text) || is_address(host))
}

/// Whether a path lies in one of the directories; neither `..` nor, where it exists on this host, a link leads out of them.
fn is_below(path: &Path, directories: &[PathBuf]) -> bool {
    let plain =
        path.is_absolute() && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let real = path.canonicalize();
    let inside = |path: &Path| directories.iter().any(|directory| path.starts_with(directory) && path != directory);
    plain && inside(path) && real.map_or(true, |real| inside(&real))
}

fn is_pygrub_option(option: &str) -> bool {
    const INSIDE: [&str; 4] = ["--kernel=", "--ramdisk=", "--args=", "--entry="];
    matches!(option, "-q" | "--quiet") || INSIDE.iter().any(|prefix| option.starts_with(prefix))
}

fn disks(config: &Value) -> impl Iterator<Item = &Value> {
    config.get("disks").and_then(Value::as_array).into_iter().flatten()
}

/// A disk has a volume and our hotplug program, or it is an empty drive, or it is as it was offered.
fn disk_objection(index: usize, disk: &Value, agreed: Agreed<'_>) -> Option<String> {
    let text = |key: &str| disk.get(key).and_then(Value::as_str);
    let is_empty = text("format") == Some("empty");
    match (is_empty, text("pdev_path"), text("script")) {
        (true, None, None) => None,
        (true, ..) => Some(format!("disks[{index}] is empty and names a target or a program")),
        (false, Some(target), Some(_)) if agreed.has_volume(target) && text("backend") != Some("qdisk") => None,
        (false, Some(path), None) if agreed.has_disk(path, disk) => None,
        (false, ..) => Some(format!("disks[{index}] is not a volume by {HOTPLUG_PROGRAM}, nor as it was offered")),
    }
}

impl Agreed<'_> {
    fn has_volume(self, target: &str) -> bool {
        self.volumes.iter().any(|volume| volume.to_string() == target)
    }

    fn has_path(self, path: &str) -> bool {
        self.disks.iter().any(|offered| offered.path == path)
    }

    /// Whether the disk is one that was offered, and does no more than that. What could lead QEMU elsewhere is in no raw image.
    fn has_disk(self, path: &str, disk: &Value) -> bool {
        let text = |key: &str| disk.get(key).and_then(Value::as_str);
        let only_reads = disk.get("readwrite").is_none_or(|number| number.as_i64() == Some(0));
        let fits = |offered: &&OfferedDisk| {
            let as_used = match offered.usage {
                DiskUse::ReadOnly => only_reads,
                DiskUse::Shared => text("backend") == Some("phy"),
            };
            offered.path == path && text("vdev") == Some(&offered.vdev) && as_used
        };
        text("format") == Some("raw") && self.disks.iter().any(|offered| fits(&offered))
    }
}

const FALSE: Rule = Rule::One(&["False"]);
/// What serial ports may be connected to: nothing of this host's but a terminal made for it.
const SERIAL: Rule = Rule::One(&["pty", "none", "null", "vc"]);
/// USB devices that QEMU itself emulates.
const USB: Rule = Rule::One(&["tablet", "mouse", "keyboard"]);

/// Every place that a configuration from another host may have, and what may stand there.
const RULES: &[(&str, Rule)] = &[
    ("c_info/type", Rule::One(&["pv", "pvh", "hvm"])),
    ("c_info/hap", Rule::Plain),
    ("c_info/oos", Rule::Plain),
    ("c_info/name", Rule::Plain),
    ("c_info/domid", Rule::Plain),
    ("c_info/uuid", Rule::Plain),
    ("c_info/poolid", Rule::Zero),
    ("c_info/pool_name", Rule::One(&["Pool-0"])),
    ("c_info/run_hotplug_scripts", Rule::One(&["True"])),
    ("c_info/driver_domain", FALSE),
    ("c_info/passthrough", Rule::One(&["default", "unknown", "disabled"])),
    ("c_info/xend_suspend_evtchn_compat", Rule::Plain),
    ("b_info/max_vcpus", Rule::Plain),
    ("b_info/avail_vcpus/*", Rule::Plain),
    ("b_info/cpumap/*", Rule::Plain),
    ("b_info/nodemap/*", Rule::Plain),
    ("b_info/vcpu_hard_affinity/*/*", Rule::Plain),
    ("b_info/vcpu_soft_affinity/*/*", Rule::Plain),
    ("b_info/numa_placement", Rule::Plain),
    ("b_info/tsc_mode", Rule::Plain),
    ("b_info/max_memkb", Rule::Plain),
    ("b_info/target_memkb", Rule::Plain),
    ("b_info/video_memkb", Rule::Plain),
    ("b_info/shadow_memkb", Rule::Plain),
    ("b_info/iommu_memkb", Rule::Plain),
    ("b_info/rtc_timeoffset", Rule::Plain),
    ("b_info/localtime", Rule::Plain),
    ("b_info/disable_migrate", FALSE),
    ("b_info/cpuid/*/leaf", Rule::Plain),
    ("b_info/cpuid/*/subleaf", Rule::Plain),
    ("b_info/cpuid/*/eax", Rule::Plain),
    ("b_info/cpuid/*/ebx", Rule::Plain),
    ("b_info/cpuid/*/ecx", Rule::Plain),
    ("b_info/cpuid/*/edx", Rule::Plain),
    // As Xen 4.18 has it.
    ("b_info/cpuid/cpuid/*/leaf", Rule::Plain),
    ("b_info/cpuid/cpuid/*/subleaf", Rule::Plain),
    ("b_info/cpuid/cpuid/*/eax", Rule::Plain),
    ("b_info/cpuid/cpuid/*/ebx", Rule::Plain),
    ("b_info/cpuid/cpuid/*/ecx", Rule::Plain),
    ("b_info/cpuid/cpuid/*/edx", Rule::Plain),
    ("b_info/cpuid/msr/*/index", Rule::Plain),
    ("b_info/cpuid/msr/*/policy", Rule::Plain),
    ("b_info/blkdev_start", Rule::Plain),
    ("b_info/max_grant_frames", Rule::Plain),
    ("b_info/max_maptrack_frames", Rule::Plain),
    ("b_info/max_grant_version", Rule::Plain),
    ("b_info/device_model_version", Rule::One(&["qemu_xen"])),
    ("b_info/device_model_stubdomain", FALSE),
    ("b_info/sched_params/sched", Rule::Plain),
    ("b_info/sched_params/weight", Rule::Plain),
    ("b_info/sched_params/cap", Rule::Plain),
    ("b_info/sched_params/period", Rule::Plain),
    ("b_info/sched_params/budget", Rule::Plain),
    ("b_info/sched_params/extratime", Rule::Plain),
    ("b_info/sched_params/slice", Rule::Plain),
    ("b_info/sched_params/latency", Rule::Plain),
    ("b_info/claim_mode", Rule::Plain),
    ("b_info/event_channels", Rule::Plain),
    ("b_info/kernel", Rule::Kernel),
    ("b_info/ramdisk", Rule::Kernel),
    ("b_info/cmdline", Rule::Text),
    ("b_info/bootloader", Rule::One(&["pygrub"])),
    ("b_info/bootloader_args/*", Rule::Pygrub),
    ("b_info/acpi", Rule::Plain),
    ("b_info/timer_mode", Rule::Plain),
    ("b_info/nested_hvm", Rule::Plain),
    ("b_info/apic", Rule::Plain),
    ("b_info/dm_restrict", Rule::Plain),
    ("b_info/tee", Rule::One(&["none"])),
    ("b_info/altp2m", Rule::Plain),
    ("b_info/vmtrace_buf_kb", Rule::Zero),
    ("b_info/vpmu", Rule::Plain),
    ("b_info/arch_arm/gic_version", Rule::Plain),
    ("b_info/arch_arm/vuart", Rule::Plain),
    ("b_info/arch_arm/sve_vl", Rule::Plain),
    ("b_info/arch_x86/msr_relaxed", Rule::Plain),
    ("b_info/type.pv/slack_memkb", Rule::Plain),
    ("b_info/type.pv/features", Rule::Plain),
    ("b_info/type.pv/e820_host", FALSE),
    ("b_info/type.pvh/pvshim", FALSE),
    ("b_info/type.hvm/bios", Rule::One(&["seabios", "rombios", "ovmf"])),
    ("b_info/type.hvm/pae", Rule::Plain),
    ("b_info/type.hvm/apic", Rule::Plain),
    ("b_info/type.hvm/acpi", Rule::Plain),
    ("b_info/type.hvm/acpi_s3", Rule::Plain),
    ("b_info/type.hvm/acpi_s4", Rule::Plain),
    ("b_info/type.hvm/acpi_laptop_slate", Rule::Plain),
    ("b_info/type.hvm/nx", Rule::Plain),
    ("b_info/type.hvm/viridian", Rule::Plain),
    ("b_info/type.hvm/viridian_enable/*", Rule::Plain),
    ("b_info/type.hvm/viridian_disable/*", Rule::Plain),
    ("b_info/type.hvm/timeoffset", Rule::Plain),
    ("b_info/type.hvm/hpet", Rule::Plain),
    ("b_info/type.hvm/vpt_align", Rule::Plain),
    ("b_info/type.hvm/mmio_hole_memkb", Rule::Plain),
    ("b_info/type.hvm/timer_mode", Rule::Plain),
    ("b_info/type.hvm/nested_hvm", Rule::Plain),
    ("b_info/type.hvm/altp2m", Rule::Plain),
    ("b_info/type.hvm/hdtype", Rule::Plain),
    ("b_info/type.hvm/nographic", Rule::Plain),
    ("b_info/type.hvm/vga/kind", Rule::Plain),
    ("b_info/type.hvm/vga/memkb", Rule::Plain),
    ("b_info/type.hvm/vnc/listen", Rule::Listen),
    ("b_info/type.hvm/vnc/passwd", Rule::Text),
    ("b_info/type.hvm/vnc/enable", Rule::Plain),
    ("b_info/type.hvm/vnc/display", Rule::Plain),
    ("b_info/type.hvm/vnc/findunused", Rule::Plain),
    ("b_info/type.hvm/keymap", Rule::Plain),
    ("b_info/type.hvm/sdl/enable", FALSE),
    ("b_info/type.hvm/sdl/opengl", FALSE),
    ("b_info/type.hvm/spice/passwd", Rule::Part),
    ("b_info/type.hvm/spice/enable", Rule::Plain),
    ("b_info/type.hvm/spice/port", Rule::Plain),
    ("b_info/type.hvm/spice/tls_port", Rule::Plain),
    ("b_info/type.hvm/spice/host", Rule::Plain),
    ("b_info/type.hvm/spice/disable_ticketing", Rule::Plain),
    ("b_info/type.hvm/spice/agent_mouse", Rule::Plain),
    ("b_info/type.hvm/spice/vdagent", Rule::Plain),
    ("b_info/type.hvm/spice/clipboard_sharing", Rule::Plain),
    ("b_info/type.hvm/spice/usbredirection", Rule::Plain),
    ("b_info/type.hvm/spice/image_compression", Rule::Plain),
    ("b_info/type.hvm/spice/streaming_video", Rule::Plain),
    ("b_info/type.hvm/gfx_passthru", FALSE),
    ("b_info/type.hvm/gfx_passthru_kind", Rule::Plain),
    ("b_info/type.hvm/serial", SERIAL),
    ("b_info/type.hvm/serial_list/*", SERIAL),
    ("b_info/type.hvm/boot", Rule::Plain),
    ("b_info/type.hvm/usb", Rule::Plain),
    ("b_info/type.hvm/usbversion", Rule::Plain),
    ("b_info/type.hvm/usbdevice", USB),
    ("b_info/type.hvm/usbdevice_list/*", USB),
    ("b_info/type.hvm/vkb_device", Rule::Plain),
    ("b_info/type.hvm/soundhw", Rule::Plain),
    ("b_info/type.hvm/xen_platform_pci", Rule::Plain),
    ("b_info/type.hvm/vendor_device", Rule::Plain),
    ("b_info/type.hvm/ms_vm_genid/*", Rule::Plain),
    ("b_info/type.hvm/rdm/strategy", Rule::One(&["ignore"])),
    ("b_info/type.hvm/rdm/policy", Rule::Plain),
    ("b_info/type.hvm/rdm_mem_boundary_memkb", Rule::Plain),
    ("b_info/type.hvm/mca_caps", Rule::Plain),
    ("b_info/type.hvm/pirq", Rule::Plain),
    ("disks/*/backend_domid", Rule::Zero),
    ("disks/*/pdev_path", Rule::Target),
    ("disks/*/vdev", Rule::Plain),
    ("disks/*/backend", Rule::One(&["phy", "qdisk"])),
    ("disks/*/format", Rule::One(&["raw", "empty"])),
    ("disks/*/script", Rule::One(&[HOTPLUG_PROGRAM])),
    ("disks/*/removable", Rule::Plain),
    ("disks/*/readwrite", Rule::Plain),
    ("disks/*/is_cdrom", Rule::Plain),
    ("disks/*/direct_io_safe", Rule::Plain),
    ("disks/*/discard_enable", Rule::Plain),
    ("disks/*/colo_enable", FALSE),
    ("disks/*/colo_restore_enable", FALSE),
    ("disks/*/trusted", Rule::Plain),
    ("nics/*/backend_domid", Rule::Zero),
    ("nics/*/devid", Rule::Plain),
    ("nics/*/mtu", Rule::Plain),
    ("nics/*/vlan", Rule::Plain),
    ("nics/*/model", Rule::Plain),
    ("nics/*/mac", Rule::Plain),
    ("nics/*/ip", Rule::Plain),
    // That it exists here is a check of its own.
    ("nics/*/bridge", Rule::Plain),
    ("nics/*/ifname", Rule::Plain),
    ("nics/*/script", Rule::NicScript),
    ("nics/*/nictype", Rule::Plain),
    ("nics/*/rate_bytes_per_interval", Rule::Plain),
    ("nics/*/rate_interval_usecs", Rule::Plain),
    ("nics/*/gatewaydev", Rule::Plain),
    ("nics/*/trusted", Rule::Plain),
    ("vfbs/*/backend_domid", Rule::Zero),
    ("vfbs/*/devid", Rule::Plain),
    ("vfbs/*/vnc/listen", Rule::Listen),
    ("vfbs/*/vnc/passwd", Rule::Text),
    ("vfbs/*/vnc/enable", Rule::Plain),
    ("vfbs/*/vnc/display", Rule::Plain),
    ("vfbs/*/vnc/findunused", Rule::Plain),
    ("vfbs/*/sdl/enable", FALSE),
    ("vfbs/*/keymap", Rule::Plain),
    ("vkbs/*/backend_domid", Rule::Zero),
    ("vkbs/*/backend_type", Rule::One(&["qemu"])),
    ("vkbs/*/devid", Rule::Plain),
    ("vkbs/*/feature_disable_keyboard", Rule::Plain),
    ("vkbs/*/feature_disable_pointer", Rule::Plain),
    ("vkbs/*/feature_abs_pointer", Rule::Plain),
    ("vkbs/*/feature_raw_pointer", Rule::Plain),
    ("vkbs/*/feature_multi_touch", Rule::Plain),
    ("vkbs/*/width", Rule::Plain),
    ("vkbs/*/height", Rule::Plain),
    ("on_poweroff", Rule::Plain),
    ("on_reboot", Rule::Plain),
    ("on_watchdog", Rule::Plain),
    ("on_crash", Rule::Plain),
    ("on_soft_reset", Rule::Plain),
];

#[cfg(test)]
mod tests;
