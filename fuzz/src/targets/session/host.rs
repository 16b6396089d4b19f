//! A stand-in for Xen and DRBD on the destination's host: it does what it is told, and checks each change.

use std::io::Read;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bascule::admission::{self, Asker};
use bascule::ids::{DomId, Minor, VolumeId};
use bascule::plan::DomainFacts;
use bascule::replication::{Attachment, Counters, Link, Replication, VolumeState};
use bascule::toolstack::{Abort, Domain, Error, OnStream, RunState, Toolstack};
use uuid::Uuid;

use crate::targets::domain::oracle::{self, Allowed};
use crate::targets::domain::volume;

/// The domain that comes.
pub(super) const NAME: &str = "vm0";
pub(super) const UUID: Uuid = Uuid::from_u128(0xabf3_3f4f_43fa_4e34_a5b3_3716_7c41_4db8);
/// Its volume.
pub(super) const SIZE_SECTORS: u64 = 1 << 18;
pub(super) const GENERATION: u64 = 42;
/// What stands for its memory stream.
pub(super) const MEMORY: &[u8] = b"RAM!";

const DOMID: DomId = DomId(5);
/// For the session's answer to the hotplug program.
const GRANT_MAX: Duration = Duration::from_secs(20);

/// Something that fails, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    RestoreOfMemory,
    Promote,
    RestoreOfDevices,
    Rename,
    Unpause,
    Destroy,
    ForbidTwoPrimaries,
    ListDomains,
}

impl Fault {
    pub(super) const ALL: [Fault; 8] = [
        Fault::RestoreOfMemory,
        Fault::Promote,
        Fault::RestoreOfDevices,
        Fault::Rename,
        Fault::Unpause,
        Fault::Destroy,
        Fault::ForbidTwoPrimaries,
        Fault::ListDomains,
    ];
}

/// The host.
pub(super) struct StandIn {
    run_dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    domains: Vec<Domain>,
    /// Of the copy that was restored last.
    has_disks: bool,
    primary: bool,
    /// The source's side of the volume.
    peer_primary: bool,
    peer_stays_primary: bool,
    two_allowed: bool,
}

impl StandIn {
    pub(super) fn new(run_dir: &Path, faults: &[Fault]) -> StandIn {
        let state = State { faults: faults.to_vec(), peer_primary: true, ..State::default() };
        StandIn { run_dir: run_dir.to_owned(), state: Mutex::new(state) }
    }

    /// A session begins.
    pub(super) fn begin(&self, peer_stays_primary: bool) {
        let mut state = self.state();
        state.peer_stays_primary = peer_stays_primary;
        // The source has its domain back, or lost it.
        state.peer_primary = !state.primary;
    }

    /// Whether the domain runs here, under its name and with its disk.
    pub(super) fn runs(&self) -> bool {
        self.state().domains.iter().any(|domain| domain.state == RunState::Running)
    }

