//! What this host's firewall does with connections to the relocation port, compared with what the service needs.
//!
//! The rules are read natively, nf_tables' by netlink and the old ip_tables' by socket options; nothing is changed and no program is run. They are walked
//! through for the first packet of a connection that comes from another host, for all source addresses at once. What the rules make of a source is
//! one of three: accepted, dropped, or not to be told, when it hangs on something that is not in the question (the interface, a rate, a mark) or that is
//! not understood here. Not seen are programs of BPF, and whatever else lies on the way to this host.

mod attrs;
mod expr;
mod legacy;
mod machine;
mod netlink;
mod nftables;
mod packet;
mod peers;
mod propose;
mod report;
mod ruleset;
mod sources;
mod split;
mod walk;
mod xt;

use std::io;
use std::net::IpAddr;

use self::packet::Packet;
pub use self::peers::{Known, Peer, Peers, RESOLVE_MAX, Resolve, system};
pub use self::propose::Proposal;
pub use self::report::{Fate, Finding, Level, Report, Row};
use self::ruleset::Ruleset;
pub use self::sources::Ip;

/// Why the rules could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They are shown to root alone.
    #[error("The firewall's rules are shown to root alone: run it as root")]
    NotRoot,
    /// The kernel refuses.
    #[error("Nf_tables cannot be asked")]
    Netlink {
        /// Why.
        source: io::Error,
    },
    /// The old tables cannot be read.
    #[error("The rules of {tool} cannot be read")]
    Legacy {
        /// Which program made them.
        tool: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel's answer is not in its format.
    #[error("Nf_tables' {what} is not in its format")]
    Garbled {
        /// What is not.
        what: &'static str,
    },
    /// There are more rules than a firewall has.
    #[error("The firewall's rules have more than {megabytes} MiB")]
    TooMuch {
        /// How much is read.
        megabytes: usize,
    },
    /// The kernel takes too long.
    #[error("The kernel did not list its rules within {} s", netlink::READ_MAX.as_secs())]
    TooSlow,
    /// Somebody changes them all the time.
    #[error("The firewall's rules changed each of {tries} times while they were read: try again")]
    Unsteady {
        /// How often it was tried.
        tries: u32,
    },
}

/// What the relocation service needs of a firewall.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Its port.
    pub port: u16,
    /// The addresses that it listens on; all of the host if there are none.
    pub listen: Vec<IpAddr>,
    /// Who should reach it; everybody else should not.
    pub peers: Peers,
}

/// Compares the rules that are in force in this thread's network namespace with what the service needs.
///
/// # Errors
/// The rules cannot be read; see [`Error`].
pub fn check(needs: &Needs) -> Result<Report, Error> {
    let mut ruleset = nftables::read()?;
    ruleset.tables.extend(legacy::read()?);
    Ok(judge(needs, &ruleset))
}

fn judge(needs: &Needs, ruleset: &Ruleset) -> Report {
    let questions = questions(needs);
    let walks: Vec<_> = questions.into_iter().map(|packet| (walk::walk(ruleset, &packet), packet)).collect();
    report::report(needs, ruleset, &walks)
}

/// One for each family, or for each address that the service listens on. Nobody else comes to a loopback address.
fn questions(needs: &Needs) -> Vec<Packet> {
    let packet = |ip, destination| Packet { ip, destination, port: needs.port };
    let has_v6 = std::path::Path::new("/proc/thread-self/net/if_inet6").exists();
    let families = if has_v6 { &[Ip::V4, Ip::V6][..] } else { &[Ip::V4] };
    // A socket on :: takes connections over IPv4 as well.
    let takes = |address: &IpAddr, ip| address.is_unspecified() && Ip::of(*address) >= ip;
    let mut packets = Vec::new();
    for ip in families.iter().copied() {
        let any = needs.listen.is_empty() || needs.listen.iter().any(|address| takes(address, ip));
        let mine = needs.listen.iter().filter(|address| Ip::of(**address) == ip && !address.is_loopback());
        match any {
            true => packets.push(packet(ip, None)),
            false => packets.extend(mine.map(|address| packet(ip, Some(*address)))),
        }
    }
    packets
}

#[cfg(test)]
mod tests;
