//! Two hosts in one process: a toolstack and a replication whose every change is checked against the invariants.
//!
//! This stands for Xen and DRBD only where the story of a migration is told; what Xen and DRBD really do is tested in the lab.

mod drbd;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bascule::admission::{self, Asker};
use bascule::ids::{DomId, VolumeId};
use bascule::plan::DomainFacts;
use bascule::replication::{Attachment, Replication};
use bascule::toolstack::{self, Abort, Domain, OnStream, RunState, StreamEvent, StreamProgress, Toolstack};
use uuid::Uuid;

/// The domain that moves.
pub(crate) const NAME: &str = "vm0";
/// Its number at the source.
pub(crate) const DOMID: DomId = DomId(3);
/// Bytes of the stand-in for the memory stream; the last one ends it.
pub(crate) const STREAM: &[u8] = b"memory and then its end.";

/// Where something is made to fail, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    SaveBeforeSuspend,
    SaveAfterSuspend,
    WaitIdle,
    Withdraw,
    Demote,
    RestoreOfMemory,
    Promote,
    RestoreOfDevices,
    /// The destination wrote before GO, as the counters show.
    ForeignWrite,
    RenameAtSource,
    RenameAtDestination,
    Unpause,
    /// The destination does not forbid two Primaries again, as when its process is gone.
    ForbidAtDestination,
    /// The source's copy has gone and the destination's journal is closed: then DRBD finds a split brain.
    SplitBrain,
}

/// Both hosts.
pub(crate) struct World {
    faults: Mutex<Vec<Fault>>,
    state: Mutex<State>,
    attachment: Attachment,
}

#[derive(Default)]
struct State {
    ends: [End; 2],
    connection_allows_two: bool,
    both_primary_seen: bool,
    alone_seen: bool,
}

#[derive(Default)]
struct End {
    domains: Vec<Domain>,
    primary: bool,
    withdrawn: bool,
    /// StandAlone.
    alone: bool,
    /// Takes the other end's data when they meet.
    gives_up: bool,
    received: u64,
    free_kib: u64,
    /// Where its records and journals are.
    dir: PathBuf,
}

/// What is left when both ends have come to rest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    pub(crate) running_at: Vec<usize>,
    pub(crate) domains_at: [usize; 2],
    pub(crate) primary_at: Vec<usize>,
    pub(crate) alone_at: Vec<usize>,
    pub(crate) two_allowed: bool,
    pub(crate) both_primary_seen: bool,
    pub(crate) alone_seen: bool,
}

impl World {
    pub(crate) fn new(faults: &[Fault], attachment: Attachment) -> Arc<World> {
        let mut state = State::default();
        state.ends[0].primary = true;
        state.ends[0].domains.push(domain(DOMID, NAME, RunState::Running));
        state.ends.iter_mut().for_each(|end| end.free_kib = 1 << 20);
        Arc::new(World { faults: Mutex::new(faults.to_vec()), state: Mutex::new(state), attachment })
    }

    pub(crate) fn end(self: &Arc<World>, end: usize, dir: &Path) -> Side {
        dir.clone_into(&mut self.state().ends[end].dir);
        Side { world: Arc::clone(self), end }
    }

    /// Lets another domain of that name exist at the destination.
    pub(crate) fn take_name(&self) {
        self.state().ends[1].domains.push(domain(DomId(9), NAME, RunState::Running));
    }

    /// Leaves the destination almost no memory.
    pub(crate) fn take_memory(&self) {
        self.state().ends[1].free_kib = 1;
    }

