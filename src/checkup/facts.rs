//! What one host tells another about itself. No secrets, and nothing that the other one has no use for.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use nix::ifaddrs::getifaddrs;
use serde::{Deserialize, Serialize};

use super::report::Report;
use crate::host::PROGRAM;
use crate::migrate::chain;
use crate::protocol;
use crate::replication::{Inventory, Replication};
use crate::toolstack::{Hypervisor, Toolstack};

/// Where the kernel shows its interfaces.
const INTERFACES: &str = "/sys/class/net";
/// The most bridges, resources, or volumes and connections of one, that a host is believed to have.
const COUNT_MAX: usize = 4096;

/// A host, as another one sees it. What could not be looked at is there as the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its node name.
    pub node: String,
    /// The program that looked, and its version.
    pub program: String,
    /// The newest protocol version that it speaks.
    pub protocol: u16,
    /// Its hypervisor.
    pub xen: Result<Hypervisor, String>,
    /// What it replicates.
    pub drbd: Result<Inventory, String>,
    /// The names of its bridges.
    pub bridges: Vec<String>,
    /// Where it is connected with the other one.
    pub link: Option<Link>,
}

/// The interface that has an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The address.
    pub address: IpAddr,
    /// The interface's name.
    pub interface: String,
    /// Its MTU in bytes.
    pub mtu: u32,
}

impl Facts {
    /// Looks at this host; `local` is its end of the connection with the other one.
    #[must_use]
    pub fn look(
        node: &str,
        toolstack: Result<&dyn Toolstack, String>,
        replication: Result<&dyn Replication, String>,
        local: IpAddr,
    ) -> Facts {
        Facts {
            node: node.to_owned(),
            program: PROGRAM.to_owned(),
            protocol: protocol::VERSION,
            xen: toolstack.and_then(|toolstack| toolstack.hypervisor().map_err(|error| chain(error.as_ref()))),
            drbd: replication.and_then(|drbd| drbd.inventory().map_err(|error| chain(error.as_ref()))),
            bridges: bridges(),
            link: Link::of(local),
        }
    }

    /// What of it no host can be like: then none of it is believed.
    pub(super) fn oddity(&self) -> Option<&'static str> {
        let resources = self.drbd.as_ref().map_or(&[][..], |drbd| &drbd.resources);
        let too_many = |count: usize| count > COUNT_MAX;
        if too_many(self.bridges.len()) || too_many(resources.len()) {
            return Some("too many bridges or resources");
        }
        let crowded = |count: [usize; 2]| count.into_iter().any(too_many);
        let odd = resources.iter().any(|resource| {
            let seen = resource.connections.iter().map(|connection| connection.volumes.len());
            crowded([resource.volumes.len(), resource.connections.len()]) || seen.into_iter().any(too_many)
        });
        odd.then_some("a resource with too many volumes or connections")
    }
}

impl Link {
    /// The interface that has this address.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Link> {
        let interface = interface_of(address)?;
        let mtu = fs::read_to_string(Path::new(INTERFACES).join(&interface).join("mtu")).ok()?;
        Some(Link { address, interface, mtu: mtu.trim().parse().ok()? })
    }
}

/// The name of the interface that has this address.
pub(super) fn interface_of(address: IpAddr) -> Option<String> {
    let has_it = |found: &nix::ifaddrs::InterfaceAddress| {
        let v4 = || found.address?.as_sockaddr_in().map(|found| IpAddr::V4(found.ip()));
        let v6 = || found.address?.as_sockaddr_in6().map(|found| IpAddr::V6(found.ip()));
        v4().or_else(v6) == Some(address)
    };
    getifaddrs().ok()?.find(has_it).map(|found| found.interface_name)
}

fn bridges() -> Vec<String> {
    let interfaces = fs::read_dir(INTERFACES).into_iter().flatten().flatten();
    let bridges = interfaces.filter(|interface| interface.path().join("bridge").is_dir());
    let mut names: Vec<String> = bridges.filter_map(|bridge| bridge.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// This host's clock, in microseconds since 1970.
#[must_use]
pub fn clock_us() -> i64 {
    Timestamp::now().as_microsecond()
}

pub(super) fn judge_clock(synchronised: Option<bool>, report: &mut Report) {
    if synchronised == Some(false) {
        report.warning(
            "clock-unsynchronised",
            "Nothing keeps this host's clock right: a domain that moves takes its own time along, and logs of two hosts cannot be compared",
            "Run an NTP client: systemctl enable --now chrony, or systemd-timesyncd",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::Resource;

    #[test]
    fn a_host_knows_its_loopback() {
        let link = Link::of([127, 0, 0, 1].into()).expect("a loopback");
        assert!(link.interface == "lo" && link.mtu > 1000, "{link:?}");
        assert_eq!(Link::of([192, 0, 2, 1].into()), None);
    }

    #[test]
    fn facts_survive_the_wire_and_those_that_cannot_be_are_not_believed() {
        let mut facts = Facts::look("node1", Err("no Xen".into()), Err("no DRBD".into()), [127, 0, 0, 1].into());
        let wire = serde_json::to_string(&facts).expect("JSON");
        assert_eq!(serde_json::from_str::<Facts>(&wire).expect("facts"), facts);
        assert_eq!(facts.oddity(), None);
        let resource = Resource { volumes: vec![Default::default(); COUNT_MAX + 1], ..Resource::default() };
        facts.drbd = Ok(Inventory { version: String::new(), dialect: String::new(), resources: vec![resource] });
        assert!(facts.oddity().is_some());
        facts.drbd = Err(String::new());
        facts.bridges = vec![String::new(); COUNT_MAX + 1];
        assert!(facts.oddity().is_some());
    }
}
