//! Requests: one socket, one request at a time, the answer told from everything else that arrives.
//!
//! The requests themselves stand in the file of the object that they are about.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::{
    CfgContext, Command, Contents, Dialect, Error, Packet, Refusal, Target,
    channel::Channel,
    packet::NO_MINOR,
    refusal,
    socket::{KernelSocket, Transport, is_overrun},
    wire::{Message, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE},
};

/// How long an answer may take, unless [`Drbd::set_timeout`] says otherwise; `drbdsetup` waits as long.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Records that one dump may have.
pub const DUMP_RECORDS_MAX: usize = 100_000;

/// One socket for requests. A command runs in the kernel while it is sent: use one `Drbd` per thread.
#[derive(Debug)]
pub struct Drbd {
    channel: Channel,
    timeout: Duration,
}

/// What a successful command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The state changed.
    Done,
    /// It was so already.
    NothingToDo,
}

impl Drbd {
    /// Opens a socket and finds out what the kernel speaks.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`]: somebody has to load the module first, the kernel does not do it by itself.
    pub fn open() -> Result<Drbd, Error> {
        let socket = KernelSocket::open().map_err(|source| Error::Socket { doing: "open", source })?;
        Drbd::over(Box::new(socket))
    }

    pub(crate) fn over(transport: Box<dyn Transport>) -> Result<Drbd, Error> {
        Ok(Drbd { channel: Channel::open(transport, ANSWER_TIMEOUT)?, timeout: ANSWER_TIMEOUT })
    }

    /// What the loaded module speaks.
    pub fn dialect(&self) -> Dialect {
        self.channel.family().dialect
    }

    /// How long answers may take from now on. The kernel's own work inside a command is not bounded by it.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// A command that is done or refused.
    pub(crate) fn command(&mut self, request: &Request) -> Result<(), Error> {
        self.ask(request).map(drop)
    }

    /// A command that may have nothing to do.
    pub(crate) fn change(&mut self, request: &Request) -> Result<Change, Error> {
        let (code, _) = self.ask(request)?;
        Ok(if refusal::is_nothing_to_do(code) { Change::NothingToDo } else { Change::Done })
    }

    /// A request with one answer.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<(i32, Contents), Error> {
        let packet = self.attempt(|drbd| drbd.ask_once(request))?;
        let contents = packet.contents(self.dialect()).map_err(|source| request.undecodable(source))?;
        if refusal::is_success(packet.code) {
            return Ok((packet.code, contents));
        }
        Err(request.refused(packet.code, contents, self.dialect()))
    }

    /// The family's id changes when the module is loaded anew; the kernel does not know the old one then, so nothing has happened and
    /// the request can be repeated.
    fn attempt<T>(&mut self, mut once: impl FnMut(&mut Drbd) -> Result<T, Error>) -> Result<T, Error> {
        let dialect = self.dialect();
        let mut result = once(self);
        if matches!(result, Err(Error::Kernel { errno: Errno::ENOENT, .. })) {
            self.channel.resolve(self.timeout)?;
            if self.dialect() == dialect {
                result = once(self); // else the request was made for another DRBD
            }
        }
        if result.as_ref().is_err_and(leaves_a_rest) {
            // Should that fail too, what was wrong at first is what the caller has to know.
            drop(self.channel.reopen());
        }
        result
    }

    fn ask_once(&mut self, request: &Request) -> Result<Packet, Error> {
        let sequence = self.send(request, NLM_F_REQUEST)?;
        let deadline = Instant::now() + self.timeout;
        loop {
            let message = self.answer(request, sequence, deadline)?;
            if let Some(packet) = self.packet_or_error(request, &message)? {
                return Ok(packet);
            }
        }
    }

    /// All records of a dump. A refusal in a record ends it: the kernel would repeat that record for ever.
    pub(crate) fn dump(&mut self, request: &Request) -> Result<Vec<Record>, Error> {
        self.attempt(|drbd| drbd.dump_once(request))
    }

    fn dump_once(&mut self, request: &Request) -> Result<Vec<Record>, Error> {
        let sequence = self.send(request, NLM_F_REQUEST | NLM_F_DUMP)?;
        let deadline = Instant::now() + self.timeout;
        let mut records = Vec::new();
        while records.len() < DUMP_RECORDS_MAX {
            let message = self.answer(request, sequence, deadline)?;
            let Some(packet) = self.packet_or_error(request, &message)? else {
                if message.kind == NLMSG_DONE {
                    return Ok(records);
                }
                continue;
            };
            let contents = packet.contents(self.dialect()).map_err(|source| request.undecodable(source))?;
            if !refusal::is_success(packet.code) {
                return Err(request.refused(packet.code, contents, self.dialect()));
            }
            records.push(Record { minor: packet.minor, contents });
        }
        Err(Error::Endless { command: request.command, records: records.len() })
    }

    fn send(&mut self, request: &Request, flags: u16) -> Result<u32, Error> {
        let packet = Packet::request(request.command, request.minor, &request.contents, self.dialect());
        let message = Message { kind: self.channel.family().id, flags, sequence: 0, port: 0, payload: packet.emit() };
        self.channel.send(message)
    }

    /// The next message that answers `sequence`. Broadcasts come from port 0 with numbers of their own.
    fn answer(&mut self, request: &Request, sequence: u32, deadline: Instant) -> Result<Message, Error> {
        loop {
            let received = self.channel.receive(deadline).map_err(|error| request.unanswered(error, self.timeout))?;
            let message = received.map_err(|source| request.undecodable(source))?;
            if message.sequence == sequence && message.port == self.channel.port() {
                return Ok(message);
            }
        }
    }

    /// What is DRBD's answer; nothing for a verdict of netlink's that is no error.
    fn packet_or_error(&mut self, request: &Request, message: &Message) -> Result<Option<Packet>, Error> {
        let broken = |source| request.undecodable(source);
        match message.verdict().map_err(broken)? {
            Some(verdict) if verdict.errno == 0 => Ok(None),
            Some(verdict) => Err(request.failed(verdict)),
            None if message.kind == self.channel.family().id => {
                Packet::parse(&message.payload).map(Some).map_err(broken)
            }
            None => Ok(None),
        }
    }

    pub(crate) fn only_in(&self, dialect: Dialect, command: Command) -> Result<(), Error> {
        if self.dialect() == dialect { Ok(()) } else { Err(Error::NotInDialect { command, dialect: self.dialect() }) }
    }
}

