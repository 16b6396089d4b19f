//! Two hosts held against each other. What is said of the peer stands under its name.

use std::net::SocketAddr;

use super::ask::{Answer, Clock, Meeting};
use super::facts::{Facts, Link, interface_of};
use super::library::release;
use super::report::{Finding, Level, Report};
use super::ways::Guest;
use crate::host::PROGRAM;
use crate::protocol;
use crate::replication::{Connection, Inventory, Resource, Volume};
use crate::toolstack::Hypervisor;

/// Clocks that differ by more, in microseconds, are a warning.
const CLOCK_US_MAX: i64 = 1_000_000;

/// What the answer, or that there is none, says about the pair. `mine` looks at this host, once its end of the connection is known;
/// `migrating` are the resources with an unfinished migration, in which two Primaries may be allowed for a moment.
#[must_use]
pub fn compare(
    node: &str,
    peer: &str,
    answer: &Answer,
    mine: Option<&Facts>,
    guests: &[Guest],
    migrating: &[String],
) -> Vec<Finding> {
    let mut report = Report::new(node);
    match (answer, mine) {
        (Answer::Met(meeting), Some(mine)) => Pair { mine, meeting, guests, migrating }.judge(&mut report),
        (Answer::Met(_), None) => {}
        (Answer::Older(welcome), _) => {
            let found =
                format!("Its daemon, {}, is older than this program, {PROGRAM}, and cannot be asked", welcome.program);
            report.of(
                &welcome.node,
                Level::Warning,
                "peer-older",
                found,
                "Install this version there, too, then: systemctl restart bascule",
            );
        }
        (Answer::Silent(why), _) => {
            let remedy = format!(
                "There: systemctl status bascule, and bascule check; here: bascule peers. Then: bascule check --peer {peer}"
            );
            report.of(peer, Level::Error, "peer-silent", format!("Its daemon cannot be asked: {why}"), remedy);
        }
        (Answer::Nonsense(why), _) => {
            let remedy = "Compare bascule --version on both hosts; if they are the same, do not trust that host";
            report.of(
                peer,
                Level::Error,
                "peer-nonsense",
                format!("What its daemon answers makes no sense: {why}"),
                remedy,
            );
        }
    }
    report.findings()
}

struct Pair<'a> {
    mine: &'a Facts,
    meeting: &'a Meeting,
    guests: &'a [Guest],
    migrating: &'a [String],
}

