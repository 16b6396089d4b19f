//! Who wrote: what a host can prove about its volumes after a link was lost, and which side may give up its data.
//!
//! A migration samples each volume's [`Counters`] when the domain writes no more: at the source when its backends are idle, at
//! the destination before its copy could run. From then on a side proves that it wrote nothing by three witnesses together: its copy of
//! the domain has not run, its disk was not written, and its bitmap has no bit.
//!
//! Only the counter `written` decides: it is the disk's own, counts every write whoever sent it (discards included), survives the loss
//! of a connection, StandAlone and every new connection, and begins anew only when the volume is attached anew. `sent` and `received` begin
//! anew at each `connect` and do not count discards.

use serde::{Deserialize, Serialize};

use super::{Counters, VolumeState};
use crate::admission::Side;
use crate::ids::VolumeId;

/// What one host can prove since the samples of a migration. It travels in an answer to the other host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Which end of the migration this host is.
    pub side: Side,
    /// Whether this host's copy of the domain has run, or may have, since the samples.
    pub ran: bool,
    /// One for each volume of the domain.
    pub volumes: Vec<VolumeProof>,
}

/// What one host can prove of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeProof {
    /// Which volume.
    pub volume: VolumeId,
    /// Whether this host's disk is as it was at the sample: no write, whoever sent it.
    pub unwritten: bool,
    /// What this host has written without its peer, as its bitmap knows, in sectors of 512 bytes.
    pub out_of_sync_sectors: u64,
    /// Whether this host is Primary.
    pub primary: bool,
    /// Whether this host's disk is UpToDate.
    pub up_to_date: bool,
}

/// Which side gives up its data, so that the two can connect again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This host does: it has written nothing.
    Mine,
    /// The other host does.
    Theirs,
    /// Nobody may: it is not proven that a side wrote nothing. In words, what each side has.
    Nobody {
        /// Why this host must not.
        mine: Vec<String>,
        /// Why the other host must not.
        theirs: Vec<String>,
    },
}

/// Which side may give up its data after a split brain. Both hosts ask, each with its own proof first, and get answers that fit together.
///
/// Where both have written nothing their data is the same, and the Primary keeps its; where that does not decide, the source does.
#[must_use]
pub fn who_may_sacrifice(mine: &Proof, theirs: &Proof) -> Verdict {
    if let Some(mismatch) = mismatch(mine, theirs) {
        return Verdict::Nobody { mine: vec![mismatch.clone()], theirs: vec![mismatch] };
    }
    let (mine_has, theirs_has) = (mine.objections_to_yield(theirs), theirs.objections_to_yield(mine));
    match (mine_has.is_empty(), theirs_has.is_empty()) {
        (true, true) => between_equals(mine, theirs),
        (true, false) => Verdict::Mine,
        (false, true) => Verdict::Theirs,
        (false, false) => Verdict::Nobody { mine: mine_has, theirs: theirs_has },
    }
}

/// Proofs that cannot be compared.
fn mismatch(mine: &Proof, theirs: &Proof) -> Option<String> {
    let volumes = |proof: &Proof| {
        let mut volumes: Vec<VolumeId> = proof.volumes.iter().map(|volume| volume.volume.clone()).collect();
        volumes.sort();
        volumes
    };
    let (ours, others) = (volumes(mine), volumes(theirs));
    if ours.is_empty() || ours != others || ours.windows(2).any(|pair| pair[0] == pair[1]) {
        return Some("The two hosts do not speak of the same volumes".to_owned());
    }
    (mine.side == theirs.side).then(|| format!("Both hosts say that they are the {} end", mine.side))
}

/// Both wrote nothing: somebody has to yield, and each host must name the same.
fn between_equals(mine: &Proof, theirs: &Proof) -> Verdict {
    match (mine.is_primary(), theirs.is_primary()) {
        (true, false) => Verdict::Theirs,
        (false, true) => Verdict::Mine,
        _ if mine.side == Side::Incoming => Verdict::Mine,
        _ => Verdict::Theirs,
    }
}

impl Proof {
    /// Why this side's data must not be given up, each reason a clause; none when it wrote nothing.
    #[must_use]
    pub fn objections(&self) -> Vec<String> {
        let ran = self.ran.then(|| "its copy of the domain has run".to_owned());
        ran.into_iter().chain(self.volumes.iter().flat_map(VolumeProof::objections)).collect()
    }

    /// As [`Proof::objections`], and the other side must have data that is worth taking.
    fn objections_to_yield(&self, to: &Proof) -> Vec<String> {
        let stale = to.volumes.iter().filter(|volume| !volume.up_to_date);
        let no_gain = stale.map(|volume| format!("{} is not UpToDate on the other host", volume.volume));
        self.objections().into_iter().chain(no_gain).collect()
    }

    fn is_primary(&self) -> bool {
        self.volumes.iter().any(|volume| volume.primary)
    }
}

impl VolumeProof {
    /// From the sample that was taken when the domain wrote no more, and the volume now.
    #[must_use]
    pub fn since(sample: &Counters, now: &VolumeState) -> VolumeProof {
        VolumeProof {
            volume: now.id.clone(),
            unwritten: now.counters.written == sample.written,
            out_of_sync_sectors: now.out_of_sync_sectors,
            primary: now.primary,
            up_to_date: now.disk == UP_TO_DATE,
        }
    }

    fn objections(&self) -> impl Iterator<Item = String> + use<> {
        let VolumeProof { volume, unwritten, out_of_sync_sectors: sectors, .. } = self;
        let written = (!unwritten).then(|| format!("{volume} was written, or attached anew"));
        let differs = (*sectors > 0).then(|| format!("{volume} has {sectors} sectors that its peer has not"));
        written.into_iter().chain(differs)
    }
}

/// DRBD's word for data that is usable and current.
const UP_TO_DATE: &str = "UpToDate";

/// Whether somebody has written a volume since a sample, as one host's counters tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wrote {
    /// Nothing was written.
    No,
    /// Something was, or DRBD copied in a resync what had been.
    Yes,
    /// The counters cannot tell.
    Unknown,
}

/// Whether this host's users have written the volume since the sample.
#[must_use]
pub fn wrote_here(sample: &Counters, now: &VolumeState) -> Wrote {
    match now.counters.written.checked_sub(sample.written) {
        Some(0) if now.out_of_sync_sectors == 0 => Wrote::No,
        _ if now.out_of_sync_sectors > 0 || now.counters.sent > sample.sent => Wrote::Yes,
        // The disk was written; by whom, or attached anew when, these counters do not tell.
        _ => Wrote::Unknown,
    }
}

/// Whether the peer has written the volume since the sample. `Unknown` without a connection, unless it had written before.
#[must_use]
pub fn wrote_there(sample: &Counters, now: &VolumeState) -> Wrote {
    match now.counters.written.checked_sub(sample.written) {
        Some(0) if now.connected && now.up_to_date => Wrote::No,
        _ if now.counters.received > sample.received => Wrote::Yes,
        _ => Wrote::Unknown,
    }
}

#[cfg(test)]
mod tests;