/// After these something can still arrive, or the kernel goes on with a dump that nobody reads; it would refuse the next one on this socket.
fn leaves_a_rest(error: &Error) -> bool {
    !matches!(error, Error::Kernel { .. } | Error::NotPermitted { .. } | Error::NotLoaded)
}

/// A record of a dump.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) minor: u32,
    pub(crate) contents: Contents,
}

/// A request that has not been sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) command: Command,
    pub(crate) minor: u32,
    pub(crate) contents: Contents,
    /// The object, for messages.
    pub(crate) subject: String,
}

impl Request {
    pub(crate) fn new(command: Command, subject: String) -> Request {
        Request { command, minor: NO_MINOR, contents: Contents::default(), subject }
    }

    pub(crate) fn of_minor(command: Command, minor: u32) -> Request {
        Request { minor, ..Request::new(command, format!("minor {minor}")) }
    }

    pub(crate) fn of_volume(command: Command, volume: &Target) -> Request {
        Request { subject: volume.to_string(), ..Request::of_minor(command, volume.minor) }
    }

    pub(crate) fn of_resource(command: Command, name: &str) -> Result<Request, Error> {
        let mut request = Request::new(command, name.to_owned());
        request.context().resource_name = Some(checked_name(name)?.to_owned());
        Ok(request)
    }

    pub(crate) fn context(&mut self) -> &mut CfgContext {
        self.contents.context.get_or_insert_with(CfgContext::default)
    }

    fn refused(&self, code: i32, contents: Contents, dialect: Dialect) -> Error {
        Error::Refused {
            command: self.command,
            subject: self.subject.clone(),
            refusal: Refusal::from_code(code, dialect),
            info: contents.reply.unwrap_or_default().info_text,
        }
    }

    fn failed(&self, verdict: crate::wire::Verdict) -> Error {
        let (command, subject) = (self.command, self.subject.clone());
        match Errno::from_raw(verdict.errno) {
            Errno::EPERM => Error::NotPermitted { command, subject },
            errno => Error::Kernel { command, subject, errno, text: verdict.text },
        }
    }

    fn unanswered(&self, error: std::io::Error, after: Duration) -> Error {
        let (command, subject) = (self.command, self.subject.clone());
        match error {
            error if error.kind() == std::io::ErrorKind::TimedOut => Error::Timeout { command, subject, after },
            error if is_overrun(&error) => Error::AnswerLost { command, subject },
            source => Error::Socket { doing: "receive from", source },
        }
    }

    fn undecodable(&self, source: crate::DecodeError) -> Error {
        Error::Decode { what: format!("Answer to {} of {}", self.command, self.subject), source }
    }
}

const RESOURCE_NAME_MAX: usize = 127; // drbd_genl.h: ctx_resource_name has 128 bytes with its NUL

/// The kernel reads a name up to its first NUL: a name with one inside would mean another resource.
pub(crate) fn checked_name(name: &str) -> Result<&str, Error> {
    let good = !name.is_empty() && name.len() <= RESOURCE_NAME_MAX && !name.contains('\0');
    if good { Ok(name) } else { Err(Error::BadName { name: name.to_owned() }) }
}
