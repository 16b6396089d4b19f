//! The source's copy of a domain that moves, as the journal describes it: how it is taken back, and how it is let go.
//!
//! The process that migrates uses this and, after its death, the one that recovers: each verb can be repeated, from
//! whatever state a process that was killed has left.

use std::time::{Duration, Instant};

use crate::handover::{SourceSeen, Witness};
use crate::host::Host;
use crate::ids::{DomId, VolumeId};
use crate::journal::{self, Head, JournaledVolume, Sample};
use crate::plan;
use crate::protocol::Handover;
use crate::replication::VolumeState;
use crate::toolstack::{Domain, Error, RunState};

/// The source's copy.
#[derive(Clone, Copy, Debug)]
pub struct Leaving<'a> {
    /// This host.
    pub host: &'a Host<'a>,
    /// What the journal says of the migration.
    pub head: &'a Head,
    /// Each volume's counters when the domain had been suspended and nothing of it was on its way; none before that.
    pub samples: &'a [Sample],
}

/// What came of taking the domain back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenBack {
    /// It runs here.
    Runs,
    /// Its disk was written after it had been suspended: it stays suspended.
    Written,
}

/// How long a domain whose migrating process was killed is watched: the request to suspend may still be on its way to it.
const LATE_SUSPEND_WAIT: Duration = Duration::from_secs(3);

