//! The downtime of one migration, as the guest's counter shows it. Pure.

use std::time::Duration;

use serde::Serialize;

/// One number of the counter on the guests' LAN.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// When, by the host's clock.
    pub(super) at: Duration,
    /// The node that it came from.
    pub(super) node: u8,
    /// The guest's own clock, in milliseconds.
    pub(super) uptime_ms: u64,
}

/// The time between the last number from the source and the first from the destination, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Blackout {
    /// As the LAN saw it: up to one period of the counter longer than it was.
    pub(super) downtime_s: f64,
    /// How much less the guest's own clock has gone on meanwhile: its stop, without what the LAN needed to find it.
    pub(super) stop_s: f64,
}

impl Blackout {
    /// `None` if the guest was not heard from both.
    pub(super) fn between(heard: &[Heard], source: u8, destination: u8) -> Option<Self> {
        let first = heard.iter().position(|number| number.node == destination)?;
        let last = heard[..first].iter().rev().find(|number| number.node == source)?;
        let first = &heard[first];
        let downtime_s = first.at.saturating_sub(last.at).as_secs_f64();
        let ran = Duration::from_millis(first.uptime_ms.saturating_sub(last.uptime_ms));
        Some(Self { downtime_s, stop_s: (downtime_s - ran.as_secs_f64()).max(0.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(at_ms: u64, node: u8, uptime_ms: u64) -> Heard {
        Heard { at: Duration::from_millis(at_ms), node, uptime_ms }
    }

    #[test]
    fn the_blackout_lies_between_the_nodes() {
        // A longer silence before it is the source's load.
        let heard = [heard(0, 1, 100), heard(1000, 1, 1100), heard(1500, 2, 1250), heard(1550, 2, 1300)];
        let blackout = Blackout::between(&heard, 1, 2).expect("a blackout");
        assert!((blackout.downtime_s - 0.5).abs() < 1e-9);
        assert!((blackout.stop_s - 0.35).abs() < 1e-9);
    }

    #[test]
    fn who_did_not_move_has_none() {
        assert_eq!(Blackout::between(&[heard(0, 1, 0), heard(50, 1, 50)], 1, 2), None);
        assert_eq!(Blackout::between(&[], 1, 2), None);
    }
}
