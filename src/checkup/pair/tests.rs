use std::time::Duration;

use super::*;
use crate::protocol::Welcome;
use crate::replication::PeerVolume;
use crate::tls::Protection;

const UP_TO_DATE: &str = "UpToDate";

/// r0 as one of the two hosts has it, Primary on node 1.
fn resource(node: u8) -> Resource {
    let [mine, peers] = [node, 3 - node].map(|nr| format!("10.98.0.{nr}:7788"));
    let [role, peer_role] = [node, 3 - node].map(|nr| if nr == 1 { "Primary" } else { "Secondary" }.to_owned());
    let seen = PeerVolume { number: 0, disk: UP_TO_DATE.into(), replication: "Established".into(), resyncing: false };
    Resource {
        name: "r0".into(),
        role,
        volumes: vec![Volume { number: 0, minor: 0, size_sectors: 2048, disk: UP_TO_DATE.into() }],
        connections: vec![Connection {
            state: "Connected".into(),
            connected: true,
            peer_role,
            mine,
            peers,
            two_primaries: false,
            volumes: vec![seen],
        }],
    }
}

fn facts(node: u8) -> Facts {
    let address = [10, 99, 0, node].into();
    Facts {
        node: format!("node{node}"),
        program: PROGRAM.into(),
        protocol: protocol::VERSION,
        xen: Ok(Hypervisor {
            version: "4.17.5".into(),
            stream: 2,
            free_kib: 512 << 10,
            hap: false,
            shadow: true,
            pv: true,
            hvm: true,
            dom0_mem: true,
        }),
        drbd: Ok(Inventory { version: "8.4.11".into(), dialect: "8.4".into(), resources: vec![resource(node)] }),
        bridges: vec!["xenbr0".into()],
        link: Some(Link { address, interface: "eth1".into(), mtu: 9000 }),
    }
}

fn guest() -> Guest {
    Guest { name: "vm0".into(), memory_max_kib: 128 << 10, bridges: vec!["xenbr0".into()] }
}

/// The findings that are more than a note, after a change to what node 2 tells and to its clock.
fn found(change: impl FnOnce(&mut Facts, &mut Clock)) -> Vec<Finding> {
    let (mut theirs, mut clock) = (facts(2), Clock { offset_us: 0, uncertainty_us: 20_000 });
    change(&mut theirs, &mut clock);
    let meeting = Meeting {
        theirs,
        local: [10, 99, 0, 1].into(),
        protection: Protection::Clear,
        connect: Duration::from_millis(7),
        clock,
    };
    let answer = Answer::Met(Box::new(meeting));
    let all = compare("node1", "node2", &answer, Some(&facts(1)), &[guest()], &[]);
    all.into_iter().filter(|finding| finding.severity != Level::Notice).collect()
}

fn codes(change: impl FnOnce(&mut Facts, &mut Clock)) -> Vec<String> {
    found(change).into_iter().map(|finding| finding.code).collect()
}

fn drbd(change: impl FnOnce(&mut Inventory)) -> Vec<String> {
    codes(|theirs, _| change(theirs.drbd.as_mut().expect("DRBD")))
}

fn xen(change: impl FnOnce(&mut Hypervisor)) -> Vec<String> {
    codes(|theirs, _| change(theirs.xen.as_mut().expect("Xen")))
}

#[test]
fn two_hosts_that_fit_have_nothing_and_each_difference_its_code() {
    assert_eq!(found(|_, _| {}), []);
    assert_eq!(codes(|theirs, _| theirs.program = "bascule 0.0.1".into()), ["program-differs"]);
    assert_eq!(xen(|xen| xen.stream = 3), ["stream-differs"]);
    assert_eq!(xen(|xen| xen.version = "4.20.0".into()), ["xen-differs"]);
    assert_eq!(xen(|xen| xen.version = "4.17.7".into()), [""; 0], "of one release");
    assert_eq!(xen(|xen| xen.hvm = false), ["kind-missing"]);
    assert_eq!(xen(|xen| xen.shadow = false), ["no-way-back", "no-way-back"]);
    assert_eq!(xen(|xen| xen.free_kib = 64 << 10), ["peer-memory-low"]);
    assert_eq!(codes(|theirs, _| theirs.xen = Err("no".into())), ["xen"]);
    assert_eq!(codes(|theirs, _| theirs.link = None), ["link"]);
    assert_eq!(drbd(|drbd| drbd.resources.clear()), ["resource-missing"]);
    assert_eq!(drbd(|drbd| drbd.dialect = "9".into()), ["drbd-differs"]);
    assert_eq!(drbd(|drbd| drbd.resources[0].volumes.clear()), ["volume-missing"]);
    assert_eq!(drbd(|drbd| drbd.resources[0].volumes[0].size_sectors = 4096), ["size-differs"]);
    assert_eq!(drbd(|drbd| drbd.resources[0].volumes[0].minor = 7), [""; 0], "a note");
    assert_eq!(drbd(|drbd| drbd.resources[0].role = "Primary".into()), ["views-differ"]);
    assert_eq!(drbd(|drbd| drbd.resources[0].connections[0].volumes[0].disk = "Outdated".into()), ["views-differ"]);
    assert_eq!(drbd(|drbd| drbd.resources[0].connections[0].two_primaries = true), ["two-primaries-differ"]);
}

#[test]
fn what_is_wrong_there_is_said_of_that_host_with_what_to_type_there() {
    let rows: [(&str, &str, Vec<Finding>); 2] = [
        ("bridge-missing", "ip link add xenbr0 type bridge", found(|theirs, _| theirs.bridges.clear())),
        (
            "mtu-differs",
            "ip link set eth1 mtu 9000",
            found(|theirs, _| {
                theirs.link = theirs.link.take().map(|link| Link { mtu: 1500, ..link });
            }),
        ),
    ];
    for (code, remedy, found) in rows {
        let [finding] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((finding.code.as_str(), finding.node.as_str(), finding.severity), (code, "node2", Level::Warning));
        assert!(finding.remedy.contains(remedy), "{finding:?}");
    }
}

#[test]
fn clocks_differ_where_the_way_of_the_messages_does_not_explain_it() {
    let clock = |offset_us, uncertainty_us| found(|_, clock| *clock = Clock { offset_us, uncertainty_us });
    assert_eq!(clock(900_000, 20_000), []);
    let ahead = clock(5_000_000, 20_000);
    assert!(ahead[0].found.contains("5.000 s ahead of") && ahead[0].severity == Level::Warning, "{ahead:?}");
    assert!(clock(-5_000_000, 20_000)[0].found.contains("5.000 s behind"));
    assert_eq!(clock(1_500_000, 900_000)[0].severity, Level::CannotTell);
    assert_eq!(clock(i64::MIN, i64::MAX)[0].severity, Level::CannotTell);
}

#[test]
fn a_peer_that_tells_nothing_is_a_finding() {
    let said = |answer| compare("node1", "node2", &answer, None, &[], &[]).remove(0);
    let welcome = Welcome { version: 1, node: "node2".into(), program: "bascule 0.0.1".into() };
    let older = said(Answer::Older(welcome));
    assert_eq!((older.code.as_str(), older.severity), ("peer-older", Level::Warning));
    let silent = said(Answer::Silent("refused".into()));
    assert!(silent.code == "peer-silent" && silent.node == "node2" && silent.severity == Level::Error);
    assert_eq!(said(Answer::Nonsense("a hole".into())).code, "peer-nonsense");
}
