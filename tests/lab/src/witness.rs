//! What the guests' LAN saw of a guest: where it ran, how long it was silent, whether a number is missing, whether two copies of it ran.
//!
//! Times are the host's CLOCK_MONOTONIC ([`monotonic_now`]). Everything is read from the log that the hub writes ([`crate::lan`]).

pub mod story;

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use lab_guest::wire::{Answer, Command, Datagram, Order, Report};

use crate::lan::log::{LogReader, Record};
use crate::lan::{control_socket, monotonic_now, witness_log};

pub use story::{Doubled, Errors, LostWrites, Silence, Stop, Story, Window};

/// How often a waiting caller looks into the log.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A command may be lost like any datagram; it is sent again after this time without an answer.
const RESEND_AFTER: Duration = Duration::from_secs(5);
/// Reports kept in memory; the oldest go first.
const SIGHTINGS_MAX: usize = 200_000;
/// Answers kept in memory.
const ANSWERS_MAX: usize = 1000;

/// A report of a guest as the LAN saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// When, by the host's CLOCK_MONOTONIC.
    pub at: Duration,
    /// When, by the host's CLOCK_REALTIME.
    pub wall: SystemTime,
    /// The node that the guest ran on.
    pub node: u8,
    /// What it said.
    pub report: Report,
}

/// A reader of what the hub in the same directory has seen and sees.
#[derive(Debug)]
pub struct Witness {
    dir: PathBuf,
    memory: Mutex<Memory>,
    next_id: AtomicU32,
}

#[derive(Debug)]
struct Memory {
    reader: LogReader,
    sightings: Vec<Sighting>,
    answers: Vec<Answer>,
}

impl Witness {
    /// The witness of the hub that runs, or will run, in `dir`.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let reader = LogReader::new(&witness_log(dir));
        Self {
            dir: dir.to_owned(),
            memory: Mutex::new(Memory { reader, sightings: Vec::new(), answers: Vec::new() }),
            // Answers to an earlier witness must not be taken for ours.
            next_id: AtomicU32::new(monotonic_now().subsec_nanos()),
        }
    }

    /// The guest's last report: where it is, how far it has come.
    #[must_use]
    pub fn latest(&self, guest: &str) -> Option<Sighting> {
        self.look(|memory| memory.sightings.iter().rev().find(|sighting| sighting.report.name == guest).cloned())
    }

    /// Waits until the guest reports the number `n` or a later one.
    ///
    /// # Errors
    /// As [`wait_for`](Self::wait_for).
    pub fn wait_for_n(&self, guest: &str, n: u64, wait_max: Duration) -> anyhow::Result<Sighting> {
        self.wait_for(guest, wait_max, |sighting| sighting.report.n >= n)
            .with_context(|| format!("{guest} has not reached number {n}"))
    }

    /// Waits until the guest is heard from `node`.
    ///
    /// # Errors
    /// As [`wait_for`](Self::wait_for).
    pub fn wait_for_node(&self, guest: &str, node: u8, wait_max: Duration) -> anyhow::Result<Sighting> {
        self.wait_for(guest, wait_max, |sighting| sighting.node == node)
            .with_context(|| format!("{guest} is not heard from node {node}"))
    }

    /// Waits for a report that is as `wanted`. Only reports that come after the call count: a guest that is gone cannot satisfy anybody.
    ///
    /// # Errors
    /// There was none within `wait_max`; the message carries the last report.
    pub fn wait_for(
        &self,
        guest: &str,
        wait_max: Duration,
        wanted: impl Fn(&Sighting) -> bool,
    ) -> anyhow::Result<Sighting> {
        let begin = monotonic_now();
        loop {
            match self.latest(guest) {
                Some(sighting) if sighting.at >= begin && wanted(&sighting) => return Ok(sighting),
                _ if monotonic_now() < begin + wait_max => thread::sleep(LOOK_AGAIN),
                Some(Sighting { node, report, .. }) => {
                    bail!("After {wait_max:?} the last report is from node {node}: {report}")
                }
                None => bail!("After {wait_max:?} nothing was heard of {guest}"),
            }
        }
    }

    /// All that was seen of the guest in the window, to be asked what happened in it.
    #[must_use]
    pub fn story(&self, guest: &str, window: Window) -> Story {
        let of_guest = |sighting: &&Sighting| sighting.report.name == guest && window.contains(sighting.at);
        let sightings = self.look(|memory| memory.sightings.iter().filter(of_guest).cloned().collect());
        Story::new(window, sightings)
    }

    /// Sends an order to the guest, or to all guests (`*`), and returns the id that its answer will carry.
    ///
    /// # Errors
    /// The hub does not run.
    pub fn command(&self, guest: &str, order: Order) -> anyhow::Result<u32> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.send(&Command { to: guest.to_owned(), id, order })?;
        Ok(id)
    }

    /// Sends an order to the guest and waits for its answer.
    ///
    /// # Errors
    /// The hub does not run, or the guest does not answer within `wait_max`.
    pub fn ask(&self, guest: &str, order: Order, wait_max: Duration) -> anyhow::Result<Answer> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let command = Command { to: guest.to_owned(), id, order };
        let begin = Instant::now();
        let mut sent = 0;
        while begin.elapsed() < wait_max {
            if begin.elapsed() >= RESEND_AFTER * sent {
                self.send(&command)?;
                sent += 1;
            }
            if let Some(answer) = self.answer(guest, id) {
                return Ok(answer);
            }
            thread::sleep(LOOK_AGAIN);
        }
        bail!("{guest} has not answered {order} within {wait_max:?}")
    }

    fn answer(&self, guest: &str, id: u32) -> Option<Answer> {
        let ours = |answer: &&Answer| answer.id == id && (guest == "*" || answer.name == guest);
        self.look(|memory| memory.answers.iter().rev().find(ours).cloned())
    }

    fn send(&self, command: &Command) -> anyhow::Result<()> {
        let hub = control_socket(&self.dir);
        let sent = UnixDatagram::unbound()?.send_to(command.to_string().as_bytes(), &hub);
        sent.with_context(|| format!("No hub takes commands at {}", hub.display()))?;
        Ok(())
    }

    /// Brings the memory up to date and looks into it.
    fn look<T>(&self, look: impl FnOnce(&Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.catch_up();
        look(&memory)
    }
}

impl Memory {
    fn catch_up(&mut self) {
        let Self { reader, sightings, answers } = self;
        reader.read_new(|Record { at, wall, node, datagram }| match datagram {
            Datagram::Report(report) => keep(sightings, SIGHTINGS_MAX, Sighting { at, wall, node, report }),
            Datagram::Answer(answer) => keep(answers, ANSWERS_MAX, answer),
        });
    }
}

/// Adds to a list of bounded length; half of it goes at once, so that this costs nothing on the average.
fn keep<T>(list: &mut Vec<T>, length_max: usize, item: T) {
    if list.len() >= length_max {
        list.drain(..length_max / 2);
    }
    list.push(item);
}
