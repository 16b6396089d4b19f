//! What must never stand in a configuration that libxl is given, found without the program's own list: by what names look like and by what
//! libxl does with them.

use std::net::IpAddr;

use bascule::ids::VolumeId;
use serde_json::Value;

/// All that may stand at the top besides the actions.
const TABLES: [&str; 6] = ["c_info", "b_info", "disks", "nics", "vfbs", "vkbs"];
/// Names under which libxl runs, opens or uses what is named, or takes a device from another domain than dom0.
const DANGEROUS: [&str; 20] = [
    "device_model",
    "device_model_ssidref",
    "device_model_ssid_label",
    "device_model_user",
    "stubdomain_kernel",
    "stubdomain_ramdisk",
    "stubdomain_cmdline",
    "extra",
    "extra_pv",
    "extra_hvm",
    "firmware",
    "system_firmware",
    "smbios_firmware",
    "acpi_firmware",
    "device_tree",
    "backend_domname",
    "ioports",
    "irqs",
    "iomem",
    "xauthority",
];
/// Where a text is the guest's own business.
const GUESTS_OWN: [&str; 2] = ["cmdline", "passwd"];
const KERNEL_DIRS: [&[&str]; 3] = [&["boot"], &["usr", "lib", "xen"], &["var", "lib", "xen"]];
const NIC_SCRIPTS: [&str; 2] = ["vif-bridge", "/etc/xen/scripts/vif-bridge"];

/// What the disks may name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed<'a> {
    pub(crate) volumes: &'a [VolumeId],
    /// Files that may be read.
    pub(crate) files: &'a [&'a str],
}

impl Allowed<'_> {
    fn has_volume(self, target: &str) -> bool {
        self.volumes.iter().any(|volume| volume.to_string() == target)
    }
}

/// The first thing that this host's administrator did not allow, in words.
pub(crate) fn danger(config: &Value, allowed: Allowed<'_>) -> Option<String> {
    let mut top = config.as_object().into_iter().flatten().map(|(name, _)| name);
    let strange = top.find(|name| !TABLES.contains(&name.as_str()) && !name.starts_with("on_"));
    strange.map(|name| format!("{name} stands at the top")).or_else(|| {
        let disks = config.get("disks").and_then(Value::as_array).into_iter().flatten();
        disks.into_iter().find_map(|disk| disk_danger(disk, allowed)).or_else(|| inside("", config, allowed))
    })
}

/// A disk is an agreed volume through our program, a file that may be read and is, or an empty drive.
fn disk_danger(disk: &Value, allowed: Allowed<'_>) -> Option<String> {
    let text = |key: &str| disk.get(key).and_then(Value::as_str);
    let is_agreed = text("pdev_path").is_some_and(|target| allowed.has_volume(target));
    let is_ours = is_agreed && text("script") == Some("block-drbd") && text("backend") != Some("qdisk");
    let is_file = text("pdev_path").is_some_and(|path| allowed.files.contains(&path));
    let only_reads = disk.get("readwrite").is_none_or(|number| *number == 0);
    let is_read = is_file && only_reads && disk.get("script").is_none() && text("format") == Some("raw");
    let is_empty = text("format") == Some("empty") && disk.get("pdev_path").is_none() && disk.get("script").is_none();
    (!is_ours && !is_read && !is_empty).then(|| format!("the disk {disk} is none of ours"))
}

fn inside(name: &str, value: &Value, allowed: Allowed<'_>) -> Option<String> {
    match value {
        Value::Object(fields) if name == "spice" && has_comma(fields.get("passwd")) => {
            Some("spice's passwd has a comma, behind which an option of QEMU's begins".into())
        }
        Value::Object(fields) => fields.iter().find_map(|(name, value)| inside(as_libxl(name), value, allowed)),
        Value::Array(values) => values.iter().find_map(|value| inside(name, value, allowed)),
        leaf => leaf_danger(name, leaf, allowed).map(|why| format!("{name} is {leaf}: {why}")),
    }
}

fn has_comma(value: Option<&Value>) -> bool {
    value.and_then(Value::as_str).is_some_and(|text| text.contains(','))
}

/// libxl reads a name up to its first NUL.
fn as_libxl(name: &str) -> &str {
    name.split('\0').next().unwrap_or_default()
}

fn leaf_danger(name: &str, leaf: &Value, allowed: Allowed<'_>) -> Option<&'static str> {
    if DANGEROUS.contains(&name) || name.ends_with("path") && name != "pdev_path" {
        return Some("such a place names something of this host's");
    }
    match leaf {
        Value::String(text) => text_danger(name, text, allowed),
        Value::Number(number) if matches!(name, "backend_domid" | "poolid") => {
            (number.as_u64() != Some(0)).then_some("not dom0's")
        }
        Value::Bool(true) if is_switch(name) => Some("it is switched on"),
        _ => None,
    }
}

fn is_switch(name: &str) -> bool {
    matches!(
        name,
        "driver_domain" | "device_model_stubdomain" | "pvshim" | "gfx_passthru" | "e820_host" | "colo_enable"
    )
}

fn text_danger(name: &str, text: &str, allowed: Allowed<'_>) -> Option<&'static str> {
    let fine = match name {
        name if GUESTS_OWN.contains(&name) => true,
        name if is_switch(name) => text != "True",
        "kernel" | "ramdisk" => is_kernel(text),
        "pdev_path" => allowed.has_volume(text) || allowed.files.contains(&text),
        "script" => text == "block-drbd" || NIC_SCRIPTS.contains(&text),
        "bootloader" => text == "pygrub",
        "bootloader_args" => !text.contains("directory") || text.starts_with("--args="),
        "backend" => matches!(text, "phy" | "qdisk"),
        "backend_type" => text == "qemu",
        "serial" | "serial_list" => matches!(text, "pty" | "none" | "null" | "vc"),
        "usbdevice" | "usbdevice_list" => matches!(text, "tablet" | "mouse" | "keyboard"),
        "listen" => is_listen_address(text),
        "run_hotplug_scripts" => text == "True",
        _ => is_harmless(text),
    };
    (!fine).then_some("that names something of this host's")
}

/// A path below one of the directories, as the kernel takes it.
fn is_kernel(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let is_below = |dir: &&[&str]| parts.starts_with(dir) && parts.len() > dir.len();
    text.starts_with('/') && KERNEL_DIRS.iter().any(is_below) && !parts.contains(&"..")
}

/// What QEMU takes for the address of a display, host and number: with a colon it could be a socket's path, or a call to elsewhere.
fn is_listen_address(text: &str) -> bool {
    let host =
        text.rsplit_once(':').filter(|(_, display)| display.parse::<u16>().is_ok()).map_or(text, |(host, _)| host);
    is_harmless(text) && (!text.contains(':') || host.parse::<IpAddr>().is_ok() || text.parse::<IpAddr>().is_ok())
}

/// No path, no option, no list of options, no second line.
fn is_harmless(text: &str) -> bool {
    let forbidden = |c: char| {
        c.is_control() || c.is_whitespace() || matches!(c, '/' | '\\' | ',' | '=' | ';' | '$' | '`' | '|' | '"' | '\'')
    };
    !text.starts_with('-') && !text.contains(forbidden)
}
