//! Asking the other end's daemon what its journal says of a migration: a connection of its own, one question, one answer.

use std::time::Duration;

use uuid::Uuid;

use crate::host::Host;
use crate::journal::{Peer, Stage};
use crate::migrate::chain;
use crate::peer::{self, refusal};
use crate::protocol::{Message, Query, Status};
use crate::toolstack::Error;

/// How long connecting, and each answer, may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// The stage of the peer's journal; `None` when it has none of this migration.
///
/// # Errors
/// The peer's daemon cannot be reached within [`TIMEOUT`], or refuses.
pub fn stage(host: &Host<'_>, other: &Peer, id: Uuid) -> Result<Option<Stage>, Error> {
    let (channel, _) = peer::call(host.caller(), (&other.host, other.port), TIMEOUT, TIMEOUT)?;
    channel.send(Query { id }, TIMEOUT)?;
    match channel.receive(TIMEOUT)? {
        Message::Status(Status { id: of, stage }) if of == id => Ok(stage),
        answer => Err(refusal(answer, "Status")),
    }
}

/// As [`stage`], in words for a log when it fails.
pub fn stage_or_reason(host: &Host<'_>, other: &Peer, id: Uuid) -> Result<Option<Stage>, String> {
    stage(host, other, id).map_err(|error| chain(error.as_ref()))
}
