//! Xen under this host: dom0, its devices and daemons, and what the hypervisor can do.

use std::fs;
use std::path::Path;

use procfs::process::Process;

use super::library::{Library, release};
use super::report::Report;
use super::ways::Ways;
use crate::domcfg::Defaults;
use crate::migrate::chain;
use crate::toolstack::Hypervisor;
use crate::xen::xlu;

/// What dom0's kernel gives to toolstacks and backends.
const DEVICES: [&str; 4] = ["/dev/xen/evtchn", "/dev/xen/gntdev", "/dev/xen/privcmd", "/dev/xen/xenbus"];
const XENFS: &str = "/proc/xen";
const XL_CONF: &str = Defaults::FILE;
/// With less free memory than this, in KiB, no domain worth having can come.
const FREE_KIB_MIN: u64 = 64 << 10;

/// What was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dom0 {
    /// Whether the kernel runs as dom0; `None` where it does not say.
    control: Option<bool>,
    xenfs: bool,
    missing_devices: Vec<&'static str>,
    xenstore: Result<(), String>,
    xenconsoled: bool,
    hypervisor: Result<Hypervisor, String>,
    autoballoon: Autoballoon,
}

/// Whether `xl` takes memory from dom0 when it starts a domain (xl.conf(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Autoballoon {
    On,
    Off,
    /// Unless Xen's command line says how much memory dom0 has.
    Auto,
}

impl Dom0 {
    pub(super) fn look(ways: &Ways) -> Dom0 {
        let capabilities = fs::read_to_string(Path::new(XENFS).join("capabilities"));
        let hypervisor = ways.toolstack().and_then(|xen| xen.hypervisor().map_err(|error| chain(error.as_ref())));
        Dom0 {
            control: capabilities.ok().map(|said| said.contains("control_d")),
            xenfs: is_mounted(XENFS),
            missing_devices: DEVICES.into_iter().filter(|device| !Path::new(device).exists()).collect(),
            xenstore: ways.xenstore.clone(),
            xenconsoled: is_running("xenconsoled"),
            hypervisor,
            autoballoon: Autoballoon::of(&fs::read_to_string(XL_CONF).unwrap_or_default()),
        }
    }

    pub(super) fn judge(&self, library: &Library, is_root: bool, report: &mut Report) {
        if self.control == Some(false) || (self.control.is_none() && self.missing_devices.len() == DEVICES.len()) {
            let remedy = "Boot this host with Xen: cat /proc/xen/capabilities says control_d in dom0";
            return report.error("not-dom0", "This is no dom0 of a Xen host", remedy);
        }
        self.judge_kernel(report);
        if !is_root {
            return report.cannot_tell("not-root", "Only root may ask Xen: it was not looked at", "sudo bascule check");
        }
        if let Err(why) = &self.xenstore {
            let remedy =
                "systemctl restart xenstored (or service xen start); if it hangs, the host must be booted anew";
            report.error("xenstored-silent", format!("Xenstored does not answer: {why}"), remedy);
        }
        match &self.hypervisor {
            Ok(hypervisor) => self.judge_hypervisor(hypervisor, library, report),
            Err(why) if self.xenstore.is_ok() => report.error("xen-silent", why.as_str(), "xl info, and xl dmesg"),
            Err(_) => report.cannot_tell("xen-silent", "The hypervisor was not asked", "See to xenstored first"),
        }
    }

    fn judge_kernel(&self, report: &mut Report) {
        if !self.xenfs {
            report.error("xenfs-missing", format!("{XENFS} is not mounted"), format!("mount -t xenfs xenfs {XENFS}"));
        }
        if !self.missing_devices.is_empty() {
            let found = format!("{} missing", self.missing_devices.join(", "));
            report.error("xen-device-missing", found, "modprobe -a xen-evtchn xen-gntdev xen-privcmd xenfs");
        }
        if !self.xenconsoled {
            let found = "Xenconsoled does not run: guests have no console, and nobody keeps what they print";
            report.warning("xenconsoled-missing", found, "systemctl start xenconsoled, or: service xen start");
        }
    }

    fn judge_hypervisor(&self, hypervisor: &Hypervisor, library: &Library, report: &mut Report) {
        let Hypervisor { version, free_kib, .. } = hypervisor;
        let free_mib = free_kib >> 10;
        report.note("xen", format!("Xen {version}, {free_mib} MiB free"));
        if let Some(ours) = library.release.as_ref().filter(|ours| **ours != release(version)) {
            let found = format!("Xen {version} runs, and this program uses libxl of {ours}");
            report.error(
                "xen-other-release",
                found,
                "Boot the hypervisor of that release, or build bascule on this host",
            );
        }
        if hypervisor.pv && !hypervisor.shadow {
            let found = "The hypervisor has no shadow paging: PV domains cannot move while they run";
            report.warning("no-log-dirty-pv", found, "Boot one that has it; Debian's 4.17.5 has, its 4.17.7 has not");
        }
        if hypervisor.hvm && !hypervisor.hap && !hypervisor.shadow {
            let found = "There is neither nested nor shadow paging: HVM and PVH domains cannot move while they run";
            report.warning("no-log-dirty-hvm", found, "Switch EPT or NPT on in the firmware");
        }
        self.judge_memory(hypervisor, report);
    }