impl Pair<'_> {
    fn judge(&self, report: &mut Report) {
        let Meeting { theirs, protection, connect, .. } = self.meeting;
        let found = format!("It answered in {} ms ({protection}); {}", connect.as_millis(), theirs.program);
        report.of(&theirs.node, Level::Notice, "peer", found, "");
        self.judge_programs(report);
        self.judge_xen(report);
        self.judge_clocks(report);
        self.judge_links(report);
        self.judge_bridges(report);
        match (&self.mine.drbd, &theirs.drbd) {
            (Ok(mine), Ok(theirs)) => self.judge_drbd(mine, theirs, report),
            (mine, theirs) => self.cannot_compare("drbd", "DRBD", mine.as_ref().err(), theirs.as_ref().err(), report),
        }
    }

    fn theirs(&self) -> &str {
        &self.meeting.theirs.node
    }

    /// Something of the peer's is not as here.
    fn differs(&self, code: &str, found: String, remedy: &str, report: &mut Report) {
        report.of(self.theirs(), Level::Warning, code, found, remedy);
    }

    fn cannot_compare(
        &self,
        code: &str,
        what: &str,
        here: Option<&String>,
        there: Option<&String>,
        report: &mut Report,
    ) {
        if let Some(why) = here {
            report.cannot_tell(code, format!("{what} was not looked at here: {why}"), "sudo bascule check");
        }
        if let Some(why) = there {
            report.of(
                self.theirs(),
                Level::CannotTell,
                code,
                format!("{what} was not looked at there: {why}"),
                "There: bascule check",
            );
        }
    }

    fn judge_programs(&self, report: &mut Report) {
        let theirs = &self.meeting.theirs;
        if theirs.program != PROGRAM {
            let found = format!("It runs {}, this host {PROGRAM}", theirs.program);
            self.differs(
                "program-differs",
                found,
                "Install the newer one on both, then: systemctl restart bascule",
                report,
            );
        }
        if theirs.protocol != protocol::VERSION {
            let found = format!("It speaks protocol version {}, this host {}", theirs.protocol, protocol::VERSION);
            report.of(self.theirs(), Level::Notice, "protocol-differs", found, "");
        }
    }

    fn judge_xen(&self, report: &mut Report) {
        match (&self.mine.xen, &self.meeting.theirs.xen) {
            (Ok(mine), Ok(theirs)) => self.judge_hypervisors(mine, theirs, report),
            (mine, theirs) => self.cannot_compare("xen", "Xen", mine.as_ref().err(), theirs.as_ref().err(), report),
        }
    }

    fn judge_hypervisors(&self, mine: &Hypervisor, theirs: &Hypervisor, report: &mut Report) {
        if mine.stream != theirs.stream {
            let found =
                format!("Its libxl writes memory streams of version {}, this host's of {}", theirs.stream, mine.stream);
            report.of(self.theirs(), Level::Error, "stream-differs", found, "Run the same release of Xen on both");
        }
        if release(&mine.version) != release(&theirs.version) {
            let found = format!(
                "It runs Xen {}, this host {}: domains move to the newer one, and not always back",
                theirs.version, mine.version
            );
            self.differs("xen-differs", found, "Run the same release of Xen on both", report);
        } else if mine.version != theirs.version {
            let found = format!("It runs Xen {}, this host {}", theirs.version, mine.version);
            report.of(self.theirs(), Level::Notice, "xen-differs", found, "");
        }
        self.judge_kinds(mine, theirs, report);
        self.judge_memory(theirs.free_kib, report);
    }

    /// What this host can and the peer cannot.
    fn judge_kinds(&self, mine: &Hypervisor, theirs: &Hypervisor, report: &mut Report) {
        let logs = |xen: &Hypervisor| xen.hap || xen.shadow;
        for (kind, here, there) in [("PV", mine.pv, theirs.pv), ("HVM and PVH", mine.hvm, theirs.hvm)] {
            if here && !there {
                let found = format!("Its Xen cannot run {kind} domains, and this host's can");
                self.differs(
                    "kind-missing",
                    found,
                    "There: xl info virt_caps; switch virtualisation on in its firmware",
                    report,
                );
            }
        }
        for (kind, here, there) in [("PV", mine.shadow, theirs.shadow), ("HVM and PVH", logs(mine), logs(theirs))] {
            if here && !there {
                let found = format!(
                    "{kind} domains that move there cannot move back: its Xen has no paging in which they can be logged"
                );
                self.differs("no-way-back", found, "There: bascule check says more", report);
            }
        }
    }

    fn judge_memory(&self, free_kib: u64, report: &mut Report) {
        let mib = free_kib >> 10;
        report.of(self.theirs(), Level::Notice, "peer-memory", format!("{mib} MiB of memory are free there"), "");
        let Some(largest) = self.guests.iter().max_by_key(|guest| guest.memory_max_kib) else { return };
        if largest.memory_max_kib > free_kib {
            let found =
                format!("{mib} MiB are free there, and {} has {} MiB", largest.name, largest.memory_max_kib >> 10);
            self.differs(
                "peer-memory-low",
                found,
                "Shut a domain down there or make its dom0 smaller: xl mem-set 0",
                report,
            );
        }
    }

    fn judge_clocks(&self, report: &mut Report) {
        let Clock { offset_us, uncertainty_us } = self.meeting.clock;
        let seconds = |us: u64| format!("{}.{:03} s", us / 1_000_000, us / 1000 % 1000);
        let off = seconds(offset_us.unsigned_abs());
        let uncertain = seconds(uncertainty_us.unsigned_abs());
        let way = if offset_us < 0 { "behind" } else { "ahead of" };
        let found = format!("Its clock is {off} {way} this host's, by {uncertain} more or less");
        let remedy = "Run an NTP client on both: systemctl enable --now chrony";
        let apart = offset_us.saturating_abs();
        if apart.saturating_sub(uncertainty_us) > CLOCK_US_MAX {
            self.differs("clock-differs", found, remedy, report);
        } else if apart.saturating_add(uncertainty_us) > CLOCK_US_MAX {
            report.of(
                self.theirs(),
                Level::CannotTell,
                "clock-differs",
                found,
                "Ask again when the hosts are less busy",
            );
        } else {
            report.of(self.theirs(), Level::Notice, "clock", found, "");
        }
    }

    fn judge_links(&self, report: &mut Report) {
        let (Some(mine), Some(theirs)) = (&self.mine.link, &self.meeting.theirs.link) else {
            return report.cannot_tell(
                "link",
                "Which interfaces the hosts are connected by is not known",
                "ip address",
            );
        };
        if mine.mtu != theirs.mtu {
            let found = format!(
                "{} there has MTU {}, {} here {}: between them large packets may vanish, and memory with them",
                theirs.interface, theirs.mtu, mine.interface, mine.mtu
            );
            let remedy = format!(
                "ip link set {} mtu {}, or the same here, and in both hosts' network settings",
                theirs.interface, mine.mtu
            );
            self.differs("mtu-differs", found, &remedy, report);
        }
        let drbd = self.mine.drbd.iter().flat_map(|drbd| &drbd.resources).flat_map(|resource| &resource.connections);
        if drbd.filter_map(interface).any(|interface| interface == mine.interface) {
            self.note_shared(mine, report);
        }
    }

    fn note_shared(&self, mine: &Link, report: &mut Report) {
        let found = format!(
            "DRBD's link and the relocation's are one ({}): what a migration sends, domains' writes wait for",
            mine.interface
        );
        report.note("link-shared", found);
    }

    /// Bridges that running domains are on.
    fn judge_bridges(&self, report: &mut Report) {
        let theirs = &self.meeting.theirs.bridges;
        let mut wanted: Vec<&String> = self.guests.iter().flat_map(|guest| &guest.bridges).collect();
        wanted.sort();
        wanted.dedup();
        for bridge in wanted.into_iter().filter(|bridge| !theirs.contains(bridge)) {
            let who =
                self.guests.iter().filter(|guest| guest.bridges.contains(bridge)).map(|guest| guest.name.as_str());
            let found = format!("It has no bridge {bridge}, which {} uses here", who.collect::<Vec<_>>().join(", "));
            let remedy =
                format!("There: ip link add {bridge} type bridge && ip link set {bridge} up, and its network settings");
            self.differs("bridge-missing", found, &remedy, report);
        }
    }

    fn judge_drbd(&self, mine: &Inventory, theirs: &Inventory, report: &mut Report) {
        if mine.dialect != theirs.dialect || mine.version != theirs.version {
            let found = format!("It has DRBD {}, this host {}", theirs.version, mine.version);
            match mine.dialect == theirs.dialect {
                true => report.of(self.theirs(), Level::Notice, "drbd-differs", found, ""),
                false => self.differs("drbd-differs", found, "Run the same release of DRBD on both", report),
            }
        }
        for resource in &mine.resources {
            match theirs.resources.iter().find(|other| other.name == resource.name) {
                Some(other) => self.judge_resource(resource, other, report),
                None if resource.connections.is_empty() => {}
                None => {
                    let found = format!("Resource {} is not up there", resource.name);
                    self.differs(
                        "resource-missing",
                        found,
                        &format!("If it is shared with that host, there: bascule drbd up {}", resource.name),
                        report,
                    );
                }
            }
        }
    }

    fn judge_resource(&self, mine: &Resource, theirs: &Resource, report: &mut Report) {
        let name = &mine.name;
        for volume in &mine.volumes {
            match theirs.volume(volume.number) {
                Some(other) => self.judge_volume(name, volume, other, report),
                None => {
                    let found = format!("Volume {name}/{} is not up there", volume.number);
                    self.differs("volume-missing", found, &format!("There: drbdadm adjust {name}"), report);
                }
            }
        }
        // Each end's connection is the other's from behind. Where one has none, the host's own check says so.
        let both = mine.connections.iter().flat_map(|here| theirs.connections.iter().map(move |there| (here, there)));
        for (here, there) in both.filter(|(here, there)| here.mine == there.peers && here.peers == there.mine) {
            self.judge_connection((mine, here), (theirs, there), report);
        }
    }

    fn judge_volume(&self, name: &str, mine: &Volume, theirs: &Volume, report: &mut Report) {
        let number = mine.number;
        if mine.size_sectors != theirs.size_sectors {
            let found =
                format!("{name}/{number} has {} sectors there and {} here", theirs.size_sectors, mine.size_sectors);
            report.of(
                self.theirs(),
                Level::Error,
                "size-differs",
                found,
                "Two resources of one name? Compare drbdadm dump on both hosts",
            );
        }
        if mine.minor != theirs.minor {
            let found =
                format!("{name}/{number} is minor {} there and {} here: attach it by name", theirs.minor, mine.minor);
            report.of(self.theirs(), Level::Notice, "minor-differs", found, "");
        }
    }

    fn judge_connection(
        &self,
        (mine, here): (&Resource, &Connection),
        (theirs, there): (&Resource, &Connection),
        report: &mut Report,
    ) {
        let name = &mine.name;
        if here.two_primaries != there.two_primaries && !self.migrating.contains(name) {
            let which = if here.two_primaries { "here and not there" } else { "there and not here" };
            let found = format!("Two Primaries are allowed on {name} {which}");
            self.differs("two-primaries-differ", found, &format!("On both: drbdadm adjust {name}"), report);
        } else if here.two_primaries && !self.migrating.contains(name) {
            let found = format!("Two Primaries are allowed on {name}: DRBD refuses no second start");
            report.warning(
                "two-primaries-now",
                found,
                format!("Nothing needs it now: type drbdadm adjust {name} on both"),
            );
        }
        if !(here.connected && there.connected) {
            return;
        }
        let mut views = vec![
            (format!("{name}'s role here"), &mine.role, &there.peer_role),
            (format!("{name}'s role there"), &theirs.role, &here.peer_role),
        ];
        for (whose, resource, connection) in [("here", mine, there), ("there", theirs, here)] {
            let seen = connection.volumes.iter().filter_map(|seen| Some((seen, resource.volume(seen.number)?)));
            views.extend(
                seen.map(|(seen, is)| (format!("the disk of {name}/{} {whose}", is.number), &is.disk, &seen.disk)),
            );
        }
        for (what, is, seen) in views.into_iter().filter(|(_, is, seen)| is != seen) {
            let found = format!("The hosts do not agree: {what} is {is}, and the other one sees {seen}");
            self.differs(
                "views-differ",
                found,
                "It may be a moment's: ask again; if it stays: drbdadm disconnect and connect",
                report,
            );
        }
    }
}

/// The interface of this host's end of a connection.
fn interface(connection: &Connection) -> Option<String> {
    let mine: SocketAddr = connection.mine.parse().ok()?;
    interface_of(mine.ip())
}

#[cfg(test)]
mod tests;
