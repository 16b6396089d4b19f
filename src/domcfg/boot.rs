//! What a domain boots: a kernel, a boot loader or a firmware.

use std::path::Path;

use super::build::Builder;
use super::keys::DomainType;
use super::words;

/// Boot loaders for PV and PVH domains that come with Xen.
const LOADERS: [&str; 2] = ["pvgrub32", "pvgrub64"];

impl Builder {
    /// An HVM domain boots from its firmware; old files name `hvmloader` here, which xl ignores.
    pub(super) fn kernel(&mut self) {
        let kernel = self.text("kernel");
        let hvm = self.domain_type == DomainType::Hvm;
        if kernel.is_none() && !hvm && !self.is_set("bootloader") && !self.is_set("firmware") {
            self.problem("kernel", "and bootloader are missing: one is needed to boot");
        }
        let is_firmware = |path: &String| Path::new(path).file_name().is_some_and(|name| name == "hvmloader");
        if hvm && kernel.as_ref().is_some_and(is_firmware) {
            return self.warn("is ignored: firmware_override is what names another firmware");
        }
        self.put_some("b_info/kernel", kernel);
    }

    /// `cmdline` as it is, or made of `root` and `extra`.
    pub(super) fn command_line(&mut self) {
        let (line, root, extra) = (self.text("cmdline"), self.text("root"), self.text("extra"));
        if line.is_some() && (root.is_some() || extra.is_some()) {
            self.warn("is the whole command line: root and extra are ignored");
        }
        let line = match (line, root, extra) {
            (Some(line), ..) => Some(line),
            (None, Some(root), Some(extra)) => Some(format!("root={root} {extra}")),
            (None, Some(root), None) => Some(format!("root={root}")),
            (None, None, extra) => extra,
        };
        self.put_some("b_info/cmdline", line);
    }

    /// A list, or words in one string, which is the older way.
    pub(super) fn bootloader_args(&mut self) {
        let arguments = if self.is_list("bootloader_args") {
            self.list("bootloader_args")
        } else {
            let words = self.text("bootloader_args");
            if words.is_some() {
                self.warn("is a string, which is deprecated: write a list");
            }
            words.map(|words| {
                words.split([' ', '\t', '\n']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
            })
        };
        self.put_list("b_info/bootloader_args", arguments);
    }

    /// An HVM domain's BIOS by name, or a file; for others a boot loader of Xen's own.
    pub(super) fn firmware(&mut self) {
        match self.domain_type {
            DomainType::Hvm => self.hvm_firmware(),
            DomainType::Pv | DomainType::Pvh => self.loader(),
        }
    }

    /// `firmware` stands for `bios` or for `firmware_override`, and wins over both.
    fn hvm_firmware(&mut self) {
        let file = self.text("firmware_override");
        self.put_some("b_info/type.hvm/firmware", file);
        if let Some(bios) = self.text("bios") {
            match words::BIOS.find(&bios) {
                Some(bios) => self.put("b_info/type.hvm/bios", bios),
                None => self.problem("bios", words::BIOS.refusal(&bios)),
            }
        }
        let Some(firmware) = self.text("firmware") else { return };
        match (words::BIOS.find(&firmware), firmware.as_str()) {
            (Some(bios), _) => self.put("b_info/type.hvm/bios", bios),
            (None, "uefi") => self.put("b_info/type.hvm/bios", "ovmf"),
            (None, "bios") => {}
            (None, _) => self.put("b_info/type.hvm/firmware", firmware),
        }
    }

    fn loader(&mut self) {
        let Some(firmware) = self.text("firmware") else { return };
        if self.is_set("kernel") {
            return self.problem("firmware", "and kernel exclude each other");
        }
        if !LOADERS.contains(&firmware.as_str()) {
            let reason =
                format!("= {firmware:?} is none of {}: name another boot loader's file as kernel", LOADERS.join(", "));
            return self.problem("firmware", reason);
        }
        match self.host.firmware_directory() {
            Ok(directory) => {
                let file = directory.join(format!("{firmware}.bin"));
                self.put("b_info/kernel", file.display().to_string());
            }
            Err(reason) => self.problem("firmware", reason),
        }
    }

    /// A file for the BIOS that `bios` names.
    pub(super) fn bios_path(&mut self) {
        let path = self.text("bios_path_override");
        if path.is_some() && !self.is_set("bios") {
            self.warn("is given without bios, which says what it is");
        }
        self.put_some("b_info/type.hvm/system_firmware", path);
    }
}