    fn judge_memory(&self, hypervisor: &Hypervisor, report: &mut Report) {
        if hypervisor.free_kib < FREE_KIB_MIN {
            let found = format!("{} MiB of memory are free: no domain can come here", hypervisor.free_kib >> 10);
            report.warning("memory-low", found, "Shut a domain down or make dom0 smaller: xl mem-set 0");
        }
        if !hypervisor.dom0_mem {
            let found = "Dom0 began with all memory: what a domain that comes here needs must be free in Xen, and bascule takes none from dom0";
            report.warning(
                "dom0-mem",
                found,
                "Give Xen's command line dom0_mem=4096M,max:4096M or as much as dom0 needs",
            );
        } else if self.autoballoon == Autoballoon::On {
            let found = format!("{XL_CONF} has autoballoon on: xl shrinks dom0 whenever it starts a domain");
            report.warning("autoballoon", found, format!("Write autoballoon=\"off\" in {XL_CONF}"));
        }
    }
}

impl Autoballoon {
    fn of(xl_conf: &str) -> Autoballoon {
        let said = xlu::Config::parse(XL_CONF, xl_conf).and_then(|conf| conf.string("autoballoon")).ok().flatten();
        match said.as_deref() {
            Some("on" | "1") => Autoballoon::On,
            Some("off" | "0") => Autoballoon::Off,
            _ => Autoballoon::Auto,
        }
    }
}

fn is_mounted(at: &str) -> bool {
    let mounts = Process::myself().and_then(|me| me.mountinfo());
    mounts
        .is_ok_and(|mounts| mounts.0.iter().any(|mount| mount.mount_point == Path::new(at) && mount.fs_type == "xenfs"))
}

/// Whether a process has this name (proc(5), comm).
pub(super) fn is_running(name: &str) -> bool {
    let processes = procfs::process::all_processes().into_iter().flatten().flatten();
    processes.into_iter().any(|process| process.stat().is_ok_and(|stat| stat.comm == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Dom0 {
        let hypervisor = Hypervisor {
            version: "4.17.5".into(),
            stream: 2,
            free_kib: 1 << 20,
            hap: true,
            shadow: true,
            pv: true,
            hvm: true,
            dom0_mem: true,
        };
        Dom0 {
            control: Some(true),
            xenfs: true,
            missing_devices: Vec::new(),
            xenstore: Ok(()),
            xenconsoled: true,
            hypervisor: Ok(hypervisor),
            autoballoon: Autoballoon::Auto,
        }
    }

    fn codes(dom0: &Dom0) -> Vec<String> {
        let mut report = Report::new("node1");
        let library = Library { release: Some("4.17".into()), ..Library::default() };
        dom0.judge(&library, true, &mut report);
        report.findings().into_iter().map(|finding| finding.code).filter(|code| code != "xen").collect()
    }

    fn broken(breaks: impl FnOnce(&mut Dom0, &mut Hypervisor)) -> Vec<String> {
        let mut dom0 = healthy();
        let mut hypervisor = dom0.hypervisor.clone().expect("it answers");
        breaks(&mut dom0, &mut hypervisor);
        dom0.hypervisor = dom0.hypervisor.and(Ok(hypervisor));
        codes(&dom0)
    }

    #[test]
    fn a_healthy_dom0_has_nothing_and_each_fault_its_code() {
        assert_eq!(codes(&healthy()), [""; 0]);
        assert_eq!(broken(|dom0, _| dom0.control = Some(false)), ["not-dom0"]);
        assert_eq!(broken(|dom0, _| dom0.xenfs = false), ["xenfs-missing"]);
        assert_eq!(broken(|dom0, _| dom0.missing_devices = vec![DEVICES[1]]), ["xen-device-missing"]);
        assert_eq!(broken(|dom0, _| dom0.xenconsoled = false), ["xenconsoled-missing"]);
        assert_eq!(broken(|dom0, _| dom0.autoballoon = Autoballoon::On), ["autoballoon"]);
        assert_eq!(broken(|_, xen| xen.version = "4.20.1".into()), ["xen-other-release"]);
        assert_eq!(broken(|_, xen| xen.shadow = false), ["no-log-dirty-pv"]);
        assert_eq!(broken(|_, xen| (xen.pv, xen.hap, xen.shadow) = (false, false, false)), ["no-log-dirty-hvm"]);
        assert_eq!(broken(|_, xen| xen.free_kib = 1024), ["memory-low"]);
        assert_eq!(broken(|_, xen| xen.dom0_mem = false), ["dom0-mem"]);
        let silent = Dom0 { xenstore: Err("no".into()), hypervisor: Err("no".into()), ..healthy() };
        assert_eq!(codes(&silent), ["xenstored-silent", "xen-silent"]);
    }

    #[test]
    fn xls_word_for_its_ballooning_is_read() {
        let rows = [
            ("", Autoballoon::Auto),
            ("autoballoon=\"off\"\n", Autoballoon::Off),
            ("autoballoon = 'on' # yes\n", Autoballoon::On),
            ("autoballoon=\"auto\"", Autoballoon::Auto),
            ("no config", Autoballoon::Auto),
        ];
        for (text, expected) in rows {
            assert_eq!(Autoballoon::of(text), expected, "{text}");
        }
    }
}
