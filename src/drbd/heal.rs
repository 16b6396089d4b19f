//! Healing: a resource that a split brain made StandAlone is connected again, with what [`Link`] remembers.
//!
//! Each host looks at its own end and takes one step at a time until the two are connected or resync. The side that keeps its data is
//! often StandAlone, the other one waits; where the keeper meets the other before that has said that it gives up its data, DRBD finds the
//! split brain again and parts them: then the keeper tries again, with pauses, since each try may call the administrator's split-brain handler.
//!
//! Invariant: nothing is ever given up that only this host has. Whatever the caller has proven, a sacrifice is refused while this host is
//! Primary or its bitmap knows of a write that the peer does not have.

use std::thread;
use std::time::{Duration, Instant};

use drbd_nl::{
    ConnectionState, ConnectionStatus, Dialect, DiskState, Refusal, ReplState, ResourceStatus, Role, VolumeStatus,
};

use crate::ids::VolumeId;
use crate::replication::Link;

/// Between two looks at the connection.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Between the first and the second attempt to connect; doubled after each.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause between two attempts.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Why a resource was not connected again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The link does not know the secret with which the peers recognise each other.
    #[error("{resource} cannot be connected: its shared secret is not known here. Type: {}", by_hand(resource, *sacrifice))]
    SecretUnknown {
        /// The resource.
        resource: String,
        /// Whether this host's data was to be given up.
        sacrifice: bool,
    },
    /// The kernel has no such resource.
    #[error("Resource {resource} is not configured in the kernel")]
    NoResource {
        /// The resource.
        resource: String,
    },
    /// The resource has no such volume.
    #[error("Volume {volume} is not configured in the kernel")]
    NoVolume {
        /// The volume.
        volume: VolumeId,
    },
    /// A Primary's data is in use.
    #[error("Data of {resource} cannot be given up here: volume {volume} is Primary")]
    Primary {
        /// The resource.
        resource: String,
        /// Its volume.
        volume: u32,
    },
    /// Data would be lost.
    #[error(
        "Data of {resource} must not be given up here: volume {volume} has {sectors} sectors that its peer has not"
    )]
    OnlyHere {
        /// The resource.
        resource: String,
        /// Its volume.
        volume: u32,
        /// What only this host has, in sectors of 512 bytes.
        sectors: u64,
    },
    /// The deadline has passed.
    #[error("{resource} was not connected in time: it is {found}")]
    NotConnected {
        /// The resource.
        resource: String,
        /// What the connection was doing last.
        found: String,
        /// DRBD's last refusal.
        #[source]
        source: Option<Box<drbd_nl::Error>>,
    },
    /// DRBD refused, or did not answer.
    #[error("{resource} could not be connected")]
    Drbd {
        /// The resource.
        resource: String,
        /// Why.
        #[source]
        source: Box<drbd_nl::Error>,
    },
}

/// What an administrator types instead.
fn by_hand(resource: &str, sacrifice: bool) -> String {
    let discard = if sacrifice { "--discard-my-data " } else { "" };
    format!("drbdadm disconnect {resource}; drbdadm connect {discard}{resource}")
}

/// One resource that is being healed.
pub(super) struct Healing<'a> {
    pub(super) link: &'a Link,
    pub(super) volumes: &'a [VolumeId],
    pub(super) sacrifice: bool,
    attempts: Attempts,
}

/// What brings the connection nearer to its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is there.
    Done,
    /// DRBD is at work, or the peer has yet to come.
    Wait,
    /// There is no connection.
    Connect,
    /// It waits for the peer without saying that it gives up its data.
    Disconnect,
    /// It waits for the peer with an option that the peer will not have.
    PutBack,
}

