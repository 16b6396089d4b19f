//! The lab's own promises, kept by a running one: links that can be cut alone, power that can be taken, commands whose end is seen.
//! Nothing else may use the lab meanwhile, and no domain may run in it.

use std::time::{Duration, Instant};

use bascule_lab::{Lab, Link, Node};

const REPLICATED_LIMIT: Duration = Duration::from_secs(120);
const LINK_LIMIT: Duration = Duration::from_secs(30);

/// A network of the nodes' and the first three numbers of its addresses.
const NETWORKS: [(Link, &str); 3] =
    [(Link::Relocation, "10.99.0."), (Link::Replication, "10.98.0."), (Link::Lan, "10.97.0.25")];

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn each_link_can_be_cut_alone() {
    let lab = Lab::attach().unwrap();
    for (link, network) in NETWORKS {
        heals(&lab, link, network);
    }
    for (link, network) in NETWORKS {
        lab.cut(link).unwrap();
        for (other, network) in NETWORKS {
            assert_eq!(reaches_peer(&lab, network), other != link, "{other:?} while {link:?} is cut");
        }
        lab.restore(link).unwrap();
        heals(&lab, link, network);
    }
    lab.wait_until_replicated(REPLICATED_LIMIT).unwrap();
}

/// A cable that was put back needs a moment: the carrier, and an address that is asked for again.
fn heals(lab: &Lab, link: Link, network: &str) {
    let deadline = Instant::now() + LINK_LIMIT;
    while !reaches_peer(lab, network) {
        assert!(Instant::now() < deadline, "{link:?} does not heal");
    }
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_node_whose_power_was_taken_comes_back_and_catches_up() {
    let lab = Lab::attach().unwrap();
    let (node1, node2) = (lab.node(1), lab.node(2));
    node2.power_off().unwrap();
    assert!(!node2.is_on());
    let programs = "sha256sum /usr/sbin/bascule /etc/xen/scripts/block-drbd";
    node1.ok("drbdadm primary r2 && dd if=/dev/urandom of=/dev/drbd3 bs=64k count=16 oflag=direct && drbdadm secondary r2").unwrap();
    lab.cut(Link::Relocation).unwrap();
    node2.power_on().unwrap();
    assert!(!reaches_peer(&lab, "10.99.0."), "a cable that was out is in after power-on");
    lab.restore(Link::Relocation).unwrap();
    lab.wait_until_replicated(REPLICATED_LIMIT).unwrap();
    assert_eq!(sum_of_r2(node1), sum_of_r2(node2));
    assert_eq!(node1.ok(programs).unwrap(), node2.ok(programs).unwrap());
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn nothing_of_a_node_reaches_the_world() {
    let lab = Lab::attach().unwrap();
    for node in lab.nodes() {
        assert_eq!(node.ok("ip route show default").unwrap(), "");
        assert!(!node.run("nc -w 2 10.0.2.2 22 </dev/null").unwrap().success());
    }
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn a_command_tells_how_it_ended() {
    let lab = Lab::attach().unwrap();
    let node = lab.node(1);
    let output = node.run("echo out; echo err >&2; exit 7").unwrap();
    assert_eq!((output.status, output.stdout.as_str(), output.stderr.as_str()), (7, "out\n", "err\n"));
    assert!(node.ok("exit 3").is_err());
    assert!(node.run_for("sleep 30", Duration::from_millis(500)).is_err());

    let mut sleeper = node.spawn("echo begun; exec sleep 60").unwrap();
    assert!(sleeper.is_running().unwrap());
    sleeper.signal("TERM").unwrap();
    let ended = sleeper.wait(Duration::from_secs(10)).unwrap();
    assert_eq!((ended.success(), ended.stdout.as_str()), (false, "begun\n"));
}

#[test]
#[ignore = "needs the lab: cargo xtask test"]
fn files_go_in_and_out_unchanged() {
    let lab = Lab::attach().unwrap();
    let contents: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    lab.node(2).write_file("/tmp/it's a file", 0o640, &contents).unwrap();
    assert_eq!(lab.node(2).read_file("/tmp/it's a file").unwrap(), contents);
    assert_eq!(lab.node(2).ok("stat -c %a \"/tmp/it's a file\"").unwrap(), "640\n");
    assert!(lab.node(2).read_file("/tmp/no such file").is_err());
}

/// Whether node1 reaches node2 on a network.
fn reaches_peer(lab: &Lab, network: &str) -> bool {
    lab.node(1).run(&format!("ping -c 1 -W 2 {network}2")).unwrap().success()
}

/// What the disk under the volume holds, read on either node without a change of roles.
fn sum_of_r2(node: &Node) -> String {
    node.ok("dd if=/dev/vdc4 bs=1M count=128 iflag=direct status=none | sha256sum").unwrap()
}
