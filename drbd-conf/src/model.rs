//! What the files say, when they have been read and everything is inherited that is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::options::Options;
use crate::place::{Place, Remark};

/// The host for which files are read: which section of a resource is ours depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name, as uname(2) gives it.
    pub name: String,
    /// Its addresses: a `floating` section is ours when it has one of them.
    pub addresses: Vec<IpAddr>,
}

/// A whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The files, in the order in which they were opened.
    pub files: Vec<PathBuf>,
    /// The `global` section.
    pub global: Options,
    /// The `common` section.
    pub common: Option<Sections>,
    /// The resources, in their order.
    pub resources: Vec<Resource>,
    /// Which versions of the module the files ask for. They are not compared with anything here.
    pub required: Vec<Requirement>,
    /// What is no mistake and yet worth a word: unknown options, sections that are ignored.
    pub remarks: Vec<Remark>,
}

impl Config {
    /// The resource of that name.
    #[must_use]
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.name == name)
    }
}

/// A version of the module that the files ask for, `require-drbd-module-version-ge 9.0.16`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// `eq`, `ne`, `gt`, `ge`, `lt` or `le`.
    pub relation: String,
    /// The version, as it is written.
    pub version: String,
    /// Where it is written.
    pub place: Place,
}

/// The sections of options that a resource, `common` and a template have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sections {
    /// `options`: the resource's own.
    pub options: Options,
    /// `net`: each connection inherits it.
    pub net: Options,
    /// `disk`: each volume inherits it.
    pub disk: Options,
    /// What stands in `disk`, too, and is about a volume and a peer: how to resync. Each of those inherits it.
    pub peer_device: Options,
    /// `startup`: nobody but the init script asks for it.
    pub startup: Options,
    /// `handlers`: the programs that the kernel has started.
    pub handlers: Options,
    /// `proxy`.
    pub proxy: Options,
    /// `plugin` within `proxy`: each line is a name without a value.
    pub plugins: Options,
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// Where its section begins.
    pub place: Place,
    /// The template that it inherits from instead of from `common`.
    pub template: Option<PathBuf>,
    /// Its options, with what is inherited from `common` or the template.
    pub sections: Sections,
    /// Its hosts, in their order.
    pub hosts: Vec<Host>,
    /// Its connections: those that are written, those of a mesh, or the one of two hosts.
    pub connections: Vec<Connection>,
    /// Which of the hosts is this one; `None` where the resource is not for this host.
    pub me: Option<usize>,
    /// Volumes that are written outside of the hosts; each host has them already.
    pub(crate) volumes: Vec<Volume>,
    pub(crate) meshes: Vec<Mesh>,
    pub(crate) inherits: Option<Box<Sections>>,
    /// It says what only DRBD 9's drbdadm understands: connections, meshes, node-ids or a template.
    pub(crate) of_nine: bool,
}

impl Resource {
    /// This host's section.
    #[must_use]
    pub fn mine(&self) -> Option<&Host> {
        self.me.and_then(|me| self.hosts.get(me))
    }

    /// The connections that this host has an end of, each with our end and the other of its first path.
    pub fn my_connections(&self) -> impl Iterator<Item = (&Connection, &End, &End)> {
        self.connections.iter().filter_map(|connection| {
            let ends = connection.paths.first()?.ends.as_slice();
            match ends {
                [mine, other] if mine.host == self.me && self.me.is_some() => Some((connection, mine, other)),
                [other, mine] if mine.host == self.me && self.me.is_some() => Some((connection, mine, other)),
                _ => None,
            }
        })
    }

    /// It lies on another resource, as seen from this host.
    #[must_use]
    pub fn is_stacked(&self) -> bool {
        self.mine().is_some_and(|host| matches!(host.kind, HostKind::Stacked(_)))
    }
}

/// How a host's section is introduced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostKind {
    /// `on NAME`.
    On,
    /// `floating ADDRESS`.
    Floating,
    /// `stacked-on-top-of RESOURCE`.
    Stacked(String),
}

/// A host of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// How the section is introduced.
    pub kind: HostKind,
    /// The names: those that are written, the address of a floating one, the names of the hosts below of a stacked one.
    pub names: Vec<String>,
    /// Where the section begins.
    pub place: Place,
    /// Its number, written or derived.
    pub node_id: Option<u32>,
    /// Where it listens.
    pub address: Option<Address>,
    /// Its volumes, by their numbers.
    pub volumes: Vec<Volume>,
    /// `options` within the section.
    pub options: Options,
    /// The proxy, as 8.x has it.
    pub proxy: Option<Proxy>,
}

impl Host {
    /// The volume of that number.
    #[must_use]
    pub fn volume(&self, number: u32) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.number == number)
    }
}

