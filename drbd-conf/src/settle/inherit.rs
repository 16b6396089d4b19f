//! Options that a section has from one further out (`expand_common`). What a section says itself stays. What it would have from two
//! places must be the same there, says DRBD 9's drbdadm; 8.4's takes the outer one in silence, so that a volume's `disk { }` beside the
//! hosts does not count where the resource or `common` has that option, too.

use super::Settler;
use crate::known::{Context, check_of};
use crate::model::{Host, Resource, Sections, Volume};
use crate::options::{Options, Setting};
use crate::place::Place;

const DISK: &[Context] = &[Context::Disk];
const PEER: &[Context] = &[Context::PeerDevice];
const NET: &[Context] = &[Context::Net];

impl Settler<'_> {
    pub(crate) fn inherit(&mut self, resource: &mut Resource) {
        let place = resource.place.clone();
        self.of_nine = resource.of_nine;
        resource.hosts.iter_mut().flat_map(|host| &mut host.volumes).for_each(name_device);
        let (template, common) = (resource.inherits.take(), self.config.common.take());
        if let Some(from) = template.as_deref().or(common.as_ref()) {
            self.inherit_sections(from, &mut resource.sections, &place);
        }
        self.config.common = common;
        self.inherit_volumes(resource, &place);
        for connection in &mut resource.connections {
            match resource.of_nine {
                true => self.inherit_options(&resource.sections.net, &mut connection.net, NET, &place),
                false => connection.net = self.whole(&resource.sections.net, &place),
            }
            for end in connection.paths.iter_mut().flat_map(|path| &mut path.ends) {
                if let Some(proxy) = &mut end.proxy {
                    self.inherit_options(&resource.sections.proxy, &mut proxy.options, &[Context::Proxy], &place);
                    self.inherit_options(&resource.sections.plugins, &mut proxy.plugins, &[], &place);
                }
            }
        }
        self.inherit_peer_devices(resource, &place);
    }

    fn inherit_sections(&mut self, from: &Sections, into: &mut Sections, place: &Place) {
        self.inherit_options(&from.net, &mut into.net, NET, place);
        self.inherit_options(&from.disk, &mut into.disk, DISK, place);
        self.inherit_options(&from.peer_device, &mut into.peer_device, PEER, place);
        self.inherit_options(&from.startup, &mut into.startup, &[Context::Startup], place);
        self.inherit_options(&from.proxy, &mut into.proxy, &[Context::Proxy], place);
        self.inherit_options(&from.handlers, &mut into.handlers, &[Context::Handlers], place);
        self.inherit_options(&from.options, &mut into.options, &[Context::Resource], place);
        self.inherit_options(&from.plugins, &mut into.plugins, &[], place);
    }

    /// The resource's options first, then those of a volume of all hosts.
    fn inherit_volumes(&mut self, resource: &mut Resource, place: &Place) {
        let Resource { hosts, volumes, sections, .. } = resource;
        for volume in hosts.iter_mut().flat_map(|host| &mut host.volumes) {
            self.inherit_options(&sections.disk, &mut volume.disk_options, DISK, place);
            self.inherit_options(&sections.peer_device, &mut volume.peer_device_options, PEER, place);
        }
        for host in hosts.iter_mut() {
            for shared in volumes.iter() {
                let own = host.volumes.binary_search_by_key(&shared.number, |volume| volume.number);
                let Some(volume) = own.ok().and_then(|at| host.volumes.get_mut(at)) else { continue };
                self.inherit_options(&shared.disk_options, &mut volume.disk_options, DISK, place);
                self.inherit_options(&shared.peer_device_options, &mut volume.peer_device_options, PEER, place);
            }
        }
    }

    /// The connection's options first, then those of the volume on both hosts.
    fn inherit_peer_devices(&mut self, resource: &mut Resource, place: &Place) {
        let hosts = &resource.hosts;
        for connection in &mut resource.connections {
            let Some(path) = connection.paths.first() else { continue };
            let ends: Vec<&Host> = path.ends.iter().filter_map(|end| hosts.get(end.host?)).collect();
            for device in &mut connection.peer_devices {
                self.inherit_options(&connection.peer_device, &mut device.options, PEER, place);
                for volume in ends.iter().filter_map(|host| host.volume(device.number)) {
                    self.inherit_options(&volume.peer_device_options, &mut device.options, PEER, place);
                }
            }
        }
    }

    /// What `into` does not have, `from` gives. Without a context nothing is compared: the lines of plugins have no values.
    pub(crate) fn inherit_options(&mut self, from: &Options, into: &mut Options, contexts: &[Context], place: &Place) {
        for setting in from.iter() {
            match into.first(&setting.name) {
                None if self.afford(1, place) => into.put_first(Setting { inherited: true, ..setting.clone() }),
                None => return,
                Some(there) if there.inherited && !contexts.is_empty() && !says_the_same(there, setting, contexts) => {
                    let what = format!(
                        "{} is inherited twice, {} from {} and {} from {}",
                        setting.name, there.value, there.place, setting.value, setting.place
                    );
                    match self.of_nine {
                        true => self.mistakes.add(place, what),
                        false => {
                            self.remarks.add(place, format!("{what}: 8.4 takes the first, DRBD 9's drbdadm neither"))
                        }
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// In 8.x a resource is its connection: all of the options are the same ones.
    fn whole(&mut self, from: &Options, place: &Place) -> Options {
        let mut whole = Options::default();
        for setting in from.iter() {
            if self.afford(1, place) {
                whole.push(Setting { inherited: true, ..setting.clone() });
            }
        }
        whole
    }
}

fn says_the_same(one: &Setting, other: &Setting, contexts: &[Context]) -> bool {
    match contexts.iter().find_map(|context| check_of(*context, &one.name)) {
        Some(check) => check.equal(&one.value, &other.value),
        None => one.value == other.value,
    }
}

fn name_device(volume: &mut Volume) {
    if let (None, Some(minor)) = (&volume.device, volume.minor) {
        volume.device = Some(format!("/dev/drbd{minor}"));
    }
}
