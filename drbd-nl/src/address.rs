//! The address of one end of a connection.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    str::FromStr,
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
        match u16::from_ne_bytes(self.array(0)?) {
            AF_INET => Some(SocketAddr::from((Ipv4Addr::from(self.array::<4>(4)?), port))),
            AF_INET6 => {
                let flow = u32::from_be_bytes(self.array(4)?);
                let scope = u32::from_ne_bytes(self.array(24)?);
                Some(SocketAddrV6::new(Ipv6Addr::from(self.array::<16>(8)?), port, flow, scope).into())
            }
            _ => None,
        }
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

/// A text that is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address")]
pub struct NotAnAddress;

/// What Display writes: the flow label of an IPv6 address is not in it.
impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Address, NotAnAddress> {
        if text == "-" {
            return Ok(Address::default());
        }
        match text.parse::<SocketAddr>() {
            Ok(address) => Ok(address.into()),
            Err(_) => bytes_of(text).map(Address).ok_or(NotAnAddress),
        }
    }
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let is_hex = !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (pairs, []) = hex.as_bytes().as_chunks::<2>() else { return None };
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    if is_hex { pairs.iter().map(byte).collect() } else { None }
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

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        let error = |NotAnAddress| serde::de::Error::custom(format_args!("{text:?} is no address"));
        text.parse().map_err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_go_there_and_back() {
        for text in ["127.0.0.1:7701", "[fd00::1]:7789", "[fe80::1%3]:7789"] {
            let address = Address::from(text.parse::<SocketAddr>().unwrap());
            assert_eq!(address.to_string(), text);
            assert_eq!(text.parse(), Ok(address));
        }
        assert_eq!(Address::from("1.2.3.4:1".parse::<SocketAddr>().unwrap()).as_bytes().len(), 16);
        assert_eq!(Address::from("[::1]:1".parse::<SocketAddr>().unwrap()).as_bytes().len(), 28);
    }

    #[test]
    fn other_families_and_stumps_show_their_bytes() {
        assert_eq!(Address::from_bytes([27, 0, 1]).to_string(), "1b0001");
        assert_eq!("1b0001".parse(), Ok(Address::from_bytes([27, 0, 1])));
        for text in ["1b000", "nowhere", "+1b0"] {
            assert_eq!(text.parse::<Address>(), Err(NotAnAddress), "{text}");
        }
        assert_eq!(Address::default().to_string(), "-");
        assert_eq!(Address::from_bytes([0; 16]).to_string(), "-");
    }
}
