//! The CPUs of this host and how they are spread over its NUMA nodes.

use std::ffi::c_int;

use xen_sys as sys;

use super::context::Context;
use super::error::{Result, Subject};

/// What a domain's vCPUs can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// One more than the highest number of a CPU, those that are not online included.
    pub cpus_max: usize,
    /// CPUs that are online.
    pub cpus_online: usize,
    /// The CPUs of each node.
    pub nodes: Vec<Vec<usize>>,
}

impl Context {
    /// The host's CPUs and nodes.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    pub fn topology(&self) -> Result<Topology> {
        let max = self.count("libxl_get_max_cpus", |ctx| {
            // SAFETY: a live context (libxl_utils.h).
            unsafe { sys::libxl_get_max_cpus(ctx) }
        })?;
        let online = self.count("libxl_get_online_cpus", |ctx| {
            // SAFETY: as above.
            unsafe { sys::libxl_get_online_cpus(ctx) }
        })?;
        Ok(Topology { cpus_max: max, cpus_online: online, nodes: self.nodes()? })
    }

    /// A call that returns a number, or a negative error.
    fn count(&self, call: &'static str, function: impl FnOnce(*mut sys::libxl_ctx) -> c_int) -> Result<usize> {
        let number = self.handle.call(call, Subject::Host, function)?;
        Ok(usize::try_from(number).unwrap_or(0))
    }

    fn nodes(&self) -> Result<Vec<Vec<usize>>> {
        let mut count = 0;
        let list = self.handle.call_ptr("libxl_get_cpu_topology", Subject::Host, |ctx| {
            // SAFETY: `count` is ours to write; the list is ours to free (libxl.h, libxl_get_cpu_topology).
            unsafe { sys::libxl_get_cpu_topology(ctx, &raw mut count) }
        })?;
        // SAFETY: libxl filled `count` entries, valid until they are freed below.
        let cpus = unsafe { std::slice::from_raw_parts(list.as_ptr(), usize::try_from(count).unwrap_or(0)) };
        let nodes = by_node(cpus.iter().map(|cpu| cpu.node));
        // SAFETY: the list and its count as libxl gave them, freed once (libxl.h, libxl_cputopology_list_free).
        unsafe { sys::libxl_cputopology_list_free(list.as_ptr(), count) };
        Ok(nodes)
    }
}

/// From the node of each CPU to the CPUs of each node. A CPU that is not there has no node (`LIBXL_CPUTOPOLOGY_INVALID_ENTRY`).
fn by_node(node_of_cpu: impl Iterator<Item = u32>) -> Vec<Vec<usize>> {
    let mut nodes = Vec::new();
    for (cpu, node) in node_of_cpu.enumerate().filter(|(_, node)| *node != u32::MAX) {
        let node = node as usize;
        if nodes.len() <= node {
            nodes.resize(node + 1, Vec::new());
        }
        nodes[node].push(cpu);
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_its_cpus() {
        assert_eq!(by_node([0, 1, u32::MAX, 0, 1].into_iter()), [vec![0, 3], vec![1, 4]]);
        assert_eq!(by_node([].into_iter()), Vec::<Vec<usize>>::new());
    }
}
