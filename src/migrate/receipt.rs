//! What a migration that went well shows for itself: phases, bytes, and the proof of the single writer.

use std::time::{Duration, Instant};

use super::{Released, chain};
use crate::ends::leaving::volume_state;
use crate::journal::Sample;
use crate::protocol::Handover;
use crate::report::{Receipt, SingleWriter, Times};
use crate::stream::Streamed;
use crate::toolstack::Error;

impl Released<'_> {
    /// The receipt, when the copy here is gone.
    pub(super) fn receipt(&self, mut warnings: Vec<String>) -> Receipt {
        let single_writer = self.single_writer(&mut warnings);
        let (cleared, streamed) = (self.cleared(), &self.sent.streamed);
        let started = self.started.as_ref().map(|(started, _)| started);
        Receipt {
            id: cleared.plan.id,
            domain: cleared.plan.facts.name.clone(),
            source: cleared.run.host.node.into(),
            destination: cleared.destination.clone(),
            domid: started.map_or(0, |started| started.domid),
            handover: cleared.plan.handover,
            rounds: streamed.rounds,
            bytes: self.bytes,
            protection: cleared.channel.protection(),
            times: self.times(Instant::now()),
            single_writer,
            warnings,
        }
    }

    fn single_writer(&self, warnings: &mut Vec<String>) -> SingleWriter {
        let both_primary = match self.cleared().plan.handover {
            Handover::Single => Duration::ZERO,
            Handover::Dual => self.released_at.elapsed(),
        };
        let source_sectors = self.source_sectors(warnings);
        SingleWriter { both_primary, source_sectors, destination_sectors: self.destination_sectors }
    }

    /// Sectors that this host has sent since the domain was suspended, over all volumes.
    fn source_sectors(&self, warnings: &mut Vec<String>) -> u64 {
        let sent = |sample: &Sample| -> Result<u64, Error> {
            let now = volume_state(self.cleared().run.host, &sample.volume)?.counters;
            Ok(now.sent.saturating_sub(sample.counters.sent))
        };
        let samples = self.sent.opened.end.journal.story().samples();
        samples.iter().map(sent).sum::<Result<u64, Error>>().unwrap_or_else(|error| {
            warnings.push(format!("The counters could not be read at the end: {}", chain(error.as_ref())));
            0
        })
    }

    fn times(&self, ended_at: Instant) -> Times {
        let (begun, cleared_at) = (self.cleared().run.begun, self.cleared().cleared_at);
        let Streamed { suspended_at, ended_at: streamed_at, .. } = self.sent.streamed;
        let (started, started_at) = match &self.started {
            Some((started, at)) => (started.downtime_us, *at),
            None => (0, ended_at),
        };
        Times {
            preflight: cleared_at - begun,
            precopy: suspended_at - cleared_at,
            stop_and_copy: streamed_at - suspended_at,
            release: self.released_at - streamed_at,
            attach: self.ready_at - self.released_at,
            handover: started_at.saturating_duration_since(self.ready_at),
            retire: ended_at - started_at,
            total: ended_at - begun,
            downtime: started_at - suspended_at,
            destination_downtime: Duration::from_micros(started),
        }
    }
}
