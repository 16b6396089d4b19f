//! Rulesets of iptables, each by the program that keeps them in nf_tables and by the one with tables of its own.

use crate::host::{Host, run};

const BACKENDS: [[&str; 2]; 2] = [["iptables-nft", "ip6tables-nft"], ["iptables-legacy", "ip6tables-legacy"]];

/// `4 …` is given to iptables and `6 …` to ip6tables, one line each.
fn compare(rulesets: &[(&str, &str)]) {
    for tools in BACKENDS {
        let host = Host::new();
        for (expected, rules) in rulesets {
            for tool in tools {
                run(tool, &["-P", "INPUT", "ACCEPT"]);
                for table in ["filter", "mangle", "raw", "nat"] {
                    run(tool, &["-t", table, "-F"]);
                    run(tool, &["-t", table, "-X"]);
                }
            }
            for line in rules.lines().map(str::trim).filter(|line| !line.is_empty()) {
                let (family, words) = line.split_once(' ').expect("a family");
                let tool = tools[usize::from(family == "6")];
                run(tool, &words.split_whitespace().collect::<Vec<_>>());
            }
            host.compare(expected, &format!("{}\n{rules}", tools[0]));
        }
    }
}

#[test]
#[ignore = "needs root and iptables: cargo xtask test"]
fn chains_and_addresses() {
    compare(&[
        ("++++", ""),
        ("--++", "4 -P INPUT DROP"),
        (
            "+-+-",
            "4 -P INPUT DROP
             4 -A INPUT -i lo -j ACCEPT
             4 -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT
             4 -A INPUT -s 10.77.0.2 -p tcp --dport 8002 -j ACCEPT
             6 -A INPUT -p ipv6-icmp -j ACCEPT
             6 -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
             6 -A INPUT -s fd77::/64 -p tcp -m tcp --dport 8002 -j ACCEPT
             6 -A INPUT -j REJECT",
        ),
        ("-+++", "4 -A INPUT ! -s 10.77.200.0/24 -p tcp --dport 8000:8010 -j REJECT --reject-with tcp-reset"),
        (
            "+--+",
            "4 -N PEERS
             4 -A PEERS -s 10.77.0.2 -j RETURN
             4 -A PEERS -j DROP
             4 -A INPUT -p tcp -m tcp --dport 8002 -m comment --comment relocation -j PEERS
             6 -N SIX
             6 -A SIX -s fd77::2 -j DROP
             6 -A INPUT -p tcp --dport 8002 -g SIX
             6 -A INPUT -p tcp --dport 8002 -j DROP
             6 -I INPUT -s fd77:0:0:200::3 -j ACCEPT",
        ),
        ("++--", "6 -t mangle -A PREROUTING -p tcp --dport 8002 -j DROP"),
        ("--++", "4 -t raw -A PREROUTING -p tcp ! --dport 22 -j DROP"),
        (
            "++++",
            "4 -A INPUT -p udp --dport 8002 -j DROP\n4 -A INPUT -i lo -j DROP\n6 -A INPUT -p tcp --dport 8003 -j DROP",
        ),
    ]);
}

#[test]
#[ignore = "needs root and iptables: cargo xtask test"]
fn matches() {
    compare(&[
        ("--++", "4 -A INPUT -p tcp -m multiport --dports 22,8000:8005,9000 -j DROP"),
        (
            "++++",
            "4 -A INPUT -p tcp -m multiport --dports 22,8003:8005 -j DROP\n6 -A INPUT -p tcp -m multiport ! --dports 8002 -j DROP",
        ),
        (
            "-+-+",
            "4 -A INPUT -m iprange --src-range 10.77.0.1-10.77.0.9 -j DROP\n6 -A INPUT -p tcp -m iprange ! --src-range fd77:0:0:1::-fd77:ffff:: -j DROP",
        ),
        (
            "++++",
            "4 -A INPUT -p tcp ! --syn -m conntrack --ctstate NEW -j DROP\n6 -A INPUT -m conntrack --ctstate INVALID -j DROP",
        ),
        ("----", "4 -A INPUT -p tcp --syn -j DROP\n6 -A INPUT -p tcp -m conntrack ! --ctstate ESTABLISHED -j DROP"),
        (
            "--++",
            "4 -A INPUT -m addrtype --dst-type LOCAL -p tcp --dport 8002 -j DROP\n6 -A INPUT -m addrtype ! --dst-type LOCAL -p tcp -j DROP",
        ),
        (
            "--++",
            "4 -A INPUT -m pkttype --pkt-type unicast -p tcp -j DROP\n6 -A INPUT -m pkttype --pkt-type multicast -p tcp -j DROP",
        ),
        (
            "++++",
            "4 -t nat -N DOCKER
             4 -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
             4 -t nat -A DOCKER -p tcp --dport 8080 -j DNAT --to-destination 10.77.9.9:80
             4 -A INPUT -m limit --limit 3/min -j LOG
             4 -A INPUT -j MARK --set-mark 3",
        ),
    ]);
}

#[test]
#[ignore = "needs root and iptables: cargo xtask test"]
fn what_cannot_be_told_is_not() {
    compare(&[
        ("??++", "4 -A INPUT -p tcp --dport 8002 -m limit --limit 1/min -j DROP"),
        ("?+++", "4 -A INPUT -i wire -s 10.77.0.2 -j DROP"),
        ("++??", "6 -A INPUT -p tcp --sport 1024: -j DROP"),
        ("??++", "4 -A INPUT -p tcp -m recent --name x --set -j DROP"),
        ("??++", "4 -A INPUT -p tcp --dport 8002 -j NFQUEUE"),
        ("??++", "4 -t nat -A PREROUTING -p tcp --dport 8002 -j REDIRECT --to-ports 9"),
        (
            "--++",
            "4 -A INPUT -i wire -j DROP\n4 -A INPUT -p tcp -m recent --name x --rcheck -j DROP\n4 -A INPUT -p tcp -j DROP",
        ),
    ]);
}
