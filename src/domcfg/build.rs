//! From parsed keys to libxl's JSON.

use std::path::Path;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::keys::{ACTIONS, KEYS, Key, Take};
use super::{Problem, vif};
use crate::xen::DomainConfig;
use crate::xen::xlu;

/// More virtual CPUs than any domain can have (xen.h, `HVM_MAX_VCPUS` is 128, `MAX_VIRT_CPUS` 8192).
const VCPUS_MAX: i64 = 8192;
/// More memory than any host has, in MiB: 64 PiB. Keeps sums of bytes within 64 bits.
const MEMORY_MIB_MAX: i64 = 1 << 36;

/// Applies the whole table; what is wrong is added to `problems`.
pub(super) fn build(config: xlu::Config, problems: Vec<Problem>) -> (DomainConfig, Vec<Problem>) {
    let mut builder = Builder { config, problems, key: "", json: Map::new(), domain_type: "pv" };
    builder.put("c_info/run_hotplug_scripts", "True");
    builder.put("b_info/claim_mode", "True");
    for key in KEYS {
        builder.apply(key);
    }
    (builder.json.into(), builder.problems)
}

/// A configuration on its way.
#[derive(Debug)]
pub(super) struct Builder {
    config: xlu::Config,
    problems: Vec<Problem>,
    /// The key that is being applied.
    key: &'static str,
    json: Map<String, Value>,
    domain_type: &'static str,
}

impl Builder {
    fn apply(&mut self, key: &Key) {
        self.key = key.name;
        let unused = key.hvm_only && self.domain_type != "hvm";
        match key.take {
            Take::Partner => {}
            Take::By(function) => function(self),
            Take::Action(path, default) => self.action(path, default),
            Take::Text(path) => {
                let text = self.text(key.name).filter(|_| !unused);
                self.put_some(path, text);
            }
            Take::Flag(path) => {
                let flag = self.number(key.name).filter(|_| !unused).map(|number| number != 0);
                self.put_some(path, flag.map(|flag| if flag { "True" } else { "False" }));
            }
            Take::Mib(path) => {
                let kib = self.bounded(key.name, MEMORY_MIB_MAX).map(|mib| mib * 1024);
                self.put_some(path, kib);
            }
        }
    }

    /// `type`, or `builder` as before Xen 4.10.
    pub(super) fn domain_type(&mut self) {
        let named = self.choice("type", &[("pv", "pv"), ("pvh", "pvh"), ("hvm", "hvm")]);
        let built = self.choice("builder", &[("hvm", "hvm"), ("generic", "pv")]);
        if let (Some(named), Some(built)) = (named, built)
            && named != built
        {
            self.problem("type", format!("= \"{named}\" contradicts builder"));
        }
        self.domain_type = named.or(built).unwrap_or("pv");
        self.put("c_info/type", self.domain_type);
        self.put(&format!("b_info/type.{}", self.domain_type), Map::new());
    }

    pub(super) fn name(&mut self) {
        match self.text("name") {
            Some(name) if !name.is_empty() => self.put("c_info/name", name),
            _ => self.problem("name", "is missing"),
        }
    }

    pub(super) fn uuid(&mut self) {
        let uuid = match self.text("uuid").map(|text| (text.parse::<Uuid>(), text)) {
            None => Uuid::new_v4(),
            Some((Ok(uuid), _)) => uuid,
            Some((Err(_), text)) => return self.problem("uuid", format!("{text:?} is no UUID")),
        };
        self.put("c_info/uuid", uuid.hyphenated().to_string());
    }

    /// `maxmem`, which is `memory` where it is missing.
    pub(super) fn max_memory(&mut self) {
        let memory_mib = self.number("memory");
        let maximum_mib = self.bounded("maxmem", MEMORY_MIB_MAX);
        if let (Some(memory_mib), Some(maximum_mib)) = (memory_mib, maximum_mib)
            && memory_mib > maximum_mib
        {
            self.problem("memory", format!("{memory_mib} is more than maxmem, {maximum_mib}"));
        }
        let maximum_mib = maximum_mib.or(memory_mib.filter(|mib| (1..=MEMORY_MIB_MAX).contains(mib)));
        self.put_some("b_info/max_memkb", maximum_mib.map(|mib| mib * 1024));
    }

    /// `vcpus` are online at the start, `maxvcpus` may come.
    pub(super) fn vcpus(&mut self) {
        let online = self.bounded("vcpus", VCPUS_MAX);
        let maximum = self.bounded("maxvcpus", VCPUS_MAX);
        if let (Some(online), Some(maximum)) = (online, maximum)
            && online > maximum
        {
            self.problem("vcpus", format!("{online} is more than maxvcpus, {maximum}"));
        }
        self.put_some("b_info/avail_vcpus", online.map(|online| (0..online).collect::<Vec<_>>()));
        self.put_some("b_info/max_vcpus", maximum.or(online));
    }

