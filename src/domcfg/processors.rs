//! vCPUs: how many there are, where they may run, what they see of the processor; and the memory, which virtual nodes divide too.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde_json::Value;

use super::build::Builder;
use super::keys::{DomainType, MEMORY_MIB_MAX};
use super::words;
use crate::xen::cpuid::Cpuid;
use crate::xen::topology::Topology;

/// More virtual CPUs than any domain can have (xen.h, `HVM_MAX_VCPUS` is 128, `MAX_VIRT_CPUS` 8192).
const VCPUS_MAX: i64 = 8192;

impl Builder {
    /// `maxmem`, which is what the virtual nodes have together, or `memory`, where it is missing.
    pub(super) fn max_memory(&mut self) {
        let memory_mib = self.number("memory");
        let maximum_mib = self.bounded("maxmem", (1, MEMORY_MIB_MAX));
        let nodes_mib = self.nodes.map(|nodes| nodes.memory_mib);
        if let (Some(maximum_mib), Some(nodes_mib)) = (maximum_mib, nodes_mib)
            && maximum_mib != nodes_mib
        {
            self.problem("vnuma", format!("has {nodes_mib} MiB of memory, and maxmem is {maximum_mib}"));
        }
        let maximum_mib = maximum_mib.or(nodes_mib);
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
        let online = self.bounded("vcpus", (1, VCPUS_MAX));
        let maximum = self.bounded("maxvcpus", (1, VCPUS_MAX));
        let in_nodes = self.nodes.map(|nodes| nodes.vcpus);
        if let (Some(maximum), Some(in_nodes)) = (maximum, in_nodes)
            && maximum != in_nodes
        {
            self.problem("vnuma", format!("has {in_nodes} vCPUs, and maxvcpus is {maximum}"));
        }
        let maximum = maximum.or(in_nodes);
        if let (Some(online), Some(maximum)) = (online, maximum)
            && online > maximum
        {
            self.problem("vcpus", format!("{online} is more than maxvcpus, {maximum}"));
        }
        self.put_some("b_info/avail_vcpus", online.map(|online| (0..online).collect::<Vec<_>>()));
        let maximum = maximum.or(online);
        self.put_some("b_info/max_vcpus", maximum);
        self.vcpus_max = maximum.and_then(|maximum| usize::try_from(maximum).ok()).unwrap_or(1);
    }

    pub(super) fn hard_affinity(&mut self) {
        self.affinity("cpus", "b_info/vcpu_hard_affinity", false);
    }

    pub(super) fn soft_affinity(&mut self) {
        self.affinity("cpus_soft", "b_info/vcpu_soft_affinity", true);
    }

    /// One string is for all vCPUs; a list has an entry for each, and those beyond the list go where they like. What is said
    /// of each one, or of what they prefer, replaces libxl's own placement.
    fn affinity(&mut self, key: &'static str, path: &str, soft: bool) {
        let is_list = self.is_list(key);
        let specs = if is_list {
            self.list(key).unwrap_or_default()
        } else {
            self.text(key).map_or(Vec::new(), |spec| vec![spec; self.vcpus_max])
        };
        if !self.is_set(key) {
            return;
        }
        let topology = match self.host.topology() {
            Ok(topology) => topology,
            Err(reason) => return self.problem(key, reason),
        };
        let mut maps = Vec::new();
        for spec in specs.iter().take(self.vcpus_max) {
            match cpu_map(spec, &topology) {
                Ok(map) => maps.push(map),
                Err(reason) => return self.problem(key, reason),
            }
        }
        if specs.iter().take(self.vcpus_max).any(|spec| names_more(spec, &topology)) {
            self.warn(format!("names CPUs that this host has not: it has {}", topology.cpus_max));
        }
        self.put_list(path, Some(maps.into_iter().map(Value::from_iter).collect()));
        if is_list || soft {
            self.put("b_info/numa_placement", "False");
        }
    }

    /// How missed ticks are given to the domain.
    pub(super) fn timer_mode(&mut self) {
        if self.domain_type == DomainType::Pv && self.is_set("timer_mode") {
            return self.problem("timer_mode", "is not for PV domains");
        }
        self.word_or_number("timer_mode", "b_info/timer_mode", &words::TIMER_MODES, true);
    }

