//! `bascule drbd up` and `down`: a resource of the files made in the kernel, and taken out of it again.
//!
//! `up` takes what drbdadm takes: the resource, its volumes with their disks, its connections. Metadata must be there. An option that
//! cannot be set here is a reason to leave all of it to drbdadm: a resource that is up has what its files say. When a step fails, what
//! was done is undone. `down` is refused while somebody uses a volume, or while a migration needs it.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use drbd_conf::{Config, Connection, End, Host, HostKind, MetaDisk, Options, Resource, Setting, Volume};
use drbd_nl::{Address, DeviceConf, Dialect, DiskConf, Drbd, NetConf, Peer, Refusal, ResourceOpts, ResourceStatus};

use super::options::{disk_conf, is_set_here, net_conf};
use crate::dm::DeviceNumber;
use crate::holders;
use crate::ids::{Minor, VolumeId};
use crate::journal;
use crate::role;

/// How long a connection that is being made or lost may refuse to be ended; DRBD itself gives an attempt up after its `timeout`, 6 s.
const TRANSIENT_MAX: Duration = Duration::from_secs(15);
/// Metadata of flexible size on a device of their own (drbd.h, DRBD_MD_INDEX_FLEX_EXT).
const META_FLEXIBLE: i32 = -2;

/// Why a resource is not up, or not down.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be done, and nothing was done: all reasons, each with what to type where something helps.
    #[error("Resource {resource} is not brought {direction}: {}", .reasons.join("; "))]
    Refused {
        /// The resource.
        resource: String,
        /// Where it should have gone.
        direction: Direction,
        /// Why not, each a clause.
        reasons: Vec<String>,
    },
    /// A step failed.
    #[error("Resource {resource} is not brought {direction}: {step} failed; {undone}")]
    Failed {
        /// The resource.
        resource: String,
        /// Where it should have gone.
        direction: Direction,
        /// Which step.
        step: String,
        /// What became of the steps before it.
        undone: String,
        /// What DRBD says.
        source: Box<drbd_nl::Error>,
    },
    /// The kernel does not answer.
    #[error("DRBD does not answer")]
    Status(#[source] Box<drbd_nl::Error>),
    /// Whether a migration needs it cannot be read.
    #[error("The journals of migrations cannot be read")]
    Journal(#[source] journal::Error),
}

/// Where a resource goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Into the kernel.
    Up,
    /// Out of it.
    Down,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Up => "up",
            Direction::Down => "down",
        })
    }
}

/// Brings a resource of the files up. `uname` is this host as the files have it.
///
/// # Errors
/// [`Error::Refused`] before anything was done; [`Error::Failed`] when a step failed, and the resource is gone again.
pub fn up(netlink: &mut Drbd, config: &Config, name: &str, uname: &str) -> Result<(), Error> {
    let refused = |reasons| Error::Refused { resource: name.to_owned(), direction: Direction::Up, reasons };
    let Some(resource) = config.resource(name) else {
        return Err(refused(vec!["it is not in the files: bascule check --drbd".to_owned()]));
    };
    let there = netlink.resource(name).map_err(|source| Error::Status(source.into()))?;
    let plan = Plan::new(resource, netlink.dialect(), uname).and_then(|plan| match there {
        Some(_) => Err(vec![format!("it is up already: bascule status {name}, or drbdadm adjust {name}")]),
        None => Ok(plan),
    });
    plan.map_err(refused)?.carry_out(netlink)
}

/// Everything that `up` tells the kernel, in its order.
#[derive(Debug)]
struct Plan {
    resource: String,
    options: ResourceOpts,
    volumes: Vec<PlannedVolume>,
    connections: Vec<(Peer, NetConf)>,
}

#[derive(Debug)]
struct PlannedVolume {
    number: u32,
    minor: u32,
    conf: DeviceConf,
    disk: Option<DiskConf>,
}

impl Plan {
    /// What is to be done, or all reasons why it cannot be.
    fn new(resource: &Resource, dialect: Dialect, uname: &str) -> Result<Plan, Vec<String>> {
        let Some(host) = resource.mine() else {
            return Err(vec![format!("{} has no section for this host, {uname}", resource.place)]);
        };
        let mut reasons = Vec::new();
        if let HostKind::Stacked(lower) = &host.kind {
            reasons.push(format!("it lies on top of {lower}: drbdadm --stacked up {}", resource.name));
        }
        let by_drbdadm = |setting: &Setting| {
            format!("{} ({}) is not set by bascule: drbdadm up {}", setting.name, setting.place, resource.name)
        };
        let unset = sections_of(resource, host).filter(|setting| !is_set_here(&setting.name, dialect));
        reasons.extend(unset.map(by_drbdadm));
        let volumes = host.volumes.iter().map(|volume| planned_volume(volume, dialect, uname));
        let connections = resource
            .my_connections()
            .map(|(connection, mine, peer)| planned_connection(resource, connection, (mine, peer), dialect, uname));
        let connections =
            connections.filter_map(|planned| planned.map_err(|reason| reasons.push(reason)).ok()).collect();
        let options = resource_options(resource, host, dialect).map_err(|reason| reasons.push(reason));
        reasons.sort();
        reasons.dedup();
        match (options, reasons.is_empty()) {
            (Ok(options), true) => {
                Ok(Plan { resource: resource.name.clone(), options, volumes: volumes.collect(), connections })
            }
            _ => Err(reasons),
        }
    }

