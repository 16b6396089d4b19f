//! What the model checker explores: two hosts, their journals, the domain's two copies, the connection of the migration, the
//! replication link, and what has happened so far as far as it decides what may happen.

use bascule::handover::{Answer, Destination, DestinationStage, Ending, Source, SourceStage, Witness};
use bascule::protocol::Handover as Kind;

/// One state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) source: SourceHost,
    pub(crate) destination: DestinationHost,
    pub(crate) wire: Wire,
    /// The network between the daemons is cut: nothing arrives, nothing is answered.
    pub(crate) relocation_cut: bool,
    pub(crate) link: Link,
    pub(crate) facts: Facts,
    /// How many faults may still happen.
    pub(crate) faults_left: u8,
}

/// A host, whichever its part in the migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) up: bool,
    /// Its daemon answers questions and adopts orphans.
    pub(crate) daemon: bool,
    /// It is Primary on the volume.
    pub(crate) primary: bool,
    pub(crate) copy: Copy,
    pub(crate) disk: Disk,
}

/// The source's host and who works there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SourceHost {
    pub(crate) host: Host,
    /// The last durable record.
    pub(crate) stage: SourceStage,
    /// Who holds the journal's lock.
    pub(crate) agent: Option<SourceAgent>,
}

/// The destination's host and who works there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DestinationHost {
    pub(crate) host: Host,
    pub(crate) stage: DestinationStage,
    /// What the disk held when READY was journaled.
    pub(crate) sample: Disk,
    pub(crate) agent: Option<DestinationAgent>,
}

/// The migrating process, or the daemon that has adopted its journal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SourceAgent {
    pub(crate) machine: Source,
    pub(crate) work: SourceWork,
    /// The process itself, which has the connection.
    pub(crate) process: bool,
}

/// The worker, or the daemon that has adopted its journal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DestinationAgent {
    pub(crate) machine: Destination,
    pub(crate) work: DestinationWork,
    pub(crate) process: bool,
}

/// What the source's agent is busy with: the last action, or what comes before the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SourceWork {
    /// Journals RELEASED, becomes Secondary, says so.
    Release,
    Listen,
    Verify,
    Journal(SourceStage),
    SendGo,
    /// An answer that has arrived is not yet acted upon.
    Ask(Option<Answer<DestinationStage>>),
    TakeBack,
    Retire,
    Close(Ending),
}

/// The same for the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DestinationWork {
    /// Makes the copy, hears RELEASED, becomes Primary.
    Restore,
    Journal(DestinationStage),
    SendReady,
    Listen,
    Ask(Option<Answer<SourceStage>>),
    Start,
    Report,
    Finish,
    Discard {
        returns: bool,
    },
    Close(Ending),
}

/// One copy of the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Copy {
    Running,
    /// Suspended at the source, paused at the destination.
    Halted,
    Gone,
}

/// Whose writes since the suspend a host's disk holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    pub(crate) sources: bool,
    pub(crate) destinations: bool,
}

/// The connection of the migration: reliable and in order while both ends live, then what was sent may or may not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wire {
    pub(crate) source_open: bool,
    pub(crate) destination_open: bool,
    pub(crate) to_source: Queue<ToSource>,
    pub(crate) to_destination: Queue<ToDestination>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ToSource {
    Ready,
    Started,
    Returned,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ToDestination {
    Released,
    Held,
    Go,
}

/// What is under way, oldest first. No end has more than two messages to say before it must hear something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Queue<T>(pub(crate) [Option<T>; 2]);

/// DRBD's connection. A host that has not noticed its end believes what it saw last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Link {
    /// The network under it is cut.
    pub(crate) cut: bool,
    pub(crate) connected: bool,
    /// The source believes that it is connected, and that the destination is Primary or not.
    pub(crate) source_believes: Option<bool>,
    /// The destination believes that it is connected.
    pub(crate) destination_believes: bool,
}

/// What has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Facts {
    /// GO was durable.
    pub(crate) go_journaled: bool,
    /// The source was shown by the link that the destination's copy is gone and never wrote.
    pub(crate) witnessed: bool,
    /// The operator said at the source, truly, that the destination's host is down.
    pub(crate) destination_declared_dead: bool,
    /// The same at the destination.
    pub(crate) source_declared_dead: bool,
    /// The source's copy died with its host.
    pub(crate) source_copy_lost: bool,
    /// The destination's copy died with its host, and had run.
    pub(crate) destination_copy_lost: bool,
    /// The destination ran the domain because it had asked.
    pub(crate) rolled_forward: bool,
    /// The source has found that its copy fits no disk any more.
    pub(crate) buried: bool,
    /// The source has told a human that it cannot go on alone.
    pub(crate) told: bool,
    pub(crate) wrongs: Wrongs,
}

/// What must never have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Wrongs {
    /// The source resumed after GO without a journaled RETURNED.
    pub(crate) usurped: bool,
    /// The destination started the copy before GO was journaled, and nobody declared the source dead.
    pub(crate) premature: bool,
    /// An image was resumed on a disk that had been written since.
    pub(crate) misfit: bool,
    /// An image was resumed although the other copy had written, and nobody declared that one's host dead.
    pub(crate) forgotten: bool,
    /// The source destroyed its copy as unfit for its disk, which nobody had written.
    pub(crate) wasted: bool,
}

