//! Pairing: two hosts get to know each other's keys.
//!
//! At one host an administrator opens the door and is shown a code; at the other one the code is typed. It is a part of the first host's
//! fingerprint, so that the other one knows it has reached the right one, and a secret, which it then shows on that connection: so the
//! first knows who is meant. It is good for one pairing, three attempts and a few minutes. Nobody between the two learns
//! anything that would help him, and each keeps the other's whole key.

mod code;
mod offer;

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

pub use self::code::Code;
pub use self::offer::{Offer, Visitor};
use crate::migrate::chain;
use crate::protocol::{Failed, Message, Pair, Paired};
use crate::tls::{self, Fingerprint, Pin, Pins};
use crate::toolstack::Error;
use crate::transport::{self, Channel};

/// The longest name of a node that is taken from elsewhere, in bytes.
const NAME_LEN_MAX: usize = 64;

/// Pairs this host with the one that has shown the code. Both know each other when this returns.
///
/// # Errors
/// The other host cannot be reached within `timeout`, is not the one with the code, or refuses.
pub fn join(
    state_dir: &Path,
    node: &str,
    (host, port): (&str, u16),
    code: &Code,
    timeout: Duration,
) -> Result<Pin, Error> {
    let tcp = transport::dial(host, port, timeout)?;
    let meant = code.clone();
    let (channel, fingerprint) = tls::connect_to_pair(state_dir, tcp, timeout, move |key| meant.is_of(key))
        .map_err(|error| explain(error, host))?;
    channel.send(Pair { secret: code.secret(), node: node.into() }, timeout)?;
    let name = match channel.receive(timeout)? {
        Message::Paired(Paired { node }) => checked_name(node)?,
        other => return Err(crate::peer::refusal(other, "Paired")),
    };
    channel.finish(timeout);
    keep(state_dir, name, host.into(), fingerprint)
}

fn explain(error: tls::Error, host: &str) -> Error {
    match error {
        tls::Error::Stranger(key) => {
            format!("{host} has key {key}, and the code is of another one: it was mistyped, or this is not the host that showed it").into()
        }
        tls::Error::Unknown => format!("{host} is not being paired: type bascule pair there, and use the code that it shows").into(),
        other => other.into(),
    }
}

/// One who came to be paired, at the daemon of the host that has opened the door.
///
/// # Errors
/// It was refused, or the door is closed.
pub fn answer(run_dir: &Path, node: &str, channel: &Channel, key: Fingerprint, timeout: Duration) -> Result<(), Error> {
    let answered = receive(run_dir, channel, key, timeout);
    match &answered {
        Ok(()) => channel.send(Paired { node: node.into() }, timeout)?,
        Err(error) => {
            let failed = Failed { step: "pairing".into(), reason: chain(error.as_ref()) };
            channel.send(failed, timeout)?;
        }
    }
    channel.finish(timeout);
    answered
}

fn receive(run_dir: &Path, channel: &Channel, key: Fingerprint, timeout: Duration) -> Result<(), Error> {
    let pair = match channel.receive(timeout)? {
        Message::Pair(pair) => pair,
        other => return Err(crate::peer::refusal(other, "Pair")),
    };
    let address = channel.peer()?.ip().to_canonical().to_string();
    let visitor =
        Visitor { secret: pair.secret, name: checked_name(pair.node)?, address, fingerprint: key.to_string() };
    offer::present(run_dir, &visitor, timeout)
}

/// It is printed, and typed.
fn checked_name(name: String) -> Result<String, Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(plain) {
        true => Ok(name),
        false => Err("The other host's node name is not one".into()),
    }
}

/// One of the same name had another key: it was installed anew.
fn keep(state_dir: &Path, name: String, address: String, fingerprint: Fingerprint) -> Result<Pin, Error> {
    let pin = Pin { name, address, fingerprint, paired_at: Timestamp::now() };
    pin.keep(state_dir)?;
    for old in Pins::read(state_dir)?.iter().filter(|old| old.name == pin.name && old.fingerprint != fingerprint) {
        tracing::warn!(name = %old.name, key = %old.fingerprint, "its former key is forgotten");
        old.forget(state_dir)?;
    }
    Ok(pin)
}

#[cfg(test)]
mod tests;
