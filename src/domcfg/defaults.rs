//! What a host's administrator says of every domain that is made from a file: `xl.conf` (docs/man/xl.conf.5), as xl takes it at each of its
//! starts (tools/xl/xl.c, parse_global_config, Xen 4.17). A domain's own file goes before it, but for the CPUs, which it only narrows.
//!
//! The table is of the same kind as that of a domain's keys. What has no field in libxl's JSON gets one here that is no part of a domain's:
//! `nic`, what each nic has, and `cpus`, those that domains may have. A file that is wrong makes no domain, where xl goes on with what it
//! understands: a domain would be on another bridge, or on other CPUs, than is written.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::build::Builder;
use super::host::Host;
use super::keys::{COUNT, DomainType, Key, Take, UNSET, key};
use super::processors::cpu_map;
use super::{Error, Problem, Warning, read};

const OLD_SCRIPT: &str = "is deprecated: write vif.default.script";
const OLD_BRIDGE: &str = "is deprecated: write vif.default.bridge";

/// All settings. A deprecated one stands before that which goes before it.
const SETTINGS: &[Key] = &[
    key("vifscript", Take::Text("nic/script")).note(OLD_SCRIPT),
    key("vif.default.script", Take::Text("nic/script")),
    key("defaultbridge", Take::Text("nic/bridge")).note(OLD_BRIDGE),
    key("vif.default.bridge", Take::Text("nic/bridge")),
    key("vif.default.gatewaydev", Take::Text("nic/gatewaydev")),
    key("vif.default.backend", Take::Text("nic/backend_domname")),
    key("run_hotplug_scripts", Take::Flag("c_info/run_hotplug_scripts")),
    key("blkdev_start", Take::Text("b_info/blkdev_start")),
    key("claim_mode", Take::Flag("b_info/claim_mode")),
    key("max_grant_frames", Take::Number("b_info/max_grant_frames", COUNT, UNSET)),
    key("max_maptrack_frames", Take::Number("b_info/max_maptrack_frames", COUNT, UNSET)),
    key("max_grant_version", Take::Number("b_info/max_grant_version", COUNT, UNSET)),
    key("vm.cpumask", Take::By(|builder| builder.allowed_cpus("vm.cpumask", "cpus/any"))),
    key("vm.hvm.cpumask", Take::By(|builder| builder.allowed_cpus("vm.hvm.cpumask", "cpus/hvm"))),
    key("vm.pv.cpumask", Take::By(|builder| builder.allowed_cpus("vm.pv.cpumask", "cpus/pv"))),
    key(
        "autoballoon",
        Take::By(|builder| builder.without_effect("autoballoon", &["on", "1"], "dom0 keeps its memory")),
    ),
    key("domid_policy", Take::By(|builder| builder.without_effect("domid_policy", &["random"], "Xen numbers domains"))),
    key("output_format", Take::By(|builder| builder.without_effect("output_format", &["sxp"], "all output is JSON"))),
    key("lockfile", Take::Ignored).note("is ignored: only xl locks it, to take memory from dom0"),
    key("remus.default.netbufscript", Take::Ignored).note("is ignored: it is for xl remus"),
    key("colo.default.proxyscript", Take::Ignored).note("is ignored: it is for xl remus -c"),
];

/// What such a file says.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// What a domain has unless its file says otherwise.
    pub(super) fields: Map<String, Value>,
    nic: Map<String, Value>,
    cpus: Map<String, Value>,
    /// What is deprecated, unknown, or has no effect here.
    pub warnings: Vec<Warning>,
}

impl Default for Defaults {
    /// What holds where nobody has said anything.
    fn default() -> Self {
        let fields = [("c_info", "run_hotplug_scripts"), ("b_info", "claim_mode")];
        let fields = fields.map(|(part, flag)| (part.to_owned(), json!({ flag: "True" })));
        let fields = fields.into_iter().collect();
        Self { fields, nic: Map::new(), cpus: Map::new(), warnings: Vec::new() }
    }
}

impl Defaults {
    /// Where xl has it; there is no other place.
    pub const FILE: &str = "/etc/xen/xl.conf";

    /// Reads a file; one that is not there says nothing.
    ///
    /// # Errors
    /// It cannot be read, or something in it makes no sense; then each line that is wrong is named.
    pub fn load(path: impl AsRef<Path>, host: &Host) -> Result<Self, Error> {
        let path = path.as_ref();
        match read(path) {
            Ok(text) => Self::parse(&path.display().to_string(), &text, host),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(Error::Read { path: path.to_owned(), source }),
        }
    }

