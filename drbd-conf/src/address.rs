//! Addresses: `[FAMILY] ADDRESS:PORT`.

use crate::model::{Address, Family};
use crate::reader::{Reader, Step};
use crate::token::Kind;

impl Reader<'_> {
    /// An address, without what ends its statement.
    pub(crate) fn address(&mut self) -> Step<Address> {
        let mut token = self.next();
        let family = match token.text.as_str() {
            _ if token.kind == Kind::Ipv4 => Family::Ipv4,
            _ if token.kind != Kind::Word => return Err(self.unexpected(token, "an address")),
            "ipv4" => Family::Ipv4,
            "ipv6" => Family::Ipv6,
            "ssocks" | "sci" => Family::Ssocks,
            "sdp" => Family::Sdp,
            _ => return Err(self.unexpected(token, "an address such as 10.0.0.1:7788 or ipv6 [fd00::1]:7788")),
        };
        if family == Family::Ipv6 {
            self.punctuation(b'[')?;
        }
        if token.kind != Kind::Ipv4 {
            token = self.next();
        }
        let wanted = if family == Family::Ipv6 { Kind::Ipv6 } else { Kind::Ipv4 };
        if token.kind != wanted {
            return Err(self.unexpected(token, &format!("an address of {family}")));
        }
        if family == Family::Ipv6 {
            self.punctuation(b']')?;
        }
        self.punctuation(b':')?;
        Ok(Address { family, ip: token.text, port: self.port()? })
    }

    pub(crate) fn port(&mut self) -> Step<u16> {
        let token = self.next();
        if token.kind != Kind::Integer {
            return Err(self.unexpected(token, "a port"));
        }
        let port = token.text.parse().ok().filter(|port| *port > 0);
        if port.is_none() {
            self.wrong(token.line, format!("port {} is none from 1 to 65535", token.text));
        }
        Ok(port.unwrap_or(1))
    }
}