    pub(crate) fn rest(&self) -> Rest {
        let state = self.state();
        let running = |end: &usize| state.ends[*end].domains.iter().any(|domain| domain.state == RunState::Running);
        Rest {
            running_at: (0..2).filter(running).collect(),
            domains_at: [state.ends[0].domains.len(), state.ends[1].domains.len()],
            primary_at: (0..2).filter(|end| state.ends[*end].primary).collect(),
            alone_at: (0..2).filter(|end| state.ends[*end].alone).collect(),
            two_allowed: state.connection_allows_two,
            both_primary_seen: state.both_primary_seen,
            alone_seen: state.alone_seen,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails(&self, here: Fault) -> Result<(), toolstack::Error> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = faults.iter().position(|fault| *fault == here) else { return Ok(()) };
        faults.remove(found);
        Err(format!("{here:?} was made to fail").into())
    }
}

impl State {
    /// I1 and I5, after every change.
    fn check(&mut self) {
        let running: usize = self.ends.iter().map(End::running).sum();
        assert!(running <= 1, "the domain runs twice");
        let both = self.ends.iter().all(|end| end.primary);
        assert!(!both || self.connection_allows_two, "two Primaries that nobody allowed");
        self.both_primary_seen |= both;
        self.alone_seen |= self.ends.iter().any(|end| end.alone);
    }
}

impl End {
    fn running(&self) -> usize {
        self.domains.iter().filter(|domain| domain.uuid == uuid() && domain.state == RunState::Running).count()
    }

    fn find(&mut self, domid: DomId) -> Result<&mut Domain, toolstack::Error> {
        self.domains.iter_mut().find(|domain| domain.domid == domid).ok_or_else(|| "no such domain".into())
    }
}

fn uuid() -> Uuid {
    Uuid::from_u128(7)
}

fn domain(domid: DomId, name: &str, state: RunState) -> Domain {
    let uuid = if domid == DomId(9) { Uuid::from_u128(9) } else { uuid() };
    Domain {
        domid,
        name: name.into(),
        uuid,
        state,
        memory_kib: 128 << 10,
        memory_max_kib: 128 << 10,
        vcpus: 1,
        cpu_time: Duration::ZERO,
    }
}

/// One host's view: both traits.
pub(crate) struct Side {
    world: Arc<World>,
    end: usize,
}

impl Side {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.world.state();
        let result = change(&mut state);
        state.check();
        result
    }

    fn here<T>(&self, change: impl FnOnce(&mut End) -> T) -> T {
        self.change(|state| change(&mut state.ends[self.end]))
    }

