//! What can go wrong, for callers that act on it: [`Error::refusal`] for what DRBD refused, the variants for the rest.

use std::{io, time::Duration};

use crate::{Command, Refusal};

/// Why a request did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No family `drbd`: the module is not loaded, or this is a network namespace that DRBD does not serve (all before 9.2 serve only the first).
    #[error("DRBD is not loaded in this kernel (try: modprobe drbd)")]
    NotLoaded,
    /// The kernel has a family `drbd` that this crate does not speak.
    #[error("DRBD speaks version {version} of its netlink family, and this program only 1 (8.4) and 2 (9)")]
    UnknownVersion {
        /// `CTRL_ATTR_VERSION`.
        version: u32,
    },
    /// DRBD said no.
    #[error("{command} of {subject} refused: {refusal}{}", info_lines(.info))]
    Refused {
        /// What was asked.
        command: Command,
        /// Of which object.
        subject: String,
        /// DRBD's code.
        refusal: Refusal,
        /// DRBD's own lines about it.
        info: Vec<String>,
    },
    /// Netlink said no before DRBD saw the request: a malformed request or an unknown command.
    #[error("{command} of {subject} failed in the kernel: {errno}{}", text_clause(.text))]
    Kernel {
        /// What was asked.
        command: Command,
        /// Of which object.
        subject: String,
        /// The error number.
        errno: nix::errno::Errno,
        /// The kernel's sentence.
        text: Option<String>,
    },
    /// Not root enough.
    #[error("{command} of {subject} is not permitted: it needs CAP_NET_ADMIN, with DRBD 9 CAP_SYS_ADMIN too")]
    NotPermitted {
        /// What was asked.
        command: Command,
        /// Of which object.
        subject: String,
    },
    /// No answer came. The command may have been carried out.
    #[error("No answer to {command} of {subject} within {after:?}")]
    Timeout {
        /// What was asked.
        command: Command,
        /// Of which object.
        subject: String,
        /// How long was waited.
        after: Duration,
    },
    /// The answer was lost (socket buffer overrun). The command may have been carried out.
    #[error("The answer to {command} of {subject} was lost")]
    AnswerLost {
        /// What was asked.
        command: Command,
        /// Of which object.
        subject: String,
    },
    /// A dump that does not end.
    #[error("Dump by {command} did not end after {records} records")]
    Endless {
        /// The dump.
        command: Command,
        /// Records read: [`crate::DUMP_RECORDS_MAX`].
        records: usize,
    },
    /// This request does not exist in the loaded DRBD.
    #[error("{command} does not exist in DRBD {}", match .dialect { crate::Dialect::V84 => "8.4", crate::Dialect::V9 => "9" })]
    NotInDialect {
        /// What was asked.
        command: Command,
        /// What the kernel speaks.
        dialect: crate::Dialect,
    },
    /// DRBD 9 names a connection by the peer's node id, 8.4 by its two addresses; what the dialect needs is not there.
    #[error("{command} of {subject} needs {what}")]
    Missing {
        /// What was asked.
        command: Command,
        /// Of which object.
        subject: String,
        /// What is missing.
        what: &'static str,
    },
    /// A name that no resource can have: empty, longer than 127 bytes, or with a NUL (the kernel would read only what stands before it).
    #[error("{name:?} cannot be the name of a resource")]
    BadName {
        /// The name.
        name: String,
    },
    /// Bytes from the kernel that do not follow the format.
    #[error("{what} could not be decoded")]
    Decode {
        /// Which message.
        what: String,
        /// Where it broke.
        #[source]
        source: DecodeError,
    },
    /// A system call on the socket failed.
    #[error("Cannot {doing} the netlink socket")]
    Socket {
        /// open, send to, receive from, join the group with.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// DRBD's code, when it was DRBD that refused.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Error::Refused { refusal, .. } => Some(*refusal),
            _ => None,
        }
    }
}

fn info_lines(info: &[String]) -> String {
    info.iter().map(|line| format!("; {}", line.trim_end())).collect()
}

fn text_clause(text: &Option<String>) -> String {
    text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
}

/// Bytes that are no message of DRBD's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Something ends too early.
    #[error("{what} has {len} bytes, {need} expected")]
    Short {
        /// What.
        what: &'static str,
        /// Bytes there.
        len: usize,
        /// Bytes needed.
        need: usize,
    },
    /// An attribute of fixed size has another size.
    #[error("Attribute {nest}.{field} has {len} bytes, {need} expected")]
    Length {
        /// The nest's type.
        nest: &'static str,
        /// The field.
        field: &'static str,
        /// Bytes there.
        len: usize,
        /// Bytes that the type has.
        need: usize,
    },
    /// A length inside a list of attributes is impossible.
    #[error("List of attributes is broken")]
    Attributes(#[source] netlink_packet_core::DecodeError),
    /// A record lacks an attribute that names the object.
    #[error("Record lacks {field}")]
    Missing {
        /// The attribute.
        field: &'static str,
    },
}
