//! Rulesets of nft, each with what becomes of the four addresses.

use crate::host::{Host, load, run};

/// Loads each in turn.
fn compare(rulesets: &[(&str, &str)]) {
    let host = Host::new();
    for (expected, rules) in rulesets {
        run("nft", &["flush", "ruleset"]);
        load(rules);
        host.compare(expected, rules);
    }
}

/// Rules in a chain at the input hook that accepts the rest.
macro_rules! input {
    ($rules:literal) => {
        concat!("table inet t { chain i { type filter hook input priority 0; policy accept;\n", $rules, "\n}}")
    };
}

/// The same in a chain that drops the rest, but for what IPv6 lives of.
macro_rules! closed {
    ($rules:literal) => {
        concat!(
            "table inet t { chain i { type filter hook input priority 0; policy drop;\nmeta l4proto ipv6-icmp accept\n",
            $rules,
            "\n}}"
        )
    };
}

#[test]
#[ignore = "needs root and nft: cargo xtask test"]
fn chains_policies_and_addresses() {
    compare(&[
        ("++++", ""),
        ("++++", "table inet t { chain i { type filter hook input priority 0; policy accept; } }"),
        ("----", closed!("")),
        ("----", closed!("iif lo accept\nct state established,related accept\nct state invalid drop")),
        ("++++", closed!("ct state new accept")),
        ("+-+-", closed!("ip saddr 10.77.0.2 tcp dport 8002 accept\nip6 saddr fd77::2 tcp dport 8002 accept")),
        ("----", closed!("ip saddr 10.77.0.2 tcp dport 8003 accept\nip6 saddr fd77::2 udp dport 8002 accept")),
        ("+-+-", closed!("ip saddr 10.77.0.0/24 accept\nip6 saddr fd77::/64 accept")),
        ("-+--", closed!("ip saddr 10.77.128.0/17 tcp dport 8000-8010 accept")),
        ("-+-+", input!("ip saddr 10.77.0.1-10.77.0.9 drop\nip6 saddr fd77::-fd77::ff drop")),
        ("+--+", input!("ip saddr > 10.77.100.0 drop\nip6 saddr < fd77:0:0:1:: drop")),
        ("+-++", input!("ip saddr != 10.77.0.2 tcp dport { 22, 8002 } drop")),
        ("-+++", input!("ip saddr 10.77.0.2 tcp dport 8002 reject with tcp reset")),
        ("--++", input!("meta nfproto ipv4 tcp dport >= 8002 counter log drop")),
        (
            "++--",
            "table ip6 t { chain i { type filter hook input priority 0; policy drop; icmpv6 type != 1 accept; } }",
        ),
        ("--++", "table ip t { chain p { type filter hook prerouting priority -150; tcp dport 8002 drop; } }"),
        (
            "++++",
            "table inet t { chain o { type filter hook output priority 0; tcp dport 8002 drop; }
                  chain f { type filter hook forward priority 0; policy drop; } }",
        ),
        (
            "----",
            "table inet a { chain i { type filter hook input priority -5; tcp dport 8002 accept; } }
                  table inet b { chain i { type filter hook input priority 5; tcp dport 8002 drop; } }",
        ),
        ("++++", "table inet t { flags dormant; chain i { type filter hook input priority 0; policy drop; } }"),
    ]);
}

#[test]
#[ignore = "needs root and nft: cargo xtask test"]
fn chains_that_lead_to_each_other() {
    compare(&[
        ("+--+", "table inet t {
            chain peers { ip saddr 10.77.0.2 accept; ip6 saddr fd77::2 return; tcp dport 8002 drop; }
            chain six { ip6 saddr fd77::2 jump peers; meta nfproto ipv6 tcp dport 8002 goto last; }
            chain last { ip6 saddr fd77::2 tcp dport 8002 drop; }
            chain i { type filter hook input priority 0; policy accept; jump six; meta nfproto ipv4 jump peers; } }"),
        ("-+++", "table inet t {
            chain a { ip saddr 10.77.0.2 goto b; }
            chain b { tcp dport 22 accept; }
            chain i { type filter hook input priority 0; policy accept; jump a; ip saddr 10.77.0.2 tcp dport 8002 drop; } }"),
        ("-+++", "table inet t {
            chain b { tcp dport 22 accept; }
            chain i { type filter hook input priority 0; policy drop; meta l4proto icmpv6 accept; ip saddr 10.77.0.2 goto b; accept; } }"),
        ("+---", "table inet t { chain i { type filter hook input priority 0; policy accept;
            ip saddr 10.77.0.2 return; tcp dport 8002 drop; } }"),
    ]);
}

