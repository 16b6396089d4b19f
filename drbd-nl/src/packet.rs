//! A message of family `drbd`: `struct genlmsghdr`, `struct drbd_genlmsghdr`, attributes.

use crate::{
    Command, Contents, Dialect,
    error::DecodeError,
    nest::{Value, ValueError},
    wire::Attr,
};

/// Minor of a message that is not about a device.
pub const NO_MINOR: u32 = u32::MAX;

const HEADERS_LEN: usize = 12; // genlmsghdr 4 + drbd_genlmsghdr 8

/// One message, its attributes still as they came. [`Packet::emit`] gives back the bytes that [`Packet::parse`] took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it is.
    pub command: Command,
    /// `genlmsghdr.version`; DRBD 9 insists on its family's.
    pub version: u8,
    /// `genlmsghdr.reserved`: 0.
    pub reserved: u16,
    /// The device, or all bits set. In answers to a filtered GET_PEER_DEVICES it is the volume's number: go by the context.
    pub minor: u32,
    /// In an answer the verdict: 101 or 1 to 4 is success. In a request flags, of which none is used here.
    pub code: i32,
    /// The top-level attributes.
    pub attrs: Vec<Attr>,
}

impl Packet {
    /// A request.
    pub fn request(command: Command, minor: u32, contents: &Contents, dialect: Dialect) -> Packet {
        let mut bytes = Vec::new();
        contents.emit(dialect, &mut bytes);
        // What emit writes is a list of attributes.
        let attrs = Attr::list(&bytes).unwrap_or_default();
        Packet { command, version: dialect.version(), reserved: 0, minor, code: 0, attrs }
    }

    /// From what follows the netlink header.
    ///
    /// # Errors
    ///
    /// Too short, or a list of attributes that breaks off.
    pub fn parse(payload: &[u8]) -> Result<Packet, DecodeError> {
        let short = || DecodeError::Short { what: "DRBD message", len: payload.len(), need: HEADERS_LEN };
        let (headers, attrs) = payload.split_first_chunk::<HEADERS_LEN>().ok_or_else(short)?;
        let [command, version, r0, r1, m0, m1, m2, m3, c0, c1, c2, c3] = *headers;
        Ok(Packet {
            command: Command(command),
            version,
            reserved: u16::from_ne_bytes([r0, r1]),
            minor: u32::from_ne_bytes([m0, m1, m2, m3]),
            code: i32::from_ne_bytes([c0, c1, c2, c3]),
            attrs: Attr::list(attrs)?,
        })
    }

    /// The bytes to follow a netlink header.
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![self.command.0, self.version];
        bytes.extend(self.reserved.to_ne_bytes());
        bytes.extend(self.minor.to_ne_bytes());
        bytes.extend(self.code.to_ne_bytes());
        self.attrs.iter().for_each(|attr| attr.emit(&mut bytes));
        bytes
    }

    /// The attributes as typed nests.
    ///
    /// # Errors
    ///
    /// An attribute of the wrong length, by name.
    pub fn contents(&self, dialect: Dialect) -> Result<Contents, DecodeError> {
        let mut bytes = Vec::new();
        self.attrs.iter().for_each(|attr| attr.emit(&mut bytes));
        Contents::parse(&bytes, dialect).map_err(|error| match error {
            ValueError::Inside(error) => error,
            ValueError::Length { need } => DecodeError::Short { what: "DRBD message", len: bytes.len(), need },
        })
    }
}