    /// The same for a text; `file` stands in what is reported.
    ///
    /// # Errors
    /// As for [`Defaults::load`].
    pub fn parse(file: &str, text: &str, host: &Host) -> Result<Self, Error> {
        let mut builder = Builder::new(file, text, host)?;
        builder.apply(Self::default().fields, SETTINGS);
        for unknown in builder.unknown_keys(SETTINGS) {
            let Problem::UnknownKey { key, line, nearest } = unknown else { continue };
            let hint = nearest.map(|known| format!(", did you mean {known}?")).unwrap_or_default();
            builder.warn_of(&key, format!("in line {line} is not understood, and ignored as by xl{hint}"));
        }
        let (mut fields, warnings) = builder.finish(file)?;
        let mut part = |name| match fields.remove(name) {
            Some(Value::Object(part)) => part,
            _ => Map::new(),
        };
        Ok(Self { nic: part("nic"), cpus: part("cpus"), fields, warnings })
    }

    pub(super) fn with_all_cpus(self) -> Self {
        Self { cpus: Map::new(), ..self }
    }

    /// The CPUs that a domain of a type may have, `None` for all. For xl, PVH is a kind of HVM here.
    fn cpus(&self, domain_type: DomainType) -> Option<BTreeSet<u64>> {
        let kind = if domain_type == DomainType::Pv { "pv" } else { "hvm" };
        let named = |name: &str| self.cpus.get(name)?.as_array().map(|cpus| numbers(cpus));
        match (named("any"), named(kind)) {
            (Some(any), Some(kind)) => Some(any.intersection(&kind).copied().collect()),
            (any, kind) => any.or(kind),
        }
    }
}

impl Builder {
    /// A mask that leaves out nothing is none.
    fn allowed_cpus(&mut self, name: &'static str, path: &str) {
        let Some(spec) = self.text(name) else { return };
        let map =
            self.host.topology().and_then(|topology| Ok((cpu_map(&spec, &topology)?, cpu_map("all", &topology)?)));
        match map {
            Ok((cpus, all)) if cpus == all => {}
            Ok((cpus, _)) => self.put(path, Value::from_iter(cpus)),
            Err(reason) => self.problem(name, reason),
        }
    }

    fn without_effect(&mut self, name: &'static str, values: &[&str], instead: &str) {
        if let Some(value) = self.text(name).filter(|value| values.contains(&value.as_str())) {
            self.warn(format!("= {value:?} has no effect: {instead}"));
        }
    }

    /// What a nic does not say of itself.
    pub(super) fn complete_nics(&mut self) {
        let defaults = self.host.defaults.nic.clone();
        for nic in self.list_at("nics").iter_mut().filter_map(Value::as_object_mut) {
            for (name, value) in &defaults {
                nic.entry(name).or_insert_with(|| value.clone());
            }
        }
    }

    /// The CPUs of each vCPU that has any are narrowed; if none has, all get those that there are.
    pub(super) fn keep_to_cpus(&mut self) {
        const PATH: &str = "b_info/vcpu_hard_affinity";
        let Some(allowed) = self.host.defaults.cpus(self.domain_type) else { return };
        if self.list_at(PATH).is_empty() {
            let map = Value::from_iter(allowed.iter().copied());
            self.put(PATH, vec![map; self.vcpus_max]);
        }
        let mut left = Vec::new();
        for map in self.list_at(PATH) {
            let cpus: BTreeSet<u64> = map.as_array().map(|map| numbers(map)).unwrap_or_default();
            left.push(cpus.intersection(&allowed).count());
            *map = Value::from_iter(cpus.intersection(&allowed).copied());
        }
        if let Some(vcpu) = left.iter().position(|count| *count == 0) {
            let kind = self.domain_type.word();
            let reason = format!("leaves no CPU to vCPU {vcpu} that {} allows a domain of type {kind}", Defaults::FILE);
            self.problem("cpus", reason);
        }
    }
}