impl<'a> Healing<'a> {
    pub(super) fn new(link: &'a Link, volumes: &'a [VolumeId], sacrifice: bool) -> Healing<'a> {
        Healing { link, volumes, sacrifice, attempts: Attempts::default() }
    }

    /// Takes steps until the resource is connected. `ask` runs something on the kernel's DRBD.
    pub(super) fn run(mut self, netlink: &super::Drbd, deadline: Instant) -> Result<(), Error> {
        self.check_volumes(&self.look(&mut netlink.netlink())?)?;
        loop {
            let found = self.step(&mut netlink.netlink())?;
            let Some(found) = found else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(self.late(found));
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// A look and what follows from it. `None` when all is well, else what the connection is doing.
    fn step(&mut self, drbd: &mut drbd_nl::Drbd) -> Result<Option<String>, Error> {
        let now = self.look(drbd)?;
        let step = self.next_step(&now, drbd.dialect());
        tracing::debug!(resource = self.link.resource(), ?step, state = in_words(&now), "healing");
        let result = match step {
            Step::Done => return Ok(None),
            Step::Wait => Ok(()),
            Step::Connect => self.connect(drbd, &now)?,
            Step::Disconnect => self.disconnect(drbd, &now)?,
            Step::PutBack => self.put_back(drbd, &now),
        };
        self.remember(result)?;
        Ok(Some(in_words(&now)))
    }

    fn next_step(&self, now: &ResourceStatus, dialect: Dialect) -> Step {
        match self.connection(now) {
            None => Step::Connect,
            Some(connection) if self.is_healthy(connection) => Step::Done,
            Some(connection) if connection.state.is_connected() => Step::Wait,
            Some(connection) if self.sacrifice && !self.gives_up(connection, dialect) => Step::Disconnect,
            Some(connection) if connection.net.two_primaries != self.link.net.two_primaries => Step::PutBack,
            Some(_) => Step::Wait,
        }
    }

    /// The connection, unless it is StandAlone.
    fn connection<'r>(&self, now: &'r ResourceStatus) -> Option<&'r ConnectionStatus> {
        let ours = |connection: &&ConnectionStatus| connection.peer_node_id == self.link.peer.peer_node_id;
        now.connections.iter().find(ours).filter(|found| found.state != ConnectionState::StandAlone)
    }

    fn is_healthy(&self, connection: &ConnectionStatus) -> bool {
        let volumes = &connection.peer_devices;
        connection.state.is_connected() && !volumes.is_empty() && volumes.iter().all(|peer| is_settled(peer.repl_state))
    }

    /// Whether the connection says that this host gives up its data. 9 does not show that.
    fn gives_up(&self, connection: &ConnectionStatus, dialect: Dialect) -> bool {
        match dialect {
            Dialect::V84 => connection.net.discard_my_data == Some(true),
            Dialect::V9 => self.attempts.count > 0,
        }
    }

    fn connect(&mut self, drbd: &mut drbd_nl::Drbd, now: &ResourceStatus) -> Result<Outcome, Error> {
        if !self.attempts.is_due() {
            return Ok(Ok(()));
        }
        self.check_secret()?;
        self.check_sacrifice(now)?;
        self.attempts.count();
        Ok(drbd.connect(&self.link.peer, &self.link.options(), self.sacrifice))
    }

    /// Only who can connect again afterwards disconnects.
    fn disconnect(&self, drbd: &mut drbd_nl::Drbd, now: &ResourceStatus) -> Result<Outcome, Error> {
        self.check_secret()?;
        self.check_sacrifice(now)?;
        Ok(drbd.disconnect(&self.link.peer, true).map(drop))
    }

    /// A handover that allowed two Primaries may have died before it forbade them again; the peer connects with what was before.
    fn put_back(&self, drbd: &mut drbd_nl::Drbd, now: &ResourceStatus) -> Outcome {
        match (self.connection(now), self.link.net.two_primaries) {
            (Some(connection), Some(allowed)) => drbd.set_two_primaries(self.link.resource(), connection, allowed),
            _ => Ok(()),
        }
    }

    /// Refusals that the next look may find gone are kept for the end; others end it now.
    fn remember(&mut self, result: Outcome) -> Result<(), Error> {
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.refusal().is_some_and(may_pass) => {
                self.attempts.refusal = Some(error);
                Ok(())
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn look(&self, drbd: &mut drbd_nl::Drbd) -> Result<ResourceStatus, Error> {
        let resource = self.link.resource();
        let found = drbd.resource(resource).map_err(|error| self.failed(error))?;
        found.ok_or_else(|| Error::NoResource { resource: resource.to_owned() })
    }

    fn check_volumes(&self, now: &ResourceStatus) -> Result<(), Error> {
        let ours = self.volumes.iter().filter(|volume| volume.resource == now.name);
        let known = |volume: &VolumeId| now.volumes.iter().any(|other| other.volume == u32::from(volume.volume));
        match ours.into_iter().find(|volume| !known(volume)) {
            Some(volume) => Err(Error::NoVolume { volume: volume.clone() }),
            None => Ok(()),
        }
    }

    fn check_secret(&self) -> Result<(), Error> {
        match self.link.secret_unknown() {
            true => Err(Error::SecretUnknown { resource: self.link.resource().to_owned(), sacrifice: self.sacrifice }),
            false => Ok(()),
        }
    }

    /// All volumes of the resource, not only those of the domain: one connection carries them all.
    fn check_sacrifice(&self, now: &ResourceStatus) -> Result<(), Error> {
        let resource = now.name.clone();
        for volume in now.volumes.iter().filter(|_| self.sacrifice) {
            let (resource, number) = (resource.clone(), volume.volume);
            if volume.role.unwrap_or(now.role) == Role::Primary {
                return Err(Error::Primary { resource, volume: number });
            }
            match only_here(now, volume) {
                0 => {}
                sectors => return Err(Error::OnlyHere { resource, volume: number, sectors }),
            }
        }
        Ok(())
    }

    fn failed(&self, source: drbd_nl::Error) -> Error {
        Error::Drbd { resource: self.link.resource().to_owned(), source: Box::new(source) }
    }

    fn late(self, found: String) -> Error {
        let source = self.attempts.refusal.map(Box::new);
        Error::NotConnected { resource: self.link.resource().to_owned(), found, source }
    }
}

type Outcome = Result<(), drbd_nl::Error>;

/// How often it was tried, and when it may be tried again.
#[derive(Debug, Default)]
struct Attempts {
    count: u32,
    due: Option<Instant>,
    refusal: Option<drbd_nl::Error>,
}

impl Attempts {
    fn is_due(&self) -> bool {
        self.due.is_none_or(|due| Instant::now() >= due)
    }

    fn count(&mut self) {
        let pause = RETRY_PAUSE_MIN.saturating_mul(2_u32.saturating_pow(self.count)).min(RETRY_PAUSE_MAX);
        self.count = self.count.saturating_add(1);
        self.due = Some(Instant::now() + pause);
    }
}

/// What only this host has, in sectors. A resync that was interrupted has left bits, too, but nothing worth keeping.
fn only_here(now: &ResourceStatus, volume: &VolumeStatus) -> u64 {
    if volume.disk_state == DiskState::Inconsistent {
        return 0;
    }
    super::out_of_sync_sectors(now, volume)
}

/// The two have agreed on what this volume's connection does; before that a split brain can still be found.
fn is_settled(state: ReplState) -> bool {
    let congested = matches!(state, ReplState::Ahead | ReplState::Behind);
    state.is_established() || state.is_resync() || state.is_verify() || congested
}

/// Refusals of a state that is still changing, or that the next look understands better.
fn may_pass(refusal: Refusal) -> bool {
    use Refusal::{
        AlreadyStandAlone, DiscardImpossible, InvalidRequest, LocalAddressInUse, NeedAllowTwoPrimaries, NetConfigured,
        PeerAddressInUse,
    };
    refusal.is_transient()
        || matches!(
            refusal,
            AlreadyStandAlone
                | DiscardImpossible
                | InvalidRequest
                | LocalAddressInUse
                | NeedAllowTwoPrimaries
                | NetConfigured
                | PeerAddressInUse
        )
}

fn in_words(now: &ResourceStatus) -> String {
    let Some(connection) = now.connections.first() else { return "StandAlone".to_owned() };
    let volumes = connection.peer_devices.iter().map(|peer| format!("volume {} {}", peer.volume, peer.repl_state));
    let volumes: Vec<String> = volumes.collect();
    format!("{} ({})", connection.state, volumes.join(", "))
}
