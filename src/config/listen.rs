//! Where the daemon listens: an address, or the addresses of an interface.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// An address of this host, or an interface's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address.
    Ip(IpAddr),
    /// All addresses of an interface.
    Interface(String),
}

/// The longest name of an interface, in bytes (if.h, IFNAMSIZ without the NUL).
const INTERFACE_LEN_MAX: usize = 15;

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let graphic = text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'));
        let named = (1..=INTERFACE_LEN_MAX).contains(&text.len()) && graphic;
        // What looks like an address with a slip in it is not an interface's name.
        let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match text.parse() {
            Ok(ip) => Ok(Address::Ip(ip)),
            Err(_) if named && !numeric => Ok(Address::Interface(text.to_owned())),
            Err(_) => {
                let text = super::value::shortened(text);
                Err(format!("{text:?} is neither an address such as \"10.99.0.1\" nor the name of an interface"))
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(ip) => ip.fmt(f),
            Address::Interface(name) => f.write_str(name),
        }
    }
}

impl Address {
    /// What it stands for now, with this port.
    ///
    /// # Errors
    /// The system's, or that there is no such interface with an address.
    pub fn resolve(&self, port: u16) -> io::Result<Vec<SocketAddr>> {
        let name = match self {
            Address::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, port)]),
            Address::Interface(name) => name,
        };
        let all = getifaddrs()?.filter(|found| found.interface_name == *name);
        let addresses: Vec<SocketAddr> = all.filter_map(|found| socket_address(&found.address?, port)).collect();
        match addresses.is_empty() {
            true => Err(io::Error::other(format!("no interface {name} has an address"))),
            false => Ok(addresses),
        }
    }
}

/// A link-local address keeps the number of its interface.
fn socket_address(address: &SockaddrStorage, port: u16) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    let mut found = v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))?;
    found.set_port(port);
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_interfaces_are_told_from_slips() {
        assert_eq!("10.99.0.1".parse(), Ok(Address::Ip([10, 99, 0, 1].into())));
        assert!(matches!("xenbr0.12".parse(), Ok(Address::Interface(_))));
        for slip in ["", "10.99.0", "10.99.0.256", "10.99.0.0/24", "fe80:::1", "eth0 eth1", "an-interface-too-long"] {
            assert!(slip.parse::<Address>().is_err(), "{slip}");
        }
    }

    #[test]
    fn the_loopback_interface_has_its_address() {
        let resolved = Address::Interface("lo".into()).resolve(8002).expect("lo");
        assert!(resolved.contains(&SocketAddr::new([127, 0, 0, 1].into(), 8002)), "{resolved:?}");
        assert!(Address::Interface("no-such-one".into()).resolve(8002).is_err());
    }
}
