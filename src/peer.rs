//! The other host's relocation daemon: a protected connection on which both have introduced themselves.

use std::time::Duration;

use crate::host::{Caller, PROGRAM};
use crate::protocol::{self, Hello, Message, Welcome};
use crate::tls;
use crate::toolstack::Error;
use crate::transport::{self, Channel};

/// Connects, secures and greets: `connect` bounds the connection and the handshake, `answer` each message.
///
/// # Errors
/// The peer cannot be reached in time, or refuses.
pub(crate) fn call(
    caller: Caller<'_>,
    (address, port): (&str, u16),
    connect: Duration,
    answer: Duration,
) -> Result<(Channel, Welcome), Error> {
    let tcp = transport::dial(address, port, connect)?;
    let channel = tls::connect(caller.security, caller.state_dir, tcp, connect)?;
    let hello = Hello {
        oldest: protocol::VERSION_OLDEST,
        newest: protocol::VERSION,
        node: caller.node.into(),
        program: PROGRAM.into(),
    };
    channel.send(hello, answer)?;
    match channel.receive(answer)? {
        Message::Welcome(welcome) => Ok((channel, welcome)),
        other => Err(refusal(other, "Welcome")),
    }
}

/// What the peer said instead of what was awaited, as an error.
pub(crate) fn refusal(message: Message, expected: &'static str) -> Error {
    match message {
        Message::Failed(failed) => format!("The peer failed while {}: {}", failed.step, failed.reason).into(),
        other => protocol::Error::Unexpected { expected, got: other.name() }.into(),
    }
}
