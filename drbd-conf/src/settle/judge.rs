//! What is wrong between resources, or between an option and the hosts.

use std::collections::HashMap;
use std::mem;
use std::net::IpAddr;

use super::Settler;
use crate::model::{Address, Family, Host, Resource};
use crate::place::{Place, shown};
use crate::volume::same_host;

/// An address however it is written.
type Key = (Family, Result<IpAddr, String>, u16);

impl Settler<'_> {
    /// An address and its port are one resource's only, and one end's only of a connection. Loopback is everybody's.
    pub(crate) fn find_conflicts(&mut self) {
        let resources = mem::take(&mut self.config.resources);
        let mut taken: HashMap<Key, (&str, Place)> = HashMap::new();
        for resource in resources.iter().filter(|resource| !self.broken.contains(&resource.name)) {
            for path in resource.connections.iter().flat_map(|connection| &connection.paths) {
                let both = [0, 1].map(|end| path.ends.get(end)?.address.as_ref());
                if let [Some(one), Some(other)] = both
                    && one.same(other)
                    && !one.is_loopback()
                {
                    self.mistakes.add(&path.place, format!("both ends are {one}"));
                }
                for end in &path.ends {
                    let Some(address) = end.address.as_ref().filter(|address| !address.is_loopback()) else { continue };
                    let (name, first) = taken.entry(key(address)).or_insert((&resource.name, end.place.clone()));
                    if *name != resource.name {
                        let what = format!("{address} is resource {}'s already, at {first}", shown(name));
                        self.mistakes.add(&end.place, what);
                    }
                }
            }
        }
        drop(taken);
        self.config.resources = resources;
    }

    pub(crate) fn judge(&mut self) {
        let resources = mem::take(&mut self.config.resources);
        let broken = self.broken.clone();
        for resource in resources.iter().filter(|resource| !broken.contains(&resource.name)) {
            self.judge_order(resource, &resources);
            if resource.hosts.is_empty() {
                self.mistakes.add(&resource.place, format!("resource {} has no hosts", shown(&resource.name)));
            }
            if resource.me.is_some() {
                self.judge_discard(resource);
                self.judge_proxies(resource);
            }
        }
        self.config.resources = resources;
    }

    /// `resync-after` names a resource or one of its volumes. drbdadm forgives it in scripts: a resource may have gone since.
    fn judge_order(&mut self, resource: &Resource, all: &[Resource]) {
        for setting in resource.sections.disk.iter().filter(|setting| setting.name == "resync-after") {
            let name = setting.value.split('/').next().unwrap_or_default();
            let known = all.iter().any(|other| other.name == name && other.me.is_some());
            if !known && !self.broken.contains(name) {
                let what = format!("resync-after names {}, which is no resource of this host", shown(&setting.value));
                self.remarks.add(&setting.place, what);
            }
        }
    }

    fn judge_discard(&mut self, resource: &Resource) {
        let Some(setting) = resource.sections.net.first("after-sb-0pri") else { return };
        let Some(name) = setting.value.strip_prefix("discard-node-") else { return };
        let known = |host: &Host| host.names.iter().any(|known| same_host(known, name));
        if !resource.hosts.iter().any(known) {
            self.mistakes.add(&setting.place, format!("there is no host {}", shown(name)));
        }
    }

    /// Where one end has a proxy, the other has one, too.
    fn judge_proxies(&mut self, resource: &Resource) {
        let some = resource.hosts.iter().filter(|host| host.proxy.is_some()).count();
        if some != 0 && some != resource.hosts.len() {
            self.mistakes.add(&resource.place, "some hosts have a proxy, and others have none");
        }
        for path in resource.connections.iter().flat_map(|connection| &connection.paths) {
            if path.ends.iter().filter(|end| end.proxy.is_some()).count() == 1 {
                self.mistakes.add(&path.place, "one end has a proxy, and the other has none");
            }
        }
    }
}

fn key(address: &Address) -> Key {
    (address.family, address.ip.parse().map_err(|_| address.ip.clone()), address.port)
}