impl Leaving<'_> {
    /// What the copy is doing.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    pub fn seen(&self) -> Result<SourceSeen, Error> {
        Ok(match self.domain()?.map(|domain| domain.state) {
            None | Some(RunState::Shutdown | RunState::Dying) => SourceSeen::Gone,
            Some(RunState::Suspended) => SourceSeen::Suspended,
            Some(RunState::Running | RunState::Paused) => SourceSeen::Running,
        })
    }

    /// The domain with this migration's number, if it is this migration's domain: numbers begin anew when a host is started.
    fn domain(&self) -> Result<Option<Domain>, Error> {
        let Some(domid) = self.head.domid.filter(|_| self.head.boot == journal::this_boot()) else { return Ok(None) };
        let name = &self.head.name;
        let ours = |domain: &Domain| {
            domain.uuid == self.head.uuid && (domain.name == *name || domain.name == plan::migrated_away_name(name))
        };
        Ok(self.host.toolstack.domain(domid)?.filter(ours))
    }

    fn domid(&self) -> Result<DomId, Error> {
        match self.domain()? {
            Some(domain) => Ok(domain.domid),
            None => Err(format!("Domain {} does not exist here any more", self.head.name).into()),
        }
    }

    fn volumes(&self) -> impl Iterator<Item = &VolumeId> {
        self.head.volumes.iter().map(|volume| &volume.id)
    }

    /// The volumes are ours again, then the domain has its name and runs. The destination's copy is gone, or nobody can ever
    /// start it. `proven`: it is known that the copy never ran; else the disk must be as it was at the sample.
    ///
    /// # Errors
    /// The domain is as it was, or suspended with some volumes taken back.
    pub fn take_back(&self, proven: bool, deadline: Instant) -> Result<TakenBack, Error> {
        let domid = self.domid()?;
        if self.seen()? == SourceSeen::Suspended {
            if self.head.handover == Handover::Single {
                self.volumes().try_for_each(|volume| self.host.replication.retake(volume, deadline))?;
            }
            // A resync may have written up to this moment.
            if !proven && self.witness()?.written {
                return Ok(TakenBack::Written);
            }
            self.put_name_back(domid);
            self.host.toolstack.resume(domid)?;
        } else {
            self.put_name_back(domid);
        }
        Ok(TakenBack::Runs)
    }

    /// The same for a domain whose migrating process was killed at an unknown moment.
    ///
    /// # Errors
    /// As there.
    pub fn take_back_after_death(&self, proven: bool, deadline: Instant) -> Result<TakenBack, Error> {
        let watched_until = Instant::now() + LATE_SUSPEND_WAIT;
        while self.seen()? == SourceSeen::Running && Instant::now() < watched_until {
            std::thread::sleep(Duration::from_millis(50));
        }
        let taken = self.take_back(proven, deadline)?;
        self.host.toolstack.stop_log_dirty(self.domid()?);
        Ok(taken)
    }

    /// Not renamed yet in most cases: then this changes nothing.
    fn put_name_back(&self, domid: DomId) {
        let (name, away) = (&self.head.name, plan::migrated_away_name(&self.head.name));
        let is_away = self.domain().is_ok_and(|domain| domain.is_some_and(|domain| domain.name == away));
        if is_away && let Err(error) = self.host.toolstack.rename(domid, &away, name) {
            tracing::warn!(%error, "the name could not be put back");
        }
    }

    /// The domain lives at the destination: the copy here goes, and this host is Secondary.
    ///
    /// # Errors
    /// Something of it is left.
    pub fn let_go(&self, deadline: Instant) -> Result<(), Error> {
        if let Some(domain) = self.domain()? {
            if self.head.handover == Handover::Single {
                self.volumes().try_for_each(|volume| self.host.replication.abandon(volume))?;
            }
            self.host.toolstack.destroy(domain.domid)?;
        }
        self.volumes().try_for_each(|volume| self.host.replication.demote(volume, deadline))
    }

    /// Two Primaries are forbidden again where they were before.
    ///
    /// # Errors
    /// They may still be allowed.
    pub fn forbid_two_primaries(&self, deadline: Instant) -> Result<(), Error> {
        if self.head.handover == Handover::Single {
            return Ok(());
        }
        forbid_two_primaries(self.host, &self.head.volumes, deadline)
    }

    /// Whether DRBD is connected to the destination's host on any volume: then that host lives.
    ///
    /// # Errors
    /// DRBD does not answer.
    pub fn any_connected(&self) -> Result<bool, Error> {
        any_connected(self.host, &self.head.volumes)
    }

    /// What the replication link shows, over all volumes. Only the counter of what was written to the disk here decides: it counts
    /// whoever wrote, and outlives a connection.
    ///
    /// # Errors
    /// DRBD does not answer.
    pub fn witness(&self) -> Result<Witness, Error> {
        let nothing = Witness { connected: true, peer_primary: false, written: false };
        self.samples.iter().try_fold(nothing, |so_far, sample| {
            let now = volume_state(self.host, &sample.volume)?;
            Ok(Witness {
                connected: so_far.connected && now.connected && now.up_to_date && !now.resyncing,
                peer_primary: so_far.peer_primary || now.peer_primary,
                written: so_far.written || now.counters.written != sample.counters.written,
            })
        })
    }
}

/// Whether DRBD is connected to the peer on any of these volumes.
///
/// # Errors
/// DRBD does not answer.
pub(crate) fn any_connected(host: &Host<'_>, volumes: &[JournaledVolume]) -> Result<bool, Error> {
    volumes.iter().try_fold(false, |so_far, volume| Ok(so_far || volume_state(host, &volume.id)?.connected))
}

/// A volume as it is now.
///
/// # Errors
/// It has gone from this host, or DRBD does not answer.
pub(crate) fn volume_state(host: &Host<'_>, volume: &VolumeId) -> Result<VolumeState, Error> {
    host.replication.state(volume)?.ok_or_else(|| format!("Volume {volume} has gone from this host").into())
}

/// Puts the permission for two Primaries back on the resources of these volumes that did not have it before.
pub(crate) fn forbid_two_primaries(
    host: &Host<'_>,
    volumes: &[JournaledVolume],
    deadline: Instant,
) -> Result<(), Error> {
    let forbidden_before = volumes.iter().filter(|volume| !volume.two_primaries);
    let mut resources: Vec<&str> = forbidden_before.map(|volume| volume.id.resource.as_str()).collect();
    resources.dedup();
    resources.into_iter().try_for_each(|resource| host.replication.allow_two_primaries(resource, false, deadline))
}
