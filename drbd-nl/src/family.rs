//! Generic netlink's controller: from the name `drbd` to the family's id, version and event group. The id is given out anew each time the module is
//! loaded.

use std::{fmt, io};

use crate::{
    Dialect,
    error::DecodeError,
    nest::{self, Value, ValueError, nest},
    wire::{Message, NLM_F_REQUEST, RawAttr},
};

pub(crate) const NAME: &str = "drbd";
const EVENT_GROUP: &str = "events";
/// The controller's own family id (linux/genetlink.h, GENL_ID_CTRL).
pub const GENL_ID_CTRL: u16 = 16;
/// The controller's notifications about families that come and go.
pub(crate) const CTRL_GROUP: u32 = 16; // net/netlink/genetlink.c: the controller's first group has its family's id
const CTRL_CMD_NEWFAMILY: u8 = 1;
const CTRL_CMD_DELFAMILY: u8 = 2;
const CTRL_CMD_GETFAMILY: u8 = 3;
const GENL_HEADER_LEN: usize = 4;

nest! {
    /// What the controller tells about a family (linux/genetlink.h, CTRL_ATTR_*).
    Family {
        /// `CTRL_ATTR_FAMILY_ID`: message type of its messages.
        1 family_id: u16,
        /// `CTRL_ATTR_FAMILY_NAME`.
        2 family_name: String,
        /// `CTRL_ATTR_VERSION`: 1 for DRBD 8.4, 2 for 9.
        3 version: u32,
        /// `CTRL_ATTR_HDRSIZE`: bytes of the family's own header.
        4 hdrsize: u32,
        /// `CTRL_ATTR_MAXATTR`: highest top-level attribute.
        5 maxattr: u32,
        /// `CTRL_ATTR_OPS`: the commands.
        6 ops: List<FamilyOp>,
        /// `CTRL_ATTR_MCAST_GROUPS`.
        7 mcast_groups: List<McastGroup>,
    }
}

nest! {
    /// A command of a family (CTRL_ATTR_OP_*).
    FamilyOp {
        /// The command's number.
        1 id: u32,
        /// 1 needs privileges, 2 do, 4 dump, 8 has a policy.
        2 flags: u32,
    }
}

nest! {
    /// A multicast group of a family (CTRL_ATTR_MCAST_GRP_*).
    McastGroup {
        /// The group's name.
        1 name: String,
        /// The group's number, to be joined.
        2 id: u32,
    }
}

/// A nest whose attribute numbers are an index from 1 and mean nothing.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct List<T>(pub Vec<T>);

impl<T: Value> Value for List<T> {
    const NESTED: bool = true;

    fn parse(bytes: &[u8], dialect: Dialect) -> Result<Self, ValueError> {
        RawAttr::list(bytes).map(|attr| T::parse(attr?.value, dialect)).collect::<Result<_, _>>().map(List)
    }

    fn emit(&self, dialect: Dialect, out: &mut Vec<u8>) -> bool {
        let numbers = 1..=u16::MAX;
        numbers.zip(&self.0).for_each(|(number, item)| nest::put(number, Some(item), dialect, out));
        true
    }
}

impl Family {
    /// From a message of the controller; nothing when it announces no family.
    ///
    /// # Errors
    ///
    /// An attribute of the wrong length.
    pub fn parse(message: &Message) -> Result<Option<Family>, DecodeError> {
        Family::of_command(CTRL_CMD_NEWFAMILY, message)
    }

    /// The family that a message of the controller says is gone.
    ///
    /// # Errors
    ///
    /// An attribute of the wrong length.
    pub fn removed(message: &Message) -> Result<Option<Family>, DecodeError> {
        Family::of_command(CTRL_CMD_DELFAMILY, message)
    }

    fn of_command(command: u8, message: &Message) -> Result<Option<Family>, DecodeError> {
        if message.kind != GENL_ID_CTRL {
            return Ok(None);
        }
        match message.payload.split_first_chunk::<GENL_HEADER_LEN>() {
            Some(([found, ..], attrs)) if *found == command => parse_attrs(attrs).map(Some),
            Some(_) => Ok(None),
            None => Err(DecodeError::Short {
                what: "Controller message",
                len: message.payload.len(),
                need: GENL_HEADER_LEN,
            }),
        }
    }

    /// The dialect that its version stands for.
    pub fn dialect(&self) -> Option<Dialect> {
        Dialect::of_family(self.family_name.as_deref()?, self.version?)
    }

    /// The number of the group with DRBD's events.
    pub fn event_group(&self) -> Option<u32> {
        let groups = &self.mcast_groups.as_ref()?.0;
        groups.iter().find(|group| group.name.as_deref() == Some(EVENT_GROUP))?.id
    }
}

fn parse_attrs(bytes: &[u8]) -> Result<Family, DecodeError> {
    // The controller's numbers do not depend on DRBD's dialect.
    <Family as Value>::parse(bytes, Dialect::V84).map_err(|error| match error {
        ValueError::Inside(error) => error,
        ValueError::Length { need } => DecodeError::Short { what: "Family", len: bytes.len(), need },
    })
}

/// The request that asks for family `drbd`.
pub(crate) fn query(sequence: u32) -> Message {
    let mut payload = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
    nest::put(2, Some(&NAME.to_owned()), Dialect::V84, &mut payload);
    Message { kind: GENL_ID_CTRL, flags: NLM_F_REQUEST, sequence, port: 0, payload }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.family_name.as_deref().unwrap_or("?");
        write!(f, "{name} id {} version {}", self.family_id.unwrap_or(0), self.version.unwrap_or(0))
    }
}

/// What is needed to speak to the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) id: u16,
    pub(crate) dialect: Dialect,
    pub(crate) group: u32,
}

impl Resolved {
    pub(crate) fn of(family: &Family) -> Result<Resolved, crate::Error> {
        let version = family.version.unwrap_or(0);
        let dialect = family.dialect().ok_or(crate::Error::UnknownVersion { version })?;
        match (family.family_id, family.event_group()) {
            (Some(id), Some(group)) => Ok(Resolved { id, dialect, group }),
            _ => {
                Err(crate::Error::Socket { doing: "learn the family from", source: io::ErrorKind::InvalidData.into() })
            }
        }
    }
}