    fn carry_out(&self, netlink: &mut Drbd) -> Result<(), Error> {
        let name = &self.resource;
        netlink
            .new_resource(name, &self.options)
            .map_err(|source| self.failed("the resource", "nothing was done", source))?;
        match self.fill(netlink) {
            Ok(()) => Ok(()),
            Err((step, source)) => Err(self.undo(netlink, &step, source)),
        }
    }

    /// All that follows the resource itself, up to the connections, which start at once.
    fn fill(&self, netlink: &mut Drbd) -> Result<(), (String, drbd_nl::Error)> {
        for volume in &self.volumes {
            let step = |what: &str| format!("volume {}: {what}", volume.number);
            netlink
                .new_minor(&self.resource, volume.number, volume.minor, &volume.conf)
                .map_err(|source| (step(&format!("minor {}", volume.minor)), source))?;
            if let Some(disk) = &volume.disk {
                let path = disk.backing_dev.as_deref().unwrap_or_default();
                netlink.attach(volume.minor, disk).map_err(|source| (step(&format!("attaching {path}")), source))?;
            }
        }
        for (peer, net) in &self.connections {
            let failed = |source| (format!("connecting to {}", peer.peer_addr), source);
            if netlink.dialect() == Dialect::V9 {
                netlink.new_peer(peer, net).map_err(failed)?;
                netlink.new_path(peer).map_err(failed)?;
            }
            netlink.connect(peer, net, false).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes the resource out again, with whatever it has by then.
    fn undo(&self, netlink: &mut Drbd, step: &str, source: drbd_nl::Error) -> Error {
        match take_apart(netlink, &self.resource) {
            Ok(()) => self.failed(step, "what was done before it is undone", source),
            Err(why) => {
                let left = format!("taking it down again failed, too ({why}): drbdadm down {}", self.resource);
                self.failed(step, &left, source)
            }
        }
    }

    fn failed(&self, step: &str, undone: &str, source: drbd_nl::Error) -> Error {
        let (resource, direction) = (self.resource.clone(), Direction::Up);
        Error::Failed { resource, direction, step: step.to_owned(), undone: undone.to_owned(), source: source.into() }
    }
}

/// All options that the kernel would have to be told for this host.
fn sections_of<'r>(resource: &'r Resource, host: &'r Host) -> impl Iterator<Item = &'r Setting> {
    let volumes = host.volumes.iter().flat_map(|volume| [&volume.disk_options, &volume.peer_device_options]);
    let connections = resource.my_connections().flat_map(|(connection, ..)| {
        std::iter::once(&connection.net).chain(connection.peer_devices.iter().map(|device| &device.options))
    });
    let all = volumes.chain(connections).chain([&resource.sections.options, &host.options]);
    all.flat_map(Options::iter)
}

fn planned_volume(volume: &Volume, dialect: Dialect, uname: &str) -> PlannedVolume {
    let conf = disk_conf(&volume.disk_options, &volume.peer_device_options, uname, dialect);
    let disk = volume.disk.as_ref().map(|disk| match &volume.meta_disk {
        Some(MetaDisk::Flexible(path)) => with_disk(conf, disk, path, META_FLEXIBLE),
        Some(MetaDisk::Indexed(path, index)) => with_disk(conf, disk, path, i32::try_from(*index).unwrap_or(i32::MAX)),
        Some(MetaDisk::Internal) | None => {
            let DiskConf { backing_dev, meta_dev, meta_dev_idx, .. } = DiskConf::internal(disk);
            DiskConf { backing_dev, meta_dev, meta_dev_idx, ..conf }
        }
    });
    let intentional = (dialect == Dialect::V9 && disk.is_none()).then_some(true);
    let conf = DeviceConf { intentional_diskless: intentional, ..DeviceConf::default() };
    PlannedVolume { number: volume.number, minor: volume.minor.unwrap_or_default(), conf, disk }
}

fn with_disk(conf: DiskConf, disk: &str, meta: &str, index: i32) -> DiskConf {
    let (backing_dev, meta_dev) = (Some(disk.to_owned()), Some(meta.to_owned()));
    DiskConf { backing_dev, meta_dev, meta_dev_idx: Some(index), ..conf }
}

fn planned_connection(
    resource: &Resource,
    connection: &Connection,
    (mine, peer): (&End, &End),
    dialect: Dialect,
    uname: &str,
) -> Result<(Peer, NetConf), String> {
    let name = &resource.name;
    if connection.paths.len() > 1 {
        return Err(format!(
            "the connection to {} ({}) has several paths: drbdadm up {name}",
            peer.name, connection.place
        ));
    }
    if mine.proxy.is_some() || peer.proxy.is_some() {
        return Err(format!(
            "the connection to {} ({}) goes through a proxy: drbdadm up {name}",
            peer.name, mine.place
        ));
    }
    let (my_addr, peer_addr) = (address(mine, name)?, address(peer, name)?);
    let peer_node_id = peer.host.and_then(|host| resource.hosts.get(host)).and_then(|host| host.node_id);
    if dialect == Dialect::V9 && peer_node_id.is_none() {
        return Err(format!("host {} ({}) has no node-id, which DRBD 9 needs", peer.name, peer.place));
    }
    let mut net = net_conf(&connection.net, uname, dialect);
    if dialect == Dialect::V9 {
        net.name = Some(peer.name.clone());
    }
    let peer_node_id = peer_node_id.filter(|_| dialect == Dialect::V9);
    Ok((Peer { resource: name.clone(), peer_node_id, my_addr, peer_addr }, net))
}

fn address(end: &End, name: &str) -> Result<Address, String> {
    let internet = end
        .address
        .as_ref()
        .filter(|address| matches!(address.family, drbd_conf::Family::Ipv4 | drbd_conf::Family::Ipv6));
    let socket: Option<SocketAddr> = internet.and_then(drbd_conf::Address::socket);
    let shown = end.address.as_ref().map(ToString::to_string).unwrap_or_default();
    socket
        .map(Address::from)
        .ok_or_else(|| format!("{shown} ({}) is no plain internet address: drbdadm up {name}", end.place))
}

fn resource_options(resource: &Resource, host: &Host, dialect: Dialect) -> Result<ResourceOpts, String> {
    let value = |name| host.options.value(name).or_else(|| resource.sections.options.value(name));
    let node_id = host.node_id.filter(|_| dialect == Dialect::V9);
    if dialect == Dialect::V9 && node_id.is_none() {
        return Err(format!("this host ({}) has no node-id, which DRBD 9 needs", host.place));
    }
    Ok(ResourceOpts {
        cpu_mask: value("cpu-mask").map(str::to_owned),
        on_no_data: value("on-no-data-accessible").map(|word| u32::from(word == "suspend-io")),
        node_id,
        ..ResourceOpts::default()
    })
}

/// Takes a resource down. `state_dir` has the journals of migrations.
///
/// # Errors
/// [`Error::Refused`] while a volume is in use or a migration needs it; [`Error::Failed`] when the kernel refuses.
pub fn down(netlink: &mut Drbd, name: &str, state_dir: &Path) -> Result<(), Error> {
    let refused = |reasons| Error::Refused { resource: name.to_owned(), direction: Direction::Down, reasons };
    let Some(status) = netlink.resource(name).map_err(|source| Error::Status(source.into()))? else {
        return Err(refused(vec!["it is not up: bascule status".to_owned()]));
    };
    let reasons = needed(&status, state_dir)?;
    if !reasons.is_empty() {
        return Err(refused(reasons));
    }
    take_apart(netlink, name).map_err(|source| Error::Failed {
        resource: name.to_owned(),
        direction: Direction::Down,
        step: "taking it apart".to_owned(),
        undone: format!("see what is left: bascule status {name}"),
        source: source.into(),
    })
}

/// Also in the moment in which a connection is made or lost, where DRBD refuses (`SS_IN_TRANSIENT_STATE`).
fn take_apart(netlink: &mut Drbd, name: &str) -> Result<(), drbd_nl::Error> {
    role::retry(Instant::now() + TRANSIENT_MAX, Refusal::is_transient, || netlink.down(name))
}

/// Who needs the resource: what this host shows, and what migrations have promised. A backend in the kernel shows nowhere; DRBD itself
/// refuses then.
fn needed(status: &ResourceStatus, state_dir: &Path) -> Result<Vec<String>, Error> {
    let mut reasons = Vec::new();
    for volume in &status.volumes {
        let number = u16::try_from(volume.volume).unwrap_or(u16::MAX);
        let id = VolumeId { resource: status.name.clone(), volume: number };
        if let Some(story) = journal::open_for(state_dir, &id).map_err(Error::Journal)? {
            let migration = story.head.id;
            reasons.push(format!("migration {migration} needs {id}: bascule recover --dry-run {migration}"));
        }
        let holders = holders::holders(DeviceNumber::drbd(Minor(volume.minor)));
        if !holders.is_empty() {
            reasons.push(format!("{id} is in use by {}: bascule list", holders::describe(&holders)));
        }
    }
    Ok(reasons)
}
