//! The volume that a disk's target names, as DRBD shows it now.

use drbd_nl::{Dialect, Drbd, ResourceStatus, Role, Target, VolumeStatus};

use crate::dm::DeviceNumber;
use crate::ids::{Minor, VolumeId};

/// What a decision about attaching a volume needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) id: VolumeId,
    pub(super) minor: Minor,
    pub(super) sectors: u64,
    pub(super) is_primary: bool,
    pub(super) peers: Vec<PeerView>,
    /// The volumes whose role changes with this one's, itself included.
    pub(super) shares_role: Vec<(VolumeId, DeviceNumber)>,
}

/// One peer of the volume's resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerView {
    /// Its connection's name (9), else its address.
    pub(super) name: String,
    pub(super) is_primary: bool,
    pub(super) is_connected: bool,
    /// Connection and role in DRBD's words.
    pub(super) in_words: String,
}

/// A target that names no volume of this host.
#[derive(Debug, thiserror::Error)]
pub enum NotAVolume {
    /// DRBD has no such resource.
    #[error("DRBD resource {resource} is not up on this host")]
    NoResource {
        /// The resource.
        resource: String,
    },
    /// The resource has no such volume.
    #[error("DRBD resource {resource} has no volume {volume}; it has {has}")]
    NoVolume {
        /// The resource.
        resource: String,
        /// What was asked for.
        volume: String,
        /// The targets that would do.
        has: String,
    },
    /// The resource has several volumes and the target names none.
    #[error("DRBD resource {resource} has several volumes: name one of {choices}")]
    Ambiguous {
        /// The resource.
        resource: String,
        /// The targets that would do.
        choices: String,
    },
    /// DRBD cannot be asked.
    #[error("DRBD could not be asked about {resource}")]
    Drbd {
        /// The resource.
        resource: String,
        /// Why.
        #[source]
        source: drbd_nl::Error,
    },
}

impl Volume {
    /// The volume that `RES` or `RES/VOL` names (with xend's `drbd:` before it or not).
    pub(super) fn find(drbd: &mut Drbd, target: &str) -> Result<Volume, NotAVolume> {
        let (name, number) = split(target);
        let status = ask(drbd, name)?.ok_or_else(|| NotAVolume::NoResource { resource: name.to_owned() })?;
        let numbers: Vec<u32> = status.volumes.iter().map(|volume| volume.volume).collect();
        let chosen = choose(name, number, &numbers)?;
        let volume = status.volumes.iter().find(|volume| volume.volume == chosen);
        let view = volume.and_then(|volume| Volume::of(&status, volume, drbd.dialect()));
        view.ok_or_else(|| no_volume(name, target, &numbers))
    }

    /// The volume as it is now, or `None` when it is gone.
    pub(super) fn look_again(&self, drbd: &mut Drbd) -> Result<Option<Volume>, NotAVolume> {
        let dialect = drbd.dialect();
        let status = ask(drbd, &self.id.resource)?;
        Ok(status.and_then(|status| {
            let volume = status.volumes.iter().find(|volume| volume.minor == self.minor.0)?;
            Volume::of(&status, volume, dialect)
        }))
    }

    fn of(status: &ResourceStatus, volume: &VolumeStatus, dialect: Dialect) -> Option<Volume> {
        let id = |volume: &VolumeStatus| {
            let number = u16::try_from(volume.volume).ok()?;
            Some(VolumeId { resource: status.name.clone(), volume: number })
        };
        let shares_role = status.volumes.iter().filter(|other| dialect == Dialect::V9 || other.minor == volume.minor);
        Some(Volume {
            id: id(volume)?,
            minor: Minor(volume.minor),
            sectors: volume.size_sectors,
            is_primary: volume.role.unwrap_or(status.role) == Role::Primary,
            peers: status.connections.iter().map(PeerView::of).collect(),
            shares_role: shares_role.filter_map(|other| Some((id(other)?, device(other.minor)))).collect(),
        })
    }

    pub(super) fn target(&self) -> Target {
        Target { resource: self.id.resource.clone(), minor: self.minor.0 }
    }

