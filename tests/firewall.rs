//! What `bascule::firewall` says of rulesets, compared with what this kernel does with real connections under them.
//!
//! Each test has two network namespaces with a link between them: the host, where the rules are loaded by the real `nft` and `iptables`
//! and a socket listens, and the others, from whose addresses connections are tried. They need root, and are run by `cargo xtask test`.

#[path = "firewall/command.rs"]
mod command;
#[path = "firewall/host.rs"]
mod host;
#[path = "firewall/iptables.rs"]
mod iptables;
#[path = "firewall/nft.rs"]
mod nft;
#[path = "firewall/proposals.rs"]
mod proposals;
