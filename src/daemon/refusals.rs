//! The log of what is refused: one line each, as long as they are few. A flood is a handful of lines and a number.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The most lines of one kind in a [`WINDOW`]; what comes above is counted.
const LINES_MAX: u32 = 5;
/// How long a kind's lines are counted together.
const WINDOW: Duration = Duration::from_secs(5);

/// Why something is refused. Each kind is counted by itself: a flood of one hides none of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The peer is not on the list.
    Host,
    /// There are too many connections of it, or in all, that have not said who they are.
    Crowd,
    /// Too many names are being looked up.
    Names,
    /// It did not prove who it is.
    Proof,
    /// It did, and there are as many sessions as there may be.
    Busy,
    /// No worker could be started.
    Worker,
    /// The system has no descriptor or memory for another connection.
    Exhausted,
}

impl Why {
    const ALL: [Why; 7] = [Why::Host, Why::Crowd, Why::Names, Why::Proof, Why::Busy, Why::Worker, Why::Exhausted];

    fn text(self) -> &'static str {
        match self {
            Why::Host => "not an allowed host",
            Why::Crowd => "too many connections that have not said who they are",
            Why::Names => "too many names are being looked up",
            Why::Proof => "it did not prove who it is",
            Why::Busy => "too many sessions",
            Why::Worker => "no worker could be started",
            Why::Exhausted => "no connection can be accepted",
        }
    }
}

/// What was refused lately, by its kind.
#[derive(Debug, Default)]
pub(super) struct Refusals([Tally; Why::ALL.len()]);

impl Refusals {
    /// Logs it, or counts it.
    pub(super) fn say(&mut self, why: Why, peer: Option<SocketAddr>, detail: &str) {
        let peer = peer.map(tracing::field::display);
        if self.0[why as usize].may_speak(Instant::now()) {
            let detail = (!detail.is_empty()).then_some(detail);
            tracing::warn!(peer, detail, "refused: {}", why.text());
        }
    }

    /// Says how many there were more, when a window is over.
    pub(super) fn sum_up(&mut self) {
        self.sum_up_at(Instant::now());
    }

    /// The same for windows that will not be over: there is nothing more to come.
    pub(super) fn finish(&mut self) {
        self.sum_up_at(Instant::now() + WINDOW);
    }

    fn sum_up_at(&mut self, now: Instant) {
        for why in Why::ALL {
            if let Some(more) = self.0[why as usize].sum(now) {
                tracing::warn!(more, seconds = WINDOW.as_secs(), "refused: {}", why.text());
            }
        }
    }
}

/// One kind's lines.
#[derive(Debug, Default)]
struct Tally {
    window: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl Tally {
    fn may_speak(&mut self, now: Instant) -> bool {
        self.window.get_or_insert(now);
        let speaks = self.said < LINES_MAX;
        match speaks {
            true => self.said += 1,
            false => self.unsaid += 1,
        }
        speaks
    }

    /// Ends a window that is over; how many of it were not said, if any.
    fn sum(&mut self, now: Instant) -> Option<u64> {
        let over = self.window.is_some_and(|since| now.saturating_duration_since(since) >= WINDOW);
        let ended = over.then(|| std::mem::take(self))?;
        (ended.unsaid > 0).then_some(ended.unsaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_a_number() {
        let (mut tally, start) = (Tally::default(), Instant::now());
        let said = (0..1000).filter(|_| tally.may_speak(start)).count();
        assert_eq!(said, LINES_MAX as usize);
        assert_eq!(tally.sum(start), None);
        assert_eq!(tally.sum(start + WINDOW), Some(1000 - u64::from(LINES_MAX)));
        assert!(tally.may_speak(start + WINDOW));
        assert_eq!(tally.sum(start + WINDOW * 2), None);
    }

    #[test]
    fn each_kind_has_its_place() {
        assert!(Why::ALL.iter().enumerate().all(|(place, why)| *why as usize == place));
    }
}