    pub(super) fn device(&self) -> DeviceNumber {
        DeviceNumber::drbd(self.minor)
    }

    /// A peer that is Primary, by name.
    pub(super) fn primary_peer(&self) -> Option<&str> {
        self.peers.iter().find(|peer| peer.is_primary).map(|peer| peer.name.as_str())
    }

    pub(super) fn is_connected(&self) -> bool {
        self.peers.iter().any(|peer| peer.is_connected)
    }

    pub(super) fn peers_in_words(&self) -> String {
        if self.peers.is_empty() {
            return "there is no connection".to_owned();
        }
        self.peers.iter().map(|peer| peer.in_words.clone()).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn vanished(&self) -> super::Error {
        NotAVolume::NoResource { resource: self.id.resource.clone() }.into()
    }
}

impl PeerView {
    fn of(connection: &drbd_nl::ConnectionStatus) -> PeerView {
        let name = connection.name.clone().unwrap_or_else(|| connection.peer_addr.to_string());
        PeerView {
            is_primary: connection.peer_role == Role::Primary,
            is_connected: connection.state.is_connected(),
            in_words: format!("{name} is {}, {}", connection.state, connection.peer_role),
            name,
        }
    }
}

fn ask(drbd: &mut Drbd, resource: &str) -> Result<Option<ResourceStatus>, NotAVolume> {
    drbd.resource(resource).map_err(|source| NotAVolume::Drbd { resource: resource.to_owned(), source })
}

fn device(minor: u32) -> DeviceNumber {
    DeviceNumber::drbd(Minor(minor))
}

/// A resource's name has no slash: what stands behind one is the volume.
fn split(target: &str) -> (&str, Option<&str>) {
    let target = target.strip_prefix("drbd:").unwrap_or(target);
    match target.split_once('/') {
        Some((resource, volume)) => (resource, Some(volume)),
        None => (target, None),
    }
}

fn choose(resource: &str, wanted: Option<&str>, numbers: &[u32]) -> Result<u32, NotAVolume> {
    match (wanted, numbers) {
        (None, &[only]) => Ok(only),
        (None, &[]) => Err(no_volume(resource, "(any)", numbers)),
        (None, _) => Err(NotAVolume::Ambiguous { resource: resource.to_owned(), choices: targets(resource, numbers) }),
        (Some(text), _) => {
            let number = text.parse().ok().filter(|number| numbers.contains(number));
            number.ok_or_else(|| no_volume(resource, text, numbers))
        }
    }
}

fn no_volume(resource: &str, volume: &str, numbers: &[u32]) -> NotAVolume {
    let has = if numbers.is_empty() { "none".to_owned() } else { targets(resource, numbers) };
    NotAVolume::NoVolume { resource: resource.to_owned(), volume: volume.to_owned(), has }
}

fn targets(resource: &str, numbers: &[u32]) -> String {
    let targets: Vec<String> = numbers.iter().map(|number| format!("{resource}/{number}")).collect();
    targets.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_in_both_forms() {
        assert_eq!(split("r0"), ("r0", None));
        assert_eq!(split("r0/1"), ("r0", Some("1")));
        assert_eq!(split("drbd:vm.disk-1/0"), ("vm.disk-1", Some("0")));
    }

    #[test]
    fn a_target_must_name_exactly_one_volume() {
        assert_eq!(choose("r0", None, &[0]).ok(), Some(0));
        assert_eq!(choose("r0", Some("1"), &[0, 1]).ok(), Some(1));
        let several = choose("r0", None, &[0, 1]).unwrap_err().to_string();
        assert!(several.contains("r0/0, r0/1"), "{several}");
        let missing = choose("r0", Some("7"), &[0, 1]).unwrap_err().to_string();
        assert!(missing.contains("no volume 7; it has r0/0, r0/1"), "{missing}");
        assert!(matches!(choose("r0", Some("x"), &[0]), Err(NotAVolume::NoVolume { .. })));
        assert!(matches!(choose("r0", None, &[]), Err(NotAVolume::NoVolume { .. })));
    }
}