/// A volume on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its number within the resource.
    pub number: u32,
    /// It is number 0 because no `volume` is written.
    pub implicit: bool,
    /// Where it is written first.
    pub place: Place,
    /// The device's name, `/dev/drbd0`.
    pub device: Option<String>,
    /// The device's minor.
    pub minor: Option<u32>,
    /// The disk below; `None` where it has none.
    pub disk: Option<String>,
    /// Where the metadata are.
    pub meta_disk: Option<MetaDisk>,
    /// `disk { }`, with what is inherited.
    pub disk_options: Options,
    /// What stands in `disk { }` about peers, with what is inherited.
    pub peer_device_options: Options,
}

impl Volume {
    pub(crate) fn new(number: u32, place: Place) -> Volume {
        Volume {
            number,
            implicit: false,
            place,
            device: None,
            minor: None,
            disk: None,
            meta_disk: None,
            disk_options: Options::default(),
            peer_device_options: Options::default(),
        }
    }
}

/// Where a volume's metadata are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaDisk {
    /// At the end of the disk itself.
    Internal,
    /// On a device of their own, as large as need be.
    Flexible(String),
    /// In a place of fixed size on a device that several volumes share.
    Indexed(String, u32),
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `ipv4`, which need not be written.
    Ipv4,
    /// `ipv6`.
    Ipv6,
    /// `ssocks`, before that `sci`: Dolphin's.
    Ssocks,
    /// `sdp`: InfiniBand's.
    Sdp,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
            Family::Ssocks => "ssocks",
            Family::Sdp => "sdp",
        })
    }
}

/// An address with its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its family.
    pub family: Family,
    /// The address as it is written: nobody checks that its numbers are below 256.
    pub ip: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// As the operating system has it; `None` where it is none, or has a scope.
    #[must_use]
    pub fn socket(&self) -> Option<SocketAddr> {
        self.ip.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// It leads back to the host itself.
    pub(crate) fn is_loopback(&self) -> bool {
        self.ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Whether both lead to the same place, however they are written.
    pub(crate) fn same(&self, other: &Address) -> bool {
        let same_ip = match (self.ip.parse::<IpAddr>(), other.ip.parse::<IpAddr>()) {
            (Ok(one), Ok(other)) => one == other,
            _ => self.ip == other.ip,
        };
        same_ip && self.port == other.port && self.family == other.family
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family {
            Family::Ipv6 => write!(f, "[{}]:{}", self.ip, self.port),
            _ => write!(f, "{}:{}", self.ip, self.port),
        }
    }
}

/// A proxy between two hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The hosts that it runs on.
    pub names: Vec<String>,
    /// Where DRBD finds it.
    pub inside: Option<Address>,
    /// Where the other proxy finds it.
    pub outside: Option<Address>,
    /// Its options, with what is inherited.
    pub options: Options,
    /// Its plugins, with what is inherited.
    pub plugins: Options,
}

/// A connection between two hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Where it is written: of one that is not, the place of its resource.
    pub place: Place,
    /// It is not written: it is a mesh's, or the one of a resource with two hosts.
    pub implicit: bool,
    /// Its paths. The first is the one that 8.4 has.
    pub paths: Vec<Path>,
    /// `net`, with what is inherited.
    pub net: Options,
    /// `disk`, which is about the peer's volumes.
    pub peer_device: Options,
    /// What is between this host's volumes and the peer's, with what is inherited.
    pub peer_devices: Vec<PeerDevice>,
}

/// A path of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where it is written.
    pub place: Place,
    /// It is not written as `path`: the hosts stand in the connection itself.
    pub implicit: bool,
    /// Its two ends.
    pub ends: Vec<End>,
}

/// An end of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Which of the resource's hosts.
    pub host: Option<usize>,
    /// The host's name, as the connection has it.
    pub name: String,
    /// Where it listens: its own address, or the host's.
    pub address: Option<Address>,
    /// The proxy on the way to it.
    pub proxy: Option<Proxy>,
    /// Where it is written.
    pub place: Place,
    /// The port, where only that is written.
    pub(crate) port: Option<u16>,
    /// It is found by its address, not by its name.
    pub(crate) by_address: bool,
}

/// A volume and a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerDevice {
    /// The volume's number.
    pub number: u32,
    /// Where it is written; of one that is not, the place of its connection.
    pub place: Place,
    /// It is not written.
    pub implicit: bool,
    /// Its options, with what is inherited.
    pub options: Options,
}

/// Hosts of which each is connected with each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mesh {
    pub(crate) place: Place,
    pub(crate) hosts: Vec<String>,
    pub(crate) net: Options,
}
