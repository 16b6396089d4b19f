//! Words that libxl has numbers for (libxl_types.idl of Xen 4.17), and words of xl's own.

/// An enum of libxl's. Where xl leaves the reading to libxl, a word may be in any case.
#[derive(Debug)]
pub(super) struct Words {
    /// What a domain has without the key; libxl does not write it.
    pub(super) default: &'static str,
    /// All words that may stand in a file. Where a number may stand for a word, it is the place in this list.
    pub(super) all: &'static [&'static str],
}

impl Words {
    /// libxl's spelling of a word.
    pub(super) fn find(&self, word: &str) -> Option<&'static str> {
        self.all.iter().find(|known| known.eq_ignore_ascii_case(word)).copied()
    }

    /// The word that a number stands for.
    pub(super) fn at(&self, number: i64) -> Option<&'static str> {
        self.all.get(usize::try_from(number).ok()?).copied()
    }

    /// What is said when it is none of them.
    pub(super) fn refusal(&self, word: &str) -> String {
        none_of(word, self.all.iter().copied())
    }
}

/// `= "x" is none of a, b, c`.
pub(super) fn none_of(word: &str, words: impl Iterator<Item = &'static str>) -> String {
    format!("= {word:?} is none of {}", words.collect::<Vec<_>>().join(", "))
}

/// Words of xl's own, each with libxl's: these are in one case only.
pub(super) type Choices = &'static [(&'static str, &'static str)];

/// What may happen when a domain ends.
pub(super) const ACTIONS: Choices = &[
    ("destroy", "destroy"),
    ("restart", "restart"),
    ("rename-restart", "restart_rename"),
    ("preserve", "preserve"),
    ("coredump-destroy", "coredump_destroy"),
    ("coredump-restart", "coredump_restart"),
    ("soft-reset", "soft_reset"),
];

pub(super) const DEVICE_MODELS: Choices = &[("qemu-xen", "qemu_xen"), ("qemu-xen-traditional", "qemu_xen_traditional")];

pub(super) const VGA: Choices = &[("stdvga", "std"), ("cirrus", "cirrus"), ("none", "none"), ("qxl", "qxl")];

pub(super) const NIC_TYPES: Choices = &[("vif", "vif"), ("ioemu", "vif_ioemu")];

pub(super) static PASSTHROUGH: Words =
    Words { default: "default", all: &["default", "disabled", "enabled", "sync_pt", "share_pt"] };

pub(super) static TSC_MODES: Words =
    Words { default: "default", all: &["default", "always_emulate", "native", "native_paravirt"] };

pub(super) static TIMER_MODES: Words = Words {
    default: "unknown",
    all: &["delay_for_missed_ticks", "no_delay_for_missed_ticks", "no_missed_ticks_pending", "one_missed_tick_pending"],
};

pub(super) static ALTP2M: Words = Words { default: "disabled", all: &["disabled", "mixed", "external", "limited"] };

pub(super) static BIOS: Words = Words { default: "unknown", all: &["rombios", "seabios", "ovmf"] };

pub(super) static HD_TYPES: Words = Words { default: "ide", all: &["ide", "ahci"] };

pub(super) static VENDOR_DEVICES: Words = Words { default: "none", all: &["none", "xenserver"] };

pub(super) static GFX_PASSTHRU: Words = Words { default: "default", all: &["default", "igd"] };

pub(super) static VUARTS: Words = Words { default: "unknown", all: &["sbsa_uart"] };

pub(super) static GIC_VERSIONS: Words = Words { default: "default", all: &["default", "v2", "v3"] };

pub(super) static TEES: Words = Words { default: "none", all: &["none", "optee"] };

/// Each has its bit by its place.
pub(super) static VIRIDIAN: Words = Words {
    default: "",
    all: &[
        "base",
        "freq",
        "time_ref_count",
        "reference_tsc",
        "hcall_remote_tlb_flush",
        "apic_assist",
        "crash_ctl",
        "synic",
        "stimer",
        "hcall_ipi",
        "ex_processor_masks",
        "no_vp_limit",
        "cpu_hotplug",
    ],
};

pub(super) static USB_CONTROLLERS: Words = Words { default: "auto", all: &["auto", "pv", "devicemodel", "qusb"] };

pub(super) static USB_DEVICES: Words = Words { default: "hostdev", all: &["hostdev"] };

pub(super) static VKB_BACKENDS: Words = Words { default: "unknown", all: &["qemu", "linux"] };

pub(super) static SOUND_STREAMS: Words = Words { default: "", all: &["p", "c"] };

pub(super) static SOUND_FORMATS: Words = Words {
    default: "",
    all: &[
        "s8",
        "u8",
        "s16_le",
        "s16_be",
        "u16_le",
        "u16_be",
        "s24_le",
        "s24_be",
        "u24_le",
        "u24_be",
        "s32_le",
        "s32_be",
        "u32_le",
        "u32_be",
        "f32_le",
        "f32_be",
        "f64_le",
        "f64_be",
        "iec958_subframe_le",
        "iec958_subframe_be",
        "mu_law",
        "a_law",
        "ima_adpcm",
        "mpeg",
        "gsm",
    ],
};