    fn promote(&self, deadline: Instant) -> Result<(), toolstack::Error> {
        loop {
            let promoted = self.change(|state| {
                let refused = state.ends[1 - self.end].primary && !state.connection_allows_two;
                state.ends[self.end].primary |= !refused;
                !refused
            });
            match promoted {
                true => return Ok(()),
                false if Instant::now() > deadline => return Err("State change failed: the peer is Primary".into()),
                false => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// What `block-drbd add` does.
    fn attach(&self, name: &str, volume: &VolumeId) -> Result<(), toolstack::Error> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let ticket = admission::lookup(&self.here(|end| end.dir.clone()), volume)?.ok_or("no record of a migration")?;
        ticket.ask(&Asker { volume: volume.clone(), domid: DomId(5), domain: name.into() }, deadline)?;
        self.world.fails(Fault::Promote)?;
        self.promote(deadline)
    }

    fn try_restore(&self, config: &str, mut stream: TcpStream) -> Result<(), toolstack::Error> {
        let mut memory = [0; STREAM.len()];
        stream.read_exact(&mut memory)?;
        self.world.fails(Fault::RestoreOfMemory)?;
        let facts = DomainFacts::from_json(config)?;
        let volume = self.resolve(&facts.disks[0].target)?.ok_or("no volume")?;
        self.attach(&facts.name, &volume)?;
        self.world.fails(Fault::RestoreOfDevices)
    }
}

struct Nothing;

impl Abort for Nothing {
    fn abort(&self) {}
}

impl Toolstack for Side {
    fn domains(&self) -> Result<Vec<Domain>, toolstack::Error> {
        Ok(self.here(|end| end.domains.clone()))
    }

    fn domain(&self, domid: DomId) -> Result<Option<Domain>, toolstack::Error> {
        Ok(self.here(|end| end.find(domid).ok().cloned()))
    }

    fn config(&self, _: DomId) -> Result<String, toolstack::Error> {
        let target = match self.world.attachment {
            Attachment::Layer => "r0",
            Attachment::Direct => "/dev/drbd0",
        };
        let disk = serde_json::json!({ "vdev": "xvda", "pdev_path": target, "script": "block-drbd" });
        let info = serde_json::json!({ "type": "pv", "name": NAME, "uuid": uuid() });
        Ok(serde_json::json!({ "c_info": info, "disks": [disk] }).to_string())
    }

    fn free_memory_kib(&self) -> Result<u64, toolstack::Error> {
        Ok(self.here(|end| end.free_kib))
    }

    fn memory_needed_kib(&self, _: &str) -> Result<u64, toolstack::Error> {
        Ok(128 << 10)
    }

    fn live_migration_obstacle(&self, _: DomId) -> Result<Option<String>, toolstack::Error> {
        Ok(None)
    }

    fn save(
        &self,
        domid: DomId,
        fd: BorrowedFd<'_>,
        events: OnStream,
        handle: &dyn Fn(Arc<dyn Abort>),
    ) -> Result<(), toolstack::Error> {
        handle(Arc::new(Nothing));
        let mut stream = TcpStream::from(fd.try_clone_to_owned()?);
        self.world.fails(Fault::SaveBeforeSuspend)?;
        stream.write_all(&STREAM[..10])?;
        events(StreamEvent::Progress(StreamProgress { round: 0, done: 10, total: 10 }));
        self.here(|end| end.find(domid).map(|domain| domain.state = RunState::Suspended))?;
        events(StreamEvent::Suspended);
        self.world.fails(Fault::SaveAfterSuspend)?;
        Ok(stream.write_all(&STREAM[10..])?)
    }

    fn restore(
        &self,
        config: &str,
        fd: BorrowedFd<'_>,
        _: OnStream,
        handle: &dyn Fn(Arc<dyn Abort>),
    ) -> Result<DomId, toolstack::Error> {
        handle(Arc::new(Nothing));
        let restored = self.try_restore(config, TcpStream::from(fd.try_clone_to_owned()?));
        let name = DomainFacts::from_json(config)?.name;
        self.here(|end| match &restored {
            Ok(()) => end.domains.push(domain(DomId(5), &name, RunState::Paused)),
            Err(_) => end.primary = false,
        });
        restored.map(|()| DomId(5))
    }

    fn stop_log_dirty(&self, _: DomId) {}

    fn resume(&self, domid: DomId) -> Result<(), toolstack::Error> {
        self.here(|end| {
            assert!(end.primary && !end.withdrawn, "resumed without its disk");
            end.find(domid).map(|domain| {
                assert_eq!(domain.state, RunState::Suspended, "only what is suspended is resumed");
                domain.state = RunState::Running;
            })
        })
    }

    fn rename(&self, domid: DomId, old: &str, new: &str) -> Result<(), toolstack::Error> {
        self.world.fails(if self.end == 0 { Fault::RenameAtSource } else { Fault::RenameAtDestination })?;
        self.here(|end| {
            end.find(domid).map(|domain| {
                assert_eq!(domain.name, old);
                domain.name = new.into();
            })
        })
    }

    fn unpause(&self, domid: DomId) -> Result<(), toolstack::Error> {
        self.world.fails(Fault::Unpause)?;
        self.here(|end| {
            assert!(end.primary, "started without its disk");
            end.find(domid).map(|domain| domain.state = RunState::Running)
        })
    }

    /// As libxl does with its hotplug program: the domain goes, its volumes are let go.
    fn destroy(&self, domid: DomId) -> Result<(), toolstack::Error> {
        self.here(|end| {
            end.domains.retain(|domain| domain.domid != domid);
            end.primary = false;
        });
        self.split_brain();
        Ok(())
    }
}
