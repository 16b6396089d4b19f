//! What the kernel has otherwise than the files.

use drbd_conf::{End, MetaDisk, Resource, Volume};
use drbd_nl::Dialect;

use super::{Now, NowConnection, NowVolume, Review};
use crate::drbd::options::{Difference, disk_differences, net_differences};

impl<'s> Review<'s> {
    pub(crate) fn compare(&mut self, status: &Now, dialect: Dialect) {
        let resource = self.resource;
        for (connection, mine, peer) in resource.my_connections() {
            match connection_to(status, resource, peer) {
                Some(now) => {
                    self.compare_addresses(now, mine, peer);
                    let found = net_differences(&connection.net, &now.net, self.seen.uname, dialect);
                    found
                        .iter()
                        .for_each(|difference| self.tell_difference(difference, &format!("with {}", peer.name)));
                }
                None => {
                    let found = format!("{} is not connected to {} ({})", resource.name, peer.name, connection.place);
                    self.warn("not-connected", found, format!("Type: drbdadm connect {}", resource.name));
                }
            }
        }
        for volume in resource.mine().into_iter().flat_map(|host| &host.volumes) {
            match status.volumes.iter().find(|now| now.number == volume.number) {
                Some(now) => self.compare_volume(volume, now, dialect),
                None => {
                    let found = format!(
                        "{}/{} is in the files ({}) and not in the kernel",
                        resource.name, volume.number, volume.place
                    );
                    self.warn("volume-down", found, format!("Type: drbdadm adjust {}", resource.name));
                }
            }
        }
    }

    fn tell_difference(&mut self, difference: &Difference<'_>, whose: &str) {
        let name = &self.resource.name;
        let Difference { name: option, setting, wanted, now } = difference;
        let said = match setting {
            Some(setting) => format!("{wanted} in the files ({})", setting.place),
            None => format!("not in the files, so {wanted}"),
        };
        let found = format!("{name} {whose}: {option} is {now} now and {said}");
        match (*option, now.as_str()) {
            // A migration with two Primaries under way sets it and takes it back.
            ("allow-two-primaries", "yes") if self.is_migrating() => {}
            ("allow-two-primaries", "yes") => {
                self.warn("two-primaries-now", found, format!("Nothing needs it now: type drbdadm adjust {name}"));
            }
            _ => self.warn("setting-differs", found, format!("Type drbdadm adjust {name}, or correct the files")),
        }
    }

    /// Only internet addresses are compared: the others have no form that both sides share.
    fn compare_addresses(&mut self, now: &NowConnection, mine: &End, peer: &End) {
        for (whose, end, now) in [("own", mine, now.mine), ("peer's", peer, now.peers)] {
            let wanted = end.address.as_ref().filter(|_| end.proxy.is_none()).and_then(drbd_conf::Address::socket);
            if let (Some(wanted), Some(now)) = (wanted, now)
                && wanted != now
            {
                let found = format!(
                    "{}: its {whose} address is {now} now and {wanted} in the files ({})",
                    self.resource.name, end.place
                );
                self.warn(
                    "address-differs",
                    found,
                    format!("Type drbdadm adjust {}, or correct the files", self.resource.name),
                );
            }
        }
    }

    fn compare_volume(&mut self, volume: &'s Volume, now: &NowVolume, dialect: Dialect) {
        let name = format!("{}/{}", self.resource.name, volume.number);
        let remedy = format!("Type drbdadm adjust {}, or correct the files", self.resource.name);
        if volume.minor.is_some_and(|minor| minor != now.minor) {
            let found = format!(
                "{name} is minor {} now and {} in the files ({})",
                now.minor,
                volume.minor.unwrap_or_default(),
                volume.place
            );
            self.warn("minor-differs", found, remedy.clone());
        }
        match (&volume.disk, &now.disk) {
            (Some(disk), None) => {
                let found = format!("{name} has no disk now; the files have {disk} ({})", volume.place);
                self.warn("volume-detached", found, format!("Type: drbdadm attach {name}"));
            }
            (disk, Some(now)) if disk.as_ref() != Some(now) => {
                let wanted = disk.as_deref().unwrap_or("none");
                let found = format!("{name} lies on {now} now, and on {wanted} in the files ({})", volume.place);
                self.warn("disk-differs", found, remedy);
            }
            (Some(_), Some(_)) => self.compare_disk(volume, now, dialect),
            _ => {}
        }
    }

    fn compare_disk(&mut self, volume: &'s Volume, now: &NowVolume, dialect: Dialect) {
        let whose = format!("volume {}", volume.number);
        if let (Some(MetaDisk::Flexible(path) | MetaDisk::Indexed(path, _)), Some(has)) =
            (&volume.meta_disk, &now.conf.meta_dev)
            && path != has
        {
            let found = format!(
                "{} {whose}: its metadata are on {has} now and on {path} in the files ({})",
                self.resource.name, volume.place
            );
            self.warn("disk-differs", found, "Correct the files: the kernel has read the metadata where they are");
        }
        let (disk, resync) = (&volume.disk_options, &volume.peer_device_options);
        let found = disk_differences(disk, resync, &now.conf, self.seen.uname, dialect);
        found.iter().for_each(|difference| self.tell_difference(difference, &whose));
    }
}

/// The kernel's connection to that peer: by its node id on DRBD 9; 8.4 has one connection, and no ids.
fn connection_to<'k>(status: &'k Now, resource: &Resource, peer: &End) -> Option<&'k NowConnection> {
    let id = peer.host.and_then(|host| resource.hosts.get(host)).and_then(|host| host.node_id);
    status.connections.iter().find(|now| now.peer_node_id.is_none() || now.peer_node_id == id)
}
