use std::cell::RefCell;
use std::collections::BTreeMap;

use super::*;

/// Xenstore in memory.
#[derive(Default)]
pub(super) struct Memory(RefCell<BTreeMap<String, String>>);

impl Memory {
    pub(super) fn set(&self, path: &str, value: &str) {
        self.0.borrow_mut().insert(path.to_owned(), value.to_owned());
    }

    pub(super) fn get(&self, path: &str) -> Option<String> {
        self.0.borrow().get(path).cloned()
    }
}

impl Nodes for Memory {
    fn read(&self, path: &str) -> Result<Option<String>, xenstore::Error> {
        Ok(self.get(path))
    }

    fn write(&self, path: &str, value: &str) -> Result<(), xenstore::Error> {
        self.set(path, value);
        Ok(())
    }

    fn rm(&self, path: &str) -> Result<(), xenstore::Error> {
        let below = format!("{path}/");
        self.0.borrow_mut().retain(|node, _| node != path && !node.starts_with(&below));
        Ok(())
    }

    fn directory(&self, path: &str) -> Result<Vec<String>, xenstore::Error> {
        let below = format!("{path}/");
        let nodes = self.0.borrow();
        let children = nodes.keys().filter_map(|node| node.strip_prefix(&below)?.split('/').next());
        let mut children: Vec<String> = children.map(str::to_owned).collect();
        children.dedup();
        Ok(children)
    }
}

#[test]
fn a_backend_s_path_names_domain_and_device() {
    let nodes = Memory::default();
    let relative = Backend::new(&nodes, "backend/vbd/3/51712").unwrap();
    assert_eq!((relative.domid, relative.devid), (DomId(3), 51712));
    let absolute = Backend::new(&nodes, "/local/domain/0/backend/vif/12/0").unwrap();
    assert_eq!((absolute.domid, absolute.devid), (DomId(12), 0));
    assert!(Backend::new(&nodes, "backend/vbd").is_err());
    assert!(Backend::new(&nodes, "").is_err());
}

#[test]
fn a_failure_stands_where_libxl_reads_it() {
    let nodes = Memory::default();
    let backend = Backend::new(&nodes, "backend/vbd/3/51712").unwrap();
    backend.report("r0/0 is Primary on node2").unwrap();
    assert_eq!(nodes.get("backend/vbd/3/51712/hotplug-error").unwrap(), "r0/0 is Primary on node2");
    assert_eq!(nodes.get("backend/vbd/3/51712/hotplug-status").unwrap(), "error");
}