impl World {
    /// The stream has ended: the domain is suspended at the source, the destination is about to attach its disks.
    pub(crate) fn begin(faults_left: u8) -> World {
        let host = |primary| Host { up: true, daemon: true, primary, copy: Copy::Halted, disk: Disk::default() };
        World {
            source: SourceHost {
                host: host(true),
                stage: SourceStage::Open,
                agent: Some(SourceAgent { machine: Source::AwaitReady, work: SourceWork::Release, process: true }),
            },
            destination: DestinationHost {
                host: host(false),
                stage: DestinationStage::Open,
                sample: Disk::default(),
                agent: Some(DestinationAgent {
                    machine: Destination::Restoring,
                    work: DestinationWork::Restore,
                    process: true,
                }),
            },
            wire: Wire {
                source_open: true,
                destination_open: true,
                to_source: Queue([None; 2]),
                to_destination: Queue([None; 2]),
            },
            relocation_cut: false,
            link: Link { cut: false, connected: true, source_believes: None, destination_believes: false },
            facts: Facts::default(),
            faults_left,
        }
    }

    /// Both journals are closed: nobody will act any more.
    pub(crate) fn closed(&self) -> bool {
        matches!(self.source.stage, SourceStage::Done(_)) && matches!(self.destination.stage, DestinationStage::Done(_))
    }

    pub(crate) fn ended(&self, source: SourceStage, destination: DestinationStage) -> bool {
        self.source.stage == source && self.destination.stage == destination
    }

    pub(crate) fn both_primary(&self) -> bool {
        self.source.host.primary && self.destination.host.primary
    }

    pub(crate) fn running(&self) -> usize {
        [self.source.host.copy, self.destination.host.copy].into_iter().filter(|copy| *copy == Copy::Running).count()
    }

    /// What the source sees of the link.
    pub(crate) fn witness(&self) -> Witness {
        let Link { connected, source_believes, .. } = self.link;
        Witness {
            connected: connected || source_believes.is_some(),
            peer_primary: if connected { self.destination.host.primary } else { source_believes.unwrap_or(false) },
            written: self.source.host.disk.destinations,
        }
    }

    /// What the destination sees of it.
    pub(crate) fn replication_up(&self) -> bool {
        self.link.connected || self.link.destination_believes
    }

    /// DRBD lets a host become Primary when it knows that its peer is not, or that there is none.
    pub(crate) fn promote_source(&mut self) -> bool {
        let allowed = match self.link.connected {
            true => !self.destination.host.primary,
            false => self.link.source_believes.is_none(),
        };
        self.source.host.primary |= allowed;
        allowed
    }

    /// Two Primaries are allowed for as long as a dual-primary handover needs them.
    pub(crate) fn promote_destination(&mut self, kind: Kind) -> bool {
        let allowed = match self.link.connected {
            true => kind == Kind::Dual || !self.source.host.primary,
            false => !self.link.destination_believes,
        };
        self.destination.host.primary |= allowed;
        allowed
    }

    /// The source's guest goes on where it was suspended.
    pub(crate) fn resume_source(&mut self) {
        self.facts.wrongs.usurped |= self.facts.go_journaled && self.source.stage != SourceStage::Returned;
        self.facts.wrongs.misfit |= self.source.host.disk.destinations;
        self.facts.wrongs.forgotten |= self.destination.host.disk.destinations && !self.facts.destination_declared_dead;
        self.source.host.copy = Copy::Running;
    }

    /// The destination's copy runs for the first time.
    pub(crate) fn start_destination(&mut self) {
        let declared = self.facts.source_declared_dead;
        self.facts.wrongs.premature |= !self.facts.go_journaled && !declared;
        self.facts.wrongs.misfit |= self.destination.host.disk.sources;
        self.facts.wrongs.forgotten |= self.source.host.disk.sources && !declared;
        self.destination.host.copy = Copy::Running;
    }

    /// RETURNED rests on the destination's own word, the link's or the operator's.
    pub(crate) fn return_is_founded(&self) -> bool {
        let given =
            matches!(self.destination.stage, DestinationStage::Aborted | DestinationStage::Done(Ending::Returned));
        let Facts { witnessed, destination_declared_dead, .. } = self.facts;
        self.source.stage != SourceStage::Returned || given || witnessed || destination_declared_dead
    }

    /// Nobody runs the domain, and it is no wonder.
    pub(crate) fn loss_is_explained(&self) -> bool {
        self.facts.source_copy_lost || self.facts.destination_copy_lost
    }
}

impl Host {
    pub(crate) fn answers(self) -> bool {
        self.up && self.daemon
    }
}

impl Wire {
    pub(crate) fn close_source(&mut self) {
        self.source_open = false;
        self.to_source = Queue([None; 2]);
    }

    pub(crate) fn close_destination(&mut self) {
        self.destination_open = false;
        self.to_destination = Queue([None; 2]);
    }

    pub(crate) fn tell_source(&mut self, message: ToSource) {
        if self.source_open && self.destination_open {
            self.to_source.push(message);
        }
    }

    pub(crate) fn tell_destination(&mut self, message: ToDestination) {
        if self.source_open && self.destination_open {
            self.to_destination.push(message);
        }
    }
}

impl<T: Copied> Queue<T> {
    pub(crate) fn first(self) -> Option<T> {
        self.0[0]
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let [first, second] = self.0;
        self.0 = [second, None];
        first
    }

    fn push(&mut self, message: T) {
        let free = self.0.iter_mut().find(|place| place.is_none());
        *free.expect("no end says more than two things unheard") = Some(message);
    }
}

/// A message; the name `Copy` is the domain's here.
pub(crate) trait Copied: std::marker::Copy {}
impl<T: std::marker::Copy> Copied for T {}
