//! DRBD as the witness of the handover, at this end: who has the volumes, and whether anybody has written.

use crate::ends::leaving::volume_state;
use crate::host::Host;
use crate::ids::VolumeId;
use crate::journal::Sample;
use crate::protocol::Handover;
use crate::toolstack::Error;

/// Each volume's counters now: the suspended domain writes no more, and nothing of it is on its way.
pub(super) fn sample<'a>(
    host: &Host<'_>,
    mut volumes: impl Iterator<Item = &'a VolumeId>,
) -> Result<Vec<Sample>, Error> {
    let of = |volume: &VolumeId| {
        volume_state(host, volume).map(|state| Sample { volume: volume.clone(), counters: state.counters })
    };
    volumes.by_ref().map(of).collect()
}

/// The destination has the volume, both disks are good, and nobody has written since the sample. Gives the sectors that the
/// destination has sent since then.
pub(super) fn verify_volume(host: &Host<'_>, handover: Handover, sample: &Sample) -> Result<u64, Error> {
    let state = volume_state(host, &sample.volume)?;
    let id = &sample.volume;
    let expected_role = handover == Handover::Dual;
    if !state.connected || !state.up_to_date {
        return Err(format!("{id} is {}, {} here and {} there", state.connection, state.disk, state.peer_disk).into());
    }
    if !state.peer_primary || state.primary != expected_role {
        return Err(format!("The roles on {id} are not those of a {handover} handover").into());
    }
    if state.counters != sample.counters {
        return Err(format!(
            "{id} was written after the domain was suspended: {:?}, then {:?}",
            sample.counters, state.counters
        )
        .into());
    }
    Ok(state.counters.received - sample.counters.received)
}
