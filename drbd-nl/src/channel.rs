//! A transport with DRBD's family resolved: numbered messages out, single messages in.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use crate::{
    Error, Family,
    error::DecodeError,
    family::{self, Resolved},
    socket::{Transport, is_retry},
    wire::{self, Message},
};

#[derive(Debug)]
pub(crate) struct Channel {
    transport: Box<dyn Transport>,
    family: Resolved,
    sequence: u32,
    /// The rest of a datagram with several messages; bounded by the size of a datagram.
    queued: VecDeque<Result<Message, DecodeError>>,
}

impl Channel {
    pub(crate) fn open(transport: Box<dyn Transport>, timeout: Duration) -> Result<Channel, Error> {
        let unresolved = Resolved { id: 0, dialect: crate::Dialect::V84, group: 0 };
        let mut channel = Channel { transport, family: unresolved, sequence: 0, queued: VecDeque::new() };
        channel.resolve(timeout)?;
        Ok(channel)
    }

    /// Asks the controller, at first and again when the module was reloaded.
    pub(crate) fn resolve(&mut self, timeout: Duration) -> Result<(), Error> {
        let sequence = self.send(family::query(0))?;
        let deadline = Instant::now() + timeout;
        loop {
            let received =
                self.receive(deadline).map_err(|source| Error::Socket { doing: "resolve drbd by", source })?;
            let message = received.map_err(undecodable)?;
            if message.sequence != sequence || message.port != self.port() {
                continue;
            }
            if let Some(family) = family_of(&message)? {
                self.family = Resolved::of(&family)?;
                return Ok(());
            }
        }
    }

    pub(crate) fn family(&self) -> Resolved {
        self.family
    }

    pub(crate) fn port(&self) -> u32 {
        self.transport.port()
    }

    /// Sends with the next sequence number, and returns it.
    pub(crate) fn send(&mut self, message: Message) -> Result<u32, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = Message { sequence: self.sequence, ..message }.emit();
        loop {
            match self.transport.send(&bytes) {
                Ok(()) => return Ok(self.sequence),
                Err(error) if is_retry(&error) => {} // nothing was sent
                Err(source) => {
                    return Err(Error::Socket { doing: "send to", source });
                }
            }
        }
    }

    /// The next message, whosever it is. `TimedOut` at the deadline.
    pub(crate) fn receive(&mut self, deadline: Instant) -> io::Result<Result<Message, DecodeError>> {
        loop {
            if let Some(message) = self.queued.pop_front() {
                return Ok(message);
            }
            match self.transport.receive(deadline) {
                Ok(datagram) => self.queued.extend(wire::messages(&datagram)),
                Err(error) if !is_retry(&error) => return Err(error),
                Err(_) if Instant::now() >= deadline => return Err(io::ErrorKind::TimedOut.into()),
                Err(_) => {}
            }
        }
    }

    /// DRBD's group, and the controller's, which tells when DRBD is unloaded.
    pub(crate) fn join_events(&mut self) -> Result<(), Error> {
        for group in [family::CTRL_GROUP, self.family.group] {
            let joined = self.transport.join(group);
            joined.map_err(|source| Error::Socket { doing: "join a group with", source })?;
        }
        Ok(())
    }

    /// A new socket; what the old one had queued is gone.
    pub(crate) fn reopen(&mut self) -> Result<(), Error> {
        self.queued.clear();
        self.transport.reopen().map_err(|source| Error::Socket { doing: "open", source })
    }
}

fn family_of(message: &Message) -> Result<Option<Family>, Error> {
    match message.verdict().map_err(undecodable)? {
        Some(verdict) if verdict.errno == 0 => Ok(None),
        Some(verdict) if Errno::from_raw(verdict.errno) == Errno::ENOENT => Err(Error::NotLoaded),
        Some(verdict) => {
            Err(Error::Socket { doing: "resolve drbd by", source: io::Error::from_raw_os_error(verdict.errno) })
        }
        None => Family::parse(message).map_err(undecodable),
    }
}

fn undecodable(source: DecodeError) -> Error {
    Error::Decode { what: "Answer of the netlink controller".to_owned(), source }
}