fn numbers(list: &[Value]) -> BTreeSet<u64> {
    list.iter().filter_map(Value::as_u64).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Facts, parse};
    use super::*;
    use crate::xen::topology::Topology;

    fn node() -> Host {
        let topology = Topology { cpus_max: 8, cpus_online: 8, nodes: vec![(0..8).collect()] };
        Host::known(Facts { topology, firmware_directories: vec![PathBuf::from("/boot")] })
    }

    fn defaults(text: &str) -> Result<Defaults, Error> {
        Defaults::parse("xl.conf", text, &node())
    }

    fn domain(settings: &str, file: &str) -> Result<Value, Error> {
        let host = node().with(defaults(settings).expect(settings));
        parse("t", &format!("name='a'\nkernel='k'\n{file}"), &host).map(|loaded| loaded.config.value().clone())
    }

    #[test]
    fn a_domain_s_own_file_goes_before_what_is_said_of_all() {
        let settings =
            "max_grant_frames=64\nmax_grant_version=1\nblkdev_start='xvdq'\nclaim_mode=0\nrun_hotplug_scripts=0";
        let config = domain(settings, "max_grant_frames=7").expect("a domain");
        let at = |path| config.pointer(path).cloned().unwrap_or_default();
        assert_eq!(at("/b_info/max_grant_frames"), json!(7));
        assert_eq!(at("/b_info/max_grant_version"), json!(1));
        assert_eq!(at("/b_info/blkdev_start"), json!("xvdq"));
        assert_eq!(at("/b_info/claim_mode"), json!("False"));
        assert_eq!(at("/c_info/run_hotplug_scripts"), json!("False"));
        assert_eq!(at("/nic"), Value::Null);
        assert_eq!(domain("", "").expect("a domain").pointer("/b_info/claim_mode"), Some(&json!("True")));
    }

    #[test]
    fn nics_are_completed() {
        let settings = "defaultbridge='old'\nvif.default.bridge='br1'\nvifscript='vif-x'\nvif.default.backend='net'\n\
                        vif.default.gatewaydev='eth0'";
        let config = domain(settings, "vif=['', 'bridge=own,netdev=eth1,script=vif-y,backend=0']").expect("a domain");
        let expected = json!([
            { "devid": 0, "bridge": "br1", "script": "vif-x", "backend_domname": "net", "gatewaydev": "eth0" },
            { "devid": 1, "bridge": "own", "script": "vif-y", "backend_domname": "0", "gatewaydev": "eth1" },
        ]);
        assert_eq!(config["nics"], expected);
        assert_eq!(domain(settings, "").expect("a domain").get("nics"), None);
    }

    #[test]
    fn cpus_are_narrowed_for_the_types_that_are_meant() {
        let settings = "vm.cpumask='0-5'\nvm.pv.cpumask='1-3'\nvm.hvm.cpumask='4,5'";
        let rows = [
            ("vcpus=2", json!([[1, 2, 3], [1, 2, 3]])),
            ("vcpus=2\ncpus='0,2-7'", json!([[2, 3], [2, 3]])),
            ("vcpus=2\ncpus=['3']", json!([[3]])),
            ("vcpus=2\ncpus=[]", json!([[1, 2, 3], [1, 2, 3]])),
            ("type='pvh'", json!([[4, 5]])),
            ("type='hvm'\ncpus='5'", json!([[5]])),
        ];
        for (file, expected) in rows {
            let config = domain(settings, file).expect(file);
            assert_eq!(config.pointer("/b_info/vcpu_hard_affinity"), Some(&expected), "{file}");
        }
        let none = domain("vm.cpumask='all'\nvm.hvm.cpumask='0'", "vcpus=2").expect("a domain");
        assert_eq!(none.pointer("/b_info/vcpu_hard_affinity"), None);
        for (settings, file) in [(settings, "cpus='7'"), ("vm.cpumask='0'\nvm.pv.cpumask='1'", "")] {
            let error = domain(settings, file).expect_err("no CPU is left").to_string();
            assert!(error.contains("cpus leaves no CPU to vCPU 0"), "{error}");
        }
        let all = node().with(defaults(settings).expect("defaults")).with_all_cpus();
        assert!(parse("t", "name='a'\nkernel='k'\ncpus='7'", &all).is_ok());
    }

    #[test]
    fn a_broken_file_is_refused_with_its_lines() {
        let error = defaults("claim_mode=1\nvif.default.bridge=['a']\nmax_grant_frames='many'\nvm.cpumask='some'")
            .expect_err("wrong");
        let error = error.to_string();
        for said in
            ["xl.conf cannot be used", "line 2: vif.default.bridge", "line 3: max_grant_frames", "line 4: vm.cpumask"]
        {
            assert!(error.contains(said), "{said} in {error}");
        }
        let error = defaults("claim_mode=1\n\nclaim_mode = = 1").expect_err("wrong").to_string();
        assert!(error.contains("xl.conf:3"), "{error}");
        assert!(Defaults::load("/nonexistent/xl.conf", &node()).is_ok());
        assert!(matches!(Defaults::load("/", &node()), Err(Error::Read { .. })));
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let rows = [
            ("autoballoon='on'", "autoballoon = \"on\" has no effect: dom0 keeps its memory"),
            ("domid_policy='random'", "domid_policy = \"random\" has no effect: Xen numbers domains"),
            ("output_format='sxp'", "output_format = \"sxp\" has no effect: all output is JSON"),
            ("lockfile='/run/x'", "lockfile is ignored: only xl locks it, to take memory from dom0"),
            (
                "\nvif.default.brige='b'",
                "vif.default.brige in line 2 is not understood, and ignored as by xl, did you mean vif.default.bridge?",
            ),
            ("vifscript='s'", "vifscript is deprecated: write vif.default.script"),
        ];
        for (text, said) in rows {
            let warnings = defaults(text).expect(text).warnings;
            assert_eq!(warnings.iter().map(Warning::to_string).collect::<Vec<_>>(), [said], "{text}");
        }
        assert_eq!(defaults("autoballoon='auto'\noutput_format='json'\ndomid_policy='xen'").expect("all").warnings, []);
    }
}
