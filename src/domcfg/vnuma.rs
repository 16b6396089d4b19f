//! Virtual NUMA nodes: a list of lists, one inner list a node (xl.cfg, `vnuma`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::build::Builder;
use super::keys::MEMORY_MIB_MAX;
use super::processors::range;
use crate::xen::topology::Topology;

/// What all nodes have together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nodes {
    pub(super) vcpus: i64,
    pub(super) memory_mib: i64,
}

/// One node on its way.
#[derive(Debug, Default)]
struct Node {
    on_node: Option<usize>,
    memory_mib: Option<i64>,
    vcpus: BTreeSet<usize>,
    distances: Vec<u32>,
}

/// The highest number of a vCPU that is taken for one.
const VCPU_MAX: usize = 8191;

impl Builder {
    /// Each node has its size and vCPUs. Their sums are the domain's maximum, or have to be what it is said to be.
    pub(super) fn vnuma(&mut self) {
        let lists = self.config.lists("vnuma");
        let lists = self.value("vnuma", lists).unwrap_or_default();
        if lists.is_empty() {
            return;
        }
        let topology = match self.host.topology() {
            Ok(topology) => topology,
            Err(reason) => return self.problem("vnuma", reason),
        };
        let mut nodes = Vec::new();
        for (number, options) in lists.iter().enumerate() {
            match Node::parse(options, lists.len(), &topology) {
                Ok(node) => nodes.push(node),
                Err(reason) => self.problem("vnuma", format!("node {number}: {reason}")),
            }
        }
        if nodes.len() == lists.len() {
            self.lay_out(&nodes, &topology);
        }
    }

    fn lay_out(&mut self, nodes: &[Node], topology: &Topology) {
        let vcpus: Vec<usize> = nodes.iter().flat_map(|node| &node.vcpus).copied().collect();
        if BTreeSet::from_iter(&vcpus) != BTreeSet::from_iter(&(0..vcpus.len()).collect::<Vec<_>>()) {
            return self.problem("vnuma", "does not have each vCPU, counted from 0, on exactly one node");
        }
        if !self.is_set("maxvcpus") && vcpus.len() > topology.cpus_online {
            let online = topology.cpus_online;
            let reason = format!(
                "has {} vCPUs, more than this host's {online} CPUs: set maxvcpus if that is meant",
                vcpus.len()
            );
            return self.problem("vnuma", reason);
        }
        let memory_mib = nodes.iter().filter_map(|node| node.memory_mib).sum();
        self.nodes = Some(Nodes { vcpus: i64::try_from(vcpus.len()).unwrap_or(i64::MAX), memory_mib });
        if nodes.iter().any(|node| node.on_node.is_some()) {
            self.put("b_info/numa_placement", "False");
        }
        self.put("b_info/vnuma_nodes", nodes.iter().map(|node| node.json(nodes.len())).collect::<Vec<_>>());
    }
}

impl Node {
    fn parse(options: &[String], count: usize, topology: &Topology) -> Result<Self, String> {
        let mut node = Self::default();
        for option in options {
            let (key, value) = option.split_once('=').ok_or_else(|| format!("{option:?} is not KEY=VALUE"))?;
            node.set(key.trim(), value.trim(), option)?;
        }
        if let Some(number) = node.on_node.filter(|number| *number >= topology.nodes.len()) {
            return Err(format!("this host has no node {number}"));
        }
        if node.distances.len() > count {
            return Err(format!("it has {} distances, and there are only {count} nodes", node.distances.len()));
        }
        if node.memory_mib.is_none() || node.vcpus.is_empty() {
            return Err("size and vcpus are needed".to_owned());
        }
        Ok(node)
    }

    fn set(&mut self, key: &str, value: &str, option: &str) -> Result<(), String> {
        let wrong = || format!("{option:?} makes no sense");
        let parts = || value.split(',').map(str::trim).filter(|part| !part.is_empty());
        match key {
            "pnode" => self.on_node = Some(value.parse().map_err(|_| wrong())?),
            "size" => {
                self.memory_mib =
                    Some(value.parse().ok().filter(|mib| (1..=MEMORY_MIB_MAX).contains(mib)).ok_or_else(wrong)?)
            }
            "vcpus" => {
                for part in parts() {
                    let range = range(part).filter(|range| *range.end() <= VCPU_MAX).ok_or_else(wrong)?;
                    self.vcpus.extend(range);
                }
            }
            "vdistances" => {
                self.distances = parts().map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
            }
            _ => return Err(format!("{key} is none of pnode, size, vcpus, vdistances")),
        }
        Ok(())
    }

    /// Distances that are not given are 0, and the first node of the host is not written.
    fn json(&self, count: usize) -> Value {
        let distances = (0..count).map(|number| self.distances.get(number).copied().unwrap_or(0)).collect::<Vec<_>>();
        let mut json = json!({
            "memkb": self.memory_mib.unwrap_or(0) * 1024,
            "distances": distances,
            "vcpus": Vec::from_iter(&self.vcpus),
        });
        if let Some(number) = self.on_node.filter(|number| *number != 0) {
            json["pnode"] = number.into();
        }
        json
    }
}
