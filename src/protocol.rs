//! The relocation protocol: the messages, their frames and the version rule. Knows neither libxl nor DRBD and does no I/O.
//!
//! One TCP connection carries one migration. S is the source, D the destination:
//!
//! ```text
//!   S                                             D
//!   | Hello {versions}                            |
//!   |-------------------------------------------->|
//!   |                             Welcome {version} or Failed
//!   |<--------------------------------------------|
//!   | Offer {id, config, volumes, handover}       |   step 2
//!   |-------------------------------------------->|
//!   |                       Answer {findings}     |   any error among them ends the session
//!   |<--------------------------------------------|
//!   | Stream                                      |   step 3: the byte after this frame belongs to libxl
//!   |-------------------------------------------->|
//!   | ~~~~~~~~ libxl's stream, to its END ~~~~~~~~>|   meanwhile D may send Failed
//!   | Released | Kept                             |   step 4
//!   |-------------------------------------------->|   step 5: D attaches the disks
//!   |                                      Ready  |   step 6
//!   |<--------------------------------------------|
//!   | Held                                        |   step 7: the witnesses are asked
//!   |-------------------------------------------->|
//!   | Go                                          |   the point of no return
//!   |-------------------------------------------->|   step 8
//!   |                         Started or Returned |
//!   |<--------------------------------------------|
//! ```
//!
//! After a lost connection either end, whoever works on its journal then, asks the other's daemon: Hello, Welcome,
//! Query {id}, Status {stage}. A status only reports; each journal is changed by the process that holds its lock. In the same way
//! `bascule check --peer` asks what the other host is like: Examine, Told {facts}.
//!
//! A frame is an 8-byte header and a JSON payload: message type (1 byte, never 0), framing version (1 byte, [`FRAMING`]),
//! two bytes of zero, payload length (4 bytes, big endian, at most [`PAYLOAD_MAX`]). JSON, because a field that one version
//! adds is ignored by the version before it, and because domain configurations are libxl's JSON already.
//!
//! Version rule: each side speaks all versions from [`VERSION_OLDEST`] to [`VERSION`]; the newest common one is used. A
//! version is dropped only when two newer ones exist, so that neighbours always work together.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::backing::Backing;
use crate::checkup::Facts;
use crate::cpu::Policy;
use crate::ids::VolumeId;
use crate::journal::Stage;

/// The newest protocol version that this program speaks.
pub const VERSION: u16 = 1;
/// The oldest protocol version that this program speaks.
pub const VERSION_OLDEST: u16 = 1;
/// The version of the frame header.
pub const FRAMING: u8 = 1;
/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 8;
/// The longest payload, in bytes. A domain configuration has a few KiB.
pub const PAYLOAD_MAX: usize = 1 << 20;

/// Declares each message once: its number on the wire and the struct that is its payload.
macro_rules! messages {
    ($($(#[$doc:meta])* $number:literal => $name:ident),* $(,)?) => {
        /// Every message of the protocol. Odd numbers go from the source to the destination, even ones back.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Message {
            $($(#[$doc])* $name($name),)*
        }

        impl Message {
            /// The message's number on the wire.
            pub fn kind(&self) -> u8 {
                match self { $(Message::$name(_) => $number,)* }
            }

            /// The message's name, for errors and logs.
            pub fn name(&self) -> &'static str {
                match self { $(Message::$name(_) => stringify!($name),)* }
            }

            fn payload(&self) -> Result<Vec<u8>, serde_json::Error> {
                match self { $(Message::$name(body) => serde_json::to_vec(body),)* }
            }

            fn from_parts(kind: u8, payload: &[u8]) -> Result<Message, Error> {
                match kind {
                    $($number => body(stringify!($name), payload).map(Message::$name),)*
                    unknown => Err(Error::UnknownKind(unknown)),
                }
            }
        }

        $(impl From<$name> for Message {
            fn from(body: $name) -> Message { Message::$name(body) }
        })*
    };
}

messages! {
    /// S opens the conversation.
    1 => Hello,
    /// D accepts it.
    2 => Welcome,
    /// S describes the domain.
    3 => Offer,
    /// D says what it found; without an error among the findings it is ready to receive.
    4 => Answer,
    /// S announces the memory stream.
    5 => Stream,
    /// D could not go on; its copy is gone or about to be.
    6 => Failed,
    /// S has given up the right to write (single-primary handover).
    7 => Released,
    /// D's copy is complete and paused.
    8 => Ready,
    /// S keeps its role for the moment (dual-primary handover).
    9 => Kept,
    /// D's copy runs.
    10 => Started,
    /// S hands the domain over for good.
    11 => Go,
    /// D had the GO but could not start its copy, which never ran and is gone.
    12 => Returned,
    /// Either end asks the other's daemon what its journal says of a migration, on a connection of its own.
    13 => Query,
    /// The answer.
    14 => Status,
    /// S has heard READY and holds the domain still; GO follows if the witnesses agree.
    15 => Held,
    /// S asks to be paired with D, on a connection of its own.
    17 => Pair,
    /// D knows S's key from now on.
    18 => Paired,
    /// `bascule check --peer`: S asks what D's host is like, on a connection of its own. A daemon that does not know the question says so.
    19 => Examine,
    /// The answer.
    20 => Told,
}

/// S -> D: who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest protocol version spoken.
    pub oldest: u16,
    /// Newest protocol version spoken.
    pub newest: u16,
    /// The sender's node name, for messages.
    pub node: String,
    /// The sender's program and version, for messages.
    pub program: String,
}

/// D -> S: the version that both will use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The chosen protocol version.
    pub version: u16,
    /// The sender's node name.
    pub node: String,
    /// The sender's program and version.
    pub program: String,
}

