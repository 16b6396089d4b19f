//! The keys of a domain's file, one line each: where its value goes in libxl's JSON, and how. What xl does with a key is in
//! tools/xl/xl_parse.c, parse_config_data (Xen 4.17); defaults are xl's.

use super::build::Builder;
use super::devices::{self, Device};
use super::words::{self, ACTIONS, Choices, Words};

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) take: Take,
    /// The only type of domain that has it. For others it may stand there and means nothing, as with xl.
    pub(super) only: Option<DomainType>,
    /// What is said, as the rest of a sentence, whenever the key is there.
    pub(super) note: Option<&'static str>,
}

/// How a domain runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DomainType {
    Pv,
    Pvh,
    Hvm,
}

/// What is done with a key's value. Paths are those of libxl's JSON, with `/` between the names.
#[derive(Clone, Copy, Debug)]
pub(super) enum Take {
    /// A string, as it is.
    Text(&'static str),
    /// A list of strings.
    Texts(&'static str),
    /// A string, or a list of strings, which goes elsewhere.
    TextOrTexts(&'static str, &'static str),
    /// A number; any but 0 is true.
    Flag(&'static str),
    /// A number within bounds. The one at the end is libxl's default, which is not written.
    Number(&'static str, Bounds, i64),
    /// A number of MiB within bounds, given to libxl in KiB.
    Mib(&'static str, Bounds),
    /// A word of libxl's.
    Word(&'static str, &'static Words),
    /// A word of libxl's, or its number. The flag says that the number is the older way.
    WordOrNumber(&'static str, &'static Words, bool),
    /// A word of xl's.
    Choice(&'static str, Choices),
    /// One of [`ACTIONS`]; the second is taken when the key is missing.
    Action(&'static str, &'static str),
    /// A list of devices.
    Devices(&'static Device),
    /// What needs words of its own; called whether the key is there or not.
    By(fn(&mut Builder)),
    /// Read together with another key of this table.
    Partner,
    /// Nothing: xl knows the key and ignores it.
    Ignored,
}

/// The smallest and the largest.
pub(super) type Bounds = (i64, i64);

/// libxl keeps it in an int.
pub(super) const INT: Bounds = (i32::MIN as i64, i32::MAX as i64);
/// An int that makes sense from 0 on.
pub(super) const COUNT: Bounds = (0, i32::MAX as i64);
/// A TCP port.
const PORT: Bounds = (0, 65535);
/// More memory than any host has, in MiB: 64 PiB. Keeps sums of bytes within 64 bits.
pub(super) const MEMORY_MIB_MAX: i64 = 1 << 36;
const ANY_MIB: Bounds = (0, MEMORY_MIB_MAX);
/// From what lies between 4 GiB and where devices are at least to where they are at most (xen/hvm/e820.h, `HVM_BELOW_4G_MMIO_*`).
const MMIO_HOLE_MIB: Bounds = (256, 3840);
/// libxl's defaults of the parameters of schedulers: as the scheduler has them (libxl.h, `LIBXL_DOMAIN_SCHED_PARAM_*`).
pub(super) const UNSET: i64 = -1;

/// All keys, in the order in which they are applied: the type first, since others depend on it, and what others refer to before them.
pub(super) const KEYS: &[Key] = &[
    // What the domain is.
    key("type", Take::By(Builder::domain_type)),
    key("builder", Take::Partner).note("is deprecated: write type"),
    key("name", Take::By(Builder::name)),
    key("uuid", Take::By(Builder::uuid)),
    key("init_seclabel", Take::Text("c_info/ssid_label")),
    key("seclabel", Take::By(Builder::label)),
    key("hap", Take::Flag("c_info/hap")),
    key("oos", Take::Flag("c_info/oos")),
    key("pool", Take::Text("c_info/pool_name")),
    key("driver_domain", Take::Flag("c_info/driver_domain")),
    key("passthrough", Take::Word("c_info/passthrough", &words::PASSTHROUGH)),
    key("xend_suspend_evtchn_compat", Take::Flag("c_info/xend_suspend_evtchn_compat")),
    pvh("pvshim", Take::Flag("b_info/type.pvh/pvshim")),
    pvh("pvshim_path", Take::Text("b_info/type.pvh/pvshim_path")),
    pvh("pvshim_cmdline", Take::Text("b_info/type.pvh/pvshim_cmdline")),
    pvh("pvshim_extra", Take::Text("b_info/type.pvh/pvshim_extra")),
    // CPUs and memory.
    key("cpu_weight", Take::Number("b_info/sched_params/weight", INT, UNSET)),
    key("cap", Take::Number("b_info/sched_params/cap", INT, UNSET)),
    key("period", Take::Number("b_info/sched_params/period", INT, UNSET)),
    key("slice", Take::Number("b_info/sched_params/slice", INT, UNSET)).note("has no effect: its scheduler is gone"),
    key("latency", Take::Number("b_info/sched_params/latency", INT, UNSET))
        .note("has no effect: its scheduler is gone"),
    key("extratime", Take::Number("b_info/sched_params/extratime", INT, UNSET)),
    key("vnuma", Take::By(Builder::vnuma)),
    key("memory", Take::Mib("b_info/target_memkb", (1, MEMORY_MIB_MAX))),
    key("maxmem", Take::By(Builder::max_memory)),
    key("vcpus", Take::By(Builder::vcpus)),
    key("maxvcpus", Take::Partner),
    key("cpus", Take::By(Builder::hard_affinity)),
    key("cpus_soft", Take::By(Builder::soft_affinity)),
    key("shadow_memory", Take::Mib("b_info/shadow_memkb", ANY_MIB)),
    key("videoram", Take::Mib("b_info/video_memkb", ANY_MIB)),
    // libxl's default of these three is "as the host has it", which is no number from 0 on.
    key("max_grant_frames", Take::Number("b_info/max_grant_frames", COUNT, UNSET)),
    key("max_maptrack_frames", Take::Number("b_info/max_maptrack_frames", COUNT, UNSET)),
    key("max_grant_version", Take::Number("b_info/max_grant_version", COUNT, UNSET)),
    key("max_event_channels", Take::Number("b_info/event_channels", (0, u32::MAX as i64), 0)),
    // What happens.
    key("on_poweroff", Take::Action("on_poweroff", "destroy")),
    key("on_reboot", Take::Action("on_reboot", "restart")),
    key("on_watchdog", Take::Action("on_watchdog", "destroy")),
    key("on_crash", Take::Action("on_crash", "destroy")),
    key("on_soft_reset", Take::Action("on_soft_reset", "soft-reset")),
    key("nomigrate", Take::Flag("b_info/disable_migrate")),
    // What it boots.
    key("kernel", Take::By(Builder::kernel)),
    key("ramdisk", Take::Text("b_info/ramdisk")),
    key("device_tree", Take::Text("b_info/device_tree")),
    key("cmdline", Take::By(Builder::command_line)),
    key("root", Take::Partner),
    key("extra", Take::Partner),
    key("bootloader", Take::Text("b_info/bootloader")),
    key("bootloader_args", Take::By(Builder::bootloader_args)),
    key("firmware", Take::By(Builder::firmware)),
    hvm("firmware_override", Take::Partner),
    hvm("bios", Take::Partner),
    hvm("bios_path_override", Take::By(Builder::bios_path)),
    hvm("smbios_firmware", Take::Text("b_info/type.hvm/smbios_firmware")),
    hvm("acpi_firmware", Take::Text("b_info/type.hvm/acpi_firmware")),
    hvm("boot", Take::Text("b_info/type.hvm/boot")),
    // Time.
    key("tsc_mode", Take::WordOrNumber("b_info/tsc_mode", &words::TSC_MODES, true)),
    key("timer_mode", Take::By(Builder::timer_mode)),
    key("rtc_timeoffset", Take::By(Builder::rtc_offset)),
    key("localtime", Take::Flag("b_info/localtime")),
    hvm("hpet", Take::Flag("b_info/type.hvm/hpet")),
    hvm("vpt_align", Take::Flag("b_info/type.hvm/vpt_align")),
    // What its machine can.
    key("cpuid", Take::By(Builder::cpuid)),
    key("nestedhvm", Take::Flag("b_info/nested_hvm")),
    key("acpi", Take::Flag("b_info/acpi")),
    key("vpmu", Take::Flag("b_info/vpmu")),
    key("altp2m", Take::WordOrNumber("b_info/altp2m", &words::ALTP2M, false)),
    key("vmtrace_buf_kb", Take::Number("b_info/vmtrace_buf_kb", COUNT, 0)),
    key("msr_relaxed", Take::Flag("b_info/arch_x86/msr_relaxed")).note("will be removed from Xen"),
    key("vuart", Take::Word("b_info/arch_arm/vuart", &words::VUARTS)),
    key("gic_version", Take::Word("b_info/arch_arm/gic_version", &words::GIC_VERSIONS)),
    key("tee", Take::Word("b_info/tee", &words::TEES)),
    pv("e820_host", Take::Flag("b_info/type.pv/e820_host")),
    hvm("pae", Take::Flag("b_info/type.hvm/pae")),
    hvm("apic", Take::Flag("b_info/apic")),
    hvm("acpi_s3", Take::Flag("b_info/type.hvm/acpi_s3")),
    hvm("acpi_s4", Take::Flag("b_info/type.hvm/acpi_s4")),
    hvm("acpi_laptop_slate", Take::Flag("b_info/type.hvm/acpi_laptop_slate")),
    hvm("nx", Take::Flag("b_info/type.hvm/nx")),
    hvm("altp2mhvm", Take::Flag("b_info/type.hvm/altp2m")).note("is deprecated: write altp2m"),
    hvm("viridian", Take::By(Builder::viridian)),
    hvm("mca_caps", Take::By(Builder::mca_caps)),
    hvm("ms_vm_genid", Take::By(Builder::generation_id)),
    hvm("mmio_hole", Take::Mib("b_info/type.hvm/mmio_hole_memkb", MMIO_HOLE_MIB)),
    hvm("xen_platform_pci", Take::Flag("b_info/type.hvm/xen_platform_pci")),
    hvm("vendor_device", Take::Word("b_info/type.hvm/vendor_device", &words::VENDOR_DEVICES)),
    hvm("hdtype", Take::Word("b_info/type.hvm/hdtype", &words::HD_TYPES)),
    // Devices of the host.
    hvm("rdm", Take::By(Builder::reserved_memory)),
    hvm("rdm_mem_boundary", Take::Mib("b_info/type.hvm/rdm_mem_boundary_memkb", ANY_MIB)),
    key("pci", Take::By(Builder::pci)),
    key("pci_msitranslate", Take::Partner),
    key("pci_power_mgmt", Take::Partner),
    key("pci_permissive", Take::Partner),
    key("pci_seize", Take::Partner),
    key("dtdev", Take::By(Builder::device_tree_devices)),
    key("ioports", Take::By(Builder::ioports)),
    key("irqs", Take::By(Builder::irqs)),
    key("iomem", Take::By(Builder::iomem)),
    hvm("gfx_passthru", Take::By(Builder::gfx_passthru)),
    // Devices of its own.
    key("disk", Take::By(Builder::disks)),
    key("vif", Take::Devices(&devices::VIF)),
    key("vif2", Take::Ignored).note("is ignored: no release of Xen has netchannel2"),
    key("p9", Take::Devices(&devices::P9)),
    key("vtpm", Take::Devices(&devices::VTPM)),
    key("vdispl", Take::Devices(&devices::VDISPL)),
    key("pvcalls", Take::Devices(&devices::PVCALLS)),
    key("vsnd", Take::By(Builder::sound)),
    key("channel", Take::Devices(&devices::CHANNEL)),
    key("vfb", Take::By(Builder::frame_buffers)),
    key("vnc", Take::By(Builder::viewers)),
    key("vnclisten", Take::Partner),
    key("vncpasswd", Take::Partner),
    key("vncdisplay", Take::Partner),
    key("vncunused", Take::Partner),
    key("sdl", Take::Partner),
    key("opengl", Take::Partner),
    key("display", Take::Partner),
    key("xauthority", Take::Partner),
    key("keymap", Take::Partner),
    key("vncviewer", Take::Ignored).note("is ignored: start a viewer yourself"),
    key("vkb", Take::Devices(&devices::VKB)),
    key("usbctrl", Take::Devices(&devices::USB_CONTROLLER)),
    key("usbdev", Take::Devices(&devices::USB_DEVICE)),
    // The device model.
    key("device_model", Take::Ignored).note("is ignored: device_model_override names another device model"),
    key("device_model_version", Take::Choice("b_info/device_model_version", words::DEVICE_MODELS)),
    key("device_model_override", Take::By(Builder::device_model)),
    key("device_model_user", Take::Text("b_info/device_model_user")),
    key("device_model_args", Take::Texts("b_info/extra")),
    key("device_model_args_pv", Take::Texts("b_info/extra_pv")),
    key("device_model_args_hvm", Take::Texts("b_info/extra_hvm")),
    key("device_model_stubdomain_override", Take::Flag("b_info/device_model_stubdomain")),
    key("device_model_stubdomain_seclabel", Take::Text("b_info/device_model_ssid_label")),
    key("stubdomain_kernel", Take::Text("b_info/stubdomain_kernel")),
    key("stubdomain_cmdline", Take::Text("b_info/stubdomain_cmdline")),
    key("stubdomain_ramdisk", Take::Text("b_info/stubdomain_ramdisk")),
    key("stubdomain_memory", Take::Mib("b_info/stubdomain_memkb", ANY_MIB)),
    key("dm_restrict", Take::Flag("b_info/dm_restrict")),
    hvm("vga", Take::By(Builder::vga)),
    hvm("stdvga", Take::Partner).note("is deprecated: write vga = \"stdvga\" or \"cirrus\""),
    hvm("nographic", Take::Flag("b_info/type.hvm/nographic")),
    hvm("spice", Take::Flag("b_info/type.hvm/spice/enable")),
    hvm("spiceport", Take::Number("b_info/type.hvm/spice/port", PORT, 0)),
    hvm("spicetls_port", Take::Number("b_info/type.hvm/spice/tls_port", PORT, 0)),
    hvm("spicehost", Take::Text("b_info/type.hvm/spice/host")),
    hvm("spicedisable_ticketing", Take::Flag("b_info/type.hvm/spice/disable_ticketing")),
    hvm("spicepasswd", Take::Text("b_info/type.hvm/spice/passwd")),
    hvm("spiceagent_mouse", Take::Flag("b_info/type.hvm/spice/agent_mouse")),
    hvm("spicevdagent", Take::Flag("b_info/type.hvm/spice/vdagent")),
    hvm("spice_clipboard_sharing", Take::Flag("b_info/type.hvm/spice/clipboard_sharing")),
    hvm("spiceusbredirection", Take::Number("b_info/type.hvm/spice/usbredirection", COUNT, 0)),
    hvm("spice_image_compression", Take::Text("b_info/type.hvm/spice/image_compression")),
    hvm("spice_streaming_video", Take::Text("b_info/type.hvm/spice/streaming_video")),
    hvm("serial", Take::TextOrTexts("b_info/type.hvm/serial", "b_info/type.hvm/serial_list")),
    hvm("usb", Take::Flag("b_info/type.hvm/usb")),
    hvm("usbversion", Take::Number("b_info/type.hvm/usbversion", COUNT, 0)),
    hvm("usbdevice", Take::TextOrTexts("b_info/type.hvm/usbdevice", "b_info/type.hvm/usbdevice_list")),
    hvm("vkb_device", Take::Flag("b_info/type.hvm/vkb_device")),
    hvm("soundhw", Take::Text("b_info/type.hvm/soundhw")),
];

pub(super) const fn key(name: &'static str, take: Take) -> Key {
    Key { name, take, only: None, note: None }
}

const fn pv(name: &'static str, take: Take) -> Key {
    Key { only: Some(DomainType::Pv), ..key(name, take) }
}

const fn pvh(name: &'static str, take: Take) -> Key {
    Key { only: Some(DomainType::Pvh), ..key(name, take) }
}

const fn hvm(name: &'static str, take: Take) -> Key {
    Key { only: Some(DomainType::Hvm), ..key(name, take) }
}

impl Key {
    pub(super) const fn note(self, note: &'static str) -> Self {
        Self { note: Some(note), ..self }
    }
}

impl DomainType {
    /// As xl and libxl write it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Pv => "pv",
            Self::Pvh => "pvh",
            Self::Hvm => "hvm",
        }
    }
}

/// libxl's word for an action of xl's, which is one of [`ACTIONS`].
pub(super) fn action(word: &str) -> Option<&'static str> {
    ACTIONS.iter().find(|(known, _)| *known == word).map(|(_, action)| *action)
}
