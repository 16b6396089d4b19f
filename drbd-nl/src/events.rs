//! Events: everything that exists, then every change, in one stream.
//!
//! The group is joined before the initial state is asked for, so nothing falls between the two; notifications that arrive while the initial state
//! comes in are held back until it is complete. They can repeat what it said: take each object's last state. When the kernel had to
//! drop notifications the stream says [`Event::Lost`] and starts again with all that exists.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use crate::{
    ANSWER_TIMEOUT, Command, Contents, Dialect, Error, Family, GENL_ID_CTRL, NO_MINOR, Notified, Packet,
    channel::Channel,
    error::DecodeError,
    event::{self, Event},
    family,
    socket::{KernelSocket, Transport, is_overrun},
    wire::{Message, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE},
};

/// Notifications that are held back while the initial state comes in; with more the stream starts again.
pub const PENDING_MAX: usize = 10_000;

/// A stream of events on a socket of its own.
#[derive(Debug)]
pub struct Events {
    channel: Channel,
    phase: Phase,
    ready: VecDeque<(Event, bool)>,
    held: VecDeque<(Event, bool)>,
    more_follow: bool,
}

#[derive(Debug)]
enum Phase {
    /// The initial state comes in as the answer to this request.
    Snapshot {
        sequence: u32,
    },
    Live,
    /// What is known is stale.
    Lost,
}

impl Events {
    /// Opens a socket, joins DRBD's group, and asks for the initial state.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`] while the module is not loaded.
    pub fn open() -> Result<Events, Error> {
        let socket = KernelSocket::open().map_err(|source| Error::Socket { doing: "open", source })?;
        Events::over(Box::new(socket))
    }

    pub(crate) fn over(transport: Box<dyn Transport>) -> Result<Events, Error> {
        let channel = Channel::open(transport, ANSWER_TIMEOUT)?;
        let (ready, held) = (VecDeque::new(), VecDeque::new());
        let mut events = Events { channel, phase: Phase::Lost, ready, held, more_follow: false };
        events.subscribe()?;
        Ok(events)
    }

    /// The next event; nothing when none came until `deadline`.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`] when the module was unloaded: this stream is dead then.
    pub fn next(&mut self, deadline: Instant) -> Result<Option<Event>, Error> {
        loop {
            if let Some((event, more)) = self.ready.pop_front() {
                self.more_follow = more;
                return Ok(Some(event));
            }
            if matches!(self.phase, Phase::Lost) {
                self.start_again()?;
            }
            match self.channel.receive(deadline) {
                Ok(message) => self.take(&message.map_err(undecodable)?)?,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(None),
                Err(error) if is_overrun(&error) => self.lose(),
                Err(source) => return Err(Error::Socket { doing: "receive from", source }),
            }
        }
    }

    /// More events of the same state change follow the last one: until this is false, a tree made of them can be inconsistent.
    pub fn more_follow(&self) -> bool {
        self.more_follow
    }

    /// What the loaded module speaks.
    pub fn dialect(&self) -> Dialect {
        self.channel.family().dialect
    }

    fn subscribe(&mut self) -> Result<(), Error> {
        self.channel.join_events()?;
        let request = Packet::request(Command::GET_INITIAL_STATE, NO_MINOR, &Contents::default(), self.dialect());
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let kind = self.channel.family().id;
        let sequence = self.channel.send(Message { kind, flags, sequence: 0, port: 0, payload: request.emit() })?;
        self.phase = Phase::Snapshot { sequence };
        Ok(())
    }

    /// On a new socket, so that nothing old is left in it; the family may have another id by now.
    fn start_again(&mut self) -> Result<(), Error> {
        self.channel.reopen()?;
        self.channel.resolve(RESOLVE_TIMEOUT)?;
        self.subscribe()
    }

    fn lose(&mut self) {
        self.held.clear();
        self.ready.clear();
        self.ready.push_back((Event::Lost, false));
        self.phase = Phase::Lost;
    }

    fn take(&mut self, message: &Message) -> Result<(), Error> {
        let asked = matches!(self.phase, Phase::Snapshot { sequence } if sequence == message.sequence);
        if let Some(verdict) = message.verdict().map_err(undecodable)? {
            return if asked { self.snapshot_verdict(message.kind, verdict.errno) } else { Ok(()) };
        }
        if message.kind == GENL_ID_CTRL {
            return family_is_gone(message);
        }
        if message.kind != self.channel.family().id {
            return Ok(());
        }
        let packet = Packet::parse(&message.payload).map_err(undecodable)?;
        let contents = packet.contents(self.dialect()).map_err(undecodable)?;
        self.notified(&packet, &contents, asked).map_err(undecodable)
    }

    /// The records of the initial state carry neither NLM_F_MULTI nor our port: what tells them apart is the request's number and "exists".
    fn notified(&mut self, packet: &Packet, contents: &Contents, asked: bool) -> Result<(), DecodeError> {
        let what =
            contents.notification.as_ref().and_then(|header| header.nh_type).unwrap_or(Notified(Notified::EXISTS));
        let in_snapshot = asked && what.what() == Notified::EXISTS;
        if in_snapshot && packet.command == Command::INITIAL_STATE_DONE {
            self.ready.push_back((Event::SnapshotDone, false));
            self.ready.append(&mut self.held);
            self.phase = Phase::Live;
            return Ok(());
        }
        let Some(event) = event::of(packet, contents, what)? else { return Ok(()) };
        let event = (event, what.continues());
        match self.phase {
            Phase::Snapshot { .. } if !in_snapshot && self.held.len() >= PENDING_MAX => self.lose(),
            Phase::Snapshot { .. } if !in_snapshot => self.held.push_back(event),
            Phase::Snapshot { .. } | Phase::Live | Phase::Lost => self.ready.push_back(event),
        }
        Ok(())
    }

    /// The initial state ended without its last record, or was refused.
    fn snapshot_verdict(&mut self, kind: u16, errno: i32) -> Result<(), Error> {
        if kind == NLMSG_DONE || errno == 0 {
            self.lose();
            return Ok(());
        }
        let (command, subject) = (Command::GET_INITIAL_STATE, "all resources".to_owned());
        Err(Error::Kernel { command, subject, errno: Errno::from_raw(errno), text: None })
    }
}

/// How long the controller may take when the stream starts again.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The controller's own notifications: only the end of DRBD's family matters.
fn family_is_gone(message: &Message) -> Result<(), Error> {
    match Family::removed(message).map_err(undecodable)? {
        Some(family) if family.family_name.as_deref() == Some(family::NAME) => Err(Error::NotLoaded),
        _ => Ok(()),
    }
}

fn undecodable(source: DecodeError) -> Error {
    Error::Decode { what: "Event".to_owned(), source }
}
