//! What stands for DRBD on each of the two hosts.

use std::time::{Duration, Instant};

use bascule::ids::{DomId, Minor, VolumeId};
use bascule::replication::{Attachment, Counters, Error, Link, Replication, VolumeState};

use super::{Fault, Side};

impl Replication for Side {
    fn resolve(&self, target: &str) -> Result<Option<VolumeId>, Error> {
        let known = ["r0", "r0/0", "/dev/drbd0"].contains(&target);
        Ok(known.then(|| VolumeId { resource: "r0".into(), volume: 0 }))
    }

    fn state(&self, volume: &VolumeId) -> Result<Option<VolumeState>, Error> {
        let beside_a_primary = self.end == 0 && self.change(|state| !state.ends[0].primary && state.ends[1].primary);
        let foreign = beside_a_primary && self.world.fails(Fault::ForeignWrite).is_err();
        Ok(Some(self.change(|state| {
            state.ends[0].received += u64::from(foreign) * 8;
            VolumeState {
                id: volume.clone(),
                minor: Minor(0),
                size_sectors: 1 << 18,
                generation: 42,
                primary: state.ends[self.end].primary,
                peer_primary: state.ends[1 - self.end].primary,
                connected: true,
                connection: "Connected".into(),
                disk: "UpToDate".into(),
                peer_disk: "UpToDate".into(),
                up_to_date: true,
                replication: "Established".into(),
                resync_done: None,
                resyncing: false,
                protocol: Some('C'),
                two_primaries: state.connection_allows_two,
                standalone: false,
                out_of_sync_sectors: 0,
                peer: "the other".into(),
                counters: Counters { written: 0, sent: 0, received: state.ends[self.end].received },
            }
        })))
    }

    fn attachment(&self, _: &VolumeId) -> Result<Attachment, Error> {
        Ok(self.world.attachment)
    }

    fn holder(&self, _: &VolumeId) -> Result<Option<String>, Error> {
        Ok(None)
    }

    fn wait_idle(&self, _: DomId, _: Instant) -> Result<(), Error> {
        self.world.fails(Fault::WaitIdle)
    }

    fn release(&self, volume: &VolumeId, deadline: Instant) -> Result<(), Error> {
        self.world.fails(Fault::Withdraw)?;
        self.here(|end| end.withdrawn = true);
        self.world.fails(Fault::Demote)?;
        self.demote(volume, deadline)
    }

    fn retake(&self, _: &VolumeId, deadline: Instant) -> Result<(), Error> {
        self.promote(deadline)?;
        self.here(|end| end.withdrawn = false);
        Ok(())
    }

    fn abandon(&self, _: &VolumeId) -> Result<(), Error> {
        Ok(())
    }

    fn demote(&self, _: &VolumeId, _: Instant) -> Result<(), Error> {
        self.here(|end| end.primary = false);
        Ok(())
    }

    fn allow_two_primaries(&self, _: &str, allow: bool, deadline: Instant) -> Result<(), Error> {
        if !allow && self.end == 1 {
            self.world.fails(Fault::ForbidAtDestination)?;
        }
        while !allow && self.change(|state| state.ends.iter().all(|end| end.primary)) {
            if Instant::now() > deadline {
                return Err("Both are Primary".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.change(|state| state.connection_allows_two = allow);
        Ok(())
    }

    /// This world's hosts never lose each other.
    fn link(&self, _: &str) -> Result<Option<Link>, Error> {
        Ok(None)
    }

    fn heal(&self, _: &Link, _: &[VolumeId], _: bool, _: Instant) -> Result<(), Error> {
        Ok(())
    }
}
