//! A request becomes a [`Plan`]: the domain, its disks on their volumes, both ends. Pure data, read from libxl's JSON.

mod bridges;

use serde::Deserialize;
use uuid::Uuid;

pub use self::bridges::{BridgeMap, map_bridges};
use crate::cpu::Policy;
use crate::ids::{DomId, VolumeId};
use crate::protocol::{Handover, OfferedDisk};
use crate::replication::{Attachment, VolumeState};
use crate::timeouts::timeouts;

/// The relocation port, as xend had it.
pub const RELOCATION_PORT: u16 = 8002;

/// The hotplug program that lays our layer under a disk, relative to Xen's directory of scripts.
pub const HOTPLUG_PROGRAM: &str = "block-drbd";

/// What the user asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The domain's number on this host.
    pub domid: DomId,
    /// The destination: a name or an address.
    pub host: String,
    /// The destination's relocation port.
    pub port: u16,
    /// The handover that was asked for; `None` takes what the disks' attachment allows.
    pub handover: Option<Handover>,
    /// Disks, by their names in the guest, of which the administrator says that both hosts have the same storage there.
    pub shared_disks: Vec<String>,
    /// Bridges that have another name at the destination.
    pub bridges: Vec<BridgeMap>,
    /// Only preflight.
    pub dry_run: bool,
    /// The bounds of every wait.
    pub timeouts: Timeouts,
}

timeouts! {
    /// The bound of each wait of the source. The defaults suit hosts that are ten times slower than they should be.
    Timeouts {
        /// To connect to the relocation port.
        connect = 10,
        /// For an answer to Hello or Offer.
        answer = 60,
        /// Without any progress of the memory stream; the guest's own suspending counts as none.
        stall = 60,
        /// For the block backends to drain and the volumes to be released or taken back.
        volumes = 30,
        /// After a failure: for the destination to let the volumes go, so that the source has them again.
        retake = 120,
        /// From the end of the stream to the complete domain at the destination.
        ready = 120,
        /// From GO to the report that the domain runs.
        report = 60,
        /// After a loss behind GO: how long this process itself asks the destination, before it leaves that to the daemon.
        resolve = 60,
    }
}

/// One migration, before anything is changed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The migration's id.
    pub id: Uuid,
    /// The domain's number at the source.
    pub domid: DomId,
    /// What its configuration says.
    pub facts: DomainFacts,
    /// libxl's JSON of its configuration.
    pub config: String,
    /// The volumes under its disks, each once, in the order of the disks.
    pub volumes: Vec<PlannedVolume>,
    /// The disks that lie on no volume.
    pub disks: Vec<OfferedDisk>,
    /// The nics whose bridge the user has named, by their indices in the configuration.
    pub settled_nics: Vec<usize>,
    /// What the domain sees of the processor, if the hypervisor tells.
    pub cpu: Option<Policy>,
    /// The version of this host's hypervisor, if it tells.
    pub release: Option<(i32, i32)>,
    /// How the volumes will be handed over.
    pub handover: Handover,
    /// What the user asked for.
    pub request: Request,
}

/// A volume that moves.
#[derive(Clone, Debug)]
pub struct PlannedVolume {
    /// Its state when the plan was made.
    pub state: VolumeState,
    /// How the domain's disk lies on it.
    pub attachment: Attachment,
}

impl Plan {
    /// The volumes' names.
    pub fn volume_ids(&self) -> impl Iterator<Item = &VolumeId> {
        self.volumes.iter().map(|volume| &volume.state.id)
    }

