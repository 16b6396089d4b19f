//! After the decision: the connection of the volumes is as it was, and a split brain that the lost link made is healed.
//!
//! The end whose copy ran keeps its data; the other one gives up what only it has, which is nothing: its copy has not run
//! since the domain was suspended, and its bitmap has no bit.

use std::time::{Duration, Instant};

use super::ask;
use crate::admission;
use crate::host::Host;
use crate::ids::VolumeId;
use crate::journal::{Head, JournaledVolume};
use crate::replication::Link;
use crate::toolstack::Error;

/// Which data this end keeps when both have a generation of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// Its own.
    Keep,
    /// The other end's: here nobody has written.
    Yield,
}

/// How long one try to connect again may take.
const HEAL_WAIT: Duration = Duration::from_secs(10);
/// How long a connection that comes back by itself is waited for.
const RETURN_WAIT: Duration = Duration::from_secs(2);

/// Sees to it that every volume is connected to its peer.
///
/// # Errors
/// One is not; to be tried again later.
pub(super) fn reconnect(host: &Host<'_>, head: &Head, data: Data) -> Result<(), Error> {
    // The question is also a call to come: an end whose journal is closed connects again when it is asked.
    let call = || {
        let said = ask::stage_or_reason(host, &head.peer, head.id);
        tracing::info!(id = %head.id, ?said, "not connected: the other end was called");
    };
    each_resource(host, head, data, &call)
}

fn each_resource(host: &Host<'_>, head: &Head, data: Data, call: &dyn Fn()) -> Result<(), Error> {
    let mut resources: Vec<&str> = head.volumes.iter().map(|volume| volume.id.resource.as_str()).collect();
    resources.dedup();
    resources.into_iter().try_for_each(|resource| reconnect_resource(host, head, resource, data, call))
}

/// The other end is settling and asks; here the migration is over, and the connection was lost, or found its split brain, after that. It
/// cannot come back without this end, which has nothing to give up.
///
/// # Errors
/// As for [`reconnect`].
pub(crate) fn meet(host: &Host<'_>, head: &Head) -> Result<(), Error> {
    let Some(volume) = head.volumes.first() else { return Ok(()) };
    // Whoever asks often is answered each time, and one of the answers connects.
    let lock = admission::resource_lock(host.run_dir, &volume.id.resource)?;
    match admission::lock_file(&lock, Instant::now())? {
        Some(_alone) => each_resource(host, head, Data::Keep, &|| {}),
        None => Ok(()),
    }
}

fn reconnect_resource(host: &Host<'_>, head: &Head, resource: &str, data: Data, call: &dyn Fn()) -> Result<(), Error> {
    let volumes: Vec<&JournaledVolume> = head.volumes.iter().filter(|volume| volume.id.resource == resource).collect();
    let ids: Vec<VolumeId> = volumes.iter().map(|volume| volume.id.clone()).collect();
    if connected_soon(host, &ids)? {
        return Ok(());
    }
    call();
    let link = volumes.iter().find_map(|volume| volume.link.clone());
    let link: Link = match link {
        Some(link) => serde_json::from_value(link)?,
        None => return Err(format!("{resource} is not connected, and its addresses are not known here").into()),
    };
    let sacrifice = data == Data::Yield && nothing_to_lose(host, &ids)?;
    host.replication.heal(&link, &ids, sacrifice, Instant::now() + HEAL_WAIT)
}

fn connected_soon(host: &Host<'_>, volumes: &[VolumeId]) -> Result<bool, Error> {
    let deadline = Instant::now() + RETURN_WAIT;
    loop {
        let states = volumes.iter().map(|volume| super::leaving::volume_state(host, volume));
        let states = states.collect::<Result<Vec<_>, _>>()?;
        if states.iter().all(|state| state.connected) {
            return Ok(true);
        }
        if Instant::now() >= deadline || states.iter().any(|state| state.standalone) {
            return Ok(false);
        }
        std::thread::sleep(crate::replication::POLL_INTERVAL * 10);
    }
}

/// Whether this host's bitmap knows of no data that only this host has.
fn nothing_to_lose(host: &Host<'_>, volumes: &[VolumeId]) -> Result<bool, Error> {
    let mut states = volumes.iter().map(|volume| super::leaving::volume_state(host, volume));
    states.try_fold(true, |so_far, state| Ok(so_far && state?.out_of_sync_sectors == 0))
}
