//! Volumes that stand outside of hosts are each host's, and each host has the same ones.

use super::Settler;
use crate::model::{Host, HostKind, MetaDisk, Resource, Volume};
use crate::place::shown;
use crate::volume::devices;

impl Settler<'_> {
    pub(crate) fn share_volumes(&mut self, resource: &mut Resource) {
        let Resource { hosts, volumes, .. } = resource;
        for host in hosts.iter_mut() {
            volumes.iter().for_each(|shared| self.share(shared, host));
            host.volumes.iter().for_each(|volume| self.claim_meta_disk(volume, &host.names));
            if !matches!(host.kind, HostKind::Stacked(_)) {
                self.complete(host);
            }
        }
        self.compare(resource);
        let all = resource.hosts.iter().flat_map(|host| &host.volumes);
        let (implicit, numbered) = all.fold((false, false), |(implicit, numbered), volume| {
            (implicit || volume.implicit, numbered || volume.number != 0)
        });
        if implicit && numbered {
            self.mistakes.add(&resource.place, "it has volumes with numbers, and one without");
        }
    }

    /// What a host does not say of a volume is as the resource says.
    fn share(&mut self, shared: &Volume, host: &mut Host) {
        let found = host.volumes.binary_search_by_key(&shared.number, |volume| volume.number);
        let at = found.unwrap_or_else(|at| {
            let fresh = Volume { implicit: shared.implicit, ..Volume::new(shared.number, shared.place.clone()) };
            host.volumes.insert(at, fresh);
            at
        });
        if !self.afford(1, &shared.place) {
            return;
        }
        let volume = &mut host.volumes[at];
        if volume.disk.is_none() && shared.disk.is_some() {
            volume.disk.clone_from(&shared.disk);
            let disk = volume.disk.clone().unwrap_or_default();
            for name in host.names.iter().filter(|_| disk != "none") {
                self.claim(
                    &format!("Disk {} of host {}", shown(&disk), shown(name)),
                    format!("disk:{name}:{disk}"),
                    &volume.place.clone(),
                );
            }
        }
        if volume.device.is_none() {
            volume.device.clone_from(&shared.device);
        }
        if volume.minor.is_none() && shared.minor.is_some() {
            volume.minor = shared.minor;
            for (what, key) in devices(volume, &host.names) {
                self.claim(&what, key, &volume.place.clone());
            }
        }
        if volume.meta_disk.is_none() {
            volume.meta_disk.clone_from(&shared.meta_disk);
        }
    }

    /// Metadata on a device of their own belong to one volume.
    fn claim_meta_disk(&mut self, volume: &Volume, names: &[String]) {
        let of = match &volume.meta_disk {
            Some(MetaDisk::Flexible(path)) => path.clone(),
            Some(MetaDisk::Indexed(path, index)) => format!("{path} [{index}]"),
            Some(MetaDisk::Internal) | None => return,
        };
        for name in names {
            let what = format!("Meta-disk {} of host {}", shown(&of), shown(name));
            self.claim(&what, format!("meta-disk:{name}:{of}"), &volume.place);
        }
    }

    fn complete(&mut self, host: &mut Host) {
        for volume in &mut host.volumes {
            if volume.device.is_none() && volume.minor.is_none() {
                let what = format!("volume {} of host {} has no device", volume.number, shown(&host.names.join(" ")));
                self.mistakes.add(&host.place, what);
            }
            match (&volume.disk, &volume.meta_disk) {
                (Some(none), _) if none == "none" => (volume.disk, volume.meta_disk) = (None, None),
                (Some(_), None) => volume.meta_disk = Some(MetaDisk::Internal),
                (None, Some(_)) => {
                    let what = format!("volume {} of host {} has no disk", volume.number, shown(&host.names.join(" ")));
                    self.mistakes.add(&host.place, what);
                }
                _ => {}
            }
        }
    }

    /// All hosts have the same volumes as the first.
    fn compare(&mut self, resource: &Resource) {
        let Some((first, others)) = resource.hosts.split_first() else { return };
        for other in others {
            self.missing(first, other);
            self.missing(other, first);
            for (one, same) in first.volumes.iter().filter_map(|volume| Some((volume, other.volume(volume.number)?))) {
                if one.implicit != same.implicit {
                    self.mistakes.add(&same.place, "volume 0 has its number on one host only");
                }
            }
        }
    }

    pub(crate) fn missing(&mut self, has: &Host, lacks: &Host) {
        for volume in has.volumes.iter().filter(|volume| lacks.volume(volume.number).is_none()) {
            let what = format!("host {} has no volume {}", shown(&lacks.names.join(" ")), volume.number);
            self.mistakes.add(&lacks.place, what);
        }
    }
}