    /// The resources of the volumes, each once.
    pub fn resources(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.volume_ids().map(|id| id.resource.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// The handover for these attachments: single-primary wherever every disk lies on our layer.
pub fn handover_for(volumes: &[PlannedVolume]) -> Handover {
    match volumes.iter().all(|volume| volume.attachment == Attachment::Layer) {
        true => Handover::Single,
        false => Handover::Dual,
    }
}

/// What a migration must know of a domain's configuration (libxl's JSON, `libxl_domain_config`).
#[derive(Clone, Debug, PartialEq)]
pub struct DomainFacts {
    /// The domain's name.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// `pv`, `pvh` or `hvm`.
    pub kind: String,
    /// The most memory it may hold, in KiB.
    pub memory_max_kib: u64,
    /// Its disks.
    pub disks: Vec<DiskFacts>,
    /// The bridges that its nics are on, each once.
    pub bridges: Vec<String>,
    /// PCI devices passed through: such a domain cannot move.
    pub pci_devices: usize,
    /// Virtual NUMA nodes: such a domain cannot move (libxl).
    pub vnuma_nodes: usize,
}

/// One disk of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFacts {
    /// Its name in the guest, such as `xvda`.
    pub vdev: String,
    /// Its target: with `script` `block-drbd` a resource or volume, else a path.
    pub target: String,
    /// The hotplug program, if one is named.
    pub script: Option<String>,
    /// libxl's word for the format, such as `raw`, `qcow2` or `empty`; `unknown` when none is written.
    pub format: String,
    /// Whether the guest may write to it.
    pub writable: bool,
}

impl DomainFacts {
    /// Reads libxl's JSON.
    ///
    /// # Errors
    /// The text is no domain configuration.
    pub fn from_json(config: &str) -> Result<DomainFacts, serde_json::Error> {
        let raw: RawConfig = serde_json::from_str(config)?;
        let mut bridges: Vec<String> = raw.nics.into_iter().filter_map(|nic| nic.bridge).collect();
        bridges.sort_unstable();
        bridges.dedup();
        Ok(DomainFacts {
            name: raw.c_info.name,
            uuid: raw.c_info.uuid,
            kind: raw.c_info.kind,
            memory_max_kib: raw.b_info.max_memkb,
            disks: raw.disks.into_iter().map(DiskFacts::from).collect(),
            bridges,
            pci_devices: raw.pcidevs.len(),
            vnuma_nodes: raw.b_info.vnuma_nodes.len(),
        })
    }
}

/// The configuration with another name in it: the destination's copy is `NAME--incoming` until it is complete.
///
/// # Errors
/// The text is no domain configuration.
pub fn rename(config: &str, name: &str) -> Result<String, serde_json::Error> {
    let mut value: serde_json::Value = serde_json::from_str(config)?;
    *slot(&mut value, "/c_info/name")? = name.into();
    serde_json::to_string(&value)
}

/// The configuration with its disks on our hotplug program: `disks` names the volume of each disk by its index.
///
/// A path such as `/dev/drbd0` means nothing on the destination, whose minors may differ; `RES/VOL` does.
///
/// # Errors
/// The text is no domain configuration or has fewer disks.
pub fn attach_by_volume<'a>(
    config: &str,
    disks: impl IntoIterator<Item = (usize, &'a VolumeId)>,
) -> Result<String, serde_json::Error> {
    let mut value: serde_json::Value = serde_json::from_str(config)?;
    for (index, volume) in disks {
        let disk = slot(&mut value, &format!("/disks/{index}"))?;
        disk["pdev_path"] = volume.to_string().into();
        disk["script"] = HOTPLUG_PROGRAM.into();
        disk["backend"] = "phy".into();
    }
    serde_json::to_string(&value)
}

/// The configuration with the disks of these names served by the kernel: what libxl is not told it chooses, and it must not be QEMU.
///
/// # Errors
/// The text is no domain configuration.
pub fn serve_by_kernel<'a>(
    config: &str,
    vdevs: impl Iterator<Item = &'a str> + Clone,
) -> Result<String, serde_json::Error> {
    let mut value: serde_json::Value = serde_json::from_str(config)?;
    let disks = value.get_mut("disks").and_then(serde_json::Value::as_array_mut);
    for disk in disks.into_iter().flatten().filter(|disk| vdevs.clone().any(|vdev| disk["vdev"] == vdev)) {
        disk["backend"] = "phy".into();
    }
    serde_json::to_string(&value)
}

fn slot<'v>(value: &'v mut serde_json::Value, path: &str) -> Result<&'v mut serde_json::Value, serde_json::Error> {
    use serde::de::Error;
    value.pointer_mut(path).ok_or_else(|| serde_json::Error::custom(format_args!("{path} is missing")))
}

/// The name of the destination's copy until it is complete.
pub fn incoming_name(name: &str) -> String {
    format!("{name}--incoming")
}

/// The name of the source's copy from GO on.
pub fn migrated_away_name(name: &str) -> String {
    format!("{name}--migratedaway")
}