    /// Seconds, before UTC or after it; libxl keeps what is below zero as what is left of 32 bits.
    pub(super) fn rtc_offset(&mut self) {
        let seconds = self.bounded("rtc_timeoffset", (i32::MIN.into(), u32::MAX.into()));
        self.put_some(
            "b_info/rtc_timeoffset",
            seconds.map(|seconds| seconds.rem_euclid(1 << 32)).filter(|kept| *kept != 0),
        );
    }

    /// A string that begins with `host` has libxl's syntax, a list has xend's.
    pub(super) fn cpuid(&mut self) {
        let mut policy = Cpuid::new();
        if self.is_list("cpuid") {
            for registers in self.list("cpuid").unwrap_or_default() {
                if let Err(reason) = policy.registers(&registers) {
                    self.problem("cpuid", format!("{registers:?} {reason}"));
                }
            }
        } else {
            let flags = self.text("cpuid").unwrap_or_default();
            let mut flags = flags.split(',').filter(|flag| !flag.is_empty());
            match flags.next() {
                None => return,
                Some("host") => {}
                Some(first) => return self.problem("cpuid", format!("begins with {first:?}: the first word is host")),
            }
            for flag in flags {
                if let Err(reason) = policy.flag(flag) {
                    self.problem("cpuid", format!("{flag:?} {reason}"));
                }
            }
        }
        self.put_some("b_info/cpuid", policy.json());
    }
}

/// The CPUs of `0-3,^2,node:1`, from left to right. libxl's maps have whole bytes: CPUs past the last byte cannot be in one.
pub(super) fn cpu_map(spec: &str, topology: &Topology) -> Result<BTreeSet<usize>, String> {
    let width = topology.cpus_max.next_multiple_of(8);
    let mut map = BTreeSet::new();
    for part in spec.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (excluded, rest) = part.strip_prefix('^').map_or((false, part), |rest| (true, rest));
        let of_nodes = rest.strip_prefix("node:").or_else(|| rest.strip_prefix("nodes:"));
        let cpus: Vec<usize> = match of_nodes.unwrap_or(rest) {
            "all" if excluded => return Err(format!("{part:?} excludes all CPUs")),
            "all" => (0..width).collect(),
            numbers => {
                let range = range(numbers).ok_or_else(|| format!("{part:?} is no range of CPUs or nodes"))?;
                match of_nodes {
                    Some(_) => topology
                        .nodes
                        .iter()
                        .enumerate()
                        .filter(|(node, _)| range.contains(node))
                        .flat_map(|(_, cpus)| cpus)
                        .copied()
                        .collect(),
                    None => (0..width).filter(|cpu| range.contains(cpu)).collect(),
                }
            }
        };
        if excluded {
            map.retain(|cpu| !cpus.contains(cpu));
        } else {
            map.extend(cpus);
        }
    }
    if map.is_empty() {
        Err(format!("{spec:?} names no CPU of this host, which has {}", topology.cpus_max))
    } else {
        Ok(map)
    }
}

/// Whether a specification names CPUs that the host has not.
fn names_more(spec: &str, topology: &Topology) -> bool {
    spec.split(',').filter_map(|part| range(part.trim())).any(|range| *range.end() >= topology.cpus_max)
}

/// `3` or `1-3`, in decimal.
pub(super) fn range(text: &str) -> Option<RangeInclusive<usize>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_taken_from_left_to_right() {
        let topology = Topology { cpus_max: 4, cpus_online: 4, nodes: vec![vec![0, 2], vec![1, 3]] };
        let rows: [(&str, &[usize]); 7] = [
            ("0-3,^1", &[0, 2, 3]),
            ("^1,0-3", &[0, 1, 2, 3]),
            ("node:1", &[1, 3]),
            ("nodes:0-1,^node:0,7", &[1, 3, 7]),
            ("all,^node:1", &[0, 2, 4, 5, 6, 7]),
            ("nodes:all", &[0, 1, 2, 3, 4, 5, 6, 7]),
            ("3, 99", &[3]),
        ];
        for (spec, expected) in rows {
            assert_eq!(cpu_map(spec, &topology).map(Vec::from_iter), Ok(expected.to_vec()), "{spec}");
        }
        for spec in ["", "3-1", "some", "^all", "1-", "8", "node:5"] {
            assert!(cpu_map(spec, &topology).is_err(), "{spec}");
        }
    }
}