/// How the right to write the volumes moves (design, 4a and 4b).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handover {
    /// The source becomes Secondary before the destination becomes Primary.
    Single,
    /// Both are Primary between the end of the stream and the end of the migration.
    Dual,
}

impl std::fmt::Display for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Handover::Single => "single-primary",
            Handover::Dual => "dual-primary",
        })
    }
}

/// A volume of the domain, as the source sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedVolume {
    /// Which volume.
    #[serde(flatten)]
    pub id: VolumeId,
    /// Its size in sectors of 512 bytes.
    pub size_sectors: u64,
    /// DRBD's current data generation UUID, its lowest bit (the role) cleared.
    pub generation: u64,
}

/// How a domain uses a disk that DRBD does not replicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskUse {
    /// It only reads it: a CD-ROM, as a rule.
    ReadOnly,
    /// It writes it, and the source's administrator says that both hosts have the same storage there.
    Shared,
}

/// A disk of the domain that lies on no volume. The destination must have the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedDisk {
    /// Its name in the guest, such as `xvdc`.
    pub vdev: String,
    /// Its path, on either host.
    pub path: String,
    /// How it is used.
    pub usage: DiskUse,
    /// What the path leads to at the source.
    #[serde(flatten)]
    pub backing: Backing,
}

/// S -> D: the domain that is to move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// The migration's id.
    pub id: Uuid,
    /// The domain's name.
    pub name: String,
    /// The domain's UUID.
    pub uuid: Uuid,
    /// libxl's JSON of the domain's configuration.
    pub config: String,
    /// Memory that the destination will need, in KiB.
    pub memory_kib: u64,
    /// The DRBD volumes under the domain's disks, each once.
    pub volumes: Vec<OfferedVolume>,
    /// Its disks that lie on no volume. A destination of before them refuses such a configuration.
    #[serde(default)]
    pub disks: Vec<OfferedDisk>,
    /// The nics, by their indices in the configuration, whose bridges are not for the destination to change.
    #[serde(default)]
    pub settled_nics: Vec<usize>,
    /// What the domain sees of the processor; nothing where the source cannot tell.
    #[serde(default)]
    pub cpu: Option<Policy>,
    /// The two numbers of the version of the source's Xen; nothing where it cannot tell.
    #[serde(default)]
    pub xen: Option<(i32, i32)>,
    /// How the volumes will be handed over.
    pub handover: Handover,
    /// The port of the source's own daemon, for the destination's questions after a lost connection.
    #[serde(default = "default_port")]
    pub port: u16,
    /// `--dry-run`: only the answer is wanted.
    pub check_only: bool,
}

fn default_port() -> u16 {
    crate::plan::RELOCATION_PORT
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; the migration can go on.
    Warning,
    /// The migration cannot be started.
    Error,
}

/// One thing that preflight found on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A stable code, such as `name-taken`.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// The node on which it was found.
    pub node: String,
    /// What was found, one sentence.
    pub found: String,
    /// What to do about it, one sentence that names a command where one helps.
    pub remedy: String,
}

/// D -> S: what the destination found. It is ready to receive when no finding is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Everything found, in the order of the checks.
    pub findings: Vec<Finding>,
}

/// S -> D: the memory stream follows this frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {}

/// D -> S: the destination gave up before GO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// What the destination was doing.
    pub step: String,
    /// Why it failed.
    pub reason: String,
}

/// S -> D: the source is Secondary on every volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {}

/// S -> D: the source stays Primary until the domain runs at the destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {}

/// D -> S: the destination's copy is complete, paused, and holds its volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// From the first disk's request to the last disk's grant, in microseconds.
    pub disks_us: u64,
    /// From the last disk's grant to the complete domain, in microseconds.
    pub devices_us: u64,
}

/// S -> D: the destination owns the domain from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Go {}

/// S -> D: READY has come, and the source has not taken the domain back. Should the source's host die now, the destination's copy may
/// be started on a person's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {}