/// Whether a domain of this name is a copy that arrives, or one that has been moved away: it belongs to a migration, ours or xl's.
pub fn is_between_hosts(name: &str) -> bool {
    name.ends_with("--incoming") || name.ends_with("--migratedaway")
}

#[derive(Deserialize)]
struct RawConfig {
    c_info: RawCreate,
    #[serde(default)]
    b_info: RawBuild,
    #[serde(default)]
    disks: Vec<RawDisk>,
    #[serde(default)]
    nics: Vec<RawNic>,
    #[serde(default)]
    pcidevs: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct RawCreate {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    uuid: Uuid,
}

#[derive(Deserialize, Default)]
struct RawBuild {
    #[serde(default)]
    max_memkb: u64,
    #[serde(default)]
    vnuma_nodes: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct RawDisk {
    #[serde(default)]
    vdev: String,
    #[serde(default)]
    pdev_path: Option<String>,
    #[serde(default)]
    script: Option<String>,
    #[serde(default = "unknown")]
    format: String,
    #[serde(default)]
    readwrite: i64,
}

/// What libxl takes for said where its JSON says nothing.
fn unknown() -> String {
    "unknown".to_owned()
}

impl From<RawDisk> for DiskFacts {
    fn from(raw: RawDisk) -> DiskFacts {
        let RawDisk { vdev, pdev_path, script, format, readwrite } = raw;
        let (target, script) = (pdev_path.unwrap_or_default(), script.filter(|script| !script.is_empty()));
        DiskFacts { vdev, target, script, format, writable: readwrite != 0 }
    }
}

#[derive(Deserialize)]
struct RawNic {
    #[serde(default)]
    bridge: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{
        "c_info": { "type": "pv", "name": "vm0", "uuid": "0f6bd1e1-8c4a-4d0c-9a54-7c4e3c7f0c11" },
        "b_info": { "max_vcpus": 1, "max_memkb": 131072, "type.pv": { } },
        "disks": [ { "pdev_path": "r1/1", "vdev": "xvdb", "script": "block-drbd", "format": "raw" } ],
        "nics": [ { "devid": 0, "bridge": "xenbr0" }, { "devid": 1, "bridge": "xenbr0" } ]
    }"#;

    #[test]
    fn facts_are_read_from_libxls_json() {
        let facts = DomainFacts::from_json(CONFIG).expect("a configuration");
        assert_eq!((facts.name.as_str(), facts.kind.as_str()), ("vm0", "pv"));
        assert_eq!(facts.memory_max_kib, 131_072);
        assert_eq!(facts.bridges, ["xenbr0"]);
        let (script, format) = (Some("block-drbd".to_owned()), "raw".to_owned());
        let (vdev, target) = ("xvdb".into(), "r1/1".into());
        assert_eq!(facts.disks, [DiskFacts { vdev, target, script, format, writable: false }]);
    }

    #[test]
    fn disks_are_attached_by_volume() {
        let volume = VolumeId { resource: "r7".into(), volume: 0 };
        let config = attach_by_volume(CONFIG, [(0, &volume)]).expect("a configuration");
        let json: serde_json::Value = serde_json::from_str(&config).expect("JSON");
        let disk = &json["disks"][0];
        assert_eq!((&disk["pdev_path"], &disk["backend"]), (&"r7/0".into(), &"phy".into()));
        assert!(attach_by_volume(CONFIG, [(1, &volume)]).is_err());
    }

    #[test]
    fn a_shared_disk_is_the_kernel_s_at_the_destination() {
        let backend = |vdevs: &[&str]| {
            let config = serve_by_kernel(CONFIG, vdevs.iter().copied()).expect("a configuration");
            serde_json::from_str::<serde_json::Value>(&config).expect("JSON")["disks"][0]["backend"].clone()
        };
        assert_eq!(backend(&["xvda", "xvdb"]), "phy");
        assert!(backend(&["xvda"]).is_null());
    }

    #[test]
    fn a_renamed_configuration_differs_in_its_name_alone() {
        let renamed = rename(CONFIG, &incoming_name("vm0")).expect("a configuration");
        let (before, after) = (DomainFacts::from_json(CONFIG), DomainFacts::from_json(&renamed));
        let (before, after) = (before.expect("facts"), after.expect("facts"));
        assert_eq!(after.name, "vm0--incoming");
        assert_eq!(DomainFacts { name: "vm0".into(), ..after }, before);
    }
}
