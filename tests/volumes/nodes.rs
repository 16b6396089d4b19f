//! Xenstore in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bascule::hotplug::Nodes;
use bascule::xen::xenstore::Error;

#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<BTreeMap<String, String>>);

impl Memory {
    /// A domain with a disk that libxl has just announced.
    pub(crate) fn with_disk(&self, domid: u32, name: &str, target: &str) -> String {
        let backend = format!("backend/vbd/{domid}/51712");
        self.set(&format!("/local/domain/{domid}/name"), name);
        self.set(&format!("{backend}/params"), target);
        self.set(&format!("{backend}/mode"), "w");
        backend
    }

    pub(crate) fn set(&self, path: &str, value: &str) {
        self.0.lock().unwrap().insert(path.to_owned(), value.to_owned());
    }

    pub(crate) fn get(&self, path: &str) -> Option<String> {
        self.0.lock().unwrap().get(path).cloned()
    }
}

impl Nodes for Memory {
    fn read(&self, path: &str) -> Result<Option<String>, Error> {
        Ok(self.get(path))
    }

    fn write(&self, path: &str, value: &str) -> Result<(), Error> {
        self.set(path, value);
        Ok(())
    }

    fn rm(&self, path: &str) -> Result<(), Error> {
        self.0.lock().unwrap().retain(|node, _| node != path);
        Ok(())
    }

    fn directory(&self, path: &str) -> Result<Vec<String>, Error> {
        let below = format!("{path}/");
        let nodes = self.0.lock().unwrap();
        let children = nodes.keys().filter_map(|node| node.strip_prefix(&below)?.split('/').next());
        let mut children: Vec<String> = children.map(str::to_owned).collect();
        children.dedup();
        Ok(children)
    }
}
