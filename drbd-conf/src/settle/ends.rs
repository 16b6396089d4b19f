//! The ends of connections: those that are written, those of a mesh, and the one connection of a resource with two hosts.

use super::Settler;
use crate::model::{Connection, End, Host, HostKind, Mesh, Path, PeerDevice, Resource};
use crate::options::Options;
use crate::place::{Place, shown};
use crate::volume::same_host;

/// What a connection is counted as.
const CONNECTION_PARTS: usize = 8;

impl Settler<'_> {
    pub(crate) fn join_hosts(&mut self, resource: &mut Resource) {
        for path in resource.connections.iter().flat_map(|connection| &connection.paths) {
            if path.ends.len() != 2 {
                let what = if path.implicit { "a connection needs two hosts" } else { "a path needs two hosts" };
                self.mistakes.add(&path.place, what);
            }
        }
        let written = !resource.connections.is_empty() || !resource.meshes.is_empty();
        let numbered = resource.hosts.iter().any(|host| host.node_id.is_some());
        resource.of_nine = written || numbered || resource.template.is_some();
        for mesh in std::mem::take(&mut resource.meshes) {
            self.weave(resource, &mesh);
        }
        if !written {
            self.join_two(resource);
        }
        let hosts = &resource.hosts;
        for end in
            resource.connections.iter_mut().flat_map(|connection| &mut connection.paths).flat_map(|path| &mut path.ends)
        {
            self.find_host(end, hosts);
        }
        self.number(resource, written);
    }

    /// Each host of a mesh with each later one.
    fn weave(&mut self, resource: &mut Resource, mesh: &Mesh) {
        let mut hosts = Vec::new();
        for name in &mesh.hosts {
            match resource.hosts.iter().position(|host| is_called(host, name)) {
                Some(host) => hosts.push(host),
                None => self.mistakes.add(&mesh.place, format!("there is no host {}", shown(name))),
            }
        }
        for (at, one) in hosts.iter().enumerate() {
            for other in hosts[at + 1..].iter().filter(|other| *other != one) {
                if !self.afford(CONNECTION_PARTS, &mesh.place) {
                    return;
                }
                let ends = [*one, *other].map(|host| self.end_of(host, &resource.hosts[host], &mesh.place));
                if let [Some(one), Some(other)] = ends {
                    let mut net = Options::default();
                    self.of_nine = true;
                    self.inherit_options(&mesh.net, &mut net, &[crate::known::Context::Net], &resource.place);
                    resource.connections.push(implicit(&resource.place, vec![one, other], net));
                }
            }
        }
    }

    fn end_of(&mut self, index: usize, host: &Host, place: &Place) -> Option<End> {
        let name = host.names.first().cloned().unwrap_or_default();
        if host.address.is_none() {
            self.mistakes.add(place, format!("host {} has no address", shown(&name)));
            return None;
        }
        Some(End { proxy: host.proxy.clone(), ..end(index, name, host) })
    }

    /// Two hosts are connected where nothing is written about connections.
    fn join_two(&mut self, resource: &mut Resource) {
        let [one, other] = resource.hosts.as_slice() else {
            if resource.hosts.len() > 2 {
                let what = "with more than two hosts, connections must be written: connection, or connection-mesh";
                self.remarks.add(&resource.place, what);
            }
            return;
        };
        let mut ends = Vec::new();
        for (index, host) in [one, other].into_iter().enumerate() {
            match &host.address {
                Some(_) => {
                    let name = match host.kind {
                        HostKind::Stacked(_) => host.names.join("_"),
                        _ => host.names.first().cloned().unwrap_or_default(),
                    };
                    ends.push(End { proxy: host.proxy.clone(), ..end(index, name, host) });
                }
                None => self.mistakes.add(&host.place, "a host has no address"),
            }
        }
        if ends.len() == 2 {
            resource.connections.push(implicit(&resource.place, ends, Options::default()));
        }
    }

    /// Which host an end is, and where that listens.
    fn find_host(&mut self, end: &mut End, hosts: &[Host]) {
        if end.host.is_none() {
            end.host = match &end.address {
                Some(wanted) if end.by_address => hosts.iter().position(|host| host.address.as_ref() == Some(wanted)),
                _ => hosts.iter().position(|host| is_called(host, &end.name)),
            };
        }
        let Some(host) = end.host.and_then(|host| hosts.get(host)) else {
            let wanted = end.address.as_ref().filter(|_| end.by_address).map(ToString::to_string);
            let what = format!("no host of the resource is {}", shown(&wanted.unwrap_or_else(|| end.name.clone())));
            return self.mistakes.add(&end.place, what);
        };
        if end.by_address {
            end.name = host.names.join("_");
        }
        if end.address.is_none() {
            end.address = host.address.clone();
            if let (Some(address), Some(port)) = (&mut end.address, end.port) {
                address.port = port;
            }
        }
        if end.address.is_none() {
            self.mistakes.add(&end.place, format!("host {} has no address", shown(&end.name)));
        }
    }

    /// Each host has a number in DRBD 9. 8.x has none: of two hosts they are derived, the same on both (`_set_host_info_in_…`).
    fn number(&mut self, resource: &mut Resource, written: bool) {
        let numbered = resource.hosts.iter().any(|host| host.node_id.is_some());
        if !written && !numbered {
            let ids = resource.connections.first().and_then(|connection| derived_ids(connection.paths.first()?));
            if let Some(ids) = ids {
                resource.hosts.iter_mut().zip(ids).for_each(|(host, id)| host.node_id = Some(id));
                return;
            }
            self.remarks.add(&resource.place, "DRBD 9 needs a node-id for each host");
            return;
        }
        for host in resource.hosts.iter().filter(|host| host.node_id.is_none()) {
            self.mistakes.add(&host.place, format!("host {} has no node-id", shown(&host.names.join(" "))));
        }
    }

    /// What is between volumes and peers, for each volume and each connection.
    pub(crate) fn complete_peer_devices(&mut self, resource: &mut Resource) {
        let hosts = &resource.hosts;
        for connection in &mut resource.connections {
            let Some(path) = connection.paths.first() else { continue };
            let ends: Vec<&Host> = path.ends.iter().filter_map(|end| hosts.get(end.host?)).collect();
            for device in &connection.peer_devices {
                for host in ends.iter().filter(|host| host.volume(device.number).is_none()) {
                    let what = format!("host {} has no volume {}", shown(&host.names.join(" ")), device.number);
                    self.mistakes.add(&device.place, what);
                }
            }
            for volume in ends.first().into_iter().flat_map(|host| &host.volumes) {
                let there = connection.peer_devices.iter().any(|device| device.number == volume.number);
                if !there && self.afford(1, &connection.place) {
                    let (number, place, options) = (volume.number, connection.place.clone(), Options::default());
                    connection.peer_devices.push(PeerDevice { number, place, implicit: true, options });
                }
            }
        }
    }
}

