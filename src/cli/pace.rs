//! How often progress is worth a line.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines of one round.
const INTERVAL: Duration = Duration::from_secs(1);

/// One line a round, and at most one a second within a round.
#[derive(Default)]
pub(super) struct Pace(Mutex<Option<(u32, Instant)>>);

impl Pace {
    /// Whether this progress is worth a line.
    pub(super) fn is_due(&self, round: u32, finished: bool) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = match *last {
            Some((shown, at)) => shown != round || finished || at.elapsed() >= INTERVAL,
            None => true,
        };
        if due {
            *last = Some((round, Instant::now()));
        }
        due
    }
}
