//! What the destination does in its last moments with the source: READY, GO, the report, the farewell; and when it was.

use std::time::{Duration, Instant};

use super::{Begun, Disks, REQUEST_INTERVAL, Run, unexpected};
use crate::fault::Step;
use crate::handover::{DestinationAction, DestinationEvent};
use crate::ids::DomId;
use crate::migrate::chain;
use crate::protocol::{Message, Ready, Started};

/// When what happened, for the reports to the source.
pub(super) struct Moment {
    domid: DomId,
    disks: Disks,
    completed_at: Instant,
    go_at: Instant,
}

impl Moment {
    pub(super) fn new(domid: DomId, disks: Disks, completed_at: Instant) -> Moment {
        Moment { domid, disks, completed_at, go_at: Instant::now() }
    }

    /// What only the living migration does.
    pub(super) fn live(
        &mut self,
        begun: &mut Begun<'_>,
        action: DestinationAction,
    ) -> Result<DestinationEvent, DestinationAction> {
        let run = begun.run;
        match action {
            DestinationAction::SendReady => Ok(self.send_ready(run)),
            DestinationAction::Wait => Ok(await_go(run)),
            DestinationAction::Start => {
                self.go_at = Instant::now();
                match run.host.reach(Step::DestinationJournaledOwned) {
                    Ok(()) => Err(DestinationAction::Start),
                    Err(error) => Ok(DestinationEvent::NotStarted(chain(error.as_ref()))),
                }
            }
            DestinationAction::ReportStarted => {
                self.report_started(begun);
                Ok(DestinationEvent::Reported)
            }
            DestinationAction::Finish => {
                // The source demotes itself before it closes; only then can two Primaries be forbidden again.
                run.channel.finish(run.timeouts.farewell);
                Err(DestinationAction::Finish)
            }
            other => Err(other),
        }
    }

    fn send_ready(&self, run: Run<'_>) -> DestinationEvent {
        let ready = Ready { disks_us: self.disks_us(), devices_us: micros(self.completed_at - self.last_disk()) };
        let sent = run.host.reach(Step::DestinationJournaledReady);
        let sent = sent.and_then(|()| Ok(run.channel.send(ready, run.timeouts.offer)?));
        match sent.and_then(|()| run.host.reach(Step::DestinationSentReady)) {
            Ok(()) => await_go(run),
            Err(error) => DestinationEvent::Lost(chain(error.as_ref())),
        }
    }

    fn report_started(&self, begun: &Begun<'_>) {
        let run = begun.run;
        let downtime_from = self.disks.first_request.unwrap_or(self.completed_at);
        let started = Started {
            domid: self.domid.0,
            downtime_us: micros(downtime_from.elapsed()),
            start_us: micros(self.go_at.elapsed()),
        };
        tracing::info!(domain = %begun.offer.name, domid = %self.domid, "domain runs here");
        let told = run
            .host
            .reach(Step::DestinationStarted)
            .and_then(|()| Ok(run.channel.send(started, run.timeouts.offer)?));
        if let Err(error) = told.and_then(|()| run.host.reach(Step::DestinationSentStarted)) {
            tracing::warn!(error = %chain(error.as_ref()), "the source could not be told that the domain runs here");
        }
    }

    fn disks_us(&self) -> u64 {
        self.disks.first_request.map_or(0, |first| micros(self.last_disk() - first))
    }

    fn last_disk(&self) -> Instant {
        self.disks.last_grant.unwrap_or(self.completed_at)
    }
}

fn await_go(run: Run<'_>) -> DestinationEvent {
    let deadline = Instant::now() + run.timeouts.go;
    while Instant::now() < deadline {
        if run.cancel.requested() {
            return DestinationEvent::Lost("The daemon is being stopped".into());
        }
        match run.channel.wait_readable(REQUEST_INTERVAL) {
            Ok(false) => {}
            Ok(true) => return hear_go(run),
            Err(error) => return DestinationEvent::Lost(chain(&error)),
        }
    }
    DestinationEvent::Lost("GO did not come in time".into())
}

fn hear_go(run: Run<'_>) -> DestinationEvent {
    let heard = match run.channel.receive(run.timeouts.offer) {
        Ok(Message::Held(_)) => return DestinationEvent::Held,
        Ok(Message::Go(_)) => run.host.reach(Step::DestinationGo),
        Ok(other) => Err(unexpected("Go", &other)),
        Err(error) => Err(error.into()),
    };
    match heard {
        Ok(()) => DestinationEvent::Go,
        Err(error) => DestinationEvent::Lost(chain(error.as_ref())),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