fn is_called(host: &Host, name: &str) -> bool {
    host.names.iter().any(|known| same_host(known, name))
}

fn end(index: usize, name: String, host: &Host) -> End {
    End {
        host: Some(index),
        name,
        address: host.address.clone(),
        proxy: None,
        place: host.place.clone(),
        port: None,
        by_address: false,
    }
}

fn implicit(place: &Place, ends: Vec<End>, net: Options) -> Connection {
    let path = Path { place: place.clone(), implicit: true, ends };
    let (peer_device, peer_devices) = (Options::default(), Vec::new());
    Connection { place: place.clone(), implicit: true, paths: vec![path], net, peer_device, peer_devices }
}

/// The numbers of two hosts without: the one whose address has the greater checksum is 0. Where the addresses are the same, the outer
/// ones of the proxies are compared; `None` where nothing tells the two apart.
fn derived_ids(path: &Path) -> Option<[u32; 2]> {
    let [one, other] = path.ends.as_slice() else { return None };
    let by = |address: fn(&End) -> Option<&str>| Some([checksum(address(one)?), checksum(address(other)?)]);
    let own = by(|end| end.address.as_ref().map(|address| address.ip.as_str()));
    let outer = by(|end| Some(end.proxy.as_ref()?.outside.as_ref()?.ip.as_str()));
    [own, outer].into_iter().flatten().find_map(|[one, other]| match one.cmp(&other) {
        std::cmp::Ordering::Greater => Some([0, 1]),
        std::cmp::Ordering::Less => Some([1, 0]),
        std::cmp::Ordering::Equal => None,
    })
}

/// CRC-32C of an address, begun with a number of drbd-utils' and compared as a signed one.
fn checksum(address: &str) -> i32 {
    let mut crc = 0x1a65_6f21_u32;
    for byte in address.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    crc.cast_signed()
}