    /// A domain that runs has what it needs; otherwise there is nothing.
    pub(super) fn check_rest(&self) {
        let state = self.state();
        assert!(!state.two_allowed, "two Primaries are still allowed");
        let is_whole =
            |domain: &Domain| domain.name == NAME && domain.state == RunState::Running && state.domains.len() == 1;
        match state.domains.first() {
            Some(domain) => assert!(is_whole(domain), "left behind: {:?}", state.domains),
            None => assert!(!state.primary, "Primary without a domain"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails(&self, here: Fault) -> Result<(), Error> {
        let mut state = self.state();
        let Some(found) = state.faults.iter().position(|fault| *fault == here) else { return Ok(()) };
        state.faults.remove(found);
        Err(format!("{here:?} was made to fail").into())
    }

    fn try_restore(&self, config: &str, mut stream: TcpStream) -> Result<(), Error> {
        let mut memory = [0; MEMORY.len()];
        stream.read_exact(&mut memory)?;
        if memory != *MEMORY {
            return Err("That is no memory".into());
        }
        self.fails(Fault::RestoreOfMemory)?;
        let facts = DomainFacts::from_json(config)?;
        for disk in facts.disks.iter().filter(|disk| !disk.target.is_empty()) {
            let volume = self.resolve(&disk.target)?.ok_or("That is no volume of ours")?;
            self.attach(&facts.name, &volume)?;
        }
        self.fails(Fault::RestoreOfDevices)
    }

    /// What the hotplug program does.
    fn attach(&self, name: &str, volume: &VolumeId) -> Result<(), Error> {
        let ticket = admission::lookup(&self.run_dir, volume)?.ok_or("No record of a migration")?;
        let asker = Asker { volume: volume.clone(), domid: DOMID, domain: name.into() };
        ticket.ask(&asker, Instant::now() + GRANT_MAX)?;
        self.fails(Fault::Promote)?;
        let mut state = self.state();
        state.peer_primary = state.peer_primary && (state.peer_stays_primary || state.two_allowed);
        match state.peer_primary && !state.two_allowed {
            true => Err("The peer is Primary".into()),
            false => {
                state.primary = true;
                Ok(())
            }
        }
    }
}

struct Nothing;

impl Abort for Nothing {
    fn abort(&self) {}
}

impl Toolstack for StandIn {
    fn domains(&self) -> Result<Vec<Domain>, Error> {
        self.fails(Fault::ListDomains)?;
        Ok(self.state().domains.clone())
    }

    fn domain(&self, domid: DomId) -> Result<Option<Domain>, Error> {
        Ok(self.state().domains.iter().find(|domain| domain.domid == domid).cloned())
    }

    fn config(&self, _: DomId) -> Result<String, Error> {
        Err("A destination asks for no configuration".into())
    }

    fn free_memory_kib(&self) -> Result<u64, Error> {
        Ok(1 << 20)
    }

    fn memory_needed_kib(&self, _: &str) -> Result<u64, Error> {
        Ok(128 << 10)
    }

    fn live_migration_obstacle(&self, _: DomId) -> Result<Option<String>, Error> {
        Ok(None)
    }

    fn save(&self, _: DomId, _: BorrowedFd<'_>, _: OnStream, _: &dyn Fn(Arc<dyn Abort>)) -> Result<(), Error> {
        Err("A destination saves nothing".into())
    }

    fn restore(
        &self,
        config: &str,
        fd: BorrowedFd<'_>,
        _: OnStream,
        handle: &dyn Fn(Arc<dyn Abort>),
    ) -> Result<DomId, Error> {
        handle(Arc::new(Nothing));
        let given = serde_json::from_str(config)?;
        assert_eq!(oracle::danger(&given, Allowed { volumes: &[volume()], files: &[] }), None, "{config}");
        assert!(self.state().domains.is_empty(), "restored beside another copy");
        let restored = self.try_restore(config, TcpStream::from(fd.try_clone_to_owned()?));
        let facts = DomainFacts::from_json(config)?;
        let mut state = self.state();
        state.has_disks = facts.disks.iter().any(|disk| !disk.target.is_empty());
        match restored {
            Ok(()) => state.domains.push(paused(facts.name)),
            Err(_) => state.primary = false,
        }
        restored.map(|()| DOMID)
    }

    fn stop_log_dirty(&self, _: DomId) {}

    fn resume(&self, _: DomId) -> Result<(), Error> {
        panic!("a destination has nothing to resume");
    }

    fn rename(&self, _: DomId, old: &str, new: &str) -> Result<(), Error> {
        self.fails(Fault::Rename)?;
        let mut state = self.state();
        let copy = state.domains.first_mut().ok_or("No such domain")?;
        assert_eq!((copy.name.as_str(), new), (old, NAME));
        copy.name = new.into();
        Ok(())
    }

    fn unpause(&self, _: DomId) -> Result<(), Error> {
        self.fails(Fault::Unpause)?;
        let mut state = self.state();
        assert!(!(state.primary && state.peer_primary) || state.two_allowed, "two Primaries that nobody allowed");
        assert!(state.primary || !state.has_disks, "started without its disks");
        let copy = state.domains.first_mut().ok_or("No such domain")?;
        assert_eq!((copy.state, copy.name.as_str()), (RunState::Paused, NAME));
        copy.state = RunState::Running;
        Ok(())
    }

    fn destroy(&self, _: DomId) -> Result<(), Error> {
        self.fails(Fault::Destroy)?;
        let mut state = self.state();
        assert!(state.domains.iter().all(|domain| domain.state == RunState::Paused), "a domain that ran is destroyed");
        state.domains.clear();
        state.primary = false;
        Ok(())
    }

    fn bridges(&self) -> Vec<String> {
        vec!["xenbr0".into()]
    }
}

fn paused(name: String) -> Domain {
    Domain {
        domid: DOMID,
        name,
        uuid: UUID,
        state: RunState::Paused,
        memory_kib: 128 << 10,
        memory_max_kib: 128 << 10,
        vcpus: 1,
        cpu_time: Duration::ZERO,
    }
}

impl Replication for StandIn {
    fn resolve(&self, target: &str) -> Result<Option<VolumeId>, Error> {
        Ok((target == volume().to_string()).then(volume))
    }

    fn state(&self, wanted: &VolumeId) -> Result<Option<VolumeState>, Error> {
        let state = StandIn::state(self);
        Ok((*wanted == volume()).then(|| VolumeState {
            id: volume(),
            minor: Minor(0),
            size_sectors: SIZE_SECTORS,
            generation: GENERATION,
            primary: state.primary,
            peer_primary: state.peer_primary,
            connected: true,
            connection: "Connected".into(),
            disk: "UpToDate".into(),
            peer_disk: "UpToDate".into(),
            up_to_date: true,
            replication: "Established".into(),
            resync_done: None,
            resyncing: false,
            protocol: Some('C'),
            two_primaries: state.two_allowed,
            standalone: false,
            out_of_sync_sectors: 0,
            peer: "node1".into(),
            counters: Counters::default(),
        }))
    }

    fn attachment(&self, _: &VolumeId) -> Result<Attachment, Error> {
        Ok(Attachment::Layer)
    }

    fn holder(&self, _: &VolumeId) -> Result<Option<String>, Error> {
        Ok(None)
    }

    fn wait_idle(&self, _: DomId, _: Instant) -> Result<(), Error> {
        Ok(())
    }

    fn release(&self, _: &VolumeId, _: Instant) -> Result<(), Error> {
        panic!("a destination has nothing to release");
    }

    fn retake(&self, _: &VolumeId, _: Instant) -> Result<(), Error> {
        panic!("a destination has nothing to take back");
    }

    fn abandon(&self, _: &VolumeId) -> Result<(), Error> {
        Ok(())
    }

    fn demote(&self, _: &VolumeId, _: Instant) -> Result<(), Error> {
        let mut state = StandIn::state(self);
        if state.domains.is_empty() {
            state.primary = false;
        }
        Ok(())
    }

    fn allow_two_primaries(&self, resource: &str, allow: bool, _: Instant) -> Result<(), Error> {
        assert_eq!(resource, volume().resource, "a resource that is none of the offer's");
        if !allow {
            self.fails(Fault::ForbidTwoPrimaries)?;
        }
        let mut state = StandIn::state(self);
        state.two_allowed = allow;
        state.peer_primary &= allow || !state.primary;
        Ok(())
    }

    fn link(&self, _: &str) -> Result<Option<Link>, Error> {
        Ok(None)
    }

    fn heal(&self, _: &Link, _: &[VolumeId], _: bool, _: Instant) -> Result<(), Error> {
        Ok(())
    }
}
