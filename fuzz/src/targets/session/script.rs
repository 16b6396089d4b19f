//! What a source sends, as bytes that are easy to change a little: each step is its number and, for some, a byte of particulars or a
//! length and as many bytes.

use bascule::ids::VolumeId;
use bascule::journal::{Done, Stage};
use bascule::protocol::{
    self, Answer, Failed, Go, HEADER_LEN, Handover, Held, Hello, Kept, Message, Offer, OfferedVolume, Query, Ready,
    Released, Returned, Started, Status, Stream, VERSION, VERSION_OLDEST, Welcome,
};
use uuid::Uuid;

use super::daemon::Said;
use super::host::{Fault, GENERATION, MEMORY, NAME, SIZE_SECTORS, UUID};
use crate::targets::domain::{grafted, volume};

/// The migration that the offers are of.
const ID: Uuid = Uuid::from_u128(0x1d);
/// The most steps of one script: all of them fit into a socket's buffer.
const STEPS_MAX: usize = 48;
/// The most connections of one script.
const CONNECTIONS_MAX: usize = 4;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) connections: Vec<Connection>,
    /// What fails on this host, each once.
    pub(super) faults: Vec<Fault>,
}

/// What comes on one connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    steps: Vec<Step>,
    /// What the source's daemon says, should it be asked.
    pub(super) answers: Vec<Said>,
    /// It does not let its volumes go, whatever it says.
    pub(super) stays_primary: bool,
}

#[derive(Debug)]
enum Step {
    Message(Message),
    /// The stand-in's memory stream.
    Memory,
    /// Whatever.
    Bytes(Vec<u8>),
}

impl Script {
    /// Every sequence of bytes is a script. `port` is the one of the source's daemon.
    pub(super) fn read(bytes: &[u8], port: u16) -> Script {
        let mut reader = Reader { rest: bytes, port };
        let mut script = Script { connections: vec![Connection::default()], faults: Vec::new() };
        for _ in 0..STEPS_MAX {
            let Some(kind) = reader.byte() else { break };
            script.add(kind, &mut reader);
        }
        script
    }

    fn add(&mut self, kind: u8, reader: &mut Reader<'_>) {
        let enough = self.connections.len() >= CONNECTIONS_MAX;
        let Some(connection) = self.connections.last_mut() else { return };
        match kind % 20 {
            0 if !enough => self.connections.push(Connection::default()),
            1 => self.fails(reader.byte()),
            2 => connection.answers.extend(reader.byte().map(said)),
            3 => connection.stays_primary = true,
            4 => connection.steps.push(Step::Memory),
            5 => connection.steps.push(Step::Bytes(reader.chunk().to_vec())),
            other => connection.steps.extend(reader.message(other).map(Step::Message)),
        }
    }

    fn fails(&mut self, which: Option<u8>) {
        let fault = which.map(|which| Fault::ALL[usize::from(which) % Fault::ALL.len()]);
        self.faults.extend(fault.filter(|fault| !self.faults.contains(fault)));
    }

    /// Whether the first connection is one that can only end with the domain running here.
    pub(super) fn must_move(&self, connection: &Connection) -> bool {
        let is_first = self.connections.first().is_some_and(|first| std::ptr::eq(first, connection));
        is_first && self.faults.is_empty() && !connection.stays_primary && connection.is_proper()
    }
}

impl Connection {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.steps.iter().flat_map(Step::bytes).collect()
    }

    /// Whether GO can have been heard: from the source, after READY, or from its daemon.
    pub(super) fn may_start(&self) -> bool {
        if self.steps.iter().any(|step| matches!(step, Step::Bytes(_))) {
            let frame = protocol::encode(&Go {}.into()).expect("a frame");
            let bytes = self.bytes();
            return self.go_in_journal() || bytes.windows(HEADER_LEN).any(|window| window == &frame[..HEADER_LEN]);
        }
        let mut rest = self.steps.iter();
        let ready = rest.by_ref().any(|step| matches!(step, Step::Memory));
        let mut go = || rest.any(|step| matches!(step, Step::Message(Message::Go(_))));
        ready && (self.go_in_journal() || go())
    }

    /// The first question is answered so; there is no second one ([`super::daemon::Daemon::say`]).
    fn go_in_journal(&self) -> bool {
        self.answers.first() == Some(&Said::Stage(Some(Stage::Go)))
    }

    fn is_proper(&self) -> bool {
        let [Step::Message(Message::Hello(hello)), Step::Message(Message::Offer(offer)), rest @ ..] = &self.steps[..]
        else {
            return false;
        };
        let [Step::Message(Message::Stream(_)), Step::Memory, Step::Message(released), rest @ ..] = rest else {
            return false;
        };
        let held = rest.iter().take_while(|step| matches!(step, Step::Message(Message::Held(_)))).count();
        *offer == plain_offer(Handover::Single, offer.port)
            && hello.newest == VERSION
            && hello.oldest == VERSION
            && matches!(released, Message::Released(_))
            && matches!(rest.get(held), Some(Step::Message(Message::Go(_))))
    }
}

