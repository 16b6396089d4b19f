//! Resources on top of others: their hosts are those below, and their disks the devices below.

use std::collections::HashMap;
use std::mem;

use super::Settler;
use crate::model::{Host, HostKind, MetaDisk, Resource, Volume};
use crate::place::shown;
use crate::volume::devices;

/// What a resource on top needs of the one below: the names of its hosts, and one host's volumes after the other's.
type Below = HashMap<String, (Vec<String>, Vec<Host>)>;

impl Settler<'_> {
    /// A host on top of a resource has the names of all hosts below.
    pub(crate) fn name_stacked(&mut self) {
        let below = self.below();
        self.each_stacked(|settler, host, lower| match below.get(lower) {
            Some((names, _)) => {
                host.names.clone_from(names);
                settler.claim_stacked(host);
            }
            None if settler.broken.contains(lower) => {}
            None => settler.mistakes.add(&host.place, format!("there is no resource {}", shown(lower))),
        });
    }

    fn claim_stacked(&mut self, host: &Host) {
        for volume in &host.volumes {
            for (what, key) in devices(volume, &host.names) {
                self.claim(&what, key, &volume.place);
            }
        }
        let Some(address) = host.address.as_ref().filter(|address| address.is_loopback()) else { return };
        for name in &host.names {
            let what = format!("Address {address} of host {}", shown(name));
            self.claim(&what, format!("address:{name}:{address}"), &host.place);
        }
    }

    /// A volume on top has the device below for its disk.
    pub(crate) fn lay_stacked(&mut self) {
        let below = self.below();
        self.each_stacked(|settler, host, lower| {
            let Some((_, hosts)) = below.get(lower) else { return };
            for lower in hosts {
                settler.missing(&without_options(host), lower);
                host.volumes.iter_mut().for_each(|volume| lay(volume, lower));
            }
        });
    }

    fn each_stacked(&mut self, mut step: impl FnMut(&mut Self, &mut Host, &str)) {
        let mut resources = mem::take(&mut self.config.resources);
        for host in resources.iter_mut().flat_map(|resource| &mut resource.hosts) {
            if let HostKind::Stacked(lower) = &host.kind {
                let lower = lower.clone();
                step(self, host, &lower);
            }
        }
        self.config.resources = resources;
    }

    /// The resources that something lies on.
    fn below(&self) -> Below {
        let hosts = self.config.resources.iter().flat_map(|resource| &resource.hosts);
        let lower = hosts.filter_map(|host| match &host.kind {
            HostKind::Stacked(lower) => self.config.resource(lower).filter(|_| !self.broken.contains(lower)),
            _ => None,
        });
        lower.map(|lower| (lower.name.clone(), hosts_of(lower))).collect()
    }
}

fn hosts_of(lower: &Resource) -> (Vec<String>, Vec<Host>) {
    let own: Vec<&Host> = lower.hosts.iter().filter(|host| !matches!(host.kind, HostKind::Stacked(_))).collect();
    let names = own.iter().flat_map(|host| host.names.clone()).collect();
    (names, own.into_iter().map(without_options).collect())
}

/// A host with what is asked of it here.
fn without_options(host: &Host) -> Host {
    let bare = |volume: &Volume| Volume {
        device: volume.device.clone(),
        minor: volume.minor,
        ..Volume::new(volume.number, volume.place.clone())
    };
    Host { volumes: host.volumes.iter().map(bare).collect(), ..host.clone() }
}

fn lay(volume: &mut Volume, lower: &Host) {
    let Some(below) = lower.volume(volume.number) else { return };
    volume.disk = below.device.clone().or_else(|| below.minor.map(|minor| format!("/dev/drbd{minor}")));
    volume.meta_disk.get_or_insert(MetaDisk::Internal);
}
