//! Step 9: the domain lives at the destination; what is left of it here goes, and the receipt is written.

use std::time::{Duration, Instant};

use super::{Cleared, Outcome, Released, Sample, chain, volume_state};
use crate::protocol::Handover;
use crate::report::{Phase, Receipt, SingleWriter, Times};
use crate::stream::Streamed;
use crate::toolstack::Error;

impl Released<'_> {
    /// Step 9: the domain lives at the destination; what is left of it here goes. Failures are told, not undone.
    pub(super) fn retire(self) -> Outcome {
        let Cleared { run, plan, .. } = &self.cleared;
        run.phase(Phase::Retire);
        let mut warnings = Vec::new();
        let both_primary_from = self.released_at;
        if let Err(error) = self.destroy() {
            warnings.push(format!(
                "The suspended copy could not be destroyed ({}). Here: bascule destroy {}",
                chain(error.as_ref()),
                plan.domid
            ));
        }
        let demoted_at = Instant::now();
        if let Err(error) = self.cleared.forbid_two_primaries() {
            warnings.push(format!(
                "Two Primaries may still be allowed ({}). Look at bascule status",
                chain(error.as_ref())
            ));
        }
        let both_primary = match plan.handover {
            Handover::Single => Duration::ZERO,
            Handover::Dual => demoted_at - both_primary_from,
        };
        let (source_sectors, destination_sectors) = (self.source_sectors(&mut warnings), self.destination_sectors);
        let single_writer = SingleWriter { both_primary, source_sectors, destination_sectors };
        Outcome::Moved(Box::new(self.receipt(single_writer, warnings)))
    }

    fn destroy(&self) -> Result<(), Error> {
        let Cleared { run, plan, .. } = &self.cleared;
        if plan.handover == Handover::Single {
            plan.volume_ids().try_for_each(|volume| run.host.replication.abandon(volume))?;
        }
        run.host.toolstack.destroy(plan.domid)?;
        let deadline = Instant::now() + plan.request.timeouts.volumes;
        plan.volume_ids().try_for_each(|volume| run.host.replication.demote(volume, deadline))
    }

    /// Sectors that this host has sent since the domain was suspended, over all volumes.
    fn source_sectors(&self, warnings: &mut Vec<String>) -> u64 {
        let sent = |sample: &Sample| -> Result<u64, Error> {
            let now = volume_state(self.cleared.run, &sample.volume)?.counters;
            Ok(now.sent.saturating_sub(sample.counters.sent))
        };
        let total = self.samples.iter().map(sent).sum::<Result<u64, Error>>();
        total.unwrap_or_else(|error| {
            warnings.push(format!("The counters could not be read at the end: {}", chain(error.as_ref())));
            0
        })
    }

    fn receipt(&self, single_writer: SingleWriter, warnings: Vec<String>) -> Receipt {
        let plan = &self.cleared.plan;
        let started = self.started.as_ref().map(|(started, _)| started);
        Receipt {
            id: plan.id,
            domain: plan.facts.name.clone(),
            source: self.cleared.run.host.node.into(),
            destination: self.cleared.destination.clone(),
            domid: started.map_or(0, |started| started.domid),
            handover: plan.handover,
            rounds: self.streamed.rounds,
            bytes: self.bytes,
            times: self.times(Instant::now()),
            single_writer,
            warnings,
        }
    }

    fn times(&self, ended_at: Instant) -> Times {
        let (begun, cleared_at) = (self.cleared.run.begun, self.cleared.cleared_at);
        let Streamed { suspended_at, ended_at: streamed_at, .. } = self.streamed;
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
            handover: started_at - self.ready_at,
            retire: ended_at - started_at,
            total: ended_at - begun,
            downtime: started_at - suspended_at,
            destination_downtime: Duration::from_micros(started),
        }
    }
}