impl Step {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Step::Message(message) => protocol::encode(message).expect("short enough"),
            Step::Memory => MEMORY.to_vec(),
            Step::Bytes(bytes) => bytes.clone(),
        }
    }
}

struct Reader<'b> {
    rest: &'b [u8],
    port: u16,
}

impl<'b> Reader<'b> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// As many bytes as the next byte says, or as there are.
    fn chunk(&mut self) -> &'b [u8] {
        let len = usize::from(self.byte().unwrap_or(0)).min(self.rest.len());
        let (chunk, rest) = self.rest.split_at(len);
        self.rest = rest;
        chunk
    }

    fn message(&mut self, kind: u8) -> Option<Message> {
        Some(match kind {
            6 => hello(VERSION_OLDEST, VERSION),
            7 => self.byte().map(|versions| hello(u16::from(versions >> 4), u16::from(versions & 15)))?,
            8 => plain_offer(Handover::Single, self.port).into(),
            9 => plain_offer(Handover::Dual, self.port).into(),
            10 => self.strange_offer()?.into(),
            11 => {
                let config = grafted(std::str::from_utf8(self.chunk()).ok()?)?;
                Offer { config, ..plain_offer(Handover::Single, self.port) }.into()
            }
            12 => Query { id: if self.byte()? & 1 == 0 { ID } else { Uuid::nil() } }.into(),
            13 => Stream {}.into(),
            14 => Released {}.into(),
            15 => Kept {}.into(),
            16 => Held {}.into(),
            17 | 18 => Go {}.into(),
            _ => answer_of_ours(self.byte()?),
        })
    }

    fn strange_offer(&mut self) -> Option<Offer> {
        let mut offer = plain_offer(Handover::Single, self.port);
        match self.byte()? % 9 {
            0 => offer.check_only = true,
            1 => {
                offer.config = grafted("pv\ndisks=[]").unwrap_or_default();
                offer.volumes.clear();
            }
            2 => offer.name = "dom0".into(),
            3 => offer.uuid = Uuid::nil(),
            4 => offer.memory_kib = u64::MAX,
            5 => offer.volumes[0].id = VolumeId { resource: "r9".into(), volume: 0 },
            6 => offer.volumes[0].generation ^= 2,
            7 => offer.volumes.push(offer.volumes[0].clone()),
            _ => offer.id = Uuid::nil(),
        }
        Some(offer)
    }
}

fn hello(oldest: u16, newest: u16) -> Message {
    Hello { oldest, newest, node: "node1".into(), program: "bascule".into() }.into()
}

fn plain_offer(handover: Handover, port: u16) -> Offer {
    Offer {
        id: ID,
        name: NAME.into(),
        uuid: UUID,
        config: grafted("pv").unwrap_or_default(),
        memory_kib: 128 << 10,
        volumes: vec![OfferedVolume { id: volume(), size_sectors: SIZE_SECTORS, generation: GENERATION }],
        disks: Vec::new(),
        settled_nics: Vec::new(),
        cpu: None,
        xen: None,
        handover,
        port,
        check_only: false,
    }
}

/// A message that only a destination sends.
fn answer_of_ours(which: u8) -> Message {
    match which % 7 {
        0 => Welcome { version: VERSION, node: String::new(), program: String::new() }.into(),
        1 => Answer { findings: Vec::new() }.into(),
        2 => Failed { step: String::new(), reason: String::new() }.into(),
        3 => Ready { disks_us: 0, devices_us: 0 }.into(),
        4 => Started { domid: 1, downtime_us: 0, start_us: 0 }.into(),
        5 => Returned { reason: String::new() }.into(),
        _ => Status { id: ID, stage: Some(Stage::Go) }.into(),
    }
}

fn said(which: u8) -> Said {
    const STAGES: [Stage; 12] = [
        Stage::Open,
        Stage::Released,
        Stage::Go,
        Stage::Returned,
        Stage::Ready,
        Stage::Held,
        Stage::Owned,
        Stage::Started,
        Stage::Aborted,
        Stage::Done(Done::Moved),
        Stage::Done(Done::RolledBack),
        Stage::Done(Done::Lost),
    ];
    match which % 16 {
        12 => Said::Stage(None),
        13 => Said::OtherMigration,
        14 => Said::Garbage,
        15 => Said::Hangup,
        stage => Said::Stage(Some(STAGES[usize::from(stage)])),
    }
}