/// D -> S: the domain runs at the destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The domain's number at the destination.
    pub domid: u32,
    /// From the first disk's request, which follows the end of the stream, to the unpause, in microseconds.
    pub downtime_us: u64,
    /// From GO's arrival to the unpause, in microseconds.
    pub start_us: u64,
}

/// D -> S: GO came, but no virtual CPU has run, and the copy is destroyed and its volumes are released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returned {
    /// Why it could not be started.
    pub reason: String,
}

/// Either end to the other's daemon: what does your journal say of this migration?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The migration.
    pub id: Uuid,
}

/// The answer to [`Query`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The migration.
    pub id: Uuid,
    /// What the journal's last deciding record says; `None` when this host has no such journal.
    pub stage: Option<Stage>,
}

/// S -> D: what shows that D's administrator wants this pairing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The secret part of the code.
    pub secret: String,
    /// The sender's node name.
    pub node: String,
}

/// D -> S: the sender's key is pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paired {
    /// The sender's node name.
    pub node: String,
}

/// S -> D: what is your host like?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examine {}

/// D -> S: the answer to [`Examine`]. Nothing in it is a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// D's clock when the question came, in microseconds since 1970.
    pub asked_us: i64,
    /// The same when the answer was sent.
    pub answered_us: i64,
    /// What was seen meanwhile.
    pub facts: Box<Facts>,
}

/// A message that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The header is not one of ours.
    #[error("Frame header {0:02x?} is not of the relocation protocol")]
    Header([u8; HEADER_LEN]),
    /// The payload is longer than [`PAYLOAD_MAX`].
    #[error("Frame of {0} bytes is longer than the {PAYLOAD_MAX} allowed")]
    TooLong(usize),
    /// No message has this number.
    #[error("Message type {0} is unknown")]
    UnknownKind(u8),
    /// The payload does not fit the message.
    #[error("Payload of {message} is malformed")]
    Payload {
        /// The message's name.
        message: &'static str,
        /// What the decoder says.
        source: serde_json::Error,
    },
    /// The message cannot come now.
    #[error("Unexpected {got} while waiting for {expected}")]
    Unexpected {
        /// What the state allows.
        expected: &'static str,
        /// What came.
        got: &'static str,
    },
    /// The two programs have no version in common.
    #[error(
        "Protocol versions {theirs_oldest} to {theirs_newest} of {node} and ours, {VERSION_OLDEST} to {VERSION}, have none in common"
    )]
    Version {
        /// The peer's node name.
        node: String,
        /// The peer's oldest version.
        theirs_oldest: u16,
        /// The peer's newest version.
        theirs_newest: u16,
    },
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message's number.
    pub kind: u8,
    /// Bytes of payload that follow, at most [`PAYLOAD_MAX`].
    pub len: usize,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// [`Error::Header`] for anything but our framing, [`Error::TooLong`] before anything is allocated.
    pub fn parse(bytes: [u8; HEADER_LEN]) -> Result<Header, Error> {
        let [kind, framing, 0, 0, l0, l1, l2, l3] = bytes else { return Err(Error::Header(bytes)) };
        if kind == 0 || framing != FRAMING {
            return Err(Error::Header(bytes));
        }
        let len = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if len > PAYLOAD_MAX {
            return Err(Error::TooLong(len));
        }
        Ok(Header { kind, len })
    }
}

/// A message as a whole frame.
///
/// # Errors
/// [`Error::TooLong`] when the payload exceeds [`PAYLOAD_MAX`].
pub fn encode(message: &Message) -> Result<Vec<u8>, Error> {
    let payload = message.payload().map_err(|source| Error::Payload { message: message.name(), source })?;
    let len = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_MAX);
    let len = len.ok_or(Error::TooLong(payload.len()))?;
    let mut frame = vec![message.kind(), FRAMING, 0, 0];
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(&payload);
    Ok(frame)
}

/// The message of a frame whose header has been read.
///
/// # Errors
/// [`Error::UnknownKind`], [`Error::Payload`].
pub fn decode(header: Header, payload: &[u8]) -> Result<Message, Error> {
    Message::from_parts(header.kind, payload)
}

/// The version that D chooses.
///
/// # Errors
/// [`Error::Version`] when there is none in common.
pub fn choose_version(hello: &Hello) -> Result<u16, Error> {
    let newest = hello.newest.min(VERSION);
    if newest < hello.oldest.max(VERSION_OLDEST) {
        return Err(Error::Version {
            node: hello.node.clone(),
            theirs_oldest: hello.oldest,
            theirs_newest: hello.newest,
        });
    }
    Ok(newest)
}

fn body<T: DeserializeOwned>(message: &'static str, payload: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(payload).map_err(|source| Error::Payload { message, source })
}

#[cfg(test)]
mod tests;