    /// An HVM domain boots from its firmware; old files name `hvmloader` here, which xl ignores.
    pub(super) fn kernel(&mut self) {
        let kernel = self.text("kernel");
        let hvm = self.domain_type == "hvm";
        if kernel.is_none() && !hvm && !matches!(self.config.string("bootloader"), Ok(Some(_))) {
            self.problem("kernel", "and bootloader are missing: one is needed to boot");
        }
        let ignored = |path: &String| hvm && Path::new(path).file_name().is_some_and(|name| name == "hvmloader");
        self.put_some("b_info/kernel", kernel.filter(|path| !ignored(path)));
    }

    /// `cmdline` as it is, or made of `root` and `extra`.
    pub(super) fn command_line(&mut self) {
        let (line, root, extra) = (self.text("cmdline"), self.text("root"), self.text("extra"));
        let line = match (line, root, extra) {
            (Some(line), None, None) => Some(line),
            (Some(_), ..) => return self.problem("cmdline", "excludes root and extra"),
            (None, Some(root), Some(extra)) => Some(format!("root={root} {extra}")),
            (None, Some(root), None) => Some(format!("root={root}")),
            (None, None, extra) => extra,
        };
        self.put_some("b_info/cmdline", line);
    }

    pub(super) fn bootloader_args(&mut self) {
        let list = self.list("bootloader_args");
        self.put_some("b_info/bootloader_args", list);
    }

    /// An HVM domain's BIOS by name, or a file; the boot loaders that xl knows for PV domains are built into Xen's own directories.
    pub(super) fn firmware(&mut self) {
        let Some(firmware) = self.text("firmware") else { return };
        match (self.domain_type, firmware.as_str()) {
            ("hvm", "rombios" | "seabios" | "ovmf") => self.put("b_info/type.hvm/bios", firmware),
            ("hvm", "uefi") => self.put("b_info/type.hvm/bios", "ovmf"),
            ("hvm", "bios") => {}
            ("hvm", _) => self.put("b_info/type.hvm/firmware", firmware),
            _ => self.problem("firmware", "is understood for HVM domains only: name the boot loader's file as kernel"),
        }
    }

    pub(super) fn disks(&mut self) {
        let specs = self.list("disk").unwrap_or_default();
        let disks = self.each("disk", &specs, |spec, _| xlu::Config::disk(spec).map_err(|error| error.to_string()));
        self.put_some("disks", Some(disks).filter(|disks| !disks.is_empty()));
    }

    pub(super) fn nics(&mut self) {
        let specs = self.list("vif").unwrap_or_default();
        let nics = self.each("vif", &specs, vif::parse);
        self.put_some("nics", Some(nics).filter(|nics| !nics.is_empty()));
    }

    fn each(
        &mut self,
        key: &'static str,
        specs: &[String],
        parse: impl Fn(&str, usize) -> Result<Value, String>,
    ) -> Vec<Value> {
        let mut parsed = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            match parse(spec, index) {
                Ok(value) => parsed.push(value),
                Err(reason) => self.problem(key, format!("{spec:?}: {reason}")),
            }
        }
        parsed
    }

    fn action(&mut self, path: &str, default: &str) {
        let key = self.key;
        let default = ACTIONS.iter().find(|(word, _)| *word == default).map(|(_, action)| *action);
        let action = self.choice(key, &ACTIONS);
        self.put_some(path, action.or(default));
    }

    /// The meaning of a word that has to be one of a few.
    fn choice(&mut self, key: &'static str, choices: &[(&str, &'static str)]) -> Option<&'static str> {
        let word = self.text(key)?;
        let chosen = choices.iter().find(|(choice, _)| *choice == word);
        if chosen.is_none() {
            let choices: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
            self.problem(key, format!("= {word:?} is none of {}", choices.join(", ")));
        }
        chosen.map(|(_, meaning)| *meaning)
    }

    /// A number from 1 to a maximum.
    fn bounded(&mut self, key: &'static str, maximum: i64) -> Option<i64> {
        let number = self.number(key)?;
        if !(1..=maximum).contains(&number) {
            self.problem(key, format!("= {number} is not between 1 and {maximum}"));
            return None;
        }
        Some(number)
    }

    fn text(&mut self, key: &'static str) -> Option<String> {
        let value = self.config.string(key);
        self.value(key, value)
    }

    fn number(&mut self, key: &'static str) -> Option<i64> {
        let value = self.config.number(key);
        self.value(key, value)
    }

    fn list(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.config.list(key);
        self.value(key, value)
    }

    fn value<T>(&mut self, key: &'static str, value: Result<Option<T>, xlu::Error>) -> Option<T> {
        value.unwrap_or_else(|error| {
            self.problem(key, format!("has a value of the wrong kind ({error})"));
            None
        })
    }

    /// Each problem once, also where two steps look at the same key.
    fn problem(&mut self, key: &'static str, reason: impl Into<String>) {
        let problem = Problem::Value { key, reason: reason.into() };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn put_some(&mut self, path: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(path, value);
        }
    }

    fn put(&mut self, path: &str, value: impl Into<Value>) {
        let mut parts: Vec<_> = path.split('/').collect();
        let last = parts.pop().unwrap_or_default();
        let mut object = &mut self.json;
        for part in parts {
            let child = object.entry(part).or_insert_with(|| json!({}));
            let Value::Object(child) = child else { return };
            object = child;
        }
        object.insert(last.to_owned(), value.into());
    }
}
