//! Who should reach the relocation port, as addresses and networks: hosts-allow, and where that allows every address the hosts that
//! can prove who they are. Whatever of it a firewall cannot know is told.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::daemon::{Allow, Entry};

/// How long all names of the list may take together.
pub const RESOLVE_MAX: Duration = Duration::from_secs(10);
/// Names that are looked up at one time.
const LOOKUPS_MAX: usize = 16;

/// A host, or several, that should reach the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// As the person knows it: an entry of hosts-allow, a name.
    pub name: String,
    /// Its addresses.
    pub nets: Vec<IpNet>,
}

/// All of them, and what stands in the way of knowing them all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Those whose addresses are known.
    pub known: Vec<Peer>,
    /// Names without an address now, and why.
    pub unresolved: Vec<(String, String)>,
    /// Regular expressions: no firewall has these.
    pub patterns: Vec<String>,
}

/// A host that this one knows by something other than its address: paired with it, or named in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What people call it.
    pub name: String,
    /// Its address, its network, or a name that has addresses.
    pub address: String,
}

/// Finds the addresses of names, before the deadline.
pub type Resolve<'a> = &'a dyn Fn(&[String], Instant) -> Vec<io::Result<Vec<IpAddr>>>;

impl Peers {
    /// The hosts of hosts-allow; the known ones in place of an entry for every address. `resolve` is [`system`] but in tests.
    #[must_use]
    pub fn new(allow: &Allow, known: &[Known], resolve: Resolve<'_>) -> Peers {
        let mut peers = Peers::default();
        let mut names = Vec::new();
        let mut everywhere = false;
        for entry in &allow.0 {
            match entry {
                Entry::Net(net) if net.prefix_len() == 0 => everywhere = true,
                Entry::Net(net) => peers.known.push(Peer { name: entry.to_string(), nets: vec![net.trunc()] }),
                Entry::Name(name) => names.push((name.clone(), name.clone())),
                Entry::Pattern(..) => peers.patterns.push(entry.to_string()),
            }
        }
        for Known { name, address } in known.iter().filter(|_| everywhere) {
            let net =
                address.parse::<IpAddr>().map(|ip| ip.to_canonical().into()).or_else(|_| address.parse::<IpNet>());
            match net {
                Ok(net) => peers.known.push(Peer { name: name.clone(), nets: vec![net.trunc()] }),
                Err(_) => names.push((name.clone(), address.clone())),
            }
        }
        peers.resolve(names, resolve);
        peers
    }

    fn resolve(&mut self, names: Vec<(String, String)>, resolve: Resolve<'_>) {
        let asked: Vec<String> = names.iter().map(|(_, address)| address.clone()).collect();
        let found = resolve(&asked, Instant::now() + RESOLVE_MAX);
        for ((name, _), addresses) in names.into_iter().zip(found) {
            match addresses {
                Ok(addresses) => self.known.push(Peer { name, nets: nets(addresses) }),
                Err(error) => self.unresolved.push((name, error.to_string())),
            }
        }
    }

    /// Every network of theirs, each once.
    pub(super) fn nets(&self) -> Vec<IpNet> {
        IpNet::aggregate(&self.known.iter().flat_map(|peer| peer.nets.iter().copied()).collect())
    }
}

fn nets(addresses: Vec<IpAddr>) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = addresses.into_iter().map(|address| address.to_canonical().into()).collect();
    nets.sort();
    nets.dedup();
    nets
}

/// Asks the system's resolver, of which nothing can be called off: a name that takes too long is left behind on its thread.
#[must_use]
pub fn system(names: &[String], deadline: Instant) -> Vec<io::Result<Vec<IpAddr>>> {
    let mut found = Vec::new();
    for some in names.chunks(LOOKUPS_MAX) {
        let answers: Vec<_> = some.iter().map(|name| spawn(name.clone())).collect();
        for answer in answers {
            let left = deadline.saturating_duration_since(Instant::now());
            found.push(answer.and_then(|answer| match answer.recv_timeout(left) {
                Ok(addresses) => addresses,
                Err(RecvTimeoutError::Timeout) => Err(io::Error::other("its addresses were not found in time")),
                Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the lookup has died")),
            }));
        }
    }
    found
}

type Answer = std::sync::mpsc::Receiver<io::Result<Vec<IpAddr>>>;

fn spawn(name: String) -> io::Result<Answer> {
    let (sender, answer) = sync_channel(1);
    std::thread::Builder::new().name("name".into()).spawn(move || {
        let addresses = (name.as_str(), 0).to_socket_addrs();
        let _ = sender.send(addresses.map(|all| all.map(|address| address.ip()).collect()));
    })?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_addresses_and_expressions_none() {
        let entries =
            ["10.0.0.1", "10.1.2.3/8", "node2.example.org", "node3.example.org", r"/node[0-9]\.example\.org/"];
        let allow = Allow(entries.map(|entry| entry.parse().expect("an entry")).into());
        let resolve = |names: &[String], _| {
            let known = |name: &String| match name.as_str() {
                "node2.example.org" => Ok(["::ffff:192.0.2.2", "2001:db8::2"].map(|ip| ip.parse().unwrap()).into()),
                _ => Err(io::Error::other("no such name")),
            };
            names.iter().map(known).collect()
        };
        let peers = Peers::new(&allow, &[known("node9", "10.9.9.9")], &resolve);
        let shown: Vec<String> = peers.known.iter().map(|peer| format!("{} {:?}", peer.name, peer.nets)).collect();
        assert_eq!(
            shown,
            ["10.0.0.1 [10.0.0.1/32]", "10.1.2.3/8 [10.0.0.0/8]", "node2.example.org [192.0.2.2/32, 2001:db8::2/128]"]
        );
        assert_eq!(peers.unresolved, [("node3.example.org".to_owned(), "no such name".to_owned())]);
        assert_eq!(peers.patterns, [r"/node[0-9]\.example\.org/"]);
    }

    fn known(name: &str, address: &str) -> Known {
        Known { name: name.into(), address: address.into() }
    }

    #[test]
    fn where_every_address_is_allowed_the_hosts_that_are_known_count() {
        let hosts =
            [known("node2", "::ffff:10.0.0.2"), known("node3", "node3.example.org"), known("link", "10.9.0.0/16")];
        let resolve = |names: &[String], _| names.iter().map(|_| Ok(vec!["192.0.2.3".parse().unwrap()])).collect();
        let peers = Peers::new(&Allow::everywhere(), &hosts, &resolve);
        let shown: Vec<String> = peers.known.iter().map(|peer| format!("{} {:?}", peer.name, peer.nets)).collect();
        assert_eq!(shown, ["node2 [10.0.0.2/32]", "link [10.9.0.0/16]", "node3 [192.0.2.3/32]"]);
        assert_eq!(Peers::new(&Allow::default(), &hosts, &resolve), Peers::default());
    }

    #[test]
    fn no_name_needs_no_time() {
        assert!(system(&[], Instant::now()).is_empty());
    }
}
