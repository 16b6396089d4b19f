//! The destination's copy of a domain that moves, as the journal describes it: how it is started, and how it is discarded.
//!
//! The process that receives uses this and, after its death, the one that recovers: each verb can be repeated, from
//! whatever state a process that was killed has left.

use std::time::Instant;

use crate::ends::leaving::{any_connected, volume_state};
use crate::handover::DestinationSeen;
use crate::host::Host;
use crate::ids::DomId;
use crate::journal::{self, Head, Sample};

use crate::migrate::chain;
use crate::plan;
use crate::toolstack::{Domain, Error, RunState};
use crate::watch;

/// The destination's copy.
#[derive(Clone, Copy, Debug)]
pub struct Arriving<'a> {
    /// This host.
    pub host: &'a Host<'a>,
    /// What the journal says of the migration.
    pub head: &'a Head,
    /// The copy's number, once it was complete.
    pub domid: Option<DomId>,
}

/// How an attempt to start the copy ended.
#[derive(Debug)]
pub enum Start {
    /// It runs.
    Running(DomId),
    /// No virtual CPU of it has run.
    NotStarted(Error),
}

impl Arriving<'_> {
    /// What the copy is doing.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    pub fn seen(&self) -> Result<DestinationSeen, Error> {
        Ok(match self.copy()?.map(|copy| copy.state) {
            None | Some(RunState::Dying | RunState::Shutdown) => DestinationSeen::Gone,
            Some(RunState::Paused) => DestinationSeen::Paused,
            Some(RunState::Running | RunState::Suspended) => DestinationSeen::Running,
        })
    }

    /// The copy, complete or half made: it has the domain's UUID, and the name of a domain on its way here, or its own name once
    /// it was complete. A domain with another UUID, or of another boot of this host, is never touched.
    fn copy(&self) -> Result<Option<Domain>, Error> {
        if self.head.boot != journal::this_boot() {
            return Ok(None);
        }
        let (name, incoming) = (&self.head.name, plan::incoming_name(&self.head.name));
        let ours = |domain: &Domain| {
            domain.uuid == self.head.uuid
                && (domain.name == incoming || domain.name == *name && self.domid == Some(domain.domid))
        };
        Ok(self.host.toolstack.domains()?.into_iter().find(ours))
    }

    /// The copy gets the domain's name and runs.
    pub fn start(&self) -> Start {
        match self.try_start() {
            Ok(domid) => Start::Running(domid),
            Err(error) => match self.seen() {
                Ok(DestinationSeen::Running) => {
                    tracing::warn!(error = %chain(error.as_ref()), "the domain runs although libxl reports an error");
                    Start::Running(self.domid.unwrap_or(DomId(0)))
                }
                _ => Start::NotStarted(error),
            },
        }
    }

    fn try_start(&self) -> Result<DomId, Error> {
        let copy = self.copy()?.ok_or("The copy does not exist any more")?;
        if copy.name != self.head.name {
            self.host.toolstack.rename(copy.domid, &copy.name, &self.head.name)?;
        }
        self.put_in_charge(copy.domid);
        if copy.state == RunState::Paused {
            self.host.toolstack.unpause(copy.domid)?;
        }
        Ok(copy.domid)
    }

    /// Before it runs, so that there is no moment in which it could end unseen.
    fn put_in_charge(&self, domid: DomId) {
        if let Err(error) = watch::announce(self.host.run_dir, domid, self.head.uuid) {
            tracing::error!(error = %chain(&error), "nobody will act when the domain reboots or crashes");
        }
    }

    /// The copy goes, and its volumes are Secondary again.
    ///
    /// # Errors
    /// The copy could not be destroyed, so that it may hold its volumes; a volume that is not Secondary then is logged.
    pub fn discard(&self, deadline: Instant) -> Result<(), Error> {
        let copy = self.copy()?;
        let destroyed = copy.map_or(Ok(()), |copy| self.host.toolstack.destroy(copy.domid));
        for volume in self.head.volumes.iter().map(|volume| &volume.id) {
            if let Err(error) = self.host.replication.demote(volume, deadline) {
                tracing::error!(%volume, error = %chain(error.as_ref()), "not demoted");
            }
        }
        destroyed
    }

    /// Two Primaries are forbidden again on these resources.
    ///
    /// # Errors
    /// They are still allowed.
    pub fn forbid_two_primaries(&self, allowed: &[String], deadline: Instant) -> Result<(), Error> {
        allowed.iter().try_for_each(|resource| self.host.replication.allow_two_primaries(resource, false, deadline))
    }

    /// Whether a volume's disk was written since the samples: the source has gone on.
    ///
    /// # Errors
    /// DRBD does not answer.
    pub fn written(&self, samples: &[Sample]) -> Result<bool, Error> {
        samples.iter().try_fold(false, |so_far, sample| {
            Ok(so_far || volume_state(self.host, &sample.volume)?.counters.written != sample.counters.written)
        })
    }

    /// Whether DRBD is connected to the source's host on any volume: then that host lives.
    ///
    /// # Errors
    /// DRBD does not answer.
    pub fn any_connected(&self) -> Result<bool, Error> {
        any_connected(self.host, &self.head.volumes)
    }

    /// Whether DRBD is connected to the source's host on every volume: then that host lives, and has its copy.
    ///
    /// # Errors
    /// DRBD does not answer.
    pub fn replication_up(&self) -> Result<bool, Error> {
        let mut volumes = self.head.volumes.iter();
        volumes.try_fold(true, |so_far, volume| Ok(so_far && volume_state(self.host, &volume.id)?.connected))
    }
}
