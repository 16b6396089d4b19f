//! What stands for DRBD on each of the two hosts.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use bascule::ids::{DomId, Minor, VolumeId};
use bascule::journal;
use bascule::replication::{Attachment, Counters, Error, Link, Replication, VolumeState};
use drbd_nl::{NetConf, Peer};

use super::{Fault, Side, State};

/// How long a migration's end may take to close its journal.
const CLOSE_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(1);

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
            let connected = state.is_connected();
            VolumeState {
                id: volume.clone(),
                minor: Minor(0),
                size_sectors: 1 << 18,
                generation: 42,
                primary: state.ends[self.end].primary,
                peer_primary: connected && state.ends[1 - self.end].primary,
                connected,
                connection: state.connection(self.end).into(),
                disk: "UpToDate".into(),
                peer_disk: if connected { "UpToDate" } else { "DUnknown" }.into(),
                up_to_date: connected,
                replication: if connected { "Established" } else { "Off" }.into(),
                resync_done: None,
                resyncing: false,
                protocol: Some('C'),
                two_primaries: state.connection_allows_two,
                standalone: state.ends[self.end].alone,
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
            thread::sleep(POLL);
        }
        self.change(|state| state.connection_allows_two = allow);
        Ok(())
    }

    fn link(&self, resource: &str) -> Result<Option<Link>, Error> {
        let address = |end| SocketAddr::from(([10, 0, 0, end], 7789)).into();
        let [my_addr, peer_addr] = if self.end == 0 { [1, 2] } else { [2, 1] }.map(address);
        let peer = Peer { resource: resource.into(), peer_node_id: None, my_addr, peer_addr };
        Ok(Some(Link { peer, net: NetConf::default(), secret: None }))
    }

    fn heal(&self, link: &Link, _: &[VolumeId], sacrifice: bool, deadline: Instant) -> Result<(), Error> {
        assert_eq!(self.link(link.resource())?.as_ref(), Some(link), "another link than this end's");
        while !self.change(|state| state.connect(self.end, sacrifice)) {
            if Instant::now() > deadline {
                return Err("The peer does not connect".into());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Side {
    /// [`Fault::SplitBrain`], if it is wanted.
    pub(super) fn split_brain(&self) {
        if self.end == 1 || self.world.fails(Fault::SplitBrain).is_ok() {
            return;
        }
        let (dir, deadline) = (self.change(|state| state.ends[1].dir.clone()), Instant::now() + CLOSE_LIMIT);
        while !journal::unfinished(&dir).expect("the journals can be read").is_empty() {
            assert!(Instant::now() < deadline, "the destination does not close its journal");
            thread::sleep(POLL);
        }
        self.change(State::part);
    }
}

impl State {
    fn is_connected(&self) -> bool {
        self.ends.iter().all(|end| !end.alone)
    }

    fn connection(&self, end: usize) -> &'static str {
        match (self.is_connected(), self.ends[end].alone) {
            (true, _) => "Connected",
            (false, true) => "StandAlone",
            (false, false) => "WFConnection",
        }
    }

    /// Both find a generation of data that the other one has not.
    fn part(&mut self) {
        self.ends.iter_mut().for_each(|end| end.alone = true);
    }

    /// One end tries; whether they are connected then. Where both have data of their own, they part again unless one of them, and only
    /// one, gives up its own.
    fn connect(&mut self, end: usize, gives_up: bool) -> bool {
        if self.is_connected() {
            return true;
        }
        let here = &mut self.ends[end];
        assert!(!(gives_up && here.primary), "a Primary gives up its data");
        (here.alone, here.gives_up) = (false, gives_up);
        if self.is_connected() && self.ends[0].gives_up == self.ends[1].gives_up {
            self.part();
        }
        self.is_connected()
    }
}
