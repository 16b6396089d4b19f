//! The address of one end of a connection.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

const AF_INET: u16 = 2; // linux/socket.h
const AF_INET6: u16 = 10; // linux/socket.h
const SOCKADDR_IN_LEN: usize = 16; // linux/in.h, struct sockaddr_in
const SOCKADDR_IN6_LEN: usize = 28; // linux/in6.h, struct sockaddr_in6

/// A raw `sockaddr`, kept byte for byte: DRBD 8.4 finds a connection by comparing length and bytes of both addresses.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Address(Vec<u8>);

impl Address {
    /// An address as the kernel gave it.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Address {
        Address(bytes.into())
    }

    /// The raw `sockaddr`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// No address is known: DRBD 8.4 forgets both when a connection becomes StandAlone.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|b| *b == 0)
    }

    /// The internet address and port; nothing for other families (SDP, ssocks).
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let port = u16::from_be_bytes(self.array(2)?);
        let ip = match u16::from_ne_bytes(self.array(0)?) {
            AF_INET => IpAddr::V4(Ipv4Addr::from(self.array::<4>(4)?)),
            AF_INET6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>(8)?)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at + N)?.try_into().ok()
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        let mut bytes = Vec::with_capacity(SOCKADDR_IN6_LEN);
        match address {
            SocketAddr::V4(v4) => {
                bytes.extend(AF_INET.to_ne_bytes());
                bytes.extend(v4.port().to_be_bytes());
                bytes.extend(v4.ip().octets());
                bytes.resize(SOCKADDR_IN_LEN, 0);
            }
            SocketAddr::V6(v6) => {
                bytes.extend(AF_INET6.to_ne_bytes());
                bytes.extend(v6.port().to_be_bytes());
                bytes.extend(v6.flowinfo().to_be_bytes());
                bytes.extend(v6.ip().octets());
                bytes.extend(v6.scope_id().to_ne_bytes());
            }
        }
        Address(bytes)
    }
}

/// `10.0.0.1:7789` or `[fd00::1]:7789`; the raw bytes for other families.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        match self.socket_addr() {
            Some(address) => address.fmt(f),
            None => self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_go_there_and_back() {
        for text in ["127.0.0.1:7701", "[fd00::1]:7789"] {
            let address = Address::from(text.parse::<SocketAddr>().unwrap());
            assert_eq!(address.to_string(), text);
        }
        assert_eq!(Address::from("1.2.3.4:1".parse::<SocketAddr>().unwrap()).as_bytes().len(), 16);
        assert_eq!(Address::from("[::1]:1".parse::<SocketAddr>().unwrap()).as_bytes().len(), 28);
    }

    #[test]
    fn other_families_and_stumps_show_their_bytes() {
        assert_eq!(Address::from_bytes([27, 0, 1]).to_string(), "1b0001");
        assert_eq!(Address::default().to_string(), "-");
        assert_eq!(Address::from_bytes([0; 16]).to_string(), "-");
    }
}
