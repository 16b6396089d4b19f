//! Asking the other end's daemon what its journal says of a migration: a connection of its own, one question, one answer.

use std::time::Duration;

use uuid::Uuid;

use crate::host::{Host, PROGRAM};
use crate::journal::{Peer, Stage};
use crate::migrate::chain;
use crate::protocol::{self, Hello, Message, Query, Status};
use crate::toolstack::Error;
use crate::transport::Channel;

/// How long connecting, and each answer, may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// The stage of the peer's journal; `None` when it has none of this migration.
///
/// # Errors
/// The peer's daemon cannot be reached within [`TIMEOUT`], or refuses.
pub fn stage(host: &Host<'_>, peer: &Peer, id: Uuid) -> Result<Option<Stage>, Error> {
    let channel = Channel::connect(&peer.host, peer.port, TIMEOUT)?;
    let hello = Hello {
        oldest: protocol::VERSION_OLDEST,
        newest: protocol::VERSION,
        node: host.node.into(),
        program: PROGRAM.into(),
    };
    channel.send(hello, TIMEOUT)?;
    match channel.receive(TIMEOUT)? {
        Message::Welcome(_) => {}
        other => return Err(unexpected("Welcome", other)),
    }
    channel.send(Query { id }, TIMEOUT)?;
    match channel.receive(TIMEOUT)? {
        Message::Status(Status { id: of, stage }) if of == id => Ok(stage),
        other => Err(unexpected("Status", other)),
    }
}

fn unexpected(expected: &'static str, got: Message) -> Error {
    match got {
        Message::Failed(failed) => format!("The peer failed while {}: {}", failed.step, failed.reason).into(),
        other => protocol::Error::Unexpected { expected, got: other.name() }.into(),
    }
}

/// As [`stage`], in words for a log when it fails.
pub fn stage_or_reason(host: &Host<'_>, peer: &Peer, id: Uuid) -> Result<Option<Stage>, String> {
    stage(host, peer, id).map_err(|error| chain(error.as_ref()))
}