#[test]
#[ignore = "needs root and nft: cargo xtask test"]
fn sets_and_maps() {
    compare(&[
        ("+-+-", "table inet t {
            set v4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/24, 10.77.0.0/25, 10.88.0.1-10.99.0.7 } }
            set v6 { type ipv6_addr; elements = { fd77::2, fd77::9 } }
            chain i { type filter hook input priority 0; policy drop; meta l4proto icmpv6 accept
              ip saddr @v4 accept; ip6 saddr @v6 accept; } }"),
        ("-+++", input!("ip saddr vmap { 10.77.0.2 : drop, 10.77.200.0/24 : accept }")),
        ("-+--", closed!("ip saddr vmap { 10.77.0.0/24 : drop, 10.77.1.0-10.77.250.0 : accept, 10.78.0.0/16 : drop }")),
        ("++--", closed!("ct state vmap { established : drop, new : jump n, invalid : drop }\n}\nchain n { ip saddr 10.0.0.0/8 accept")),
        ("+-++", input!("ip saddr . tcp dport { 10.77.200.3 . 8002, 10.77.0.2 . 8003 } drop")),
        ("-+-+", "table inet t {
            set c { type ipv4_addr . inet_service; flags interval; elements = { 10.77.0.0/24 . 8000-8005, 10.77.200.0/24 . 9000-9001 } }
            set d { type ipv6_addr . inet_service; flags interval; elements = { fd77::/64 . 8002, fd77:0:0:200::/64 . 22 } }
            chain i { type filter hook input priority 0; policy accept; ip saddr . tcp dport @c drop; ip6 saddr . tcp dport @d drop; } }"),
        ("+-+-", "table inet t {
            map m { type inet_service . ipv4_addr : verdict; elements = { 8002 . 10.77.0.2 : accept, 8002 . 10.77.200.3 : drop } }
            chain i { type filter hook input priority 0; policy accept; tcp dport . ip saddr vmap @m
              ip6 saddr != { fd77::2, ::1 } tcp dport 8002 reject; } }"),
        ("++++", input!("tcp dport != { 22, 8002 } drop\ntcp dport vmap { 22 : drop, 8000-8001 : drop, 8003-9000 : drop }")),
        ("----", input!("tcp dport { 22, 8000-8005 } drop")),
        ("-+-+", input!("ip saddr . meta l4proto { 10.77.0.2 . tcp } drop\nip6 saddr . meta l4proto { fd77::2 . tcp } drop")),
        ("+-++", "table inet t { set s { type ipv4_addr; elements = { 10.77.0.2, * } }
            chain i { type filter hook input priority 0; policy accept; ip saddr vmap { 10.77.0.2 : accept, * : drop }; } }"),
    ]);
}

#[test]
#[ignore = "needs root and nft: cargo xtask test"]
fn what_is_known_of_the_packet() {
    compare(&[
        ("++++", closed!("tcp flags & (fin|syn|rst|ack) == syn accept")),
        ("++++", input!("tcp flags & (fin|syn|rst|ack) != syn ct state new drop\ntcp flags == 0x0 drop")),
        ("++++", closed!("fib daddr type local accept")),
        ("++++", closed!("meta pkttype host tcp dport 8002 accept")),
        ("++++", input!("ip frag-off & 0x1fff != 0 drop\nip version != 4 drop\nip protocol != tcp drop")),
        ("++++", input!("iifname lo drop\niifname { \"lo\", \"lo\" } drop\niif lo drop")),
        ("----", input!("iifname != lo tcp dport 8002 drop")),
        ("++++", input!("ct state untracked drop\nct direction reply drop")),
        ("--++", closed!("meta protocol ip6 accept")),
        ("++--", closed!("meta protocol ip ip protocol tcp th dport 8002 accept")),
    ]);
}

#[test]
#[ignore = "needs root and nft: cargo xtask test"]
fn what_cannot_be_told_is_not() {
    compare(&[
        ("????", closed!("iifname wire accept")),
        ("????", input!("tcp dport 8002 limit rate 1/minute drop")),
        ("?+++", input!("ip saddr 10.77.0.2 meta mark 7 drop")),
        ("??++", input!("ip daddr 10.77.0.1 tcp dport 8002 drop")),
        ("????", input!("tcp sport 1024-65535 tcp dport 8002 drop")),
        ("????", "table inet t { chain r { type filter hook prerouting priority raw; notrack; }
                  chain i { type filter hook input priority 0; ct state new drop; } }"),
        ("??++", "table ip t { chain d { type nat hook prerouting priority dstnat; tcp dport 8002 redirect to :9; } }"),
        ("++++", "table ip t { chain d { type nat hook prerouting priority dstnat; tcp dport 8003 redirect to :9; } }"),
        ("????", "table netdev t { chain g { type filter hook ingress device wire priority 0; tcp dport 8002 drop; } }"),
        ("?+++", "table inet t { set s { type ipv4_addr; flags dynamic; timeout 1h; }
                  chain i { type filter hook input priority 0; ip saddr 10.77.0.2 add @s { ip saddr limit rate over 1/hour } drop; } }"),
        // Where both ways lead to the same, it can be told.
        ("----", closed!("iifname wire drop\nlimit rate 1/second drop")),
        ("++++", input!("iifname wire accept\nlimit rate 1/second log\nip daddr 10.77.0.1 return")),
        ("+?++", input!("ip saddr 10.77.0.2 accept\niifname wire ip saddr 10.77.0.0/16 drop")),
    ]);
}
