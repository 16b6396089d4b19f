//! What a domain gets of the host: disks, PCI devices, ports, interrupts and memory.

use serde_json::{Value, json};

use super::build::Builder;
use super::keys::DomainType;
use crate::xen::xlu::{self, PciOptions, RdmPolicy};

impl Builder {
    pub(super) fn disks(&mut self) {
        self.entries("disk", "disks", |spec| xlu::Config::disk(spec).map_err(|error| error.to_string()));
    }

    /// Reserved memory, `strategy=host,policy=relaxed`. Read here and not by libxlutil, whose parser takes a policy for an error.
    pub(super) fn reserved_memory(&mut self) {
        let text = self.text("rdm").unwrap_or_default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("strategy", "host")) => self.put("b_info/type.hvm/rdm/strategy", "host"),
                Some(("policy", policy @ ("strict" | "relaxed"))) => self.put("b_info/type.hvm/rdm/policy", policy),
                _ => self.problem("rdm", format!("{part:?} is none of strategy=host, policy=strict, policy=relaxed")),
            }
        }
    }

    /// A PV domain that gets one sees the host's memory map.
    pub(super) fn pci(&mut self) {
        let unsaid = PciOptions {
            msitranslate: self.flag("pci_msitranslate") == Some(true),
            power_mgmt: self.flag("pci_power_mgmt") == Some(true),
            permissive: self.flag("pci_permissive") == Some(true),
            seize: self.flag("pci_seize") == Some(true),
            rdm_policy: self.rdm_policy(),
        };
        self.entries("pci", "pcidevs", |spec| xlu::Config::pci(spec, unsaid).map_err(|error| error.to_string()));
        if self.count("pcidevs") > 0 && self.domain_type == DomainType::Pv {
            self.put("b_info/type.pv/e820_host", "True");
        }
    }

    /// That of the key `rdm`. Other domains have no such key, and xl's default for their devices is the strict one.
    fn rdm_policy(&self) -> RdmPolicy {
        match (self.domain_type, self.get("b_info/type.hvm/rdm/policy")) {
            (DomainType::Hvm, Some("relaxed")) => RdmPolicy::Relaxed,
            (DomainType::Hvm, None) => RdmPolicy::Unsaid,
            _ => RdmPolicy::Strict,
        }
    }

    pub(super) fn device_tree_devices(&mut self) {
        self.entries("dtdev", "dtdevs", |path| Ok(json!({ "path": path })));
    }

    pub(super) fn ioports(&mut self) {
        self.entries("ioports", "b_info/ioports", ioports);
    }

    pub(super) fn irqs(&mut self) {
        self.entries("irqs", "b_info/irqs", |text| match text.parse::<u32>() {
            Ok(irq) if irq != u32::MAX => Ok(irq.into()),
            _ => Err("is no number of an interrupt".to_owned()),
        });
    }

    pub(super) fn iomem(&mut self) {
        self.entries("iomem", "b_info/iomem", |text| {
            iomem(text).ok_or_else(|| "is not START,NUMBER@GFN in hex".to_owned())
        });
    }

    fn entries(&mut self, key: &'static str, path: &str, parse: impl Fn(&str) -> Result<Value, String>) {
        let mut parsed = Vec::new();
        for entry in self.list(key).unwrap_or_default() {
            match parse(&entry) {
                Ok(value) => parsed.push(value),
                Err(reason) => self.problem(key, format!("{entry:?}: {reason}")),
            }
        }
        self.put_list(path, Some(parsed));
    }
}

/// `3f8` or `2f8-2ff`.
fn ioports(text: &str) -> Result<Value, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text| hex(text).filter(|port| *port < u64::from(u32::MAX));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(json!({ "first": first, "number": last - first + 1 })),
        (Some(_), Some(_)) => Err("ends before it begins".to_owned()),
        _ => Err("is no range of ports in hex".to_owned()),
    }
}

/// `febf0,10`, or with the frame where the domain finds it, `febf0,10@f0000`.
fn iomem(text: &str) -> Option<Value> {
    let (frames, place) = text.split_once('@').map_or((text, None), |(frames, place)| (frames, Some(place)));
    let (start, number) = frames.split_once(',')?;
    let mut range = json!({ "start": hex(start)?, "number": hex(number)? });
    if let Some(place) = place {
        range["gfn"] = hex(place)?.into();
    }
    Some(range)
}

/// Hexadecimal digits, with or without `0x`.
fn hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| plain)
}
