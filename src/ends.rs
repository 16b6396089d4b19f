//! The hands of both ends: they carry out what the machines of [`crate::handover`] decide, in the process that migrates and,
//! after its death, in the one that recovers. Everything here can be repeated, and every wait is bounded.

pub mod arriving;
pub mod ask;
pub mod destination;
pub mod leaving;
mod settle;
pub mod source;
pub(crate) mod stages;

pub(crate) use self::settle::meet;

use std::time::{Duration, Instant};

use crate::handover::Ending;
use crate::stream::Cancel;

/// What came of an action.
#[derive(Debug)]
pub enum Next<Event> {
    /// The machine goes on with this.
    Event(Event),
    /// Nothing more is done by this process.
    Over(Over),
}

/// Where a process ends its work on a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// Nothing is left to do; the journal says so.
    Closed {
        /// How it ended.
        ending: Ending,
        /// Why.
        reason: String,
    },
    /// A person must speak.
    Doubt(String),
    /// What is left to do is the daemon's, which tries again.
    Left(String),
}

/// How long a process goes on asking.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Until then, if there is an end to it.
    pub until: Option<Instant>,
    /// Somebody wants the process to end.
    pub cancel: Cancel,
    pauses: u32,
}

/// The first pause between two questions; each is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// Between two looks at the wish to end.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

impl Patience {
    /// Asks until then, or without an end.
    #[must_use]
    pub fn new(until: Option<Instant>, cancel: &Cancel) -> Patience {
        Patience { until, cancel: cancel.clone(), pauses: 0 }
    }

    /// Whether a question has been asked.
    pub(crate) fn has_begun(&self) -> bool {
        self.pauses > 0
    }

    /// Waits before the next question, none before the first; false when there will be none.
    fn pause(&mut self) -> bool {
        let length = match self.pauses {
            0 => Duration::ZERO,
            nth => (PAUSE_MIN * (1 << nth.min(10))).min(PAUSE_MAX),
        };
        self.pauses += 1;
        let end = Instant::now() + length;
        while Instant::now() < end && !self.is_over() {
            std::thread::sleep(CANCEL_INTERVAL);
        }
        !self.is_over()
    }

    fn is_over(&self) -> bool {
        self.cancel.requested() || self.until.is_some_and(|until| Instant::now() >= until)
    }
}
