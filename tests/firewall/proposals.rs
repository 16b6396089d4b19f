//! Proposals, loaded: the port is closed to all but the peers, and the host is content with it.

use std::time::Duration;

use bascule::firewall::{Level, Peer, Proposal, check};

use crate::host::{ADDRESSES, Host, feed, load, needs, run};

const SOON: Duration = Duration::from_secs(30);
const NEVER: Duration = Duration::from_millis(1200);

/// The first of each family are peers.
fn peers() -> [&'static str; 2] {
    [ADDRESSES[0], ADDRESSES[2]]
}

fn proposal() -> Proposal {
    check(&needs(&peers())).expect("the rules are read").proposal.expect("a proposal")
}

/// The peers come through and the others do not, and the report says so.
fn assert_closed(host: &Host) {
    let report = check(&needs(&peers())).expect("the rules are read");
    assert_eq!((report.worst(), report.proposal.as_ref()), (None, None), "{report:#?}");
    let connect = [0, 2].map(|at| host.connects(at, SOON));
    let refused = [1, 3].map(|at| host.connects(at, NEVER));
    assert_eq!((connect, refused), ([true; 2], [false; 2]));
    std::net::TcpStream::connect_timeout(&([127, 0, 0, 1], 8002).into(), SOON).expect("this host reaches itself");
}

#[test]
#[ignore = "needs root and nft: cargo xtask test"]
fn a_table_of_its_own_closes_the_port_and_can_be_loaded_again() {
    let host = Host::new();
    load("table inet filter { chain input { type filter hook input priority 0; ct state established accept; } }");
    let report = check(&needs(&peers())).expect("the rules are read");
    assert_eq!(report.worst(), Some(Level::Warning), "{report:#?}");
    let proposal = proposal();
    assert_eq!((&proposal.iptables, proposal.open.as_slice()), (&None, [].as_slice()));
    let file = proposal.nft.expect("the port is open");
    feed("nft", &["-f", "-"], &file);
    assert_closed(&host);
    feed("nft", &["-f", "-"], &file);
    assert_closed(&host);
    // Another peer: our own table refuses it, and a new one is proposed, not a hole in that.
    let mut more = needs(&peers());
    let other = "10.77.200.0/24".parse().expect("a network");
    more.peers.known.push(Peer { name: "other".into(), nets: vec![other] });
    let report = check(&more).expect("the rules are read");
    assert_eq!(report.worst(), Some(Level::Error));
    let proposal = report.proposal.expect("a proposal");
    assert!(proposal.open.is_empty());
    feed("nft", &["-f", "-"], &proposal.nft.expect("a new table"));
    assert!(host.connects(1, SOON));
}

#[test]
#[ignore = "needs root and iptables: cargo xtask test"]
fn the_same_with_iptables() {
    for tools in [["iptables-nft", "ip6tables-nft"], ["iptables-legacy", "ip6tables-legacy"]] {
        let host = Host::new();
        for tool in tools {
            run(tool, &["-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"]);
        }
        let commands = proposal().iptables.expect("iptables is in use");
        let commands =
            commands.replace("ip6tables ", &format!("{} ", tools[1])).replace("iptables ", &format!("{} ", tools[0]));
        for _ in 0..2 {
            feed("sh", &["-e"], &commands);
            assert_closed(&host);
        }
    }
}

#[test]
#[ignore = "needs root and nft: cargo xtask test"]
fn a_chain_that_refuses_a_peer_gets_a_rule_for_it() {
    let host = Host::new();
    load(
        "table inet filter { chain input { type filter hook input priority 0; policy drop; meta l4proto icmpv6 accept; iif lo accept; } }",
    );
    let report = check(&needs(&peers())).expect("the rules are read");
    assert_eq!(report.worst(), Some(Level::Error));
    let proposal = proposal();
    assert_eq!((&proposal.nft, proposal.open.len()), (&None, 2), "{proposal:#?}");
    for command in proposal.open {
        feed("nft", &["-f", "-"], command.strip_prefix("nft ").expect("a command of nft"));
    }
    assert_closed(&host);
}
