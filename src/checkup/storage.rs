//! What this host replicates: connected, up to date, or on the way there. What the files say of it is [`crate::drbd::review`]'s.

use super::report::{Finding, Report};
use crate::replication::{Connection, Inventory, Resource};

/// DRBD's word for a disk that is as good as it can be.
pub(super) const UP_TO_DATE: &str = "UpToDate";

/// What stands against domains that move in the state of the resources; without the module there are none.
#[must_use]
pub fn judge(node: &str, inventory: Option<&Inventory>) -> Vec<Finding> {
    let mut report = Report::new(node);
    let Some(inventory) = inventory else {
        report.warning(
            "drbd-not-loaded",
            "DRBD's module is not loaded: no volume is replicated",
            "Type: modprobe drbd",
        );
        return report.findings();
    };
    let Inventory { version, dialect, resources } = inventory;
    report.note("drbd", format!("DRBD {version}, netlink of {dialect}, {} resources up", resources.len()));
    resources.iter().for_each(|resource| judge_resource(resource, &mut report));
    report.findings()
}

/// A resource of 8.4 without any connection is told by the review, which knows whether it should have one.
fn judge_resource(resource: &Resource, report: &mut Report) {
    let name = &resource.name;
    for connection in resource.connections.iter().filter(|connection| !connection.connected) {
        let found = format!("{name} is not connected to {}: {}", connection.peers, connection.state);
        report.warning("not-connected", found, format!("Check the replication link, then: drbdadm connect {name}"));
    }
    let resyncing = resource.connections.iter().any(resyncs);
    if resyncing {
        let found = format!("{name} is being resynchronised or verified: its domains cannot move until that has ended");
        report.warning("resync", found, format!("Wait: bascule status {name} shows it"));
    }
    for volume in resource.volumes.iter().filter(|volume| volume.disk != UP_TO_DATE && !resyncing) {
        let found = format!("{name}/{} is {} here, not {UP_TO_DATE}", volume.number, volume.disk);
        report.error(
            "not-up-to-date",
            found,
            format!("Look at it: bascule status {name}; a detached disk: drbdadm attach {name}"),
        );
    }
    for connection in resource.connections.iter().filter(|connection| connection.connected && !resyncing) {
        for seen in connection.volumes.iter().filter(|seen| seen.disk != UP_TO_DATE) {
            let found = format!("{name}/{} is {} on {}, not {UP_TO_DATE}", seen.number, seen.disk, connection.peers);
            report.error("peer-not-up-to-date", found, format!("Look at it there: bascule status {name}"));
        }
    }
}

fn resyncs(connection: &Connection) -> bool {
    connection.connected && connection.volumes.iter().any(|volume| volume.resyncing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::{PeerVolume, Volume};

    fn judged(change: impl FnOnce(&mut Resource)) -> Vec<String> {
        let volume = Volume { number: 0, minor: 0, size_sectors: 2048, disk: UP_TO_DATE.into() };
        let seen =
            PeerVolume { number: 0, disk: UP_TO_DATE.into(), replication: "Established".into(), resyncing: false };
        let connection =
            Connection { state: "Connected".into(), connected: true, volumes: vec![seen], ..Connection::default() };
        let mut resource = Resource {
            name: "r0".into(),
            role: "Secondary".into(),
            volumes: vec![volume],
            connections: vec![connection],
        };
        change(&mut resource);
        let inventory = Inventory { version: "8.4.11".into(), dialect: "8.4".into(), resources: vec![resource] };
        judge("node1", Some(&inventory)).into_iter().map(|finding| finding.code).filter(|code| code != "drbd").collect()
    }

    #[test]
    fn each_state_that_is_not_good_has_its_code() {
        assert_eq!(judged(|_| {}), [""; 0]);
        assert_eq!(judged(|resource| resource.connections.clear()), [""; 0]);
        assert_eq!(judged(|resource| resource.connections[0].connected = false), ["not-connected"]);
        assert_eq!(judged(|resource| resource.volumes[0].disk = "Diskless".into()), ["not-up-to-date"]);
        assert_eq!(
            judged(|resource| resource.connections[0].volumes[0].disk = "Outdated".into()),
            ["peer-not-up-to-date"]
        );
        let resync = |resource: &mut Resource| {
            resource.volumes[0].disk = "Inconsistent".into();
            resource.connections[0].volumes[0].resyncing = true;
        };
        assert_eq!(judged(resync), ["resync"]);
    }
}
