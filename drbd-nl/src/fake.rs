//! A kernel for tests: it answers each request as the test says, and keeps the habits of the real one when told to.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    time::Instant,
};

use crate::{
    Command, Contents, Dialect, Family, GENL_ID_CTRL, List, McastGroup, Packet,
    nest::Value,
    socket::Transport,
    wire::{self, Message, NLMSG_DONE, NLMSG_ERROR},
};

pub(crate) const PORT: u32 = 4711;
pub(crate) const FAMILY_ID: u16 = 26;

/// What comes from the kernel.
pub(crate) enum Reply {
    Datagram(Vec<u8>),
    Error(i32),
    /// This datagram again and again, until the socket is closed.
    Endless(Vec<u8>),
}

type Answers = Box<dyn FnMut(&Message) -> Vec<Reply> + Send>;

/// What the test can see afterwards.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) sent: Vec<Message>,
    pub(crate) reopened: usize,
    pub(crate) joined: Vec<u32>,
}

impl Log {
    /// The requests to DRBD.
    pub(crate) fn packets(&self) -> Vec<Packet> {
        let to_drbd = self.sent.iter().filter(|message| message.kind != GENL_ID_CTRL);
        to_drbd.map(|message| Packet::parse(&message.payload).unwrap()).collect()
    }
}

pub(crate) struct FakeKernel {
    answers: Answers,
    queue: VecDeque<Reply>,
    log: Arc<Mutex<Log>>,
}

impl FakeKernel {
    /// `answers` is called for each request; [`Reply`] tells what to send.
    pub(crate) fn new(
        answers: impl FnMut(&Message) -> Vec<Reply> + Send + 'static,
    ) -> (Box<FakeKernel>, Arc<Mutex<Log>>) {
        let log = Arc::new(Mutex::new(Log::default()));
        let kernel = FakeKernel { answers: Box::new(answers), queue: VecDeque::new(), log: Arc::clone(&log) };
        (Box::new(kernel), log)
    }

    /// A kernel with DRBD: the controller's answers come by themselves, `answers` sees DRBD's requests.
    pub(crate) fn drbd(
        dialect: Dialect,
        mut answers: impl FnMut(&Message, &Packet) -> Vec<Reply> + Send + 'static,
    ) -> (Box<FakeKernel>, Arc<Mutex<Log>>) {
        FakeKernel::new(move |request| match request.kind {
            GENL_ID_CTRL => vec![family(request, FAMILY_ID, u32::from(dialect.version()))],
            _ => answers(request, &Packet::parse(&request.payload).unwrap()),
        })
    }
}

impl std::fmt::Debug for FakeKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeKernel")
    }
}

impl Transport for FakeKernel {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let message = wire::messages(message).next().unwrap().unwrap();
        self.queue.extend((self.answers)(&message));
        self.log.lock().unwrap().sent.push(message);
        Ok(())
    }

    fn receive(&mut self, _: Instant) -> io::Result<Vec<u8>> {
        match self.queue.pop_front() {
            Some(Reply::Datagram(bytes)) => Ok(bytes),
            Some(Reply::Error(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Reply::Endless(bytes)) => {
                self.queue.push_front(Reply::Endless(bytes.clone()));
                Ok(bytes)
            }
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn join(&mut self, group: u32) -> io::Result<()> {
        self.log.lock().unwrap().joined.push(group);
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.queue.clear();
        self.log.lock().unwrap().reopened += 1;
        Ok(())
    }

    fn port(&self) -> u32 {
        PORT
    }
}

/// The controller's answer.
pub(crate) fn family(request: &Message, id: u16, version: u32) -> Reply {
    let payload = family_payload(1, id, version);
    Reply::Datagram(Message { kind: GENL_ID_CTRL, flags: 0, port: PORT, sequence: request.sequence, payload }.emit())
}

/// A message of the controller: 1 a family is there, 2 it is gone.
pub(crate) fn family_payload(command: u8, id: u16, version: u32) -> Vec<u8> {
    let group = McastGroup { name: Some("events".into()), id: Some(3), ..McastGroup::default() };
    let family = Family {
        family_id: Some(id),
        family_name: Some("drbd".into()),
        version: Some(version),
        mcast_groups: Some(List(vec![group])),
        ..Family::default()
    };
    let mut payload = vec![command, 2, 0, 0];
    family.emit(Dialect::V84, &mut payload);
    payload
}

/// DRBD's answer to a request.
pub(crate) fn answer(request: &Message, code: i32, contents: &Contents) -> Reply {
    let asked = Packet::parse(&request.payload).unwrap();
    record(request, asked.command, asked.minor, code, contents)
}

/// One record of a dump, or an answer.
pub(crate) fn record(request: &Message, command: Command, minor: u32, code: i32, contents: &Contents) -> Reply {
    let dialect = dialect_of(request);
    let packet = Packet { code, ..Packet::request(command, minor, contents, dialect) };
    Reply::Datagram(Message { port: PORT, flags: 2, ..wrap(request, &packet) }.emit())
}

/// A broadcast: port 0, a number of the kernel's own.
pub(crate) fn broadcast(sequence: u32, packet: &Packet) -> Reply {
    let message = Message { kind: FAMILY_ID, flags: 0, sequence, port: 0, payload: packet.emit() };
    Reply::Datagram(message.emit())
}

/// A record of the initial state: the request's number, but port 0 and no flags.
pub(crate) fn initial(request: &Message, packet: &Packet) -> Reply {
    Reply::Datagram(Message { port: 0, flags: 0, ..wrap(request, packet) }.emit())
}

fn wrap(request: &Message, packet: &Packet) -> Message {
    Message { payload: packet.emit(), ..request.clone() }
}

pub(crate) fn done(request: &Message) -> Reply {
    verdict(NLMSG_DONE, request, 0)
}

pub(crate) fn failure(request: &Message, errno: i32) -> Reply {
    verdict(NLMSG_ERROR, request, errno)
}

fn verdict(kind: u16, request: &Message, errno: i32) -> Reply {
    let mut payload = (-errno).to_ne_bytes().to_vec();
    if kind == NLMSG_ERROR {
        payload.extend(Message { payload: vec![], ..request.clone() }.emit());
    }
    Reply::Datagram(Message { kind, flags: 0, port: PORT, sequence: request.sequence, payload }.emit())
}

fn dialect_of(request: &Message) -> Dialect {
    match Packet::parse(&request.payload).unwrap().version {
        1 => Dialect::V84,
        _ => Dialect::V9,
    }
}
